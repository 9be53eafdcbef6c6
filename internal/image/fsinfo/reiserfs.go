package fsinfo

import (
	"bytes"
	"errors"
	"io"
)

// reiser is a superblock of ReiserFS 3 that was checked, as far as reading
// depends on it.
type reiser struct {
	image
	super     fields
	at        int64 // of the superblock
	blockSize int64
	blocks    int64
	bitmaps   int64
	spread    bool // bitmaps lie where the blocks are that they tell of
	v36       bool
}

// readReiserFS looks where the superblock is, and then where the first versions
// had it.
func readReiserFS(m image) (Info, error) {
	for _, at := range []int64{64 << 10, 8 << 10} {
		super := make(fields, 512)
		err := m.read(super, at)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			continue
		}
		if err != nil {
			return Info{}, err
		}
		if bytes.HasPrefix(super[52:], []byte("ReIsErFs")) || bytes.HasPrefix(super[52:], []byte("ReIsEr2Fs")) || bytes.HasPrefix(super[52:], []byte("ReIsEr3Fs")) {
			return describeReiserFS(&reiser{image: m, super: super, at: at, spread: at == 64<<10})
		}
	}
	return Info{}, nil
}

func describeReiserFS(f *reiser) (Info, error) {
	s := f.super
	info := Info{Type: ReiserFS}
	f.v36 = s.u16(72) == 2 && !bytes.HasPrefix(s[52:], []byte("ReIsErFs"))
	info.Features = []string{"3.5"}
	if f.v36 {
		info.Features = []string{"3.6"}
		info.UUID, info.Label = s.uuid(84), s.text(100, 16)
	}
	if err := f.check(); err != nil {
		return info, err
	}
	free := int64(s.u32(4))
	if free > f.blocks {
		return info, damaged("superblock of reiserfs", "it gives %d blocks of %d as free", free, f.blocks)
	}
	info.BlockSize, info.Size = f.blockSize, f.blocks*f.blockSize
	info.Free = free * f.blockSize
	info.Used = info.Size - info.Free
	journal := int64(s.u32(20))
	if s.u32(16) != 0 || bytes.HasPrefix(s[52:], []byte("ReIsEr3Fs")) {
		info.Features = append(info.Features, "own_journal")
	}
	if s.u32(16) == 0 && journal < f.blocks {
		info.JournalBytes = (journal + 1) * f.blockSize
	}
	var err error
	if info.State, err = f.state(); err != nil {
		return info, err
	}
	info.empty = info.State == Clean && f.empty()
	return info, nil
}

func (f *reiser) check() error {
	s := f.super
	f.blockSize, f.blocks, f.bitmaps = int64(s.u16(44)), int64(s.u32(0)), int64(s.u16(70))
	needed := (f.blocks + 8*f.blockSize - 1) / max(1, 8*f.blockSize)
	switch {
	case f.blockSize < 512 || !powerOfTwo(uint64(f.blockSize)):
		return damaged("superblock of reiserfs", "it gives blocks of %d bytes", f.blockSize)
	case f.blocks*f.blockSize <= f.at:
		return damaged("superblock of reiserfs", "it gives %d blocks", f.blocks)
	case needed != f.bitmaps && (needed <= 0xffff || f.bitmaps != 0): // more than the field holds
		return damaged("superblock of reiserfs", "it gives %d bitmaps for %d blocks", f.bitmaps, f.blocks)
	}
	f.bitmaps = needed
	return nil
}

// state says whether the file system was unmounted, and if not, whether the
// journal has something to be carried out.
func (f *reiser) state() (string, error) {
	const unmounted = 1
	switch {
	case f.super.u16(62) != 0:
		return Errors, nil
	case f.super.u16(50) == unmounted:
		return Clean, nil
	case f.super.u32(16) != 0:
		return Uncertain, nil
	}
	first, size := int64(f.super.u32(12)), int64(f.super.u32(20))
	if first+size >= f.blocks || size < 2 {
		return "", damaged("superblock of reiserfs", "it gives a journal of %d blocks at block %d", size, first)
	}
	header := make(fields, 12)
	if err := f.read(header, (first+size)*f.blockSize); err != nil {
		return "", err
	}
	flushed, next := header.u32(0), int64(header.u32(4))
	if next >= size {
		return "", damaged("journal of reiserfs", "it goes on at block %d of %d", next, size)
	}
	description := make(fields, f.blockSize)
	if err := f.read(description, (first+next)*f.blockSize); err != nil {
		return "", err
	}
	if string(description[f.blockSize-12:f.blockSize-4]) == "ReIsErLB" && (flushed == 0 || description.u32(0) == flushed+1) {
		return Journal, nil
	}
	return Unclean, nil
}

// empty reports that the only numbers of objects that are in use are those of the
// root folder and of its parent, which does not exist.
func (f *reiser) empty() bool {
	at := 76
	if f.v36 {
		at = 204
	}
	// The map has pairs: the first number in use, the first after it that is not.
	return f.super.u16(48) == 2 && f.super.u32(at) == 1 && f.super.u32(at+4) == 3
}
