package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/journal"
	"upkeep/internal/image/mount"
	"upkeep/internal/testkit"
)

// TestWithoutRoomForASecondFile works on the image itself, where the programs keep what
// they write over, and refuses what has none.
func TestWithoutRoomForASecondFile(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	host := crowded(t, 46*mib)
	path := host + "/web.img"
	need(t, "ext4")
	run(t)(Create(path, Creation{Size: 24 * mib, FS: "ext4", Kind: upkeep.ImageFull}))
	files := fill(t, path, "ext4")
	for what, one := range map[string]func() (*Work, error){
		"grow":   func() (*Work, error) { return Grow(path, Growth{By: 2 * mib, Untrusted: true}) },
		"shrink": func() (*Work, error) { return Shrink(path, Shrinking{To: 20 * mib}) },
	} {
		w, err := one()
		must(t, err)
		if !strings.Contains(w.Plan.Undo, "put it back") || !strings.Contains(fmt.Sprint(w.Plan.Steps), "bytes are missing for one") {
			t.Errorf("%s: the plan is %+v", what, w.Plan)
		}
		must(t, errors.Join(w.Do(context.Background(), nil), w.Close()))
		inOrder(t, path, "ext4")
		holds(t, path, "ext4", files)
		onlyFile(t, path)
	}
	if d := look(t, path); d.Kind != upkeep.ImageFull {
		t.Errorf("the image is %s", d.Kind)
	}

	// What cannot be done leaves it as it was.
	before := print(t, path)
	w, err := Shrink(path, Shrinking{To: 2 * mib})
	if err == nil {
		err = w.Do(context.Background(), nil)
		must(t, w.Close())
	}
	if err == nil {
		t.Error("shrunk to less than it holds")
	}
	if after := print(t, path); after != before {
		t.Errorf("a shrink that failed left %s, and it was %s", after, before)
	}
	inOrder(t, path, "ext4")
	onlyFile(t, path)

	refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Check(path, Checking{Repair: true}) })
}

// within mounts an image, and has a function work on the files in it.
func within(t *testing.T, path, name string, do func(folder string) error) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	must(t, mount.With(file, mount.Options{Type: name}, func(dir *os.File) error {
		return errors.Join(do(fmt.Sprintf("/proc/self/fd/%d", dir.Fd())), unix.Syncfs(int(dir.Fd())))
	}))
	must(t, file.Close())
}

// large writes a file, which has its blocks then.
func large(folder, name string, size upkeep.Size) error {
	file, err := os.Create(filepath.Join(folder, name))
	if err != nil {
		return err
	}
	_, err = file.Write(bytes.Repeat([]byte("large"), int(size)/5))
	return errors.Join(err, file.Sync(), file.Close())
}

// TestShrunkInPlaceWithSmallBlocks has blocks of 1K, of which the table of groups takes
// more and fewer as a file system grows and shrinks: resize2fs, when it keeps what it
// writes over, can fail on that. One that fails when it has moved much leaves each byte.
func TestShrunkInPlaceWithSmallBlocks(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	need(t, "ext4")
	host := crowded(t, 80*mib)
	path := host + "/web.img"
	run(t)(Create(path, Creation{Size: 300 * mib, FS: "ext4", Options: filesystem.Options{BlockSize: 1024}}))
	files := fill(t, path, "ext4")
	within(t, path, "ext4", func(folder string) error { return large(folder, "large", 40*mib) })
	before := print(t, path)
	w, err := Shrink(path, Shrinking{Min: true})
	must(t, err)
	ballast := host + "/ballast"
	err = w.Do(context.Background(), func(e upkeep.ImageEvent) {
		var fs unix.Statfs_t
		if must(t, unix.Statfs(host, &fs)); e.Step == "shrinking ext4" { // and now the room ends
			must(t, os.WriteFile(ballast, make([]byte, int64(fs.Bfree)*fs.Bsize-4*int64(mib)), 0o600))
		}
	})
	must(t, w.Close())
	if err == nil || !strings.Contains(err.Error(), "is as it was") {
		t.Errorf("without room: %v", err)
	}
	if after := print(t, path); after != before {
		t.Errorf("a shrink that failed left %s, and it was %s", after, before)
	}
	must(t, os.Remove(ballast))
	run(t)(Shrink(path, Shrinking{Min: true}))
	inOrder(t, path, "ext4")
	holds(t, path, "ext4", files)
	onlyFile(t, path)
}

