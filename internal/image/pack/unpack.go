package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/shadow"
)

// UnpackOptions say how a packed image is unpacked.
type UnpackOptions struct {
	// Kind is that of the file to make; empty makes what was packed.
	Kind upkeep.ImageKind
	// Part is what to unpack of the image: everything when it is nil.
	Part *Range
	// Keep leaves what was unpacked when the work ends early, under a name of its
	// own beside the file, and goes on with what is there: for images that come from
	// far away.
	Keep bool
	// Workers is how many chunks are worked on at a time; 0 leaves it to the machine.
	Workers int
	// Progress is told how much of the data is there, in bytes.
	Progress func(done, total int64)
}

// Unpacked is what [Image.Unpack] did.
type Unpacked struct {
	Size, Data int64
	Kind       upkeep.ImageKind
	// Resumed is how much of the data was there already, from a run that was ended.
	Resumed int64
}

// Unpack writes the image into a new file at path, which nothing may have yet.
// Each chunk is held against its hash before it is written. The file appears when
// it is whole and on the disk.
func (p *Image) Unpack(ctx context.Context, path string, mode os.FileMode, o UnpackOptions) (*Unpacked, error) {
	size, data, err := p.Part(o.Part)
	if err != nil {
		return nil, err
	}
	u := &unpacker{Image: p, options: o, part: Range{0, p.Size()}, result: Unpacked{Size: size, Data: data, Kind: o.Kind}}
	if o.Part != nil {
		u.part = *o.Part
	}
	if o.Kind == "" {
		u.result.Kind = p.Manifest.Kind
	}
	if err := u.run(ctx, path, mode); err != nil {
		return nil, err
	}
	return &u.result, nil
}

// Part is the size of a part of the image, and how much data is in it. Nil is the
// whole.
func (p *Image) Part(part *Range) (size, data int64, err error) {
	whole := Range{0, p.Size()}
	if part == nil {
		part = &whole
	}
	if part.Offset < 0 || part.Length < 0 || part.Length > p.Size()-part.Offset {
		return 0, 0, fmt.Errorf("%w: the range of %d bytes at %d is not within the image of %d", upkeep.ErrRefused, part.Length, part.Offset, p.Size())
	}
	return part.Length, p.dataIn(*part), nil
}

// dataIn is how much of a range is data, by the extents.
func (p *Image) dataIn(part Range) int64 {
	var n int64
	for _, r := range after(p.Manifest.Data, part.Offset) {
		if r = within(r, part); r.Length <= 0 {
			break
		}
		n += r.Length
	}
	return n
}

// within is what two ranges share; its length is not positive if that is nothing.
func within(r, part Range) Range {
	from := max(r.Offset, part.Offset)
	return Range{from, min(r.End(), part.End()) - from}
}

// target is the file that is unpacked into.
type target interface {
	file() *os.File
	commit() error
	Close() error
}

// unnamed is a target that is gone when its process is.
type unnamed struct{ *shadow.Shadow }

func (u unnamed) file() *os.File { return u.File }
func (u unnamed) commit() error  { return u.Create() }

// unpacker is one run of [Image.Unpack].
type unpacker struct {
	*Image
	options UnpackOptions
	part    Range
	result  Unpacked

	out   *os.File
	check []byte // of a chunk that may be there
	mu    sync.Mutex
	done  int64
}

func (u *unpacker) run(ctx context.Context, path string, mode os.FileMode) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%w: %s exists; nothing was changed", upkeep.ErrConflict, path)
	}
	into, err := u.open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, into.Close()) }()
	u.out = into.file()
	if err := u.allocate(); err != nil {
		return err
	}
	if err := u.write(ctx); err != nil {
		return err
	}
	if err := u.out.Chmod(mode & 0o666); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", path, err)
	}
	return into.commit()
}

func (u *unpacker) open(path string) (target, error) {
	if u.options.Keep {
		return openPartial(path)
	}
	s, err := shadow.New(path)
	if err != nil {
		return nil, err
	}
	return unnamed{s}, nil
}

// allocate gives the file its size, once it is known that there is room for it.
func (u *unpacker) allocate() error {
	need := u.result.Data
	if u.result.Kind == upkeep.ImageFull {
		need = u.result.Size
	}
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(int(u.out.Fd()), &fs), unix.Fstat(int(u.out.Fd()), &st)); err != nil {
		return fmt.Errorf("looking for room for %s: %w", u.out.Name(), err)
	}
	need -= st.Blocks * 512
	if room := int64(fs.Bavail) * fs.Bsize; need > room {
		return fmt.Errorf("%w: %s needs %s more than %s has free; nothing was changed",
			upkeep.ErrRefused, u.out.Name(), upkeep.Size(need-room).About(), filepath.Dir(u.out.Name()))
	}
	return shadow.Allocate(u.out, u.result.Size, u.result.Kind)
}

