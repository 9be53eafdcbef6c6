// Package btrfs reads the files of a btrfs on one device out of anything that can be
// read at offsets: an image, a packed image, one on a web server. Nothing is mounted
// and no program is run, and whatever is read is taken for hostile. What it reads is
// checked against the checksums that are kept of it.
//
// What is wrong with a file system is a [btrfstree.Damage], and what is not read here
// a [btrfstree.Unsupported].
package btrfs

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"upkeep/internal/image/btrfstree"
	"upkeep/internal/image/lookup"
)

// Kinds of items, beside those of the trees.
const (
	dirItem    = 84
	dirIndex   = 96
	extentData = 108
	extentSum  = 128
	rootRef    = 156
)

const (
	sumTree   = 7
	sumObject = ^uint64(9) // -10: what sums are kept of has no number of its own
)

// FS is a file system that is read. It implements [fs.FS], [fs.ReadDirFS],
// [fs.StatFS] and [fs.ReadLinkFS]; symbolic links in it lead to places in it, and
// subvolumes are folders. It begins with the subvolume that is mounted by default.
type FS struct {
	lookup.Files[*inode]
	t    *btrfstree.Trees
	sums btrfstree.Root
	top  subvolume
}

// subvolume is a tree of files.
type subvolume struct {
	number uint64
	root   btrfstree.Root
}

// Open reads the superblock of the file system in the size bytes of r, and where in
// it things are.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	super, err := readSuper(r, size)
	if err != nil {
		return nil, err
	}
	t, err := btrfstree.Open(r, size, super)
	if err != nil {
		return nil, err
	}
	f := &FS{t: t}
	f.Files = lookup.FilesBelow(func() (*inode, error) { return f.inode(f.top, btrfstree.FirstFree) })
	found := false
	if f.sums, found, err = t.Root(sumTree); err == nil && !found {
		err = damaged("there is no tree of checksums")
	}
	if err != nil {
		return nil, err
	}
	return f, f.findTop()
}

func readSuper(r io.ReaderAt, size int64) (*btrfstree.Super, error) {
	block := make([]byte, btrfstree.SuperSize)
	if size < btrfstree.SuperOffset+btrfstree.SuperSize {
		return nil, damaged("an image of %d bytes has no room for its superblock", size)
	}
	if n, err := r.ReadAt(block, btrfstree.SuperOffset); n < len(block) {
		return nil, fmt.Errorf("reading the superblock: %w", err)
	}
	super, err := btrfstree.ParseSuper(block)
	if err != nil {
		return nil, err
	}
	if names := super.Unread(); len(names) > 0 {
		return nil, btrfstree.Unsupported("btrfs with " + strings.Join(names, ", "))
	}
	if device := super.U64(201 + 8); device > uint64(size) {
		return nil, damaged("it was cut off: %d bytes of %d are there", size, device)
	}
	return super, nil
}

// findTop finds the subvolume that is mounted where none is asked for.
func (f *FS) findTop() error {
	f.top.number = btrfstree.FSTree
	location, err := f.lookup(f.t.RootTree(), f.t.U64(128), "default")
	switch {
	case err == nil:
		f.top.number = location.Object
	case !errors.Is(err, errNoEntry):
		return err
	}
	root, found, err := f.t.Root(f.top.number)
	if err == nil && !found {
		err = damaged("there is no subvolume %d, which is the default", f.top.number)
	}
	f.top.root = root
	return err
}

// Stale reports that changes wait in a log: files are read as they were before them.
func (f *FS) Stale() bool { return f.t.U64(96) != 0 }

// item is what a tree has by a key; nil where that is nothing.
func (f *FS) item(root btrfstree.Root, key btrfstree.Key) (item btrfstree.Fields, err error) {
	err = f.t.Walk(root, key, func(k btrfstree.Key, have btrfstree.Fields) (bool, error) {
		if k == key {
			item = have
		}
		return false, nil
	})
	return item, err
}

func damaged(format string, args ...any) error {
	return btrfstree.Damage("btrfs: " + fmt.Sprintf(format, args...))
}

// hash is the number by which a folder has an entry: the CRC-32C of its name, begun
// and ended in another way than is usual.
func hash(name string) uint64 {
	return uint64(^crc32.Update(1, crc32.MakeTable(crc32.Castagnoli), []byte(name)))
}
