package xfs

import (
	"time"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/lookup"
)

// Formats are where the content of an inode is.
const (
	inInode   = 1 // of folders and links that are short
	inExtents = 2 // which the inode lists
	inTree    = 3 // whose root the inode has
)

const (
	coreSize  = 100 // bytes, before what the inode holds
	coreSize3 = 176 // of version 3

	onRealtime  = 0x1  // of flags
	bigTime     = 0x8  // of flags2
	manyExtents = 0x10 // of flags2
)

var inodeSignature = signature{sum: 100, uuid: 160, owner: 152}

// inode is a file of any type.
type inode struct {
	fs     *FS
	number uint64
	raw    []byte
	mode   uint32
	format byte
	size   int64
	flags2 uint64
	fork   []byte // the part that says what the content is
}

func (f *FS) inode(number uint64) (*inode, error) {
	at, exists := f.Offset(number >> f.InodeBits)
	if !exists {
		return nil, damaged("inode %d is not in it", number)
	}
	at += int64(number&(1<<f.InodeBits-1)) * f.InodeSize
	n := &inode{fs: f, number: number, raw: make([]byte, f.InodeSize)}
	if err := f.read(n.raw, at); err != nil {
		return nil, err
	}
	if string(n.raw[:2]) != "IN" {
		return nil, damaged("inode %d is not at byte %d, where it should be", number, at)
	}
	if err := f.verify(n.raw, inodeSignature, number, at); err != nil {
		return nil, damaged("inode %d, at byte %d: %s", number, at, err)
	}
	return n, n.parse()
}

func (n *inode) parse() error {
	version, start := n.raw[4], coreSize
	if n.fs.V5 {
		start, n.flags2 = coreSize3, be64(n.raw[120:])
	}
	if n.fs.V5 != (version == 3) || version < 1 || version > 3 {
		return damaged("inode %d is of version %d", n.number, version)
	}
	n.mode, n.format, n.size = uint32(be16(n.raw[2:])), n.raw[5], int64(be64(n.raw[56:]))
	if n.mode == 0 {
		return damaged("inode %d has a name and is free", n.number)
	}
	if n.size < 0 {
		return damaged("inode %d has %d bytes", n.number, uint64(n.size))
	}
	end := len(n.raw)
	if attributes := int(n.raw[82]); attributes != 0 {
		end = start + 8*attributes
	}
	if end > len(n.raw) {
		return damaged("inode %d has its attributes behind its end", n.number)
	}
	n.fork = n.raw[start:end]
	return nil
}

// kind is the type in the mode, as in stat(2).
func (n *inode) kind() uint32 { return n.mode & unix.S_IFMT }

// local is the content of what is kept within its inode.
func (n *inode) local() ([]byte, error) {
	if n.size > int64(len(n.fork)) {
		return nil, damaged("inode %d has %d bytes of content in %d of itself", n.number, n.size, len(n.fork))
	}
	return n.fork[:n.size], nil
}

func (n *inode) owner() lookup.Owner {
	o := lookup.Owner{UID: be32(n.raw[8:]), GID: be32(n.raw[12:]), Links: be32(n.raw[16:]), Inode: n.number, Access: n.time(32)}
	if n.raw[4] == 1 {
		o.Links = uint32(be16(n.raw[6:]))
	}
	if kind := n.kind(); kind == unix.S_IFCHR || kind == unix.S_IFBLK {
		device := be32(n.fork) // 14 bits and 18, as on IRIX
		o.Device = unix.Mkdev(device>>18, device&(1<<18-1))
	}
	return o
}

// time is one of an inode's times.
func (n *inode) time(at int) time.Time {
	if n.flags2&bigTime == 0 {
		return time.Unix(int64(int32(be32(n.raw[at:]))), int64(be32(n.raw[at+4:])))
	}
	const second, epoch = 1e9, -1 << 31 // December 1901
	nanos := be64(n.raw[at:])
	return time.Unix(int64(nanos/second)+epoch, int64(nanos%second))
}