// TestGrownOnAHostThatBecomesFull has the host lack the room for tables of a file system
// that grows in place when they are made, since others took it meanwhile. resize2fs tells
// that as room that is missing or, with a little left, as a short write.
func TestGrownOnAHostThatBecomesFull(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	need(t, "ext2")
	host := crowded(t, 100*mib)
	path := host + "/web.img"
	run(t)(Create(path, Creation{Size: 64 * mib, FS: "ext2"}))
	within(t, path, "ext2", func(folder string) error { return large(folder, "large", 50*mib) })
	before := print(t, path)
	for _, left := range []upkeep.Size{0, mib / 4} {
		w, err := Grow(path, Growth{To: 256 * mib, Untrusted: true})
		must(t, err)
		ballast := ""
		err = w.Do(context.Background(), func(e upkeep.ImageEvent) {
			if e.Step == "growing ext2" {
				ballast = leave(t, host, left)
			}
		})
		must(t, w.Close())
		if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "is as it was: ") || !strings.Contains(err.Error(), "the file system of "+path+" is full") || strings.Contains(err.Error(), "so small") {
			t.Errorf("with %s for tables: %v", left, err)
		}
		if after := print(t, path); after != before {
			t.Errorf("with %s for tables a growth left %s, and it was %s", left, after, before)
		}
		must(t, os.Remove(ballast))
		onlyFile(t, path)
	}
}

// leave takes what is free in a folder but for so many bytes, with a file that it names.
func leave(t *testing.T, folder string, left upkeep.Size) string {
	t.Helper()
	var fs unix.Statfs_t
	must(t, unix.Statfs(folder, &fs))
	ballast, err := os.CreateTemp(folder, "ballast")
	must(t, err)
	must(t, errors.Join(unix.Fallocate(int(ballast.Fd()), 0, 0, int64(fs.Bfree)*fs.Bsize-int64(left)), ballast.Close()))
	return ballast.Name()
}

// TestKilledBeforeAnythingIsKept has what programs leave that are killed when they made
// room for the header of what they keep.
func TestKilledBeforeAnythingIsKept(t *testing.T) {
	need(t, "ext4")
	path := made(t, Creation{Size: 24 * mib, FS: "ext4"})
	before := print(t, path)
	for _, room := range []int64{0, 1024, 3072} {
		undo, err := journal.NewUndo(path)
		must(t, err)
		must(t, errors.Join(undo.Truncate(room), undo.Close()))
		size := int64(look(t, path).Size)
		must(t, journal.Begin(path, open(t, path), journal.Entry{Verb: "shrink", From: size, FSFrom: size, Type: "ext4", Undo: true}))
		if r := run(t)(Recover(path)).(Recovery); !strings.HasPrefix(r.Did, "undid it") || r.Found != "a shrink from 24M to the least had been begun" {
			t.Errorf("with room for %d bytes: %+v", room, r)
		}
		if after := print(t, path); after != before {
			t.Errorf("with room for %d bytes it is %s, and was %s", room, after, before)
		}
		onlyFile(t, path)
	}
}

