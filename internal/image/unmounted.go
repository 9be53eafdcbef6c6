package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/btrfstree"
	"upkeep/internal/image/extfs"
	"upkeep/internal/image/extract"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/lookup"
	"upkeep/internal/image/shadow"
	"upkeep/internal/image/tree"
)

// planUnmounted plans a copy in which the kernel mounts nothing: out of an image into a
// folder, and out of a folder into a new ext image.
func (w *Work) planUnmounted(src, dst string, c Copying) error {
	from, err := stat(src)
	if err != nil {
		return fmt.Errorf("looking for what to copy: %w", err)
	}
	to, err := stat(dst)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("looking for where to copy to: %w", err)
	case c.Verify || c.Merge || c.Into != 0:
		return c.notUnmounted("with --verify, --merge or --to-partition")
	case err != nil && from.IsDir():
		return w.planMakeOf(src, dst, c)
	case err == nil && to.IsDir() && !from.IsDir():
		return w.planExtract(src, dst, c)
	case err == nil && to.IsDir():
		return c.notUnmounted("from a folder to a folder")
	case err == nil:
		return c.notUnmounted("into an image that exists")
	}
	return c.notUnmounted("from an image to an image")
}

// notUnmounted refuses what cannot be done without the kernel, and says what can.
func (c Copying) notUnmounted(what string) error {
	why := "without root, which mounting takes"
	if c.Untrusted {
		why = "of an image that is not trusted, which is never mounted"
	}
	return upkeep.WithHint(fmt.Errorf("%w: there is no copy %s %s", upkeep.ErrRefused, what, why),
		"what works: images into an empty folder that exists, and a folder into a new ext image; both after each other lose what the plan of the first says is not kept")
}

// planExtract plans a copy out of an image that is read by upkeep itself.
func (w *Work) planExtract(src, dst string, c Copying) error {
	if err := c.intoFolder(dst); err != nil {
		return err
	}
	t, err := w.take(src, false, c.Partition)
	if err != nil {
		return err
	}
	if err := errors.Join(t.needFS(), t.needReadable()); err != nil {
		return err
	}
	files, stale, err := filesOf(t.section(), t.part.Length, t.info)
	switch unsupported := btrfstree.Unsupported(""); {
	case errors.As(err, &unsupported):
		return notRead(unsupported, t.info.Type, src)
	case errors.Is(err, fsinfo.ErrUnsupported):
		return c.notUnmounted("out of " + t.info.Type)
	case err != nil:
		return fmt.Errorf("reading %s: %w", t.name(), err)
	case stale:
		return t.outOfDate()
	}
	top, err := files.Top()
	if err != nil {
		return fmt.Errorf("reading %s: %w", t.name(), err)
	}
	bytes, err := extract.Measure(context.Background(), top)
	if err != nil {
		return fmt.Errorf("reading %s: %w", t.name(), err)
	}
	if err := fitsInto(dst, bytes); err != nil {
		return err
	}
	lost := c.lostBy(t.info.Type)
	w.Plan.step(bytes, "read %s of files of %s by itself, and write them into %s; NOT kept: %s", upkeep.Size(bytes).About(), t.info.Type, dst, lost)
	w.Plan.Undo = "a kill leaves a part of the files in the folder"
	w.do = func(ctx context.Context, tell *teller) error {
		tell.note("not kept: %s", lost)
		return w.extract(ctx, tell, t, top, dst, extract.Options{Harmless: c.Untrusted, Total: bytes, Progress: tell.progress})
	}
	return nil
}

// fitsInto refuses a folder that is not empty, or has not the room for so many bytes.
func fitsInto(folder string, bytes int64) error {
	dir, err := os.Open(folder)
	if err != nil {
		return hold.OpenError(folder, err)
	}
	defer dir.Close()
	if err := extract.NeedEmpty(dir); err != nil {
		return err
	}
	return roomIn(folder, bytes)
}

// lostBy says what is not kept of the files of a type that are read without the kernel.
func (c Copying) lostBy(name string) string {
	if name == fsinfo.VFAT {
		return "whether a file is hidden, of the system or to be archived"
	}
	lost := "extended attributes, access lists and flags"
	if name == fsinfo.Btrfs {
		lost = "subvolumes, which become folders, " + lost
	}
	switch {
	case os.Geteuid() != 0:
		return "owners, devices, set-id bits, " + lost
	case c.Untrusted:
		return "devices, set-id bits of files, " + lost
	}
	return lost
}

