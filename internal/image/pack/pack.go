package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/shadow"
)

// Options say how an image is packed.
type Options struct {
	// Used are the ranges that the image's file system uses, sorted; what is outside
	// is packed as zeros. Nil packs everything.
	Used []Range
	// Facts are put into the manifest.
	Facts Facts
	// Check is asked, when everything was read, whether it may be kept.
	Check func() error
	// Progress is told how much of the image is done, in bytes.
	Progress func(done, total int64)
}

// Result is what became of an image.
type Result struct {
	Manifest *Manifest
	Packed   int64 // size of the packed file
}

// Pack packs an image into a new file at path, which nothing may have yet; it
// appears when it is whole and on the disk. The image is only read. The same
// content and options give the same bytes.
func Pack(ctx context.Context, path string, image *os.File, o Options) (*Result, error) {
	before, err := image.Stat()
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", image.Name(), err)
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a file", upkeep.ErrRefused, image.Name())
	}
	kind, err := shadow.KindOf(image)
	if err != nil {
		return nil, err
	}
	out, err := shadow.New(path)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &packer{
		image: image, out: out.File, options: o,
		manifest: &Manifest{Size: before.Size(), Kind: kind, Chunk: chunkFor(before.Size()), Facts: o.Facts},
	}
	if err := p.run(ctx); err != nil {
		return nil, fmt.Errorf("packing %s: %w", image.Name(), err)
	}
	after, err := image.Stat()
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", image.Name(), err)
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return nil, fmt.Errorf("%w: %s was changed while it was packed; nothing was kept", upkeep.ErrConflict, image.Name())
	}
	if o.Check != nil {
		if err := o.Check(); err != nil {
			return nil, err
		}
	}
	// Who may read the image may read this, and nobody else.
	if err := out.File.Chmod(before.Mode() & 0o666); err != nil {
		return nil, fmt.Errorf("setting the mode of %s: %w", path, err)
	}
	if err := out.Create(); err != nil {
		return nil, err
	}
	return &Result{Manifest: p.manifest, Packed: p.written}, nil
}

// packer is one run of [Pack]: a plan of pieces in order, workers that pack them,
// and one writer.
type packer struct {
	image, out *os.File
	options    Options
	manifest   *Manifest
	table      SeekTable
	zeros      int64 // waiting to be written as one frame
	written    int64
	flushed    int64
}

func (p *packer) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	workers := runtime.GOMAXPROCS(0)
	// Twice as many pieces as workers are in memory at the most.
	order, jobs := make(chan *piece, workers), make(chan *piece, workers)
	ended := make(chan struct{}, workers+1)
	buffers := &spare{chunk: int(p.manifest.Chunk)}
	go func() {
		defer func() { close(order); close(jobs); ended <- struct{}{} }()
		if err := p.plan(ctx, order, jobs); err != nil {
			stop(err)
		}
	}()
	for range workers {
		go func() {
			defer func() { ended <- struct{}{} }()
			work(p.image, buffers, jobs)
		}()
	}
	var failed error
	for piece := range order {
		<-piece.done
		if failed == nil {
			failed = errors.Join(piece.err, context.Cause(ctx))
		}
		if failed == nil {
			failed = p.add(piece)
		}
		if failed != nil {
			stop(failed)
		}
		buffers.put(piece)
	}
	for range workers + 1 {
		<-ended
	}
	if failed == nil {
		failed = context.Cause(ctx)
	}
	stop(nil)
	if failed != nil {
		return failed
	}
	return p.finish()
}

// add writes a piece behind those before it.
func (p *packer) add(piece *piece) error {
	if piece.packed == nil {
		p.zeros += piece.size
	} else {
		if err := p.writeZeros(); err != nil {
			return err
		}
		if err := p.write(piece.packed, piece.size); err != nil {
			return err
		}
		p.manifest.Sums = append(p.manifest.Sums, piece.sum)
		for _, r := range piece.data {
			p.manifest.Data = appendRange(p.manifest.Data, r)
		}
	}
	p.manifest.Dropped += piece.dropped
	if p.options.Progress != nil {
		p.options.Progress(piece.offset+piece.size, p.manifest.Size)
	}
	return nil
}

// appendRange adds a range behind the others, or makes the last one longer.
func appendRange(ranges []Range, r Range) []Range {
	if n := len(ranges); n > 0 && ranges[n-1].End() == r.Offset {
		ranges[n-1].Length += r.Length
		return ranges
	}
	return append(ranges, r)
}

func (p *packer) writeZeros() error {
	for p.zeros > 0 {
		n := min(p.zeros, zeroChunk)
		if err := p.write(zeroFrame(uint32(n)), n); err != nil {
			return err
		}
		p.zeros -= n
	}
	return nil
}

func (p *packer) write(frame []byte, size int64) error {
	if err := p.table.Add(uint32(len(frame)), uint32(size)); err != nil {
		return err
	}
	return p.append(frame)
}

// flushEvery is after how many bytes the disk is set to work, so that it does not
// get everything at the end.
const flushEvery = 8 << 20

func (p *packer) append(b []byte) error {
	if _, err := p.out.WriteAt(b, p.written); err != nil {
		return fmt.Errorf("writing %s: %w", p.out.Name(), err)
	}
	p.written += int64(len(b))
	if p.written-p.flushed >= flushEvery {
		allocation.StartWriting(int(p.out.Fd()), p.flushed, p.written-p.flushed)
		p.flushed = p.written
	}
	return nil
}

// finish writes the zeros at the end, the manifest and the table.
func (p *packer) finish() error {
	if err := p.writeZeros(); err != nil {
		return err
	}
	manifest, err := p.manifest.encode(p.table)
	if err != nil {
		return err
	}
	if err := p.write(manifest, 0); err != nil {
		return err
	}
	return p.append(p.table.Encode())
}
