// Package partition reads partition tables of images, MBR and GPT, moves the ends of
// partitions, and gives copies of disks identifiers of their own.
package partition

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Kinds of tables.
const (
	MBR = "mbr"
	GPT = "gpt"
)

// A Table is the partition table of an image.
type Table struct {
	Kind string `json:"kind"`
	// ID is the disk's: a UUID for GPT, eight hexadecimal digits for MBR.
	ID         string      `json:"id,omitempty"`
	SectorSize int64       `json:"sector_size"`
	Partitions []Partition `json:"partitions"` // by number
	// Problems are what does not keep the table from being used and wants to be
	// known: one copy of a GPT that is damaged, an MBR beside it that is not empty.
	Problems []string `json:"problems,omitempty"`

	size   int64 // of the image
	hybrid bool
	gpt    *gptHeader // the copy that is used
	array  []byte     // its entries
	chain  []link     // to the logical partitions of an MBR
}

// A Partition is a piece of an image.
type Partition struct {
	Number int   `json:"number"`
	Offset int64 `json:"offset"` // in bytes
	Length int64 `json:"length"`
	// Type is a UUID for GPT, two hexadecimal digits for MBR.
	Type string `json:"type"`
	Name string `json:"name,omitempty"`
	UUID string `json:"uuid,omitempty"`
	Boot bool   `json:"boot,omitempty"` // marked as the one to start from
	// Container is true for the partition of an MBR that holds the logical ones.
	Container bool `json:"container,omitempty"`
}

// End is the first byte behind the partition.
func (p Partition) End() int64 { return p.Offset + p.Length }

// ErrNone is wrapped by errors about images that have no partition table.
var ErrNone = errors.New("the image has no partition table")

// ErrDamaged is wrapped by errors about tables that cannot be as they say.
var ErrDamaged = errors.New("the partition table is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrDamaged)
}

// Read reads the partition table of an image of size bytes. A table of which the
// image does not hold all partitions is an error, and returned all the same.
func Read(r io.ReaderAt, size int64) (Table, error) {
	t := Table{size: size, SectorSize: 512}
	sector := make([]byte, 512)
	if size < 512 {
		return t, ErrNone
	}
	if err := readFull(r, sector, 0); err != nil {
		return t, err
	}
	entries, is := mbrEntries(sector)
	protective := slices.ContainsFunc(entries, func(e mbrEntry) bool { return e.kind == typeProtective })
	if !protective {
		if hasGPT, err := anyGPT(r, size); err != nil || hasGPT && !is {
			return t, cmp.Or(err, damaged("there is a GPT, and the MBR that must stand before it is missing"))
		}
		if !is {
			return t, ErrNone
		}
		return readMBR(r, t, sector, entries)
	}
	t.hybrid = len(entries) > 1
	t, err := readGPT(r, t)
	if t.hybrid {
		t.Problems = append(t.Problems, "the MBR beside the GPT has partitions of its own (a hybrid)")
	}
	return t, err
}

// Partition is the partition with a number, as people give it.
func (t Table) Partition(number int) (Partition, error) {
	i := slices.IndexFunc(t.Partitions, func(p Partition) bool { return p.Number == number })
	switch {
	case i < 0:
		return Partition{}, fmt.Errorf("there is no partition %d; the image has %s", number, t.numbers())
	case t.Partitions[i].Container:
		return Partition{}, fmt.Errorf("partition %d only holds the logical partitions; the image has %s", number, t.numbers())
	case t.Partitions[i].End() > t.size:
		return Partition{}, damaged("partition %d ends at %d, and the image has %d bytes", number, t.Partitions[i].End(), t.size)
	}
	return t.Partitions[i], nil
}

