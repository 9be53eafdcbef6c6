package fsinfo

import "fmt"

// Where things are in a superblock of ext2, ext3 and ext4.
const (
	extSuperOffset = 1024
	extSuperSize   = 1024
	extMagic       = 0xEF53

	extCompatJournal      = 0x4
	extCompatSparse2      = 0x200
	extCompatOrphanFile   = 0x1000
	extIncompatRecover    = 0x4
	extIncompatJournalDev = 0x8
	extIncompatMetaBG     = 0x10
	extIncompatExtents    = 0x40
	extIncompat64Bit      = 0x80
	extIncompatFlexBG     = 0x200
	extIncompatInlineData = 0x8000
	extIncompatCsumSeed   = 0x2000
	extROSparseSuper      = 0x1
	extROGroupChecksums   = 0x10
	extROBigalloc         = 0x200
	extROMetadataCsum     = 0x400
	extROOrphans          = 0x10000

	// What ext3 knows; ext2 does not know extIncompatRecover.
	ext3Incompat = 0x2 | extIncompatRecover | extIncompatMetaBG
	ext3RO       = 0x1 | 0x2 | 0x4
)

// ext is a superblock that was checked, as far as reading depends on it.
type ext struct {
	image
	super            fields
	blockSize        int64
	clusterBlocks    int64 // blocks in the unit of allocation
	blocks           int64
	first            int64 // the block that holds the superblock
	blocksPerGroup   int64
	clustersPerGroup int64
	inodesPerGroup   int64
	inodeSize        int64
	descSize         int64
	groups           int64
	compat, incompat uint32
	ro               uint32
	bitmap           []byte // room for one
}

func readExt(m image) (Info, error) {
	super := make(fields, extSuperSize)
	if err := m.read(super, extSuperOffset); err != nil || super.u16(56) != extMagic {
		return Info{}, err
	}
	e := newExt(m, super)
	if e.incompat&extIncompatJournalDev != 0 {
		return Info{}, nil // a journal of another file system
	}
	info := Info{Type: e.kind(), Label: super.text(120, 16), UUID: super.uuid(104)}
	if err := e.check(); err != nil {
		return info, err
	}
	return e.describe(info)
}

// newExt is what a superblock that is not checked yet says.
func newExt(m image, super fields) *ext {
	e := &ext{image: m, super: super, compat: super.u32(92), incompat: super.u32(96), ro: super.u32(100)}
	if super.u32(76) == 0 { // before there were features
		e.compat, e.incompat, e.ro = 0, 0, 0
	}
	return e
}

func (e *ext) kind() string {
	switch {
	case e.incompat&^ext3Incompat != 0 || e.ro&^ext3RO != 0:
		return Ext4
	case e.compat&extCompatJournal != 0:
		return Ext3
	}
	return Ext2
}

// check refuses a superblock that cannot be right, so that all arithmetic on what
// is in it holds afterwards.
func (e *ext) check() error {
	s := e.super
	wrong := func(format string, args ...any) error { return damaged("superblock of "+e.kind(), format, args...) }
	if e.ro&extROMetadataCsum != 0 && s.u32(1020) != ^crc32c(s[:1020]) {
		return wrong("its checksum is %08x and should be %08x", s.u32(1020), ^crc32c(s[:1020]))
	}
	logBlock, logCluster := s.u32(24), s.u32(28)
	if logBlock > 6 {
		return wrong("it gives 2^(10+%d) as block size", logBlock)
	}
	e.blockSize = 1024 << logBlock
	e.clusterBlocks = 1
	if e.ro&extROBigalloc != 0 {
		if logCluster < logBlock || logCluster > 20 {
			return wrong("it gives 2^(10+%d) as cluster size", logCluster)
		}
		e.clusterBlocks = 1 << (logCluster - logBlock)
	}
	count := uint64(s.u32(4))
	if e.incompat&extIncompat64Bit != 0 {
		count |= uint64(s.u32(336)) << 32
	}
	bytes, fits := product(count, uint64(e.blockSize))
	e.blocks, e.first = bytes/e.blockSize, int64(s.u32(20))
	e.blocksPerGroup, e.clustersPerGroup = int64(s.u32(32)), int64(s.u32(36))
	if e.ro&extROBigalloc == 0 {
		e.clustersPerGroup = e.blocksPerGroup
	}
	e.inodesPerGroup, e.inodeSize, e.descSize = int64(s.u32(40)), 128, 32
	if s.u32(76) != 0 {
		e.inodeSize = int64(s.u16(88))
	}
	if e.incompat&extIncompat64Bit != 0 {
		e.descSize = int64(s.u16(254))
	}
	switch {
	case !fits || e.first >= e.blocks:
		return wrong("it gives %d blocks, beginning with %d", count, e.first)
	case e.first != 0 && (e.first != 1 || e.blockSize != 1024) || e.first == 0 && e.blockSize == 1024 && e.clusterBlocks == 1:
		return wrong("it gives %d as first block of %d bytes", e.first, e.blockSize)
	case e.blocksPerGroup < 256 || e.clustersPerGroup < 8 || e.clustersPerGroup%8 != 0 || // mke2fs makes none, and many would take long
		e.clustersPerGroup > 8*e.blockSize || e.blocksPerGroup != e.clustersPerGroup*e.clusterBlocks:
		return wrong("it gives groups of %d blocks and %d clusters", e.blocksPerGroup, e.clustersPerGroup)
	case e.inodesPerGroup < 1 || e.inodesPerGroup > 8*e.blockSize:
		return wrong("it gives groups of %d inodes", e.inodesPerGroup)
	case e.inodeSize < 128 || e.inodeSize > e.blockSize || !powerOfTwo(uint64(e.inodeSize)):
		return wrong("it gives inodes of %d bytes", e.inodeSize)
	case e.descSize < 32 || e.descSize > e.blockSize || !powerOfTwo(uint64(e.descSize)):
		return wrong("it gives descriptors of groups of %d bytes", e.descSize)
	}
	e.groups = (e.blocks - e.first + e.blocksPerGroup - 1) / e.blocksPerGroup
	if inodes := e.groups * e.inodesPerGroup; int64(s.u32(0)) != inodes {
		return wrong("it gives %d inodes, and %d groups have %d", s.u32(0), e.groups, inodes)
	}
	return nil
}

