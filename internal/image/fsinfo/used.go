package fsinfo

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// An Extent is a piece of an image, in bytes.
type Extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// End is the first byte behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// ErrNotClean is wrapped by errors about file systems whose used blocks cannot be
// told before they were checked.
var ErrNotClean = errors.New("the file system is not clean; check it first")

// Used lists the pieces of an image that its file system needs, in order and with
// gaps between them. What lies between them may hold anything: the file system
// never reads it before it has written it. What info is about must be what
// [Read] said of r just now.
//
// What the allocation maps say is compared with what else counts them, and
// anything that does not agree is an error: a map that was overwritten must not
// pass for a file system that holds nothing.
func Used(r io.ReaderAt, info Info) ([]Extent, error) {
	m := image{r, info.Size}
	if info.State != Clean {
		return nil, fmt.Errorf("%s is in state %q: %w", info.Type, info.State, ErrNotClean)
	}
	switch info.Type {
	case Ext2, Ext3, Ext4:
		return usedOfExt(m)
	case XFS:
		return usedOfXFS(m)
	case ReiserFS:
		return usedOfReiserFS(m)
	case VFAT:
		return usedOfVFAT(m)
	case Btrfs:
		return usedOfBtrfs(m)
	case Swap:
		return []Extent{{0, info.BlockSize}}, nil
	}
	return nil, fmt.Errorf("used blocks of an image with no known file system: %w", ErrUnsupported)
}

// extents collects pieces that come in order, or nearly so.
type extents []Extent

// add appends a piece. It must not begin before the last one.
func (x *extents) add(offset, length int64) {
	if length <= 0 {
		return
	}
	if n := len(*x); n > 0 {
		last := &(*x)[n-1]
		if offset <= last.End() {
			last.Length = max(last.Length, offset+length-last.Offset)
			return
		}
	}
	*x = append(*x, Extent{offset, length})
}

// put appends a piece in any order, for a list that is sorted afterwards.
func (x *extents) put(offset, length int64) { *x = append(*x, Extent{offset, length}) }

// addBits appends the units whose bits are set, of a bitmap that begins with the
// least significant bit of its first byte, and returns how many are not set.
func (x *extents) addBits(bitmap []byte, count, start, unit int64) (free int64) {
	for i := int64(0); i < count; {
		rest := bitmap[i/8] >> (i % 8)
		if i%8 == 0 && rest == 0 {
			n := min(8, count-i)
			i, free = i+n, free+n
			continue
		}
		set := min(int64(bits.TrailingZeros8(^rest)), 8-i%8, count-i)
		if set == 0 {
			clear := min(int64(bits.TrailingZeros8(rest)), 8-i%8, count-i)
			i, free = i+clear, free+clear
			continue
		}
		x.add(start+i*unit, set*unit)
		i += set
	}
	return free
}

// merge puts two lists in order together.
func merge(a, b extents) extents {
	var out extents
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].Offset <= b[0].Offset {
			out.add(a[0].Offset, a[0].Length)
			a = a[1:]
		} else {
			out.add(b[0].Offset, b[0].Length)
			b = b[1:]
		}
	}
	return out
}
