package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/partition"
	"upkeep/internal/image/shadow"
	"upkeep/internal/image/tool"
)

// Growth is how large an image is to be. With neither To nor By its file system
// is grown to fill the file.
type Growth struct {
	To, By upkeep.Size
	// FileOnly leaves what is in the file as it is, but for the second copy of a GPT,
	// which is moved to the new end.
	FileOnly bool
	// Partition is the number of the one that is to grow with its file system; 0 is an
	// image without any. The last one reaches to the image's new end. Of one that has
	// another behind it, To is how large it is to be, and with neither To nor By it
	// reaches to that; the image keeps its size.
	Partition int
	// Untrusted keeps the kernel from mounting the image.
	Untrusted bool
}

// Grow makes ready to make an image larger, with its file system. A full image
// stays full.
func Grow(path string, g Growth) (*Work, error) {
	w := &Work{Plan: Plan{Verb: "grow", File: path}, confined: g.Untrusted}
	if g.FileOnly && g.Partition != 0 {
		return nil, fmt.Errorf("%w: file-only leaves partitions as they are, and one is named", upkeep.ErrRefused)
	}
	t, err := w.take(path, true, g.Partition)
	if err != nil {
		return w.fails(err)
	}
	if err := w.planGrowth(t, g); err != nil {
		return w.fails(err)
	}
	w.measured = t.path
	return w, nil
}

// newSize is the size that an image or a partition is to have.
func (g Growth) newSize(whose string, now int64) (int64, error) {
	to := int64(g.To)
	switch {
	case g.To != 0 && g.By != 0:
		return 0, invalidSize("by", g.By, "cannot be given beside to")
	case g.By < 0 || g.To < 0:
		return 0, invalidSize("by", min(g.By, g.To), "must be more than 0")
	case g.By > 0 && int64(g.By) > maxSize-now:
		return 0, invalidSize("by", g.By, "makes more than 16T")
	case g.By > 0:
		to = now + int64(g.By)
	case g.To == 0:
		to = now
	}
	switch {
	case to > maxSize:
		return 0, invalidSize("to", g.To, "must be at most 16T")
	case to < now:
		return 0, &upkeep.HintError{
			Err:  invalidSize("to", g.To, fmt.Sprintf("must not be less than the %s own size of %s (%d bytes)", whose, upkeep.Size(now).About(), now)),
			Hint: "upkeep image shrink makes an image smaller, after its file system",
		}
	}
	return to, nil
}

// sizes are how large the image and what is meant of it are to be.
func (t *target) sizes(g Growth) (to, length int64, err error) {
	if t.followed {
		length, err = t.upToNext(g)
		return t.size, length, err
	}
	if to, err = g.newSize("image's", t.size); err != nil || t.part.Number == 0 {
		return to, to, err
	}
	room, err := t.room(to)
	return to, max(room, t.part.Length), err
}

// upToNext is how long a partition is to be that has another behind it.
func (t *target) upToNext(g Growth) (int64, error) {
	length, err := g.newSize("partition's", t.part.Length)
	if err != nil {
		return 0, err
	}
	room, err := t.room(t.size)
	most := max(room, t.part.Length)
	switch {
	case err != nil:
		return 0, err
	case g.To == 0 && g.By == 0:
		return most, nil
	case length%t.sector != 0:
		return 0, invalidSize("to", upkeep.Size(length), fmt.Sprintf("must be a multiple of %d bytes", t.sector))
	case length > most:
		return 0, upkeep.WithHint(fmt.Errorf("%w: partition %d of %s can be %s (%d bytes) large at most: another lies behind it", upkeep.ErrRefused, t.part.Number, t.path, upkeep.Size(most).About(), most),
			"upkeep image copy --partition N takes what is in it to an image of its own, of any size")
	}
	return length, nil
}

// room is how long the partition can be in an image of a size.
func (t *target) room(size int64) (int64, error) {
	table, err := partition.Read(t.file, max(size, t.size))
	if err != nil {
		return 0, t.tableError(err)
	}
	room, err := table.Room(t.part.Number, size)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", upkeep.ErrRefused, t.path, err)
	}
	return room, nil
}

func invalidSize(field string, size upkeep.Size, rule string) error {
	return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: field, Value: size.String(), Rule: rule}}}
}

