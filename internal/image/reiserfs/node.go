package reiserfs

import (
	"cmp"
	"sort"
)

// Types of items, in the order in which they come.
const (
	typeStat     = 0
	typeIndirect = 1
	typeDirect   = 2
	typeEntries  = 3
)

// key is where an item comes in the tree.
type key struct {
	parent, object uint32
	offset         uint64
	kind           uint8
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.parent, o.parent), cmp.Compare(k.object, o.object), cmp.Compare(k.offset, o.offset), cmp.Compare(k.kind, o.kind))
}

// parseKey reads a key. Old ones say by a number of 32 bits what new ones say by
// the upper four of 64.
func parseKey(p []byte) key {
	k := key{parent: le32(p, 0), object: le32(p, 4)}
	if kind := p[15] >> 4; kind >= typeIndirect && kind <= typeEntries {
		k.offset, k.kind = le64(p, 8)&(1<<60-1), kind
		return k
	}
	k.offset = uint64(le32(p, 8))
	switch le32(p, 12) {
	case 0:
		k.kind = typeStat
	case 0xfffffffe:
		k.kind = typeIndirect
	case 0xffffffff:
		k.kind = typeDirect
	case 500:
		k.kind = typeEntries
	default:
		k.kind = 15 // comes after everything
	}
	return k
}

const (
	nodeHeader = 24
	itemHeader = 24
	keySize    = 16
	childSize  = 8
)

// node is a block of the tree, which was checked.
type node struct {
	raw   []byte
	level int
	count int
}

// item is a piece of a leaf.
type item struct {
	key   key
	count int // of entries
	old   bool
	body  []byte
}

// node reads a block of the tree at a level; leaves have level 1.
func (f *FS) node(number uint32, level int) (node, error) {
	if n, have := f.cache[number]; have && n.level == level {
		return n, nil
	}
	raw, err := f.block(number)
	if err != nil {
		return node{}, err
	}
	n := node{raw, level, int(le16(raw, 2))}
	room := len(raw) - nodeHeader
	if int(le16(raw, 0)) != level {
		return node{}, damaged("block %d has level %d and should have %d", number, le16(raw, 0), level)
	}
	if n.count < 1 || level == 1 && n.count*itemHeader > room || level > 1 && n.count*(keySize+childSize)+childSize > room {
		return node{}, damaged("block %d of the tree has %d entries", number, n.count)
	}
	if len(f.cache) >= cachedNodes {
		clear(f.cache)
	}
	f.cache[number] = n
	return n, nil
}

// key is the i-th key of a node above the leaves.
func (n node) key(i int) key { return parseKey(n.raw[nodeHeader+i*keySize:]) }

func (n node) child(i int) uint32 {
	return le32(n.raw, nodeHeader+n.count*keySize+i*childSize)
}

// item is the i-th item of a leaf.
func (n node) item(i int) (item, error) {
	head := n.raw[nodeHeader+i*itemHeader:][:itemHeader]
	it := item{key: parseKey(head), count: int(le16(head, 16)), old: le16(head, 22) == 0}
	length, at := int(le16(head, 18)), int(le16(head, 20))
	if at < nodeHeader+n.count*itemHeader || at+length > len(n.raw) {
		return it, damaged("item %d of a leaf lies at %d, with %d bytes", i, at, length)
	}
	it.body = n.raw[at : at+length]
	return it, nil
}

// scan calls each with all items from a key on, in order, until it says that it has
// seen enough.
func (f *FS) scan(from key, each func(item) (more bool, err error)) error {
	s := &scan{FS: f, from: from, each: each}
	_, err := s.below(f.root, f.height-1)
	return err
}

type scan struct {
	*FS
	from key
	each func(item) (bool, error)
	last key
	some bool
}

func (s *scan) below(number uint32, level int) (more bool, err error) {
	n, err := s.node(number, level)
	if err != nil {
		return false, err
	}
	if level == 1 {
		return s.leaf(n)
	}
	first := 0
	if !s.some { // the last child that may have the first item
		first = sort.Search(n.count, func(i int) bool { return n.key(i).compare(s.from) > 0 })
	}
	for i := first; i <= n.count; i++ {
		if more, err := s.below(n.child(i), level-1); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

func (s *scan) leaf(n node) (more bool, err error) {
	for i := range n.count {
		it, err := n.item(i)
		if err != nil {
			return false, err
		}
		if s.some && it.key.compare(s.last) <= 0 {
			return false, damaged("the keys of the tree are not in order at object %d", it.key.object)
		}
		s.last, s.some = it.key, true
		if it.key.compare(s.from) < 0 {
			continue
		}
		if more, err := s.each(it); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
