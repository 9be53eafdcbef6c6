package reiserfs

import (
	"errors"
	"io"
	"io/fs"
	"slices"

	"upkeep/internal/image/lookup"
)

const maxPieces = 1 << 20 // that a file lies in

// Files are the files to be read by name.
func (f *FS) Files() lookup.Tree {
	return lookup.FilesBelow(func() (named, error) { return f.named(Root) })
}

// named is a file of any type that was found by its name.
type named struct {
	fs *FS
	Inode
}

func (f *FS) named(id ID) (named, error) {
	n, err := f.Stat(id)
	return named{f, n}, err
}

// Stat implements [lookup.Node], as what follows does.
func (n named) Stat() lookup.Stat {
	owner := lookup.Owner{UID: n.UID, GID: n.GID, Inode: uint64(n.Object), Links: n.Links, Device: n.Device(), Access: n.Atime}
	return lookup.Stat{Size: n.Size, Mode: lookup.Mode(n.Mode), ModTime: n.Mtime, Owner: owner}
}

func (n named) Link() (string, error)            { return n.fs.Link(n.Inode) }
func (n named) Content() (lookup.Content, error) { return n.fs.reader(n.Inode) }

func (n named) Entries() (all []lookup.Entry[named], err error) {
	if n.Type() != TypeFolder {
		return nil, lookup.ErrNoFolder
	}
	err = n.fs.Entries(n.ID, func(e Entry) error {
		all = append(all, lookup.Entry[named]{Name: e.Name, Node: func() (named, error) { return n.fs.named(e.ID) }})
		return nil
	})
	return all, err
}

func (n named) Lookup(name string) (named, error) {
	if n.Type() != TypeFolder {
		return n, lookup.ErrNoFolder
	}
	if n.ID == Root && name == xattrFolder {
		return n, fs.ErrNotExist // as [FS.Entries] has it
	}
	id, found, err := n.fs.find(n.ID, name)
	switch {
	case err != nil:
		return n, err
	case !found:
		return n, fs.ErrNotExist
	}
	return n.fs.named(id)
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
	for _, p := range c.from(at) {
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

// from are the pieces that end behind a byte of the file.
func (c *content) from(at int64) []piece {
	first, _ := slices.BinarySearchFunc(c.pieces, at, func(p piece, at int64) int {
		if p.at+p.length <= at {
			return -1
		}
		return 1
	})
	return c.pieces[first:]
}

// NextData implements [lookup.Content].
func (c *content) NextData(offset int64) (from, to int64, err error) {
	offset = max(offset, 0)
	for _, p := range c.from(offset) {
		return min(max(p.at, offset), c.size), min(p.at+p.length, c.size), nil
	}
	return c.size, c.size, nil
}
