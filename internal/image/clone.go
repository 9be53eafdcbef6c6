package image

import (
	"context"
	"errors"
	"path/filepath"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/shadow"
)

// Cloning is what is asked of a copy of an image.
type Cloning struct {
	// NewIDs gives the copy's file systems UUIDs of their own, so that one host can
	// mount both, and a disk's table and its partitions other identifiers.
	NewIDs bool
	// Partition is the number of the one that becomes an image of its own; 0 is all.
	Partition int
}

// Clone makes ready to copy an image, or a partition of it, whole: what it holds, its
// size and its kind.
func Clone(src, dst string, c Cloning) (*Work, error) {
	w := &Work{Plan: Plan{Verb: "clone", File: dst, Undo: "a kill leaves nothing; to undo it, remove the copy"}}
	t, err := w.take(src, false, c.Partition)
	if err != nil {
		return w.fails(err)
	}
	if err := vacant(dst, ""); err != nil {
		return w.fails(err)
	}
	var ids identities
	if c.NewIDs {
		if ids, err = t.identities(); err != nil {
			return w.fails(err)
		}
	}
	reflink, err := shadow.CanReflink(dst, t.file)
	if err != nil {
		return w.fails(err)
	}
	if reflink {
		if err := room(dst, t.unshared(t.part.Offset, t.part.End())); err != nil {
			return w.fails(err)
		}
		w.Plan.step(0, "share the blocks of %s with a file that has no name yet", t.name())
	} else {
		bytes, err := allocated(t.file)
		if err != nil {
			return w.fails(err)
		}
		if t.part.Number != 0 {
			bytes = allocation.Data(t.file, t.part.Offset, t.part.End())
		}
		if t.kind == upkeep.ImageFull {
			bytes = max(bytes, t.part.Length)
		}
		if err := room(dst, bytes); err != nil {
			return w.fails(err)
		}
		w.Plan.step(bytes, "copy the blocks of %s that hold data (%s) to a file that has no name yet, %s as it is", t.name(), upkeep.Size(bytes).About(), t.kind)
	}
	ids.plan(&w.Plan)
	w.Plan.step(0, "name it %s", filepath.Base(dst))
	w.measured = dst
	w.Result = Made{Size: upkeep.Size(t.part.Length), Kind: t.kind}
	w.do = func(ctx context.Context, tell *teller) error { return t.clone(ctx, tell, dst, ids) }
	return w, nil
}

func (t *target) clone(ctx context.Context, tell *teller, dst string, ids identities) error {
	tell.begin("copying")
	s, err := t.copied(ctx, tell, dst)
	if err != nil {
		return err
	}
	if err = ids.renew(ctx, tell, dst, s.File); err == nil {
		err = t.lock.Again() // nobody wrote to it while it was copied
	}
	if err == nil {
		tell.begin("writing it to the disk")
		err = s.Create()
	}
	return errors.Join(err, s.Close())
}

// copied is a file that is to be named dst, with what is meant of the image.
func (t *target) copied(ctx context.Context, tell *teller, dst string) (*shadow.Shadow, error) {
	if t.part.Number == 0 {
		s, _, err := shadow.Of(ctx, dst, t.file, tell.progress)
		return s, err
	}
	s, err := shadow.New(dst)
	if err != nil {
		return nil, err
	}
	err = shadow.Allocate(s.File, t.part.Length, upkeep.ImageSparse)
	if err == nil {
		err = shadow.CopyPiece(ctx, s.File, 0, t.file, t.part.Offset, t.part.Length, tell.progress)
	}
	if err == nil {
		err = shadow.Allocate(s.File, t.part.Length, t.kind)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}
