package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"upkeep/internal/image/allocation"
)

// piece is a chunk of an image with what may not be zeros in it, or a run of whole
// chunks without anything.
type piece struct {
	offset, size int64
	read         []Range // what has to be looked at
	dropped      int64   // of it, what is allocated and was left out as free

	done   chan struct{} // closed when what follows is set
	err    error
	packed []byte // nil when all is zeros
	sum    [sha256.Size]byte
	data   []Range

	buffer *buffer
}

type buffer struct{ raw, packed []byte }

// spare keeps buffers of pieces that were written for those that come.
type spare struct {
	chunk int
	pool  sync.Pool
}

func (s *spare) get() *buffer {
	if b, ok := s.pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{raw: make([]byte, s.chunk), packed: make([]byte, 0, maxPacked(int64(s.chunk)))}
}

func (s *spare) put(p *piece) {
	if p.buffer != nil {
		s.pool.Put(p.buffer)
		p.buffer, p.packed = nil, nil
	}
}

// plan cuts the image into pieces, in order. Holes are not read: their chunks come
// as one piece, however long.
func (p *packer) plan(ctx context.Context, order, jobs chan<- *piece) error {
	m := p.manifest
	used := p.options.Used
	if used == nil {
		used = []Range{{0, m.Size}}
	}
	send := func(next *piece) error {
		next.done = make(chan struct{})
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case order <- next:
		}
		if next.read == nil {
			close(next.done)
			return nil
		}
		jobs <- next // its workers never stop before it is closed
		return nil
	}
	cut := &cutter{size: m.Size, chunk: m.Chunk, send: send}
	for at := int64(0); at < m.Size; {
		from, to, err := allocation.NextData(int(p.image.Fd()), at, m.Size)
		if err != nil {
			return fmt.Errorf("looking for its data: %w", err)
		}
		for len(used) > 0 && used[0].End() <= from {
			used = used[1:]
		}
		at = to
		for from < to {
			next := to
			if len(used) > 0 {
				next = min(to, max(from, used[0].Offset))
			}
			cut.dropped += next - from
			if from = next; from == to {
				break
			}
			end := min(to, used[0].End())
			if err := cut.data(from, end); err != nil {
				return err
			}
			if from = end; from == used[0].End() {
				used = used[1:]
			}
		}
	}
	return cut.end()
}

// cutter collects ranges that hold data into pieces.
type cutter struct {
	size, chunk int64
	send        func(*piece) error
	at          int64 // what was sent ends here
	read        []Range
	dropped     int64
}

func (c *cutter) data(from, to int64) error {
	for from < to {
		start := from / c.chunk * c.chunk
		if c.read != nil && c.read[0].Offset < start || start > c.at && c.read == nil {
			if err := c.flush(start); err != nil {
				return err
			}
		}
		end := min(to, start+c.chunk)
		c.read = appendRange(c.read, Range{from, end - from})
		from = end
	}
	return nil
}

// flush sends the chunk that was collected, and the chunks without data before
// the one at start.
func (c *cutter) flush(start int64) error {
	if c.read != nil {
		next := &piece{offset: c.at, size: min(c.chunk, c.size-c.at), read: c.read, dropped: c.dropped}
		c.at, c.read, c.dropped = next.offset+next.size, nil, 0
		if err := c.send(next); err != nil {
			return err
		}
	}
	if start > c.at {
		next := &piece{offset: c.at, size: start - c.at, dropped: c.dropped}
		c.at, c.dropped = start, 0
		return c.send(next)
	}
	return nil
}

func (c *cutter) end() error { return c.flush(c.size) }

// work packs pieces until there are no more.
func work(image io.ReaderAt, buffers *spare, jobs <-chan *piece) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(512<<10))
	for p := range jobs {
		if p.err = err; err == nil {
			p.buffer = buffers.get()
			p.err = p.work(image, encoder)
		}
		close(p.done)
	}
}

func (p *piece) work(image io.ReaderAt, encoder *zstd.Encoder) error {
	raw := p.buffer.raw[:p.size]
	at := p.offset
	for _, r := range p.read {
		clear(raw[at-p.offset : r.Offset-p.offset])
		if _, err := image.ReadAt(raw[r.Offset-p.offset:r.End()-p.offset], r.Offset); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // it was cut meanwhile
			}
			return fmt.Errorf("reading at %d: %w", r.Offset, err)
		}
		at = r.End()
	}
	clear(raw[at-p.offset:])
	p.data = notZero(raw, p.offset)
	if p.data == nil {
		return nil
	}
	p.sum = sha256.Sum256(raw)
	p.packed = encoder.EncodeAll(raw, p.buffer.packed[:0])
	return nil
}

var zeroBlock [block]byte

// notZero finds the blocks that hold anything but zeros.
func notZero(raw []byte, offset int64) []Range {
	var found []Range
	for at := 0; at < len(raw); at += block {
		b := raw[at:min(len(raw), at+block)]
		if !bytes.Equal(b, zeroBlock[:len(b)]) {
			found = appendRange(found, Range{offset + int64(at), int64(len(b))})
		}
	}
	return found
}
