package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/shadow"
)

// reserve is room beyond an image's own blocks that work on a second file may take:
// maps of extents, folders, tables that a file system gets when it grows.
const reserve = 16 << 20

// second is work on a second file that takes the place of the image: grow, shrink,
// repair. More is what it will take beyond a copy, in bytes.
type second struct {
	*target
	reflink bool
	bytes   int64 // that are copied
	// to is how large the image is to be; 0 is as its partition then needs it.
	to int64
	// undo is that there is no second file: programs work on the image and keep what
	// they write over, for which so many bytes are reserved.
	undo bool
	kept int64
	// unchecked is that it is tried without a check before.
	unchecked bool
}

// planSecond decides how the second file comes to be, and adds it to the plan.
func planSecond(plan *Plan, t *target, more int64) (second, error) {
	s := second{target: t, to: t.size}
	var err error
	if s.reflink, err = shadow.CanReflink(t.path, t.file); err != nil {
		return s, err
	}
	if s.bytes, err = allocated(t.file); err != nil {
		return s, err
	}
	if err := t.replaceable(); err != nil {
		return s, err
	}
	need := more + reserve
	switch {
	case s.reflink:
		plan.step(0, "share its blocks with a second file that has no name yet")
		need += t.unshared(0, t.size)
	case t.part.Number != 0:
		// The partition is copied to a file of its own, and from there into the second.
		data := allocation.Data(t.file, t.part.Offset, t.part.End())
		if t.goes {
			data = -data
		}
		s.bytes = max(0, s.bytes+data)
		need += s.bytes
		plan.step(s.bytes, "copy it to a second file that has no name yet, its partition %d by way of a third (%s; holes stay holes)", t.part.Number, upkeep.Size(s.bytes).About())
	default:
		need += s.bytes
		plan.step(s.bytes, "copy it to a second file that has no name yet (%s; holes stay holes)", upkeep.Size(s.bytes).About())
	}
	plan.Temporary = upkeep.Size(need - reserve)
	plan.Undo = undoShadow
	return s, room(t.path, need)
}

// unshared is what another file that shares the blocks of a range takes all the same: those
// that are allocated and were not written, which XFS does not share.
func (t *target) unshared(at, end int64) int64 {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(t.file.Fd()), &fs); err != nil || fs.Type != unix.XFS_SUPER_MAGIC || t.kind != upkeep.ImageFull {
		return 0
	}
	return end - at - allocation.Data(t.file, at, end)
}

// planEnd adds the last step to the plan.
func (s second) planEnd(plan *Plan) {
	if s.undo {
		plan.step(0, "let what was kept go, if all is in order, or else put it back")
	} else {
		plan.step(0, "put it in the image's place")
	}
}

// tries has the change tried without a check before. A second file that costs next to
// nothing can be thrown away, and what a check finds afterwards it would have found
// before: neither growing nor shrinking hides it. What is not trusted is checked before
// programs that are less wary than a check work on it.
func (s *second) tries(confined bool) {
	_, can := s.typ.Unchecked()
	s.unchecked = can && s.reflink && s.info.State == fsinfo.Clean && !confined
}

// checks says when checks are made, for the plan.
func (s second) checks() string {
	if s.unchecked {
		return "after, or begin anew with a check before"
	}
	return "before and after"
}

// try is do, first without a check before where that can be tried.
func (s second) try(ctx context.Context, t *teller, change func(file *os.File) error) error {
	if !s.unchecked {
		return s.do(ctx, t, change)
	}
	checked := s.typ
	s.typ, _ = checked.Unchecked()
	var failed error
	err := s.do(ctx, t, func(file *os.File) error {
		failed = change(file)
		return failed
	})
	s.typ = checked
	if failed == nil || ctx.Err() != nil {
		return err
	}
	return s.do(ctx, t, change)
}

// do makes the second file, has its file system changed, which is alone in the file
// that change gets, and puts it in place.
func (s second) do(ctx context.Context, t *teller, change func(file *os.File) error) error {
	if s.undo {
		return s.undoable(ctx, t, change)
	}
	if s.reflink {
		t.begin("sharing blocks")
	} else {
		t.begin("copying")
	}
	var next *shadow.Shadow
	var err error
	if s.part.Number == 0 {
		next, _, err = shadow.Of(ctx, s.path, s.file, t.progress)
	} else {
		next, err = s.without(ctx, t)
		whole := change
		change = func(*os.File) error {
			return s.apart(ctx, t, s.path, func(piece *os.File) error { return s.insert(ctx, t, next, piece, whole) })
		}
	}
	if err != nil {
		return fmt.Errorf("%s was left as it was: %w", s.path, err)
	}
	err = s.change(ctx, t, next, change)
	return errors.Join(err, next.Close())
}

func (s second) change(ctx context.Context, t *teller, next *shadow.Shadow, change func(file *os.File) error) error {
	if err := change(next.File); err != nil {
		return fmt.Errorf("%s was left as it was: %w", s.path, err)
	}
	if err := s.keepKind(next); err != nil {
		return fmt.Errorf("%s was left as it was: %w", s.path, err)
	}
	t.begin("putting it in place")
	if err := s.lock.Again(); err != nil {
		return fmt.Errorf("%s was left as it was: %w", s.path, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s was left as it was: %w", s.path, context.Cause(ctx))
	}
	return next.Replace(s.file)
}

// prepare has the second file ready to be grown or shrunk, and tells what was repaired.
func (s second) prepare(ctx context.Context, t *teller, file *os.File) error {
	mended, err := s.typ.Prepare(ctx, file, t.progress)
	if mended != "" {
		t.note("repaired before, as a boot would: %s", mended)
	}
	return err
}

// keepKind allocates again what programs made holes of in the second file of a full
// image: on some hosts that is how they zero.
func (s second) keepKind(next *shadow.Shadow) error {
	if s.kind != upkeep.ImageFull {
		return nil
	}
	stat, err := next.File.Stat()
	if err != nil {
		return fmt.Errorf("looking at the changed image: %w", err)
	}
	return shadow.Allocate(next.File, stat.Size(), s.kind)
}

// proven checks the second file and reads its superblock anew.
func (s second) proven(ctx context.Context, t *teller, file *os.File, done string) (fsinfo.Info, error) {
	t.begin("checking")
	if err := s.typ.Proven(ctx, file, done, t.progress); err != nil {
		return fsinfo.Info{}, err
	}
	stat, err := file.Stat()
	if err != nil {
		return fsinfo.Info{}, fmt.Errorf("looking at the changed image: %w", err)
	}
	info, err := fsinfo.Read(file, stat.Size())
	switch {
	case err != nil:
		return info, fmt.Errorf("reading it after it was %s: %w", done, err)
	case info.Type != s.info.Type || info.Size > stat.Size():
		return info, fmt.Errorf("after it was %s it is %s of %s in a file of %s", done, info.Type, upkeep.Size(info.Size), upkeep.Size(stat.Size()))
	}
	return info, nil
}
