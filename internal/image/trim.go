package image

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/fsinfo"
)

// Trimmed is the result of [Trim].
type Trimmed struct {
	Before upkeep.Size `json:"before"` // that the image took of its host
	After  upkeep.Size `json:"after"`
}

// Trim makes ready to give the blocks back that a sparse image's file system does not
// use. What is there was deleted before: nothing that a file holds is touched, and
// nothing is mounted. Partition is the number of the one that is meant; 0 is an image
// without any.
func Trim(path string, partition int) (*Work, error) {
	w := &Work{Plan: Plan{Verb: "trim", File: path, Undo: "a kill leaves some blocks given back and others not; what files hold is not touched"}}
	t, err := w.take(path, true, partition)
	if err != nil {
		return w.fails(err)
	}
	if err := errors.Join(t.needFS(), t.needReadable()); err != nil {
		return w.fails(err)
	}
	if t.kind == upkeep.ImageFull {
		return w.fails(&upkeep.HintError{
			Err:  fmt.Errorf("%w: %s is full: it has all its blocks so that no write can fail for want of room", upkeep.ErrRefused, path),
			Hint: "upkeep image pack leaves free blocks out of what it packs, whatever the kind",
		})
	}
	used, err := fsinfo.Used(t.section(), t.info)
	if err != nil {
		return w.fails(fmt.Errorf("finding the blocks that %s uses: %w", path, err))
	}
	bytes, err := allocated(t.file)
	if err != nil {
		return w.fails(err)
	}
	w.Plan.step(0, "punch holes where its %s uses nothing (it uses %s, and the file takes %s)", t.typ.Name, upkeep.Size(total(used)).About(), upkeep.Size(bytes).About())
	w.measured = t.path
	w.do = func(ctx context.Context, tell *teller) error {
		tell.begin("punching holes")
		if err := t.lock.Again(); err != nil {
			return err
		}
		if err := t.punch(ctx, tell, used); err != nil {
			return err
		}
		after, err := allocated(t.file)
		w.Result = Trimmed{Before: upkeep.Size(bytes), After: upkeep.Size(after)}
		return err
	}
	return w, nil
}

func total(extents []fsinfo.Extent) int64 {
	sum := int64(0)
	for _, e := range extents {
		sum += e.Length
	}
	return sum
}

// punch makes a hole of everything between the extents, up to the end of the file
// system: what lies behind it is not known.
func (t *target) punch(ctx context.Context, tell *teller, used []fsinfo.Extent) error {
	at := int64(0)
	for _, e := range append(used, fsinfo.Extent{Offset: min(t.info.Size, t.part.Length)}) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if e.Offset > at {
			if err := unix.Fallocate(int(t.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, t.part.Offset+at, e.Offset-at); err != nil {
				return fmt.Errorf("punching holes into %s: %w", t.path, err)
			}
			tell.progress(e.Offset, t.part.Length)
		}
		at = max(at, e.End())
	}
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", t.path, err)
	}
	return nil
}