// TestWhatWasKeptIsLost has an image that was written to, and of what was kept nothing, as
// after a power cut, or what cannot be right: it is never said to be as it was.
func TestWhatWasKeptIsLost(t *testing.T) {
	need(t, "ext4")
	testkit.Need(t, "debugfs")
	path := made(t, Creation{Size: 24 * mib, FS: "ext4"})
	size := int64(look(t, path).Size)
	printed(t, "debugfs", "-w", "-R", "clri /lost+found", path)
	for what, c := range map[string]struct {
		lose       func() error
		says, hint string
	}{
		"empty":   {func() error { return nil }, "nothing was kept of what was written over, and a check finds: ", "check --repair"},
		"damaged": {func() error { return os.WriteFile(journal.UndoPath(path), []byte("no such file"), 0o600) }, "is damaged: it does not begin as such a file does; nothing was put back", "backup"},
		"gone":    {func() error { return os.Remove(journal.UndoPath(path)) }, "no such file or directory; nothing was put back", "backup"},
	} {
		undo, err := journal.NewUndo(path)
		must(t, errors.Join(err, undo.Close(), c.lose()))
		must(t, journal.Begin(path, open(t, path), journal.Entry{Verb: "shrink", From: size, FSFrom: size, Type: "ext4", Undo: true}))
		w, err := Recover(path)
		must(t, err)
		err = w.Do(context.Background(), nil)
		must(t, w.Close())
		var hint *upkeep.HintError
		if err == nil || !strings.Contains(err.Error(), c.says) || !errors.As(err, &hint) || !strings.Contains(hint.Hint, c.hint) {
			t.Errorf("%s: %v, hint %+v", what, err, hint)
		}
		must(t, journal.RemoveUndo(path))
		if what != "empty" {
			must(t, journal.End(path))
		}
		onlyFile(t, path)
	}
}

// TestWithoutRoomForEither has room for neither way: what is missing is told of the one
// that needs less, and that is enough.
func TestWithoutRoomForEither(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	need(t, "ext4")
	host := crowded(t, 80*mib)
	path := host + "/web.img"
	run(t)(Create(path, Creation{Size: 40 * mib, FS: "ext4", Kind: upkeep.ImageFull}))
	ballast := host + "/ballast"
	for what, one := range map[string]func() (*Work, error){
		"grow":   func() (*Work, error) { return Grow(path, Growth{By: 4 * mib, Untrusted: true}) },
		"shrink": func() (*Work, error) { return Shrink(path, Shrinking{To: 38 * mib}) },
	} {
		must(t, os.WriteFile(ballast, make([]byte, 30*mib), 0o600))
		before := print(t, path)
		w, err := one()
		var lacks *noRoomError
		if w != nil || !errors.As(err, &lacks) {
			t.Fatalf("%s: %v", what, err)
		}
		if says := err.Error(); !strings.Contains(says, "to work on the image itself (for a second file: ") || !strings.Contains(says, fmt.Sprintf("%d bytes are missing; nothing was changed", lacks.missing())) || lacks.missing() > int64(20*mib) {
			t.Errorf("%s: %v", what, err)
		}
		if after := print(t, path); after != before {
			t.Errorf("%s: it is %s, and was %s", what, after, before)
		}
		must(t, os.Truncate(ballast, (int64(30*mib)-lacks.missing())&^4095)) // whole pages
		run(t)(one())
		inOrder(t, path, "ext4")
		must(t, os.Remove(ballast))
	}
}

// TestRoomForNewTables grows sparse images whose file systems write tables of inodes for
// all that is new: on a second file and in place, that room is looked for before.
func TestRoomForNewTables(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	for _, c := range []struct {
		name    string
		size    upkeep.Size
		inPlace bool
	}{
		{"ext2", 1024 * mib, false},
		{"ext2", 512 * mib, true},
		{"ext3", 512 * mib, true},
		{"ext4", 1024 * mib, false},
	} {
		name := c.name
		need(t, name)
		host := crowded(t, 160*mib)
		path := host + "/images/web.img"
		must(t, os.Mkdir(filepath.Dir(path), 0o700))
		run(t)(Create(path, Creation{Size: 64 * mib, FS: name, Kind: upkeep.ImageSparse}))
		within(t, path, name, func(folder string) error { return large(folder, "large", 40*mib) })
		before := look(t, path).FS
		tables := before.NewTables(int64(c.size))
		growth := func() (*Work, error) { return Grow(path, Growth{To: c.size, Untrusted: true}) }
		if name == "ext4" { // which writes them when they are used
			if tables != 0 {
				t.Errorf("tables of %s take %d bytes", name, tables)
			}
			run(t)(growth())
			continue
		}
		ballast := host + "/ballast"
		must(t, os.WriteFile(ballast, make([]byte, 80*mib), 0o600))
		var lacks *noRoomError
		if err := refused(t, path, upkeep.ErrRefused, growth); !errors.As(err, &lacks) || lacks.need < tables || (lacks.second > lacks.need) != c.inPlace {
			t.Fatalf("%s: %d bytes of tables: %v", name, tables, err)
		}
		// What it said is missing is enough.
		must(t, os.Truncate(ballast, (int64(80*mib)-lacks.missing())&^4095)) // whole pages
		run(t)(growth())
		inOrder(t, path, name)
		if after := look(t, path).FS; after.InodeBytes-before.InodeBytes != tables {
			t.Errorf("%s: tables took %d bytes and take %d, %d more were foreseen", name, before.InodeBytes, after.InodeBytes, tables)
		}
	}
}

