package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sort"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// ErrNotPacked is a file that upkeep did not pack. Other programs' zstd files,
// and those of xz and gzip, are unpacked as streams.
var ErrNotPacked = errors.New("not a packed image")

// tailSize is what is read of a packed file at first: with most images it has the
// table and the manifest.
const tailSize = 64 << 10

// An Image is a packed image that can be read anywhere, without unpacking it. It
// may be used from several goroutines.
type Image struct {
	Manifest *Manifest

	from   io.ReaderAt
	table  SeekTable
	sums   []int32 // for each frame the index of its hash, or -1 for zeros
	decode chan *zstd.Decoder

	mu    sync.Mutex
	cache map[int][]byte // decoded frames by index
	age   []int          // the same, the oldest first
}

// cached is how many chunks are kept, for readers of small pieces such as those
// of file systems.
const cached = 16

// Open reads the tables of a packed file of a size. An error that is
// [ErrNotPacked] means a file of another kind; other errors mean damage.
func Open(from io.ReaderAt, size int64) (*Image, error) {
	table, manifest, err := readTables(from, size)
	if err != nil {
		return nil, err
	}
	p := &Image{Manifest: manifest, from: from, table: table, cache: make(map[int][]byte)}
	p.sums = make([]int32, len(table))
	data, n := manifest.Data, int32(0)
	for i, f := range table {
		p.sums[i] = -1
		if data = after(data, f.Offset); len(data) > 0 && data[0].Offset < f.Offset+int64(f.Size) {
			p.sums[i] = n
			n++
		}
	}
	p.decode = make(chan *zstd.Decoder, runtime.GOMAXPROCS(0))
	return p, nil
}

// after leaves out the ranges that end at or before an offset.
func after(ranges []Range, offset int64) []Range {
	return ranges[sort.Search(len(ranges), func(i int) bool { return ranges[i].End() > offset }):]
}

func readTables(from io.ReaderAt, size int64) (SeekTable, *Manifest, error) {
	tail, err := readTail(from, size, min(size, tailSize))
	if err != nil {
		return nil, nil, err
	}
	if len(tail) < footerSize || binary.LittleEndian.Uint32(tail[len(tail)-4:]) != seekableMagic {
		return nil, nil, notPacked(from)
	}
	count := int64(binary.LittleEndian.Uint32(tail[len(tail)-footerSize:]))
	want := headerSize + count*(entrySize+checksumSize) + footerSize
	if want > maxTables {
		return nil, nil, fmt.Errorf("its table has %d frames, more than any image that upkeep packs", count)
	}
	if tail, err = longer(tail, from, size, want); err != nil {
		return nil, nil, err
	}
	table, err := DecodeSeekTable(tail, size-int64(len(tail)))
	if err != nil {
		return nil, nil, err
	}
	if len(table) == 0 || table[len(table)-1].Size != 0 {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotPacked, errNoManifest)
	}
	last := table[len(table)-1]
	table = table[:len(table)-1]
	if last.PackedSize > maxTables+headerSize {
		return nil, nil, fmt.Errorf("its manifest has %d bytes, more than any that upkeep writes", last.PackedSize)
	}
	if tail, err = longer(tail, from, size, size-last.PackedOffset); err != nil {
		return nil, nil, err
	}
	frame := tail[int64(len(tail))-(size-last.PackedOffset):][:last.PackedSize]
	manifest, err := decodeManifest(frame, table)
	if errors.Is(err, errNoManifest) {
		err = fmt.Errorf("%w: %w", ErrNotPacked, err)
	}
	return table, manifest, err
}

// notPacked says what is wrong with a file that does not end as a packed one.
func notPacked(from io.ReaderAt) error {
	start := make([]byte, 4)
	n, _ := from.ReadAt(start, 0)
	if format := streamFormat(start[:n]); format != Raw {
		return fmt.Errorf("%w: %s without the table that upkeep puts at its end, or cut off before it", ErrNotPacked, format.File())
	}
	return fmt.Errorf("%w: it neither starts nor ends as one", ErrNotPacked)
}