func (w *Work) planGrowth(t *target, g Growth) error {
	if err := errors.Join(t.needWhole(), t.needReadable()); err != nil {
		return err
	}
	if t.info.Type == fsinfo.None {
		if err := t.needRaw(); err != nil {
			return err
		}
	}
	if t.part.Number != 0 {
		if err := t.needFS(); err != nil {
			return err
		}
	}
	to, length, err := t.sizes(g)
	if err != nil {
		return err
	}
	more := int64(0)
	if t.kind == upkeep.ImageFull {
		more = to - t.size
	}
	if g.FileOnly {
		if err := room(t.path, more); err != nil {
			return err
		}
		return w.planFileOnly(t, g, to)
	}
	if t.part.Number == 0 && t.info.Type == fsinfo.None {
		if _, err := partition.Read(t.file, t.size); !errors.Is(err, partition.ErrNone) {
			return t.whichGrows()
		}
		return upkeep.WithHint(fmt.Errorf("%w: %s holds no file system that is known here, and so none that could grow", upkeep.ErrRefused, t.path),
			`--file-only (in a job "file_only": true) makes the file larger and leaves what is in it`)
	}
	tables := t.info.NewTables(length)
	return w.planFSGrowth(t, g, resizing{to, length, max(more, tables), tables})
}

// resizing is how large an image is to be, what is meant of it, how much room that takes
// and how much of it goes to new tables, which fill holes.
type resizing struct{ to, length, more, tables int64 }

// planFSGrowth decides how the file system is grown.
func (w *Work) planFSGrowth(t *target, g Growth, r resizing) error {
	if t.typ.NoGrow != "" {
		return &upkeep.HintError{Err: fmt.Errorf("%w: %s cannot be grown", upkeep.ErrRefused, t.typ.Name), Hint: t.typ.NoGrow}
	}
	if err := installed(t.typ); err != nil {
		return err
	}
	reflink, err := shadow.CanReflink(t.path, t.file)
	if err != nil {
		return err
	}
	mounted := t.typ.GrowsMounted() && !g.Untrusted && canGrowMounted(t.typ.Name)
	switch {
	case mounted && (!reflink || !t.typ.GrowsOffline()) && t.info.State == fsinfo.Clean:
		return w.planOnline(t, r)
	case t.typ.GrowsOffline():
		return w.planSecondGrowth(t, r)
	case mounted:
		return w.planOnline(t, r)
	}
	return onlyMounted(t, "grown", g.Untrusted)
}

// partStep is the step of a plan that moves the end of a partition.
func (t *target) partStep(plan *Plan, length int64) {
	switch {
	case t.part.Number == 0:
	case t.followed:
		what := ""
		if more := length - t.part.Length; more > 0 {
			what = fmt.Sprintf(": the %s behind it belong to no partition, and whatever bytes are there go", upkeep.Size(more).About())
		}
		plan.step(0, "make partition %d %s large%s", t.part.Number, upkeep.Size(length), what)
	default:
		plan.step(0, "let partition %d reach to its end: %s", t.part.Number, upkeep.Size(length).About())
	}
}

// whichGrows refuses an image with partitions where none is named, or where the
// table cannot be read.
func (t *target) whichGrows() error {
	return upkeep.WithHint(fmt.Errorf("%w: %s has partitions, and which of them is to be larger would have to be known", upkeep.ErrRefused, t.path),
		"--partition N grows one and its file system; --file-only makes the file larger and leaves them")
}

// onlyMounted says why a type that only the kernel can change is not changed.
func onlyMounted(t *target, done string, untrusted bool) error {
	why, hint := "this kernel does not know it", "modprobe "+t.typ.Name
	switch {
	case untrusted:
		why = "an image that is not trusted is never mounted"
		hint = "have a machine that runs from it do that; or where whoever could write to it may do what root may: without --untrusted, and for jobs trust: true for images in the agent's policy"
		if done == "grown" {
			hint = "--file-only (in a job \"file_only\": true) makes the file larger, for its file system: " + hint
		}
	case os.Geteuid() != 0:
		why, hint = "that takes root", "sudo upkeep image ..."
	}
	return &upkeep.HintError{Err: fmt.Errorf("%w: %s can only be %s while it is mounted, and %s", upkeep.ErrRefused, t.typ.Name, done, why), Hint: hint}
}

