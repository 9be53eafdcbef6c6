package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/journal"
	"upkeep/internal/image/loop"
	"upkeep/internal/image/tool"
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
	if _, unknown := tool.Find("e2undo"); unknown != nil {
		return s, err
	}
	if err := room(t.path, more+kept+reserve); err != nil {
		var lacks *noRoomError
		if errors.As(err, &lacks) {
			lacks.second = missing.need
		}
		return s, err
	}
	*plan = before
	plan.step(0, "note what is begun in %s; there is no room for a second file: %s missing for one", journal.Path(t.path), upkeep.Plural(missing.missing(), "byte is", "bytes are"))
	plan.step(0, "work on the image itself, and keep what is written over in %s", journal.UndoPath(t.path))
	plan.Temporary = upkeep.Size(more + kept + reserve)
	plan.Undo = "a kill leaves it half changed, with all that it takes to put it back, which upkeep image recover does; a power cut is not guarded against"
	s.undo = true
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
	entry := journal.Entry{Verb: t.verb, At: time.Now().UTC(), From: s.size, To: s.to, FSFrom: s.info.Size, Type: s.typ.Name, Undo: true}
	if err := journal.Begin(s.path, s.file, entry); err != nil {
		return errors.Join(err, journal.RemoveUndo(s.path))
	}
	if err = s.keeping(undo, func() error { return change(s.file) }); err == nil {
		return s.undoEnds()
	}
	_, failed := s.putBack(context.WithoutCancel(ctx), t, entry, undo)
	if failed != nil {
		return errors.Join(err, upkeep.WithHint(fmt.Errorf("putting back what was written over: %w", failed), "upkeep image recover "+s.path))
	}
	return fmt.Errorf("%s is as it was: %w", s.path, err)
}

// keeping runs a function while programs keep what they write over.
func (s second) keeping(undo *os.File, do func() error) error {
	plain := s.typ
	defer func() { s.typ = plain }()
	if s.to >= s.size {
		s.typ = plain.KeepingUndo(undo, nil)
		return errors.Join(do(), s.file.Sync())
	}
	device, err := loop.Attach(s.file, loop.Options{})
	if err != nil {
		return err
	}
	s.lock.Ours(device.Name)
	defer s.lock.NoLonger(device.Name)
	s.typ = plain.KeepingUndo(undo, device.File)
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
	undo, err := journal.OpenUndo(t.path)
	if err != nil {
		return "", err
	}
	defer undo.Close()
	return t.putBack(ctx, tell, e, undo)
}

func (t *target) putBack(ctx context.Context, tell *teller, e journal.Entry, undo *os.File) (string, error) {
	tell.begin("putting back what was written over")
	begun, err := undoBegun(undo)
	if err != nil {
		return "", err
	}
	if begun {
		if err := filesystem.UndoExt(ctx, t.file, undo); err != nil {
			return "", err
		}
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
	return did, t.undoEnds()
}

// undoBegun reports whether anything was written over. Programs make room for the header
// of what they keep with zeros, and write it before they write to the image for the first
// time; until then there is nothing to put back, and e2undo refuses such a file.
func undoBegun(undo *os.File) (bool, error) {
	header := make([]byte, 512)
	n, err := undo.ReadAt(header, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading what was kept: %w", err)
	}
	return slices.ContainsFunc(header[:n], func(b byte) bool { return b != 0 }), nil
}
