package safefs

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
)

// Two customers, and the group of each. No user of that number has to exist.
const (
	acme = 23001
	beta = 23002
)

// customers are the tenants of the tests.
func customers(uid int) (int, error) {
	if uid == acme || uid == beta {
		return uid, nil
	}
	return 0, errors.New("who is no customer")
}

// tree makes a folder that is root's with a folder inside that customers have
// nothing to do with, and opens the first.
func tree(t *testing.T) (dir string, opened *Dir) {
	t.Helper()
	testkit.NeedRoot(t)
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // customers come through
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	mkdir(t, dir, "outside", 0, 0o755)
	write(t, filepath.Join(dir, "outside", "secret"), "secret\n", 0o600)
	mkdir(t, dir, "outside/inner", beta, 0o700)
	write(t, filepath.Join(dir, "outside", "inner", "page"), "beta's\n", 0o644)
	mkdir(t, dir, "home", 0, 0o755)
	return dir, open(t, filepath.Join(dir, "home"), false)
}

func open(t *testing.T, path string, mounts bool) *Dir {
	t.Helper()
	d, err := OpenRoot(path, mounts, customers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func mkdir(t *testing.T, dir, name string, owner int, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, owner, owner), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// snapshot describes everything below a folder: names, types, owners, modes,
// number of names, and what files hold.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&all, "%s %s %d:%d %d", path, info.Mode(), st.Uid, st.Gid, st.Nlink)
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&all, " %q", text)
		}
		all.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func wantRefused(t *testing.T, err error, words string) {
	t.Helper()
	if !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v, want a refusal with %q", err, words)
	}
}

func wantLike(t *testing.T, path string, owner int, mode fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	st := info.Sys().(*syscall.Stat_t)
	if int(st.Uid) != owner || info.Mode()&^fs.ModeType != mode || !info.IsDir() {
		t.Errorf("%s is %s of user %d, want a folder with %s of user %d", path, info.Mode(), st.Uid, mode, owner)
	}
}