// planFileOnly changes the size of the file, in one system call, and where the second
// copy of a GPT is, which has its place at the end.
func (w *Work) planFileOnly(t *target, g Growth, to int64) error {
	moves, err := t.tableMoves(to)
	switch {
	case err != nil:
		return err
	case to == t.size && !moves && g.To == 0:
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "to", Rule: "must be given, or by: without a size nothing but the second copy of a GPT is moved, and there is none that is not at the end"}}}
	case to == t.size && !moves:
		return invalidSize("to", g.To, "is the size that the file has, and there is no file system to grow")
	case to != t.size:
		w.Plan.step(0, "make the file %s large, %s as it is", upkeep.Size(to), t.kind)
	}
	w.Plan.Undo = "a kill leaves the file as it was, or larger; to undo it: truncate --size " + fmt.Sprint(t.size)
	if moves {
		w.Plan.step(0, "move the second copy of its GPT to where the file ends; its partitions stay as they are")
		w.Plan.Undo += ", and then upkeep image grow --file-only puts the copy of the GPT where the file ends"
	}
	if to == t.size {
		w.Plan.Undo = "a kill leaves one copy of the GPT in order, and the same command goes on with it"
	}
	w.do = func(ctx context.Context, tell *teller) error {
		tell.begin("making the file larger")
		if err := t.lock.Again(); err != nil {
			return err
		}
		if err := extend(t.file, t.kind, t.size, to); err != nil || !moves {
			return err
		}
		tell.begin("moving the second copy of the GPT")
		if err := partition.ToEnd(t.file, to); err != nil {
			return upkeep.WithHint(fmt.Errorf("%s is %d bytes large, and its GPT was not brought to the end: %w", t.path, to, err), "the same command goes on with it")
		}
		return nil
	}
	return nil
}

// tableMoves reports whether a GPT has a second copy to be moved in a file that gets a
// size. Its first copy must be in order: the second is found by the end of the file alone.
func (t *target) tableMoves(to int64) (bool, error) {
	if t.info.Type != fsinfo.None {
		return false, nil // a table beside it is a remnant
	}
	table, err := partition.Read(t.file, t.size)
	if table.Kind != partition.GPT {
		return false, nil //nolint:nilerr // no other has anything at the end
	}
	if err == nil {
		table, err = partition.Read(t.file, to)
	}
	if err != nil {
		return false, t.tableError(err)
	}
	return !table.AtEnd(), nil
}

// tableError refuses to make an image larger whose partitions cannot be read then.
func (t *target) tableError(err error) error {
	return upkeep.WithHint(fmt.Errorf("%w: reading the partitions of %s, which was left as it is: %w", upkeep.ErrRefused, t.path, err),
		"a GPT is repaired before its file is made larger: sgdisk --verify FILE says what is wrong, and sgdisk -e FILE writes both copies anew where one is in order")
}

// extend makes a file larger, its new blocks allocated first if it is full: the size
// changes in one step, when they are there.
func extend(file *os.File, kind upkeep.ImageKind, from, to int64) error {
	if kind == upkeep.ImageFull && to > from {
		if err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, from, to-from); err != nil {
			// What was allocated beyond the end goes.
			return fmt.Errorf("allocating %s more for %s, which was left as it was: %w", upkeep.Size(to-from).About(), file.Name(), joinCut(err, file, from))
		}
	}
	if err := file.Truncate(to); err != nil {
		return fmt.Errorf("making %s larger: %w", file.Name(), joinCut(err, file, from))
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", file.Name(), err)
	}
	return nil
}

func joinCut(err error, file *os.File, size int64) error {
	if cut := file.Truncate(size); cut != nil {
		return fmt.Errorf("%w; and cutting it back to %d bytes: %w", err, size, cut)
	}
	return err
}

