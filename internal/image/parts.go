package image

import (
	"errors"
	"io"
	"os"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/partition"
)

// Table is the partition table of an image.
type Table struct {
	Kind       string       `json:"kind"`
	ID         string       `json:"id"`
	Problems   []string     `json:"problems,omitempty"`
	Partitions []*Partition `json:"partitions"`
}

// Partition is a partition with what is in it.
type Partition struct {
	partition.Partition
	FS     *fsinfo.Info `json:"fs,omitempty"`
	Damage string       `json:"damage,omitempty"`
	// Lost is the Damage that a copy of the superblock undoes.
	Lost *fsinfo.LostError `json:"lost,omitempty"`
}

// Parts says why an image is as large as it is, in bytes. Files, journal and inodes
// are counted as the file system does it, whether it wrote to all of them or not.
type Parts struct {
	Files   upkeep.Size `json:"files"` // and folders, and maps of them
	Journal upkeep.Size `json:"journal"`
	Inodes  upkeep.Size `json:"inodes"`
	// Deleted is allocated and not used: remnants of deleted files, and of what mkfs wrote
	// for a time. Trim gives it back.
	Deleted upkeep.Size `json:"deleted"`
	// Packed is about how large the image would be when it is packed.
	Packed upkeep.Size `json:"packed"`
}

// look describes what an image holds, or one partition of it, and returns where that is.
func (d *Description) look(r io.ReaderAt, size int64, number int) (partition.Partition, error) {
	piece := partition.Partition{Length: size}
	table, err := d.table(r, size)
	if err != nil && !errors.Is(err, partition.ErrDamaged) && !errors.Is(err, partition.ErrNone) {
		return piece, err
	}
	if number == 0 && d.Table != nil {
		return piece, nil
	}
	if number != 0 {
		if err != nil {
			return piece, err
		}
		if piece, err = table.Partition(number); err != nil {
			return piece, err
		}
		d.Partition = number
	}
	info, err := readFS(io.NewSectionReader(r, piece.Offset, piece.Length), piece.Length)
	switch {
	case errors.Is(err, fsinfo.ErrDamaged):
		errors.As(err, &d.Lost)
		d.Damage, err = err.Error(), nil
	case err != nil:
		return piece, err
	case info.Type != fsinfo.None:
		d.FS = &info
		d.Cut = upkeep.Size(max(info.Size-piece.Length, 0))
	}
	return piece, err
}

// table describes the partitions that an image has, if any.
func (d *Description) table(r io.ReaderAt, size int64) (partition.Table, error) {
	table, err := partition.Read(r, size)
	if err != nil && !errors.Is(err, partition.ErrDamaged) {
		return table, err
	}
	d.Table = describe(r, table)
	if err != nil {
		d.Table.Problems = append(d.Table.Problems, err.Error())
	}
	return table, err
}

// describe looks into each partition.
func describe(r io.ReaderAt, table partition.Table) *Table {
	t := &Table{Kind: table.Kind, ID: table.ID, Problems: table.Problems, Partitions: []*Partition{}}
	for _, p := range table.Partitions {
		d := &Partition{Partition: p}
		t.Partitions = append(t.Partitions, d)
		if p.Container {
			continue
		}
		info, err := readFS(io.NewSectionReader(r, p.Offset, p.Length), p.Length)
		if err != nil {
			errors.As(err, &d.Lost)
			d.Damage = err.Error()
		} else if info.Type != fsinfo.None {
			d.FS = &info
		}
	}
	return t
}

// weigh says why a file system is as large as it is.
func weigh(file *os.File, piece partition.Partition, info fsinfo.Info) (*Parts, error) {
	end := piece.Offset + min(info.Size, piece.Length)
	p := &Parts{Journal: upkeep.Size(info.JournalBytes), Inodes: upkeep.Size(info.InodeBytes)}
	var ranges []pack.Range // all, where it is not known what is used
	used, err := fsinfo.Used(io.NewSectionReader(file, piece.Offset, piece.Length), info)
	if err == nil {
		deleted, at := int64(0), piece.Offset
		for _, e := range used {
			ranges = append(ranges, pack.Range{Offset: piece.Offset + e.Offset, Length: e.Length})
			deleted += allocation.Data(file, at, piece.Offset+e.Offset)
			at = piece.Offset + e.End()
		}
		p.Deleted = upkeep.Size(deleted + allocation.Data(file, min(at, end), end))
	} else {
		ranges = []pack.Range{{Offset: piece.Offset, Length: end - piece.Offset}}
	}
	p.Files = max(0, upkeep.Size(info.Used)-p.Journal-p.Inodes)
	packed, err := pack.Estimate(file, ranges)
	p.Packed = upkeep.Size(packed)
	return p, err
}
