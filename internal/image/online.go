package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/journal"
	"upkeep/internal/image/partition"
)

// knownToKernel reports whether the kernel can mount a type, or has a module for it
// that it would load by itself.
func knownToKernel(name string) bool {
	text, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
			return true
		}
	}
	var release unix.Utsname
	if unix.Uname(&release) != nil {
		return false
	}
	modules, err := os.ReadFile("/lib/modules/" + unix.ByteSliceToString(release.Release[:]) + "/modules.dep")
	return err == nil && strings.Contains(string(modules), "/"+name+".ko")
}

// canGrowMounted reports whether the kernel would grow a type for this process: ext
// wants a capability that containers may lack.
func canGrowMounted(name string) bool {
	if os.Geteuid() != 0 || !knownToKernel(name) {
		return false
	}
	if name != filesystem.Ext3 && name != filesystem.Ext4 {
		return true
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// planOnline grows the image in place, by the kernel: it keeps a journal of its own,
// so that each moment of it is whole.
func (w *Work) planOnline(t *target, r resizing) error {
	if err := room(t.path, r.more); err != nil {
		return err
	}
	w.Plan.step(0, "check its %s", t.typ.Name)
	w.Plan.step(0, "note what is begun in %s", journal.Path(t.path))
	if r.to != t.size || t.part.Number == 0 {
		w.Plan.step(0, "make the file %s large, %s as it is", upkeep.Size(r.to), t.kind)
	}
	t.partStep(&w.Plan, r.length)
	w.Plan.step(0, "mount it where nobody else can see it, and have the kernel grow its %s", t.typ.Name)
	w.Plan.step(0, "check it again")
	w.Plan.Undo = "a kill leaves it whole, with its old size or its new one, or larger than its file system: upkeep image recover ends or undoes it"
	w.do = func(ctx context.Context, tell *teller) error {
		tell.begin("checking")
		if err := t.inOrder(ctx, tell); err != nil {
			return err
		}
		if err := t.lock.Again(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s was left as it was: %w", t.path, context.Cause(ctx))
		}
		info, err := t.growOnline(ctx, tell, r)
		w.Result = info
		return err
	}
	return nil
}

// inOrder refuses a file system in which a check finds something.
func (t *target) inOrder(ctx context.Context, tell *teller) error {
	verdict, err := t.check(ctx, tell)
	if err != nil {
		return err
	}
	if !verdict.Clean && t.info.State == fsinfo.Clean {
		return &upkeep.HintError{Err: fmt.Errorf("%w: %s is damaged and was left as it is: %s", upkeep.ErrRefused, t.path, verdict.Brief()), Hint: verdict.Hint}
	}
	return nil
}

// check has the programs look at the file system, reading only.
func (t *target) check(ctx context.Context, tell *teller) (verdict filesystem.Verdict, err error) {
	err = t.alone(ctx, tell, func(file *os.File) error {
		verdict, err = t.typ.Check(ctx, file, tell.progress)
		return err
	})
	return verdict, err
}

// proven checks the file system after it was changed in place.
func (t *target) proven(ctx context.Context, tell *teller) error {
	tell.begin("checking")
	return t.alone(ctx, tell, func(file *os.File) error { return t.typ.Proven(ctx, file, "grown", tell.progress) })
}

func (t *target) growOnline(ctx context.Context, tell *teller, r resizing) (fsinfo.Info, error) {
	entry := journal.Entry{Verb: "grow", At: time.Now().UTC(), From: t.size, To: r.to, FSFrom: t.info.Size, Type: t.typ.Name, Partition: t.part.Number, Length: r.length}
	if err := journal.Begin(t.path, t.file, entry); err != nil {
		return fsinfo.Info{}, err
	}
	tell.begin("making the file larger")
	if err := extend(t.file, t.kind, t.size, r.to); err != nil {
		return fsinfo.Info{}, errors.Join(err, journal.End(t.path))
	}
	before := t.part.Length
	if err := t.growPart(r.to, r.length); err != nil {
		return fsinfo.Info{}, errors.Join(err, t.takeBack(entry))
	}
	tell.begin("growing %s", t.typ.Name)
	if err := t.inPlace(false, func(dir *os.File) error { return t.typ.GrowMounted(dir, t.part.Length) }); err != nil {
		return fsinfo.Info{}, errors.Join(err, t.takeBack(entry))
	}
	info, err := t.read()
	if err != nil {
		return info, fmt.Errorf("reading %s after it was grown: %w", t.path, err)
	}
	if info.Size <= entry.FSFrom && t.part.Length > before {
		return info, errors.Join(fmt.Errorf("%w: the kernel says that %s was grown, and its superblock does not", upkeep.ErrRefused, t.path), t.takeBack(entry))
	}
	// It cannot be given up any more: what is grown is grown.
	if err := t.proven(context.WithoutCancel(ctx), tell); err != nil {
		return info, err
	}
	return info, journal.End(t.path)
}

// growPart gives what is meant of the image its new length, in a file that has its new
// size. It can be begun again after a kill.
func (t *target) growPart(to, length int64) error {
	t.size = to
	if t.part.Number == 0 {
		t.part.Length = to
		return nil
	}
	grown, err := partition.Resize(t.file, to, to, t.part.Number, length)
	if err != nil {
		return fmt.Errorf("growing partition %d of %s: %w", t.part.Number, t.path, err)
	}
	t.part = grown
	return nil
}

// takeBack makes a file as long as it was if its file system was not grown.
func (t *target) takeBack(e journal.Entry) error {
	info, err := fsinfo.Read(t.file, e.To)
	if err != nil || info.Size != e.FSFrom || e.Partition != 0 {
		return &upkeep.HintError{Err: fmt.Errorf("%s was left as it is now", t.path), Hint: "upkeep image recover " + t.path}
	}
	if err := t.file.Truncate(e.From); err != nil {
		return fmt.Errorf("cutting %s back: %w", t.path, err)
	}
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", t.path, err)
	}
	return journal.End(t.path)
}