// planSecondGrowth grows a second file, and what is meant of it.
func (w *Work) planSecondGrowth(t *target, r resizing) error {
	s, err := planChange(&w.Plan, t, r.more, r.tables, false)
	if err != nil {
		return err
	}
	s.to = r.to
	if r.to != t.size || t.part.Number == 0 {
		w.Plan.step(0, "make that %s large, %s as the image is", upkeep.Size(r.to), t.kind)
	}
	t.partStep(&w.Plan, r.length)
	s.tries(w.confined)
	w.Plan.step(0, "grow its %s with %s, and check it %s", t.typ.Name, t.typ.Programs[len(t.typ.Programs)-1], s.checks())
	s.planEnd(&w.Plan)
	w.do = func(ctx context.Context, tell *teller) error {
		return s.try(ctx, tell, func(file *os.File) error {
			if err := extend(file, s.pieceKind(), t.part.Length, r.length); err != nil {
				return err
			}
			tell.begin("growing %s", t.typ.Name)
			err := s.prepare(ctx, tell, file)
			if err == nil {
				err = t.typ.Grow(ctx, file)
			}
			if err != nil {
				return fmt.Errorf("growing %s: %w", t.typ.Name, err)
			}
			info, err := s.proven(ctx, tell, file, "grown")
			w.Result = info
			return err
		})
	}
	return nil
}

// Shrinking is how small an image is to be.
type Shrinking struct {
	To upkeep.Size
	// Min makes it as small as its file system can be.
	Min       bool
	Untrusted bool
	// Partition is the number of the one that is to be shorter, with its file system; 0
	// is an image without any. The image ends behind the last one. Of one that has
	// another behind it, To is how large it is to be; the image keeps its size.
	Partition int
}

// Shrink makes ready to make an image smaller, after its file system.
func Shrink(path string, s Shrinking) (*Work, error) {
	w := &Work{Plan: Plan{Verb: "shrink", File: path}, confined: s.Untrusted}
	t, err := w.take(path, true, s.Partition)
	if err != nil {
		return w.fails(err)
	}
	if err := w.planShrinking(t, s); err != nil {
		return w.fails(err)
	}
	w.measured = t.path
	return w, nil
}

func (s Shrinking) validate(t *target) error {
	whose, now := "image's", t.size
	if t.followed {
		whose, now = "partition's", t.part.Length
	}
	switch {
	case s.Min && s.To != 0:
		return invalidSize("to", s.To, "cannot be given beside min")
	case !s.Min && s.To <= 0:
		return invalidSize("to", s.To, "must be more than 0, or min given")
	case int64(s.To)%t.sector != 0:
		return invalidSize("to", s.To, fmt.Sprintf("must be a multiple of %d bytes", t.sector))
	case int64(s.To) > now:
		return &upkeep.HintError{
			Err:  invalidSize("to", s.To, fmt.Sprintf("must not be more than the %s own size of %s (%d bytes)", whose, upkeep.Size(now).About(), now)),
			Hint: "upkeep image grow makes an image larger",
		}
	}
	if err := errors.Join(t.needFS(), t.needReadable()); err != nil {
		return err
	}
	if t.typ.NoShrink != "" {
		return &upkeep.HintError{Err: fmt.Errorf("%w: %s cannot be shrunk", upkeep.ErrRefused, t.typ.Name), Hint: t.typ.NoShrink}
	}
	if s.Min && t.typ.NoMin != "" {
		return &upkeep.HintError{Err: fmt.Errorf("%w: how small %s can be is not known", upkeep.ErrRefused, t.typ.Name), Hint: t.typ.NoMin}
	}
	return installed(t.typ)
}

// length is what the file system is to take of the image; 0 where that is the least.
func (s Shrinking) length(t *target) (int64, error) {
	length := int64(s.To)
	if t.part.Number != 0 && !t.followed {
		room, err := t.room(int64(s.To))
		if err != nil {
			return 0, err
		}
		length = min(room, t.part.Length)
	}
	switch {
	case s.Min:
		return 0, nil
	case length < int64(t.typ.MinShrink):
		return 0, invalidSize("to", s.To, fmt.Sprintf("leaves less than the %s that the kernel makes %s at least", t.typ.MinShrink, t.typ.Name))
	case length < t.info.Used:
		return 0, invalidSize("to", s.To, fmt.Sprintf("leaves less than the %s that are used in it", upkeep.Size(t.info.Used).About()))
	}
	return length, nil
}

