package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/shadow"
)

// Options are what is asked of a new file system, and Verdict what a check finds: who
// has images worked on need not know how file systems are.
type (
	Options = filesystem.Options
	Verdict = filesystem.Verdict
)

// FileSystems lists the types that images can be made with.
func FileSystems() []string { return filesystem.Names() }

// Creation is what is asked of a new image.
type Creation struct {
	Size upkeep.Size
	Kind upkeep.ImageKind // sparse when empty
	// WriteZeros writes every block of a full image, for hosts that cannot allocate
	// without, and for disks that are to be written to once before they are relied on.
	WriteZeros bool
	// FS is the type of file system to make, if any.
	FS      string
	Options filesystem.Options
}

// maxSize is the largest file that is asked for: ext4's limit, with blocks of 4K.
const maxSize = 16 << 40

// Create makes ready to make a new image.
func Create(path string, c Creation) (*Work, error) {
	if c.Kind == "" {
		c.Kind = upkeep.ImageSparse
	}
	if c.WriteZeros {
		c.Kind = upkeep.ImageFull
	}
	if c.Size <= 0 || c.Size > maxSize {
		return nil, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "size", Value: c.Size.String(), Rule: "must be more than 0 and at most 16T"}}}
	}
	var typ filesystem.Type
	if c.FS != "" {
		var err error
		if typ, err = filesystem.Find(c.FS); err != nil {
			return nil, err
		}
		if err := typ.Validate(int64(c.Size), c.Options); err != nil {
			return nil, err
		}
		if err := installed(typ); err != nil {
			return nil, err
		}
	}
	if err := vacant(path, "upkeep image mkfs makes a new file system in an image that exists"); err != nil {
		return nil, err
	}
	w := &Work{Plan: Plan{Verb: "create", File: path, Undo: "a kill leaves nothing; to undo it, remove the file"}}
	if c.Kind == upkeep.ImageFull {
		if err := room(path, int64(c.Size)); err != nil {
			return nil, err
		}
	}
	switch {
	case c.WriteZeros:
		w.Plan.step(int64(c.Size), "write %s of zeros to a file that has no name yet", c.Size)
	case c.Kind == upkeep.ImageFull:
		w.Plan.step(0, "allocate %s for a file that has no name yet", c.Size)
	default:
		w.Plan.step(0, "make a file of %s that takes no room and has no name yet", c.Size)
	}
	if c.FS != "" {
		w.Plan.step(0, "make %s in it", c.FS)
	}
	w.Plan.step(0, "name it %s", filepath.Base(path))
	w.measured = path
	w.Result = Made{Size: c.Size, Kind: c.becomes(), Type: c.FS}
	w.do = func(ctx context.Context, t *teller) error { return c.create(ctx, t, path, typ) }
	return w, nil
}

// Made is the result of what makes an image, copies one, or makes a file system in one.
type Made struct {
	Size upkeep.Size      `json:"size"` // of the image, or of the partition that was meant
	Kind upkeep.ImageKind `json:"kind"`
	Type string           `json:"type,omitempty"` // of the file system that was made
}

// becomes is the kind of image that is made.
func (c Creation) becomes() upkeep.ImageKind {
	if c.Kind == upkeep.ImageFull || c.WriteZeros {
		return upkeep.ImageFull
	}
	return upkeep.ImageSparse
}

func (c Creation) create(ctx context.Context, t *teller, path string, typ filesystem.Type) error {
	s, err := shadow.New(path)
	if err != nil {
		return err
	}
	err = c.fill(ctx, t, s.File, typ)
	if err == nil {
		t.begin("writing it to the disk")
		err = s.Create()
	}
	return errors.Join(err, s.Close())
}

// fill gives an empty file all that was asked for.
func (c Creation) fill(ctx context.Context, t *teller, file *os.File, typ filesystem.Type) error {
	if c.WriteZeros {
		t.begin("writing zeros")
		if err := writeZeros(ctx, file, int64(c.Size), t.progress); err != nil {
			return err
		}
	} else {
		t.begin("allocating")
		if err := shadow.Allocate(file, int64(c.Size), c.Kind); err != nil {
			return err
		}
	}
	if c.FS == "" {
		return nil
	}
	t.begin("making %s", c.FS)
	if err := typ.Make(ctx, file, int64(c.Size), c.Options); err != nil {
		return err
	}
	if c.Kind == upkeep.ImageSparse {
		return shadow.Dig(file, int64(c.Size))
	}
	if c.WriteZeros {
		return nil // the host may not be able to allocate
	}
	return shadow.Allocate(file, int64(c.Size), c.Kind) // some hosts have programs zero by holes
}

