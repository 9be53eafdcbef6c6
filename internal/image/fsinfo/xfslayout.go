package fsinfo

import (
	"fmt"
	"io"
)

// XFSGroups is how an xfs file system is divided. Its blocks are numbered with the
// group in the upper bits of the number.
type XFSGroups struct {
	V5          bool  // metadata has checksums, and says where it belongs
	BlockSize   int64 // bytes
	Blocks      int64
	Groups      int64
	GroupBlocks int64 // of the last group there may be fewer
	groupBits   uint  // GroupBlocks fit into so many bits of a number
}

// Offset is where a block of the file system lies, in bytes. False where there is no
// such block.
func (g XFSGroups) Offset(block uint64) (int64, bool) {
	group, within := block>>g.groupBits, int64(block&(1<<g.groupBits-1))
	if group >= uint64(g.Groups) || within >= g.GroupBlocks {
		return 0, false
	}
	n := int64(group)*g.GroupBlocks + within
	return n * g.BlockSize, n < g.Blocks
}

// XFSChecksum checks the checksum of a block of metadata, which is at offset at, and
// little-endian.
func XFSChecksum(block []byte, at int) error {
	want := fields(block).u32(at)
	if sum := crc32c(block[:at], make([]byte, 4), block[at+4:]); sum != want {
		return fmt.Errorf("its checksum is %08x and should be %08x", want, sum)
	}
	return nil
}

// XFSLayout is where things lie in an xfs file system, for who reads the files in it.
type XFSLayout struct {
	XFSGroups
	UUID        [16]byte // that blocks of metadata carry, with V5
	Root        uint64   // the inode of the root folder
	InodeSize   int64    // bytes
	InodeBits   uint     // of an inode's number, which say the place in its block
	FolderBlock int64    // the unit in which folders are kept, in bytes
	FileTypes   bool     // entries of folders have the type of the file
}

const (
	xfsFolders2  = 0x2000 // folders are of the second version
	xfsUnwritten = 0x1000 // extents have a bit that says that they were not written
	xfsFeatures2 = 0x8000 // there are more bits
	xfsFileTypes = 0x200  // among these

	xfsMetaUUID = 0x4
	// ftype, sparse_inodes, meta_uuid, bigtime, needs_repair, nrext64, exchange, parent
	xfsKnown = 0xff
)

// ReadXFS reads the superblock of an xfs file system, for who reads the files in it.
func ReadXFS(r io.ReaderAt, size int64) (XFSLayout, error) {
	super := make(fields, 512)
	x := &xfs{image: image{r, size}, super: super}
	if err := x.read(super, 0); err != nil {
		return XFSLayout{}, err
	}
	if string(super[:4]) != "XFSB" {
		return XFSLayout{}, fmt.Errorf("there is no xfs: %w", ErrUnsupported)
	}
	if err := x.check(); err != nil {
		return XFSLayout{}, err
	}
	if x.Blocks*x.BlockSize > size {
		return XFSLayout{}, damaged("xfs", "it was cut off: %d bytes of %d are there", size, x.Blocks*x.BlockSize)
	}
	l := XFSLayout{XFSGroups: x.XFSGroups, UUID: [16]byte(super[32:48]), Root: super.be64(56), InodeBits: uint(super[123])}
	blockLog, inodeLog, folderLog := super[120], super[122], uint64(super[120])+uint64(super[192])
	if inodeLog < 8 || inodeLog > 11 || inodeLog > blockLog || super.be16(104) != 1<<inodeLog || super[123] != blockLog-inodeLog || folderLog > 16 || x.V5 && inodeLog < 9 {
		return XFSLayout{}, damaged("superblock of xfs", "it gives inodes of %d bytes, and folders in blocks of 2^%d", super.be16(104), folderLog)
	}
	l.InodeSize, l.FolderBlock = 1<<inodeLog, 1<<folderLog
	err := l.features(super)
	return l, err
}

// features refuses those that are not known, and notes what matters to who reads files.
func (l *XFSLayout) features(super fields) error {
	version, incompat := super.be16(100), super.be32(216)
	switch {
	case version&xfsFolders2 == 0 || version&xfsUnwritten == 0:
		return fmt.Errorf("xfs of before 2001 (version %#x): %w", version, ErrUnsupported)
	case !l.V5:
		l.FileTypes = version&xfsFeatures2 != 0 && super.be32(200)&xfsFileTypes != 0
		return nil
	case incompat&^xfsKnown != 0:
		return fmt.Errorf("features of xfs (%#x) that are not read here: %w", incompat&^xfsKnown, ErrUnsupported)
	}
	l.FileTypes = incompat&1 != 0
	if incompat&xfsMetaUUID != 0 {
		l.UUID = [16]byte(super[248:264])
	}
	return nil
}