func (w *Work) planShrinking(t *target, s Shrinking) error {
	if err := s.validate(t); err != nil {
		return err
	}
	if !t.typ.ShrinksOffline() && (s.Untrusted || os.Geteuid() != 0 || !knownToKernel(t.typ.Name)) {
		return onlyMounted(t, "shrunk", s.Untrusted)
	}
	length, err := s.length(t)
	if err != nil {
		return err
	}
	second, err := planChange(&w.Plan, t, 0, t.usedBehind(length), true)
	if err != nil {
		return err
	}
	second.to = int64(s.To)
	if t.followed {
		second.to = t.size
	}
	to := "to " + upkeep.Size(length).String()
	if s.Min { // to a size, resize2fs without a check before goes beyond its own limit
		to = "as far as it goes"
		second.tries(w.confined)
	}
	w.Plan.step(0, "shrink its %s %s, and check it %s", t.typ.Name, to, second.checks())
	switch {
	case t.part.Number == 0:
		w.Plan.step(0, "cut the file to what its superblock then says")
	case t.followed:
		w.Plan.step(0, "end partition %d where its superblock then says", t.part.Number)
	default:
		w.Plan.step(0, "end partition %d where its superblock then says, and cut the file behind it", t.part.Number)
	}
	second.planEnd(&w.Plan)
	w.do = func(ctx context.Context, tell *teller) error {
		return second.try(ctx, tell, func(file *os.File) error { return w.shrink(ctx, tell, second, file, length) })
	}
	return nil
}

// usedBehind is how much the file system uses behind a length, which is moved to in front
// of it, over blocks that are free; 0 where that is not known.
func (t *target) usedBehind(length int64) int64 {
	used, err := fsinfo.Used(t.section(), t.info)
	if err != nil || length == 0 {
		return 0
	}
	sum := int64(0)
	for _, e := range used {
		sum += max(0, e.End()-max(e.Offset, length))
	}
	return sum
}

// shrink shrinks a file that holds the file system alone, to length or with 0 as far
// as it goes. Where it is cut is never what was asked for but what the superblock says
// afterwards.
func (w *Work) shrink(ctx context.Context, tell *teller, s second, file *os.File, length int64) error {
	tell.begin("shrinking %s", s.typ.Name)
	err := s.prepare(ctx, tell, file)
	switch {
	case err != nil:
	case s.typ.ShrinksOffline():
		err = s.typ.Shrink(ctx, file, length)
	default:
		err = s.mounted(file, func(dir *os.File) error { return s.typ.ShrinkMounted(dir, length) })
	}
	if err != nil {
		return fmt.Errorf("shrinking %s: %w", s.typ.Name, err)
	}
	info, err := fsinfo.Read(file, s.part.Length)
	if err != nil {
		return fmt.Errorf("reading the shrunk %s: %w", s.typ.Name, err)
	}
	if length > 0 && info.Size > length {
		return fmt.Errorf("%w: %s is %s large after it was shrunk to %s", upkeep.ErrRefused, s.typ.Name, upkeep.Size(info.Size), upkeep.Size(length))
	}
	size := max(info.Size, length)
	if s.part.Number != 0 && length == 0 {
		if size, err = s.least(size); err != nil {
			return err
		}
	}
	if w.Result, err = s.proven(ctx, tell, file, "shrunk"); err != nil {
		return err
	}
	if s.undo { // what is cut off cannot be put back
		if err := file.Sync(); err != nil {
			return fmt.Errorf("writing the shrunk %s to the disk: %w", s.typ.Name, err)
		}
	}
	if err := file.Truncate(size); err != nil {
		return fmt.Errorf("cutting the file: %w", err)
	}
	return nil
}

// least is how long the partition is that holds a file system of a size: partitions
// end at boundaries.
func (s second) least(size int64) (int64, error) {
	table, err := partition.Read(s.file, s.size)
	if err != nil {
		return 0, fmt.Errorf("reading the partitions of %s: %w", s.path, err)
	}
	_, length, err := table.Around(s.part.Number, size)
	return min(length, s.part.Length), err
}

// installed refuses a type whose programs are missing, before anything is begun.
func installed(t filesystem.Type) error {
	for _, program := range t.Programs {
		if _, err := tool.Find(program); err != nil {
			return err
		}
	}
	return nil
}
