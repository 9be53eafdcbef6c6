package fsinfo

import (
	"cmp"
	"fmt"
	"slices"
)

// Kinds of items, and trees, of btrfs.
const (
	btrfsInodeItem    = 1
	btrfsInodeRef     = 12
	btrfsRootItem     = 132
	btrfsExtentItem   = 168
	btrfsMetadataItem = 169
	btrfsChunkItem    = 228

	btrfsExtentTree = 2
	btrfsFSTree     = 5
	btrfsFirstFree  = 256 // trees and inodes from here on are people's

	btrfsNodeHeader = 101
	btrfsItemSize   = 25
	btrfsPointer    = 33
	btrfsMaxLevel   = 7
)

// btrfsChunk says where a piece of the logical address space lies.
type btrfsChunk struct {
	logical, length uint64
	copies          []uint64 // each whole
}

type btrfsKey struct {
	object uint64
	kind   uint8
	offset uint64
}

func (k btrfsKey) compare(o btrfsKey) int {
	return cmp.Or(cmp.Compare(k.object, o.object), cmp.Compare(k.kind, o.kind), cmp.Compare(k.offset, o.offset))
}

func (f fields) btrfsKey(at int) btrfsKey { return btrfsKey{f.u64(at), f[at+8], f.u64(at + 9)} }

// btrfsTrees reads trees of one device.
type btrfsTrees struct {
	*btrfs
	chunks []btrfsChunk // by address
	checks uint16       // the kind of checksum
}

