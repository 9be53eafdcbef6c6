// Package reiserfs reads ReiserFS 3.5 and 3.6, which kernels no longer know: what
// images of it hold can be copied out without mounting them. It only reads. What
// waits in a journal is seen as if it had been carried out.
//
// Images are taken for hostile: nothing is allocated by a number that was read,
// and every walk ends, since the keys of a tree have to rise.
package reiserfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrDamaged is wrapped by errors about file systems that cannot be as they say.
var ErrDamaged = errors.New("the file system is damaged; reiserfsck --check says more")

func damaged(format string, args ...any) error {
	return fmt.Errorf("reiserfs: %s: %w", fmt.Sprintf(format, args...), ErrDamaged)
}

// FS is a file system that is open for reading. It must not be used by several
// goroutines at a time.
type FS struct {
	r         io.ReaderAt
	size      int64
	blockSize int64
	blocks    int64
	root      uint32
	height    int
	overlay   map[uint32]int64 // blocks that the journal has newer content of, and where
	cache     map[uint32]node
	flags     bool // those of inodes are kept, and not what memory held
}

const (
	superSize   = 204
	maxHeight   = 7
	cachedNodes = 1024
)

// Open reads the superblock and the journal of an image of size bytes.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	f := &FS{r: r, size: size, cache: map[uint32]node{}}
	var super []byte
	var at int64
	for _, at = range []int64{64 << 10, 8 << 10} {
		super = make([]byte, superSize)
		if f.readAt(super, at) == nil && isSuper(super) {
			break
		}
		super = nil
	}
	if super == nil {
		return nil, fmt.Errorf("reiserfs: there is no superblock: %w", ErrDamaged)
	}
	if err := f.parse(super); err != nil {
		return nil, err
	}
	if err := f.readJournal(super); err != nil {
		return nil, err
	}
	if len(f.overlay) == 0 {
		return f, nil
	}
	block, err := f.block(uint32(at / f.blockSize))
	if err != nil {
		return nil, err
	}
	within := at % f.blockSize
	if super = block[within : within+superSize]; !isSuper(super) {
		return nil, damaged("the journal's superblock is not one")
	}
	return f, f.parse(super)
}

func isSuper(super []byte) bool {
	return bytes.HasPrefix(super[52:], []byte("ReIsErFs")) || bytes.HasPrefix(super[52:], []byte("ReIsEr2Fs")) || bytes.HasPrefix(super[52:], []byte("ReIsEr3Fs"))
}

func (f *FS) parse(super []byte) error {
	f.blocks, f.root = int64(le32(super, 0)), le32(super, 8)
	f.blockSize, f.height = int64(le16(super, 44)), int(le16(super, 68))
	f.flags = le16(super, 72) == 2 && le32(super, 80)&1 != 0
	switch {
	case f.blockSize < 512 || f.blockSize&(f.blockSize-1) != 0:
		return damaged("its superblock gives blocks of %d bytes", f.blockSize)
	case f.blocks*f.blockSize > f.size:
		return damaged("it has %d blocks of %d bytes, and the image %d bytes: it was cut off", f.blocks, f.blockSize, f.size)
	case f.height < 2 || f.height > maxHeight:
		return damaged("its superblock gives a tree of height %d", f.height)
	case int64(f.root) >= f.blocks:
		return damaged("its tree is said to begin at block %d of %d", f.root, f.blocks)
	}
	return nil
}

func (f *FS) readAt(p []byte, at int64) error {
	if at < 0 || at > f.size-int64(len(p)) {
		return damaged("%d bytes at %d of %d are asked for", len(p), at, f.size)
	}
	n, err := f.r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reiserfs: reading %d bytes at %d: %w", len(p), at, err)
}

// block reads a block as it is when the journal has been carried out.
func (f *FS) block(number uint32) ([]byte, error) {
	p := make([]byte, f.blockSize)
	return p, f.into(p, number, 0)
}

// into fills p with what is in a block from an offset on.
func (f *FS) into(p []byte, number uint32, offset int64) error {
	if int64(number) >= f.blocks {
		return damaged("block %d of %d is named", number, f.blocks)
	}
	at, newer := f.overlay[number]
	if !newer {
		at = int64(number) * f.blockSize
	}
	return f.readAt(p, at+offset)
}

func le16(p []byte, at int) uint16 { return binary.LittleEndian.Uint16(p[at:]) }
func le32(p []byte, at int) uint32 { return binary.LittleEndian.Uint32(p[at:]) }
func le64(p []byte, at int) uint64 { return binary.LittleEndian.Uint64(p[at:]) }
