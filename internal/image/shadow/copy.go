package shadow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/allocation"
)

// Way is how a file was copied.
type Way string

// Ways of copying.
const (
	Reflink Way = "reflink" // the blocks are shared until one of the two changes
	Blocks  Way = "blocks"  // each block that holds data was copied
)

// stride is how much is copied between two looks at the context, in bytes.
const stride = 16 << 20

// KindOf says whether every block of a file is allocated. A block that is
// allocated and was never written reads as zeros, and looks like a hole to
// SEEK_DATA; so the extents are asked for (FIEMAP), and st_blocks where they
// cannot be had.
func KindOf(file *os.File) (upkeep.ImageKind, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return "", fmt.Errorf("looking at %s: %w", file.Name(), err)
	}
	if st.Blocks*512 < st.Size {
		return upkeep.ImageSparse, nil
	}
	whole, err := allocation.Whole(file, st.Size)
	if err == nil && !whole {
		return upkeep.ImageSparse, nil // blocks beyond the end, or of the map itself, made up for holes
	}
	return upkeep.ImageFull, nil
}

// Copy makes dst, an empty file, the same as src: content, size and kind. Holes
// stay holes, and what was allocated stays so. It does not wait for the disk.
func Copy(ctx context.Context, dst, src *os.File, progress func(done, total int64)) (Way, error) {
	err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	shared := err == nil
	if err != nil && !cannotShare(err) {
		return "", fmt.Errorf("sharing the blocks of %s: %w", src.Name(), err)
	}
	info, err := src.Stat()
	if err != nil {
		return "", fmt.Errorf("looking at %s: %w", src.Name(), err)
	}
	kind, err := KindOf(src)
	if err != nil {
		return "", err
	}
	// XFS makes holes of blocks that are shared and were never written.
	if err := Allocate(dst, info.Size(), kind); err != nil {
		return "", err
	}
	if shared {
		return Reflink, nil
	}
	return Blocks, copyData(ctx, dst, src, stretch{length: info.Size()}, progress)
}

// stretch is a piece of one file that is copied to a place in another, in bytes.
type stretch struct{ to, from, length int64 }

// CopyPiece copies length bytes of src, from an offset on, to an offset of dst, which
// holds nothing there. Holes stay holes, and blocks are shared where they can be. It
// does not wait for the disk.
func CopyPiece(ctx context.Context, dst *os.File, to int64, src *os.File, from, length int64, progress func(done, total int64)) error {
	if length == 0 {
		return nil // which FICLONERANGE takes for all that there is
	}
	request := unix.FileCloneRange{Src_fd: int64(src.Fd()), Src_offset: uint64(from), Src_length: uint64(length), Dest_offset: uint64(to)}
	err := unix.IoctlFileCloneRange(int(dst.Fd()), &request)
	if err == nil {
		return nil
	}
	if !cannotShare(err) {
		return fmt.Errorf("sharing blocks of %s: %w", src.Name(), err)
	}
	return copyData(ctx, dst, src, stretch{to, from, length}, progress)
}

// cannotShare reports an error that says that two files cannot share blocks, or not
// at these offsets.
func cannotShare(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY)
}

// Clear makes a range of a file a hole, whatever it held.
func Clear(file *os.File, at, length int64) error {
	if length == 0 {
		return nil
	}
	err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length)
	if err == nil || !errors.Is(err, unix.EOPNOTSUPP) {
		if err != nil {
			return fmt.Errorf("clearing %d bytes of %s at %d: %w", length, file.Name(), at, err)
		}
		return nil
	}
	zeros := make([]byte, 1<<20)
	for end := at + length; at < end; {
		n, err := file.WriteAt(zeros[:min(end-at, int64(len(zeros)))], at)
		if err != nil {
			return fmt.Errorf("clearing %s at %d: %w", file.Name(), at, err)
		}
		at += int64(n)
	}
	return nil
}

