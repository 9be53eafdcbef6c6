package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/e2undo"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/journal"
	"upkeep/internal/image/loop"
)

// planChange is planSecond for a change of size, and where there is no room for a second
// file work in place by programs that keep what they write over, for types that have
// such. To shrink them that takes root. Kept is how much that is, as far as is known.
func planChange(plan *Plan, t *target, more, kept int64, shrinks bool) (second, error) {
	before := *plan
	s, err := planSecond(plan, t, more)
	var missing *noRoomError
	if !errors.As(err, &missing) || t.part.Number != 0 || !t.typ.Undoable() || shrinks && os.Geteuid() != 0 {
		return s, err
	}
	kept += reserve
	taken := more + kept
	if shrinks && t.kind != upkeep.ImageFull {
		taken += kept - reserve // what is moved can be moved to holes
	}
	if inPlace := room(t.path, taken); inPlace != nil {
		var lacks *noRoomError
		switch {
		case !errors.As(inPlace, &lacks):
			return s, inPlace
		case lacks.need > missing.need:
			return s, err
		}
		lacks.second = missing.need
		return s, inPlace
	}
	*plan = before
	plan.step(0, "note what is begun in %s; there is no room for a second file: %s missing for one", journal.Path(t.path), upkeep.Plural(missing.missing(), "byte is", "bytes are"))
	plan.step(0, "work on the image itself, and keep what is written over in %s", journal.UndoPath(t.path))
	plan.Temporary = upkeep.Size(taken)
	plan.Undo = "a kill leaves it half changed, with all that it takes to put it back, which upkeep image recover does; a power cut is not guarded against"
	s.undo, s.kept = true, kept
	return s, nil
}

// undoable changes the image itself. What was written over is put back if that fails.
func (s second) undoable(ctx context.Context, t *teller, change func(file *os.File) error) error {
	if err := s.lock.Again(); err != nil {
		return err
	}
	undo, err := journal.NewUndo(s.path)
	if err != nil {
		return err
	}
	defer undo.Close()
	most, err := s.reserve(undo)
	if err != nil {
		return errors.Join(err, journal.RemoveUndo(s.path))
	}
	entry := journal.Entry{Verb: t.verb, At: time.Now().UTC(), From: s.size, To: s.to, FSFrom: s.info.Size, Type: s.typ.Name, Undo: true}
	if err := journal.Begin(s.path, s.file, entry); err != nil {
		return errors.Join(err, journal.RemoveUndo(s.path))
	}
	if err = s.keeping(undo, most, func() error { return change(s.file) }); err == nil {
		return s.undoEnds()
	}
	_, failed := s.putBack(context.WithoutCancel(ctx), t, entry, undo)
	if failed != nil {
		if hint := (*upkeep.HintError)(nil); !errors.As(failed, &hint) {
			failed = upkeep.WithHint(failed, "upkeep image recover "+s.path)
		}
		return errors.Join(err, fmt.Errorf("putting back what was written over: %w", failed))
	}
	return fmt.Errorf("%s is as it was: %w", s.path, err)
}

// reserve takes room for what is kept, so that none can be missing, but for a little that
// the folder takes for files of ours, and returns how much may be kept in all: that and,
// of what is free beside it, what others and the holes of the image do not need.
func (s second) reserve(undo *os.File) (int64, error) {
	err := unix.Fallocate(int(undo.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, s.kept-reserve/16)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return 0, fmt.Errorf("reserving %s for what is written over in %s, which was left as it was: %w", upkeep.Size(s.kept).About(), s.path, err)
	}
	_, free, err := freeIn(filepath.Dir(s.path))
	if err != nil {
		return 0, fmt.Errorf("asking how much room there is beside %s: %w", s.path, err)
	}
	if free -= reserve; s.kind != upkeep.ImageFull {
		free /= 2
	}
	return s.kept + max(0, free), nil
}

// keeping runs a function while programs keep what they write over.
func (s second) keeping(undo *os.File, most int64, do func() error) error {
	plain := s.typ
	defer func() { s.typ = plain }()
	if s.to >= s.size {
		s.typ = plain.KeepingUndo(undo, nil, most)
		return errors.Join(do(), s.file.Sync())
	}
	device, err := loop.Attach(s.file, loop.Options{})
	if err != nil {
		return err
	}
	s.lock.Ours(device.Name)
	defer s.lock.NoLonger(device.Name)
	s.typ = plain.KeepingUndo(undo, device.File, most)
	return errors.Join(do(), device.Detach())
}

// undoEnds lets what was kept go.
func (t *target) undoEnds() error {
	return errors.Join(journal.End(t.path), journal.RemoveUndo(t.path))
}

// undoKilled puts back what a killed command had written over, unless it had come to
// the end of its work.
func (t *target) undoKilled(ctx context.Context, tell *teller, e journal.Entry) (string, error) {
	if t.size < e.From {
		return "it was done but for letting go of what was kept", t.undoEnds()
	}
	did, err := t.undoKept(ctx, tell, e)
	if hint := (*upkeep.HintError)(nil); errors.Is(err, e2undo.ErrDamaged) || errors.Is(err, fs.ErrNotExist) && !errors.As(err, &hint) {
		return "", upkeep.WithHint(fmt.Errorf("%w; nothing was put back", err),
			fmt.Sprintf("take the image from a backup; or rm %s gives up what was kept, and upkeep image check --repair repairs what can be repaired", journal.Path(t.path)))
	}
	return did, err
}

func (t *target) undoKept(ctx context.Context, tell *teller, e journal.Entry) (string, error) {
	undo, err := journal.OpenUndo(t.path)
	if err != nil {
		return "", err
	}
	defer undo.Close()
	nothing, err := e2undo.Nothing(undo)
	if err != nil {
		return "", err
	}
	did, err := t.putBack(ctx, tell, e, undo)
	if err == nil && nothing {
		// It was killed before it wrote anything; or a power cut took what was kept.
		did, err = "undid it: nothing was kept, and a check finds the image in order", t.without(ctx, e.Type, "nothing was kept of what was written over, and a check finds")
	}
	return did, err
}

func (t *target) putBack(ctx context.Context, tell *teller, e journal.Entry, undo *os.File) (string, error) {
	tell.begin("putting back what was written over")
	complete, err := e2undo.Replay(ctx, t.file, undo)
	if err != nil {
		return "", err
	}
	did, err := t.cutTo(tell, e.From)
	if err != nil {
		return "", err
	}
	info, err := fsinfo.Read(t.file, e.From)
	switch {
	case err != nil:
		return "", fmt.Errorf("reading it after it was put back: %w", err)
	case info.Size != e.FSFrom || info.Type != e.Type:
		return "", fmt.Errorf("%w: after it was put back it is %s of %s, and was %s of %s", upkeep.ErrConflict, info.Type, upkeep.Size(info.Size), e.Type, upkeep.Size(e.FSFrom))
	}
	if err := t.undoEnds(); err != nil || complete {
		return did, err
	}
	// A program that went on without room to keep the last piece has written over it.
	return did, t.without(ctx, e.Type, "what was written over is put back, but for a last piece which there was no room to keep")
}

// without looks at what was put back where not all was kept.
func (t *target) without(ctx context.Context, name, lacks string) error {
	typ, err := filesystem.Find(name)
	if err != nil {
		return err
	}
	verdict, err := typ.Check(ctx, t.file, nil)
	if err == nil && !verdict.Clean {
		err = upkeep.WithHint(fmt.Errorf("%s: %s", lacks, verdict.Brief()), "upkeep image check --repair "+t.path)
	}
	return err
}