func TestEnsure(t *testing.T) {
	dir, home := tree(t)
	for i, want := range []bool{true, false} {
		sub, made, err := home.Ensure("acme", Attributes{UID: 0, GID: 0, Mode: 0o751})
		if err != nil || made != want {
			t.Fatalf("call %d: made %v, %v", i, made, err)
		}
		site, made, err := sub.Ensure("site", Attributes{UID: acme, GID: acme, Mode: 0o750})
		if err != nil || made != want {
			t.Fatalf("call %d: made %v, %v", i, made, err)
		}
		if uid, is := site.Tenant(); !is || uid != acme {
			t.Errorf("the folder is that of %d, %v", uid, is)
		}
		// From here on it is acme that works.
		pages, made, err := site.Ensure("htdocs", Attributes{UID: acme, GID: acme, Mode: 0o755, Keep: true})
		if err != nil || made != want {
			t.Fatalf("call %d: made %v, %v", i, made, err)
		}
		_, _, err = pages.Ensure("x", Attributes{UID: beta, GID: beta, Mode: 0o755})
		wantRefused(t, err, "can belong to nobody else")
		_, _, err = pages.Ensure("x", Attributes{UID: acme, GID: 33, Mode: 0o755})
		wantRefused(t, err, "can have no group but")
		_ = errors.Join(sub.Close(), site.Close(), pages.Close())
	}
	wantLike(t, filepath.Join(dir, "home/acme"), 0, 0o751)
	wantLike(t, filepath.Join(dir, "home/acme/site"), acme, 0o750)
	wantLike(t, filepath.Join(dir, "home/acme/site/htdocs"), acme, 0o755)
	if left, _ := filepath.Glob(filepath.Join(dir, "home/.upkeep*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestEnsureGivesNothingAway asks for folders that are there and belong to
// somebody else.
func TestEnsureGivesNothingAway(t *testing.T) {
	dir, home := tree(t)
	mkdir(t, dir, "home/roots", 0, 0o700)
	mkdir(t, dir, "home/betas", beta, 0o750)
	before := snapshot(t, dir)
	for name, want := range map[string]Attributes{
		"roots": {UID: acme, GID: acme, Mode: 0o700},
		"betas": {UID: acme, GID: acme, Mode: 0o750},
	} {
		_, _, err := home.Ensure(name, want)
		wantRefused(t, err, "is there already and belongs to user")
	}
	_, _, err := home.Ensure("new", Attributes{Mode: 0o777})
	wantRefused(t, err, "writable by others")
	_, _, err = home.Ensure("new", Attributes{UID: acme, GID: acme, Mode: 0o750 | fs.ModeSetuid})
	wantRefused(t, err, "permission bits")
	if after := snapshot(t, dir); after != before {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
}

// TestEnsureRepairs holds that a folder of ours gets its mode back, and that a
// customer's own choice of mode is kept where that is asked for.
func TestEnsureRepairs(t *testing.T) {
	dir, home := tree(t)
	path := mkdir(t, dir, "home/acme", 0, 0o700)
	if _, _, err := home.Ensure("acme", Attributes{Mode: 0o751}); err != nil {
		t.Fatal(err)
	}
	wantLike(t, path, 0, 0o751)
	path = mkdir(t, dir, "home/acme/site", acme, 0o700)
	sub, err := home.Walk("acme")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if _, _, err := sub.Ensure("site", Attributes{UID: acme, GID: acme, Mode: 0o755, Keep: true}); err != nil {
		t.Fatal(err)
	}
	wantLike(t, path, acme, 0o700)
}

// TestWhatIsNoFolder plants everything that can have a name where a folder is
// expected.
func TestWhatIsNoFolder(t *testing.T) {
	dir, home := tree(t)
	site := mkdir(t, dir, "home/site", acme, 0o755)
	for _, place := range []string{filepath.Join(dir, "home"), site} {
		outside := filepath.Join(dir, "outside")
		listener, err := net.Listen("unix", filepath.Join(place, "socket"))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if err := errors.Join(
			os.Symlink(outside, filepath.Join(place, "absolute")),
			os.Symlink("../outside", filepath.Join(place, "relative")),
			os.Symlink("/proc/self/root", filepath.Join(place, "magic")),
			os.Symlink("nowhere", filepath.Join(place, "dangling")),
			os.Symlink("loop", filepath.Join(place, "loop")),
			os.WriteFile(filepath.Join(place, "file"), nil, 0o666),
			os.Link(filepath.Join(outside, "secret"), filepath.Join(place, "hardlink")),
			unix.Mkfifo(filepath.Join(place, "fifo"), 0o666),
			unix.Mknod(filepath.Join(place, "device"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot(t, dir)
	in, err := home.Open("site")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for _, name := range []string{"absolute", "relative", "magic", "dangling", "loop", "file", "hardlink", "fifo", "device", "socket"} {
		for _, d := range []*Dir{home, in} {
			_, _, err := d.Ensure(name, Attributes{UID: acme, GID: acme, Mode: 0o755})
			wantRefused(t, err, "is ")
			_, err = d.Open(name)
			wantRefused(t, err, "is ")
			_, err = d.Walk(name + "/inner")
			wantRefused(t, err, "is ")
			if name != "file" { // which is one
				_, err = d.ReadFile(name, 100)
				wantRefused(t, err, "")
			}
		}
		if name != "file" {
			_, err := home.WriteFile(name, []byte("x"), Attributes{Mode: 0o644})
			wantRefused(t, err, "")
		}
		_, err := in.WriteFile(name, []byte("x"), Attributes{Mode: 0o644})
		wantRefused(t, err, "must be root's")
	}
	for _, name := range []string{"", ".", "..", "/", "a/b", "../outside", "site/..", "a\x00b", strings.Repeat("x", 256)} {
		_, _, err := home.Ensure(name, Attributes{UID: acme, GID: acme, Mode: 0o755})
		wantRefused(t, err, "")
		_, err = home.Open(name)
		wantRefused(t, err, "")
		_, err = home.WriteFile(name, nil, Attributes{Mode: 0o644})
		wantRefused(t, err, "")
		wantRefused(t, home.Remove(name), "")
		wantRefused(t, home.Link(name, "x"), "")
		_, err = home.Discard(name, home, "x")
		wantRefused(t, err, "")
		_, err = home.Discard("site", home, name)
		wantRefused(t, err, "")
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
}

func TestOpenRootRefuses(t *testing.T) {
	dir, _ := tree(t)
	mkdir(t, dir, "open", 0, 0o777)
	mkdir(t, dir, "open/below", 0, 0o755)
	mkdir(t, dir, "group", 0, 0o775)
	mkdir(t, dir, "acmes", acme, 0o755)
	mkdir(t, dir, "acmes/below", 0, 0o755)
	mkdir(t, dir, "others", 23999, 0o755)
	if err := os.Symlink("home", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for path, words := range map[string]string{
		"open/below":  "may be written to by others",
		"group":       "may be written to by others",
		"acmes":       "must be root's",
		"acmes/below": "must be root's",
		"others":      "who is no customer",
		"link":        "is a symbolic link",
	} {
		_, err := OpenRoot(filepath.Join(dir, path), false, customers)
		wantRefused(t, err, words)
	}
	for _, path := range []string{"", "home", "/home/", "/a/../b", "/./a"} {
		_, err := OpenRoot(path, false, customers)
		wantRefused(t, err, "must be an absolute path")
	}
}

// TestTenantIsNoMoreThanATenant works in a customer's folder at what only root
// could change.
func TestTenantIsNoMoreThanATenant(t *testing.T) {
	dir, home := tree(t)
	mkdir(t, dir, "home/site", acme, 0o755)
	mkdir(t, dir, "home/site/roots", 0, 0o755)
	mkdir(t, dir, "home/site/betas", beta, 0o700)
	before := snapshot(t, dir)
	site, err := home.Open("site")
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	for _, name := range []string{"roots", "betas"} {
		sub, err := site.Open(name)
		if err == nil {
			_, _, err = sub.Ensure("x", Attributes{UID: acme, GID: acme, Mode: 0o755})
		}
		wantRefused(t, err, "may not be used by user")
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
}

// TestIdentityEndsWithItsThread looks for threads that kept a customer's
// identity.
func TestIdentityEndsWithItsThread(t *testing.T) {
	dir, home := tree(t)
	mkdir(t, dir, "home/site", acme, 0o755)
	site, err := home.Open("site")
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	for i := range 100 {
		sub, _, err := site.Ensure(fmt.Sprint(i), Attributes{UID: acme, GID: acme, Mode: 0o755})
		if err != nil {
			t.Fatal(err)
		}
		_ = sub.Close()
		write(t, filepath.Join(dir, "home", "mine"), "x", 0o644)
		info, err := os.Stat(filepath.Join(dir, "home", "mine"))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Fatalf("a file of root's own is another's: %v, %v", info, err)
		}
		if err := os.Remove(filepath.Join(dir, "home", "mine")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriteFile(t *testing.T) {
	dir, home := tree(t)
	path := filepath.Join(dir, "home", "file")
	want := Attributes{UID: 0, GID: 4, Mode: 0o640}
	write(t, filepath.Join(dir, "home", newName("file")), "left by a kill", 0o600)
	for i, changed := range []bool{true, false} {
		got, err := home.WriteFile("file", []byte("text\n"), want)
		if err != nil || got != changed {
			t.Fatalf("call %d: changed %v, %v", i, got, err)
		}
	}
	text, err := home.ReadFile("file", 5)
	if err != nil || string(text) != "text\n" {
		t.Fatalf("read %q, %v", text, err)
	}
	_, err = home.ReadFile("file", 4)
	wantRefused(t, err, "more than 4 bytes")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := home.WriteFile("file", []byte("text\n"), want); err != nil || !changed {
		t.Errorf("a changed mode was left: %v, %v", changed, err)
	}
	if err := os.Link(path, filepath.Join(dir, "home", "second")); err != nil {
		t.Fatal(err)
	}
	_, err = home.WriteFile("file", []byte("other"), want)
	wantRefused(t, err, "has 2 names")
	if err := errors.Join(home.Remove("second"), home.Remove("second")); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "home")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestAddFile makes files of whoever a folder belongs to, and leaves what is there:
// files, links and folders.
func TestAddFile(t *testing.T) {
	dir, home := tree(t)
	account, _, err := home.Ensure("acme", Attributes{UID: acme, GID: acme, Mode: 0o755})
	if err != nil {
		t.Fatal(err)
	}
	defer account.Close()
	in := filepath.Join(dir, "home", "acme")
	write(t, filepath.Join(in, "theirs"), "theirs", 0o600)
	if err := errors.Join(os.Symlink("../../outside/secret", filepath.Join(in, "link")), os.Mkdir(filepath.Join(in, "folder"), 0o755)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	for _, name := range []string{"theirs", "link", "folder"} {
		if err := account.AddFile(name, []byte("ours"), 0o644); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("what was there has changed:\n%s\nwas\n%s", after, before)
	}
	if err := account.AddFile("new", []byte("ours"), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(filepath.Join(in, "new"))
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if text, err := os.ReadFile(filepath.Join(in, "new")); err != nil || string(text) != "ours" || info.Mode() != 0o644 || st.Uid != acme || st.Gid != acme {
		t.Errorf("it holds %q, %v, as %s of %d:%d", text, err, info.Mode(), st.Uid, st.Gid)
	}
	for _, name := range []string{"../x", "a/b", "..", ""} {
		if err := account.AddFile(name, nil, 0o644); !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%q: %v", name, err)
		}
	}
	// A customer who has closed the folder to itself gets none.
	if err := os.Chmod(in, 0o500); err != nil {
		t.Fatal(err)
	}
	if err := account.AddFile("other", nil, 0o644); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("in a folder that its owner may not write to: %v", err)
	}
}

func TestLinkLeavesWhatIsThere(t *testing.T) {
	dir, home := tree(t)
	mkdir(t, dir, "home/site", acme, 0o755)
	site, err := home.Open("site")
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	for range 2 {
		if err := site.Link("log", "/var/log/x"); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "home/site/log")
	if target, err := os.Readlink(path); err != nil || target != "/var/log/x" {
		t.Errorf("got %q, %v", target, err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != acme {
		t.Errorf("the link is not the customer's: %v", err)
	}
}
