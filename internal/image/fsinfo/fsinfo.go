// Package fsinfo says what file system an image holds, from its superblock and
// allocation maps alone. Nothing is mounted and no program is run, and whatever
// the image holds is taken for hostile: nothing is allocated by a number that was
// read from it.
package fsinfo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// Types of file systems. An image in which none is found has type None.
const (
	None     = ""
	Ext2     = "ext2"
	Ext3     = "ext3" // ext2 with a journal
	Ext4     = "ext4" // any of ext4's features
	XFS      = "xfs"
	Btrfs    = "btrfs"
	ReiserFS = "reiserfs"
	VFAT     = "vfat" // FAT12, FAT16 or FAT32
	Swap     = "swap"
)

// States of file systems.
const (
	Clean     = "clean"
	Journal   = "journal" // changes wait in the journal: what is read without them is out of date
	Errors    = "errors"  // the file system has met errors and wants a check
	Unclean   = "unclean" // not unmounted in good order
	Uncertain = "unknown" // the journal is somewhere else
)

// Info is what is known of a file system.
type Info struct {
	Type  string `json:"type"`
	Label string `json:"label,omitempty"`
	UUID  string `json:"uuid,omitempty"` // a serial number of eight digits for vfat
	// BlockSize is the unit of allocation: clusters where blocks are put together.
	BlockSize int64 `json:"block_size"`
	// Size is what the file system takes of the image, in bytes. An image that is
	// smaller was cut off.
	Size int64 `json:"size"`
	// Used and Free are Size, but for what the file system never hands out.
	Used int64 `json:"used"`
	Free int64 `json:"free"`
	// Reserved is the part of Free that is kept for root.
	Reserved int64 `json:"reserved,omitempty"`
	// Inodes and InodesFree are 0 where they are made as needed.
	Inodes     int64 `json:"inodes,omitempty"`
	InodesFree int64 `json:"inodes_free,omitempty"`
	// JournalBytes and InodeBytes are the parts of Used that hold the journal and
	// the tables of inodes; 0 where that is not told.
	JournalBytes int64    `json:"journal_bytes,omitempty"`
	InodeBytes   int64    `json:"inode_bytes,omitempty"`
	State        string   `json:"state"`
	Features     []string `json:"features,omitempty"`

	empty bool
	// A group of ext takes so many bytes, of which tables are zeroed when it is made.
	group, tables int64
}

// NewTables is how many bytes of tables of inodes are zeroed when the file system is
// grown to a size: ext's, where groups have no checksums to say that theirs is not in
// use yet.
func (i Info) NewTables(size int64) int64 {
	if i.group == 0 {
		return 0
	}
	groups := func(size int64) int64 { return (size + i.group - 1) / i.group }
	return max(0, groups(size)-groups(i.Size)) * i.tables
}

// Empty reports that the file system certainly holds nothing that somebody put
// there. False means that it may.
func (i Info) Empty() bool { return i.empty }

// ErrDamaged is wrapped by errors about file systems that are recognised and
// cannot be as they say.
var ErrDamaged = errors.New("the file system is damaged")

// ErrUnsupported is wrapped by errors about file systems that are in order, and
// that this package cannot tell the used blocks of.
var ErrUnsupported = errors.New("not supported")

func damaged(kind, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", kind, fmt.Sprintf(format, args...), ErrDamaged)
}

// Read finds out what file system is in the size bytes of r. With none it returns
// type None and no error. An error that wraps [ErrDamaged] comes with the type.
//
// What makes a file system wipes the marks of others where its own superblock
// lies before theirs; it does not look behind it. So the first that is found is
// the one that was made last.
func Read(r io.ReaderAt, size int64) (Info, error) {
	img := image{r, size}
	for _, probe := range []func(image) (Info, error){readXFS, readExt, readVFAT, readSwap, readReiserFS, readBtrfs} {
		info, err := probe(img)
		if info.Type == None && errors.Is(err, io.ErrUnexpectedEOF) {
			continue // too short to have one
		}
		if info.Type != None || err != nil {
			return info, err
		}
	}
	return Info{}, nil
}

// image is what is read: all reads go through its methods.
type image struct {
	io.ReaderAt
	size int64
}

// read fills p from offset. What lies outside the image is io.ErrUnexpectedEOF.
func (m image) read(p []byte, offset int64) error {
	if offset < 0 || offset > m.size-int64(len(p)) {
		return fmt.Errorf("reading %d bytes at %d of an image of %d: %w", len(p), offset, m.size, io.ErrUnexpectedEOF)
	}
	n, err := m.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d of an image of %d: %w", len(p), offset, m.size, err)
}

// fields is a structure on the disk, little-endian unless said otherwise.
type fields []byte

func (f fields) u16(at int) uint16 { return binary.LittleEndian.Uint16(f[at:]) }
func (f fields) u32(at int) uint32 { return binary.LittleEndian.Uint32(f[at:]) }
func (f fields) u64(at int) uint64 { return binary.LittleEndian.Uint64(f[at:]) }

func (f fields) be16(at int) uint16 { return binary.BigEndian.Uint16(f[at:]) }
func (f fields) be32(at int) uint32 { return binary.BigEndian.Uint32(f[at:]) }
func (f fields) be64(at int) uint64 { return binary.BigEndian.Uint64(f[at:]) }

// text is the text up to the first NUL of n bytes; what cannot be printed is
// shown as a question mark.
func (f fields) text(at, n int) string {
	var out []rune
	for _, r := range string(f[at : at+n]) {
		if r == 0 {
			break
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd || r >= 0x2028 && r <= 0x202e {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

// uuid is the usual form of 16 bytes, and nothing where all are zero.
func (f fields) uuid(at int) string {
	u := f[at : at+16]
	if [16]byte(u) == ([16]byte{}) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", []byte(u[0:4]), []byte(u[4:6]), []byte(u[6:8]), []byte(u[8:10]), []byte(u[10:16]))
}

// product is a*b, and false where that is more than a file can hold.
func product(a, b uint64) (int64, bool) {
	if a != 0 && b > math.MaxInt64/a {
		return 0, false
	}
	return int64(a * b), true
}

func powerOfTwo(n uint64) bool { return n != 0 && n&(n-1) == 0 }

func crc32c(p ...[]byte) uint32 {
	table, sum := crc32.MakeTable(crc32.Castagnoli), uint32(0)
	for _, part := range p {
		sum = crc32.Update(sum, table, part)
	}
	return sum
}

// named lists the names of the bits that are set in mask; those that have none
// are numbered.
func named(list []string, prefix string, mask uint64, names map[int]string) []string {
	for bit := range 64 {
		if mask>>bit&1 == 0 {
			continue
		}
		name, known := names[bit]
		if !known {
			name = fmt.Sprintf("%s_%d", prefix, bit)
		}
		list = append(list, name)
	}
	return list
}
