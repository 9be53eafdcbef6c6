package extfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"upkeep/internal/image/lookup"
)

const (
	flagEncrypted = 0x800
	flagExtents   = 0x80000
	flagInline    = 0x10000000

	extentMagic = 0xF30A
	maxDepth    = 5
	mostBlocks  = 1 << 32 // of a file that has extents
)

// inode is a file of any type.
type inode struct {
	fs     *FS
	number int64
	raw    []byte
	mode   uint16
	size   int64
	flags  uint32
	inline []byte // the content, of files that are small enough
}

func (f *FS) inode(number int64) (*inode, error) {
	if number < 1 || number > f.inodes {
		return nil, fmt.Errorf("%w: inode %d is not in it", ErrDamaged, number)
	}
	table, err := f.inodeTable((number - 1) / f.inodesPerGroup)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, f.inodeSize)
	at := (number - 1) % f.inodesPerGroup * f.inodeSize
	if err := f.readBlock(raw, table+at/f.blockSize, at%f.blockSize); err != nil {
		return nil, err
	}
	n := &inode{fs: f, number: number, raw: raw}
	n.mode = binary.LittleEndian.Uint16(raw)
	n.flags = binary.LittleEndian.Uint32(raw[32:])
	n.size = int64(binary.LittleEndian.Uint32(raw[4:]))
	if kind := n.mode & 0xf000; kind == 0x8000 || kind == 0x4000 && f.incompat&incompatLargeDir != 0 {
		n.size |= int64(binary.LittleEndian.Uint32(raw[108:])) << 32
	}
	if n.size < 0 || n.size > 1<<44<<16 {
		return nil, fmt.Errorf("%w: inode %d has the size %d", ErrDamaged, number, n.size)
	}
	if n.flags&flagInline != 0 {
		return n, n.readInline()
	}
	return n, nil
}

// readInline finds the content of a file that is kept in its inode: the start
// where block numbers would be, the rest in the attribute system.data.
func (n *inode) readInline() error {
	n.inline = append(n.inline, n.raw[40:100]...)
	if len(n.raw) >= 132 {
		start := 128 + int(binary.LittleEndian.Uint16(n.raw[128:])) + 4
		if start <= len(n.raw)-16 && binary.LittleEndian.Uint32(n.raw[start-4:]) == 0xEA020000 {
			n.inline = append(n.inline, inlineAttribute(n.raw[start:])...)
		}
	}
	if n.size > int64(len(n.inline)) {
		return fmt.Errorf("%w: inode %d has %d bytes within itself and a size of %d", ErrDamaged, n.number, len(n.inline), n.size)
	}
	n.inline = n.inline[:n.size]
	return nil
}

// inlineAttribute is the value of system.data among the attributes of an inode.
func inlineAttribute(b []byte) []byte {
	for at := 0; at+16 <= len(b) && binary.LittleEndian.Uint32(b[at:]) != 0; {
		length, index := int(b[at]), b[at+1]
		offset, size := int(binary.LittleEndian.Uint16(b[at+2:])), int64(binary.LittleEndian.Uint32(b[at+8:]))
		if at+16+length > len(b) {
			break
		}
		if index == 7 && string(b[at+16:at+16+length]) == "data" && int64(offset)+size <= int64(len(b)) {
			return b[offset : int64(offset)+size]
		}
		at += (16 + length + 3) &^ 3
	}
	return nil
}

// ReadAt reads the content of a file or folder.
func (n *inode) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("reading at the negative offset %d", offset)
	}
	if n.flags&flagEncrypted != 0 {
		return 0, fmt.Errorf("%w: inode %d is encrypted", ErrUnsupported, n.number)
	}
	done := 0
	for done < len(b) {
		at := offset + int64(done)
		if at >= n.size {
			return done, io.EOF
		}
		want := b[done:min(int64(len(b)), int64(done)+n.size-at)]
		if n.inline != nil {
			done += copy(want, n.inline[at:])
			continue
		}
		block, count, err := n.locate(at / n.fs.blockSize)
		if err != nil {
			return done, err
		}
		within := at % n.fs.blockSize
		want = want[:min(int64(len(want)), count*n.fs.blockSize-within)]
		if block == 0 {
			clear(want)
		} else if block < 0 || block+count > n.fs.blocks {
			return done, fmt.Errorf("%w: blocks %d to %d of inode %d are not in it", ErrDamaged, block, block+count, n.number)
		} else if err := readFull(n.fs.r, want, block*n.fs.blockSize+within); err != nil {
			return done, err
		}
		done += len(want)
	}
	return done, nil
}

// NextData implements [lookup.Content].
func (n *inode) NextData(offset int64) (from, to int64, err error) {
	for at := max(offset, 0); at < n.size; {
		if n.inline != nil {
			return at, n.size, nil
		}
		block, count, err := n.locate(at / n.fs.blockSize)
		if err != nil {
			return 0, 0, err
		}
		to := min((at/n.fs.blockSize+count)*n.fs.blockSize, n.size)
		if block != 0 {
			return at, to, nil
		}
		at = to
	}
	return n.size, n.size, nil
}

