package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

const (
	gptSignature  = "EFI PART"
	gptHeaderSize = 92
	maxGPTArray   = 1 << 20 // 8192 entries; others have 128
)

// gptHeader is one of the two headers of a GPT.
type gptHeader struct {
	raw                       []byte // its sector
	here, other               int64  // where it and its copy are, in sectors
	firstUsable, lastUsable   int64
	arrayAt                   int64
	entries, entrySize, bytes int64
}

// anyGPT reports the signature of a GPT where one begins.
func anyGPT(r io.ReaderAt, size int64) (bool, error) {
	mark := make([]byte, 8)
	for _, at := range []int64{512, 4096} {
		if size < at+512 {
			break
		}
		if err := readFull(r, mark, at); err != nil {
			return false, err
		}
		if string(mark) == gptSignature {
			return true, nil
		}
	}
	return false, nil
}

// CopyLeft reports the header of a GPT at the end of an image, which may be all that is
// left of one.
func CopyLeft(r io.ReaderAt, size int64) (bool, error) {
	mark := make([]byte, 8)
	for _, sector := range []int64{512, 4096} {
		if size < 2*sector || size%sector != 0 {
			continue
		}
		if err := readFull(r, mark, size-sector); err != nil {
			return false, err
		}
		if string(mark) == gptSignature {
			return true, nil
		}
	}
	return false, nil
}

// readGPT reads the first copy, or the second one, at the end of the image, where
// that is damaged.
func readGPT(r io.ReaderAt, t Table) (Table, error) {
	t.Kind = GPT
	var found *Table
	var wrong error
	for _, size := range []int64{512, 4096} {
		c := t
		c.SectorSize = size
		err := c.readCopy(r, 1)
		if err == nil {
			found = &c
			break
		}
		if wrong == nil || size == 4096 && !errors.Is(err, errNoHeader) {
			wrong = err
		}
	}
	if found == nil {
		for _, size := range []int64{512, 4096} {
			c := t
			c.SectorSize = size
			if t.size%size == 0 && c.readCopy(r, t.size/size-1) == nil {
				c.Problems = append(c.Problems, fmt.Sprintf("the first copy of the GPT is not used: %v", wrong))
				return c, c.check()
			}
		}
		return t, wrong
	}
	t = *found
	backup := Table{SectorSize: t.SectorSize, size: t.size}
	if err := backup.readCopy(r, t.gpt.other); err != nil {
		t.Problems = append(t.Problems, fmt.Sprintf("the second copy of the GPT: %v", err))
	} else if !bytes.Equal(backup.array, t.array) || backup.ID != t.ID {
		t.Problems = append(t.Problems, "the two copies of the GPT differ")
	}
	return t, t.check()
}

// errNoHeader is wrapped where there is no header of a GPT at all.
var errNoHeader = errors.New("no header of a GPT")

// readCopy reads the copy whose header is in a sector.
func (t *Table) readCopy(r io.ReaderAt, at int64) error {
	sectors := t.size / t.SectorSize
	if at < 1 || at >= sectors {
		return damaged("its header is said to be in sector %d of %d", at, sectors)
	}
	raw := make([]byte, t.SectorSize)
	if err := readFull(r, raw, at*t.SectorSize); err != nil {
		return err
	}
	if string(raw[:8]) != gptSignature {
		return fmt.Errorf("sector %d: %w: %w", at, errNoHeader, ErrDamaged)
	}
	size := le32(raw, 12)
	if size < gptHeaderSize || int64(size) > t.SectorSize {
		return damaged("the header in sector %d has %d bytes", at, size)
	}
	h, err := parseHeader(raw, size, at, sectors, t.SectorSize)
	if err != nil {
		return err
	}
	array := make([]byte, h.bytes) // at most maxGPTArray
	if err := readFull(r, array, h.arrayAt*t.SectorSize); err != nil {
		return err
	}
	if sum := crc32.ChecksumIEEE(array); sum != le32(raw, 88) {
		return damaged("the partitions of the GPT have checksum %08x and should have %08x", sum, le32(raw, 88))
	}
	t.gpt, t.array, t.ID, t.Partitions = h, array, guid(raw[56:72]), nil
	return t.readArray()
}