// batchSize is how many packed bytes are read at once: enough that neither a disk
// nor a connection is asked too often.
const batchSize = 4 << 20

// batch is the frames from first up to last, which lie side by side.
type batch struct{ first, last int }

// write unpacks all frames of the part that have data.
func (u *unpacker) write(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	workers := u.options.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	batches := make(chan batch)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			var w worker
			for b := range batches {
				if ctx.Err() == nil {
					if err := w.write(ctx, u, b); err != nil {
						stop(err)
					}
				}
			}
		})
	}
	err := u.each(ctx, func(b batch) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case batches <- b:
			return nil
		}
	})
	close(batches)
	all.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// each calls for the frames with data that are not there yet, in batches, and
// checks those of zeros.
func (u *unpacker) each(ctx context.Context, do func(batch) error) error {
	first, ok := u.table.Find(u.part.Offset)
	if !ok {
		return nil
	}
	open := batch{first, first}
	flush := func(next int) error {
		if open.first < open.last {
			if err := do(open); err != nil {
				return err
			}
		}
		open = batch{next, next}
		return nil
	}
	for i := first; i < len(u.table) && u.table[i].Offset < u.part.End(); i++ {
		have, err := u.have(ctx, i)
		if err == nil && u.sums[i] < 0 {
			err = u.checkZeros(i)
		}
		if err != nil {
			return err
		}
		if have {
			if err := flush(i + 1); err != nil {
				return err
			}
			continue
		}
		if start := u.table[open.first].PackedOffset; u.table[i].PackedOffset+int64(u.table[i].PackedSize)-start > batchSize {
			if err := flush(i); err != nil {
				return err
			}
		}
		open.last = i + 1
	}
	return flush(0)
}

// checkZeros makes sure that a frame is what zstd makes zeros of. Over a network
// the question would cost more than the answer is worth: the file is to be unpacked
// by the manifest, which says zeros.
func (u *unpacker) checkZeros(i int) error {
	if u.options.Keep {
		return nil
	}
	f := u.table[i]
	packed := make([]byte, f.PackedSize)
	if err := readFull(u.from, packed, f.PackedOffset); err != nil {
		return err
	}
	if string(packed) != string(zeroFrame(f.Size)) {
		return fmt.Errorf("%w: the frame at %d is not the %d zeros that its manifest says", errDamaged, f.PackedOffset, f.Size)
	}
	return nil
}

// worker has the buffers of one goroutine.
type worker struct{ packed, chunk []byte }

func (w *worker) write(ctx context.Context, u *unpacker, b batch) error {
	start := u.table[b.first].PackedOffset
	last := u.table[b.last-1]
	n := int(last.PackedOffset + int64(last.PackedSize) - start)
	if cap(w.packed) < n {
		w.packed = make([]byte, max(n, batchSize))
	}
	packed := w.packed[:n]
	if err := readFull(u.from, packed, start); err != nil {
		return err
	}
	for i := b.first; i < b.last && ctx.Err() == nil; i++ {
		f := u.table[i]
		chunk, err := u.unpack(i, packed[f.PackedOffset-start:][:f.PackedSize], w.chunk)
		if err != nil {
			return err
		}
		w.chunk = chunk
		if err := u.put(f, chunk); err != nil {
			return err
		}
		u.add(f, false)
	}
	return nil
}

// put writes the data of a chunk, and leaves its zeros to be holes. That they
// are zeros is looked at: the extents are the manifest's word only.
func (u *unpacker) put(f Frame, chunk []byte) error {
	for _, r := range notZero(chunk, f.Offset) {
		if r = within(r, u.part); r.Length <= 0 {
			continue
		}
		if _, err := u.out.WriteAt(chunk[r.Offset-f.Offset:r.End()-f.Offset], r.Offset-u.part.Offset); err != nil {
			return fmt.Errorf("writing %s: %w", u.out.Name(), err)
		}
		allocation.StartWriting(int(u.out.Fd()), r.Offset-u.part.Offset, r.Length)
	}
	return nil
}

// add counts the data of a frame.
func (u *unpacker) add(f Frame, resumed bool) {
	n := u.dataIn(within(Range{f.Offset, int64(f.Size)}, u.part))
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done += n
	if resumed {
		u.result.Resumed += n
	}
	if u.options.Progress != nil {
		u.options.Progress(u.done, u.result.Data)
	}
}
