package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/journal"
	"upkeep/internal/image/mount"
	"upkeep/internal/testkit"
)

// TestWithoutRoomForASecondFile works on the image itself, where the programs keep what
// they write over, and refuses what has none.
func TestWithoutRoomForASecondFile(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "e2undo", "mount", "umount")
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

// TestKilledBeforeAnythingIsKept has what programs leave that are killed when they made
// room for the header of what they keep: e2undo takes that for no such file.
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
		if r := run(t)(Recover(path)).(Recovery); !strings.HasPrefix(r.Did, "undid it") {
			t.Errorf("with room for %d bytes: %+v", room, r)
		}
		if after := print(t, path); after != before {
			t.Errorf("with room for %d bytes it is %s, and was %s", room, after, before)
		}
		onlyFile(t, path)
	}
}

// TestWithoutRoomForEither has room for neither way: what is missing is told of the one
// that needs less, and that is enough.
func TestWithoutRoomForEither(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "e2undo", "mount", "umount")
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

// TestRoomForWhatIsMoved has more behind the new end than there is room to keep.
func TestRoomForWhatIsMoved(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "e2undo", "mount", "umount")
	need(t, "ext4")
	path := crowded(t, 240*mib) + "/web.img"
	run(t)(Create(path, Creation{Size: 200 * mib, FS: "ext4", Kind: upkeep.ImageFull}))
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	text := bytes.Repeat([]byte("moved"), 80<<20/5)
	must(t, mount.With(file, mount.Options{Type: "ext4"}, func(dir *os.File) error {
		for _, name := range []string{"first", "second"} {
			if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name), text, 0o600); err != nil {
				return err
			}
		}
		return errors.Join(unix.Syncfs(int(dir.Fd())), os.Remove(fmt.Sprintf("/proc/self/fd/%d/first", dir.Fd())))
	}))
	must(t, file.Close())
	err = refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Shrink(path, Shrinking{To: 110 * mib}) })
	var lacks *noRoomError
	if !errors.As(err, &lacks) || lacks.need < int64(60*mib) {
		t.Errorf("moving 80M: %v", err)
	}
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
	if !errors.Is(err, unix.EDQUOT) || !strings.HasSuffix(err.Error(), "; a quota leaves no more room in "+limited) || !errors.As(err, &hint) || !strings.HasPrefix(hint.Hint, "have the quota raised") {
		t.Errorf("unpacking more than a quota leaves: %v", err)
	}
}