func parseHeader(raw []byte, size uint32, at, sectors, sectorSize int64) (*gptHeader, error) {
	zeroed := bytes.Clone(raw[:size])
	clear(zeroed[16:20])
	if sum := crc32.ChecksumIEEE(zeroed); sum != le32(raw, 16) {
		return nil, damaged("the header in sector %d has checksum %08x and should have %08x", at, le32(raw, 16), sum)
	}
	h := &gptHeader{raw: raw, entries: int64(le32(raw, 80)), entrySize: int64(le32(raw, 84))}
	h.bytes = h.entries * h.entrySize
	if h.entrySize < 128 || h.entrySize > 4096 || h.entrySize&(h.entrySize-1) != 0 || h.entries < 1 || h.bytes > maxGPTArray {
		return nil, damaged("the GPT has %d entries of %d bytes", h.entries, h.entrySize)
	}
	for _, field := range []struct {
		to *int64
		at int
	}{{&h.here, 24}, {&h.other, 32}, {&h.firstUsable, 40}, {&h.lastUsable, 48}, {&h.arrayAt, 72}} {
		n := le64(raw, field.at)
		if n >= 1<<62/uint64(sectorSize) {
			return nil, damaged("the header in sector %d names sector %d", at, n)
		}
		*field.to = int64(n)
	}
	arrayEnd := h.arrayAt + (h.bytes+sectorSize-1)/sectorSize
	if h.here != at || h.other == at || h.arrayAt < 2 || arrayEnd > sectors || h.firstUsable < 2 || h.firstUsable > h.lastUsable+1 ||
		h.arrayAt <= h.lastUsable && arrayEnd > h.firstUsable {
		return nil, damaged("the header in sector %d: its copy is in %d, partitions may lie from %d to %d, and their list is at %d",
			h.here, h.other, h.firstUsable, h.lastUsable, h.arrayAt)
	}
	return h, nil
}

func (t *Table) readArray() error {
	for i := range t.gpt.entries {
		entry := t.array[i*t.gpt.entrySize:][:t.gpt.entrySize]
		if [16]byte(entry[:16]) == ([16]byte{}) {
			continue
		}
		first, last := le64(entry, 32), le64(entry, 40)
		if first < uint64(t.gpt.firstUsable) || last < first || last > uint64(t.gpt.lastUsable) {
			return damaged("partition %d is said to lie from sector %d to %d; those for partitions are %d to %d", i+1, first, last, t.gpt.firstUsable, t.gpt.lastUsable)
		}
		t.Partitions = append(t.Partitions, Partition{
			Number: int(i) + 1, Offset: int64(first) * t.SectorSize, Length: int64(last-first+1) * t.SectorSize,
			Type: guid(entry[:16]), UUID: guid(entry[16:32]), Name: name(entry[56:128]), Boot: entry[48]&4 != 0,
		})
	}
	return nil
}

// name is text of 36 characters; what cannot be printed is shown as a question
// mark.
func name(raw []byte) string {
	var units []uint16
	for ; len(raw) > 1; raw = raw[2:] {
		u := binary.LittleEndian.Uint16(raw)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	runes := utf16.Decode(units)
	for i, r := range runes {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd || r >= 0x2028 && r <= 0x202e {
			runes[i] = '?'
		}
	}
	return string(runes)
}

// guid is the usual form of a UUID of which the first half is little-endian.
func guid(raw []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le32(raw, 0), binary.LittleEndian.Uint16(raw[4:]), binary.LittleEndian.Uint16(raw[6:]), raw[8:10], raw[10:16])
}

// AtEnd reports whether the table needs no change in an image that is as long as this
// one: of a GPT the second copy is said to be at its end; an MBR does not say where that is.
func (t Table) AtEnd() bool {
	end := t.size/t.SectorSize - 1
	return t.Kind != GPT || t.gpt.here == end || t.gpt.other == end
}

// ToEnd moves the second copy of a GPT to where an image of size bytes ends, which it is
// large already, and leaves the partitions as they are. Whenever it is interrupted, one
// copy is in order, and doing it again brings it to its end.
func ToEnd(f File, size int64) error {
	t, err := Read(f, size)
	if err != nil || t.AtEnd() {
		return err
	}
	if behind := t.behind(size, 0); behind != 0 {
		return fmt.Errorf("moving the second copy of the GPT: an image of %d bytes has no room for it behind partition %d", size, behind)
	}
	return t.writeGPT(f, t.array)
}

