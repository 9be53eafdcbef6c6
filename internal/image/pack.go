package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/partition"
	"upkeep/internal/image/shadow"
)

// Packing is the result of [Pack].
type Packing struct {
	Size    upkeep.Size      `json:"size"`
	Kind    upkeep.ImageKind `json:"kind"`
	Data    upkeep.Size      `json:"data"`    // what of it is not zeros
	Dropped upkeep.Size      `json:"dropped"` // free blocks that hold what was deleted
	Packed  upkeep.Size      `json:"packed"`
}

// PackOptions are what is asked of a packed image.
type PackOptions struct {
	// All packs free blocks of file systems too.
	All bool
	// Partition is the number of the one that is packed as an image of its own; 0 is
	// all of the image.
	Partition int
}

// Pack makes ready to pack an image, or a file of gzip, xz, zstd or QEMU that holds
// one, into a new file.
func Pack(src, dst string, o PackOptions) (*Work, error) {
	w := &Work{Plan: Plan{Verb: "pack", File: dst, Undo: "the image is only read; a kill leaves nothing; to undo it, remove " + dst}}
	t, err := w.take(src, false, 0)
	if err != nil {
		return w.fails(err)
	}
	if err := vacant(dst, ""); err != nil {
		return w.fails(err)
	}
	format, err := pack.FormatOf(t.file, t.size)
	if err == nil {
		err = format.Tool()
	}
	if err != nil {
		return w.fails(fmt.Errorf("%s: %w", src, err))
	}
	p := &packing{Work: w, target: t, dst: dst, PackOptions: o}
	switch format {
	case pack.Packed:
		return w.fails(fmt.Errorf("%w: %s is a packed image already", upkeep.ErrRefused, src))
	case pack.Raw:
		if err = t.look(o.Partition); err == nil {
			err = p.planRaw()
		}
	default:
		w.Plan.step(0, "unpack %s, %s, to a file that has no name", src, format.File())
		w.Plan.More = true
		w.Plan.step(0, "pack that into another, without the free blocks of its file system")
		w.do = func(ctx context.Context, tell *teller) error { return p.expanded(ctx, tell, format) }
	}
	if err != nil {
		return w.fails(err)
	}
	w.Plan.step(0, "name it %s", filepath.Base(dst))
	w.measured = dst
	return w, nil
}

// packing is one run of [Pack].
type packing struct {
	*Work
	*target
	PackOptions
	dst string
}

func (p *packing) planRaw() error {
	used, why, err := p.used()
	if err != nil {
		return err
	}
	bytes, err := allocated(p.file)
	if err != nil {
		return err
	}
	copied := int64(0)
	if p.part.Number != 0 {
		bytes = allocation.Data(p.file, p.part.Offset, p.part.End())
		copied = bytes
		p.Plan.Temporary = upkeep.Size(bytes)
		p.Plan.step(bytes, "copy partition %d to a file that has no name", p.part.Number)
	}
	if why == "" {
		bytes = min(bytes, sum(used))
		p.Plan.step(bytes, "pack the %s that its %s uses of %s, several chunks at a time, into a file that has no name yet",
			upkeep.Size(sum(used)).About(), cmp.Or(p.info.Type, "partitions"), upkeep.Size(p.part.Length).About())
	} else {
		p.Plan.step(bytes, "pack what of it is not zeros, at most %s, into a file that has no name yet (%s)", upkeep.Size(bytes).About(), why)
	}
	if err := p.roomToPack(copied, bytes, used); err != nil {
		return err
	}
	p.do = func(ctx context.Context, tell *teller) error {
		if why != "" && !p.All {
			tell.note("free blocks are packed too: %s", why)
		}
		if p.part.Number == 0 {
			return p.pack(ctx, tell, p.file, used)
		}
		tell.begin("copying partition %d", p.part.Number)
		return p.apart(ctx, tell, p.dst, func(piece *os.File) error {
			if err := p.likeImage(piece); err != nil {
				return err
			}
			return p.pack(ctx, tell, piece, used)
		})
	}
	return nil
}

