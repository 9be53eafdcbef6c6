package xfs

import (
	"fmt"
	"io"
	"iter"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/fsinfo"
)

const (
	extentSize = 16
	maxBlocks  = 1 << 54 // of a file: more than an extent can say
	maxLevels  = 16      // of a tree of extents; the kernel makes 9 at most
)

// span is a range of the blocks of a file.
type span struct{ from, to int64 }

// extent is blocks of a file that lie behind each other.
type extent struct {
	from, count int64
	at          int64 // in the file system, in bytes
	unwritten   bool  // allocated only: they read as zeros
}

// extents are those that hold blocks of a file which are asked for, in order; what is
// between them is a hole. After an error there are none.
func (n *inode) extents(wanted span) iter.Seq2[extent, error] {
	return func(yield func(extent, error) bool) {
		w := walk{n, wanted, yield}
		switch count := n.extentCount(); n.format {
		case inExtents:
			if count > uint64(len(n.fork)/extentSize) {
				w.fails("inode %d lists %d extents in %d bytes", n.number, count, len(n.fork))
				return
			}
			w.leaf(n.fork[:count*extentSize], span{0, maxBlocks})
		case inTree:
			const header = 4
			level := int(be16(n.fork))
			if level < 1 || level > maxLevels {
				w.fails("the tree of extents of inode %d has %d levels", n.number, level)
				return
			}
			w.node(n.fork[header:], int(be16(n.fork[2:])), level, span{0, maxBlocks})
		default:
			w.fails("inode %d has content of format %d", n.number, n.format)
		}
	}
}

func (n *inode) extentCount() uint64 {
	if n.flags2&manyExtents != 0 {
		return be64(n.raw[24:])
	}
	return uint64(be32(n.raw[76:]))
}

// walk goes through the extents of a file. Its methods return false when no more are
// wanted, and after an error.
type walk struct {
	n      *inode
	wanted span
	yield  func(extent, error) bool
}

func (w *walk) fails(format string, args ...any) bool {
	w.yield(extent{}, damaged(format, args...))
	return false
}

// node goes on below a node of the tree: it has keys, which are the first blocks that
// its children hold, and behind room for all keys the places of these. What is below
// a child must be of its part of the file; so no child is gone through twice, however
// the pointers are bent.
func (w *walk) node(b []byte, count, level int, part span) bool {
	room := len(b) / 16
	if count < 1 || count > room {
		return w.fails("a node of the tree of extents of inode %d has %d entries", w.n.number, count)
	}
	for i := range count {
		child := span{int64(be64(b[8*i:])), part.to}
		if i+1 < count {
			child.to = int64(be64(b[8*i+8:]))
		}
		if child.from < part.from || child.to <= child.from || child.to > part.to {
			return w.fails("a node of the tree of extents of inode %d is not in order", w.n.number)
		}
		if child.to > w.wanted.from && child.from < w.wanted.to && !w.child(be64(b[8*(room+i):]), level-1, child) {
			return false
		}
	}
	return true
}

var treeSignature = signature{sum: 64, uuid: 40, owner: 56, place: 24}

// child goes through a block of the tree.
func (w *walk) child(block uint64, level int, part span) bool {
	f := w.n.fs
	at, exists := f.Offset(block)
	if !exists {
		return w.fails("the tree of extents of inode %d goes on at block %d, which is not in it", w.n.number, block)
	}
	b := make([]byte, f.BlockSize)
	if err := f.read(b, at); err != nil {
		w.yield(extent{}, err)
		return false
	}
	magic, header := "BMAP", 24
	if f.V5 {
		magic, header = "BMA3", 72
	}
	if string(b[:4]) != magic || int(be16(b[4:])) != level {
		return w.fails("the block at byte %d is not one of the tree of extents of inode %d, at level %d", at, w.n.number, level)
	}
	if err := f.verify(b, treeSignature, w.n.number, at); err != nil {
		return w.fails("the block at byte %d of the tree of extents of inode %d: %s", at, w.n.number, err)
	}
	count := int(be16(b[6:]))
	if level > 0 {
		return w.node(b[header:], count, level, part)
	}
	if count < 1 || count > len(b[header:])/extentSize {
		return w.fails("the block at byte %d has %d extents of inode %d", at, count, w.n.number)
	}
	return w.leaf(b[header:header+count*extentSize], part)
}

// leaf goes through a list of extents, which are of a part of the file.
func (w *walk) leaf(b []byte, part span) bool {
	for next := part.from; len(b) > 0; b = b[extentSize:] {
		e, block := parseExtent(b)
		if e.from < next || e.count == 0 || e.from+e.count > part.to {
			return w.fails("the extents of inode %d are not in order at its block %d", w.n.number, e.from)
		}
		next = e.from + e.count
		from, to := max(e.from, w.wanted.from), min(next, w.wanted.to)
		if from >= to {
			continue
		}
		at, exists := w.n.fs.locate(block, e.count)
		if !exists {
			return w.fails("blocks %d to %d, of inode %d, are not in it", block, block+uint64(e.count)-1, w.n.number)
		}
		e.at = at + (from-e.from)*w.n.fs.BlockSize
		e.from, e.count = from, to-from
		if !w.yield(e, nil) {
			return false
		}
	}
	return true
}

// parseExtent takes an extent apart: a bit that says that it was not written, 54 bits
// of the block of the file, 52 of the block of the file system, and 21 of how many.
func parseExtent(b []byte) (e extent, block uint64) {
	high, low := be64(b), be64(b[8:])
	e.unwritten = high>>63 != 0
	e.from = int64(high & (1<<63 - 1) >> 9)
	e.count = int64(low & (1<<21 - 1))
	return e, high&(1<<9-1)<<43 | low>>21
}

// readable refuses what has no content, or has it somewhere else.
func (n *inode) readable() error {
	switch {
	case n.kind() != unix.S_IFREG:
		return fmt.Errorf("inode %d is no file", n.number)
	case be16(n.raw[90:])&onRealtime != 0:
		return fmt.Errorf("%w: inode %d has its content on a realtime device, which is not in the image", fsinfo.ErrUnsupported, n.number)
	}
	return nil
}

// ReadAt reads the content of a file. Holes are zeros, as is what was never written.
func (n *inode) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("reading at the negative offset %d", offset)
	}
	if err := n.readable(); err != nil {
		return 0, err
	}
	var end error
	if left := max(0, n.size-offset); int64(len(b)) > left {
		b, end = b[:left], io.EOF
	}
	if len(b) == 0 {
		return 0, end
	}
	clear(b)
	size := n.fs.BlockSize
	for e, err := range n.extents(span{offset / size, (offset+int64(len(b))-1)/size + 1}) {
		if err != nil {
			return 0, err
		}
		if e.unwritten {
			continue
		}
		into := max(0, e.from*size-offset)
		skip := offset + into - e.from*size // of the first block
		piece := b[into:min(int64(len(b)), into+e.count*size-skip)]
		if err := n.fs.read(piece, e.at+skip); err != nil {
			return int(into), err
		}
	}
	return len(b), end
}

// NextData implements [lookup.Content].
func (n *inode) NextData(offset int64) (from, to int64, err error) {
	offset, size := min(max(offset, 0), n.size), n.fs.BlockSize
	for e, err := range n.extents(span{offset / size, (n.size + size - 1) / size}) {
		if err != nil {
			return 0, 0, err
		}
		if !e.unwritten {
			return max(e.from*size, offset), min((e.from+e.count)*size, n.size), nil
		}
	}
	return n.size, n.size, nil
}