// outOfDate refuses an image in whose journal changes wait.
func (t *target) outOfDate() error {
	hint := "upkeep image check --repair carries them out, on a copy that takes the image's place"
	if !t.typ.Repairs() {
		hint = "mounting it carries them out"
	}
	return upkeep.WithHint(fmt.Errorf("%w: changes wait in the journal of %s: without them its files are out of date", upkeep.ErrRefused, t.name()), hint)
}

func (w *Work) extract(ctx context.Context, tell *teller, t *target, top lookup.DirEntry, dst string, o extract.Options) error {
	dir, err := os.Open(dst)
	if err != nil {
		return fmt.Errorf("opening the folder: %w", err)
	}
	defer dir.Close()
	tell.begin("copying")
	report, err := extract.Tree(ctx, dir, top, o)
	result := Copied{Entries: report.Entries, Bytes: upkeep.Size(report.Bytes), Lost: []tree.Loss{}}
	for _, l := range report.Lost {
		result.Lost = append(result.Lost, tree.Loss{Path: tree.Escape(l.Path), What: l.What, Why: l.Why})
	}
	for _, text := range lostTexts(result.Lost) {
		tell.note("%s", text)
	}
	if err == nil {
		err = t.lock.Again() // nobody wrote to it meanwhile
	}
	if err != nil {
		return fmt.Errorf("copying %s: %w", t.name(), err)
	}
	tell.begin("writing it to the disk")
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", dst, err)
	}
	w.Result = result
	return nil
}

// planMakeOf plans an image that is made of a folder by mke2fs.
func (w *Work) planMakeOf(src, dst string, c Copying) error {
	if c.FS == "" {
		c.FS = filesystem.Ext4
	}
	typ, err := filesystem.Find(c.FS)
	if err != nil {
		return err
	}
	if !typ.MakesOf() {
		return c.notUnmounted("into " + c.FS)
	}
	if err := installed(typ); err != nil {
		return err
	}
	from, err := w.source(src, c.Partition)
	if err != nil {
		return err
	}
	creation, err := w.planSize(dst, c, typ, from)
	if err != nil {
		return err
	}
	const lost = "blocks that were allocated and not written, projects, and what only root can read"
	w.Plan.step(from.bytes(), "have mke2fs make %s of it in a file of %s, %s, that has no name yet, and debugfs give it times and flags; NOT kept: %s", c.FS, creation.Size.About(), creation.Kind, lost)
	w.Plan.step(0, "read it, compare it with the folder, and name it %s", filepath.Base(dst))
	w.Plan.Undo = "a kill leaves nothing; to undo it, remove the file"
	w.do = func(ctx context.Context, tell *teller) error {
		tell.note("not kept: %s", lost)
		s, err := shadow.New(dst)
		if err != nil {
			return err
		}
		err = w.makeOf(ctx, tell, s.File, typ, creation, from)
		if err == nil {
			tell.begin("writing it to the disk")
			err = s.Create()
		}
		return errors.Join(err, s.Close())
	}
	return nil
}

func (w *Work) makeOf(ctx context.Context, tell *teller, file *os.File, typ filesystem.Type, c Creation, from *source) error {
	tell.begin("making %s of the folder", c.FS)
	if err := shadow.Allocate(file, int64(c.Size), c.Kind); err != nil {
		return err
	}
	if err := typ.MakeOf(ctx, file, int64(c.Size), c.Options, from.folder); err != nil {
		return err
	}
	if c.Kind == upkeep.ImageSparse {
		if err := shadow.Dig(file, int64(c.Size)); err != nil {
			return err
		}
	}
	tell.begin("giving it times and flags")
	a, err := compareTrees(file, c, from.folder)
	if err != nil {
		return err
	}
	if err := filesystem.AmendExt(ctx, file, a.commands.String()); err != nil {
		return err
	}
	tell.begin("comparing")
	if a, err = compareTrees(file, c, from.folder); err != nil {
		return err
	}
	if err := typ.Proven(ctx, file, "made", tell.progress); err != nil {
		return err
	}
	for _, text := range lostTexts(a.lost) {
		tell.note("%s", text)
	}
	w.Result = Copied{Entries: a.entries, Bytes: upkeep.Size(from.bytes()), Lost: append([]tree.Loss{}, a.lost...), Size: c.Size}
	return nil
}

// amends are what an image that mke2fs made of a folder lacks.
type amends struct {
	root     *os.File
	commands strings.Builder // for debugfs
	lost     []tree.Loss
	entries  int64
}