func (e *ext) describe(info Info) (Info, error) {
	s := e.super
	info.BlockSize, info.Size = e.blockSize*e.clusterBlocks, e.blocks*e.blockSize
	info.Inodes, info.InodesFree = int64(s.u32(0)), int64(s.u32(16))
	info.InodeBytes = info.Inodes * e.inodeSize
	if e.ro&(extROGroupChecksums|extROMetadataCsum) == 0 {
		info.group, info.tables = e.blocksPerGroup*e.blockSize, e.inodesPerGroup*e.inodeSize
	}
	free, reserved := uint64(s.u32(12)), uint64(s.u32(8))
	if e.incompat&extIncompat64Bit != 0 {
		free |= uint64(s.u32(344)) << 32
		reserved |= uint64(s.u32(340)) << 32
	}
	if free > uint64(e.blocks) || reserved > uint64(e.blocks) || info.InodesFree > info.Inodes {
		return info, damaged("superblock of "+info.Type, "it gives %d blocks and %d inodes as free, %d as reserved; there are %d and %d",
			free, info.InodesFree, reserved, e.blocks, info.Inodes)
	}
	info.Free, info.Reserved = int64(free)*e.blockSize, int64(reserved)*e.blockSize
	info.Used = info.Size - info.Free
	if e.compat&extCompatJournal != 0 && s[253] == 1 { // a copy of the journal's inode is there
		if n := int64(s.u32(332)) | int64(s.u32(328))<<32; n >= 0 && n <= info.Used {
			info.JournalBytes = n
		}
	}
	info.State = e.state()
	info.Features = named(nil, "compat", uint64(e.compat), extCompatNames)
	info.Features = named(info.Features, "incompat", uint64(e.incompat), extIncompatNames)
	info.Features = named(info.Features, "ro_compat", uint64(e.ro), extRONames)
	info.empty = info.State == Clean && e.empty(info.Inodes-info.InodesFree)
	return info, nil
}

func (e *ext) state() string {
	switch state := e.super.u16(58); {
	case state&2 != 0:
		return Errors
	case e.incompat&extIncompatRecover != 0:
		return Journal
	case state&1 == 0 || e.super.u32(232) != 0 || e.ro&extROOrphans != 0: // files that were deleted while they were open
		return Unclean
	}
	return Clean
}

// empty reports that the only inode in use behind the reserved ones is the folder
// lost+found of the root folder.
func (e *ext) empty(used int64) bool {
	firstInode := int64(11)
	if e.super.u32(76) != 0 {
		firstInode = int64(e.super.u32(84))
	}
	if e.compat&extCompatOrphanFile != 0 {
		used-- // the file for orphans
	}
	if used != firstInode {
		return false
	}
	root, err := e.inode(2)
	if err != nil {
		return false
	}
	block := e.firstBlock(root)
	entries := make(fields, e.blockSize)
	if block < 1 || e.read(entries, block*e.blockSize) != nil {
		return false
	}
	for at := 0; at+8 <= len(entries); {
		inode, length, name := entries.u32(at), int(entries.u16(at+4)), int(entries[at+6])
		if length < 8+name || at+length > len(entries) {
			return false
		}
		if string(entries[at+8:at+8+name]) == "lost+found" {
			folder, err := e.inode(int64(inode))
			return err == nil && folder.u16(0)&0xf000 == 0x4000
		}
		at += length
	}
	return false
}

