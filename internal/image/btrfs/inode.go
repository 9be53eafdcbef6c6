package btrfs

import (
	"encoding/binary"
	"io/fs"
	"slices"
	"time"

	"upkeep/internal/image/btrfstree"
	"upkeep/internal/image/lookup"
)

const (
	inodeSize = 160
	noSums    = 1 << 0 // a flag: of its content there are no checksums

	emptyFolder = 2 // the number of what stands where a subvolume is not
)

// inode is a file of any type.
type inode struct {
	fs     *FS
	in     subvolume
	number uint64
	raw    btrfstree.Fields
	size   int64
}

func (f *FS) inode(in subvolume, number uint64) (*inode, error) {
	raw, err := f.item(in.root, btrfstree.Key{Object: number, Kind: btrfstree.InodeItem})
	if err != nil {
		return nil, err
	}
	if len(raw) < inodeSize {
		return nil, damaged("inode %d of subvolume %d has %d bytes", number, in.number, len(raw))
	}
	n := &inode{fs: f, in: in, number: number, raw: slices.Clone(raw[:inodeSize])} // so that its node can go
	if n.size = int64(raw.U64(16)); n.size < 0 {
		return nil, damaged("inode %d of subvolume %d has the size %d", number, in.number, uint64(n.size))
	}
	return n, nil
}

// nothing is the empty folder that a folder has instead of a subvolume that is not
// there.
func (n *inode) nothing() *inode {
	raw := slices.Clone(n.raw)
	binary.LittleEndian.PutUint32(raw[40:], 1)
	binary.LittleEndian.PutUint32(raw[52:], 0o40755)
	return &inode{fs: n.fs, in: n.in, number: emptyFolder, raw: raw}
}

func (n *inode) mode() fs.FileMode { return lookup.Mode(n.raw.U32(52)) }

func (n *inode) owner() lookup.Owner {
	o := lookup.Owner{UID: n.raw.U32(44), GID: n.raw.U32(48), Links: n.raw.U32(40), Subvolume: n.in.number, Inode: n.number, Access: n.time(112)}
	if n.mode()&fs.ModeDevice != 0 {
		device := n.raw.U64(56) // as the kernel has it
		major, minor := device>>20, device&0xfffff
		o.Device = major<<8 | minor&0xff | minor>>8<<20
	}
	return o
}

func (n *inode) time(at int) time.Time {
	return time.Unix(int64(n.raw.U64(at)), int64(n.raw.U32(at+8)))
}
