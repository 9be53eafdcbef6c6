package extfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"upkeep/internal/image/lookup"
)

const (
	maxDir  = 1 << 30  // bytes of one folder
	maxLink = 64 << 10 // bytes of a symbolic link: a block
)

// Open implements [fs.FS]. Files are [io.ReaderAt] too.
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	info := &info{n, path.Base(name)}
	if info.IsDir() {
		return lookup.Folder(info, info.n.entries), nil
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
	return n.link()
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
	root, err := f.inode(rootInode)
	if err == nil {
		root, err = lookup.Walk(root, name, follow, (*inode).lookup, func(n *inode) (string, bool, error) {
			if n.mode&0xf000 != 0xa000 {
				return "", false, nil
			}
			text, err := n.link()
			return text, true, err
		})
	}
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return root, nil
}

func (n *inode) link() (string, error) {
	if n.mode&0xf000 != 0xa000 {
		return "", fs.ErrInvalid
	}
	if n.size > maxLink {
		return "", fmt.Errorf("%w: a symbolic link has %d bytes", ErrDamaged, n.size)
	}
	if n.size < 60 && n.flags&(flagExtents|flagInline|flagEncrypted) == 0 {
		return string(n.raw[40 : 40+n.size]), nil
	}
	b := make([]byte, n.size)
	if err := readFull(n, b, 0); err != nil {
		return "", err
	}
	return string(b), nil
}

func (n *inode) lookup(name string) (*inode, error) {
	var found int64
	err := n.each(func(entry string, number int64) bool {
		if entry == name {
			found = number
		}
		return found == 0
	})
	if err != nil {
		return nil, err
	}
	if found == 0 {
		return nil, fs.ErrNotExist
	}
	return n.fs.inode(found)
}

func (n *inode) entries() ([]fs.DirEntry, error) {
	var all []fs.DirEntry
	err := n.each(func(name string, number int64) bool {
		if name != "." && name != ".." {
			all = append(all, &entry{fs: n.fs, name: name, number: number})
		}
		return true
	})
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, err
}

// each calls for the entries of a folder until it is told to stop. Indexes are
// passed over: to who reads from start to end they look like free room.
func (n *inode) each(do func(name string, number int64) bool) error {
	switch {
	case n.mode&0xf000 != 0x4000:
		return lookup.ErrNoFolder
	case n.size > maxDir:
		return fmt.Errorf("%w: a folder has %d bytes", ErrDamaged, n.size)
	case n.flags&flagEncrypted != 0:
		return fmt.Errorf("%w: it is encrypted", ErrUnsupported)
	case n.inline != nil:
		_, err := eachIn(n.inline[min(4, len(n.inline)):min(60, len(n.inline))], do)
		if err == nil && len(n.inline) > 60 {
			_, err = eachIn(n.inline[60:], do)
		}
		return err
	}
	b := make([]byte, n.fs.blockSize)
	for at := int64(0); at < n.size; at += n.fs.blockSize {
		if block, _, err := n.locate(at / n.fs.blockSize); err != nil {
			return err
		} else if block == 0 {
			return fmt.Errorf("%w: a folder has a hole", ErrDamaged)
		}
		if err := readFull(n, b[:min(n.fs.blockSize, n.size-at)], at); err != nil {
			return err
		}
		if on, err := eachIn(b, do); err != nil || !on {
			return err
		}
	}
	return nil
}

func eachIn(b []byte, do func(name string, number int64) bool) (on bool, err error) {
	for len(b) >= 8 {
		number, length, name := int64(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint16(b[4:])), int(b[6])
		if length == 0 || length == 0xffff { // as blocks of 64 KiB write it
			length = 64 << 10
		}
		if length < 8 || length > len(b) || name+8 > length && number != 0 {
			return false, fmt.Errorf("%w: an entry of a folder has %d bytes", ErrDamaged, length)
		}
		if number != 0 && name > 0 && !strings.ContainsAny(string(b[8:8+name]), "/\x00") && !do(string(b[8:8+name]), number) {
			return false, nil
		}
		b = b[length:]
	}
	return true, nil
}

// info implements [fs.FileInfo].
type info struct {
	n    *inode
	name string
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.n.size }
func (i *info) Mode() fs.FileMode  { return lookup.Mode(uint32(i.n.mode)) }
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
	fs     *FS
	name   string
	number int64
	n      *inode
}

func (e *entry) Name() string { return e.name }

func (e *entry) Info() (fs.FileInfo, error) {
	if e.n == nil {
		var err error
		if e.n, err = e.fs.inode(e.number); err != nil {
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