func writeZeros(ctx context.Context, file *os.File, size int64, progress func(done, total int64)) error {
	zeros := make([]byte, 4<<20)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := file.WriteAt(zeros[:min(size-at, int64(len(zeros)))], at)
		if err != nil {
			return fmt.Errorf("writing zeros: %w", err)
		}
		at += int64(n)
		progress(at, size)
	}
	return nil
}

// Remaking is what is asked of a new file system in an image that exists.
type Remaking struct {
	Type    string
	Options filesystem.Options
	// Force allows that there are files in the image, which go.
	Force bool
	// Partition is the number of the one that gets it; 0 is the whole image.
	Partition int
}

// MkFS makes ready to make a new file system in an image, whose size and kind stay.
// What the image holds goes when the new one is whole.
func MkFS(path string, m Remaking) (*Work, error) {
	typ, err := filesystem.Find(m.Type)
	if err != nil {
		return nil, err
	}
	if err := installed(typ); err != nil {
		return nil, err
	}
	w := &Work{Plan: Plan{Verb: "mkfs", File: path, Undo: undoShadow}}
	t, err := w.take(path, true, m.Partition)
	if err != nil {
		return w.fails(err)
	}
	if err := typ.Validate(t.part.Length, m.Options); err != nil {
		return w.fails(err)
	}
	if !m.Force {
		if err := t.mayGo(); err != nil {
			return w.fails(err)
		}
	}
	if t.part.Number != 0 {
		err = w.planMkFSIn(t, m, typ)
	} else {
		err = w.planMkFS(t, m, typ)
	}
	if err != nil {
		return w.fails(err)
	}
	w.measured = t.path
	w.Result = Made{Size: upkeep.Size(t.part.Length), Kind: t.kind, Type: m.Type}
	return w, nil
}

// planMkFSIn plans a file system in a partition.
func (w *Work) planMkFSIn(t *target, m Remaking, typ filesystem.Type) error {
	t.goes = true
	s, err := planSecond(&w.Plan, t, 0)
	if err != nil {
		return err
	}
	w.Plan.step(0, "make %s in partition %d of it, %s", m.Type, t.part.Number, upkeep.Size(t.part.Length))
	w.Plan.step(0, "put it in the image's place")
	c := Creation{Size: upkeep.Size(t.part.Length), Kind: upkeep.ImageSparse, FS: m.Type, Options: m.Options}
	w.do = func(ctx context.Context, tell *teller) error {
		return s.do(ctx, tell, func(file *os.File) error {
			return c.fill(ctx, tell, file, typ)
		})
	}
	return nil
}

// planMkFS plans a file system that takes all of an image.
func (w *Work) planMkFS(t *target, m Remaking, typ filesystem.Type) error {
	c := Creation{Size: upkeep.Size(t.size), Kind: t.kind, FS: m.Type, Options: m.Options}
	if t.kind == upkeep.ImageFull {
		w.Plan.Temporary = c.Size
		if err := room(t.path, t.size); err != nil {
			return err
		}
	}
	if err := t.replaceable(); err != nil {
		return err
	}
	w.Plan.step(0, "make %s in a second file of %s, %s as the image is", m.Type, c.Size, t.kind)
	w.Plan.step(0, "put it in the image's place")
	w.do = func(ctx context.Context, tell *teller) error {
		s, err := shadow.New(t.path)
		if err != nil {
			return err
		}
		err = c.fill(ctx, tell, s.File, typ)
		if err == nil {
			tell.begin("putting it in place")
			if err = t.lock.Again(); err == nil {
				err = s.Replace(t.file)
			}
		} else {
			err = fmt.Errorf("%s was left as it was: %w", t.path, err)
		}
		return errors.Join(err, s.Close())
	}
	return nil
}
