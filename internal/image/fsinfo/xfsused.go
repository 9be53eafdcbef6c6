package fsinfo

import (
	"fmt"
	"slices"
)

// usedOfXFS is all but what the groups' trees of free space list.
func usedOfXFS(m image) ([]Extent, error) {
	super := make(fields, 512)
	if err := m.read(super, 0); err != nil {
		return nil, err
	}
	x := &xfs{image: m, super: super}
	if err := x.check(); err != nil {
		return nil, err
	}
	var used extents
	for group := range x.Groups {
		if err := x.usedOfGroup(group, &used); err != nil {
			return nil, fmt.Errorf("group %d of xfs: %w", group, err)
		}
	}
	return used, nil
}

func (x *xfs) usedOfGroup(group int64, used *extents) error {
	start := group * x.GroupBlocks * x.BlockSize
	length := min(x.GroupBlocks, x.Blocks-group*x.GroupBlocks)
	header := make(fields, x.sectorSize)
	if err := x.read(header, start+x.sectorSize); err != nil {
		return err
	}
	if string(header[:4]) != "XAGF" || int64(header.be32(8)) != group || int64(header.be32(12)) != length {
		return damaged("xfs", "its header of free space is not that of a group of %d blocks", length)
	}
	if x.V5 {
		if err := XFSChecksum(header, 216); err != nil {
			return damaged("xfs", "header of free space: %s", err)
		}
	}
	next, free := int64(0), int64(0) // next is the first block of which nothing was said
	err := x.freeOfGroup(start, length, header.be32(16), header.be32(28), func(at, count int64) error {
		if at < next || count < 1 || at+count > length {
			return damaged("xfs", "%d free blocks at %d are listed behind block %d of %d", count, at, next, length)
		}
		used.add(start+next*x.BlockSize, (at-next)*x.BlockSize)
		next, free = at+count, free+count
		return nil
	})
	if err != nil {
		return err
	}
	used.add(start+next*x.BlockSize, (length-next)*x.BlockSize)
	if counted := int64(header.be32(52)); counted != free {
		return damaged("xfs", "%d free blocks are listed and %d were counted", free, counted)
	}
	return nil
}

// freeOfGroup calls each with every piece of free space of a group, in order.
func (x *xfs) freeOfGroup(start, length int64, root, levels uint32, each func(at, count int64) error) error {
	const none = 0xffffffff
	if levels < 1 || levels > 9 {
		return damaged("xfs", "its tree of free space has %d levels", levels)
	}
	block, level := root, int(levels)-1
	for ; level > 0; level-- {
		node, records, err := x.treeBlock(start, length, block, level)
		if err != nil {
			return err
		}
		most := len(records) / 12 // keys of 8 bytes, then pointers of 4
		if node < 1 || node > most {
			return damaged("xfs", "block %d has %d entries", block, node)
		}
		block = records.be32(8 * most)
	}
	for block != none { // ends, as what each is given has to rise
		count, records, err := x.treeBlock(start, length, block, 0)
		if err != nil {
			return err
		}
		if count > len(records)/8 || count == 0 && levels > 1 {
			return damaged("xfs", "block %d has %d entries", block, count)
		}
		for i := range count {
			if err := each(int64(records.be32(8*i)), int64(records.be32(8*i+4))); err != nil {
				return err
			}
		}
		right := records.be32(len(records) - 4)
		if count == 0 && right != none {
			return damaged("xfs", "block %d is empty", block)
		}
		block = right
	}
	return nil
}

// treeBlock reads a block of the tree of free space: how many entries it has, and
// these, with the number of the block to the right in four bytes behind them.
func (x *xfs) treeBlock(start, length int64, number uint32, level int) (int, fields, error) {
	if int64(number) >= length {
		return 0, nil, damaged("xfs", "its tree of free space goes on at block %d of %d", number, length)
	}
	block := make(fields, x.BlockSize)
	if err := x.read(block, start+int64(number)*x.BlockSize); err != nil {
		return 0, nil, err
	}
	magic, header := "ABTB", 16
	if x.V5 {
		magic, header = "AB3B", 56
		if err := XFSChecksum(block, 52); err != nil {
			return 0, nil, damaged("xfs", "block %d of the tree of free space: %s", number, err)
		}
	}
	if string(block[:4]) != magic || int(block.be16(4)) != level {
		return 0, nil, damaged("xfs", "block %d is not one of the tree of free space at level %d", number, level)
	}
	return int(block.be16(6)), slices.Concat(block[header:], block[12:16]), nil
}
