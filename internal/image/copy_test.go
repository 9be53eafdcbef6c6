package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/mount"
	"upkeep/internal/testkit"
)

// planted is a folder with a bit of everything.
func planted(t *testing.T) string {
	t.Helper()
	testkit.NeedRoot(t)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "etc/.d"), 0o750))
	for i := range 40 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("etc/file%d", i)), []byte(strings.Repeat("text ", i*i)), 0o640))
	}
	must(t, errors.Join(os.WriteFile(filepath.Join(dir, ".top"), nil, 0o600), os.Link(filepath.Join(dir, "etc/file3"), filepath.Join(dir, "hard")),
		os.Symlink("etc/file4", filepath.Join(dir, "soft")), unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		os.Chown(filepath.Join(dir, "etc"), 1234, 5678), unix.Setxattr(filepath.Join(dir, "etc/file5"), "trusted.a", []byte("b"), 0)))
	hole, err := os.Create(filepath.Join(dir, "hole"))
	must(t, err)
	_, err = hole.WriteAt([]byte("x"), 5<<20)
	must(t, errors.Join(err, hole.Truncate(9<<20), hole.Close()))
	old := []unix.Timespec{{Sec: -12345, Nsec: 678}, {Sec: -12345, Nsec: 678}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "etc"), old, 0))
	return dir
}

// TestCopyAnyToAny goes through all types, and comes back to a folder.
func TestCopyAnyToAny(t *testing.T) {
	source := planted(t)
	folder := t.TempDir()
	from := source
	for _, name := range []string{"ext4", "xfs", "btrfs", "ext3", "ext2"} {
		need(t, name)
		to := filepath.Join(folder, name+".img")
		result := run(t)(Copy(from, to, Copying{FS: name, Verify: true})).(Copied)
		if !result.Verified || result.Entries < 48 { // and the first one's lost+found
			t.Errorf("from %s to %s: %+v", from, to, result)
		}
		inOrder(t, to, name)
		from = to
	}
	back := filepath.Join(folder, "back")
	must(t, os.Mkdir(back, 0o755))
	if result := run(t)(Copy(from, back, Copying{Verify: true})).(Copied); !result.Verified {
		t.Errorf("back to a folder: %+v", result)
	}
	out, err := exec.Command("diff", "-r", "--no-dereference", "-x", "null", "-x", "lost+found", source, back).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(back, "etc"), &st))
	if st.Uid != 1234 || st.Mtim.Sec != -12345 {
		t.Errorf("the folder has owner %d and time %v", st.Uid, st.Mtim)
	}
	list, err := os.ReadDir(folder)
	must(t, err)
	if len(list) != 6 {
		t.Errorf("there is more than was made: %v", list)
	}
}

// TestCopyIntoImage copies into an image that holds files, which stay.
func TestCopyIntoImage(t *testing.T) {
	source := planted(t)
	for _, kind := range kinds {
		path := made(t, Creation{Size: 64 * mib, Kind: kind, FS: "ext4"})
		sums := fill(t, path, "ext4")
		before := print(t, path)
		w, err := Copy(source, path, Copying{})
		must(t, err)
		if err := w.Do(context.Background(), nil); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("copying over files: %v", err)
		}
		must(t, w.Close())
		if after := print(t, path); after != before {
			t.Errorf("a copy that was refused changed the image: %s, was %s", after, before)
		}
		run(t)(Copy(source, path, Copying{Merge: true}))
		inOrder(t, path, "ext4")
		holds(t, path, "ext4", sums)
		if d := look(t, path); d.Kind != kind {
			t.Errorf("the image is %s, and was %s", d.Kind, kind)
		}
		onlyFile(t, path)
	}
}

// TestCopyTellsWhatIsLost goes to a file system that has no nanoseconds.
func TestCopyTellsWhatIsLost(t *testing.T) {
	source := planted(t)
	need(t, "ext3")
	path := filepath.Join(t.TempDir(), "old.img")
	w, err := Copy(source, path, Copying{FS: "ext3", Size: 32 * mib, Options: filesystem.Options{Profile: "xen-2010"}, Verify: true})
	must(t, err)
	defer w.Close()
	var notes []string
	must(t, w.Do(context.Background(), func(e upkeep.ImageEvent) {
		if e.Event == upkeep.ImageNote {
			notes = append(notes, e.Text)
		}
	}))
	result := w.Result.(Copied)
	if len(notes) != 1 || !strings.HasPrefix(notes[0], "not carried: time of ") || !result.Verified || len(result.Lost) < 40 {
		t.Errorf("told %q; %d are listed, verified %v", notes, len(result.Lost), result.Verified)
	}
}

