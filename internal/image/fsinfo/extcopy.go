package fsinfo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// LostError is that the primary superblock of ext2, ext3 or ext4 is lost, and one of its
// copies whole. Block counts from the start of the file system, in blocks of BlockSize.
type LostError struct {
	Type      string `json:"type"`
	Group     int64  `json:"group"`
	Block     int64  `json:"block"`
	BlockSize int64  `json:"block_size"`
}

func (e *LostError) Error() string {
	return fmt.Sprintf("%s, its primary superblock is lost; the copy in group %d at block %d is whole", e.Type, e.Group, e.Block)
}

func (e *LostError) Unwrap() error { return ErrDamaged }

// ReadLost looks for an ext file system of which [Read] sees nothing, since its primary
// superblock is lost: for a copy where mke2fs puts copies. With one comes a [LostError],
// and what is known of it that does not change; with none, type None and no error.
//
// Whoever calls has made sure that the image is nothing else. Copies outlive what makes
// another type of an image, which may be one that nobody here knows. So one counts only
// where the image begins as its file system would, or with nothing at all.
func ReadLost(r io.ReaderAt, size int64) (Info, error) {
	m := image{r, size}
	for _, blockSize := range []int64{4096, 1024, 2048} {
		for _, group := range copyGroups(size, blockSize) {
			e, err := readExtCopy(m, blockSize, group)
			if err != nil {
				return Info{}, err
			}
			if e == nil {
				continue
			}
			info := Info{
				Type: e.kind(), Label: e.super.text(120, 16), UUID: e.super.uuid(104),
				BlockSize: e.blockSize * e.clusterBlocks, Size: e.blocks * e.blockSize,
			}
			return info, &LostError{Type: info.Type, Group: group, Block: e.first + group*e.blocksPerGroup, BlockSize: blockSize}
		}
	}
	return Info{}, nil
}

// copyGroups are the groups that begin with a copy, of as many as size bytes can have:
// about thirty of the largest image.
func copyGroups(size, blockSize int64) []int64 {
	end := size / (8 * blockSize * blockSize)
	groups := []int64{1}
	for _, base := range []int64{3, 5, 7} {
		for n := base; n <= end && n <= math.MaxInt64/base; n *= base {
			groups = append(groups, n)
		}
	}
	slices.Sort(groups)
	return groups
}

// readExtCopy reads the copy of a superblock with which a group begins, if there is one
// that is whole, in an image that begins as it says.
func readExtCopy(m image, blockSize, group int64) (*ext, error) {
	first, perGroup := int64(0), 8*blockSize // which mke2fs makes of its own accord
	if blockSize == 1024 {
		first = 1
	}
	super := make(fields, extSuperSize)
	if there, err := m.has(super, (first+group*perGroup)*blockSize); !there {
		return nil, err
	}
	// Only later revisions have the number of the group.
	if super.u16(56) != extMagic || super.u32(76) == 0 || super.u16(90) != uint16(group) {
		return nil, nil
	}
	e := newExt(m, super)
	if e.incompat&extIncompatJournalDev != 0 || e.check() != nil {
		return nil, nil
	}
	if e.blockSize != blockSize || e.first != first || e.blocksPerGroup != perGroup || group >= e.groups || !e.hasSuper(group) {
		return nil, nil
	}
	begins, err := e.begins(first + group*perGroup + 1)
	if err != nil || !begins {
		return nil, err
	}
	return e, nil
}

// has reads like read, and reports whether the image is as large as that.
func (m image) has(p []byte, offset int64) (bool, error) {
	err := m.read(p, offset)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return err == nil, err
}

// begins reports whether the image begins as the file system would: with descriptors of
// groups that lay it out as those in a block beside the copy do. Where everything at its
// beginning is zeros, nothing else was made there either.
func (e *ext) begins(beside int64) (bool, error) {
	here, there := make(fields, e.blockSize), make(fields, e.blockSize)
	for block, p := range map[int64]fields{e.descriptorBlock(0): here, beside: there} {
		if has, err := e.has(p, block*e.blockSize); !has {
			return false, err
		}
	}
	if e.sameLayout(here, there) {
		return true, nil
	}
	start := make([]byte, min(e.size, 1<<20))
	has, err := e.has(start, 0)
	return has && bytes.Count(start, []byte{0}) == len(start), err
}

// sameLayout compares where descriptors have bitmaps and inodes, which stays the same.
func (e *ext) sameLayout(a, b fields) bool {
	for i := range min(e.groups, e.blockSize/e.descSize) {
		x, y := a[i*e.descSize:][:e.descSize], b[i*e.descSize:][:e.descSize]
		if !bytes.Equal(x[:12], y[:12]) || e.descSize >= 64 && !bytes.Equal(x[32:44], y[32:44]) || e.inodeTable(x) == 0 {
			return false
		}
	}
	return true
}
