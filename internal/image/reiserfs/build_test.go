package reiserfs_test

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upkeep/internal/testkit"
)

// thing is what the tests put into a file system. No kernel here can write one, so
// they lay it out themselves, and reiserfsck, debugreiserfs and GRUB judge that.
type thing struct {
	path     string // "" is the root folder
	mode     uint32
	uid, gid uint32
	mtime    uint32
	data     []byte // of a file or a link
	holes    []int  // blocks of the file that are not there
	size     int    // of the file, if it has a hole at its end
	rdev     uint32
	links    []string // more names
	flags    uint16
	noTail   bool
}

const (
	folder = 0o040000
	file   = 0o100000
	link   = 0o120000
)

var order = binary.LittleEndian

// rawItem is an item as it is to be in a leaf.
type rawItem struct {
	parent, object uint32
	offset         uint64
	kind           int
	old            bool
	count          int
	body           []byte
}

func (r rawItem) key() []byte {
	out := order.AppendUint32(order.AppendUint32(nil, r.parent), r.object)
	if !r.old {
		return order.AppendUint64(out, r.offset|uint64(r.kind)<<60)
	}
	return order.AppendUint32(order.AppendUint32(out, uint32(r.offset)), map[int]uint32{0: 0, 1: 0xfffffffe, 2: 0xffffffff, 3: 500}[r.kind])
}

// builder lays out a file system on an image that mkreiserfs made.
type builder struct {
	t         testing.TB
	image     []byte
	blockSize int
	next      uint32
	used      []uint32 // blocks, beside those of mkreiserfs
	items     []rawItem
	ids       map[string]uint32
	object    uint32
	old       bool // format 3.5
}

// build makes an image with the given things. Folders must come before what is in
// them.
func build(t testing.TB, size int64, args string, things []thing) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, append(append(strings.Fields("mkreiserfs -q -f -f"), strings.Fields(args)...), path)...)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	super := image[64<<10:]
	b := &builder{t: t, image: image, blockSize: int(order.Uint16(super[44:])), next: order.Uint32(super[8:]) + 1, ids: map[string]uint32{"": 2}, object: 2, old: strings.Contains(args, "3.5")}
	things = append([]thing{}, things...)
	if len(things) == 0 || things[0].path != "" {
		things = append([]thing{{mode: folder | 0o755, mtime: 1e9}}, things...)
	}
	for _, c := range things {
		if c.path != "" {
			b.object++
			b.ids[c.path] = b.object
		}
	}
	names := map[string][]string{} // folder, and what is in it
	target := map[string]string{}
	for _, c := range things {
		for _, name := range append([]string{c.path}, c.links...) {
			if name != "" {
				names[dirOf(name)] = append(names[dirOf(name)], name)
				target[name] = c.path
			}
		}
	}
	for _, c := range things {
		b.add(c, names[c.path], target, things)
	}
	b.finish(order.Uint32(super[8:]))
	if err := os.WriteFile(path, b.image, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func dirOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return ""
}