// locate finds the block that holds a block of the file, and how many follow it
// on both sides; 0 is a hole.
func (n *inode) locate(logical int64) (block, count int64, err error) {
	if n.flags&flagExtents != 0 {
		if logical >= mostBlocks {
			return 0, 0, fmt.Errorf("%w: inode %d has no block %d", ErrDamaged, n.number, logical)
		}
		return n.inExtents(n.raw[40:100], logical, maxDepth+1)
	}
	return n.inBlocks(logical)
}

// inExtents looks in a node of the tree of extents. Its depth must fall with each
// level, so that a tree cannot lead round in a circle.
func (n *inode) inExtents(node []byte, logical int64, above int) (block, count int64, err error) {
	entries, depth := int(binary.LittleEndian.Uint16(node[2:])), int(binary.LittleEndian.Uint16(node[6:]))
	if binary.LittleEndian.Uint16(node) != extentMagic || depth >= above || 12*(entries+1) > len(node) {
		return 0, 0, fmt.Errorf("%w: the extent tree of inode %d is malformed", ErrDamaged, n.number)
	}
	child, next := int64(0), int64(mostBlocks)
	for i := range entries {
		e := node[12*(i+1):]
		first := int64(binary.LittleEndian.Uint32(e))
		if first > logical {
			next = first
			break
		}
		if depth > 0 {
			child = int64(binary.LittleEndian.Uint32(e[4:])) | int64(binary.LittleEndian.Uint16(e[8:]))<<32
			continue
		}
		length, written := int64(binary.LittleEndian.Uint16(e[4:])), true
		if length > 32768 {
			length, written = length-32768, false
		}
		if logical >= first+length {
			continue
		}
		if !written {
			return 0, first + length - logical, nil
		}
		start := int64(binary.LittleEndian.Uint32(e[8:])) | int64(binary.LittleEndian.Uint16(e[6:]))<<32
		if start == 0 {
			return 0, 0, fmt.Errorf("%w: an extent of inode %d is at block 0", ErrDamaged, n.number)
		}
		return start + logical - first, first + length - logical, nil
	}
	if child == 0 {
		return 0, next - logical, nil
	}
	b := make([]byte, n.fs.blockSize)
	if err := n.fs.readBlock(b, child, 0); err != nil {
		return 0, 0, err
	}
	block, count, err = n.inExtents(b, logical, depth)
	return block, min(count, next-logical), err
}

// inBlocks looks in the numbers of blocks of an ext2 or ext3 file.
func (n *inode) inBlocks(logical int64) (block, count int64, err error) {
	per := n.fs.blockSize / 4
	at := logical
	slot, levels := int64(12), 0
	for span := int64(1); ; {
		if levels == 0 && at < 12 {
			slot = at
			break
		}
		if levels == 0 {
			at -= 12
		} else {
			at -= span
			slot++
		}
		levels++
		span *= per
		if at < span {
			break
		}
		if levels == 3 {
			return 0, 0, fmt.Errorf("%w: inode %d has no block %d", ErrDamaged, n.number, logical)
		}
	}
	block = int64(binary.LittleEndian.Uint32(n.raw[40+4*slot:]))
	for span := pow(per, levels-1); levels > 0; levels-- {
		if block == 0 { // so is all that it would lead to
			return 0, per*span - at, nil
		}
		b := make([]byte, 4)
		if err := n.fs.readBlock(b, block, at/span*4); err != nil {
			return 0, 0, err
		}
		block, at = int64(binary.LittleEndian.Uint32(b)), at%span
		span = max(1, span/per)
	}
	return block, 1, nil
}

func pow(base int64, exponent int) int64 {
	n := int64(1)
	for range exponent {
		n *= base
	}
	return n
}

func (n *inode) owner() lookup.Owner {
	at := func(i int) uint32 { return uint32(binary.LittleEndian.Uint16(n.raw[i:])) }
	o := lookup.Owner{UID: at(2) | at(120)<<16, GID: at(24) | at(122)<<16, Links: at(26), Inode: uint64(n.number), Flags: n.flags, Access: n.time(8, 140)}
	if kind := n.mode & 0xf000; kind == 0x2000 || kind == 0x6000 {
		o.Device = device(binary.LittleEndian.Uint32(n.raw[40:]), binary.LittleEndian.Uint32(n.raw[44:]))
	}
	return o
}

// device puts the two numbers of a device together, of which old ones have 8 bits.
func device(old, now uint32) uint64 {
	major, minor := uint64(old>>8&0xff), uint64(old&0xff)
	if old == 0 {
		major, minor = uint64(now>>8&0xfff), uint64(now&0xff|now>>12&0xfff00)
	}
	return major<<8 | minor&0xff | minor>>8<<20
}

// time is one of an inode's times; nanoseconds and more bits of the seconds are in a
// second place, where the inode is large enough.
func (n *inode) time(at, more int) time.Time {
	seconds := int64(int32(binary.LittleEndian.Uint32(n.raw[at:])))
	var nanos int64
	if len(n.raw) >= more+4 && int(binary.LittleEndian.Uint16(n.raw[128:])) >= more+4-128 {
		extra := int64(binary.LittleEndian.Uint32(n.raw[more:]))
		seconds += extra & 3 << 32
		nanos = extra >> 2
	}
	return time.Unix(seconds, nanos)
}
