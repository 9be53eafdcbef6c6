package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"

	"upkeep"
)

// The manifest is a skippable frame between the frames of the image and the seek
// table: a mark, the version, the length of a JSON document, the document, the
// extents as pairs of varints (blocks left out, blocks with data), a SHA-256 for
// each frame that has data, and one over all this and the table.
const (
	manifestMagic   = 0x184D2A5D
	manifestMark    = "upkeepim"
	manifestVersion = 1

	block     = 4096 // unit of extents
	minChunk  = 64 << 10
	maxChunk  = 16 << 20
	zeroChunk = 1 << 30 // the most that one frame of zeros stands for

	// maxTables bounds what is read of a packed file before anything of it is
	// believed.
	maxTables = 256 << 20
)

// A Range is a piece of an image, in bytes.
type Range struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// End is the first byte behind the range.
func (r Range) End() int64 { return r.Offset + r.Length }

// Facts are what was known of the file system in an image when it was packed. An
// image with none, or with partitions, has no type.
type Facts struct {
	Type      string `json:"type,omitempty"`
	Label     string `json:"label,omitempty"`
	UUID      string `json:"uuid,omitempty"`
	BlockSize int64  `json:"block_size,omitempty"`
	Size      int64  `json:"size,omitempty"`
	State     string `json:"state,omitempty"`
}

// Manifest says what a packed file holds.
type Manifest struct {
	Size  int64            `json:"size"`
	Kind  upkeep.ImageKind `json:"kind"`
	Chunk int64            `json:"chunk"`
	// Dropped is how many bytes of free blocks were left out: they come back as
	// zeros.
	Dropped int64 `json:"dropped"`
	Facts   Facts `json:"file_system"`

	// Data are the ranges that hold anything but zeros, in blocks of 4 KiB.
	Data []Range `json:"-"`
	// Sums has a SHA-256 of each frame that has data, in their order.
	Sums [][sha256.Size]byte `json:"-"`
}

// DataSize is how many bytes of the image are not zeros, to the block.
func (m *Manifest) DataSize() int64 {
	var n int64
	for _, r := range m.Data {
		n += r.Length
	}
	return n
}

// encode is the frame of the manifest. The table has the frames before it.
func (m *Manifest) encode(table SeekTable) ([]byte, error) {
	document, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("writing the manifest: %w", err)
	}
	b := []byte(manifestMark)
	b = binary.LittleEndian.AppendUint32(b, manifestVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(document)))
	b = append(b, document...)
	b = binary.AppendUvarint(b, uint64(len(m.Data)))
	var at int64
	for _, r := range m.Data {
		b = binary.AppendUvarint(b, uint64((r.Offset-at)/block))
		b = binary.AppendUvarint(b, uint64((r.Length+block-1)/block))
		at = r.End()
	}
	for _, sum := range m.Sums {
		b = append(b, sum[:]...)
	}
	sum := manifestSum(b, table)
	b = append(b, sum[:]...)
	if len(b) > maxTables {
		return nil, fmt.Errorf("%w: the image has its data in %d pieces, more than a packed file can list", upkeep.ErrRefused, len(m.Data))
	}
	return skippable(manifestMagic, b), nil
}

func manifestSum(b []byte, table SeekTable) [sha256.Size]byte {
	h := sha256.New()
	h.Write(b)
	h.Write(table.Encode())
	return [sha256.Size]byte(h.Sum(nil))
}

// errNoManifest is a seekable file that another program made.
var errNoManifest = errors.New("it has no manifest of upkeep's")

