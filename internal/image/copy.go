package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fit"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/reiserfs"
	"upkeep/internal/image/shadow"
	"upkeep/internal/image/tree"
)

// Copying is what is asked of a copy of what a file system holds.
type Copying struct {
	// Size, Kind, FS and Options are those of the image that is made, where the target
	// is none yet. With Size 0 it is the least that holds the files, and Spare percent
	// more.
	Size    upkeep.Size
	Kind    upkeep.ImageKind
	FS      string
	Options filesystem.Options
	Spare   float64
	// Verify compares the copy with its source, attribute by attribute.
	Verify bool
	// Merge lets a target have files already; LeaveOut lets what it cannot hold be left
	// out.
	Merge, LeaveOut bool
	// Untrusted keeps the kernel from mounting an image.
	Untrusted bool
	// Partition is the number of the one that is copied, and Into of the one of an
	// image that exists which is copied into; 0 is an image without any.
	Partition, Into int
}

// Copied is the result of [Copy].
type Copied struct {
	Entries  int64       `json:"entries"`
	Bytes    upkeep.Size `json:"bytes"`
	Lost     []tree.Loss `json:"lost"` // a list in JSON, also when it is empty
	Verified bool        `json:"verified"`
	Size     upkeep.Size `json:"size,omitempty"` // of an image that was made
}

// Copy makes ready to copy what an image or a folder holds into a new image, one
// that exists, or a folder.
func Copy(src, dst string, c Copying) (*Work, error) {
	if err := bothSides(src, dst); err != nil {
		return nil, err
	}
	w := &Work{Plan: Plan{Verb: "copy", File: dst}, measured: dst, confined: c.Untrusted}
	if c.unmounted(src, dst) {
		if err := w.planUnmounted(src, dst, c); err != nil {
			return w.fails(err)
		}
		return w, nil
	}
	from, err := w.source(src, c.Partition)
	if err != nil {
		return w.fails(err)
	}
	if from.reiser() && (c.Verify || c.Merge) {
		return w.fails(fmt.Errorf("%w: ReiserFS is read without the kernel, into an empty folder, and there is no tree to compare the copy with; leave out --verify and --merge", upkeep.ErrRefused))
	}
	info, err := stat(dst)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = w.planCopyNew(dst, c, from)
	case err != nil:
		err = fmt.Errorf("looking for where to copy to: %w", err)
	case info.IsDir():
		err = w.planCopyFolder(dst, c, from)
	default:
		err = w.planCopyOver(dst, c, from)
	}
	if err != nil {
		return w.fails(err)
	}
	return w, nil
}

// bothSides refuses a source that is not there, a target in a folder that is not, and
// two names of one file.
func bothSides(src, dst string) error {
	from, err := stat(src)
	if err != nil {
		return hold.OpenError(src, err)
	}
	to, err := stat(dst)
	switch {
	case err == nil && os.SameFile(from, to):
		return fmt.Errorf("%w: %s and %s are the same file; nothing was changed", upkeep.ErrRefused, src, dst)
	case !errors.Is(err, fs.ErrNotExist):
		return nil // what is wrong with it is told when it is opened
	}
	if strings.HasSuffix(dst, "/") {
		return upkeep.WithHint(fmt.Errorf("%w: there is no folder %s", upkeep.ErrNotFound, dst), "mkdir "+dst)
	}
	folder := filepath.Dir(dst)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return upkeep.WithHint(fmt.Errorf("%w: there is no folder %s for %s", upkeep.ErrNotFound, folder, filepath.Base(dst)), "mkdir "+folder)
	}
	return nil
}

// unmounted reports whether the kernel must not, or cannot, mount what is copied. An
// image that is made here is trusted.
func (c Copying) unmounted(src, dst string) bool {
	if os.Geteuid() != 0 {
		return true
	}
	from, err := stat(src)
	to, none := stat(dst)
	made := errors.Is(none, fs.ErrNotExist)
	return c.Untrusted && !(err == nil && from.IsDir() && (made || none == nil && to.IsDir()))
}

// source is what is copied: a folder, or an image that is mounted while it is read;
// of ReiserFS, which kernels know no more, it is read without.
type source struct {
	path   string
	folder *os.File // nil for an image
	image  *target
	usage  *fit.Usage // nil for ReiserFS
}

