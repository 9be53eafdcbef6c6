package btrfstree

import (
	"cmp"
	"fmt"
	"math"
	"sort"
	"sync"
)

// Kinds of items.
const (
	InodeItem    = 1
	InodeRef     = 12
	RootItem     = 132
	ExtentItem   = 168
	MetadataItem = 169
	ChunkItem    = 228
)

// Numbers of trees.
const (
	ExtentTree = 2
	FSTree     = 5
	FirstFree  = 256 // trees and inodes from here on are people's
)

const (
	nodeHeader  = 101
	keySize     = 17
	itemSize    = 25
	pointerSize = 33
	maxLevel    = 7
)

// Key is where an item comes in its tree.
type Key struct {
	Object uint64
	Kind   uint8
	Offset uint64
}

// Compare orders keys as trees have them.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Object, o.Object), cmp.Compare(k.Kind, o.Kind), cmp.Compare(k.Offset, o.Offset))
}

// Key is the key at an offset.
func (f Fields) Key(at int) Key { return Key{f.U64(at), f[at+8], f.U64(at + 9)} }

// Root is where a tree begins.
type Root struct {
	At         uint64
	Level      int
	Generation uint64 // in which it was written last
}

// RootTree is the tree that has the roots of others.
func (t *Trees) RootTree() Root { return Root{t.U64(80), int(t.Fields[198]), t.U64(72)} }

// Root finds where a tree begins, if it is there and was not deleted.
func (t *Trees) Root(number uint64) (root Root, found bool, err error) {
	last := Key{number, RootItem, math.MaxUint64} // snapshots have the number of a transaction there
	err = t.Walk(t.RootTree(), last, func(key Key, item Fields) (bool, error) {
		if key.Kind != RootItem || key.Object != number {
			return false, nil
		}
		if len(item) < 239 {
			return false, damaged("btrfs: the root of tree %d has %d bytes", number, len(item))
		}
		root, found = Root{item.U64(176), int(item[238]), item.U64(160)}, item.U32(216) > 0
		return false, nil
	})
	return root, found, err
}

// Walk calls each with the last item of a tree that is not behind a key, and with
// those that follow, in order, until it has seen enough. Before the first item there
// is none: then it is called with the first.
func (t *Trees) Walk(root Root, from Key, each func(Key, Fields) (more bool, err error)) error {
	w := &walk{Trees: t, from: from, each: each}
	_, err := w.node(root, nil)
	return err
}

type walk struct {
	*Trees
	from Key
	each func(Key, Fields) (bool, error)
	last Key
	some bool // last is one
}

// rises refuses a key that does not come after the one before: a tree in which they
// rise has no node twice, so that reading it ends.
func (w *walk) rises(key Key) error {
	if w.some && key.Compare(w.last) <= 0 {
		return damaged("btrfs: the keys of a tree are not in order")
	}
	return nil
}

// node walks through what is below a node, which must begin with the key that the one
// above has for it.
func (w *walk) node(at Root, begins *Key) (more bool, err error) {
	node, err := w.readNode(at)
	if err != nil {
		return false, err
	}
	size, count := entrySize(at.Level), int(node.U32(96))
	if begins == nil && at.Level == 0 && count == 0 {
		return true, nil // of a tree with nothing in it
	}
	if count == 0 || begins != nil && node.Key(nodeHeader) != *begins {
		return false, damaged("btrfs: the node at %d does not begin as it should", at.At)
	}
	first := 0
	if !w.some {
		first = max(0, sort.Search(count, func(i int) bool { return node.Key(nodeHeader+i*size).Compare(w.from) > 0 })-1)
	}
	for i := first; i < count; i++ {
		key := node.Key(nodeHeader + i*size)
		if err := w.rises(key); err != nil {
			return false, err
		}
		if at.Level > 0 {
			pointer := node[nodeHeader+i*size+keySize:]
			more, err = w.node(Root{pointer.U64(0), at.Level - 1, pointer.U64(8)}, &key)
		} else {
			w.last, w.some = key, true
			more, err = w.item(node, i, key)
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

func (w *walk) item(node Fields, i int, key Key) (more bool, err error) {
	at := nodeHeader + i*itemSize + keySize
	from, length := uint64(node.U32(at))+nodeHeader, uint64(node.U32(at+4))
	if from+length > uint64(len(node)) {
		return false, damaged("btrfs: item %d of the node at %d lies outside of it", i, node.U64(48))
	}
	return w.each(key, node[from:from+length])
}

func entrySize(level int) int {
	if level > 0 {
		return pointerSize
	}
	return itemSize
}

// readNode reads a node: the first copy of it that is in order.
func (t *Trees) readNode(want Root) (Fields, error) {
	if want.Level < 0 || want.Level > maxLevel {
		return nil, damaged("btrfs: a tree has %d levels", want.Level+1)
	}
	if node, have := t.nodes.get(want.At); have && wrongNode(node, want) == "" {
		return node, nil
	}
	places, err := t.Places(want.At, uint64(t.NodeSize))
	if err != nil {
		return nil, err
	}
	for _, at := range places {
		node := make(Fields, t.NodeSize)
		if err = t.ReadPlace(node, at); err != nil {
			continue
		}
		wrong := t.checkSum(node)
		if wrong == "" {
			wrong = wrongNode(node, want)
		}
		if wrong == "" {
			t.nodes.put(want.At, node)
			return node, nil
		}
		err = damaged("btrfs: the node at %d: %s", want.At, wrong)
	}
	return nil, err
}

// wrongNode says what is wrong with a node, apart from its checksum. One of an older
// generation is what a disk has that lost a write.
func wrongNode(node Fields, want Root) string {
	count := uint64(node.U32(96))
	switch {
	case node.U64(48) != want.At || int(node[100]) != want.Level:
		return "it is another one"
	case node.U64(80) != want.Generation:
		return fmt.Sprintf("it is of generation %d and should be of %d", node.U64(80), want.Generation)
	case count > uint64((len(node)-nodeHeader)/entrySize(want.Level)):
		return fmt.Sprintf("it has %d items", count)
	}
	return ""
}

// cache keeps nodes that were read lately. It may be used by several goroutines.
type cache struct {
	mu    sync.Mutex
	nodes map[uint64]Fields
}

const cachedNodes = 128

func (c *cache) get(at uint64) (Fields, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	node, have := c.nodes[at]
	return node, have
}

func (c *cache) put(at uint64, node Fields) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes == nil || len(c.nodes) >= cachedNodes {
		c.nodes = map[uint64]Fields{}
	}
	c.nodes[at] = node
}