func nameOf(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// id is the key of a thing: the number of the folder it was made in, and its own.
func (b *builder) id(path string) (parent, object uint32) {
	if path == "" {
		return 1, 2
	}
	return b.ids[dirOf(path)], b.ids[path]
}

func (b *builder) add(c thing, names []string, target map[string]string, things []thing) {
	parent, object := b.id(c.path)
	links, size, blocks := 1+len(c.links), len(c.data), 0
	switch c.mode & 0o170000 {
	case folder:
		links = 2
		for _, name := range names {
			for _, other := range things {
				if other.path == target[name] && other.mode&0o170000 == folder {
					links++
				}
			}
		}
		size = b.entries(c.path, parent, object, names, target)
		blocks = (size + 511) / 512
	case file:
		size = max(size, c.size)
		blocks = b.content(c, parent, object, size)
	case link:
		padded := c.data
		if !b.old {
			padded = pad(c.data, 8)
		}
		b.items = append(b.items, rawItem{parent, object, 1, 2, true, 0xffff, padded})
		blocks = (len(c.data) + 511) / 512
	}
	p := order.AppendUint16(nil, uint16(c.mode))
	if b.old {
		p = order.AppendUint16(p, uint16(links))
		p = order.AppendUint16(order.AppendUint16(p, uint16(c.uid)), uint16(c.gid))
		p = order.AppendUint32(p, uint32(size))
	} else {
		p = order.AppendUint16(p, c.flags)
		p = order.AppendUint64(order.AppendUint32(p, uint32(links)), uint64(size))
		p = order.AppendUint32(order.AppendUint32(p, c.uid), c.gid)
	}
	for _, at := range []uint32{c.mtime + 100, c.mtime, c.mtime + 200} {
		p = order.AppendUint32(p, at)
	}
	last := c.rdev
	if b.old {
		if last == 0 {
			last = uint32(blocks)
		}
		tail := uint32(0xffffffff)
		if n := len(b.items) - 1; b.items[n].kind == 2 && b.items[n].object == object {
			tail = uint32(b.items[n].offset)
		}
		p = order.AppendUint32(order.AppendUint32(p, last), tail)
	} else {
		if last == 0 {
			last = 7000 + object // its generation
		}
		p = order.AppendUint32(order.AppendUint32(p, uint32(blocks)), last)
	}
	b.items = append(b.items, rawItem{parent, object, 0, 0, b.old, 0xffff, p})
}

func pad(p []byte, to int) []byte {
	return append(slices.Clone(p), make([]byte, (to-len(p)%to)%to)...)
}

// r5 is the hash by which names are in order.
func r5(name string) uint32 {
	a := uint32(0)
	for _, c := range []byte(name) {
		a += uint32(int32(int8(c)) << 4)
		a += uint32(int32(int8(c)) >> 4)
		a *= 11
	}
	return max(a&0x7fffff80, 128)
}

// entries makes the items with the names in a folder and returns their size.
func (b *builder) entries(path string, parent, object uint32, names []string, target map[string]string) int {
	type entry struct {
		offset, parent, object uint32
		name                   string
	}
	up := entry{2, 0, 1, ".."}
	if path != "" {
		up.parent, up.object = b.id(dirOf(path))
	}
	all := []entry{{1, parent, object, "."}, up}
	for _, name := range names {
		p, o := b.id(target[name])
		all = append(all, entry{r5(nameOf(name)), p, o, nameOf(name)})
	}
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Compare(a.offset, b.offset) })
	for i := range all {
		if i > 2 && all[i].offset <= all[i-1].offset { // two names with one hash
			all[i].offset = all[i-1].offset + 1
		}
	}
	total, most := 0, b.blockSize-24-24
	for len(all) > 0 {
		n, size := 0, 0
		padded := func(e entry) int {
			if b.old {
				return len(e.name)
			}
			return (len(e.name) + 7) / 8 * 8
		}
		for n < len(all) && size+16+padded(all[n]) <= most {
			size += 16 + padded(all[n])
			n++
		}
		body, end := make([]byte, size), size
		for i, e := range all[:n] {
			end -= padded(e)
			copy(body[end:], e.name)
			head := body[16*i:]
			order.PutUint32(head, e.offset)
			order.PutUint32(head[4:], e.parent)
			order.PutUint32(head[8:], e.object)
			order.PutUint16(head[12:], uint16(end))
			order.PutUint16(head[14:], 4)
		}
		b.items = append(b.items, rawItem{parent, object, uint64(all[0].offset), 3, true, n, body})
		total, all = total+size, all[n:]
	}
	return total
}

func (b *builder) allocate() uint32 {
	if b.next%uint32(8*b.blockSize) == 0 {
		b.next++ // a bitmap is there
	}
	n := b.next
	b.next++
	b.used = append(b.used, n)
	return n
}

func (b *builder) block(n uint32) []byte { return b.image[int(n)*b.blockSize:][:b.blockSize] }

// content makes the items of a file and returns how many sectors it takes.
func (b *builder) content(c thing, parent, object uint32, size int) (sectors int) {
	whole, tail := size/b.blockSize, size%b.blockSize
	if tail > 0 && (c.noTail || c.size > 0 || size > 16<<10 || tail > b.blockSize-200) {
		whole, tail = whole+1, 0
	}
	for first := 0; first < whole; {
		n := min(whole-first, (b.blockSize-48)/4)
		body := make([]byte, 4*n)
		for i := range n {
			at := (first + i) * b.blockSize
			if at >= len(c.data) || slices.Contains(c.holes, first+i) {
				continue
			}
			number := b.allocate()
			copy(b.block(number), c.data[at:min(at+b.blockSize, len(c.data))])
			order.PutUint32(body[4*i:], number)
			sectors += b.blockSize / 512
		}
		b.items = append(b.items, rawItem{parent, object, uint64(first*b.blockSize + 1), 1, b.old, 0, body})
		first += n
	}
	if tail > 0 {
		body := c.data[whole*b.blockSize:]
		if !b.old {
			body = pad(body, 8)
		}
		b.items = append(b.items, rawItem{parent, object, uint64(whole*b.blockSize + 1), 2, b.old, 0xffff, body})
		sectors += b.blockSize / 512
	}
	return sectors
}