// firstBlock is the first block of a file, and 0 where there is none in the inode.
func (e *ext) firstBlock(inode fields) int64 {
	const inlineData, extents = 0x10000000, 0x80000
	switch flags := inode.u32(32); {
	case flags&inlineData != 0:
		return 0
	case flags&extents == 0:
		return int64(inode.u32(40))
	case inode.u16(40) != 0xF30A || inode.u16(42) < 1 || inode.u16(46) != 0 || inode.u32(52) != 0:
		return 0
	}
	return int64(inode.u32(60)) | int64(inode.u16(58))<<32
}

// inode reads the first 128 bytes of an inode.
func (e *ext) inode(number int64) (fields, error) {
	if number < 1 || number > e.groups*e.inodesPerGroup {
		return nil, damaged(e.kind(), "inode %d is named and does not exist", number)
	}
	group := (number - 1) / e.inodesPerGroup
	desc, err := e.descriptor(group)
	if err != nil {
		return nil, err
	}
	out := make(fields, 128)
	at := e.inodeTable(desc)*e.blockSize + (number-1)%e.inodesPerGroup*e.inodeSize
	if err := e.read(out, at); err != nil {
		return nil, fmt.Errorf("inode %d: %w", number, err)
	}
	return out, nil
}

// descriptor reads the descriptor of a group.
func (e *ext) descriptor(group int64) (fields, error) {
	out := make(fields, e.descSize)
	perBlock := e.blockSize / e.descSize
	block := e.descriptorBlock(group / perBlock)
	if err := e.read(out, block*e.blockSize+group%perBlock*e.descSize); err != nil {
		return nil, fmt.Errorf("descriptor of group %d: %w", group, err)
	}
	return out, nil
}

// descriptorBlock is where the n-th block of descriptors lies.
func (e *ext) descriptorBlock(n int64) int64 {
	firstMeta := int64(e.super.u32(260))
	if e.incompat&extIncompatMetaBG == 0 || n < firstMeta {
		return e.superBlock() + 1 + n
	}
	group := n * (e.blockSize / e.descSize)
	block := e.first + group*e.blocksPerGroup
	if group == 0 {
		block = e.superBlock()
	}
	if e.hasSuper(group) {
		block++
	}
	return block
}

// superBlock is the block with the superblock: not the first one where blocks of
// 1 KiB are put together to clusters.
func (e *ext) superBlock() int64 { return extSuperOffset / e.blockSize }

// hasSuper reports a group that begins with a copy of the superblock.
func (e *ext) hasSuper(group int64) bool {
	switch {
	case group == 0:
		return true
	case e.compat&extCompatSparse2 != 0:
		return group == int64(e.super.u32(588)) || group == int64(e.super.u32(592))
	case group == 1 || e.ro&extROSparseSuper == 0:
		return true
	case group%2 == 0:
		return false
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

// address is a block's number of which the upper half is at another place.
func (e *ext) address(desc fields, low, high int) int64 {
	n := int64(desc.u32(low))
	if e.descSize >= 64 {
		n |= int64(desc.u32(high)) << 32 & (1<<48 - 1)
	}
	return min(n, e.blocks) // block e.blocks is beyond the end, and all reads of it fail
}

func (e *ext) inodeTable(desc fields) int64 { return e.address(desc, 8, 40) }

var (
	extCompatNames = map[int]string{0: "dir_prealloc", 1: "imagic_inodes", 2: "has_journal", 3: "ext_attr", 4: "resize_inode", 5: "dir_index", 9: "sparse_super2",
		10: "fast_commit", 11: "stable_inodes", 12: "orphan_file"}
	extIncompatNames = map[int]string{0: "compression", 1: "filetype", 2: "needs_recovery", 4: "meta_bg", 6: "extent", 7: "64bit", 8: "mmp", 9: "flex_bg",
		10: "ea_inode", 12: "dirdata", 13: "metadata_csum_seed", 14: "large_dir", 15: "inline_data", 16: "encrypt", 17: "casefold"}
	extRONames = map[int]string{0: "sparse_super", 1: "large_file", 3: "huge_file", 4: "uninit_bg", 5: "dir_nlink", 6: "extra_isize", 8: "quota",
		9: "bigalloc", 10: "metadata_csum", 12: "read-only", 13: "project", 14: "shared_blocks", 15: "verity", 16: "orphan_present"}
)
