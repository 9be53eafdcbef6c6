package tree

import (
	"slices"

	"upkeep/internal/image/allocation"
)

// A Range is a piece of a file, from a byte up to another.
type Range struct{ From, To int64 }

// layout is how the content of a file lies: where there is data, and which blocks
// are allocated without having been written.
type layout struct {
	data     []Range
	prealloc []Range
}

// readLayout asks how a file lies (FIEMAP). SEEK_DATA does not tell: it takes what
// was allocated and read, and so is in memory, for data; it is asked where there is
// no FIEMAP, and what is allocated is guessed by st_blocks then. Speculative says
// that what is allocated behind the end is the file system's own doing.
func readLayout(fd int, i *item, speculative bool) (layout, error) {
	if i.size == 0 && i.blocks == 0 {
		return layout{}, nil
	}
	var l layout
	err := l.extents(fd, false)
	if err == nil && !l.dense(i.size) {
		// What is in memory only is written first: it is neither here nor there till then.
		l = layout{}
		err = l.extents(fd, true)
	}
	if noIoctl(err) {
		l = layout{}
		if err := l.seek(fd, i.size); err != nil {
			return l, err
		}
		if !l.dense(i.size) && i.size > 0 && i.blocks*512 >= i.size {
			l.prealloc = []Range{{0, i.size}} // all of it is allocated, and not all is data
		}
		return l, nil
	}
	l.clip(i.size, speculative)
	return l, err
}

// dense reports that there is data from the first byte to the last, and nothing else.
func (l *layout) dense(size int64) bool {
	if size == 0 {
		return len(l.prealloc) == 0
	}
	return len(l.prealloc) == 0 && len(l.data) == 1 && l.data[0].From == 0 && l.data[0].To >= size
}

// clip ends data where the file ends. Blocks behind that were never written count
// as allocated ahead, but on XFS, which allocates there while a file grows.
func (l *layout) clip(size int64, speculative bool) {
	for n := len(l.data); n > 0 && l.data[n-1].To > size; n = len(l.data) {
		if l.data[n-1].From < size {
			l.data[n-1].To = size
			break
		}
		l.data = l.data[:n-1]
	}
	if speculative {
		l.prealloc = slices.DeleteFunc(l.prealloc, func(r Range) bool { return r.From >= size })
	}
}

// extents collects where data is, and what is allocated and was not written.
func (l *layout) extents(fd int, sync bool) error {
	return allocation.Extents(fd, sync, func(e allocation.Extent) bool {
		if r := (Range{e.From, e.To}); e.Unwritten {
			l.prealloc = join(l.prealloc, r)
		} else {
			l.data = join(l.data, r)
		}
		return true
	})
}

// join adds a range behind others, to the last of them if they touch.
func join(ranges []Range, r Range) []Range {
	if n := len(ranges); n > 0 && ranges[n-1].To >= r.From {
		ranges[n-1].To = max(ranges[n-1].To, r.To)
		return ranges
	}
	return append(ranges, r)
}

// seek collects where the data is.
func (l *layout) seek(fd int, size int64) error {
	for at := int64(0); at < size; {
		from, to, err := allocation.NextData(fd, at, size)
		if err != nil {
			return err
		}
		if from < to {
			l.data = join(l.data, Range{from, to})
		}
		at = max(to, at+1)
	}
	return nil
}

// holes are the ranges of a file of that size in which there is no data.
func (l *layout) holes(size int64) []Range {
	var holes []Range
	at := int64(0)
	for _, r := range l.data {
		if r.From > at {
			holes = append(holes, Range{at, r.From})
		}
		at = r.To
	}
	if at < size {
		holes = append(holes, Range{at, size})
	}
	return holes
}
