package btrfstree

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// chunk says where a piece of the logical address space lies.
type chunk struct {
	logical, length uint64
	copies          []uint64 // each whole
}

// Trees reads trees of one device.
type Trees struct {
	*Super
	r      io.ReaderAt
	size   int64
	chunks []chunk // by address
	nodes  cache
}

// Open reads where in the size bytes of r things lie.
func Open(r io.ReaderAt, size int64, super *Super) (*Trees, error) {
	t := &Trees{Super: super, r: r, size: size}
	if n := super.Devices(); n != 1 {
		return nil, Unsupported(fmt.Sprintf("btrfs on %d devices", n))
	}
	if err := t.systemChunks(); err != nil {
		return nil, err
	}
	var all []chunk
	err := t.Walk(Root{super.U64(88), int(super.Fields[199]), super.U64(164)}, Key{}, func(key Key, item Fields) (bool, error) {
		if key.Kind != ChunkItem {
			return true, nil
		}
		c, _, err := t.chunk(key, item)
		all = append(all, c)
		return true, err
	})
	if err != nil {
		return nil, fmt.Errorf("tree of chunks: %w", err)
	}
	for i, c := range all { // in order, as the walk is
		if i > 0 && c.logical < all[i-1].logical+all[i-1].length {
			return nil, damaged("btrfs: two chunks have address %d", c.logical)
		}
	}
	t.chunks = all
	return t, nil
}

// systemChunks reads the chunks in which the tree of chunks lies: the superblock
// has them.
func (t *Trees) systemChunks() error {
	const at, most = 811, 2048
	size := int(t.U32(160))
	if size > most {
		return damaged("superblock of btrfs: it gives %d bytes of chunks", size)
	}
	list := t.Fields[at : at+size]
	for len(list) > 0 {
		if len(list) < keySize {
			return damaged("superblock of btrfs: its list of chunks ends in the middle")
		}
		c, length, err := t.chunk(list.Key(0), list[keySize:])
		if err != nil {
			return err
		}
		t.chunks = append(t.chunks, c)
		list = list[keySize+length:]
	}
	slices.SortFunc(t.chunks, func(a, b chunk) int { return cmp.Compare(a.logical, b.logical) })
	return nil
}

// chunk reads a chunk, and says how long its description is.
func (t *Trees) chunk(key Key, item Fields) (chunk, int, error) {
	const fixed, stripe, spread = 48, 32, 1<<3 | 1<<6 | 1<<7 | 1<<8 // RAID0, RAID10, RAID5, RAID6
	if key.Kind != ChunkItem || len(item) < fixed {
		return chunk{}, 0, damaged("btrfs: its list of chunks has something else in it")
	}
	copies := int(item.U16(44))
	if copies < 1 || len(item) < fixed+copies*stripe {
		return chunk{}, 0, damaged("btrfs: the chunk at %d has %d copies", key.Offset, copies)
	}
	if item.U64(24)&spread != 0 && copies > 1 {
		return chunk{}, 0, Unsupported("btrfs that is spread over devices")
	}
	c := chunk{logical: key.Offset, length: item.U64(0)}
	for i := range copies {
		at := item.U64(fixed + i*stripe + 8)
		if c.length == 0 || c.length > uint64(t.size) || at > uint64(t.size)-c.length || c.logical+c.length < c.logical {
			return c, 0, damaged("btrfs: a copy of the chunk at %d is said to be at %d, with %d bytes", key.Offset, at, c.length)
		}
		c.copies = append(c.copies, at)
	}
	return c, fixed + copies*stripe, nil
}

// Places is where a piece of the logical address space lies, each time whole.
func (t *Trees) Places(logical, length uint64) ([]uint64, error) {
	i, exact := slices.BinarySearchFunc(t.chunks, logical, func(c chunk, at uint64) int { return cmp.Compare(c.logical, at) })
	if !exact {
		i--
	}
	if i < 0 || logical-t.chunks[i].logical >= t.chunks[i].length || length > t.chunks[i].length-(logical-t.chunks[i].logical) {
		return nil, damaged("btrfs: no chunk has %d bytes at address %d", length, logical)
	}
	out := make([]uint64, len(t.chunks[i].copies))
	for n, at := range t.chunks[i].copies {
		out[n] = at + logical - t.chunks[i].logical
	}
	return out, nil
}

// ReadPlace fills p from a place in the image.
func (t *Trees) ReadPlace(p []byte, place uint64) error {
	if place > uint64(t.size) || uint64(len(p)) > uint64(t.size)-place {
		return fmt.Errorf("reading %d bytes at %d of an image of %d: %w", len(p), place, t.size, io.ErrUnexpectedEOF)
	}
	n, err := t.r.ReadAt(p, int64(place))
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d of an image of %d: %w", len(p), place, t.size, err)
}
