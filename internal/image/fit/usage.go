package fit

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/tree"
)

// Usage is what a tree takes, counted for all file systems at once.
type Usage struct {
	Files, Folders, Others int64 // entries, by kind
	Inodes                 int64 // files of several names count once
	Bytes                  int64 // in files, without holes

	ext     map[extKind]*extUsage
	folders map[tree.ID]*folderUsage
	sizes   []int64 // of files
	largest int64
	apart   plainUsage
}

// extKind is what makes a difference to how ext keeps files.
type extKind struct {
	block   int64
	extents bool // ext4
}

// extUsage counts in blocks.
type extUsage struct {
	data, maps, xattrs int64
}

// folderUsage is what the entries of a folder take.
type folderUsage struct {
	ext  int64 // bytes of entries
	vfat int64 // entries of 32 bytes
	any  int64 // bytes of names
	n    int64
}

// plainUsage is for file systems whose layout is foreseen roughly.
type plainUsage struct {
	blocks  int64 // of 4K
	inlined int64 // bytes of files that are kept among the metadata (btrfs)
	extents int64
	xattrs  int64 // bytes
}

const extReserved = 11 // inodes that ext keeps, lost+found among them

// Measure counts what a tree takes.
func Measure(ctx context.Context, root *os.File) (*Usage, error) {
	u := &Usage{ext: map[extKind]*extUsage{}, folders: map[tree.ID]*folderUsage{}}
	for _, block := range []int64{1024, 2048, 4096} {
		u.ext[extKind{block, false}], u.ext[extKind{block, true}] = &extUsage{}, &extUsage{}
	}
	if err := tree.Measure(ctx, root, u.add); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *Usage) folder(id tree.ID) *folderUsage {
	f := u.folders[id]
	if f == nil {
		f = &folderUsage{}
		u.folders[id] = f
	}
	return f
}

func (u *Usage) add(i tree.Item) {
	if i.Name != "" {
		f := u.folder(i.Folder)
		f.n++
		f.any += int64(len(i.Name))
		f.ext += (8 + int64(len(i.Name)) + 3) &^ 3
		f.vfat += 1 + (int64(len(i.Name))+12)/13 // a name is kept in pieces of 13 characters
	}
	switch {
	case i.Type == 'd':
		u.Folders++
		u.folder(i.Number) // also when it is empty
	case i.Type == 'f':
		u.Files++
	default:
		u.Others++
	}
	if i.Again {
		return
	}
	u.Inodes++
	allocated := union(i.Data, i.Prealloc)
	u.Bytes += total(i.Data)
	u.largest = max(u.largest, i.Size)
	if i.Type == 'f' {
		u.sizes = append(u.sizes, i.Size)
	}
	for key, e := range u.ext {
		e.add(i, allocated, key.block, key.extents)
	}
	u.apart.add(i, allocated)
}

// union puts two sorted lists of ranges together.
func union(a, b []tree.Range) []tree.Range {
	if len(b) == 0 {
		return a
	}
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(a, b tree.Range) int {
		if a.From < b.From {
			return -1
		}
		return 1
	})
	return all
}

func total(ranges []tree.Range) int64 {
	var n int64
	for _, r := range ranges {
		n += r.To - r.From
	}
	return n
}

// inBlocks rounds ranges to blocks and joins those that touch.
func inBlocks(ranges []tree.Range, block int64) []tree.Range {
	var out []tree.Range
	for _, r := range ranges {
		r = tree.Range{From: r.From / block, To: (r.To + block - 1) / block}
		if n := len(out); n > 0 && r.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, r.To)
		} else {
			out = append(out, r)
		}
	}
	return out
}

const (
	// inInode is what attributes can take of an inode of 256 bytes.
	inInode = 256 - 128 - 32 - 8
	// fastLink is how long the text of a link may be that takes no block.
	fastLink = 59
	// perExtent is the most that one extent can map, in blocks; and a file that is
	// written to a file system that is nearly full lies in more.
	perExtent = 8192
)

func (e *extUsage) add(i tree.Item, allocated []tree.Range, block int64, extents bool) {
	if i.Type == 'l' && i.Target > fastLink {
		e.data++
	}
	if space := xattrSpace(i.Xattrs); space > inInode {
		e.xattrs++
	}
	ranges := i.Data
	if extents {
		ranges = allocated // other maps know nothing that is not written
	}
	blocks := inBlocks(ranges, block)
	e.data += total(blocks)
	if extents {
		e.maps += extentBlocks(blocks, block)
	} else {
		e.maps += indirectBlocks(blocks, block/4)
	}
}

// xattrSpace is what attributes take in an inode of ext.
func xattrSpace(xattrs [][2]string) int64 {
	var n int64
	for _, x := range xattrs {
		n += 16 + (int64(len(x[0]))+3)&^3 + (int64(len(x[1]))+3)&^3
	}
	return n
}

// extentBlocks is how many blocks the tree of extents takes beside the inode, which
// has room for four.
func extentBlocks(blocks []tree.Range, block int64) int64 {
	var extents int64
	for _, r := range blocks {
		extents += (r.To - r.From + perExtent - 1) / perExtent
	}
	if extents <= 4 {
		return 0
	}
	perBlock := (block - 12) / 12 / 2 // they are half full when they came one by one
	var all int64
	for extents > 4 {
		extents = (extents + perBlock - 1) / perBlock
		all += extents
	}
	return all
}

// indirectBlocks is how many blocks of pointers lead to blocks of data: twelve are
// in the inode, then come those through one, two and three blocks of pointers.
func indirectBlocks(blocks []tree.Range, per int64) int64 {
	const direct = 12
	var all int64
	last := [3]int64{-1, -1, -1}
	count := func(level int, index int64, until int64) {
		from := max(index, last[level]+1)
		if until >= from {
			all += until - from + 1
			last[level] = until
		}
	}
	for _, r := range blocks {
		if r.To <= direct {
			continue
		}
		from, to := max(r.From, direct)-direct, r.To-1-direct
		// Leaves are counted through all levels: the first is the one of the inode.
		count(0, from/per, to/per)
		if to >= per {
			from, to := max(from-per, 0), to-per
			count(1, from/(per*per), to/(per*per))
			if to >= per*per {
				count(2, max(from-per*per, 0)/(per*per*per), (to-per*per)/(per*per*per))
			}
		}
	}
	return all
}

// extFolders is how many blocks folders take.
func (u *Usage) extFolders(block int64) int64 {
	all := int64(4) // lost+found is made larger than it need be
	for _, f := range u.folders {
		all += f.extBlocks(block)
	}
	return all
}

// extBlocks is how many blocks a folder takes. One with an index, which is one of
// more than a block, splits a block in two when an entry more would not fit: its
// blocks come to hold any number from half of what they could to all of it, fewer
// of them the fuller they are.
func (f *folderUsage) extBlocks(block int64) int64 {
	const dots, sum = 24, 12 // . and .., and a checksum
	if f.ext+dots+sum <= block {
		return 1
	}
	most := (block - sum) * f.n / f.ext
	var states, weight float64
	for k := max(most/2, 1); k <= most; k++ {
		states++
		weight += 1 / float64(k+1)
	}
	mean := (states - weight) / weight
	leaves := int64(math.Ceil(float64(f.n)/mean*1.03)) + 1
	index := int64(1)
	if perNode := block / 8; leaves > perNode-4 {
		index += leaves*10/(perNode*7) + 1
	}
	return leaves + index
}

// bytes is what the tree takes of a file system of that type.
func (u *Usage) bytes(name string, o filesystem.Options) int64 {
	switch name {
	case filesystem.Ext2, filesystem.Ext3, filesystem.Ext4:
		e := u.ext[extKind{o.BlockSize, name == filesystem.Ext4}]
		if e == nil {
			return 0
		}
		return (e.data + e.maps + e.xattrs + u.extFolders(o.BlockSize)) * o.BlockSize
	case filesystem.XFS:
		return u.xfs()
	case filesystem.Btrfs:
		return u.btrfs()
	}
	return u.Bytes
}

// data is the part of bytes that files take.
func (u *Usage) data(name string, o filesystem.Options) int64 {
	if e := u.ext[extKind{o.BlockSize, name == filesystem.Ext4}]; isExt(name) && e != nil {
		return e.data * o.BlockSize
	}
	return u.Bytes
}

// holdable refuses a tree of which a type can never hold some file.
func (u *Usage) holdable(name string) error {
	if name == filesystem.VFAT && u.largest > 4<<30-1 {
		return upkeep.WithHint(fmt.Errorf("%w: it has a file of %s, and vfat holds none of more than 4G", upkeep.ErrRefused, upkeep.Size(u.largest).About()),
			"choose another type of file system")
	}
	return nil
}

func (p *plainUsage) add(i tree.Item, allocated []tree.Range) {
	blocks := inBlocks(allocated, 4096)
	for _, x := range i.Xattrs {
		p.xattrs += int64(len(x[0])+len(x[1])) + 64
	}
	if i.Type == 'f' && i.Size <= 2048 && len(i.Prealloc) == 0 {
		p.inlined += i.Size
		if i.Size == 0 {
			return
		}
	}
	p.blocks += total(blocks)
	p.extents += int64(len(blocks)) + total(blocks)/perExtent
	if i.Type == 'l' {
		p.inlined += int64(i.Target)
	}
}

// folderBytes is what names take, with as much again for their order.
func (u *Usage) folderBytes(perName int64) int64 {
	var all int64
	for _, f := range u.folders {
		all += f.any + f.n*perName
	}
	return all
}

// xfs makes inodes, of 512 bytes, in chunks of 64 as they are needed, and keeps
// small folders in them.
func (u *Usage) xfs() int64 {
	var folders int64
	for _, f := range u.folders {
		if bytes := f.any + f.n*24; bytes > 300 {
			folders += (bytes*3/2 + 4095) / 4096 * 4096
		}
	}
	inodes := (u.Inodes + 63) / 64 * 64 * 512
	return u.apart.blocks*4096 + inodes*21/20 + folders + u.apart.xattrs*2 + u.apart.extents*64
}

// btrfs keeps two copies of what is not files' data, in trees whose blocks come to
// be two thirds full, and files of up to 2K in those trees.
func (u *Usage) btrfs() int64 {
	meta := u.Inodes*300 + u.folderBytes(160) + u.apart.inlined + u.apart.xattrs + u.apart.extents*(53+25+60)
	meta += u.apart.blocks * 4 * 2 // checksums
	return u.apart.blocks*4096 + 2*meta*3/2
}

// withheld is what a file system does not hand out although its superblock counts
// it as free.
func withheld(name string, size int64, info fsinfo.Info) int64 {
	switch name {
	case filesystem.Ext4:
		// The kernel keeps some for maps that turn out to be needed at the last moment.
		return min(size/50, 4096*info.BlockSize)
	case filesystem.XFS:
		// Each of its four parts keeps room for the trees that say what is used.
		return size/50 + 8<<20
	case filesystem.Btrfs:
		// Room is handed out in pieces of up to a tenth, of files or of the rest; the
		// last piece of each is not full, and some is kept for what is under way.
		return size/8 + 64<<20
	}
	return 0
}