// compareTrees goes through the image and looks each file up in the folder.
func compareTrees(file *os.File, c Creation, folder *os.File) (*amends, error) {
	files, err := extfs.Open(file, int64(c.Size))
	if err != nil {
		return nil, fmt.Errorf("reading the new image: %w", err)
	}
	a := &amends{root: folder}
	top, err := files.Top()
	if err != nil {
		return nil, fmt.Errorf("reading the new image: %w", err)
	}
	return a, a.compare(".", top)
}

// compare compares a file, and what is in it.
func (a *amends) compare(name string, e lookup.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return fmt.Errorf("reading the new image: %w", err)
	}
	if err := a.look(name, info); err != nil || !info.IsDir() {
		return err
	}
	entries, err := e.ReadDir()
	if err != nil {
		return fmt.Errorf("reading the new image: %w", err)
	}
	for _, below := range entries {
		if err := a.compare(path.Join(name, below.Name()), below); err != nil {
			return err
		}
	}
	return nil
}

// look compares one file, and notes what is to be amended.
func (a *amends) look(name string, info fs.FileInfo) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(a.root.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if name == "lost+found" && errors.Is(err, unix.ENOENT) {
		return nil // its own
	}
	if err != nil {
		return fmt.Errorf("looking at %s once more: %w", path.Join(a.root.Name(), name), err)
	}
	a.entries++
	o := info.Sys().(*lookup.Owner)
	differs := func(what, is, want string) {
		a.lost = append(a.lost, tree.Loss{Path: tree.Escape(name), What: what, Why: "it is " + is + " and not " + want})
	}
	if int64(o.UID) != int64(st.Uid) || int64(o.GID) != int64(st.Gid) {
		differs("owner", fmt.Sprint(o.UID, ":", o.GID), fmt.Sprint(st.Uid, ":", st.Gid))
		a.set(o, "uid %d", st.Uid)
		a.set(o, "gid %d", st.Gid)
	}
	if is, want := unixMode(info.Mode()), st.Mode&0o7777; is != want && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		differs("mode", fmt.Sprintf("%o", is), fmt.Sprintf("%o", want))
		a.set(o, "mode %#o", st.Mode)
	}
	if info.Mode().IsRegular() && info.Size() != st.Size {
		return fmt.Errorf("%w: %s was changed while it was copied", upkeep.ErrConflict, path.Join(a.root.Name(), name))
	}
	a.time(o, "mtime", info.ModTime(), st.Mtim, differs)
	a.time(o, "atime", o.Access, st.Atim, nil)
	return a.flags(o, name, st, differs)
}

func (a *amends) set(o *lookup.Owner, field string, value any) {
	fmt.Fprintf(&a.commands, "set_inode_field <%d> "+field+"\n", o.Inode, value)
}

// time gives a file a time to the nanosecond: 34 bits of seconds, of which the highest
// two lie beside the nanoseconds.
func (a *amends) time(o *lookup.Owner, field string, is time.Time, want unix.Timespec, differs func(what, is, want string)) {
	wanted := time.Unix(want.Sec, want.Nsec)
	if is.Equal(wanted) {
		return
	}
	low := int32(uint32(uint64(want.Sec)))
	extra := uint32(want.Nsec)<<2 | uint32((want.Sec-int64(low))>>32)&3
	a.set(o, field+" @%d", low)
	a.set(o, field+"_extra %d", extra)
	if differs != nil {
		differs("time", is.UTC().Format(time.RFC3339Nano), wanted.UTC().Format(time.RFC3339Nano))
	}
}

// amendable are the flags of files that people set and that mean nothing for how ext
// lays a file out: S, i, a, d, A, t, D and T of chattr.
const amendable = 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x8000 | 0x10000 | 0x20000

// flags gives a file or folder its flags, where they can be read.
func (a *amends) flags(o *lookup.Owner, name string, st unix.Stat_t, differs func(what, is, want string)) error {
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil
	}
	fd, err := unix.Openat(int(a.root.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path.Join(a.root.Name(), name), err)
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return nil //nolint:nilerr // it has none
	}
	if is, want := o.Flags&amendable, flags&amendable; is != want {
		a.set(o, "flags %#x", o.Flags&^amendable|want)
		differs("flags", fmt.Sprintf("%#x", is), fmt.Sprintf("%#x", want))
	}
	return nil
}

// unixMode are the bits of a mode that chmod(2) sets.
func unixMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}
