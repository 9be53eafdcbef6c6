package fsinfo

import (
	"bytes"
	"fmt"
)

func usedOfReiserFS(m image) ([]Extent, error) {
	for _, at := range []int64{64 << 10, 8 << 10} {
		super := make(fields, 512)
		if err := m.read(super, at); err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(super[52:], []byte("ReIsEr")) {
			continue
		}
		f := &reiser{image: m, super: super, at: at, spread: at == 64<<10}
		if err := f.check(); err != nil {
			return nil, err
		}
		return f.used()
	}
	return nil, damaged("reiserfs", "there is no superblock")
}

func (f *reiser) used() ([]Extent, error) {
	var used extents
	perBitmap, free := 8*f.blockSize, int64(0)
	bitmap := make([]byte, f.blockSize)
	for i := range f.bitmaps {
		block := f.at/f.blockSize + 1 + i
		if f.spread && i > 0 {
			block = i * perBitmap
		}
		if err := f.read(bitmap, block*f.blockSize); err != nil {
			return nil, fmt.Errorf("bitmap %d of reiserfs: %w", i, err)
		}
		count := min(perBitmap, f.blocks-i*perBitmap)
		free += used.addBits(bitmap, count, i*perBitmap*f.blockSize, f.blockSize)
		if within := block - i*perBitmap; f.spread && bitmap[within/8]>>(within%8)&1 == 0 {
			return nil, damaged("reiserfs", "bitmap %d has its own block as free", i)
		}
	}
	if counted := int64(f.super.u32(4)); counted != free {
		return nil, damaged("reiserfs", "its bitmaps have %d free blocks and its superblock %d", free, counted)
	}
	return used, nil
}

func usedOfVFAT(m image) ([]Extent, error) {
	boot := make(fields, 512)
	if err := m.read(boot, 0); err != nil {
		return nil, err
	}
	v := &vfat{image: m, boot: boot}
	if !v.recognise() {
		return nil, damaged("vfat", "its boot sector is not one")
	}
	if err := v.sameTables(); err != nil {
		return nil, err
	}
	var used extents
	used.add(0, v.dataAt)
	err := v.entries(func(cluster int64, next uint32) {
		if cluster >= 2 && next != 0 {
			used.add(v.dataAt+(cluster-2)*v.cluster, v.cluster)
		}
	})
	if err != nil {
		return nil, err
	}
	end := v.dataAt + v.clusters*v.cluster
	used.add(end, v.size-end)
	return used, nil
}

// sameTables compares the allocation tables: one that was overwritten would
// otherwise have all as free.
func (v *vfat) sameTables() error {
	a, b := make(fields, 64<<10), make(fields, 64<<10)
	for at := int64(0); at < v.fatSize; at += int64(len(a)) {
		n := min(int64(len(a)), v.fatSize-at)
		if err := v.read(a[:n], v.fatAt+at); err != nil {
			return err
		}
		if at == 0 && a[0] != v.boot[21] {
			return damaged("vfat", "its allocation table does not begin as one does")
		}
		if v.fats == 1 {
			return nil
		}
		if err := v.read(b[:n], v.fatAt+v.fatSize+at); err != nil {
			return err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return damaged("vfat", "its two allocation tables differ")
		}
	}
	return nil
}
