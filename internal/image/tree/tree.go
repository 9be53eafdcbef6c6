// Package tree copies what a file system holds into another, with all that can be
// told of it, and describes it in manifests by which two trees are compared.
//
// Trees are given by descriptors and walked by names of one part each: nothing is
// followed, nothing of another file system is entered, and a tree may be deeper
// than a path may be long. What a target cannot hold is listed, never left out in
// silence.
package tree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Options say how a tree is copied.
type Options struct {
	// Merge lets the target have entries. Folders that both have become one; what
	// else the target has under a name of the source is replaced.
	Merge bool
	// LeaveOut lets entries that the target cannot hold at all, such as links on
	// vfat, be left out. They are listed as lost.
	LeaveOut bool
	// Total is how many bytes the files have together, if that is known: it is passed
	// on to Progress.
	Total    int64
	Progress func(done, total int64)
}

// A Loss is something that a copy has not got.
type Loss struct {
	Path string `json:"path"` // as [Escape] writes it; "." is the root
	What string `json:"what"` // an attribute, as in a [Difference]
	Why  string `json:"why"`
}

// A Report says what was copied.
type Report struct {
	Entries int64  // of folders, links and all
	Bytes   int64  // of files, without holes
	Lost    []Loss // sorted by path
}

// Copy copies what is in the folder src, and the folder's own attributes, to the
// folder dst. It does not wait for the disk. After an error dst holds a part.
func Copy(ctx context.Context, dst, src *os.File, o Options) (Report, error) {
	c := newCopier(int(dst.Fd()), o)
	if err := c.prepare(int(src.Fd())); err != nil {
		return Report{}, fmt.Errorf("copying into %s: %w", dst.Name(), err)
	}
	err := walk(ctx, int(src.Fd()), c)
	if err == nil {
		err = c.seal()
	}
	slices.SortFunc(c.lost, func(a, b Loss) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.What, b.What))
	})
	report := Report{Entries: c.entries.Load(), Bytes: c.bytes.Load(), Lost: c.lost}
	if err != nil {
		return report, fmt.Errorf("copying %s to %s: %w", src.Name(), dst.Name(), err)
	}
	return report, nil
}

// copier is the visitor that copies.
type copier struct {
	Options
	root        int
	speculative bool // the source is XFS
	own         bool // dst has a lost+found of its own

	entries, bytes atomic.Int64
	groups         groups

	mu     sync.Mutex
	lost   []Loss
	sealed []sealed
}

func newCopier(dst int, o Options) *copier {
	return &copier{Options: o, root: dst, groups: groups{of: map[inodeKey]*group{}}}
}

// target is the folder of the copy, beside one of the source.
type target struct {
	fd int
}

// sealed is a file that is to get flags when all links to it are made.
type sealed struct {
	folder *folder
	name   string
	flags  uint32
}

// prepare looks at both sides.
func (c *copier) prepare(src int) error {
	c.speculative = isXFS(src)
	fd, err := unix.Openat(c.root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := readNames(fd)
	if err != nil {
		return err
	}
	c.own = slices.Contains(names, lostFound)
	if c.Merge {
		return nil
	}
	return needNone(names)
}

// NeedEmpty refuses a folder with something in it but an ext's own lost+found.
func NeedEmpty(dir *os.File) error {
	names, err := readNames(int(dir.Fd()))
	if err != nil {
		return fmt.Errorf("reading %s: %w", dir.Name(), err)
	}
	if err := needNone(names); err != nil {
		return fmt.Errorf("copying into %s: %w", dir.Name(), err)
	}
	return nil
}

func needNone(names []string) error {
	for _, name := range names {
		if name != lostFound {
			return upkeep.WithHint(fmt.Errorf("%w: it is not empty; it has %s, for one", upkeep.ErrRefused, Escape(name)),
				`--merge (in a job "merge": true) keeps its files, but for those that the source has too`)
		}
	}
	return nil
}

// lostFound is the folder that ext's checker puts files into. A file system is
// made with one.
const lostFound = "lost+found"

func isXFS(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.XFS_SUPER_MAGIC
}

// lose notes that something was not carried.
func (c *copier) lose(f *folder, name, what, why string) {
	path := f.join(name)
	if name == "" {
		path = f.path()
	}
	if path == "" {
		path = "."
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = append(c.lost, Loss{Escape(path), what, why})
}

// enter opens the folder's counterpart, which visit made.
func (c *copier) enter(f *folder) error {
	parent, name := c.root, "."
	if f.parent != nil {
		parent, name = f.parent.own.(*target).fd, f.item.name
	}
	fd, err := openBelow(parent, name, unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("opening its copy: %w", err)
	}
	f.own = &target{fd}
	if f.parent != nil && !c.Merge {
		return nil
	}
	// What was there before gives nothing of its own to what is made below it.
	return scrub(fd)
}

func (c *copier) release(f *folder) { unix.Close(f.own.(*target).fd) }

// leave gives a folder its attributes: its time is changed no more, since what is
// further below changes other folders.
func (c *copier) leave(f *folder) error {
	c.entries.Add(1)
	ext, err := readInode(f.fd)
	if err != nil {
		return fmt.Errorf("reading its flags: %w", err)
	}
	fd := f.own.(*target).fd
	if err := c.early(f, "", fd, ext); err != nil {
		return err
	}
	xattrs, err := readXattrs(f.fd, 0, "")
	if err != nil {
		return fmt.Errorf("reading its attributes: %w", err)
	}
	return c.finish(f, "", &f.item, subject{fd: fd}, xattrs, ext, true)
}

// visit copies one entry; of a folder it makes the place.
func (c *copier) visit(f *folder, i *item) error {
	dir := f.own.(*target).fd
	if i.foreign {
		return c.foreign(f, i, dir)
	}
	var err error
	switch i.kind() {
	case unix.S_IFDIR:
		err = c.make(dir, i.name, func() error { return unix.Mkdirat(dir, i.name, 0o700) }, true)
	case unix.S_IFREG:
		err = c.linked(f, i, func(made func()) error { return c.file(f, i, dir, made) })
	case unix.S_IFLNK:
		err = c.linked(f, i, func(made func()) error { return c.link(f, i, dir, made) })
	default:
		err = c.linked(f, i, func(made func()) error { return c.special(f, i, dir, made) })
	}
	var cannot *cannotError
	if errors.As(err, &cannot) && c.LeaveOut && i.kind() != unix.S_IFDIR {
		c.lose(f, i.name, "entry", cannot.Error())
		return nil
	}
	if errors.As(err, &cannot) {
		return upkeep.WithHint(err, "the target's file system cannot hold it; --leave-out copies without such entries and lists them")
	}
	return err
}

// foreign leaves an empty folder where another file system is mounted.
func (c *copier) foreign(f *folder, i *item, dir int) error {
	c.lose(f, i.name, "entry", "it is on another file system, which was not entered")
	if i.kind() != unix.S_IFDIR {
		return nil
	}
	return c.make(dir, i.name, func() error { return unix.Mkdirat(dir, i.name, 0o755) }, true)
}