// roomToPack looks whether what is packed has room: how much that takes is known when it
// was done, and before only that it is no more than was there. Where that much is not
// free, pieces are packed to see what becomes of them.
func (p *packing) roomToPack(copied, bytes int64, used []pack.Range) error {
	var lacks *noRoomError
	if err := room(p.dst, copied+bytes+packedTables); !errors.As(err, &lacks) {
		return err
	}
	if used == nil {
		used = []pack.Range{{Offset: 0, Length: p.part.Length}}
	}
	of := make([]pack.Range, len(used))
	for i, r := range used {
		of[i] = pack.Range{Offset: p.part.Offset + r.Offset, Length: r.Length}
	}
	about, err := pack.Estimate(p.file, of)
	if err != nil {
		return err
	}
	if err := room(p.dst, copied+about); err != nil {
		if errors.As(err, &lacks) {
			lacks.packed = p.name()
			return upkeep.WithHint(lacks, "make room there, or give OUT.zst a name on another file system")
		}
		return err
	}
	p.Plan.step(0, "which takes about %s, going by pieces of it, and %s at most, for which there is no room: should it end, nothing is left", upkeep.Size(about).About(), upkeep.Size(bytes).About())
	return nil
}

// packedTables is more than what a packed image has beside its data, but for the largest.
const packedTables = 1 << 20

// likeImage gives a copy of a partition the mode of its image, which the packed file
// gets, and its kind.
func (p *packing) likeImage(piece *os.File) error {
	info, err := p.file.Stat()
	if err == nil {
		err = piece.Chmod(info.Mode() & 0o777)
	}
	if err != nil {
		return fmt.Errorf("setting the mode of a copy of %s: %w", p.name(), err)
	}
	return shadow.Allocate(piece, p.part.Length, p.kind)
}

func (p *packing) pack(ctx context.Context, tell *teller, file *os.File, used []pack.Range) error {
	if err := p.lock.Again(); err != nil {
		return err
	}
	tell.begin("packing")
	result, err := pack.Pack(ctx, p.dst, file, pack.Options{
		Used: used, Progress: tell.progress,
		Facts: pack.Facts{Type: p.info.Type, Label: p.info.Label, UUID: p.info.UUID, BlockSize: p.info.BlockSize, Size: p.info.Size, State: p.info.State},
		// Nobody wrote to it while it was packed.
		Check: p.lock.Again,
	})
	if err != nil {
		return err
	}
	m := result.Manifest
	p.Result = Packing{Size: upkeep.Size(m.Size), Kind: m.Kind, Data: upkeep.Size(m.DataSize()), Dropped: upkeep.Size(m.Dropped), Packed: upkeep.Size(result.Packed)}
	return nil
}

// expanded packs what a file of another format holds.
func (p *packing) expanded(ctx context.Context, tell *teller, format pack.Format) error {
	raw, err := shadow.New(p.dst)
	if err != nil {
		return err
	}
	defer raw.Close()
	tell.begin("unpacking the %s file", format)
	if err := format.Expand(ctx, raw.File, p.file, 0, tell.progress); err != nil {
		return err
	}
	held := p.target
	p.target = &target{path: held.path, file: raw.File, lock: held.lock}
	if err := p.look(p.Partition); err != nil {
		return err
	}
	used, why, err := p.used()
	if err != nil {
		return err
	}
	if why != "" && !p.All {
		tell.note("free blocks are packed too: %s", why)
	}
	bytes, copied := allocation.Data(p.file, p.part.Offset, p.part.End()), int64(0)
	if p.part.Number != 0 {
		copied = bytes
	}
	if err := p.roomToPack(copied, min(bytes, cmp.Or(sum(used), bytes)), used); err != nil {
		return err
	}
	if p.part.Number == 0 {
		return p.pack(ctx, tell, p.file, used)
	}
	return p.apart(ctx, tell, p.dst, func(piece *os.File) error { return p.pack(ctx, tell, piece, used) })
}

// Unpacking says how [Unpack] works.
type Unpacking struct {
	Kind upkeep.ImageKind // as it was packed when empty
	Part *pack.Range      // all when nil
	// Partition is the number of the one that becomes an image of its own; 0 is all.
	Partition int
	// MaxSize ends the work on a file that does not say how large it becomes, such as one
	// of gzip, when it becomes larger; 0 is what a file can have.
	MaxSize upkeep.Size
}

// TooLargeError is that a file unpacks to more than [Unpacking.MaxSize].
type TooLargeError = pack.TooLargeError