// decodeManifest reads a manifest and holds it against the table of the frames
// before it: what it returns is consistent, whoever wrote it.
func decodeManifest(frame []byte, table SeekTable) (*Manifest, error) {
	b, err := unwrap(manifestMagic, frame)
	if err != nil {
		return nil, err
	}
	const fixed = len(manifestMark) + 8
	if len(b) < fixed+sha256.Size || string(b[:len(manifestMark)]) != manifestMark {
		return nil, errNoManifest
	}
	if version := binary.LittleEndian.Uint32(b[len(manifestMark):]); version != manifestVersion {
		return nil, fmt.Errorf("it was packed by another version of upkeep (format %d, this one knows %d); zstd -d restores it", version, manifestVersion)
	}
	b, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if want := manifestSum(b, table); !bytes.Equal(sum, want[:]) {
		return nil, errors.New("its manifest is damaged: its SHA-256 is another")
	}
	length := int64(binary.LittleEndian.Uint32(b[fixed-4:]))
	if length > int64(len(b)-fixed) {
		return nil, fmt.Errorf("its manifest ends within its document of %d bytes", length)
	}
	m := new(Manifest)
	if err := json.Unmarshal(b[fixed:int64(fixed)+length], m); err != nil {
		return nil, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	rest, err := m.decodeExtents(b[int64(fixed)+length:])
	if err != nil {
		return nil, err
	}
	frames, err := m.checkFrames(table)
	if err != nil {
		return nil, err
	}
	if len(rest) != frames*sha256.Size {
		return nil, fmt.Errorf("its manifest has %d bytes of hashes for %d frames", len(rest), frames)
	}
	m.Sums = make([][sha256.Size]byte, frames)
	for i := range m.Sums {
		copy(m.Sums[i][:], rest[i*sha256.Size:])
	}
	return m, nil
}

func (m *Manifest) check() error {
	switch {
	case m.Size < 0 || m.Dropped < 0 || m.Dropped > m.Size:
		return fmt.Errorf("its manifest has an impossible size of %d with %d bytes left out", m.Size, m.Dropped)
	case m.Kind != upkeep.ImageSparse && m.Kind != upkeep.ImageFull:
		return fmt.Errorf("its manifest has the kind %q", m.Kind)
	case m.Chunk < minChunk || m.Chunk > maxChunk || bits.OnesCount64(uint64(m.Chunk)) != 1:
		return fmt.Errorf("its manifest has chunks of %d bytes; want a power of two from %s to %s", m.Chunk, upkeep.Size(minChunk), upkeep.Size(maxChunk))
	}
	return nil
}

// decodeExtents reads the ranges, in order and apart from each other by their
// encoding, and returns what follows them.
func (m *Manifest) decodeExtents(b []byte) ([]byte, error) {
	next := func() (int64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<51 {
			return 0, false
		}
		b = b[n:]
		return int64(v), true
	}
	count, ok := next()
	if !ok || count > int64(len(b)/2) {
		return nil, errors.New("its manifest lists more extents than it has bytes for")
	}
	blocks := (m.Size + block - 1) / block
	m.Data = make([]Range, 0, count)
	var at int64
	for i := range count {
		gap, ok1 := next()
		length, ok2 := next()
		if !ok1 || !ok2 || length == 0 || gap == 0 && i > 0 || at+gap+length > blocks {
			return nil, fmt.Errorf("extent %d of its manifest is not within the image, or overlaps the one before", i)
		}
		r := Range{Offset: (at + gap) * block, Length: length * block}
		r.Length = min(r.Length, m.Size-r.Offset)
		m.Data = append(m.Data, r)
		at += gap + length
	}
	return b, nil
}

// checkFrames holds the frames against what the manifest says, and counts those
// with data.
func (m *Manifest) checkFrames(table SeekTable) (int, error) {
	var end int64
	data, extent := 0, 0
	for i, f := range table {
		end = f.Offset + int64(f.Size)
		for extent < len(m.Data) && m.Data[extent].End() <= f.Offset {
			extent++
		}
		hasData := extent < len(m.Data) && m.Data[extent].Offset < end
		switch {
		case f.Size == 0 || f.Offset%m.Chunk != 0:
			return 0, fmt.Errorf("frame %d of %d bytes at %d is not at a chunk's place", i, f.Size, f.Offset)
		case hasData && (int64(f.Size) > m.Chunk || int64(f.PackedSize) > maxPacked(int64(f.Size))):
			return 0, fmt.Errorf("frame %d of %d bytes, packed into %d, is larger than a chunk", i, f.Size, f.PackedSize)
		case !hasData && int64(f.PackedSize) != zeroFrameSize(f.Size):
			return 0, fmt.Errorf("frame %d should have zeros only, and has %d bytes packed", i, f.PackedSize)
		}
		if hasData {
			data++
		}
	}
	if end != m.Size {
		return 0, fmt.Errorf("its frames have %d bytes and its image %d", end, m.Size)
	}
	return data, nil
}

// maxPacked is the most that zstd makes of a chunk that cannot be packed.
func maxPacked(size int64) int64 { return size + size/128 + 1024 }

// chunkFor is the size of the pieces of an image that can be read alone: small,
// unless that made too many of them.
func chunkFor(size int64) int64 {
	chunk := int64(1 << 20)
	for chunk < maxChunk && size/chunk > 1<<20 {
		chunk *= 2
	}
	return chunk
}
