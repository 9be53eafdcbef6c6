package btrfs

import (
	"fmt"
	"io"
	"sync"

	"upkeep/internal/image/btrfstree"
)

// Types of extents.
const (
	inline      = 0
	regular     = 1
	prealloc    = 2 // not written yet: zeros
	inlineStart = 21
	extentSize  = 53
)

// maxExtent is how much a compressed extent holds at most, before and after.
const maxExtent = 128 << 10

// extent is a piece of the content of a file.
type extent struct {
	at, length   int64 // in the file
	compression  uint8
	hole         bool
	inline       []byte // the content, where it is kept in the tree
	disk, stored uint64 // where it lies, and how long that is
	skip         uint64 // what comes before the piece, in what lies there
	whole        uint64 // bytes of what lies there, not compressed
}

func parseExtent(key btrfstree.Key, item btrfstree.Fields) (extent, error) {
	if len(item) < inlineStart {
		return extent{}, damaged("an extent of inode %d has %d bytes", key.Object, len(item))
	}
	e := extent{at: int64(key.Offset), compression: item[16], whole: item.U64(8)}
	if item[17] != 0 || item.U16(18) != 0 {
		return e, btrfstree.Unsupported(fmt.Sprintf("btrfs: inode %d is encrypted or encoded", key.Object))
	}
	switch kind := item[20]; {
	case kind == inline:
		e.inline, e.length = item[inlineStart:], int64(e.whole)
	case kind > prealloc || len(item) < extentSize:
		return e, damaged("an extent of inode %d is of type %d and has %d bytes", key.Object, kind, len(item))
	default:
		e.disk, e.stored, e.skip, e.length = item.U64(21), item.U64(29), item.U64(37), int64(item.U64(45))
		e.hole = kind == prealloc || e.disk == 0
	}
	return e, e.check(key.Object)
}

func (e *extent) check(inode uint64) error {
	within := e.whole
	if e.compression == 0 {
		within = e.stored
	}
	switch packed := e.compression != 0 && !e.hole; {
	case e.at < 0, e.length < 0, e.at+e.length < 0,
		packed && (e.whole > maxExtent || e.stored > maxExtent),
		e.inline != nil && e.compression == 0 && e.length > int64(len(e.inline)),
		e.inline == nil && !e.hole && (e.skip > within || uint64(e.length) > within-e.skip):
		return damaged("an extent of inode %d cannot be as it says: %d bytes at %d", inode, e.length, e.at)
	}
	return nil
}

// content reads the content of a file, folders and links included.
type content struct {
	n *inode

	mu   sync.Mutex
	last extent // that was unpacked last
	data []byte // what is in it
}

// ReadAt implements [io.ReaderAt]. Holes are zeros.
func (c *content) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 {
		return 0, fmt.Errorf("reading at the negative offset %d", at)
	}
	if at >= c.n.size {
		return 0, io.EOF
	}
	short := int64(len(b)) > c.n.size-at
	b = b[:min(int64(len(b)), c.n.size-at)]
	clear(b)
	done, err := c.extents(b, at)
	if err == nil && short {
		err = io.EOF
	}
	return done, err
}

// NextData implements [lookup.Content].
func (c *content) NextData(offset int64) (from, to int64, err error) {
	offset = min(max(offset, 0), c.n.size)
	from, to = c.n.size, c.n.size
	err = c.each(offset, c.n.size, func(e extent) (bool, error) {
		if e.hole || e.length == 0 || e.at+e.length <= offset {
			return true, nil
		}
		from, to = max(e.at, offset), min(e.at+e.length, c.n.size)
		return false, nil
	})
	return from, to, err
}

// each goes through the extents that can have bytes of the file from one up to another, and
// one before, until it is told to stop.
func (c *content) each(at, end int64, do func(extent) (on bool, err error)) error {
	first := btrfstree.Key{Object: c.n.number, Kind: extentData}
	from := first
	from.Offset = uint64(at)
	return c.n.fs.t.Walk(c.n.in.root, from, func(key btrfstree.Key, item btrfstree.Fields) (bool, error) {
		if key.Compare(first) < 0 {
			return true, nil
		}
		if key.Object != c.n.number || key.Kind != extentData || key.Offset >= uint64(end) {
			return false, nil
		}
		e, err := parseExtent(key, item)
		if err != nil {
			return false, err
		}
		return do(e)
	})
}

// extents fills b from the extents of the file, and leaves the holes. It says how much
// of it is in order.
func (c *content) extents(b []byte, at int64) (done int, err error) {
	end := at + int64(len(b))
	last := int64(0) // where the extent before ends
	err = c.each(at, end, func(e extent) (bool, error) {
		if e.at < last {
			done = min(done, int(e.at-at))
			return false, damaged("two extents of inode %d have byte %d", c.n.number, e.at)
		}
		last = e.at + e.length
		start, stop := max(e.at, at), min(e.at+e.length, end)
		if e.hole || start >= stop {
			return true, nil
		}
		n, err := c.fill(b[start-at:stop-at], e, uint64(start-e.at))
		if done = int(start-at) + n; err != nil {
			return false, fmt.Errorf("at byte %d: %w", at+int64(done), err)
		}
		return true, nil
	})
	if err == nil {
		done = len(b)
	}
	return done, err
}

// fill reads from within an extent.
func (c *content) fill(b []byte, e extent, within uint64) (int, error) {
	if e.inline == nil && e.compression == 0 {
		return c.n.fs.read(b, e.disk+e.skip+within, c.sums())
	}
	data, err := c.unpacked(e)
	if err != nil {
		return 0, err
	}
	if from := e.skip + within; from < uint64(len(data)) { // what is missing is zeros
		copy(b, data[from:])
	}
	return len(b), nil
}

// sums says whether there are checksums of the content.
func (c *content) sums() bool { return c.n.raw.U64(64)&noSums == 0 }

// unpacked is all of an extent that is inline or compressed. It is kept, since who
// reads in small pieces comes again.
func (c *content) unpacked(e extent) ([]byte, error) {
	if e.compression == 0 {
		return e.inline, nil
	}
	if e.inline != nil {
		return unpack(e.compression, e.inline, int(e.whole), int(c.n.fs.t.SectorSize))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.data != nil && c.last.disk == e.disk && c.last.stored == e.stored && c.last.whole == e.whole && c.last.compression == e.compression {
		return c.data, nil
	}
	stored := make([]byte, e.stored)
	if _, err := c.n.fs.read(stored, e.disk, c.sums()); err != nil {
		return nil, err
	}
	data, err := unpack(e.compression, stored, int(e.whole), int(c.n.fs.t.SectorSize))
	if err == nil {
		c.last, c.data = e, data
	}
	return data, err
}
