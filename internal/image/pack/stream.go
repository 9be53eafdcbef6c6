package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/tool"
)

// Format is how a file that holds an image was made.
type Format string

// Formats of files, by what they start and end with and not by their names.
const (
	Packed Format = "packed" // by upkeep
	Zstd   Format = "zstd"
	Gzip   Format = "gzip"
	XZ     Format = "xz"
	QCOW2  Format = "qcow2"
	Raw    Format = "raw"
)

// maxImage is the largest image that a stream is unpacked to: ext4's limit for a
// file. Zeros take no room, so that room is no limit.
const maxImage = 16 << 40

// TooLargeError is that a file unpacks to more than it may.
type TooLargeError struct{ Most int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%v: it unpacks to more than %s", upkeep.ErrRefused, upkeep.Size(e.Most))
}

func (e *TooLargeError) Unwrap() error { return upkeep.ErrRefused }

// File is what a file of the format is called.
func (f Format) File() string {
	if f == XZ {
		return "an xz file"
	}
	return "a " + string(f) + " file"
}

// FormatOf looks at what a file is. A raw image is whatever is nothing else.
func FormatOf(file io.ReaderAt, size int64) (Format, error) {
	start := make([]byte, 8)
	n, err := file.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading its start: %w", err)
	}
	f := streamFormat(start[:n])
	if f != Zstd {
		return f, nil
	}
	_, _, err = readTables(file, size)
	if errors.Is(err, ErrNotPacked) {
		return Zstd, nil
	}
	return Packed, err
}

func streamFormat(start []byte) Format {
	for format, magic := range map[Format]string{Zstd: "\x28\xb5\x2f\xfd", Gzip: "\x1f\x8b\x08", XZ: "\xfd7zXZ\x00", QCOW2: "QFI\xfb"} {
		if bytes.HasPrefix(start, []byte(magic)) {
			return format
		}
	}
	// A zstd file may start with a frame to skip.
	if len(start) >= 4 && start[0]&0xf0 == 0x50 && bytes.Equal(start[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return Zstd
	}
	return Raw
}

// Tool is the program that a format needs, if any. That it is missing is an error
// which names the package.
func (f Format) Tool() error {
	name := map[Format]string{XZ: "xz", QCOW2: "qemu-img"}[f]
	if name == "" {
		return nil
	}
	_, err := tool.Find(name)
	return err
}

// Expand writes the image that a file of another format holds into an empty file, if it
// has no more bytes than most; 0 is what a file can have. A stream does not say before
// how many it has: of one that has more, so many are written. Zeros become holes.
// Progress counts bytes of the file that is read.
func (f Format) Expand(ctx context.Context, out, in *os.File, most int64, progress func(done, total int64)) error {
	if most == 0 || most > maxImage {
		most = maxImage
	}
	if f == QCOW2 {
		return expandQCOW2(ctx, out, in, most)
	}
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("looking at %s: %w", in.Name(), err)
	}
	from := &counted{Reader: io.NewSectionReader(in, 0, info.Size()), ctx: ctx, total: info.Size(), progress: progress}
	take := func(r io.Reader) error { return writeSparse(out, r, most) }
	switch f {
	case Gzip:
		r, err := gzip.NewReader(from)
		if err == nil {
			err = take(r)
		}
		return f.failed(in, err)
	case Zstd:
		r, err := zstd.NewReader(from, zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return f.failed(in, err)
		}
		defer r.Close()
		return f.failed(in, take(r))
	case XZ:
		// Memory is bounded: a header can ask for 4 GiB.
		c := tool.Command{Name: "xz", Args: []string{"--decompress", "--stdout", "--threads=0", "--memlimit-decompress=512MiB", "--no-sparse"}, InputFrom: from}
		return f.failed(in, c.Pipe(ctx, take))
	}
	return fmt.Errorf("%w: %s is not unpacked as a stream", upkeep.ErrRefused, f.File())
}

func (f Format) failed(in *os.File, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("unpacking %s, %s: %w", in.Name(), f.File(), err)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return upkeep.WithHint(err, "the file was cut off: get it again")
	}
	return err
}

// counted tells how much was read, and ends when its context does.
type counted struct {
	io.Reader
	ctx         context.Context
	done, total int64
	progress    func(done, total int64)
}

func (c *counted) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.Reader.Read(b)
	c.done += int64(n)
	if c.progress != nil {
		c.progress(c.done, c.total)
	}
	return n, err
}

