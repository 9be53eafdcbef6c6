package image

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/partition"
)

// boot is what is kept of an image's start, whatever its file system says: boot
// loaders are there.
const boot = 64 << 10

// used are the ranges to pack: nil for all, with the reason.
func (p *packing) used() (used []pack.Range, why string, err error) {
	switch {
	case p.All:
		return nil, "free blocks too, as asked for", nil
	case p.damage != nil:
		return nil, p.damage.Error(), nil
	case p.info.Type == fsinfo.None && p.part.Number == 0:
		used, why = usedOfDisk(p.file, p.size)
		return used, why, nil
	case p.info.Type == fsinfo.None:
		return nil, "it holds no file system that is known here", nil
	}
	used, why = usedOf(p.section(), p.part.Length, p.info)
	return used, why, nil
}

// usedOf are the ranges that a file system uses of size bytes, its start, and what lies
// behind it.
func usedOf(r io.ReaderAt, size int64, info fsinfo.Info) (used []pack.Range, why string) {
	if info.Size > size {
		return nil, fmt.Sprintf("its %s was cut off", info.Type)
	}
	if info.State == fsinfo.Journal {
		return nil, fmt.Sprintf("changes wait in the journal of its %s, and which blocks are free is known after them; %s", info.Type, carriesOut(info.Type))
	}
	extents, err := fsinfo.Used(r, info)
	if err != nil {
		return nil, err.Error()
	}
	at := min(boot, size)
	used = []pack.Range{{Offset: 0, Length: at}}
	for _, e := range append(extents, fsinfo.Extent{Offset: info.Size, Length: size - info.Size}) {
		if from := max(e.Offset, at); e.End() > from {
			used = append(used, pack.Range{Offset: from, Length: e.End() - from})
			at = e.End()
		}
	}
	return used, ""
}

// usedOfDisk are the ranges in use of an image with partitions: what their file systems
// use, and all that lies between them, where boot loaders are. Of a partition of which
// that is not known it is all.
func usedOfDisk(file *os.File, size int64) (used []pack.Range, why string) {
	table, err := partition.Read(file, size)
	if err != nil || len(table.Partitions) == 0 {
		return nil, "it holds no file system that is known here"
	}
	parts := slices.DeleteFunc(slices.Clone(table.Partitions), func(p partition.Partition) bool { return p.Container })
	slices.SortFunc(parts, func(a, b partition.Partition) int { return cmp.Compare(a.Offset, b.Offset) })
	at, known := int64(0), false
	add := func(from, to int64) {
		if n := len(used); n > 0 && used[n-1].End() == from {
			used[n-1].Length += to - from
		} else if to > from {
			used = append(used, pack.Range{Offset: from, Length: to - from})
		}
	}
	for _, p := range parts { // they lie apart, or the table would have been refused
		add(at, p.Offset)
		at = p.End()
		r := io.NewSectionReader(file, p.Offset, p.Length)
		info, err := fsinfo.Read(r, p.Length)
		if err != nil || info.Type == fsinfo.None {
			add(p.Offset, p.End())
			continue
		}
		in, unknown := usedOf(r, p.Length, info)
		if unknown != "" {
			add(p.Offset, p.End())
			continue
		}
		known = true
		for _, u := range in {
			add(p.Offset+u.Offset, p.Offset+u.End())
		}
	}
	add(at, size)
	if !known {
		return nil, "of none of its partitions it is known what is used"
	}
	return used, ""
}

func sum(ranges []pack.Range) int64 {
	n := int64(0)
	for _, r := range ranges {
		n += r.Length
	}
	return n
}
