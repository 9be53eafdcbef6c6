package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/journal"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/shadow"
)

// Recovery is what [Recover] found and did.
type Recovery struct {
	Found string `json:"found"` // empty when nothing was left
	Did   string `json:"did"`
}

// Recover makes ready to end or undo what a killed command had begun on an image.
// It is done once the image is whole, and nothing is left beside it.
func Recover(path string) (*Work, error) {
	w := &Work{Plan: Plan{Verb: "recover", File: path, Undo: "it can be killed and run again"}}
	if half, err := pack.Leftover(path); err != nil || half != "" {
		return w.unpackingLeft(path, half, err)
	}
	if left, err := neverNamed(path); err != nil || left != "" {
		return w.unnamedLeft(left, err)
	}
	t, err := w.open(path, opening{write: true})
	if err != nil {
		return w.fails(err)
	}
	left, err := shadow.Leftover(t.path)
	if err != nil {
		return w.fails(err)
	}
	entry, begun, err := journal.Read(t.path, t.file)
	if err != nil {
		return w.fails(err)
	}
	if left != "" {
		w.Plan.step(0, "remove %s, which did not become the image or is not it any more", left)
	}
	if begun {
		w.Plan.step(0, "end or undo the %s that was begun %s", begunText(entry), entry.At.Format(time.DateTime))
	}
	kept, err := keptUndo(t.path)
	if err != nil {
		return w.fails(err)
	}
	if kept && !begun {
		w.Plan.step(0, "remove %s, which is not needed", journal.UndoPath(t.path))
	}
	if left == "" && !begun && !kept {
		w.Plan.step(0, "nothing: no command was killed on it")
	}
	w.do = func(ctx context.Context, tell *teller) error {
		var r Recovery
		if err := journal.Sweep(t.path); err != nil {
			return err
		}
		if kept && !begun {
			r = Recovery{Found: journal.UndoPath(t.path) + " was left by a killed command", Did: "removed it: the image is whole without it"}
			if err := journal.RemoveUndo(t.path); err != nil {
				return err
			}
		}
		if left != "" {
			r = Recovery{Found: left + " was left by a killed command", Did: "removed it: the image is whole without it"}
			if err := removeLeftover(left); err != nil {
				return err
			}
		}
		if begun {
			end := t.endOrUndo
			switch {
			case entry.Undo:
				end = t.undoKilled
			case entry.Partition != 0:
				end = t.endPart
			}
			did, err := end(ctx, tell, entry)
			if err != nil {
				return err
			}
			r = Recovery{Found: fmt.Sprintf("a %s had been begun", begunText(entry)), Did: did}
		}
		w.Result = r
		return nil
	}
	return w, nil
}

// begunText is what was begun, and from which size to which.
func begunText(e journal.Entry) string {
	if e.To == 0 { // how small it would become was not known
		return fmt.Sprintf("%s from %s to the least", e.Verb, upkeep.Size(e.From))
	}
	return fmt.Sprintf("%s from %s to %s", e.Verb, upkeep.Size(e.From), upkeep.Size(e.To))
}

// Left says what a killed command left of its work on an image, or in the place of one
// that did not come to be. It is empty where there is nothing for [Recover] to do.
func Left(path string) (string, error) {
	if left := unfinishedText(path); left != "" {
		return left, nil
	}
	torn, err := journal.Torn(path)
	if torn {
		return "a journal that was not written whole", err
	}
	return "", err
}

// unpackingLeft makes ready to remove what came of an image that was unpacked from a
// web server, and was not finished.
func (w *Work) unpackingLeft(path, half string, err error) (*Work, error) {
	if err != nil {
		return nil, err
	}
	w.Plan.step(0, "remove %s, which is not finished; unpacking again would go on with it", half)
	w.do = func(context.Context, *teller) error {
		w.Result = Recovery{Found: half + " was left by an unpack that was killed", Did: "removed it"}
		return pack.RemoveLeftover(path)
	}
	return w, nil
}