// finish packs the items into a tree and brings the maps and the superblock up to
// it.
func (b *builder) finish(oldRoot uint32) {
	slices.SortFunc(b.items, func(x, y rawItem) int {
		return cmp.Or(cmp.Compare(x.parent, y.parent), cmp.Compare(x.object, y.object), cmp.Compare(x.offset, y.offset), cmp.Compare(x.kind, y.kind))
	})
	type built struct {
		first  []byte // key
		number uint32
		size   int
	}
	var level []built
	for rest := b.items; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && size+24+len(rest[n].body) <= b.blockSize-24 {
			size += 24 + len(rest[n].body)
			n++
		}
		number := oldRoot
		if len(level) > 0 {
			number = b.allocate()
		}
		b.leaf(b.block(number), rest[:n], b.blockSize-24-size)
		level = append(level, built{rest[0].key(), number, size})
		rest = rest[n:]
	}
	height := 2
	for ; len(level) > 1; height++ {
		var above []built
		most := (b.blockSize - 24 - 8) / 24
		for len(level) > 0 {
			n := min(len(level), most+1)
			if len(level)-n == 1 {
				n-- // or one child would be left alone
			}
			number := b.allocate()
			p := b.block(number)
			clear(p)
			keys := n - 1
			order.PutUint16(p, uint16(height))
			order.PutUint16(p[2:], uint16(keys))
			order.PutUint16(p[4:], uint16(b.blockSize-24-keys*16-n*8))
			for i, child := range level[:n] {
				if i > 0 {
					copy(p[24+16*(i-1):], child.first)
				}
				order.PutUint32(p[24+16*keys+8*i:], child.number)
				order.PutUint16(p[24+16*keys+8*i+4:], uint16(child.size))
			}
			above = append(above, built{level[0].first, number, keys*16 + n*8})
			level = level[n:]
		}
		level = above
	}
	super := b.image[64<<10:]
	for _, n := range b.used {
		bitmap := b.block(uint32(64<<10/b.blockSize + 1))
		if i := n / uint32(8*b.blockSize); i > 0 {
			bitmap = b.block(i * uint32(8*b.blockSize))
		}
		within := n % uint32(8*b.blockSize)
		if bits.OnesCount8(bitmap[within/8]&(1<<(within%8))) != 0 {
			b.t.Fatalf("block %d was taken", n)
		}
		bitmap[within/8] |= 1 << (within % 8)
	}
	order.PutUint32(super[4:], order.Uint32(super[4:])-uint32(len(b.used)))
	order.PutUint32(super[8:], level[0].number)
	order.PutUint16(super[68:], uint16(height))
	at := 204
	if b.old {
		at = 76
	}
	order.PutUint32(super[at+4:], b.object+1) // the first number that is not taken
}

func (b *builder) leaf(p []byte, items []rawItem, free int) {
	clear(p)
	order.PutUint16(p, 1)
	order.PutUint16(p[2:], uint16(len(items)))
	order.PutUint16(p[4:], uint16(free))
	end := len(p)
	for i, it := range items {
		end -= len(it.body)
		copy(p[end:], it.body)
		head := p[24+24*i:]
		copy(head, it.key())
		order.PutUint16(head[16:], uint16(it.count))
		order.PutUint16(head[18:], uint16(len(it.body)))
		order.PutUint16(head[20:], uint16(end))
		if !it.old {
			order.PutUint16(head[22:], 1)
		}
	}
}

// checked has reiserfsck judge an image.
func checked(t testing.TB, path string) {
	t.Helper()
	out, err := testkit.Try(t, "reiserfsck", "--check", "-y", "-q", path)
	if err != nil || !strings.Contains(out, "No corruptions found") {
		t.Fatalf("reiserfsck: %v\n%s", err, out[max(0, len(out)-3000):])
	}
}

func sample(size int, seed byte) []byte {
	out := make([]byte, size)
	for i := range out {
		out[i] = byte(i*7+i/251) ^ seed
	}
	return out
}