// arraySectors is how many sectors the list of partitions takes.
func (t Table) arraySectors() int64 { return (t.gpt.bytes + t.SectorSize - 1) / t.SectorSize }

// growGPT gives a partition its length, in both copies.
func (t Table) growGPT(f File, grown Partition) error {
	array := bytes.Clone(t.array)
	entry := array[int64(grown.Number-1)*t.gpt.entrySize:]
	binary.LittleEndian.PutUint64(entry[40:], uint64(grown.End()/t.SectorSize-1))
	return t.writeGPT(f, array)
}

// writeGPT writes the copy at the end first: from then on there is one that is in order
// at any time. Then it writes the first one, whose header lies in one page with its
// first partitions, and at last wipes the copy that was. Where the copy at the end is
// the only one in order, it is the other way round.
func (t Table) writeGPT(f File, array []byte) error {
	end := t.size/t.SectorSize - 1
	backupArray := end - t.arraySectors()
	padded := make([]byte, t.arraySectors()*t.SectorSize)
	copy(padded, array)
	last := func() error {
		backup := t.header(end, 1, backupArray, backupArray-1, array)
		return put(f, append(bytes.Clone(padded), backup...), backupArray*t.SectorSize)
	}
	first := func() error {
		return t.writeFirst(f, padded, end, t.header(1, end, t.firstArray(), backupArray-1, array))
	}
	if t.gpt.here == end {
		first, last = last, first
	}
	if err := last(); err != nil {
		return err
	}
	if err := first(); err != nil {
		return err
	}
	return t.wipeOld(f, end, backupArray)
}

// firstArray is where the list of the first copy is to be.
func (t Table) firstArray() int64 {
	if t.gpt.here == 1 {
		return t.gpt.arrayAt
	}
	return 2
}

// writeFirst writes the first copy, and before it the MBR that protects it.
func (t Table) writeFirst(f File, array []byte, end int64, header []byte) error {
	start := make([]byte, 2*t.SectorSize)
	if err := readFull(f, start, 0); err != nil {
		return err
	}
	if !t.hybrid {
		protect(start, end+1)
	}
	copy(start[t.SectorSize:], header)
	if t.firstArray() == 2 {
		return put(f, append(start, array...), 0)
	}
	if err := put(f, array, t.firstArray()*t.SectorSize); err != nil {
		return err
	}
	return put(f, start, 0)
}

// wipeOld makes the old copy unreadable. It lies behind all partitions that were.
func (t Table) wipeOld(f File, end, backupArray int64) error {
	old := t.gpt.other
	if t.gpt.here != 1 || old <= t.gpt.lastUsable || old >= backupArray || old == end {
		return nil
	}
	mark := make([]byte, 8)
	if err := readFull(f, mark, old*t.SectorSize); err != nil || string(mark) != gptSignature {
		return err
	}
	return put(f, make([]byte, t.SectorSize), old*t.SectorSize)
}

// header is the header for a place, with its checksums.
func (t Table) header(here, other, arrayAt, lastUsable int64, array []byte) []byte {
	raw := bytes.Clone(t.gpt.raw)
	for at, n := range map[int]int64{24: here, 32: other, 48: lastUsable, 72: arrayAt} {
		binary.LittleEndian.PutUint64(raw[at:], uint64(n))
	}
	binary.LittleEndian.PutUint32(raw[88:], crc32.ChecksumIEEE(array))
	clear(raw[16:20])
	binary.LittleEndian.PutUint32(raw[16:], crc32.ChecksumIEEE(raw[:le32(raw, 12)]))
	return raw
}

// protect has the MBR's only partition cover the whole disk, as far as it can.
func protect(mbr []byte, sectors int64) {
	for slot := range 4 {
		raw := mbr[446+16*slot:][:16]
		if raw[4] != typeProtective {
			continue
		}
		count := min(sectors-int64(le32(raw, 8)), maxMBRSectors)
		binary.LittleEndian.PutUint32(raw[12:], uint32(count))
		copy(raw[5:8], cylinders(int64(le32(raw, 8))+count-1))
	}
}

func put(f File, p []byte, at int64) error {
	if _, err := f.WriteAt(p, at); err != nil {
		return fmt.Errorf("writing the partition table at %d: %w", at, err)
	}
	return f.Sync()
}