// neverNamed is the file of a new image that a kill kept from getting its name, on
// hosts where a file must have one meanwhile; empty when there is none.
func neverNamed(path string) (string, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return "", nil // what is wrong with it is told when it is opened
	}
	return shadow.Leftover(path)
}

func (w *Work) unnamedLeft(left string, err error) (*Work, error) {
	if err != nil {
		return nil, err
	}
	w.Plan.step(0, "remove %s, which did not become an image", left)
	w.do = func(context.Context, *teller) error {
		w.Result = Recovery{Found: left + " was left by a killed command", Did: "removed it: there is no image"}
		return removeLeftover(left)
	}
	return w, nil
}

func removeLeftover(path string) error {
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing what was left: %w", err)
	}
	return nil
}

// endOrUndo looks at how far a growth in place had come.
func (t *target) endOrUndo(ctx context.Context, tell *teller, e journal.Entry) (string, error) {
	if t.info.State == fsinfo.Journal || t.info.State == fsinfo.Unclean {
		if err := t.replay(tell); err != nil {
			return "", err
		}
	}
	info, err := fsinfo.Read(t.file, t.size)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", t.path, err)
	}
	switch {
	case info.Size <= e.FSFrom && t.size >= e.From && info.Size <= e.From:
		return t.cutBack(tell, e)
	case t.size != e.To:
		return "", changedSince(t, e)
	}
	return t.growToEnd(ctx, tell)
}

// growToEnd has the kernel grow the file system as far as there is room, and ends what
// was begun.
func (t *target) growToEnd(ctx context.Context, tell *teller) (string, error) {
	tell.begin("growing %s", t.typ.Name)
	if err := t.inPlace(false, func(dir *os.File) error { return t.typ.GrowMounted(dir, t.part.Length) }); err != nil {
		return "", err
	}
	if err := t.proven(ctx, tell); err != nil {
		return "", err
	}
	return "ended it: the image has its new size", journal.End(t.path)
}

// endPart ends or undoes the growth of a partition. Once the file had its new size
// there is no way back, and no need of one: each step can be taken again.
func (t *target) endPart(ctx context.Context, tell *teller, e journal.Entry) (string, error) {
	if t.size == e.From && e.To != e.From {
		return t.cutBack(tell, e)
	}
	if t.size != e.To {
		return "", changedSince(t, e)
	}
	if err := t.look(e.Partition); err != nil {
		return "", err
	}
	if t.info.Type != e.Type {
		return "", changedSince(t, e)
	}
	if err := t.growPart(e.To, e.Length); err != nil {
		return "", err
	}
	return t.growToEnd(ctx, tell) // mounting it carries out what waits in its journal
}

// cutBack makes the file as long as it was, and ends.
func (t *target) cutBack(tell *teller, e journal.Entry) (string, error) {
	did, err := t.cutTo(tell, e.From)
	if err != nil {
		return "", err
	}
	return did, journal.End(t.path)
}

func (t *target) cutTo(tell *teller, size int64) (string, error) {
	tell.begin("cutting the file back")
	// Also gives back what was allocated beyond the end.
	if err := t.file.Truncate(size); err != nil {
		return "", fmt.Errorf("cutting %s back: %w", t.path, err)
	}
	if err := t.file.Sync(); err != nil {
		return "", fmt.Errorf("writing %s to the disk: %w", t.path, err)
	}
	return "undid it: the image is as it was", nil
}

func changedSince(t *target, e journal.Entry) error {
	return fmt.Errorf("%w: %s is %d bytes large, and was %d before and %d after what was begun; it was changed since", upkeep.ErrConflict, t.path, t.size, e.From, e.To)
}

// replay has the kernel carry out what waits in the journal.
func (t *target) replay(tell *teller) error {
	tell.begin("replaying the journal")
	return t.inPlace(false, func(dir *os.File) error { return unix.Syncfs(int(dir.Fd())) })
}