// TestCopyFailsWhole copies into something that is too small: nothing is left.
func TestCopyFailsWhole(t *testing.T) {
	source := planted(t)
	need(t, "ext4")
	path := filepath.Join(t.TempDir(), "small.img")
	must(t, os.WriteFile(filepath.Join(source, "large"), make([]byte, 4*mib), 0o644))
	w, err := Copy(source, path, Copying{FS: "ext4", Size: 2 * mib})
	must(t, err)
	full := func(err error, hint string) bool {
		var hinted *upkeep.HintError
		return errors.Is(err, unix.ENOSPC) && strings.Contains(err.Error(), "the target is full") && errors.As(err, &hinted) && strings.Contains(hinted.Hint, hint)
	}
	if err := w.Do(context.Background(), nil); !full(err, "choose a larger --size") {
		t.Errorf("copying 4M into 2M: %v", err)
	}
	must(t, w.Close())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
	path = made(t, Creation{Size: 2 * mib, FS: "ext2"})
	before := print(t, path)
	w, err = Copy(source, path, Copying{})
	must(t, err)
	if err := w.Do(context.Background(), nil); !full(err, "upkeep image grow "+path+" makes it larger") {
		t.Errorf("copying 4M into an image of 2M: %v", err)
	}
	must(t, w.Close())
	if after := print(t, path); after != before {
		t.Errorf("a copy that did not fit changed the image: %s, was %s", after, before)
	}
	onlyFile(t, path)
}

// TestCopyOfReiserFS is the way out of images that kernels open no more.
func TestCopyOfReiserFS(t *testing.T) {
	need(t, "reiserfs")
	need(t, "ext4")
	testkit.NeedRoot(t)
	path := made(t, Creation{Size: 64 * mib, FS: "reiserfs"})
	to := filepath.Join(t.TempDir(), "new.img")
	if result := run(t)(Copy(path, to, Copying{FS: "ext4"})).(Copied); result.Entries != 1 || result.Size == 0 {
		t.Errorf("%+v", result)
	}
	inOrder(t, to, "ext4")
}

// TestCopyRefuses has what cannot be copied.
func TestCopyRefuses(t *testing.T) {
	source := planted(t)
	image := made(t, Creation{Size: 8 * mib, FS: "ext4"})
	swap := made(t, Creation{Size: 8 * mib, FS: "swap"})
	blank := made(t, Creation{Size: 8 * mib})
	fresh := filepath.Join(t.TempDir(), "new.img")
	for what, one := range map[string]struct {
		src, dst string
		c        Copying
	}{
		"swap": {swap, fresh, Copying{}}, "nothing": {blank, fresh, Copying{}}, "into nothing": {source, blank, Copying{}},
		"a size for an image that exists": {source, image, Copying{Size: 9 * mib}}, "a size for a folder": {source, t.TempDir(), Copying{Size: 9 * mib}},
		"not trusted": {image, fresh, Copying{Untrusted: true}}, "into swap": {source, swap, Copying{}}, "into new swap": {source, fresh, Copying{FS: "swap"}},
		"what is not there": {fresh, fresh + "2", Copying{}},
	} {
		w, err := Copy(one.src, one.dst, one.c)
		if err == nil {
			w.Close()
			t.Errorf("%s: made ready", what)
		}
	}
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	must(t, mount.With(file, mount.Options{Type: "ext4"}, func(*os.File) error {
		for _, way := range [][2]string{{source, image}, {image, fresh}} {
			w, err := Copy(way[0], way[1], Copying{})
			if !errors.Is(err, upkeep.ErrRefused) {
				t.Errorf("copying %v while it is mounted: %v", way, err)
			}
			if err == nil {
				w.Close()
			}
		}
		return nil
	}))
}

// What is copied into files that were there is compared with its source, and they are
// not.
func TestVerifyMerged(t *testing.T) {
	testkit.NeedRoot(t)
	need(t, "ext4")
	one, two := t.TempDir(), t.TempDir()
	must(t, errors.Join(os.MkdirAll(filepath.Join(one, "both/old"), 0o755), os.WriteFile(filepath.Join(one, "old"), []byte("old"), 0o600),
		os.MkdirAll(filepath.Join(two, "both/new"), 0o755), os.WriteFile(filepath.Join(two, "both/file"), []byte("new"), 0o600)))
	image := filepath.Join(t.TempDir(), "g.img")
	run(t)(Copy(one, image, Copying{Size: 16 * mib, FS: filesystem.Ext4}))
	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "old"), nil, 0o600))
	for _, target := range []string{image, folder} {
		if result := run(t)(Copy(two, target, Copying{Merge: true, Verify: true})).(Copied); !result.Verified {
			t.Errorf("into %s: %+v", target, result)
		}
	}
}

