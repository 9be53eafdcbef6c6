package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/journal"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/partition"
	"upkeep/internal/image/shadow"
)

// target is an image that is held.
type target struct {
	path string // with no symbolic link at its end
	file *os.File
	lock *hold.Lock
	size int64
	kind upkeep.ImageKind
	// part is what of it is meant: a partition, or with number 0 all of it.
	part partition.Partition
	// followed is that something lies behind that partition, so that it can grow no
	// further than to there, and the image keeps its size.
	followed bool
	sector   int64           // what the lengths of partitions are multiples of
	info     fsinfo.Info     // of the part
	goes     bool            // what the part holds is not kept, and need not be copied
	typ      filesystem.Type // of the file system; none where info.Type is empty
	// damage is why no more than the type is known of it.
	damage error
}

// take opens an image, or one partition of it, refuses it while others use it or a
// command that was killed left it half done, and reads what it is. To write, it refuses
// whatever a killed command left. The work closes it.
func (w *Work) take(path string, write bool, partition int) (*target, error) {
	t, err := w.open(path, opening{write: write, partition: partition})
	switch {
	case err != nil:
	case write:
		err = unfinished(t.path)
	default:
		err = halfDone(t.path)
	}
	return t, err
}

// opening is how an image is opened.
type opening struct {
	write, network bool
	partition      int // 0 for the whole image
}

// open is take, also of an image on which a command was killed.
func (w *Work) open(path string, o opening) (*target, error) {
	t, err := openTarget(path, o)
	if err != nil {
		return nil, err
	}
	w.closers = append(w.closers, t.file.Close, t.lock.Release)
	return t, nil
}

// openTarget opens an image and holds it. Whoever calls closes the file; the lock
// goes with it, unless a loop device keeps it.
func openTarget(path string, o opening) (*target, error) {
	real, err := realPath(path)
	if err != nil {
		return nil, err
	}
	file, err := hold.OpenReal(real, o.write)
	if err != nil {
		return nil, err
	}
	t := &target{path: real, file: file}
	if t.lock, err = hold.Take(file, hold.Options{Write: o.write, Network: o.network}); err == nil {
		err = t.look(o.partition)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return t, nil
}

// look reads what the image is, or one of its partitions.
func (t *target) look(number int) error {
	stat, err := t.file.Stat()
	if err != nil {
		return fmt.Errorf("looking at %s: %w", t.path, err)
	}
	t.size = stat.Size()
	if t.kind, err = shadow.KindOf(t.file); err != nil {
		return err
	}
	if err := t.find(number); err != nil {
		return err
	}
	t.info, err = t.read()
	if errors.Is(err, fsinfo.ErrDamaged) && t.info.Type != fsinfo.None {
		t.damage = err
	} else if err != nil {
		return fmt.Errorf("reading %s: %w", t.path, err)
	}
	if t.info.Type != fsinfo.None {
		t.typ, err = filesystem.Find(t.info.Type)
	}
	if lost := new(fsinfo.LostError); errors.As(t.damage, &lost) {
		t.typ = t.typ.FromCopy(lost.Block, lost.BlockSize)
	}
	return err
}

// find finds a partition by its number.
func (t *target) find(number int) error {
	t.part, t.followed, t.sector = partition.Partition{Length: t.size}, false, 512
	if number == 0 {
		return nil
	}
	table, err := partition.Read(t.file, t.size)
	if err != nil {
		return fmt.Errorf("%w: reading the partitions of %s: %w", upkeep.ErrRefused, t.path, err)
	}
	if t.part, err = table.Partition(number); err != nil {
		return fmt.Errorf("%w: %s: %w", upkeep.ErrRefused, t.path, err)
	}
	t.followed, t.sector = !table.IsLast(number), table.SectorSize
	return nil
}

// section is what of the image's bytes is meant.
func (t *target) section() *io.SectionReader {
	return io.NewSectionReader(t.file, t.part.Offset, t.part.Length)
}

// read reads the superblock.
func (t *target) read() (fsinfo.Info, error) { return readFS(t.section(), t.part.Length) }

// name is what is meant, for people.
func (t *target) name() string {
	if t.part.Number == 0 {
		return t.path
	}
	return fmt.Sprintf("partition %d of %s", t.part.Number, t.path)
}

// unfinished refuses an image on which a command was killed.
func unfinished(path string) error {
	left, err := shadow.Leftover(path)
	if err != nil {
		return err
	}
	if err := halfDone(path); err != nil {
		return err
	}
	kept, err := keptUndo(path)
	if err != nil {
		return err
	}
	switch {
	case kept:
		left = fmt.Sprintf("%s was left by a command that was killed", filepath.Base(journal.UndoPath(path)))
	case left != "":
		left = fmt.Sprintf("%s was left by a command that was killed while it changed %s", filepath.Base(left), path)
	default:
		return nil
	}
	return recoverFirst(path, left)
}

// halfDone refuses an image that a killed command was changing in place: what it holds
// is neither the old nor the new, so that it is not even read.
func halfDone(path string) error {
	entry, begun, err := journal.Pending(path)
	if err != nil || !begun {
		return err
	}
	return recoverFirst(path, fmt.Sprintf("a command (%s, begun %s) was ended before it was done with %s", entry.Verb, entry.At.Format(time.DateTime), path))
}

func recoverFirst(path, left string) error {
	return &upkeep.HintError{Err: fmt.Errorf("%w: %s", upkeep.ErrConflict, left), Hint: "upkeep image recover " + path}
}

// keptUndo reports whether a killed command left what it had written over.
func keptUndo(path string) (bool, error) {
	left, err := shadow.Beside(path, filepath.Base(journal.UndoPath(path)))
	return left != "", err
}

// needFS refuses an image without a file system, or with less of it than there was.
func (t *target) needFS() error {
	if t.info.Type != fsinfo.None {
		return t.needWhole()
	}
	if err := errors.Join(t.needRaw(), t.needNumber()); err != nil {
		return err
	}
	return &upkeep.HintError{Err: fmt.Errorf("%w: %s holds no file system that is known here", upkeep.ErrRefused, t.name()), Hint: "upkeep image info shows what it holds"}
}

// needRaw refuses a file that holds an image packed.
func (t *target) needRaw() error {
	format, err := pack.FormatOf(t.section(), t.part.Length)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s is a packed file that is damaged: %w", upkeep.ErrRefused, t.name(), err)
	case format == pack.Raw:
		return nil
	}
	return &upkeep.HintError{
		Err:  fmt.Errorf("%w: %s is %s: the image is inside it", upkeep.ErrRefused, t.name(), format.File()),
		Hint: "unpack it first: upkeep image unpack " + t.path + " OUT.img",
	}
}

