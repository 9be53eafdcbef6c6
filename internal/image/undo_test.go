package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/image/journal"
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
