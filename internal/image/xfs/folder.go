package xfs

import (
	"fmt"
	"iter"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/lookup"
)

const maxFolder = 1 << 30 // bytes of one folder

// named is an entry of a folder.
type named struct {
	name  string
	inode uint64
}

// names are the entries of a folder. After an error there are none.
func (n *inode) names() iter.Seq2[named, error] {
	return func(yield func(named, error) bool) {
		all := n.blockNames
		switch {
		case n.kind() != unix.S_IFDIR:
			yield(named{}, lookup.ErrNoFolder)
			return
		case n.format == inInode:
			all = n.shortNames
		}
		err := all(func(name []byte, inode uint64) bool {
			return yield(named{string(name), inode}, nil)
		})
		if err != nil {
			yield(named{}, err)
		}
	}
}

// shortNames calls for the names of a folder that is kept within its inode, until it
// is told to stop. The folder begins with how many names there are, how many of their
// inodes have long numbers, and the number of the folder above.
func (n *inode) shortNames(do func(name []byte, inode uint64) bool) error {
	b, err := n.local()
	if err != nil {
		return err
	}
	wrong := damaged("the folder of inode %d has names behind its end, of %d bytes", n.number, len(b))
	number := 4 // bytes of the number of an inode
	if len(b) > 1 && b[1] != 0 {
		number = 8
	}
	if len(b) < 2+number {
		return wrong
	}
	count := int(b[0])
	b = b[2+number:]
	for range count {
		const header = 3 // how long the name is, and where it would be in a block
		if len(b) < header {
			return wrong
		}
		length := int(b[0])
		at := header + length + n.typeSize()
		if length == 0 || len(b) < at+number {
			return wrong
		}
		inode := uint64(be32(b[at:]))
		if number == 8 {
			inode = be64(b[at:])
		}
		if !do(b[header:header+length], inode) {
			return nil
		}
		b = b[at+number:]
	}
	return nil
}

// typeSize is how many bytes there are for the type in an entry.
func (n *inode) typeSize() int {
	if n.fs.FileTypes {
		return 1
	}
	return 0
}

// blockNames calls for the names of a folder that has blocks, until it is told to
// stop. Its indexes lie behind its end, and are passed over.
func (n *inode) blockNames(do func(name []byte, inode uint64) bool) error {
	size := n.fs.FolderBlock
	if n.size%size != 0 {
		return damaged("the folder of inode %d has %d bytes", n.number, n.size)
	}
	if n.size > maxFolder {
		return fmt.Errorf("%w: the folder of inode %d has %d bytes, and %d are read at most", fsinfo.ErrUnsupported, n.number, n.size, maxFolder)
	}
	b := make([]byte, size)
	read := map[int64]bool{} // by place: a small image could have more names than there is memory
	for from := int64(0); from < n.size; from += size {
		at, exists, err := n.folderBlock(b, from)
		if err != nil {
			return err
		}
		if !exists { // all its names were removed
			continue
		}
		if read[at] {
			return damaged("the folder of inode %d has the block at byte %d twice", n.number, at)
		}
		read[at] = true
		names, err := n.namesIn(b, at)
		if err != nil {
			return err
		}
		if on, err := n.eachName(names, at, do); err != nil || !on {
			return err
		}
	}
	return nil
}

// folderBlock reads a block of a folder, which may lie in several places, and says
// where the first is. False where there is none.
func (n *inode) folderBlock(b []byte, from int64) (at int64, exists bool, err error) {
	size, filled := n.fs.BlockSize, int64(0)
	for e, err := range n.extents(span{from / size, (from + int64(len(b))) / size}) {
		if err != nil {
			return 0, false, err
		}
		if e.unwritten || e.from*size != from+filled {
			return 0, false, damaged("the folder of inode %d has a hole at %d", n.number, from+filled)
		}
		if filled == 0 {
			at = e.at
		}
		if err := n.fs.read(b[filled:filled+e.count*size], e.at); err != nil {
			return 0, false, err
		}
		filled += e.count * size
	}
	if filled != 0 && filled != int64(len(b)) {
		return 0, false, damaged("the folder of inode %d has a hole at %d", n.number, from+filled)
	}
	return at, filled != 0, nil
}

var folderSignature = signature{sum: 4, uuid: 24, owner: 40, place: 8}

// folderBlock is a block of a folder, of which a part holds names and free room.
type folderBlock struct {
	whole    []byte
	from, to int
}

// namesIn finds the names in a block that was read at a place. A folder of one block
// has its index at the end of that.
func (n *inode) namesIn(b []byte, at int64) (folderBlock, error) {
	data, single, header := "XD2D", "XD2B", 16
	if n.fs.V5 {
		data, single, header = "XDD3", "XDB3", 64
	}
	block := folderBlock{b, header, len(b)}
	switch string(b[:4]) {
	case data:
	case single:
		const tail, entry = 8, 8
		count := int64(be32(b[len(b)-tail:]))
		if count > int64(len(b)-header-tail)/entry {
			return block, damaged("the block at byte %d, of the folder of inode %d, has an index of %d names", at, n.number, count)
		}
		block.to -= tail + int(count)*entry
	default:
		return block, damaged("the block at byte %d is not one of the folder of inode %d", at, n.number)
	}
	if err := n.fs.verify(b, folderSignature, n.number, at); err != nil {
		return block, damaged("the block at byte %d, of the folder of inode %d: %s", at, n.number, err)
	}
	return block, nil
}

// eachName calls for the names in a block at a place, until it is told to stop.
func (n *inode) eachName(b folderBlock, at int64, do func(name []byte, inode uint64) bool) (on bool, err error) {
	for from := b.from; from < b.to; {
		entry := b.whole[from:b.to]
		name, length := n.entry(entry, from)
		if length == 0 {
			return false, damaged("the block at byte %d, of the folder of inode %d, is malformed at %d", at, n.number, from)
		}
		if len(name) > 0 && !do(name, be64(entry)) {
			return false, nil
		}
		from += length
	}
	return true, nil
}

// entry takes apart what b begins with: a name, or free room, which has none. Both end
// with their own place in the block. The length is 0 of what is malformed.
func (n *inode) entry(b []byte, place int) (name []byte, length int) {
	const unit, unused, header, end = 8, 0xffff, 9, 2
	free := len(b) >= unit && be16(b) == unused
	switch {
	case free:
		length = int(be16(b[2:]))
	case len(b) > header && b[header-1] > 0:
		name = b[header:min(len(b), header+int(b[header-1]))]
		length = (header + int(b[header-1]) + n.typeSize() + end + unit - 1) &^ (unit - 1)
	}
	if length < unit || length%unit != 0 || length > len(b) || int(be16(b[length-end:])) != place {
		return nil, 0
	}
	return name, length
}