// needNumber refuses an image with partitions where none is named.
func (t *target) needNumber() error {
	if t.part.Number != 0 {
		return nil
	}
	table, err := partition.Read(t.file, t.size)
	if err != nil || len(table.Partitions) == 0 {
		return nil
	}
	return whichPart(t.path, table)
}

// whichPart refuses an image with partitions of which none was named.
func whichPart(name string, table partition.Table) error {
	return &upkeep.HintError{
		Err:  fmt.Errorf("%w: %s has %s (%s), and which is meant would have to be said", upkeep.ErrRefused, name, upkeep.Plural(len(table.Partitions), "partition", "partitions"), table.Kind),
		Hint: fmt.Sprintf("add --partition N, such as --partition %d", table.Partitions[0].Number),
	}
}

// needReadable refuses an image whose file system is so damaged that its size is
// not known.
func (t *target) needReadable() error {
	if t.damage == nil {
		return nil
	}
	return &upkeep.HintError{Err: fmt.Errorf("%w: %s was left as it is: %w", upkeep.ErrRefused, t.name(), t.damage), Hint: "upkeep image check --repair repairs what can be repaired"}
}

// needWhole refuses an image that was cut: to make it larger would put zeros where
// its data was.
func (t *target) needWhole() error {
	if t.info.Type == fsinfo.None || t.info.Size <= t.part.Length {
		return nil
	}
	has := "the file"
	if t.part.Number != 0 {
		has = "the partition"
	}
	return &upkeep.HintError{
		Err: fmt.Errorf("%w: %s was cut off: its %s is %s large and %s %s, so %s of it are missing",
			upkeep.ErrRefused, t.name(), t.info.Type, upkeep.Size(t.info.Size).About(), has, upkeep.Size(t.part.Length).About(), upkeep.Size(t.info.Size-t.part.Length).About()),
		Hint: "get the whole image again; making this one larger would put zeros where data was",
	}
}

// mayGo refuses to throw away what an image holds: files, partitions, or data that
// is not known here, such as an encrypted volume.
func (t *target) mayGo() error {
	holds := ""
	switch table, err := partition.Read(t.section(), t.part.Length); {
	case t.damage != nil:
		holds = "a damaged " + t.info.Type
	case t.info.Type != fsinfo.None && t.info.Empty():
		return nil
	case t.info.Type != fsinfo.None:
		holds = fmt.Sprintf("%s with %s used", t.info.Type, upkeep.Size(t.info.Used).About())
	case err == nil || errors.Is(err, partition.ErrDamaged):
		holds = fmt.Sprintf("%s (%s)", upkeep.Plural(len(table.Partitions), "partition", "partitions"), table.Kind)
	case !errors.Is(err, partition.ErrNone):
		return fmt.Errorf("reading %s: %w", t.name(), err)
	default:
		blank, err := t.blank()
		if blank || err != nil {
			return err
		}
		holds = "data of a kind that is not known here"
	}
	return &upkeep.HintError{
		Err:  fmt.Errorf("%w: %s holds %s, which would go", upkeep.ErrRefused, t.name(), holds),
		Hint: "--force says that it may go",
	}
}

// blank reports whether the start of an image, where all that makes something of a
// disk has its mark, is zeros.
func (t *target) blank() (bool, error) {
	start := make([]byte, min(t.part.Length, 1<<20))
	if _, err := io.ReadFull(t.section(), start); err != nil {
		return false, fmt.Errorf("reading %s: %w", t.path, err)
	}
	return !slices.ContainsFunc(start, func(b byte) bool { return b != 0 }), nil
}

// allocated is what the image takes of its host, in bytes.
func allocated(file *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return 0, fmt.Errorf("looking at %s: %w", file.Name(), err)
	}
	return st.Blocks * 512, nil
}

// replaceable refuses an image whose place no second file can take: as it should be, or
// by who asks for that.
func (t *target) replaceable() error {
	return errors.Join(oneName(t), shadow.CanReplace(t.path, t.file))
}

// oneName refuses to put a second file in the place of an image that has several
// names: the others would keep the old one.
func oneName(t *target) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(t.file.Fd()), &st); err != nil {
		return fmt.Errorf("looking at %s: %w", t.path, err)
	}
	if st.Nlink == 1 {
		return nil
	}
	return &upkeep.HintError{
		Err:  fmt.Errorf("%w: %s has %d names (hard links), and only this one would get the changed image", upkeep.ErrRefused, t.path, st.Nlink),
		Hint: "find the others with: find FOLDER -inum " + fmt.Sprint(st.Ino) + "; symbolic links can stay",
	}
}