// Unpacked is the result of [Unpack].
type Unpacked struct {
	Size upkeep.Size      `json:"size"`
	Kind upkeep.ImageKind `json:"kind"`
	Data upkeep.Size      `json:"data"`
	// Resumed is how much of the data a run that was ended had left.
	Resumed upkeep.Size `json:"resumed,omitempty"`
}

// Unpack makes ready to unpack a file that [Pack], gzip, xz, zstd or QEMU made, here or
// on a web server, into a new image. The context is for what is read from a server.
func Unpack(ctx context.Context, src, dst string, o Unpacking) (*Work, error) {
	w := &Work{Plan: Plan{Verb: "unpack", File: dst, Undo: "a kill leaves nothing; to undo it, remove " + dst}}
	if err := vacant(dst, ""); err != nil {
		return nil, err
	}
	if o.Part != nil && o.Partition != 0 {
		return nil, fmt.Errorf("%w: a range and a partition exclude each other", upkeep.ErrRefused)
	}
	u := &unpacking{Work: w, Unpacking: o, src: src, dst: dst, mode: 0o600}
	var err error
	if pack.IsURL(src) {
		err = u.remote(ctx)
	} else {
		err = u.local()
	}
	if err != nil {
		return w.fails(err)
	}
	w.Plan.step(0, "name it %s", filepath.Base(dst))
	w.measured = dst
	return w, nil
}

// unpacking is one run of [Unpack].
type unpacking struct {
	*Work
	Unpacking
	src, dst string
	mode     os.FileMode
}

func (u *unpacking) local() error {
	real, err := realPath(u.src)
	if err != nil {
		return fmt.Errorf("looking for the packed image: %w", err)
	}
	file, err := hold.OpenReal(real, false)
	if err != nil {
		return err
	}
	u.closers = append(u.closers, file.Close)
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("looking at %s: %w", real, err)
	}
	u.mode = info.Mode()
	format, err := pack.FormatOf(file, info.Size())
	if err == nil {
		err = format.Tool()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", u.src, err)
	}
	switch format {
	case pack.Packed:
		packed, err := pack.Open(file, info.Size())
		if err != nil {
			return fmt.Errorf("%s: %w", u.src, err)
		}
		return u.packed(packed, false)
	case pack.Raw:
		return &upkeep.HintError{
			Err:  fmt.Errorf("%w: %s is no packed image, and no file of zstd, gzip, xz or qcow2", upkeep.ErrRefused, u.src),
			Hint: "upkeep image clone copies an image that is not packed",
		}
	}
	return u.stream(format, func(context.Context, *teller) (*os.File, error) { return file, nil })
}

// packed unpacks chunk by chunk. What comes from afar is kept when the work ends.
func (u *unpacking) packed(image *pack.Image, keep bool) error {
	kind := u.Kind
	if kind == "" {
		kind = image.Manifest.Kind
	}
	if u.Partition != 0 {
		if err := u.findPart(image); err != nil {
			return err
		}
	}
	o := pack.UnpackOptions{Kind: kind, Part: u.Part, Keep: keep}
	size, bytes, err := image.Part(u.Part)
	if err != nil {
		return err
	}
	need := bytes
	if kind == upkeep.ImageFull {
		need = size
	}
	if keep {
		o.Workers = 4
		u.Plan.Undo = "a kill leaves what came so far; the same command goes on with it, and upkeep image recover " + u.dst + " removes it"
	} else if err := room(u.dst, need); err != nil {
		return err
	}
	u.Plan.step(bytes, "unpack %s of data into a %s file of %s; each chunk is held against its SHA-256 before it is written",
		upkeep.Size(bytes).About(), kind, upkeep.Size(size).About())
	u.do = func(ctx context.Context, tell *teller) error {
		tell.begin("unpacking")
		o.Progress = tell.progress
		r, err := image.Unpack(ctx, u.dst, u.mode, o)
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", u.src, err)
		}
		u.Result = Unpacked{Size: upkeep.Size(r.Size), Kind: r.Kind, Data: upkeep.Size(r.Data), Resumed: upkeep.Size(r.Resumed)}
		return nil
	}
	return nil
}

// findPart makes a part of a partition's number.
func (u *unpacking) findPart(image *pack.Image) error {
	table, err := partition.Read(image, image.Size())
	if err != nil {
		return fmt.Errorf("%w: reading the partitions in %s: %w", upkeep.ErrRefused, u.src, err)
	}
	p, err := table.Partition(u.Partition)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", upkeep.ErrRefused, u.src, err)
	}
	u.Part = &pack.Range{Offset: p.Offset, Length: p.Length}
	u.Plan.step(0, "take partition %d, %s at %s", p.Number, upkeep.Size(p.Length).About(), upkeep.Size(p.Offset).About())
	return nil
}

