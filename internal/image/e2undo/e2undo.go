// Package e2undo puts back what programs of e2fsprogs kept, with their option -z, of what
// they wrote over. The format is that of lib/ext2fs/undo_io.c there.
//
// The program e2undo does so too, and is not used: after a kill it has to be forced, which
// leaves the file system marked as not clean, and of what it finds damaged it has put back
// a part before it says so. Here all is read and found right before anything is written,
// and each byte is what it was.
package e2undo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

const (
	headerSize = 512
	magic      = "E2UNDO02"
	keysMagic  = 0xCADECADE
	keySize    = 16
	// extentBlocks is E2UNDO_MAX_EXTENT_BLOCKS.
	extentBlocks = 512
	minBlock     = 1024
	maxBlock     = 1 << 20
)

// ErrDamaged is that what was kept is not what a program wrote. Nothing was put back.
var ErrDamaged = errors.New("what was kept of what was written over is damaged")

// header is the start of struct undo_header.
type header struct {
	Magic         [8]byte
	Keys          uint64
	Super         uint64 // block of a copy of the superblock, which tells nothing here
	FirstKeys     uint64 // the first block of keys
	Block         uint32 // bytes of a block of the file of what was kept
	FSBlock       uint32 // bytes of the unit of [key.At]
	SuperChecksum uint32
	State         uint32
	Compatible    uint32
	Incompatible  uint32
	ReadOnly      uint32
	_             uint32
	Offset        uint64 // of the file system in its file
}

// key is struct undo_key: what is put back where. What was kept follows the block of its
// key, and what other keys of that block have, each from a block's start.
type key struct {
	At       uint64
	Checksum uint32
	Size     uint32
}

// extent is one piece that is put back, in bytes.
type extent struct{ from, to, size int64 }

// Replay puts back in an image what was kept, and returns when it is on the disk. When a
// program was killed before it kept anything there is nothing to put back. It can be
// killed and run again.
//
// Complete is false when the room ended while the last piece was kept: what belongs there
// was not written over then, unless the program went on all the same.
func Replay(ctx context.Context, image, kept *os.File) (complete bool, err error) {
	r, err := read(kept)
	if err != nil {
		return false, err
	}
	end, err := image.Seek(0, io.SeekEnd)
	if err != nil {
		return false, fmt.Errorf("asking for the size of the image: %w", err)
	}
	for _, e := range r.extents {
		if e.to > end || e.size > end-e.to {
			return false, fmt.Errorf("%w: it has %d bytes for offset %d of an image of %d", ErrDamaged, e.size, e.to, end)
		}
	}
	for _, e := range r.extents {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if r.buf, err = readAt(kept, r.buf, e.from, e.size); err != nil {
			return false, err
		}
		if err := putBack(image, r.buf, e.to); err != nil {
			return false, fmt.Errorf("putting back %d bytes at offset %d: %w", e.size, e.to, err)
		}
	}
	return !r.torn, image.Sync()
}

// putBack writes what differs, and so nothing to a hole that holds zeros already: the
// host may have no room left for it.
func putBack(image *os.File, was []byte, at int64) error {
	const page = 4096
	now := make([]byte, page)
	for len(was) > 0 {
		n := min(len(was), page-int(at%page))
		if _, err := image.ReadAt(now[:n], at); err != nil {
			return err
		}
		if !bytes.Equal(now[:n], was[:n]) {
			if _, err := image.WriteAt(was[:n], at); err != nil {
				return err
			}
		}
		was, at = was[n:], at+int64(n)
	}
	return nil
}

// Nothing reports whether nothing was kept. Programs make room for the header with zeros,
// and write it before they write to the image for the first time.
func Nothing(kept *os.File) (bool, error) {
	raw, err := start(kept)
	return zeros(raw), err
}

func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// start is the header as it is, with zeros where it is not.
func start(kept *os.File) ([]byte, error) {
	raw := make([]byte, headerSize)
	if _, err := kept.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading what was kept: %w", err)
	}
	return raw, nil
}

