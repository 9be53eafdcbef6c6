package vfat

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"upkeep/internal/image/lookup"
)

// Open implements [fs.FS].
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.isFolder() {
		return lookup.Folder(info{n, path.Base(name)}, n.list), nil
	}
	c, err := n.content()
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &file{io.NewSectionReader(c, 0, n.size), info{n, path.Base(name)}}, nil
}

// Stat implements [fs.StatFS].
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	n, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return info{n, path.Base(name)}, nil
}

// Lstat implements [fs.ReadLinkFS].
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.Stat(name) }

// ReadLink implements [fs.ReadLinkFS].
func (f *FS) ReadLink(name string) (string, error) {
	_, err := f.find("readlink", name)
	if err == nil {
		err = &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return "", err
}

// ReadDir implements [fs.ReadDirFS].
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find("readdir", name)
	if err != nil {
		return nil, err
	}
	entries, err := n.list()
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return entries, nil
}

func (f *FS) find(op, name string) (*node, error) {
	n, err := lookup.Walk(f.root(), name, true, (*node).lookup, func(*node) (string, bool, error) { return "", false, nil })
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

func (n *node) lookup(name string) (*node, error) {
	if !n.isFolder() {
		return nil, lookup.ErrNoFolder
	}
	entries, err := n.entries()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if folded(e.name) == folded(name) {
			return e, nil
		}
	}
	return nil, fs.ErrNotExist
}

func (n *node) list() ([]fs.DirEntry, error) {
	if !n.isFolder() {
		return nil, lookup.ErrNoFolder
	}
	entries, err := n.entries()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	var all []fs.DirEntry
	for _, e := range entries {
		all = append(all, fs.FileInfoToDirEntry(info{e, e.name}))
	}
	return all, nil
}

// info implements [fs.FileInfo].
type info struct {
	n    *node
	name string // as it was asked for
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.n.size }
func (i info) Mode() fs.FileMode  { return i.n.mode() }
func (i info) ModTime() time.Time { return i.n.changed }
func (i info) IsDir() bool        { return i.n.isFolder() }
func (i info) Sys() any           { return &Sys{i.n.cluster} }

// Sys is what [fs.FileInfo.Sys] returns.
type Sys struct {
	// Cluster is where a folder begins, which is where no other does.
	Cluster uint32
}

// file is an open file.
type file struct {
	*io.SectionReader
	info info
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }
