// Package extfs reads the files of an ext2, ext3 or ext4 file system out of
// anything that can be read at offsets: an image, a packed image, one on a web
// server. Nothing is mounted and no program is run, and whatever is read is taken
// for hostile.
package extfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"upkeep/internal/image/lookup"
)

// ErrDamaged is wrapped by errors about file systems that cannot be as they say.
var ErrDamaged = errors.New("the file system is damaged")

// ErrUnsupported is wrapped by errors about what is in order and not read here.
var ErrUnsupported = errors.New("not supported")

const (
	rootInode = 2

	compatSparseSuper2 = 0x200
	roSparseSuper      = 0x1

	incompatRecover  = 0x4
	incompatMetaBG   = 0x10
	incompat64Bit    = 0x80
	incompatLargeDir = 0x4000
	// filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed,
	// largedir, inline_data, encrypt (names and content stay encrypted), casefold
	incompatKnown = 0x2 | incompatRecover | incompatMetaBG | 0x40 | incompat64Bit | 0x100 | 0x200 | 0x400 | 0x2000 | incompatLargeDir | 0x8000 | 0x10000 | 0x20000
)

// FS is a file system that is read. It implements [fs.FS], [fs.ReadDirFS],
// [fs.StatFS] and [fs.ReadLinkFS]; symbolic links in it lead to places in it.
type FS struct {
	lookup.Files[*inode]
	r    io.ReaderAt
	size int64

	blockSize      int64
	blocks         int64
	firstBlock     int64
	blocksPerGroup int64
	inodes         int64
	inodesPerGroup int64
	inodeSize      int64
	descSize       int64
	firstMetaGroup int64
	compat         uint32
	incompat       uint32
	roCompat       uint32
	backups        [2]uint32
}

// Open reads the superblock of the file system in the size bytes of r.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	sb := make([]byte, 1024)
	if err := readFull(r, sb, 1024); err != nil {
		return nil, err
	}
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(sb[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(sb[at:])) }
	if u16(56) != 0xEF53 {
		return nil, fmt.Errorf("%w: there is no ext file system", ErrUnsupported)
	}
	f := &FS{
		r: r, size: size, inodes: u32(0), blocks: u32(4), firstBlock: u32(20), blocksPerGroup: u32(32), inodesPerGroup: u32(40), inodeSize: 128, descSize: 32,
		firstMetaGroup: u32(260), compat: uint32(u32(92)), incompat: uint32(u32(96)), roCompat: uint32(u32(100)), backups: [2]uint32{uint32(u32(588)), uint32(u32(592))},
	}
	f.Files = lookup.FilesBelow(func() (*inode, error) { return f.inode(rootInode) })
	if u32(24) > 6 {
		return nil, fmt.Errorf("%w: its blocks have 2^%d KiB", ErrDamaged, u32(24))
	}
	f.blockSize = 1024 << u32(24)
	if u32(76) > 0 {
		f.inodeSize = u16(88)
	} else {
		f.compat, f.incompat, f.roCompat = 0, 0, 0
	}
	if unknown := f.incompat &^ incompatKnown; unknown != 0 {
		return nil, fmt.Errorf("%w: it has features (%#x) that are not read here", ErrUnsupported, unknown)
	}
	if f.incompat&incompat64Bit != 0 {
		f.blocks |= u32(336) << 32
		f.descSize = u16(254)
	}
	return f, f.check()
}

func (f *FS) check() error {
	switch {
	case f.blocks <= 0 || f.blocks > 1<<48 || f.firstBlock > 1 || f.blocksPerGroup < 8 || f.blocksPerGroup > 8*64<<10*16,
		f.inodesPerGroup < 1 || f.inodesPerGroup > f.blocksPerGroup*f.blockSize,
		f.inodeSize < 128 || f.inodeSize > f.blockSize || f.inodeSize&(f.inodeSize-1) != 0,
		f.descSize < 32 || f.descSize > f.blockSize || f.descSize&(f.descSize-1) != 0:
		return fmt.Errorf("%w: its superblock has impossible numbers", ErrDamaged)
	case f.blocks*f.blockSize > f.size:
		return fmt.Errorf("%w: it was cut off: %d bytes of %d are there", ErrDamaged, f.size, f.blocks*f.blockSize)
	}
	return nil
}

// Stale reports that changes wait in the journal: files are read as they were
// before them.
func (f *FS) Stale() bool { return f.incompat&incompatRecover != 0 }

func readFull(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it ends before byte %d", ErrDamaged, offset+int64(len(b)))
	}
	return fmt.Errorf("reading at %d: %w", offset, err)
}

// readBlock reads from within one block.
func (f *FS) readBlock(b []byte, block, within int64) error {
	if block <= 0 || block >= f.blocks {
		return fmt.Errorf("%w: block %d is not in it", ErrDamaged, block)
	}
	return readFull(f.r, b, block*f.blockSize+within)
}

// inodeTable is the block where the inodes of a group begin.
func (f *FS) inodeTable(group int64) (int64, error) {
	perBlock := f.blockSize / f.descSize
	super := 1024 / f.blockSize // may differ from the first block, with clusters
	block := super + 1 + group/perBlock
	if meta := group / perBlock; f.incompat&incompatMetaBG != 0 && meta >= f.firstMetaGroup {
		first := meta * perBlock
		block = f.firstBlock + first*f.blocksPerGroup
		if f.hasSuper(first) {
			block++
		}
		if first == 0 {
			block = super + 1
		}
	}
	desc := make([]byte, f.descSize)
	if err := f.readBlock(desc, block, group%perBlock*f.descSize); err != nil {
		return 0, err
	}
	table := int64(binary.LittleEndian.Uint32(desc[8:]))
	if f.descSize >= 64 {
		table |= int64(binary.LittleEndian.Uint32(desc[40:])) << 32
	}
	return table, nil
}

// hasSuper reports whether a group begins with a copy of the superblock.
func (f *FS) hasSuper(group int64) bool {
	if f.compat&compatSparseSuper2 != 0 {
		return group == 0 || group == int64(f.backups[0]) || group == int64(f.backups[1])
	}
	if group <= 1 || f.roCompat&roSparseSuper == 0 {
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}