// read finds what is to be put back, and that all of it is what was kept.
func read(kept *os.File) (reader, error) {
	r := reader{kept: kept}
	raw, err := start(kept)
	if err != nil || zeros(raw) {
		return r, err
	}
	if r.header, err = parse(raw); err != nil {
		return r, err
	}
	if r.size, err = kept.Seek(0, io.SeekEnd); err != nil {
		return r, fmt.Errorf("asking for the size of what was kept: %w", err)
	}
	r.block, r.left = int64(r.header.FirstKeys), r.header.Keys
	for r.left > 0 {
		if err := r.keys(); err != nil {
			return r, err
		}
	}
	return r, nil
}

func parse(raw []byte) (header, error) {
	var h header
	_, _ = binary.Decode(raw, binary.LittleEndian, &h) // it is long enough
	switch {
	case string(h.Magic[:]) != magic:
		return h, fmt.Errorf("%w: it does not begin as such a file does", ErrDamaged)
	case checksum(raw[:headerSize-4]) != binary.LittleEndian.Uint32(raw[headerSize-4:]):
		return h, fmt.Errorf("%w: the checksum of its header is wrong", ErrDamaged)
	case !isBlock(h.Block) || !isBlock(h.FSBlock) || h.FirstKeys > 1<<32:
		return h, fmt.Errorf("%w: blocks of %d and %d bytes, keys from block %d", ErrDamaged, h.Block, h.FSBlock, h.FirstKeys)
	case h.Incompatible != 0 || h.ReadOnly != 0 || h.Offset != 0:
		return h, fmt.Errorf("%w: it has features that are not known here", ErrDamaged)
	}
	return h, nil
}

// isBlock reports whether blocks can have so many bytes.
func isBlock(size uint32) bool { return size >= minBlock && size <= maxBlock && size&(size-1) == 0 }

// reader goes through blocks of keys.
type reader struct {
	kept    *os.File
	size    int64 // of it
	header  header
	block   int64  // that is next
	left    uint64 // keys that are still to come
	extents []extent
	torn    bool
	buf     []byte
}

// keys reads one block of keys, and what was kept for them.
func (r *reader) keys() error {
	block := int64(r.header.Block)
	raw, err := readAt(r.kept, nil, r.block*block, block)
	if err != nil {
		return err
	}
	sum := binary.LittleEndian.Uint32(raw[4:])
	clear(raw[4:8])
	if binary.LittleEndian.Uint32(raw) != keysMagic || checksum(raw) != sum {
		return fmt.Errorf("%w: block %d has no keys, or their checksum is wrong", ErrDamaged, r.block)
	}
	r.block++
	for raw = raw[keySize:]; len(raw) > 0 && r.left > 0; raw = raw[keySize:] {
		var k key
		_, _ = binary.Decode(raw, binary.LittleEndian, &k) // a block is of whole keys
		r.left--
		if err := r.one(k); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) one(k key) error {
	block := int64(r.header.Block)
	e := extent{from: r.block * block, to: int64(k.At) * int64(r.header.FSBlock), size: int64(k.Size)}
	if e.size == 0 || e.size > extentBlocks*block || k.At > 1<<42 {
		return fmt.Errorf("%w: a key has %d bytes for block %d", ErrDamaged, k.Size, k.At)
	}
	if e.size > r.size-e.from {
		if r.left > 0 {
			return fmt.Errorf("%w: it ends before what belongs to block %d", ErrDamaged, k.At)
		}
		// A program that finds no room for another block has it in its key already.
		r.torn = true
		if e.size = (r.size - e.from) / block * block; e.size > 0 {
			r.extents = append(r.extents, e)
		}
		return nil
	}
	var err error
	if r.buf, err = readAt(r.kept, r.buf, e.from, e.size); err != nil {
		return err
	}
	if checksum(r.buf) != k.Checksum {
		return fmt.Errorf("%w: the checksum of what belongs to block %d is wrong", ErrDamaged, k.At)
	}
	r.extents = append(r.extents, e)
	r.block += (e.size + block - 1) / block
	return nil
}

// readAt fills a buffer of a size, made anew when buf has not the room for it.
func readAt(kept *os.File, buf []byte, at, size int64) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(size))[:size]
	switch _, err := kept.ReadAt(buf, at); {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: it ends before offset %d", ErrDamaged, at+size)
	case err != nil:
		return nil, fmt.Errorf("reading what was kept: %w", err)
	}
	return buf, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is ext2fs_crc32c_le from ~0, which does not complement at the end.
func checksum(b []byte) uint32 { return ^crc32.Checksum(b, castagnoli) }
