package safefs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep/internal/testkit"
)

// plant makes a tree that is hard to remove: links to the outside, a file that
// is somebody else's too, a FIFO, a closed folder, and folders within folders
// beyond every limit of paths and descriptors.
func plant(t *testing.T, dir, name string) {
	t.Helper()
	site := mkdir(t, dir, name, acme, 0o755)
	outside := filepath.Join(dir, "outside")
	if err := errors.Join(
		os.Symlink(outside, filepath.Join(site, "link")),
		os.Symlink("../../outside/inner", filepath.Join(site, "relative")),
		os.Link(filepath.Join(outside, "inner/page"), filepath.Join(site, "hardlink")),
		unix.Mkfifo(filepath.Join(site, "fifo"), 0o600),
		os.Mkdir(filepath.Join(site, "closed"), 0o700),
		os.WriteFile(filepath.Join(site, "closed/file"), nil, 0),
		os.Chmod(filepath.Join(site, "closed"), 0),
		os.Mkdir(filepath.Join(site, "-rf *\n"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(site, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if err := unix.Mkdirat(fd, "deep", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "deep", unix.O_PATH, 0)
		_ = unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	_ = unix.Close(fd)
}

func TestEmpty(t *testing.T) {
	dir, home := tree(t)
	before := snapshot(t, filepath.Join(dir, "outside"))
	trash, _, err := home.Ensure(".trash", Attributes{Mode: 0o700})
	if err != nil {
		t.Fatal(err)
	}
	defer trash.Close()
	plant(t, dir, "home/site")
	if err := os.Symlink(filepath.Join(dir, "outside"), filepath.Join(dir, "home/link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"site", "link"} {
		found, err := home.Discard(name, trash, name)
		if err != nil || !found {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		if found, err := home.Discard(name, trash, name); err != nil || found {
			t.Fatalf("%s again: %v, %v", name, found, err)
		}
	}
	if err := Empty(context.Background(), trash); err != nil {
		t.Fatal(err)
	}
	if names, err := trash.Names(-1); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	if after := snapshot(t, filepath.Join(dir, "outside")); after != before {
		t.Errorf("the outside changed:\n%s\nwas\n%s", after, before)
	}
}

// TestEmptyUnderARacer removes a tree whose owner has it open and goes on
// swapping in it.
func TestEmptyUnderARacer(t *testing.T) {
	dir, home := tree(t)
	trash, _, err := home.Ensure(".trash", Attributes{Mode: 0o700})
	if err != nil {
		t.Fatal(err)
	}
	defer trash.Close()
	before := snapshot(t, filepath.Join(dir, "outside"))
	removed := 0
	for end := time.Now().Add(racing); time.Now().Before(end); removed++ {
		site := mkdir(t, dir, "home/site", acme, 0o755)
		racer := startRacer(t, acme, site, filepath.Join(dir, "outside"))
		// It works on by relative paths below, which moving does not end.
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			names, err := os.ReadDir(site)
			return len(names) > 1, fmt.Sprint(names, err)
		})
		if found, err := home.Discard("site", trash, "site"); err != nil || !found {
			t.Fatal(found, err)
		}
		if err := Empty(context.Background(), trash); err != nil {
			t.Fatal(err)
		}
		racer.Kill()
	}
	if removed == 0 {
		t.Error("nothing was removed")
	}
	if after := snapshot(t, filepath.Join(dir, "outside")); after != before {
		t.Errorf("the outside changed:\n%s\nwas\n%s", after, before)
	}
}

// TestEmptyLeavesMounts holds that what is mounted in the trash survives.
func TestEmptyLeavesMounts(t *testing.T) {
	dir, home := tree(t)
	trash, _, err := home.Ensure(".trash", Attributes{Mode: 0o700})
	if err != nil {
		t.Fatal(err)
	}
	defer trash.Close()
	site := mkdir(t, dir, "home/.trash/site", acme, 0o755)
	mkdir(t, dir, "home/.trash/site/mounted", acme, 0o755)
	mkdir(t, dir, "home/.trash/other", acme, 0o755)
	mounted := filepath.Join(site, "mounted")
	testkit.NeedThat(t, "to mount", unix.Mount("none", mounted, "tmpfs", 0, ""))
	defer func() { _ = unix.Unmount(mounted, unix.MNT_DETACH) }()
	write(t, filepath.Join(mounted, "kept"), "x", 0o600)
	err = Empty(context.Background(), trash)
	wantRefused(t, err, "in use, such as by a mount")
	if _, err := os.Stat(filepath.Join(mounted, "kept")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "home/.trash/other")); err == nil {
		t.Error("what could be removed was left")
	}
}

// victim does everything that changes anything, over and over, until it is
// killed.
func victim(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	home, err := OpenRoot(filepath.Join(dir, "home"), false, customers)
	fail(err)
	trash, _, err := home.Ensure(".trash", Attributes{Mode: 0o700})
	fail(err)
	for i := 0; ; i++ {
		_, err := home.WriteFile("file", []byte(strings.Repeat(fmt.Sprintln(i), 5000)), Attributes{Mode: 0o640})
		fail(err)
		name := fmt.Sprint("site", i%3)
		site, _, err := home.Ensure(name, Attributes{UID: acme, GID: acme, Mode: 0o750})
		fail(err)
		pages, _, err := site.Ensure("htdocs", Attributes{UID: acme, GID: acme, Mode: 0o755})
		fail(err)
		fail(pages.Link("log", "/var/log/x"))
		fail(errors.Join(site.Close(), pages.Close()))
		_, err = home.Discard(name, trash, fmt.Sprintf("%d-%x", i, rand.Uint64()))
		fail(err)
		fail(Empty(context.Background(), trash))
	}
}

// TestKill kills a process at work at random instants, and holds that what it
// leaves is the old or the new state, and that the same work done again ends as
// if nothing had happened.
func TestKill(t *testing.T) {
	dir, home := tree(t)
	program := binary(t)
	for range 30 {
		p := testkit.Command{Argv: []string{program, dir}, Env: []string{"SAFEFS_TEST_ROLE=victim"}, Dir: "/"}.Start(t)
		select {
		case <-p.Done():
			t.Fatalf("it ended by itself: %s", p.Log())
		case <-time.After(time.Duration(20+rand.IntN(60)) * time.Millisecond):
		}
		p.Kill()
		for i := range 3 {
			path := filepath.Join(dir, "home", fmt.Sprint("site", i))
			if _, err := os.Lstat(path); err == nil {
				wantLike(t, path, acme, 0o750) // never one without owner or mode
			}
		}
		text, err := os.ReadFile(filepath.Join(dir, "home/file"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if err != nil || string(text) != strings.Repeat(first+"\n", 5000) {
			t.Fatalf("half a file: %d bytes, %v", len(text), err)
		}
	}
	if _, err := home.WriteFile("file", []byte("end"), Attributes{Mode: 0o640}); err != nil {
		t.Error(err)
	}
	for i := range 3 {
		sub, _, err := home.Ensure(fmt.Sprint("site", i), Attributes{UID: acme, GID: acme, Mode: 0o750})
		if err != nil {
			t.Fatal(err)
		}
		_ = sub.Close()
	}
	trash, _, err := home.Ensure(".trash", Attributes{Mode: 0o700})
	if err != nil {
		t.Fatal(err)
	}
	defer trash.Close()
	if err := Empty(context.Background(), trash); err != nil {
		t.Error(err)
	}
	names, err := home.Names(-1)
	if err != nil || len(names) != 5 {
		t.Errorf("left: %v, %v", names, err)
	}
}