func (s *source) reiser() bool { return s.image != nil && s.image.typ.Name == filesystem.ReiserFS }

// source opens what is to be copied.
func (w *Work) source(path string, partition int) (*source, error) {
	info, err := stat(path)
	if err != nil {
		return nil, fmt.Errorf("looking for what to copy: %w", err)
	}
	if info.IsDir() && partition != 0 {
		return nil, fmt.Errorf("%w: %s is a folder, and has no partitions", upkeep.ErrRefused, path)
	}
	if info.IsDir() {
		folder, err := openSource(path)
		if err != nil {
			return nil, err
		}
		w.closers = append(w.closers, folder.Close)
		return &source{path: path, folder: folder}, nil
	}
	t, err := w.take(path, false, partition)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.needFS(), t.needReadable()); err != nil {
		return nil, err
	}
	s := &source{path: path, image: t}
	if s.reiser() {
		return s, nil // its journal is read along
	}
	if t.typ.Name == filesystem.Swap || !knownToKernel(t.typ.Name) {
		return nil, fromUnmountable(path, t.typ.Name)
	}
	if t.info.State == fsinfo.Journal {
		return nil, t.outOfDate()
	}
	return s, nil
}

// fromUnmountable refuses to copy out of an image that the kernel cannot mount.
func fromUnmountable(path, name string) error {
	err := fmt.Errorf("%w: %s holds %s, which this kernel cannot mount", upkeep.ErrRefused, path, name)
	if name == filesystem.Swap {
		return fmt.Errorf("%w: %s holds swap space, in which there are no files", upkeep.ErrRefused, path)
	}
	return upkeep.WithHint(err, "--untrusted reads it without the kernel, into a folder; or modprobe "+name+", where there is a driver")
}

// intoUnmountable refuses to copy into a type that the kernel cannot mount.
func intoUnmountable(name, dst string) error {
	err := fmt.Errorf("%w: nothing can be copied into %s: this kernel has no driver for %s, and it is the kernel that writes the files", upkeep.ErrRefused, dst, name)
	switch name {
	case filesystem.Swap:
		return fmt.Errorf("%w: nothing can be copied into swap space", upkeep.ErrRefused)
	case filesystem.ReiserFS:
		return upkeep.WithHint(err, "--fs ext4, for one: ReiserFS is only read")
	case filesystem.VFAT:
		return upkeep.WithHint(err, "modprobe vfat, where there is a driver; or fill one that upkeep image create --fs vfat made, with mtools: mcopy -s -i IMAGE FOLDER/* ::")
	}
	return upkeep.WithHint(err, "modprobe "+name+", or --fs ext4, for one")
}

