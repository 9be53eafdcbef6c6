package xfs

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/lookup"
)

// Open implements [fs.FS]. Files are [io.ReaderAt] too.
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	info := &info{n, path.Base(name)}
	if info.IsDir() {
		return lookup.Folder(info, n.entries), nil
	}
	return &file{io.NewSectionReader(n, 0, n.size), info}, nil
}

// Stat implements [fs.StatFS].
func (f *FS) Stat(name string) (fs.FileInfo, error) { return f.stat(name, true) }

// Lstat implements [fs.ReadLinkFS].
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.stat(name, false) }

func (f *FS) stat(name string, follow bool) (fs.FileInfo, error) {
	n, err := f.find("stat", name, follow)
	if err != nil {
		return nil, err
	}
	return &info{n, path.Base(name)}, nil
}

// ReadLink implements [fs.ReadLinkFS].
func (f *FS) ReadLink(name string) (string, error) {
	n, err := f.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	text, err := n.link()
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return text, nil
}

// ReadDir implements [fs.ReadDirFS].
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	entries, err := n.entries()
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return entries, nil
}

func (f *FS) find(op, name string, follow bool) (*inode, error) {
	n, err := f.inode(f.Root)
	if err == nil {
		n, err = lookup.Walk(n, name, follow, (*inode).lookup, func(n *inode) (string, bool, error) {
			if n.kind() != unix.S_IFLNK {
				return "", false, nil
			}
			text, err := n.link()
			return text, true, err
		})
	}
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

func (n *inode) lookup(name string) (*inode, error) {
	for entry, err := range n.names() {
		if err != nil {
			return nil, err
		}
		if entry.name == name {
			return n.fs.inode(entry.inode)
		}
	}
	return nil, fs.ErrNotExist
}

func (n *inode) entries() ([]fs.DirEntry, error) {
	var all []fs.DirEntry
	for e, err := range n.names() {
		if err != nil {
			return nil, err
		}
		all = append(all, &entry{fs: n.fs, named: e})
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, nil
}

// info implements [fs.FileInfo].
type info struct {
	n    *inode
	name string
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.n.size }
func (i *info) Mode() fs.FileMode  { return lookup.Mode(i.n.mode) }
func (i *info) ModTime() time.Time { return i.n.modTime() }
func (i *info) IsDir() bool        { return i.Mode().IsDir() }
func (i *info) Sys() any           { return i.n.owner() }

// file is an open file.
type file struct {
	*io.SectionReader
	info *info
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }

// entry implements [fs.DirEntry]. What it is is read when it is asked for.
type entry struct {
	fs *FS
	named
	n *inode
}

func (e *entry) Name() string { return e.name }

func (e *entry) Info() (fs.FileInfo, error) {
	if e.n == nil {
		var err error
		if e.n, err = e.fs.inode(e.inode); err != nil {
			return nil, err
		}
	}
	return &info{e.n, e.name}, nil
}

func (e *entry) Type() fs.FileMode {
	info, err := e.Info()
	if err != nil {
		return fs.ModeIrregular
	}
	return info.Mode().Type()
}

func (e *entry) IsDir() bool { return e.Type().IsDir() }