func (b *btrfs) trees() (*btrfsTrees, error) {
	t := &btrfsTrees{btrfs: b, checks: b.super.u16(196)}
	if b.super.u64(136) != 1 {
		return nil, fmt.Errorf("btrfs on %d devices: %w", b.super.u64(136), ErrUnsupported)
	}
	if err := t.systemChunks(); err != nil {
		return nil, err
	}
	var all []btrfsChunk
	err := t.walk(b.super.u64(88), int(b.super[199]), func(key btrfsKey, item fields) error {
		if key.kind != btrfsChunkItem {
			return nil
		}
		chunk, _, err := t.chunk(key, item)
		all = append(all, chunk)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tree of chunks: %w", err)
	}
	for i, c := range all { // in order, as the walk is
		if i > 0 && c.logical < all[i-1].logical+all[i-1].length {
			return nil, damaged("btrfs", "two chunks have address %d", c.logical)
		}
	}
	t.chunks = all
	return t, nil
}

// systemChunks reads the chunks in which the tree of chunks lies: the superblock
// has them.
func (t *btrfsTrees) systemChunks() error {
	const at, most = 811, 2048
	size := int(t.super.u32(160))
	if size > most {
		return damaged("superblock of btrfs", "it gives %d bytes of chunks", size)
	}
	list := t.super[at : at+size]
	for len(list) > 0 {
		if len(list) < 17 {
			return damaged("superblock of btrfs", "its list of chunks ends in the middle")
		}
		chunk, length, err := t.chunk(list.btrfsKey(0), list[17:])
		if err != nil {
			return err
		}
		t.chunks = append(t.chunks, chunk)
		list = list[17+length:]
	}
	slices.SortFunc(t.chunks, func(a, b btrfsChunk) int { return cmp.Compare(a.logical, b.logical) })
	return nil
}

// chunk reads a chunk, and says how long its description is.
func (t *btrfsTrees) chunk(key btrfsKey, item fields) (btrfsChunk, int, error) {
	const fixed, stripe, spread = 48, 32, 1<<3 | 1<<6 | 1<<7 | 1<<8 // RAID0, RAID10, RAID5, RAID6
	if key.kind != btrfsChunkItem || len(item) < fixed {
		return btrfsChunk{}, 0, damaged("btrfs", "its list of chunks has something else in it")
	}
	copies := int(item.u16(44))
	if copies < 1 || len(item) < fixed+copies*stripe {
		return btrfsChunk{}, 0, damaged("btrfs", "the chunk at %d has %d copies", key.offset, copies)
	}
	if item.u64(24)&spread != 0 && copies > 1 {
		return btrfsChunk{}, 0, fmt.Errorf("btrfs that is spread over devices: %w", ErrUnsupported)
	}
	c := btrfsChunk{logical: key.offset, length: item.u64(0)}
	for i := range copies {
		at := item.u64(fixed + i*stripe + 8)
		if c.length == 0 || c.length > uint64(t.size) || at > uint64(t.size)-c.length || c.logical+c.length < c.logical {
			return c, 0, damaged("btrfs", "a copy of the chunk at %d is said to be at %d, with %d bytes", key.offset, at, c.length)
		}
		c.copies = append(c.copies, at)
	}
	return c, fixed + copies*stripe, nil
}

// places is where a piece of the logical address space lies, each time whole.
func (t *btrfsTrees) places(logical, length uint64) ([]uint64, error) {
	i, exact := slices.BinarySearchFunc(t.chunks, logical, func(c btrfsChunk, at uint64) int { return cmp.Compare(c.logical, at) })
	if !exact {
		i--
	}
	if i < 0 || logical-t.chunks[i].logical >= t.chunks[i].length || length > t.chunks[i].length-(logical-t.chunks[i].logical) {
		return nil, damaged("btrfs", "no chunk has %d bytes at address %d", length, logical)
	}
	out := make([]uint64, len(t.chunks[i].copies))
	for n, at := range t.chunks[i].copies {
		out[n] = at + logical - t.chunks[i].logical
	}
	return out, nil
}

// walk calls each with every item of a tree, in order.
func (t *btrfsTrees) walk(root uint64, level int, each func(btrfsKey, fields) error) error {
	w := &btrfsWalk{btrfsTrees: t, each: each}
	return w.node(root, level, true)
}

type btrfsWalk struct {
	*btrfsTrees
	each func(btrfsKey, fields) error
	last btrfsKey
	some bool // last is one
}

// rise refuses a key that does not come after the one before: a tree in which they
// rise has no node twice, so that reading it ends.
func (w *btrfsWalk) rise(key btrfsKey) error {
	if w.some && key.compare(w.last) <= 0 {
		return damaged("btrfs", "the keys of a tree are not in order")
	}
	w.last, w.some = key, true
	return nil
}

func (w *btrfsWalk) node(logical uint64, level int, root bool) error {
	node, err := w.readNode(logical, level)
	if err != nil {
		return err
	}
	size := btrfsItemSize
	if level > 0 {
		size = btrfsPointer
	}
	count := uint64(node.u32(96))
	if count > uint64((len(node)-btrfsNodeHeader)/size) || count == 0 && (level > 0 || !root) {
		return damaged("btrfs", "the node at %d has %d items", logical, count)
	}
	for i := range int(count) {
		at := btrfsNodeHeader + i*size
		key := node.btrfsKey(at)
		if level > 0 {
			if w.some && key.compare(w.last) <= 0 {
				return damaged("btrfs", "the keys of a tree are not in order")
			}
			if err := w.node(node.u64(at+17), level-1, false); err != nil {
				return err
			}
			continue
		}
		if err := w.rise(key); err != nil {
			return err
		}
		from, length := uint64(node.u32(at+17))+btrfsNodeHeader, uint64(node.u32(at+21))
		if from+length > uint64(len(node)) {
			return damaged("btrfs", "item %d of the node at %d lies outside of it", i, logical)
		}
		if err := w.each(key, node[from:from+length]); err != nil {
			return err
		}
	}
	return nil
}

// readNode reads a node: the first copy of it that is in order.
func (t *btrfsTrees) readNode(logical uint64, level int) (fields, error) {
	if level < 0 || level > btrfsMaxLevel {
		return nil, damaged("btrfs", "a tree has %d levels", level+1)
	}
	places, err := t.places(logical, uint64(t.nodeSize))
	if err != nil {
		return nil, err
	}
	for _, at := range places {
		node := make(fields, t.nodeSize)
		if err = t.read(node, int64(at)); err != nil {
			continue
		}
		wrong := checkBtrfs(node, t.checks)
		if wrong == "" && (node.u64(48) != logical || int(node[100]) != level) {
			wrong = "it is another one"
		}
		if wrong == "" {
			return node, nil
		}
		err = damaged("btrfs", "the node at %d: %s", logical, wrong)
	}
	return nil, err
}

// root finds where a tree begins; people is told that there are trees of people's.
func (t *btrfsTrees) root(number uint64) (at uint64, level int, people bool, err error) {
	err = t.walk(t.super.u64(80), int(t.super[198]), func(key btrfsKey, item fields) error {
		if key.kind != btrfsRootItem {
			return nil
		}
		if key.object >= btrfsFirstFree && key.object < 1<<63 {
			people = true
		}
		if key.object == number {
			if len(item) < 239 {
				return damaged("btrfs", "the root of tree %d has %d bytes", number, len(item))
			}
			at, level = item.u64(176), int(item[238])
		}
		return nil
	})
	if err == nil && at == 0 {
		err = damaged("btrfs", "tree %d does not exist", number)
	}
	return at, level, people, err
}

// empty reports that there is one tree of files, and its root folder alone in it.
func (b *btrfs) empty() bool {
	t, err := b.trees()
	if err != nil {
		return false
	}
	at, level, people, err := t.root(btrfsFSTree)
	if err != nil || people || level != 0 {
		return false
	}
	empty := true
	err = t.walk(at, level, func(key btrfsKey, _ fields) error {
		empty = empty && key.object == btrfsFirstFree && (key.kind == btrfsInodeItem || key.kind == btrfsInodeRef)
		return nil
	})
	return err == nil && empty
}

func usedOfBtrfs(m image) ([]Extent, error) {
	super := make(fields, btrfsSuperSize)
	if err := m.read(super, btrfsSuperOffset); err != nil {
		return nil, err
	}
	b := &btrfs{image: m, super: super}
	if err := b.check(); err != nil {
		return nil, err
	}
	if super.u64(188)&(1<<12|1<<13|1<<14) != 0 {
		return nil, fmt.Errorf("btrfs with zones, or with the second extent tree: %w", ErrUnsupported)
	}
	t, err := b.trees()
	if err != nil {
		return nil, err
	}
	at, level, _, err := t.root(btrfsExtentTree)
	if err != nil {
		return nil, err
	}
	var used extents
	used.put(0, 1<<20) // never allocated; boot loaders live there
	for _, mirror := range []int64{64 << 20, 256 << 30} {
		if mirror+btrfsSuperSize <= m.size {
			used.put(mirror, btrfsSuperSize)
		}
	}
	total := uint64(0)
	err = t.walk(at, level, func(key btrfsKey, _ fields) error {
		length := key.offset
		switch key.kind {
		case btrfsMetadataItem:
			length = uint64(t.nodeSize)
		case btrfsExtentItem:
		default:
			return nil
		}
		places, err := t.places(key.object, length)
		for _, at := range places {
			used.put(int64(at), int64(length))
		}
		total += length
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tree of extents: %w", err)
	}
	if counted := super.u64(120); counted != total {
		return nil, damaged("btrfs", "extents of %d bytes are listed, and the superblock has %d", total, counted)
	}
	slices.SortFunc(used, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	return merge(nil, used), nil
}