// writeSparse writes a stream into an empty file, its zeros as holes.
func writeSparse(out *os.File, from io.Reader, most int64) error {
	buffer := make([]byte, 1<<20)
	for at := int64(0); ; {
		n, err := fill(from, buffer)
		if at+int64(n) > most {
			return &TooLargeError{most}
		}
		for _, r := range notZero(buffer[:n], at) {
			if _, err := out.WriteAt(buffer[r.Offset-at:r.End()-at], r.Offset); err != nil {
				return fmt.Errorf("writing %s: %w", out.Name(), err)
			}
		}
		allocation.StartWriting(int(out.Fd()), at, int64(n))
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return out.Truncate(at)
		case err != nil:
			return err
		}
	}
}

// fill is io.ReadFull, but for an end that came too early, which that cannot be
// told from an end in the middle of the buffer.
func fill(from io.Reader, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := from.Read(b[n:])
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// qcow2 is what is looked at of a header: see docs/interop/qcow2.txt of QEMU.
type qcow2 struct {
	Magic, Version     uint32
	BackingFileOffset  uint64
	BackingFileSize    uint32
	ClusterBits        uint32
	Size               uint64
	CryptMethod        uint32
	L1Size             uint32
	L1, RefcountTable  uint64
	RefcountClusters   uint32
	Snapshots          uint32
	SnapshotsOffset    uint64
	IncompatibleFlags  uint64
	CompatibleFlags    uint64
	AutoclearFlags     uint64
	RefcountOrder, Len uint32
}

const (
	qcowCorrupt  = 1 << 1
	qcowDataFile = 1 << 2
)

// readQCOW2 refuses an image that would have QEMU read other files: its header
// names them, and may name any file of this machine.
func readQCOW2(in io.ReaderAt) (size int64, err error) {
	raw := make([]byte, 104)
	n, err := in.ReadAt(raw, 0)
	if err != nil && !errors.Is(err, io.EOF) || n < 72 {
		return 0, fmt.Errorf("%w: it is too short for a qcow2 image", upkeep.ErrRefused)
	}
	var h qcow2
	if err := binary.Read(bytes.NewReader(raw), binary.BigEndian, &h); err != nil {
		return 0, fmt.Errorf("reading its qcow2 header: %w", err)
	}
	if h.Version == 2 {
		h.IncompatibleFlags = 0
	}
	switch {
	case h.Version != 2 && h.Version != 3:
		return 0, fmt.Errorf("%w: it is a qcow image of version %d", upkeep.ErrRefused, h.Version)
	case h.BackingFileOffset != 0:
		return 0, &upkeep.HintError{
			Err:  fmt.Errorf("%w: the qcow2 image stands on another file, which its header names", upkeep.ErrRefused),
			Hint: "where you trust it: qemu-img convert -O raw IN OUT, and pack that",
		}
	case h.IncompatibleFlags&qcowDataFile != 0:
		return 0, fmt.Errorf("%w: the qcow2 image has its data in another file, which its header names", upkeep.ErrRefused)
	case h.IncompatibleFlags&qcowCorrupt != 0:
		return 0, fmt.Errorf("%w: the qcow2 image is marked as corrupt; qemu-img check -r repairs what can be repaired", upkeep.ErrRefused)
	case h.CryptMethod != 0:
		return 0, fmt.Errorf("%w: the qcow2 image is encrypted", upkeep.ErrRefused)
	case h.Size > maxImage:
		return 0, fmt.Errorf("%w: the qcow2 image is larger than %s", upkeep.ErrRefused, upkeep.Size(maxImage))
	}
	return int64(h.Size), nil
}

func expandQCOW2(ctx context.Context, out, in *os.File, most int64) error {
	size, err := readQCOW2(in)
	if err == nil && size > most {
		err = &TooLargeError{most}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", in.Name(), err)
	}
	if err := out.Truncate(size); err != nil {
		return fmt.Errorf("making %s %s large: %w", out.Name(), upkeep.Size(size), err)
	}
	// Shared, since we hold it ourselves.
	return tool.Command{
		Name: "qemu-img", File: in, Into: out,
		Args: []string{"convert", "-U", "-f", "qcow2", "-O", "raw", "-n", "--target-is-zero", tool.Image, tool.Output},
	}.OK(ctx)
}