// TestRoomForWhatIsMoved has more behind the new end than there is room to keep.
func TestRoomForWhatIsMoved(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	need(t, "ext4")
	path := crowded(t, 240*mib) + "/web.img"
	run(t)(Create(path, Creation{Size: 200 * mib, FS: "ext4", Kind: upkeep.ImageFull}))
	within(t, path, "ext4", func(folder string) error {
		return errors.Join(large(folder, "first", 100*mib), large(folder, "second", 60*mib), os.Remove(filepath.Join(folder, "first")))
	})
	err := refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Shrink(path, Shrinking{To: 110 * mib}) })
	var lacks *noRoomError
	if !errors.As(err, &lacks) || lacks.need < int64(60*mib) {
		t.Errorf("moving 50M: %v", err)
	}

	// How much is moved to make it as small as can be is seen when it is moved.
	must(t, os.WriteFile(filepath.Join(filepath.Dir(path), "ballast"), make([]byte, 22*mib), 0o600))
	before := print(t, path)
	w, err := Shrink(path, Shrinking{Min: true})
	must(t, err)
	err = w.Do(context.Background(), nil)
	must(t, w.Close())
	if err == nil || !strings.Contains(err.Error(), "is as it was: ") || !strings.Contains(err.Error(), "the host has not the room for what is kept") {
		t.Errorf("moving 50M to where there is room: %v", err)
	}
	if after := print(t, path); after != before {
		t.Errorf("a shrink without room left %s, and it was %s", after, before)
	}
	inOrder(t, path, "ext4")
	must(t, os.Remove(filepath.Join(filepath.Dir(path), "ballast")))
	onlyFile(t, path)
}

// TestQuotaIsLookedAt has a quota that leaves less than the host has.
func TestQuotaIsLookedAt(t *testing.T) {
	testkit.Need(t, "btrfs")
	folder := sharing(t, "btrfs")
	limited := folder + "/limited"
	printed(t, "btrfs", "quota", "enable", folder)
	printed(t, "btrfs", "subvolume", "create", limited)
	printed(t, "btrfs", "qgroup", "limit", "20M", limited)
	must(t, room(folder+"/a.img", int64(100*mib)))
	must(t, room(limited+"/a.img", int64(10*mib)))
	_, err := Create(limited+"/a.img", Creation{Size: 100 * mib, Kind: upkeep.ImageFull})
	var lacks *noRoomError
	if !errors.As(err, &lacks) || !lacks.quota || lacks.free < int64(15*mib) || lacks.free > int64(20*mib) || !strings.Contains(err.Error(), "are all that a quota leaves") {
		t.Errorf("more than a quota leaves: %v", err)
	}
	run(t)(Create(limited+"/a.img", Creation{Size: 10 * mib, Kind: upkeep.ImageFull}))
	// Of which is not known before how large it becomes.
	w, err := Unpack(t.Context(), gzipped(t, 30<<20), limited+"/b.img", Unpacking{})
	must(t, err)
	defer w.Close()
	err = w.Do(t.Context(), nil)
	var hint *upkeep.HintError
	if !errors.Is(err, unix.EDQUOT) || !strings.HasSuffix(err.Error(), "; a quota leaves no more room at "+w.Plan.File) || !errors.As(err, &hint) || !strings.HasPrefix(hint.Hint, "have the quota raised") {
		t.Errorf("unpacking more than a quota leaves: %v", err)
	}
}