// TestCopyIntoVFAT has the kernel fill one where it can, and else what the refusal says.
func TestCopyIntoVFAT(t *testing.T) {
	testkit.NeedRoot(t)
	need(t, "vfat")
	source, image := t.TempDir(), filepath.Join(t.TempDir(), "a.img")
	must(t, errors.Join(os.Mkdir(filepath.Join(source, "sub"), 0o755), os.WriteFile(filepath.Join(source, "sub/A long name.txt"), []byte("long"), 0o644)))
	w, err := Copy(source, image, Copying{FS: "vfat", Size: 40 * mib})
	if err == nil {
		must(t, errors.Join(w.Do(t.Context(), nil), w.Close()))
	} else {
		testkit.Need(t, "mcopy")
		var hint *upkeep.HintError
		if knownToKernel("vfat") || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "create --fs vfat made, with mtools: mcopy -s -i IMAGE FOLDER/* ::") {
			t.Fatalf("into vfat: %v", err)
		}
		run(t)(Create(image, Creation{Size: 40 * mib, FS: "vfat"}))
		if err := refused(t, image, upkeep.ErrRefused, func() (*Work, error) { return Copy(source, image, Copying{}) }); !strings.Contains(err.Error(), "no driver for vfat") {
			t.Errorf("into one that exists: %v", err)
		}
		printed(t, "mcopy", "-s", "-i", image, filepath.Join(source, "sub"), "::")
		back := t.TempDir()
		if err := refused(t, image, upkeep.ErrRefused, func() (*Work, error) { return Copy(image, back, Copying{}) }); !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--untrusted") {
			t.Errorf("out of one: %v", err)
		}
	}
	inOrder(t, image, "vfat")
	back := t.TempDir()
	run(t)(Copy(image, back, Copying{Untrusted: true}))
	if out, err := exec.Command("diff", "-r", source, back).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestAccessListsOnXFS has access lists byte for byte where the kernel shows them, and as
// XFS keeps them for no more than that.
func TestAccessListsOnXFS(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "setfacl")
	need(t, "xfs")
	source, image := t.TempDir(), filepath.Join(t.TempDir(), "a.img")
	must(t, errors.Join(os.Mkdir(filepath.Join(source, "dir"), 0o755), os.WriteFile(filepath.Join(source, "file"), nil, 0o640)))
	printed(t, "setfacl", "-m", "u:70001:rw,g:5:---,u:7:r", filepath.Join(source, "file"))
	printed(t, "setfacl", "-m", "g:9:rx,d:u:70001:rwx", filepath.Join(source, "dir"))
	lists := func(folder string) (found string) {
		for _, name := range []string{"file", "dir"} {
			for _, list := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
				value := make([]byte, 4096)
				n, err := unix.Getxattr(filepath.Join(folder, name), list, value)
				if err != nil && !errors.Is(err, unix.ENODATA) {
					t.Fatal(err)
				}
				found += fmt.Sprintf("%s %s %x\n", name, list, value[:max(n, 0)])
			}
		}
		return found
	}
	want := lists(source)
	if result := run(t)(Copy(source, image, Copying{FS: "xfs", Verify: true})).(Copied); len(result.Lost) > 0 {
		t.Errorf("lost is %v", result.Lost)
	}
	must(t, mountRead(open(t, image), "xfs", func(dir *os.File) error {
		if got := lists(fmt.Sprintf("/proc/self/fd/%d", dir.Fd())); got != want {
			t.Errorf("on xfs the lists are\n%s, want\n%s", got, want)
		}
		return nil
	}))
}

// A list in JSON is one also when it is empty.
func TestEmptyListsInJSON(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "sfdisk", "mke2fs", "mkfs.vfat")
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	for _, name := range []string{"source", "mounted", "read"} {
		must(t, os.Mkdir(in(name), 0o755))
	}
	must(t, errors.Join(os.WriteFile(in("disk.img"), nil, 0o600), os.Truncate(in("disk.img"), 8<<20)))
	sfdisk := exec.Command("sfdisk", "-q", in("disk.img"))
	sfdisk.Stdin = strings.NewReader("label: gpt\n")
	out, err := sfdisk.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk, err := Info(in("disk.img"))
	must(t, err)
	files, err := OpenFiles(t.Context(), made(t, Creation{Size: 4 << 20, FS: "vfat"}), 0)
	must(t, err)
	defer files.Close()
	listed, err := files.List("/")
	must(t, err)
	for what, result := range map[string]any{
		"a copy into an image":              run(t)(Copy(in("source"), in("a.img"), Copying{FS: "ext4"})),
		"one that mke2fs made":              run(t)(Copy(in("source"), in("b.img"), Copying{FS: "ext4", Untrusted: true})),
		"a copy into a folder":              run(t)(Copy(in("a.img"), in("mounted"), Copying{})),
		"one that was not mounted":          run(t)(Copy(in("a.img"), in("read"), Copying{Untrusted: true})),
		"an empty folder":                   listed,
		"a table of partitions without any": disk,
	} {
		if text, err := json.Marshal(result); err != nil || strings.Contains(string(text), "null") {
			t.Errorf("%s is %s, %v", what, text, err)
		}
	}
}