// numbers lists the partitions that hold something.
func (t Table) numbers() string {
	text := ""
	for _, p := range t.Partitions {
		if p.Container {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += fmt.Sprint(p.Number)
	}
	return cmp.Or(text, "none")
}

// check refuses partitions that lie over each other or outside of the image.
func (t Table) check() error {
	byOffset := slices.Clone(t.Partitions)
	byOffset = slices.DeleteFunc(byOffset, func(p Partition) bool { return p.Container })
	slices.SortFunc(byOffset, func(a, b Partition) int { return cmp.Compare(a.Offset, b.Offset) })
	for i, p := range byOffset {
		if i > 0 && p.Offset < byOffset[i-1].End() {
			return damaged("partitions %d and %d lie over each other", byOffset[i-1].Number, p.Number)
		}
	}
	for _, p := range t.Partitions {
		if p.End() > t.size {
			return damaged("partition %d ends at %d, and the image has %d bytes: it was cut off", p.Number, p.End(), t.size)
		}
	}
	return nil
}

// File is an image that is open for writing, such as an *os.File.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// alignment is where partitions begin and end: what all disks and hosts like.
const alignment = 1 << 20

// movable is a partition, if its end can be moved.
func (t Table) movable(number int) (Partition, error) {
	p, err := t.Partition(number)
	if err != nil {
		return p, err
	}
	if t.hybrid {
		return p, errors.New("moving the end of a partition: the MBR beside the GPT has partitions of its own (a hybrid); make it a plain protective one first (sgdisk -N)")
	}
	return p, nil
}

// next is where the first thing behind a partition begins: another partition, or what
// says where the next logical one is. It is false where nothing is behind it.
func (t Table) next(p Partition) (at int64, is bool) {
	add := func(offset int64) {
		if offset > p.Offset && (!is || offset < at) {
			at, is = offset, true
		}
	}
	for _, other := range t.Partitions {
		add(other.Offset)
	}
	for _, l := range t.chain {
		add(l.sector * 512)
	}
	return at, is
}

// IsLast reports whether nothing lies behind a partition: it ends where the image does.
func (t Table) IsLast(number int) bool {
	p, err := t.Partition(number)
	_, followed := t.next(p)
	return err == nil && !followed
}

// Room is how long a partition can be in an image of size bytes, up to what lies behind
// it; 0 or less where it cannot be in one.
func (t Table) Room(number int, size int64) (int64, error) {
	p, err := t.movable(number)
	if err != nil {
		return 0, err
	}
	end := t.end(size)
	if next, is := t.next(p); is {
		end = min(end, next-next%alignment)
	}
	return end - p.Offset, nil
}

// end is where partitions can end at most in an image of size bytes.
func (t Table) end(size int64) int64 {
	size -= t.tail()
	size -= size % alignment
	if t.Kind == MBR && size > maxMBRSectors*t.SectorSize {
		size = maxMBRSectors * t.SectorSize / alignment * alignment
	}
	return size
}

// tail is how much of the end of an image the table takes.
func (t Table) tail() int64 {
	if t.Kind == GPT {
		return (1 + t.arraySectors()) * t.SectorSize
	}
	return 0
}

// Around is the size of the least image in which a partition is as long as asked for
// or, to the next boundary, a little longer; and how long it is then. An image in which
// something lies behind it stays as it is.
func (t Table) Around(number int, length int64) (size, partition int64, err error) {
	p, err := t.movable(number)
	if err != nil {
		return 0, 0, err
	}
	up := func(n int64) int64 { return (n + alignment - 1) / alignment * alignment }
	end := up(p.Offset + length)
	if _, is := t.next(p); is {
		return t.size, end - p.Offset, nil
	}
	return up(end + t.tail()), end - p.Offset, nil
}

// Resize gives a partition a length, and moves the copy of a GPT to where an image of
// size bytes ends. The image has bytes: one that becomes larger is made so before, and
// one that becomes smaller is cut afterwards, and what the copy is written over must not
// matter then. Whenever it is interrupted while no partition becomes shorter, the table
// that is read next is the old one or the new one, and doing it again brings it to its end.
func Resize(f File, bytes, size int64, number int, length int64) (Partition, error) {
	t, err := Read(f, bytes)
	if err != nil {
		return Partition{}, err
	}
	room, err := t.Room(number, size)
	if err != nil {
		return Partition{}, err
	}
	p, err := t.Partition(number)
	if err != nil {
		return p, err
	}
	if size > bytes || length < 1 || length > max(room, p.Length) || p.Offset+length > size-t.tail() || length%t.SectorSize != 0 {
		return p, fmt.Errorf("giving partition %d, which has %d bytes, %d: in an image of %d bytes it can have %d", number, p.Length, length, size, room)
	}
	if behind := t.behind(size, number); behind != 0 {
		return p, fmt.Errorf("giving partition %d %d bytes: an image of %d bytes has no room for partition %d", number, length, size, behind)
	}
	p.Length, t.size = length, size
	if t.Kind == GPT {
		return p, t.growGPT(f, p)
	}
	return p, t.growMBR(f, p)
}

// behind is the number of a partition, other than one, that ends behind the place that
// an image of size bytes has for partitions; 0 when there is none.
func (t Table) behind(size int64, number int) int {
	for _, p := range t.Partitions {
		if p.Number != number && !p.Container && p.End() > size-t.tail() {
			return p.Number
		}
	}
	return 0
}

// readFull fills p; an image that ends too early is damaged.
func readFull(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading the partition table at %d: %w", offset, err)
}

func le32(p []byte, at int) uint32 { return binary.LittleEndian.Uint32(p[at:]) }
func le64(p []byte, at int) uint64 { return binary.LittleEndian.Uint64(p[at:]) }
