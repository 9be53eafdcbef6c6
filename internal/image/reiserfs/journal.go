package reiserfs

import "fmt"

const (
	descriptionMagic = "ReIsErLB"
	// A transaction's list of blocks begins behind its three numbers, and ends
	// before a mark.
	journalHeader  = 12
	journalTrailer = 12
	maxTransaction = 1 << 16
)

// journal is the ring of blocks into which changes are written first.
type journal struct {
	*FS
	first, size int64 // blocks
	most        uint32
}

// readJournal finds the transactions that were committed and not carried out. It
// goes by the rules of the kernel's driver.
func (f *FS) readJournal(super []byte) error {
	if le32(super, 16) != 0 {
		return fmt.Errorf("reiserfs: the journal is on another device, and may hold changes: %w", ErrDamaged)
	}
	j := &journal{FS: f, first: int64(le32(super, 12)), size: int64(le32(super, 20)), most: le32(super, 24)}
	if j.first < 1 || j.size < 2 || j.first+j.size >= f.blocks {
		return damaged("its superblock gives a journal of %d blocks at %d", j.size, j.first)
	}
	header, err := f.block(uint32(j.first + j.size))
	if err != nil {
		return err
	}
	flushed, next, mount := le32(header, 0), int64(le32(header, 4)), le32(header, 8)
	if next >= j.size {
		return damaged("its journal goes on at block %d of %d", next, j.size)
	}
	overlay := map[uint32]int64{}
	id := flushed
	for begin := next; ; {
		blocks, end, found, err := j.transaction(next, id, mount)
		if err != nil {
			return err
		}
		if !found {
			break
		}
		id++
		for number, at := range blocks {
			overlay[number] = at
		}
		if next = end; next == begin {
			break
		}
		if int64(id-flushed) > j.size {
			return damaged("its journal does not end")
		}
	}
	f.overlay = overlay
	return nil
}

// transaction reads the one that begins at a block of the journal, if it follows
// the one with the given number and is whole.
func (j *journal) transaction(at int64, after, mount uint32) (blocks map[uint32]int64, end int64, found bool, err error) {
	description, err := j.FS.block(uint32(j.first + at))
	if err != nil {
		return nil, 0, false, err
	}
	id, length := le32(description, 0), le32(description, 4)
	if string(description[j.blockSize-journalTrailer:][:len(descriptionMagic)]) != descriptionMagic || id != after+1 || le32(description, 8) != mount ||
		length == 0 || length > j.most || length > maxTransaction || int64(length)+2 > j.size {
		return nil, 0, false, nil
	}
	end = (at + int64(length) + 1) % j.size
	commit, err := j.FS.block(uint32(j.first + end))
	if err != nil {
		return nil, 0, false, err
	}
	if le32(commit, 0) != id || le32(commit, 4) != length {
		return nil, 0, false, nil // it was not finished
	}
	half := (j.blockSize - journalHeader - journalTrailer) / 4
	blocks = map[uint32]int64{}
	for i := range int64(length) {
		list, n := description, i
		if i >= half {
			list, n = commit, i-half
		}
		if n >= half {
			return nil, 0, false, damaged("a transaction of its journal has %d blocks", length)
		}
		number := le32(list, int(journalHeader+4*n))
		if int64(number) >= j.blocks || int64(number) >= j.first && int64(number) < j.first+j.size {
			return nil, 0, false, damaged("its journal has content for block %d", number)
		}
		blocks[number] = (j.first + (at+1+i)%j.size) * j.blockSize
	}
	return blocks, (end + 1) % j.size, true, nil
}
