package btrfs

import (
	"bytes"
	"fmt"

	"upkeep/internal/image/btrfstree"
)

const piece = 128 << 10 // that is read and checked at a time

// read reads content at a logical address, and says how much of it is in order.
func (f *FS) read(b []byte, at uint64, sums bool) (n int, err error) {
	sector := uint64(f.t.SectorSize)
	if at+uint64(len(b)) < at {
		return 0, damaged("content lies at address %d", at)
	}
	buffer := make([]byte, min(piece, up(at%sector+uint64(len(b)), sector)))
	for n < len(b) {
		within := (at + uint64(n)) % sector
		part := buffer[:min(uint64(len(buffer)), up(within+uint64(len(b)-n), sector))]
		good, err := f.sectors(part, at+uint64(n)-within, sums)
		if uint64(good) > within {
			n += copy(b[n:], part[within:good])
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func up(n, to uint64) uint64 { return (n + to - 1) / to * to }

// sectors reads whole sectors, each from the first copy that is in order, and says
// how many bytes those are that it could read.
func (f *FS) sectors(b []byte, at uint64, sums bool) (int, error) {
	places, err := f.t.Places(at, uint64(len(b)))
	if err != nil {
		return 0, err
	}
	if !sums {
		for _, place := range places {
			if err = f.t.ReadPlace(b, place); err == nil {
				return len(b), nil
			}
		}
		return 0, err
	}
	want, err := f.sumsOf(at, len(b)/int(f.t.SectorSize))
	if err != nil {
		return 0, err
	}
	failed := f.t.ReadPlace(b, places[0])
	size := int(f.t.SectorSize)
	for i := 0; i < len(b); i += size {
		if len(want) < f.t.SumSize() {
			return i, damaged("there is no checksum of the content at address %d", at+uint64(i))
		}
		sector, sum := b[i:i+size], want[:f.t.SumSize()]
		good := failed == nil && bytes.Equal(f.t.Sum(sector), sum)
		for _, place := range places {
			if good {
				break
			}
			err := f.t.ReadPlace(sector, place+uint64(i))
			good = err == nil && bytes.Equal(f.t.Sum(sector), sum)
		}
		if !good && failed != nil {
			return i, failed
		}
		if !good {
			return i, damaged("what lies at address %d has another checksum than was written", at+uint64(i))
		}
		want = want[len(sum):]
	}
	return len(b), nil
}

// sumsOf are the checksums of a number of sectors, or of those before the first that
// has none.
func (f *FS) sumsOf(at uint64, count int) (sums []byte, err error) {
	size, sector, next := f.t.SumSize(), uint64(f.t.SectorSize), at
	from := btrfstree.Key{Object: sumObject, Kind: extentSum, Offset: at}
	err = f.t.Walk(f.sums, from, func(key btrfstree.Key, item btrfstree.Fields) (bool, error) {
		if key.Object != sumObject || key.Kind != extentSum {
			return key.Compare(from) < 0, nil
		}
		if key.Offset > next {
			return false, nil
		}
		skip := (next - key.Offset) / sector
		if (next-key.Offset)%sector != 0 {
			return false, fmt.Errorf("checksums: %w", damaged("there are some of address %d", key.Offset))
		}
		if skip < uint64(len(item)/size) {
			have := item[skip*uint64(size) : len(item)/size*size]
			have = have[:min(len(have), count*size-len(sums))]
			sums = append(sums, have...)
			next += uint64(len(have)/size) * sector
		}
		return len(sums) < count*size, nil
	})
	return sums, err
}
