// Package pack is the format of packed images: seekable zstd, which plain
// `zstd -d` restores, with a manifest that says what was packed and what each
// piece of it must be. Free blocks of a file system can be left out.
//
// The image is cut into chunks. Each that holds anything is a zstd frame of its
// own; those that hold nothing are runs of zeros in a few bytes. Behind them
// stand the manifest and the table of contrib/seekable_format, in frames that
// zstd passes over.
package pack

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"
)

// The numbers are those of zstd's contrib/seekable_format.
const (
	skippableMagic = 0x184D2A5E
	seekableMagic  = 0x8F92EAB1
	headerSize     = 8
	footerSize     = 9
	entrySize      = 8
	checksumSize   = 4
	checksumFlag   = 1 << 7
	reservedBits   = 0x7c
	maxFrames      = 0x8000000
	maxFrame       = 0x40000000
)

// A Frame says where a piece of an image lies, packed and unpacked.
type Frame struct {
	PackedOffset, Offset int64
	PackedSize, Size     uint32
}

// A SeekTable has the frames of a packed file, in their order, without gaps.
type SeekTable []Frame

// Add appends the frame that follows the last one.
func (t *SeekTable) Add(packed, size uint32) error {
	if packed == 0 || size > maxFrame {
		return fmt.Errorf("frame %d has %d bytes packed and %d unpacked; a frame has at least 1 and at most %d",
			len(*t), packed, size, maxFrame)
	}
	if len(*t) == maxFrames {
		return fmt.Errorf("a packed file has at most %d frames", maxFrames)
	}
	f := Frame{PackedSize: packed, Size: size}
	if n := len(*t); n > 0 {
		last := (*t)[n-1]
		f.PackedOffset = last.PackedOffset + int64(last.PackedSize)
		f.Offset = last.Offset + int64(last.Size)
	}
	*t = append(*t, f)
	return nil
}

// Find is the index of the frame with the byte at offset of the image; false
// when the image has no such byte.
func (t SeekTable) Find(offset int64) (int, bool) {
	i := sort.Search(len(t), func(i int) bool { return t[i].Offset+int64(t[i].Size) > offset })
	return i, offset >= 0 && i < len(t)
}

// Encode is the skippable frame that ends a packed file.
func (t SeekTable) Encode() []byte {
	size := len(t)*entrySize + footerSize
	b := make([]byte, 0, headerSize+size)
	b = binary.LittleEndian.AppendUint32(b, skippableMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	for _, f := range t {
		b = binary.LittleEndian.AppendUint32(b, f.PackedSize)
		b = binary.LittleEndian.AppendUint32(b, f.Size)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t)))
	b = append(b, 0)
	return binary.LittleEndian.AppendUint32(b, seekableMagic)
}

// DecodeSeekTable reads the table from the end of a file's last bytes. before is
// how many bytes of the file come ahead of tail: the frames have to fill exactly
// what is ahead of the table, so that a table cannot point outside the file.
func DecodeSeekTable(tail []byte, before int64) (SeekTable, error) {
	if len(tail) < headerSize+footerSize {
		return nil, fmt.Errorf("seek table: %d bytes are too few for one", len(tail))
	}
	footer := tail[len(tail)-footerSize:]
	if magic := binary.LittleEndian.Uint32(footer[5:]); magic != seekableMagic {
		return nil, fmt.Errorf("seek table: the file does not end with one (%#x): it is truncated or no seekable zstd", magic)
	}
	if footer[4]&reservedBits != 0 {
		return nil, fmt.Errorf("seek table: reserved bits are set (%#x)", footer[4])
	}
	entry := int64(entrySize)
	if footer[4]&checksumFlag != 0 {
		entry += checksumSize
	}
	// Sizes are compared before anything is allocated: the count is not trusted.
	count := int64(binary.LittleEndian.Uint32(footer))
	size := count*entry + footerSize
	start := int64(len(tail)) - headerSize - size
	if count > maxFrames || size > math.MaxUint32 || start < 0 {
		return nil, fmt.Errorf("seek table: %d frames do not fit into %d bytes", count, len(tail))
	}
	table := tail[start:]
	if binary.LittleEndian.Uint32(table) != skippableMagic || int64(binary.LittleEndian.Uint32(table[4:])) != size {
		return nil, fmt.Errorf("seek table: its header does not fit its %d frames", count)
	}
	frames := make(SeekTable, 0, count)
	var packed int64
	for i := range count {
		e := table[headerSize+i*entry:]
		if err := frames.Add(binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:])); err != nil {
			return nil, fmt.Errorf("seek table: %w", err)
		}
		packed += int64(frames[i].PackedSize)
	}
	if packed != before+start {
		return nil, fmt.Errorf("seek table: its frames have %d bytes, the file has %d ahead of it", packed, before+start)
	}
	return frames, nil
}
