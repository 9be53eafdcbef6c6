package fsinfo

const (
	xfsLogBlock      = 512
	xfsLogMagic      = 0xFEEDBABE
	xfsLogHeaderSpan = 32768 // a header has room for the cycles of so many bytes
	xfsLogMaxRecord  = 256 << 10
	xfsLogUnmount    = 0x20
)

// xfsLog is a log of xfs: a ring of blocks, each of which begins with the number
// of the round in which it was written.
type xfsLog struct {
	image
	start  int64
	blocks int64
}

// block reads one block. Its round is in the first word, or in the second one
// where the first marks the beginning of a record.
func (l *xfsLog) block(n int64) (block fields, cycle uint32, err error) {
	block = make(fields, xfsLogBlock)
	if err := l.read(block, l.start+n*xfsLogBlock); err != nil {
		return nil, 0, err
	}
	cycle = block.be32(0)
	if cycle == xfsLogMagic {
		cycle = block.be32(4)
	}
	return block, cycle, nil
}

// head is the block after the one that was written last.
func (l *xfsLog) head() (int64, error) {
	_, first, err := l.block(0)
	if err != nil {
		return 0, err
	}
	_, last, err := l.block(l.blocks - 1)
	if err != nil || first == last {
		return 0, err // a round was finished, or none was begun
	}
	low, high := int64(0), l.blocks-1 // low is of the round of the first block, high is not
	for high-low > 1 {
		middle := low + (high-low)/2
		_, cycle, err := l.block(middle)
		if err != nil {
			return 0, err
		}
		if cycle == first {
			low = middle
		} else {
			high = middle
		}
	}
	return high, nil
}

// clean reports that the last record says that the file system was unmounted, or
// that there is none at all. Anything odd is not clean.
func (l *xfsLog) clean() (bool, error) {
	head, err := l.head()
	if err != nil {
		return false, err
	}
	if head == 0 {
		if _, cycle, err := l.block(0); err != nil || cycle == 0 {
			return err == nil, err
		}
	}
	limit := min(l.blocks, 2*xfsLogMaxRecord/xfsLogBlock)
	for back := int64(1); back <= limit; back++ {
		at := (head - back + l.blocks) % l.blocks
		record, _, err := l.block(at)
		if err != nil {
			return false, err
		}
		if record.be32(0) == xfsLogMagic {
			return l.unmount(record, at, back)
		}
	}
	return false, nil
}

// unmount reports that a record of the given number of blocks says that the file
// system was unmounted.
func (l *xfsLog) unmount(record fields, at, blocks int64) (bool, error) {
	headers := int64(1)
	if size := int64(record.be32(320)); record.be32(8)&2 != 0 && size > xfsLogHeaderSpan {
		headers = (size + xfsLogHeaderSpan - 1) / xfsLogHeaderSpan
	}
	length := (int64(record.be32(12)) + xfsLogBlock - 1) / xfsLogBlock
	if record.be32(40) != 1 || headers+length != blocks {
		return false, nil
	}
	operation, _, err := l.block((at + headers) % l.blocks)
	if err != nil {
		return false, err
	}
	return operation[9]&xfsLogUnmount != 0, nil
}
