package fsinfo

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
)

const extBlockUninit = 0x2 // a group whose bitmap was never written

func usedOfExt(m image) ([]Extent, error) {
	super := make(fields, extSuperSize)
	if err := m.read(super, extSuperOffset); err != nil {
		return nil, err
	}
	e := &ext{image: m, super: super, compat: super.u32(92), incompat: super.u32(96), ro: super.u32(100)}
	if super.u32(76) == 0 {
		e.compat, e.incompat, e.ro = 0, 0, 0
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	var data, meta extents
	data.add(0, (e.superBlock()+1)*e.blockSize) // the boot sector too, which no bitmap tells of
	free := int64(0)
	for group := range e.groups {
		n, err := e.usedOfGroup(group, &data, &meta)
		if err != nil {
			return nil, fmt.Errorf("group %d of %s: %w", group, e.kind(), err)
		}
		free += n * e.clusterBlocks
	}
	if counted := int64(super.u32(12)); free&0xffffffff != counted {
		return nil, damaged(e.kind(), "its bitmaps have %d free blocks and its superblock %d", free, counted)
	}
	slices.SortFunc(meta, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	return merge(data, merge(nil, meta)), nil
}

// usedOfGroup adds the blocks of a group that are in use, and returns how many
// units are not.
func (e *ext) usedOfGroup(group int64, data, meta *extents) (free int64, err error) {
	desc, err := e.descriptor(group)
	if err != nil {
		return 0, err
	}
	if err := e.checkDescriptor(group, desc); err != nil {
		return 0, err
	}
	start := e.first + group*e.blocksPerGroup
	blocks := min(e.blocksPerGroup, e.blocks-start)
	units := (blocks + e.clusterBlocks - 1) / e.clusterBlocks
	bitmapAt, inodesAt, table := e.address(desc, 0, 32), e.address(desc, 4, 36), e.inodeTable(desc)
	tableBlocks := (e.inodesPerGroup*e.inodeSize + e.blockSize - 1) / e.blockSize
	if bitmapAt <= 0 || inodesAt <= 0 || table <= 0 || bitmapAt >= e.blocks || inodesAt >= e.blocks || table > e.blocks-tableBlocks {
		return 0, damaged(e.kind(), "its bitmaps and inodes are said to be at blocks %d, %d and %d of %d", bitmapAt, inodesAt, table, e.blocks)
	}
	meta.put(bitmapAt*e.blockSize, e.blockSize)
	meta.put(inodesAt*e.blockSize, e.blockSize)
	meta.put(table*e.blockSize, tableBlocks*e.blockSize)
	base := min(e.baseBlocks(group), blocks)
	data.add(start*e.blockSize, base*e.blockSize)

	counted := int64(desc.u16(12))
	if e.descSize >= 64 {
		counted |= int64(desc.u16(44)) << 16
	}
	if e.ro&(extROGroupChecksums|extROMetadataCsum) != 0 && desc.u16(18)&extBlockUninit != 0 {
		return counted, nil // nothing was ever allocated there but what was added above
	}
	if e.bitmap == nil {
		e.bitmap = make([]byte, e.blockSize)
	}
	bitmap := e.bitmap
	if err := e.read(bitmap, bitmapAt*e.blockSize); err != nil {
		return 0, err
	}
	if err := e.checkBitmap(desc, bitmap); err != nil {
		return 0, err
	}
	free = data.addBits(bitmap, units, start*e.blockSize, e.clusterBlocks*e.blockSize)
	if n := len(*data); n > 0 && (*data)[n-1].End() > e.blocks*e.blockSize { // half a cluster at the end
		(*data)[n-1].Length = e.blocks*e.blockSize - (*data)[n-1].Offset
	}
	if free != counted {
		return 0, damaged(e.kind(), "its bitmap has %d free units and its descriptor %d", free, counted)
	}
	return free, nil
}

// baseBlocks is how many blocks at the beginning of a group hold a copy of the
// superblock, and of the descriptors with the room into which they may grow.
func (e *ext) baseBlocks(group int64) int64 {
	n := int64(0)
	if e.hasSuper(group) {
		n = 1
		if group == 0 {
			n = e.superBlock() + 1 - e.first
		}
	}
	perBlock := e.blockSize / e.descSize
	all := (e.groups + perBlock - 1) / perBlock
	firstMeta := int64(e.super.u32(260))
	if e.incompat&extIncompatMetaBG == 0 || group/perBlock < firstMeta {
		if e.incompat&extIncompatMetaBG != 0 {
			all = min(all, firstMeta)
		}
		if n > 0 {
			n += all + int64(e.super.u16(206)) // s_reserved_gdt_blocks
		}
		return n
	}
	if at := group % perBlock; at == 0 || at == 1 || at == perBlock-1 {
		n++
	}
	return n
}

// seed is what all checksums begin with.
func (e *ext) seed() uint32 {
	if e.incompat&extIncompatCsumSeed != 0 {
		return e.super.u32(624)
	}
	return ^crc32c(e.super[104:120])
}

// crcFrom goes on with a checksum; unlike crc32c it does not turn the bits over.
func crcFrom(seed uint32, parts ...[]byte) uint32 {
	table, sum := crc32.MakeTable(crc32.Castagnoli), ^seed
	for _, part := range parts {
		sum = crc32.Update(sum, table, part)
	}
	return ^sum
}

func (e *ext) checkDescriptor(group int64, desc fields) error {
	number := binary.LittleEndian.AppendUint32(nil, uint32(group))
	var sum uint16
	switch {
	case e.ro&extROMetadataCsum != 0:
		sum = uint16(crcFrom(e.seed(), number, desc[:30], make([]byte, 2), desc[32:]))
	case e.ro&extROGroupChecksums != 0:
		sum = crc16(0xffff, e.super[104:120])
		sum = crc16(sum, number)
		sum = crc16(sum, desc[:30])
		sum = crc16(sum, desc[32:])
	default:
		return nil
	}
	if sum != desc.u16(30) {
		return damaged(e.kind(), "its descriptor has checksum %04x and should have %04x", desc.u16(30), sum)
	}
	return nil
}

func (e *ext) checkBitmap(desc fields, bitmap []byte) error {
	if e.ro&extROMetadataCsum == 0 {
		return nil
	}
	sum, want := crcFrom(e.seed(), bitmap[:e.clustersPerGroup/8]), uint32(desc.u16(24))
	if e.descSize >= 64 {
		want |= uint32(desc.u16(56)) << 16
	} else {
		sum &= 0xffff
	}
	if sum != want {
		return damaged(e.kind(), "its bitmap has checksum %08x and should have %08x", sum, want)
	}
	return nil
}

// crc16 is the checksum of descriptors before there were better ones.
func crc16(sum uint16, p []byte) uint16 {
	for _, b := range p {
		sum ^= uint16(b)
		for range 8 {
			low := sum & 1
			sum >>= 1
			if low != 0 {
				sum ^= 0xA001
			}
		}
	}
	return sum
}
