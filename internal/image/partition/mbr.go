package partition

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

const (
	typeProtective = 0xEE
	maxMBRSectors  = 1<<32 - 1
	maxLogical     = 256 // more than any system numbers
)

// mbrEntry is one of the four in an MBR, or one of the two in a link of the chain
// to logical partitions.
type mbrEntry struct {
	slot         int
	boot         bool
	kind         byte
	start, count int64 // sectors
}

func (e mbrEntry) extended() bool { return e.kind == 0x05 || e.kind == 0x0F || e.kind == 0x85 }

// mbrEntries are the entries of a sector that are in use, and false where it is
// not a sector of a table.
func mbrEntries(sector []byte) ([]mbrEntry, bool) {
	if sector[510] != 0x55 || sector[511] != 0xAA {
		return nil, false
	}
	var entries []mbrEntry
	for slot := range 4 {
		raw := sector[446+16*slot:][:16]
		e := mbrEntry{slot: slot, boot: raw[0] == 0x80, kind: raw[4], start: int64(le32(raw, 8)), count: int64(le32(raw, 12))}
		if raw[0]&0x7f != 0 {
			return nil, false // code of a boot sector
		}
		if e.kind != 0 && e.count != 0 {
			entries = append(entries, e)
		}
	}
	return entries, len(entries) > 0
}

// link is an element of the chain to logical partitions: one of them, and where
// the next element is.
type link struct {
	sector  int64
	logical mbrEntry
	next    *mbrEntry
}

func readMBR(r io.ReaderAt, t Table, sector []byte, entries []mbrEntry) (Table, error) {
	t.Kind, t.ID = MBR, fmt.Sprintf("%08x", le32(sector, 440))
	var container *mbrEntry
	for i, e := range entries {
		if e.start == 0 {
			return t, ErrNone // a boot sector that happens to look like a table
		}
		p := partitionOf(e, e.slot+1, e.start)
		if e.extended() {
			if container != nil {
				return t, damaged("it has two partitions for logical ones")
			}
			container, p.Container = &entries[i], true
		}
		t.Partitions = append(t.Partitions, p)
	}
	if container != nil {
		if err := t.readChain(r, *container); err != nil {
			return t, err
		}
	}
	for i := range t.Partitions {
		t.Partitions[i].UUID = fmt.Sprintf("%s-%02x", t.ID, t.Partitions[i].Number)
	}
	if err := t.check(); err != nil {
		return t, err
	}
	for _, p := range t.Partitions {
		if container != nil && p.Number <= 4 && !p.Container && p.Offset < (container.start+container.count)*512 && p.End() > container.start*512 {
			return t, damaged("partition %d lies in the one for logical ones", p.Number)
		}
	}
	return t, nil
}

func partitionOf(e mbrEntry, number int, start int64) Partition {
	return Partition{Number: number, Offset: start * 512, Length: e.count * 512, Type: fmt.Sprintf("%02x", e.kind), Boot: e.boot}
}

// readChain follows the chain of logical partitions, which only goes forward.
func (t *Table) readChain(r io.ReaderAt, container mbrEntry) error {
	end := container.start + container.count
	for at := container.start; ; {
		if len(t.chain) == maxLogical {
			return damaged("it has more than %d logical partitions", maxLogical)
		}
		sector := make([]byte, 512)
		if err := readFull(r, sector, at*512); err != nil {
			return damaged("the chain of logical partitions: %v", err)
		}
		entries, _ := mbrEntries(sector)
		l := link{sector: at}
		for i, e := range entries {
			switch {
			case e.extended() && l.next == nil:
				l.next = &entries[i]
			case !e.extended() && l.logical.kind == 0:
				l.logical = e
			default:
				return damaged("the chain of logical partitions branches at sector %d", at)
			}
		}
		if l.logical.kind != 0 {
			start := at + l.logical.start
			if l.logical.start == 0 || start+l.logical.count > end {
				return damaged("logical partition %d lies outside of the partition for it", 5+len(t.Partitions))
			}
			number := 5 + len(t.chain)
			t.Partitions = append(t.Partitions, partitionOf(l.logical, number, start))
		} else if len(entries) > 0 || at != container.start {
			return damaged("the chain of logical partitions has an empty element at sector %d", at)
		}
		t.chain = append(t.chain, l)
		if l.next == nil {
			return nil
		}
		next := container.start + l.next.start
		if next <= at || next >= end {
			return damaged("the chain of logical partitions goes from sector %d to %d", at, next)
		}
		at = next
	}
}

// growMBR writes one sector after the other; each leaves a table that is in order.
// The partition for logical ones grows before what is in it.
func (t Table) growMBR(f File, grown Partition) error {
	slot := grown.Number - 1
	if grown.Number > 4 {
		i := slices.IndexFunc(t.Partitions, func(p Partition) bool { return p.Container })
		container := t.Partitions[i]
		slot = container.Number - 1
		end := min(max(grown.End(), container.End()), t.size/512*512)
		if err := setCount(f, 0, slot, container.Offset/512, (end-container.Offset)/512); err != nil {
			return err
		}
		i = grown.Number - 5
		sector := t.chain[i].sector
		if i > 0 { // the element before says how far this one reaches
			before := t.chain[i-1]
			if err := setCount(f, before.sector, before.next.slot, sector, grown.End()/512-sector); err != nil {
				return err
			}
		}
		return setCount(f, sector, t.chain[i].logical.slot, grown.Offset/512, grown.Length/512)
	}
	return setCount(f, 0, slot, grown.Offset/512, grown.Length/512)
}

// setCount changes how many sectors an entry has; first is where it begins on the
// disk. A sector is written at once.
func setCount(f File, at int64, slot int, first, count int64) error {
	sector := make([]byte, 512)
	if err := readFull(f, sector, at*512); err != nil {
		return err
	}
	raw := sector[446+16*slot:][:16]
	if int64(le32(raw, 12)) == count {
		return nil
	}
	binary.LittleEndian.PutUint32(raw[12:], uint32(count))
	copy(raw[5:8], cylinders(first+count-1))
	if _, err := f.WriteAt(sector, at*512); err != nil {
		return fmt.Errorf("writing the partition table at %d: %w", at*512, err)
	}
	return f.Sync()
}

// cylinders is a sector's address as disks had it once, with 255 heads and 63
// sectors; what has none gets the highest one.
func cylinders(sector int64) []byte {
	const heads, sectors = 255, 63
	c, h, s := sector/(heads*sectors), sector/sectors%heads, sector%sectors+1
	if c > 1023 {
		return []byte{0xFE, 0xFF, 0xFF}
	}
	return []byte{byte(h), byte(s) | byte(c>>8<<6), byte(c)}
}
