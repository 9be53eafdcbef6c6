package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/shadow"
	"upkeep/internal/image/tool"
)

// Checking is how an image is checked.
type Checking struct {
	// Repair repairs what can be repaired.
	Repair bool
	// Untrusted keeps the kernel from mounting the image.
	Untrusted bool
	// Partition is the number of the one that is meant; 0 is an image without any.
	Partition int
}

// Check makes ready to look whether an image's file system is in order, which
// changes nothing, or to repair it. Its result is a [filesystem.Verdict].
func Check(path string, c Checking) (*Work, error) {
	w := &Work{Plan: Plan{Verb: "check", File: path, Undo: "it only reads"}, confined: c.Untrusted}
	t, err := w.take(path, c.Repair, c.Partition)
	if err != nil {
		return w.fails(err)
	}
	if err := t.needFS(); err != nil {
		return w.fails(err)
	}
	if err := installed(t.typ); err != nil {
		return w.fails(err)
	}
	if !c.Repair {
		if err := w.planLook(t); err != nil {
			return w.fails(err)
		}
		w.do = func(ctx context.Context, tell *teller) error {
			tell.begin("checking")
			verdict, err := t.check(ctx, tell)
			w.Result = verdict
			if verdict.Clean && t.info.State == fsinfo.Journal {
				tell.note("changes wait in its journal: %s", carriesOut(t.info.Type))
			}
			return err
		}
		return w, nil
	}
	if err := w.planRepair(t, c.Untrusted); err != nil {
		return w.fails(err)
	}
	w.measured = t.path
	return w, nil
}

// carriesOut says what carries out the changes that wait in the journal of a type.
func carriesOut(name string) string {
	if typ, err := filesystem.Find(name); err == nil && typ.Repairs() {
		return "mounting it carries them out, and so does upkeep image check --repair"
	}
	return "mounting it carries them out"
}

// planLook plans a check that only reads: the image, or a copy of it.
func (w *Work) planLook(t *target) error {
	if t.checksCopy() {
		if err := w.planCopyToCheck(t); err != nil {
			return err
		}
	}
	w.Plan.step(0, "check its %s, reading only", t.typ.Name)
	return nil
}

func (w *Work) planCopyToCheck(t *target) error {
	why := "its program writes to what it checks"
	if !t.typ.CheckWrites {
		why = "its program cannot be shown a part of one"
	}
	reflink, err := shadow.CanReflink(t.path, t.file)
	if err != nil {
		return err
	}
	if reflink {
		w.Plan.step(0, "share the blocks of %s with a file that has no name, since %s", t.name(), why)
		return nil
	}
	bytes := allocation.Data(t.file, t.part.Offset, t.part.End())
	if err := room(t.path, bytes); err != nil {
		return err
	}
	w.Plan.step(bytes, "copy %s to a file that has no name, since %s", t.name(), why)
	w.Plan.Temporary = upkeep.Size(bytes)
	return nil
}

func (w *Work) planRepair(t *target, untrusted bool) error {
	if !t.typ.Repairs() {
		return &upkeep.HintError{
			Err:  fmt.Errorf("%w: no program is known that repairs %s without making it worse", upkeep.ErrRefused, t.typ.Name),
			Hint: cmp.Or(t.typ.NoRepair, filesystem.RescueHint),
		}
	}
	s, err := planSecond(&w.Plan, t, 0)
	if err != nil {
		return err
	}
	w.Plan.step(0, "repair its %s there, and check that nothing is left to repair", t.typ.Name)
	w.Plan.step(0, "put it in the image's place, if anything was repaired")
	w.do = func(ctx context.Context, tell *teller) error {
		tell.begin("checking")
		before, err := t.check(ctx, tell)
		var failed *tool.FailedError
		if errors.As(err, &failed) {
			// Programs that repair go on where those that only look give up.
			tell.note("it could not be checked as it is, and is repaired without: %s", failed)
		} else if err != nil || before.Clean && t.info.State == fsinfo.Clean && t.damage == nil {
			w.Result = before
			return err
		}
		return s.do(ctx, tell, func(file *os.File) error {
			verdict, err := s.repair(ctx, tell, file, untrusted)
			w.Result = verdict
			return err
		})
	}
	return nil
}

// repair repairs a file that holds the file system alone, of which nothing is kept unless it is clean then.
func (s second) repair(ctx context.Context, tell *teller, file *os.File, untrusted bool) (filesystem.Verdict, error) {
	carriedOut := false
	if s.typ.Name == filesystem.XFS && !untrusted && os.Geteuid() == 0 && knownToKernel(s.typ.Name) {
		// Only mounting carries out what is in its log. That it cannot be mounted is
		// for xfs_repair to say.
		err := s.mounted(file, func(*os.File) error { return nil })
		if err != nil {
			tell.note("it could not be mounted to carry out what is in its log: %s", err)
		}
		carriedOut = err == nil && s.info.State == fsinfo.Journal
	}
	tell.begin("repairing")
	verdict, err := s.typ.Repair(ctx, file, tell.progress)
	if err != nil {
		return verdict, err
	}
	if !verdict.Clean {
		return verdict, &upkeep.HintError{Err: fmt.Errorf("%w: it could not be repaired: %s", upkeep.ErrRefused, verdict.Brief()), Hint: verdict.Hint}
	}
	if carriedOut {
		verdict.Mended = true
		verdict.Found = strings.TrimSuffix("changes waited in its log, and were carried out; "+verdict.Found, "; ")
	}
	_, err = s.proven(ctx, tell, file, "repaired")
	return verdict, err
}
