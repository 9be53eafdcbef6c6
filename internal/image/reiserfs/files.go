package reiserfs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"upkeep/internal/image/lookup"
)

// Files are the files as package fs has them: [fs.ReadDirFS], [fs.StatFS] and
// [fs.ReadLinkFS]. Symbolic links lead to places in the file system. What Sys returns
// of a file is its *[Inode].
type Files struct{ fs *FS }

// Files are the files to be read by name.
func (f *FS) Files() *Files { return &Files{f} }

const maxPieces = 1 << 20 // that a file lies in

// Open implements [fs.FS].
func (f *Files) Open(name string) (fs.File, error) {
	n, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	i := &info{n, path.Base(name)}
	if n.Type() == TypeFolder {
		return lookup.Folder(i, func() ([]fs.DirEntry, error) { return f.entries(n) }), nil
	}
	if n.Type() != TypeFile {
		return &file{info: i}, nil
	}
	r, err := f.fs.reader(n)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &file{io.NewSectionReader(r, 0, n.Size), i}, nil
}

// Stat implements [fs.StatFS].
func (f *Files) Stat(name string) (fs.FileInfo, error) { return f.stat(name, true) }

// Lstat implements [fs.ReadLinkFS].
func (f *Files) Lstat(name string) (fs.FileInfo, error) { return f.stat(name, false) }

func (f *Files) stat(name string, follow bool) (fs.FileInfo, error) {
	n, err := f.find("stat", name, follow)
	if err != nil {
		return nil, err
	}
	return &info{n, path.Base(name)}, nil
}

// ReadLink implements [fs.ReadLinkFS].
func (f *Files) ReadLink(name string) (string, error) {
	n, err := f.find("readlink", name, false)
	if err == nil && n.Type() != TypeLink {
		err = &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	if err != nil {
		return "", err
	}
	return f.fs.Link(n)
}

// ReadDir implements [fs.ReadDirFS].
func (f *Files) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	entries, err := f.entries(n)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return entries, nil
}

func (f *Files) entries(n Inode) ([]fs.DirEntry, error) {
	if n.Type() != TypeFolder {
		return nil, lookup.ErrNoFolder
	}
	var all []fs.DirEntry
	err := f.fs.Entries(n.ID, func(e Entry) error {
		all = append(all, &entry{files: f, e: e})
		return nil
	})
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, err
}

func (f *Files) find(op, name string, follow bool) (Inode, error) {
	root, err := f.fs.Stat(Root)
	if err == nil {
		root, err = lookup.Walk(root, name, follow, f.lookup, func(n Inode) (string, bool, error) {
			if n.Type() != TypeLink {
				return "", false, nil
			}
			text, err := f.fs.Link(n)
			return text, true, err
		})
	}
	if err != nil {
		return Inode{}, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return root, nil
}

func (f *Files) lookup(in Inode, name string) (Inode, error) {
	if in.Type() != TypeFolder {
		return Inode{}, lookup.ErrNoFolder
	}
	if in.ID == Root && name == xattrFolder {
		return Inode{}, fs.ErrNotExist // as [FS.Entries] has it
	}
	id, found, err := f.fs.find(in.ID, name)
	switch {
	case err != nil:
		return Inode{}, err
	case !found:
		return Inode{}, fs.ErrNotExist
	}
	return f.fs.Stat(id)
}

// piece is where content of a file lies: in blocks from one on, or in the tree itself.
type piece struct {
	at     int64 // in the file
	block  uint32
	direct []byte // content itself, where it is short
	length int64
}

// content reads a file at offsets, which its tree knows no quick way to.
type content struct {
	fs     *FS
	size   int64
	pieces []piece // by offset
}

// reader maps a file's content.
func (f *FS) reader(n Inode) (*content, error) {
	c := &content{fs: f, size: n.Size}
	err := f.each(n, func(p piece) error {
		if last := len(c.pieces) - 1; last >= 0 && c.pieces[last].before(p, f.blockSize) {
			c.pieces[last].length += p.length
			return nil
		}
		if len(c.pieces) == maxPieces {
			return errors.New("it has more pieces than are read here")
		}
		c.pieces = append(c.pieces, p)
		return nil
	})
	return c, err
}

// before reports whether another piece lies right behind this one, in file and blocks.
func (p piece) before(next piece, blockSize int64) bool {
	return p.direct == nil && next.direct == nil && p.length%blockSize == 0 && p.at+p.length == next.at && int64(p.block)+p.length/blockSize == int64(next.block)
}

// blocks reads what lies in blocks, from an offset of the file on: each block may have
// newer content in the journal.
func (c *content) blocks(b []byte, p piece, from int64) error {
	for size := c.fs.blockSize; len(b) > 0; {
		block, within := p.block+uint32((from-p.at)/size), (from-p.at)%size
		n := min(size-within, int64(len(b)))
		if err := c.fs.into(b[:n], block, within); err != nil {
			return err
		}
		b, from = b[n:], from+n
	}
	return nil
}

// ReadAt implements [io.ReaderAt]. Holes are zeros.
func (c *content) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at >= c.size {
		return 0, io.EOF
	}
	short := int64(len(b)) > c.size-at
	b = b[:min(int64(len(b)), c.size-at)]
	clear(b)
	end := at + int64(len(b))
	first, _ := slices.BinarySearchFunc(c.pieces, at, func(p piece, at int64) int {
		if p.at+p.length <= at {
			return -1
		}
		return 1
	})
	for _, p := range c.pieces[first:] {
		if p.at >= end {
			break
		}
		from, to := max(p.at, at), min(p.at+p.length, end)
		if p.direct != nil {
			copy(b[from-at:to-at], p.direct[from-p.at:])
		} else if err := c.blocks(b[from-at:to-at], p, from); err != nil {
			return int(from - at), err
		}
	}
	if short {
		return len(b), io.EOF
	}
	return len(b), nil
}

// info implements [fs.FileInfo].
type info struct {
	n    Inode
	name string
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.n.Size }
func (i *info) Mode() fs.FileMode  { return lookup.Mode(i.n.Mode) }
func (i *info) ModTime() time.Time { return i.n.Mtime }
func (i *info) IsDir() bool        { return i.n.Type() == TypeFolder }
func (i *info) Sys() any           { return &i.n }

// file is an open file; the reader is nil of what is none.
type file struct {
	*io.SectionReader
	info *info
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }

// Read reads on.
func (f *file) Read(b []byte) (int, error) {
	if f.SectionReader == nil {
		return 0, &fs.PathError{Op: "read", Path: f.info.name, Err: fs.ErrInvalid}
	}
	return f.SectionReader.Read(b)
}

// entry implements [fs.DirEntry].
type entry struct {
	files *Files
	e     Entry
}

func (e *entry) Name() string { return e.e.Name }

func (e *entry) Info() (fs.FileInfo, error) {
	n, err := e.files.fs.Stat(e.e.ID)
	if err != nil {
		return nil, err
	}
	return &info{n, e.e.Name}, nil
}

func (e *entry) Type() fs.FileMode {
	info, err := e.Info()
	if err != nil {
		return fs.ModeIrregular
	}
	return info.Mode().Type()
}

func (e *entry) IsDir() bool { return e.Type().IsDir() }