// longer is a tail of at least want bytes.
func longer(tail []byte, from io.ReaderAt, size, want int64) ([]byte, error) {
	want = min(want, size)
	if int64(len(tail)) >= want {
		return tail, nil
	}
	more, err := readTail(from, size-int64(len(tail)), want-int64(len(tail)))
	if err != nil {
		return nil, err
	}
	return append(more, tail...), nil
}

// readTail reads n bytes before an offset. They are asked for piece by piece, so
// that what is allocated has been there.
func readTail(from io.ReaderAt, end, n int64) ([]byte, error) {
	const step = 8 << 20
	var b []byte
	for at := end - n; at < end; {
		part := make([]byte, min(step, end-at))
		if _, err := from.ReadAt(part, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading its tables: %w", err)
		}
		b = append(b, part...)
		at += int64(len(part))
	}
	return b, nil
}

// Size is the size of the image, unpacked.
func (p *Image) Size() int64 { return p.Manifest.Size }

// ReadAt reads of the image. Chunks that were read last are kept.
func (p *Image) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("reading at the negative offset %d", offset)
	}
	done := 0
	for done < len(b) {
		i, ok := p.table.Find(offset + int64(done))
		if !ok {
			return done, io.EOF
		}
		f := p.table[i]
		within := offset + int64(done) - f.Offset
		if p.sums[i] < 0 {
			n := min(int64(len(b)-done), int64(f.Size)-within)
			clear(b[done : done+int(n)])
			done += int(n)
			continue
		}
		chunk, err := p.chunk(i)
		if err != nil {
			return done, err
		}
		done += copy(b[done:], chunk[within:])
	}
	return done, nil
}

// chunk is a frame's content, from the cache or unpacked.
func (p *Image) chunk(i int) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if chunk, ok := p.cache[i]; ok {
		return chunk, nil
	}
	f := p.table[i]
	packed := make([]byte, f.PackedSize)
	if err := readFull(p.from, packed, f.PackedOffset); err != nil {
		return nil, err
	}
	chunk, err := p.unpack(i, packed, nil)
	if err != nil {
		return nil, err
	}
	if len(p.age) == cached {
		delete(p.cache, p.age[0])
		p.age = p.age[1:]
	}
	p.cache[i] = chunk
	p.age = append(p.age, i)
	return chunk, nil
}

func readFull(from io.ReaderAt, b []byte, offset int64) error {
	n, err := from.ReadAt(b, offset)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading at %d: %w", offset, err)
}

// unpack unpacks a frame with data into a buffer, which is grown to the frame's
// size and no further, and holds it against its hash.
func (p *Image) unpack(i int, packed, buffer []byte) ([]byte, error) {
	f := p.table[i]
	if uint32(cap(buffer)) < f.Size {
		buffer = make([]byte, 0, f.Size)
	}
	decoder, err := p.decoder()
	if err != nil {
		return nil, err
	}
	chunk, err := decoder.DecodeAll(packed, buffer[:0:f.Size])
	select {
	case p.decode <- decoder:
	default:
		decoder.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the frame at %d, for %d bytes at %d of the image: %w", errDamaged, f.PackedOffset, f.Size, f.Offset, err)
	}
	if uint32(len(chunk)) != f.Size || sha256.Sum256(chunk) != p.Manifest.Sums[p.sums[i]] {
		return nil, fmt.Errorf("%w: the %d bytes at %d of the image have another SHA-256 than its manifest says", errDamaged, f.Size, f.Offset)
	}
	return chunk, nil
}

var errDamaged = errors.New("the packed image is damaged")

// decoder is one that is not in use. It writes no more than it is given room for.
func (p *Image) decoder() (*zstd.Decoder, error) {
	select {
	case d := <-p.decode:
		return d, nil
	default:
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(maxChunk))
	}
}
