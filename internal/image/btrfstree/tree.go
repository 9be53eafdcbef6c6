package btrfstree

import "cmp"

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
	At    uint64
	Level int
}

// RootTree is the tree that has the roots of others.
func (t *Trees) RootTree() Root { return Root{t.U64(80), int(t.Fields[198])} }

// Root finds where a tree begins.
func (t *Trees) Root(number uint64) (root Root, err error) {
	err = t.Walk(t.RootTree(), func(key Key, item Fields) error {
		if key.Kind != RootItem || key.Object != number {
			return nil
		}
		if len(item) < 239 {
			return damaged("btrfs: the root of tree %d has %d bytes", number, len(item))
		}
		root = Root{item.U64(176), int(item[238])}
		return nil
	})
	if err == nil && root.At == 0 {
		err = damaged("btrfs: tree %d does not exist", number)
	}
	return root, err
}

// Walk calls each with every item of a tree, in order.
func (t *Trees) Walk(root Root, each func(Key, Fields) error) error {
	w := &walk{Trees: t, each: each}
	return w.node(root.At, root.Level, true)
}

type walk struct {
	*Trees
	each func(Key, Fields) error
	last Key
	some bool // last is one
}

// rise refuses a key that does not come after the one before: a tree in which they
// rise has no node twice, so that reading it ends.
func (w *walk) rise(key Key) error {
	if w.some && key.Compare(w.last) <= 0 {
		return damaged("btrfs: the keys of a tree are not in order")
	}
	w.last, w.some = key, true
	return nil
}

func (w *walk) node(logical uint64, level int, root bool) error {
	node, err := w.readNode(logical, level)
	if err != nil {
		return err
	}
	size := itemSize
	if level > 0 {
		size = pointerSize
	}
	count := uint64(node.U32(96))
	if count > uint64((len(node)-nodeHeader)/size) || count == 0 && (level > 0 || !root) {
		return damaged("btrfs: the node at %d has %d items", logical, count)
	}
	for i := range int(count) {
		at := nodeHeader + i*size
		key := node.Key(at)
		if level > 0 {
			if w.some && key.Compare(w.last) <= 0 {
				return damaged("btrfs: the keys of a tree are not in order")
			}
			if err := w.node(node.U64(at+keySize), level-1, false); err != nil {
				return err
			}
			continue
		}
		if err := w.rise(key); err != nil {
			return err
		}
		from, length := uint64(node.U32(at+keySize))+nodeHeader, uint64(node.U32(at+21))
		if from+length > uint64(len(node)) {
			return damaged("btrfs: item %d of the node at %d lies outside of it", i, logical)
		}
		if err := w.each(key, node[from:from+length]); err != nil {
			return err
		}
	}
	return nil
}

// readNode reads a node: the first copy of it that is in order.
func (t *Trees) readNode(logical uint64, level int) (Fields, error) {
	if level < 0 || level > maxLevel {
		return nil, damaged("btrfs: a tree has %d levels", level+1)
	}
	places, err := t.Places(logical, uint64(t.NodeSize))
	if err != nil {
		return nil, err
	}
	for _, at := range places {
		node := make(Fields, t.NodeSize)
		if err = readFull(t.r, t.size, node, at); err != nil {
			continue
		}
		wrong := checkSum(node, t.U16(196))
		if wrong == "" && (node.U64(48) != logical || int(node[100]) != level) {
			wrong = "it is another one"
		}
		if wrong == "" {
			return node, nil
		}
		err = damaged("btrfs: the node at %d: %s", logical, wrong)
	}
	return nil, err
}