// stream unpacks a file that can only be read from start to end.
func (u *unpacking) stream(format pack.Format, open func(context.Context, *teller) (*os.File, error)) error {
	if u.Part != nil || u.Partition != 0 {
		return &upkeep.HintError{
			Err:  fmt.Errorf("%w: a part can only be taken out of what upkeep packed, and %s is %s", upkeep.ErrRefused, u.src, format.File()),
			Hint: "upkeep image pack takes it, too",
		}
	}
	kind := u.Kind
	if kind == "" {
		kind = upkeep.ImageSparse
	}
	u.Plan.step(0, "unpack the %s file into a %s one that has no name yet", format, kind)
	u.Plan.More = true
	u.do = func(ctx context.Context, tell *teller) error {
		in, err := open(ctx, tell)
		if err != nil {
			return err
		}
		tell.begin("unpacking the %s file", format)
		s, err := shadow.New(u.dst)
		if err != nil {
			return err
		}
		return errors.Join(u.expand(ctx, tell, s, in, format, kind), s.Close())
	}
	return nil
}

func (u *unpacking) expand(ctx context.Context, tell *teller, s *shadow.Shadow, in *os.File, format pack.Format, kind upkeep.ImageKind) error {
	if err := format.Expand(ctx, s.File, in, int64(u.MaxSize), tell.progress); err != nil {
		return err
	}
	info, err := s.File.Stat()
	if err != nil {
		return fmt.Errorf("looking at %s: %w", u.dst, err)
	}
	bytes, err := allocated(s.File)
	if err != nil {
		return err
	}
	if err := shadow.Allocate(s.File, info.Size(), kind); err != nil {
		return err
	}
	if err := s.File.Chmod(u.mode & 0o666); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", u.dst, err)
	}
	tell.begin("writing it to the disk")
	u.Result = Unpacked{Size: upkeep.Size(info.Size()), Kind: kind, Data: upkeep.Size(bytes)}
	return s.Create()
}

// remote reads the tables of a file on a web server. One that cannot be read by
// parts is got as a whole first.
func (u *unpacking) remote(ctx context.Context) error {
	r, err := pack.OpenRemote(ctx, u.src)
	if err == nil {
		u.closers = append(u.closers, r.Close)
		var packed *pack.Image
		if packed, err = pack.Open(r, r.Size()); err == nil {
			return u.packed(packed, true)
		}
	}
	if !errors.Is(err, pack.ErrNoRanges) && !errors.Is(err, pack.ErrNotPacked) {
		return err
	}
	if u.Part != nil || u.Partition != 0 {
		return fmt.Errorf("%w: a part cannot be taken out of %s: %w", upkeep.ErrRefused, u.src, err)
	}
	u.Plan.step(0, "get the whole file into one that has no name: %s", err)
	u.Plan.step(0, "unpack that into another")
	u.Plan.More = true
	u.do = u.fetched
	return nil
}

// fetched gets a file and unpacks it as if it had been here.
func (u *unpacking) fetched(ctx context.Context, tell *teller) error {
	s, err := shadow.New(u.dst)
	if err != nil {
		return err
	}
	defer s.Close()
	tell.begin("getting the file")
	if err := pack.Fetch(ctx, u.src, s.File, tell.progress); err != nil {
		return err
	}
	info, err := s.File.Stat()
	if err != nil {
		return fmt.Errorf("looking at what came: %w", err)
	}
	format, err := pack.FormatOf(s.File, info.Size())
	if err == nil {
		err = format.Tool()
	}
	switch {
	case err != nil:
	case format == pack.Packed:
		var packed *pack.Image
		if packed, err = pack.Open(s.File, info.Size()); err == nil {
			err = u.packed(packed, false)
		}
	case format == pack.Raw:
		err = fmt.Errorf("%w: it is no packed image, and no file of zstd, gzip, xz or qcow2", upkeep.ErrRefused)
	default:
		err = u.stream(format, func(context.Context, *teller) (*os.File, error) { return s.File, nil })
	}
	if err != nil {
		return err
	}
	return u.do(ctx, tell)
}
