package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"upkeep"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/partition"
	"upkeep/internal/image/shadow"
)

// Description is all that can be said of an image by looking at it.
type Description struct {
	File string `json:"file"`
	// Target is what File leads to, where it is a symbolic link.
	Target    string           `json:"target,omitempty"`
	Size      upkeep.Size      `json:"size"`
	Allocated upkeep.Size      `json:"allocated"`
	Kind      upkeep.ImageKind `json:"kind"`
	// FS is the file system, if there is one that is known here.
	FS *fsinfo.Info `json:"fs,omitempty"`
	// Format is how the file holds an image, where it is none itself, and Inside what
	// upkeep packed.
	Format pack.Format    `json:"format,omitempty"`
	Inside *pack.Manifest `json:"inside,omitempty"`
	// Cut is how many bytes of the file system the file has lost.
	Cut     upkeep.Size   `json:"cut,omitempty"`
	Holders []hold.Holder `json:"holders"`
	// Unseen is how many processes could not be asked whether they use it.
	Unseen int `json:"unseen,omitempty"`
	// Unfinished says what a killed command left.
	Unfinished string `json:"unfinished,omitempty"`
	// Damage says why nothing more is known.
	Damage string `json:"damage,omitempty"`
	// Lost is the Damage that a copy of the superblock undoes.
	Lost *fsinfo.LostError `json:"lost,omitempty"`
	// Partition is the partition that FS, Cut, Damage and Parts are about, also where the
	// image is packed, though without Parts; 0 means the whole image.
	Partition int `json:"partition,omitempty"`
	// Table is the partition table, where the image has one, also where it is packed.
	Table *Table `json:"table,omitempty"`
	Parts *Parts `json:"parts,omitempty"`
}

// Info looks at an image. It takes no hold of it and refuses nothing that is a file:
// what is used by others, damaged or cut is described too.
func Info(path string) (Description, error) { return InfoOf(path, 0) }

// InfoOf is Info with the file system that is in a partition.
func InfoOf(path string, partition int) (Description, error) {
	d, file, err := opened(path)
	if err != nil {
		return d, err
	}
	defer file.Close()
	piece, err := d.outline(file, partition)
	if err != nil {
		return d, err
	}
	found, err := hold.Holders(file)
	if err != nil {
		return d, err
	}
	d.Holders, d.Unseen = found.Holders, found.Unseen
	if d.FS != nil && d.Inside == nil {
		if d.Parts, err = weigh(file, piece, *d.FS); err != nil {
			return d, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	return d, nil
}

// Outline is InfoOf without what takes long: who uses the image, for which every process
// is looked at, and its Parts, for which pieces of it are packed.
func Outline(path string, partition int) (Description, error) {
	d, file, err := opened(path)
	if err != nil {
		return d, err
	}
	defer file.Close()
	_, err = d.outline(file, partition)
	return d, err
}

// opened opens an image to be looked at, and begins its description.
func opened(path string) (Description, *os.File, error) {
	real, err := realPath(path)
	if err != nil {
		return Description{}, nil, err
	}
	file, err := hold.OpenReal(real, false)
	if err != nil {
		return Description{}, nil, err
	}
	d := Description{File: path, Unfinished: unfinishedText(real)}
	if abs, err := filepath.Abs(path); err == nil && abs != real && real != path {
		d.Target = real
	}
	return d, file, nil
}

// outline describes the file, and returns where in it the file system is.
func (d *Description) outline(file *os.File, number int) (piece partition.Partition, err error) {
	stat, err := file.Stat()
	if err != nil {
		return piece, fmt.Errorf("looking at %s: %w", d.File, err)
	}
	taken, err := allocated(file)
	if err != nil {
		return piece, err
	}
	d.Size, d.Allocated = upkeep.Size(stat.Size()), upkeep.Size(taken)
	if d.Kind, err = shadow.KindOf(file); err != nil {
		return piece, err
	}
	piece, err = d.look(file, int64(d.Size), number)
	if d.FS == nil && d.Table == nil && d.Damage == "" && (err == nil || errors.Is(err, partition.ErrNone)) {
		err = d.unpacked(file, number, err)
	}
	if err != nil {
		return piece, fmt.Errorf("reading %s: %w", d.File, err)
	}
	return piece, nil
}

// unpacked describes a file that holds an image packed, and the partition with a number of
// that. Where it holds none the error stays that there is no such partition.
func (d *Description) unpacked(file *os.File, number int, none error) error {
	format, err := pack.FormatOf(file, int64(d.Size))
	if err == nil && format == pack.Packed {
		err, none = d.inside(file, number), nil
	}
	switch {
	case err != nil && number != 0:
		return err
	case err != nil:
		d.Damage = err.Error()
	case format == pack.Raw:
	case format != pack.Packed && number != 0:
		return upkeep.WithHint(fmt.Errorf("%w: it is %s, which cannot be read in the middle", upkeep.ErrRefused, format.File()), "upkeep image unpack "+d.File+" OUT.img")
	default:
		d.Format = format
	}
	return none
}

// inside describes an image that upkeep packed, or a partition of it.
func (d *Description) inside(file *os.File, number int) error {
	image, err := pack.Open(file, int64(d.Size))
	if err != nil {
		return err
	}
	d.Inside = image.Manifest
	if number != 0 {
		_, err := d.look(image, image.Size(), number)
		return err
	}
	if d.Inside.Facts.Type != "" {
		return nil
	}
	_, err = d.table(image, image.Size())
	if errors.Is(err, partition.ErrNone) || errors.Is(err, partition.ErrDamaged) { // which is told as a problem
		return nil
	}
	return err
}

func unfinishedText(path string) string {
	if err := unfinished(path); err != nil {
		return strings.TrimPrefix(err.Error(), upkeep.ErrConflict.Error()+": ") // with which nobody asks for anything here
	}
	return ""
}