// openSource opens a folder as its own file system has it, without what is mounted
// on folders in it: that would hide what is below.
func openSource(path string) (*os.File, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no folder %s", upkeep.ErrNotFound, path)
	}
	if err != nil {
		return nil, hold.OpenError(path, err)
	}
	clone, err := unix.OpenTree(unix.AT_FDCWD, real, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		folder, err := os.Open(real) // what is hidden stays hidden, as with any copier
		if err != nil {
			return nil, hold.OpenError(path, err)
		}
		return folder, nil
	}
	defer unix.Close(clone)
	fd, err := unix.Openat(clone, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// with runs a function while the source can be read, with its root folder; without
// one for ReiserFS.
func (s *source) with(do func(dir *os.File) error) error {
	if s.folder != nil {
		return do(s.folder)
	}
	if s.reiser() {
		return errors.Join(do(nil), s.image.lock.Again())
	}
	return errors.Join(s.image.inPlace(true, do), s.image.lock.Again()) // nobody wrote to it meanwhile
}

// measure counts what there is to copy.
func (s *source) measure(ctx context.Context) error {
	if s.reiser() {
		return nil
	}
	return s.with(func(dir *os.File) (err error) {
		s.usage, err = fit.Measure(ctx, dir)
		return err
	})
}

// bytes is how much there is to copy, at most.
func (s *source) bytes() int64 {
	switch {
	case s.usage != nil:
		return s.usage.Bytes
	case s.image != nil:
		return s.image.info.Used
	}
	return 0
}

// holds tells what there is to copy.
func (s *source) holds() string {
	if s.usage == nil {
		return fmt.Sprintf("%s of ReiserFS, read without the kernel", upkeep.Size(s.bytes()).About())
	}
	return upkeep.Plural(s.usage.Files, "file, ", "files, ") + upkeep.Size(s.usage.Bytes).About()
}

// choose finds how large the image is to be.
func (c *Creation) choose(from *source, spare float64) (why string, err error) {
	if from.usage == nil {
		// ReiserFS packs the ends of files together; how they unpack is not known before.
		used := from.bytes()
		c.Size = upkeep.Size((used*2 + 64<<20 + 1<<20 - 1) >> 20 << 20)
		if c.Options.Inodes == 0 && strings.HasPrefix(c.FS, "ext") {
			c.Options.Inodes = max(used/2048, 4096)
		}
		return "twice what ReiserFS uses, since it packs small files more tightly than others; the image is sparse, and shrink --min makes it small", nil
	}
	found, err := fit.Find(context.Background(), from.usage, c.FS, c.Options, spare)
	if err != nil {
		return "", upkeep.WithHint(err, "--size SIZE says how large the image is to be")
	}
	c.Size, c.Options = found.Size, found.Options
	return strings.Join(found.Why, "; "), nil
}

// planSize measures what is copied into an image that is made for it, says what that
// is to be, and looks for room.
func (w *Work) planSize(dst string, c Copying, typ filesystem.Type, from *source) (Creation, error) {
	creation := Creation{Size: c.Size, Kind: c.Kind, FS: c.FS, Options: c.Options}
	if creation.Kind == "" {
		creation.Kind = upkeep.ImageSparse
	}
	if err := from.measure(context.Background()); err != nil {
		return creation, err
	}
	w.Plan.step(0, "measure what %s holds: %s", from.path, from.holds())
	if c.Size == 0 {
		why, err := creation.choose(from, c.Spare)
		if err != nil {
			return creation, err
		}
		w.Plan.step(0, "choose the size: %s (%s)", creation.Size.About(), why)
	}
	if err := typ.Validate(int64(creation.Size), creation.Options); err != nil {
		return creation, err
	}
	need := from.bytes()
	if creation.Kind == upkeep.ImageFull {
		need = int64(creation.Size)
	}
	return creation, room(dst, need)
}

// planCopyNew plans a copy into an image that is made for it.
func (w *Work) planCopyNew(dst string, c Copying, from *source) error {
	if c.Into != 0 {
		return fmt.Errorf("%w: there is no image %s with a partition to copy into", upkeep.ErrNotFound, dst)
	}
	if c.FS == "" {
		c.FS = filesystem.Ext4
		if from.image != nil {
			c.FS = from.image.typ.Name
		}
	}
	typ, err := filesystem.Find(c.FS)
	if err != nil {
		return err
	}
	if err := installed(typ); err != nil {
		return err
	}
	if !knownToKernel(c.FS) || c.FS == filesystem.Swap {
		return intoUnmountable(c.FS, dst)
	}
	creation, err := w.planSize(dst, c, typ, from)
	if err != nil {
		return err
	}
	w.Plan.step(0, "make %s in a file of %s, %s, that has no name yet", c.FS, creation.Size.About(), creation.Kind)
	w.Plan.step(from.bytes(), "mount it where nobody else can see it, and copy the files")
	if c.Verify {
		w.Plan.step(0, "mount it again and compare all files and attributes with the source")
	}
	w.Plan.step(0, "name it %s", filepath.Base(dst))
	w.Plan.Undo = "a kill leaves nothing; to undo it, remove the file"
	w.do = func(ctx context.Context, tell *teller) error {
		s, err := shadow.New(dst)
		if err != nil {
			return err
		}
		err = creation.fill(ctx, tell, s.File, typ)
		if err == nil {
			into := mounting{file: s.File, typ: c.FS, larger: "choose a larger --size, or more --inodes if bytes are left"}
			err = w.copyInto(ctx, tell, c, from, into)
		}
		if err == nil {
			tell.begin("writing it to the disk")
			err = s.Create()
		}
		return errors.Join(err, s.Close())
	}
	return nil
}

// mounting is an image to copy into; lock is that of the image it stands for.
type mounting struct {
	file               *os.File
	typ                string
	attached, detached func(string)
	larger             string // is what to do when it is full
}

func (m mounting) with(readOnly bool, do func(dir *os.File) error) error {
	return mount.With(m.file, mount.Options{Type: m.typ, ReadOnly: readOnly, Attached: m.attached, Detached: m.detached}, do)
}

// copyInto copies into an image, and has it compared after it was mounted anew:
// what is compared then is what was written, and not what is still in memory.
func (w *Work) copyInto(ctx context.Context, tell *teller, c Copying, from *source, into mounting) error {
	return from.with(func(src *os.File) error {
		result := &Copied{}
		err := into.with(false, func(dir *os.File) error { return c.copy(ctx, tell, from, dir, src, result) })
		if err != nil {
			return into.full(err)
		}
		if stat, err := into.file.Stat(); err == nil {
			result.Size = upkeep.Size(stat.Size())
		}
		if c.Verify {
			if err := into.with(true, func(dir *os.File) error { return c.verify(ctx, tell, dir, src, result) }); err != nil {
				return err
			}
		}
		w.Result = *result
		return nil
	})
}

// copy copies the tree, and tells what could not be carried.
func (c Copying) copy(ctx context.Context, tell *teller, from *source, dst, src *os.File, result *Copied) error {
	tell.begin("copying")
	o := tree.Options{Merge: c.Merge, LeaveOut: c.LeaveOut, Progress: tell.progress, Total: from.bytes()}
	report, err := c.tree(ctx, from, dst, src, o)
	result.Entries, result.Bytes, result.Lost = report.Entries, upkeep.Size(report.Bytes), append([]tree.Loss{}, report.Lost...)
	for _, text := range lostTexts(report.Lost) {
		tell.note("%s", text)
	}
	return err
}

func (c Copying) tree(ctx context.Context, from *source, dst, src *os.File, o tree.Options) (tree.Report, error) {
	if !from.reiser() {
		return tree.Copy(ctx, dst, src, o)
	}
	r, err := reiserfs.Open(from.image.section(), from.image.part.Length)
	if err != nil {
		return tree.Report{}, fmt.Errorf("reading %s: %w", from.path, err)
	}
	report, err := r.Extract(ctx, dst, o.Progress)
	out := tree.Report{Entries: report.Entries, Bytes: report.Bytes}
	for _, l := range report.Lost {
		out.Lost = append(out.Lost, tree.Loss{Path: tree.Escape(l.Path), What: l.What, Why: l.Why})
	}
	return out, err
}

// lostTexts sum up what could not be carried, a line for each attribute.
func lostTexts(lost []tree.Loss) []string {
	count, first := map[string]int{}, map[string]tree.Loss{}
	var order []string
	for _, l := range lost {
		if count[l.What] == 0 {
			order, first[l.What] = append(order, l.What), l
		}
		count[l.What]++
	}
	slices.Sort(order)
	var texts []string
	for _, what := range order {
		l := first[what]
		text := fmt.Sprintf("not carried: %s of %s: %s", what, l.Path, l.Why)
		if n := count[what]; n > 1 {
			text += fmt.Sprintf(" (and of %s; -o json lists all)", upkeep.Plural(n-1, "other", "others"))
		}
		texts = append(texts, text)
	}
	return texts
}

// verify compares a copy with its source. What was told not to have been carried
// may differ, and what a target held that was merged into; nothing else.
func (c Copying) verify(ctx context.Context, tell *teller, dst, src *os.File, result *Copied) error {
	tell.begin("reading the source once more")
	want, err := tree.ReadTree(ctx, src, int64(result.Bytes), tell.progress)
	if err != nil {
		return err
	}
	tell.begin("reading the copy")
	got, err := tree.ReadTree(ctx, dst, int64(result.Bytes), tell.progress)
	if err != nil {
		return err
	}
	found := tree.Unlisted(tree.Compare(want, got), result.Lost, want)
	if c.Merge {
		found = slices.DeleteFunc(found, tree.Difference.OnlyMade)
	}
	if len(found) == 0 {
		result.Verified = true
		return nil
	}
	const most = 5
	var texts []string
	for _, d := range found[:min(most, len(found))] {
		texts = append(texts, d.String())
	}
	if len(found) > most {
		texts = append(texts, fmt.Sprintf("and %d more", len(found)-most))
	}
	return fmt.Errorf("the copy is not as its source: %s", strings.Join(texts, "; "))
}

// intoFolder refuses what is asked of an image.
func (c Copying) intoFolder(dst string) error {
	if c.Size == 0 && c.FS == "" && c.Kind == "" && c.Into == 0 {
		return nil
	}
	return upkeep.WithHint(fmt.Errorf("%w: %s is a folder, and a size, a kind, a type or a partition is of an image", upkeep.ErrRefused, dst), "give the name of a file that is not there yet")
}

// planCopyFolder plans a copy into a folder, in place.
func (w *Work) planCopyFolder(dst string, c Copying, from *source) error {
	if err := c.intoFolder(dst); err != nil {
		return err
	}
	if !c.Merge {
		dir, err := os.Open(dst)
		if err != nil {
			return hold.OpenError(dst, err)
		}
		if err := errors.Join(tree.NeedEmpty(dir), dir.Close()); err != nil {
			return err
		}
	}
	w.Plan.step(0, "copy what %s holds into %s", from.path, dst)
	if c.Verify {
		w.Plan.step(0, "compare all files and attributes with the source")
	}
	w.Plan.Undo = "a kill leaves a part of the files in the folder"
	w.do = func(ctx context.Context, tell *teller) error {
		dir, err := os.Open(dst)
		if err != nil {
			return fmt.Errorf("opening the folder: %w", err)
		}
		defer dir.Close()
		return from.with(func(src *os.File) error {
			result := &Copied{}
			if err := c.copy(ctx, tell, from, dir, src, result); err != nil {
				return err
			}
			tell.begin("writing it to the disk")
			if err := unix.Syncfs(int(dir.Fd())); err != nil {
				return fmt.Errorf("writing %s to the disk: %w", dst, err)
			}
			if c.Verify {
				if err := c.verify(ctx, tell, dir, src, result); err != nil {
					return err
				}
			}
			w.Result = *result
			return nil
		})
	}
	return nil
}

// into says what of an image is copied into.
func into(t *target) string {
	if t.part.Number == 0 {
		return "it"
	}
	return fmt.Sprintf("its partition %d", t.part.Number)
}

// planCopyOver plans a copy into an image that exists, on a second file that takes
// its place.
func (w *Work) planCopyOver(dst string, c Copying, from *source) error {
	if c.Size != 0 || c.FS != "" || c.Kind != "" {
		return upkeep.WithHint(fmt.Errorf("%w: %s exists, and a size, a kind or a type is of an image that is made", upkeep.ErrConflict, dst),
			"give the name of a file that is not there yet; or grow this one, or make another file system in it, before")
	}
	t, err := w.take(dst, true, c.Into)
	if err != nil {
		return err
	}
	if err := errors.Join(t.needFS(), t.needReadable()); err != nil {
		return err
	}
	if !knownToKernel(t.typ.Name) || t.typ.Name == filesystem.Swap {
		return intoUnmountable(t.typ.Name, dst)
	}
	if err := from.measure(context.Background()); err != nil {
		return err
	}
	s, err := planSecond(&w.Plan, t, from.bytes())
	if err != nil {
		return err
	}
	w.Plan.step(from.bytes(), "mount %s where nobody else can see it, and copy %s", into(t), from.holds())
	if c.Verify {
		w.Plan.step(0, "mount it again and compare all files and attributes with the source")
	}
	w.Plan.step(0, "check it, and put it in the image's place")
	w.do = func(ctx context.Context, tell *teller) error {
		return s.do(ctx, tell, func(file *os.File) error {
			into := mounting{file, t.typ.Name, t.lock.Ours, t.lock.NoLonger, "upkeep image grow " + t.path + " makes it larger; if bytes are left it lacks inodes: copy into a new image"}
			if err := w.copyInto(ctx, tell, c, from, into); err != nil {
				return err
			}
			_, err := s.proven(ctx, tell, file, "copied into")
			return err
		})
	}
	return nil
}
