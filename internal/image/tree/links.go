package tree

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// inodeKey says which file a name leads to.
type inodeKey struct{ dev, ino uint64 }

// groups have the files that more than one name leads to.
type groups struct {
	mu sync.Mutex
	of map[inodeKey]*group
}

// A group is one such file: where its first name is, and how many are to come.
type group struct {
	folder *folder
	name   string
	left   uint32
	made   chan struct{} // closed when the copy is there, or is not going to be
	ok     bool
}

// linked makes a copy of a file with copy, which calls back as soon as there is
// an entry, and of its further names links to that.
func (c *copier) linked(f *folder, i *item, copy func(made func()) error) error {
	if i.links < 2 {
		return copy(func() {})
	}
	key := inodeKey{i.dev, i.ino}
	c.groups.mu.Lock()
	g := c.groups.of[key]
	first := g == nil
	if first {
		g = &group{folder: f, name: i.name, left: i.links, made: make(chan struct{})}
		c.groups.of[key] = g
	}
	if g.left--; g.left == 0 {
		delete(c.groups.of, key)
	}
	c.groups.mu.Unlock()
	if first {
		done := sync.OnceFunc(func() { close(g.made) })
		defer done()
		return copy(func() { g.ok = true; done() })
	}
	<-g.made
	if !g.ok {
		return &cannotError{fmt.Errorf("it is a link to %s, which is not there", Escape(g.folder.join(g.name)))}
	}
	return c.addName(f, i, g)
}

// addName gives a file of the target one more name.
func (c *copier) addName(f *folder, i *item, g *group) error {
	from, let, err := c.folderOf(g.folder)
	if err != nil {
		return fmt.Errorf("finding %s, to which it is a link: %w", Escape(g.folder.join(g.name)), err)
	}
	defer let()
	to := f.own.(*target).fd
	if err := c.make(to, i.name, func() error { return unix.Linkat(from, g.name, to, i.name, 0) }, false); err != nil {
		return err
	}
	c.entries.Add(1)
	return unchanged(f, i)
}

// folderOf opens the copy of a folder that may be closed by now.
func (c *copier) folderOf(f *folder) (fd int, let func(), err error) {
	if f.keep() {
		return f.own.(*target).fd, func() { f.let(c) }, nil
	}
	fd, err = unix.Openat(c.root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	for rest := f.path(); rest != ""; {
		var part string
		part, rest = cutPath(rest)
		var next int
		err := retry(func() (err error) { next, err = unix.Openat2(fd, part, &how); return err })
		err = errors.Join(err, unix.Close(fd))
		if err != nil {
			return -1, nil, err
		}
		fd = next
	}
	return fd, func() { unix.Close(fd) }, nil
}

// cutPath takes as much from the front of a path as one system call takes.
func cutPath(path string) (part, rest string) {
	if len(path) < unix.PathMax {
		return path, ""
	}
	at := strings.LastIndexByte(path[:unix.PathMax-1], '/')
	return path[:at], path[at+1:]
}

// seal gives files with several names the flags that forbid to add one.
func (c *copier) seal() error {
	for _, s := range c.sealed {
		if err := c.sealOne(s); err != nil {
			return fmt.Errorf("%s: %w", Escape(s.folder.join(s.name)), err)
		}
	}
	return nil
}

func (c *copier) sealOne(s sealed) error {
	dir, let, err := c.folderOf(s.folder)
	if err != nil {
		return err
	}
	defer let()
	fd, err := openBelow(dir, s.name, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return c.giveSeal(s.folder, s.name, fd, s.flags)
}
