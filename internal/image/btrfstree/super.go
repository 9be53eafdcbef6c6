// Package btrfstree reads the trees of a btrfs that lies on one device, out of
// anything that can be read at offsets. It checks checksums, and takes what it reads
// for hostile: nothing is allocated by a number that was read, and every walk ends.
package btrfstree

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/crypto/blake2b"
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

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

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
	if wrong := s.checkSum(s.Fields); wrong != "" {
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

// Unread are features without which what is there cannot be understood, and that are
// not read here.
func (s *Super) Unread() (names []string) {
	const read = 1<<12 - 1 | 1<<16 // up to raid1c34, and simple_quota
	known := map[int]string{12: "zoned", 13: "extent_tree_v2", 14: "raid_stripe_tree"}
	for bit := range 64 {
		if s.U64(188)&^read>>bit&1 == 0 {
			continue
		}
		name, is := known[bit]
		if !is {
			name = fmt.Sprintf("feature incompat_%d", bit)
		}
		names = append(names, name)
	}
	return names
}

// sums is the kind of checksums.
func (s *Super) sums() uint16 { return s.U16(196) }

// SumSize is how many bytes a checksum has.
func (s *Super) SumSize() int { return len(s.Sum(nil)) }

// Sum is the checksum of something.
func (s *Super) Sum(p []byte) []byte {
	switch s.sums() {
	case sumCRC32C:
		return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(p, castagnoli))
	case sumXXHash:
		return binary.LittleEndian.AppendUint64(nil, xxhash.Sum64(p))
	case sumSHA256:
		sum := sha256.Sum256(p)
		return sum[:]
	case sumBLAKE2:
		sum := blake2b.Sum256(p)
		return sum[:]
	}
	return nil
}

// checkSum checks the checksum that begins a block, and says what is wrong with it.
func (s *Super) checkSum(block Fields) string {
	switch sum := s.Sum(block[32:]); {
	case sum == nil:
		return "its kind of checksum is not known"
	case !bytes.HasPrefix(block, sum):
		return "its checksum is not that of what is in it"
	}
	return ""
}