// Allocate gives an empty file its size: with blocks that are there but not
// written (fallocate(2)), or with none.
func Allocate(file *os.File, size int64, kind upkeep.ImageKind) error {
	if err := file.Truncate(size); err != nil {
		return fmt.Errorf("making %s %s large: %w", file.Name(), upkeep.Size(size), err)
	}
	if kind != upkeep.ImageFull || size == 0 {
		return nil
	}
	for {
		err := unix.Fallocate(int(file.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP):
			return &upkeep.HintError{
				Err:  fmt.Errorf("%w: the file system that holds %s cannot allocate without writing", upkeep.ErrRefused, file.Name()),
				Hint: "--write-zeros writes every block, which takes longer",
			}
		case err != nil:
			return fmt.Errorf("allocating %s for %s: %w", upkeep.Size(size), file.Name(), err)
		}
		return nil
	}
}

// copyData copies every range of a piece that holds data. Room for all of it is reserved
// first, so that nobody else has it meanwhile.
func copyData(ctx context.Context, dst, src *os.File, piece stretch, progress func(done, total int64)) error {
	err := eachData(ctx, src, piece, func(data stretch) error { return reserve(dst, data.to, data.length) })
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return eachData(ctx, src, piece, func(data stretch) error {
		for data.length > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := copyRange(dst, src, stretch{data.to, data.from, min(data.length, stride)})
			if err != nil {
				return fmt.Errorf("copying %s: %w", src.Name(), err)
			}
			allocation.StartWriting(int(dst.Fd()), data.to, n)
			data = stretch{data.to + n, data.from + n, data.length - n}
			if progress != nil {
				progress(data.from-piece.from, piece.length)
			}
		}
		return nil
	})
}

// eachData calls a function with every range of a piece that holds data.
func eachData(ctx context.Context, src *os.File, piece stretch, do func(data stretch) error) error {
	end := piece.from + piece.length
	for at := piece.from; at < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to, err := allocation.NextData(int(src.Fd()), at, end)
		if err != nil {
			return fmt.Errorf("looking for the data of %s: %w", src.Name(), err)
		}
		if from < to {
			if err := do(stretch{from - piece.from + piece.to, from, to - from}); err != nil {
				return err
			}
		}
		at = to
	}
	return nil
}

// reserve allocates a range of a file, which stays as large as it is.
func reserve(file *os.File, at, length int64) error {
	for {
		switch err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, at, length); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("reserving %s for %s: %w", upkeep.Size(length).About(), file.Name(), err)
		default:
			return nil
		}
	}
}

// copyRange copies a piece or the start of it within the kernel, or through memory
// where that is impossible, and returns how many bytes. That the source ends early is
// an error: it was cut while it was read.
func copyRange(dst, src *os.File, piece stretch) (int64, error) {
	from, to := piece.from, piece.to
	done, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, int(piece.length), 0)
	switch {
	case err == nil && done > 0:
		return int64(done), nil
	case err == nil:
		return 0, io.ErrUnexpectedEOF
	case errors.Is(err, unix.EINTR):
		return 0, nil
	case !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP):
		return 0, err
	}
	buffer := make([]byte, min(piece.length, 1<<20))
	read, err := src.ReadAt(buffer, piece.from)
	if read == 0 {
		return 0, errors.Join(err, io.ErrUnexpectedEOF)
	}
	if _, err := dst.WriteAt(buffer[:read], piece.to); err != nil {
		return 0, err
	}
	return int64(read), nil
}

// CanReflink reports whether a file beside an image can share its blocks.
func CanReflink(path string, image *os.File) (bool, error) {
	s, err := New(path)
	if err != nil {
		return false, err
	}
	info, err := image.Stat()
	if err != nil {
		return false, errors.Join(fmt.Errorf("looking at %s: %w", path, err), s.Close())
	}
	// Of a large image only a piece, of whole blocks whatever their size: to share all
	// takes milliseconds.
	piece := unix.FileCloneRange{Src_fd: int64(image.Fd()), Src_length: 64 << 10}
	if info.Size() < int64(piece.Src_length) {
		piece.Src_length = 0 // to its end
	}
	cloned := unix.IoctlFileCloneRange(int(s.File.Fd()), &piece)
	return cloned == nil, s.Close()
}
