// Package btrfstree reads the trees of a btrfs that lies on one device, out of
// anything that can be read at offsets. It checks checksums, and takes what it reads
// for hostile: nothing is allocated by a number that was read, and every walk ends.
package btrfstree

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Where the superblock lies.
const (
	SuperOffset = 64 << 10
	SuperSize   = 4096
)

const (
	sumCRC32C = 0
	sumXXHash = 1
	sumSHA256 = 2
	sumBLAKE2 = 3
)

// Damage is an error about a file system that cannot be as it says.
type Damage string

func (d Damage) Error() string { return string(d) }

// Unsupported is an error about what is in order and not read here.
type Unsupported string

func (u Unsupported) Error() string { return string(u) }

func damaged(format string, args ...any) error { return Damage(fmt.Sprintf(format, args...)) }

// Fields is a structure on the disk.
type Fields []byte

// U16 is the number of 16 bits at an offset.
func (f Fields) U16(at int) uint16 { return binary.LittleEndian.Uint16(f[at:]) }

// U32 is the number of 32 bits at an offset.
func (f Fields) U32(at int) uint32 { return binary.LittleEndian.Uint32(f[at:]) }

// U64 is the number of 64 bits at an offset.
func (f Fields) U64(at int) uint64 { return binary.LittleEndian.Uint64(f[at:]) }

// Super is a superblock that was checked, as far as reading depends on it.
type Super struct {
	Fields
	SectorSize, NodeSize int64
}

// IsSuper reports whether the mark of a superblock is there.
func IsSuper(block []byte) bool {
	return len(block) == SuperSize && bytes.Equal(block[64:72], []byte("_BHRfS_M"))
}

// ParseSuper checks a superblock.
func ParseSuper(block []byte) (*Super, error) {
	if !IsSuper(block) {
		return nil, damaged("superblock of btrfs: it is none")
	}
	s := &Super{Fields: block}
	if wrong := checkSum(s.Fields, s.U16(196)); wrong != "" {
		return nil, damaged("superblock of btrfs: %s", wrong)
	}
	s.SectorSize, s.NodeSize = int64(s.U32(144)), int64(s.U32(148))
	switch {
	case s.U64(48) != SuperOffset:
		return nil, damaged("superblock of btrfs: it says that it lies at %d", s.U64(48))
	case s.SectorSize < 512 || s.SectorSize > 65536 || s.SectorSize&(s.SectorSize-1) != 0:
		return nil, damaged("superblock of btrfs: it gives sectors of %d bytes", s.SectorSize)
	case s.NodeSize < s.SectorSize || s.NodeSize > 65536 || s.NodeSize&(s.NodeSize-1) != 0:
		return nil, damaged("superblock of btrfs: it gives nodes of %d bytes", s.NodeSize)
	}
	return s, nil
}

// Devices is on how many devices the file system lies.
func (s *Super) Devices() uint64 { return s.U64(136) }

// checkSum checks the checksum that begins a block, and says what is wrong with it.
// Those of two kinds are not checked: nothing here can compute them.
func checkSum(block Fields, kind uint16) string {
	switch kind {
	case sumCRC32C:
		if crc32.Checksum(block[32:], crc32.MakeTable(crc32.Castagnoli)) != block.U32(0) {
			return "its checksum is not that of what is in it"
		}
	case sumSHA256:
		if sha256.Sum256(block[32:]) != [32]byte(block[:32]) {
			return "its checksum is not that of what is in it"
		}
	case sumXXHash, sumBLAKE2:
	default:
		return "its kind of checksum is not known"
	}
	return ""
}

// readFull fills p from an offset of an image of size bytes.
func readFull(r io.ReaderAt, size int64, p []byte, at uint64) error {
	if at > uint64(size) || uint64(len(p)) > uint64(size)-at {
		return fmt.Errorf("reading %d bytes at %d of an image of %d: %w", len(p), at, size, io.ErrUnexpectedEOF)
	}
	n, err := r.ReadAt(p, int64(at))
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d of an image of %d: %w", len(p), at, size, err)
}
