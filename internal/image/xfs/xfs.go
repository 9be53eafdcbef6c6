// Package xfs reads the files of an XFS file system, of version 4 or 5, out of
// anything that can be read at offsets: an image, a packed image, one on a web server.
// Nothing is mounted and no program is run, and whatever is read is taken for hostile.
//
// What it reads is described in "XFS Filesystem Structure" (xfs-documentation on
// kernel.org). Numbers are big-endian, but for checksums.
package xfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/lookup"
)

// FS is a file system that is read. It implements [fs.FS], [fs.ReadDirFS],
// [fs.StatFS] and [fs.ReadLinkFS]; symbolic links in it lead to places in it. What
// waits in its log is not seen.
type FS struct {
	lookup.Files[*inode]
	r io.ReaderAt
	fsinfo.XFSLayout
}

// Open reads the superblock of the file system in the size bytes of r.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	layout, err := fsinfo.ReadXFS(r, size)
	if err != nil {
		return nil, err
	}
	f := &FS{r: r, XFSLayout: layout}
	f.Files = lookup.FilesBelow(func() (*inode, error) { return f.inode(f.Root) })
	return f, nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", fsinfo.ErrDamaged, fmt.Sprintf(format, args...))
}

// read fills b. Who calls has made sure that it lies in the file system.
func (f *FS) read(b []byte, at int64) error {
	if n, err := f.r.ReadAt(b, at); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			return damaged("it ends before byte %d", at+int64(len(b)))
		}
		return fmt.Errorf("reading at %d: %w", at, err)
	}
	return nil
}

// locate is where blocks lie that follow each other. They never cross from one group
// into the next.
func (f *FS) locate(block uint64, count int64) (int64, bool) {
	first, exists := f.Offset(block)
	last, ends := f.Offset(block + uint64(count-1))
	return first, exists && ends && last == first+(count-1)*f.BlockSize
}

// signature is where a piece of metadata has its checksum, and says to which file
// system, which inode and, unless that is 0, which place it belongs.
type signature struct{ sum, uuid, owner, place int }

// verify checks a piece of metadata of an inode that was read at a place. Version 4
// has no signatures.
func (f *FS) verify(b []byte, s signature, owner uint64, at int64) error {
	if !f.V5 {
		return nil
	}
	if err := fsinfo.XFSChecksum(b, s.sum); err != nil {
		return err
	}
	const unit = 512 // in which places are counted, whatever the sectors
	switch {
	case [16]byte(b[s.uuid:]) != f.UUID:
		return fmt.Errorf("it belongs to another file system, of UUID %x", b[s.uuid:s.uuid+16])
	case be64(b[s.owner:]) != owner:
		return fmt.Errorf("it says that it is of inode %d", be64(b[s.owner:]))
	case s.place != 0 && be64(b[s.place:]) != uint64(at/unit):
		return fmt.Errorf("it says that it belongs to sector %d", be64(b[s.place:]))
	}
	return nil
}

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }
