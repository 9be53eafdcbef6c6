package fsinfo

import (
	"bytes"
	"fmt"
)

// xfs is a superblock that was checked, as far as reading depends on it. XFS is
// big-endian, but for its checksums.
type xfs struct {
	image
	super      fields
	sectorSize int64
	XFSGroups
}

const (
	xfsVersion5 = 5
	xfsMinGroup = 16 << 20 // bytes
)

func readXFS(m image) (Info, error) {
	super := make(fields, 512)
	if err := m.read(super, 0); err != nil || !bytes.HasPrefix(super, []byte("XFSB")) {
		return Info{}, err
	}
	info := Info{Type: XFS, Label: super.text(108, 12), UUID: super.uuid(32)}
	x := &xfs{image: m, super: super}
	if err := x.check(); err != nil {
		return info, err
	}
	info.BlockSize, info.Size = x.BlockSize, x.Blocks*x.BlockSize
	icount, ifree, free := super.be64(128), super.be64(136), super.be64(144)
	if free > uint64(x.Blocks) || ifree > icount || icount > uint64(info.Size)/256 {
		return info, damaged("superblock of xfs", "it gives %d blocks of %d and %d inodes of %d as free", free, x.Blocks, ifree, icount)
	}
	info.Free = int64(free) * x.BlockSize
	info.Used = info.Size - info.Free
	info.InodeBytes = int64(icount) * int64(super.be16(104))
	var err error
	info.JournalBytes = int64(super.be32(96)) * x.BlockSize
	if info.State, err = x.state(); err != nil {
		return info, err
	}
	info.Features = x.features()
	// Three inodes are there from the beginning: the root folder, and two for
	// a device for real time.
	info.empty = info.State == Clean && icount-ifree == 3
	return info, nil
}

func (x *xfs) check() error {
	s := x.super
	wrong := func(format string, args ...any) error { return damaged("superblock of xfs", format, args...) }
	blockLog, sectorLog, agLog := s[120], s[121], s[124]
	if blockLog < 9 || blockLog > 16 || s.be32(4) != 1<<blockLog || sectorLog < 9 || sectorLog > 15 || s.be16(102) != 1<<sectorLog {
		return wrong("it gives blocks of %d and sectors of %d bytes", s.be32(4), s.be16(102))
	}
	x.BlockSize, x.sectorSize = 1<<blockLog, 1<<sectorLog
	x.V5 = s.be16(100)&0xf == xfsVersion5
	if x.V5 {
		sector := make(fields, x.sectorSize)
		if err := x.read(sector, 0); err != nil {
			return err
		}
		if err := XFSChecksum(sector, 224); err != nil {
			return wrong("%s", err)
		}
	} else if v := s.be16(100) & 0xf; v != 4 {
		return fmt.Errorf("xfs of version %d: %w", v, ErrUnsupported)
	}
	size, fits := product(s.be64(8), uint64(x.BlockSize))
	x.Blocks, x.GroupBlocks, x.Groups, x.groupBits = size/x.BlockSize, int64(s.be32(84)), int64(s.be32(88)), uint(agLog)
	switch {
	case !fits || x.Blocks == 0:
		return wrong("it gives %d blocks", s.be64(8))
	case x.GroupBlocks*x.BlockSize < xfsMinGroup || x.Groups < 1 || agLog > 31 || x.GroupBlocks > 1<<agLog || x.GroupBlocks <= 1<<agLog/2:
		return wrong("it gives %d groups of %d blocks, and %d bits for those", x.Groups, x.GroupBlocks, agLog)
	case (x.Groups-1)*x.GroupBlocks >= x.Blocks || x.Groups*x.GroupBlocks < x.Blocks:
		return wrong("it gives %d blocks in %d groups of %d", x.Blocks, x.Groups, x.GroupBlocks)
	}
	return nil
}

func (x *xfs) features() []string {
	s := x.super
	list := []string{fmt.Sprintf("v%d", s.be16(100)&0xf)}
	if x.V5 {
		list = named(list, "ro_compat", uint64(s.be32(212)), map[int]string{0: "finobt", 1: "rmapbt", 2: "reflink", 3: "inobtcount"})
		list = named(list, "incompat", uint64(s.be32(216)), map[int]string{0: "ftype", 1: "sparse_inodes", 2: "meta_uuid", 3: "bigtime", 4: "needs_repair",
			5: "nrext64", 6: "exchange", 7: "parent", 8: "metadir"})
	}
	if s.be64(48) == 0 {
		list = append(list, "external_log")
	}
	if s.be64(16) != 0 {
		list = append(list, "realtime")
	}
	return list
}

func (x *xfs) needsRepair() bool { return x.V5 && x.super.be32(216)&0x10 != 0 }

// state looks at the log: it is clean when its last record says that the file
// system was unmounted.
func (x *xfs) state() (string, error) {
	if x.super[126] != 0 || x.needsRepair() { // mkfs, or xfs_repair, was not done
		return Errors, nil
	}
	start, size := x.super.be64(48), int64(x.super.be32(96))*x.BlockSize
	if start == 0 {
		return Uncertain, nil
	}
	at, exists := x.Offset(start)
	if !exists || size > x.Blocks*x.BlockSize-at || size < 512 {
		return "", damaged("superblock of xfs", "it gives a log of %d bytes at block %d", size, start)
	}
	if at > x.size-size {
		return Uncertain, nil // the image was cut off before it
	}
	clean, err := (&xfsLog{image: x.image, start: at, blocks: size / xfsLogBlock}).clean()
	switch {
	case err != nil:
		return "", fmt.Errorf("the log of xfs: %w", err)
	case clean:
		return Clean, nil
	}
	return Journal, nil
}
