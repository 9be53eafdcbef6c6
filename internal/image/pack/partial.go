package pack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/shadow"
)

// partialSuffix ends the name of a file that is being unpacked.
const partialSuffix = ".upkeep-part~"

// partial is a target that stays when the work ends early.
type partial struct {
	out    *os.File
	folder *os.File
	name   string // that it is to have
	done   bool
}

func partialName(name string) string { return "." + name + partialSuffix }

// Leftover is the path of what a run of [Image.Unpack] that was to be kept left of
// a file, or empty. It can go: unpacking again goes on with it or without it.
func Leftover(path string) (string, error) {
	return shadow.Beside(path, partialName(filepath.Base(path)))
}

// RemoveLeftover removes what [Leftover] found, unless a run is at work on it.
func RemoveLeftover(path string) error {
	p, err := openPartial(path)
	if err != nil {
		return err
	}
	err = unix.Unlinkat(int(p.folder.Fd()), partialName(p.name), 0)
	if err != nil {
		err = fmt.Errorf("removing %s: %w", p.out.Name(), err)
	}
	return errors.Join(err, p.Close())
}

// openPartial opens the file that was left, or makes one. Its lock keeps a second
// run away.
func openPartial(path string) (*partial, error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("opening the folder of %s: %w", path, err)
	}
	p := &partial{folder: folder, name: filepath.Base(path)}
	fd, err := unix.Openat(int(folder.Fd()), partialName(p.name), unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		folder.Close()
		return nil, fmt.Errorf("making a file in %s: %w", folder.Name(), &fs.PathError{Op: "open", Path: partialName(p.name), Err: err})
	}
	p.out = os.NewFile(uintptr(fd), filepath.Join(folder.Name(), partialName(p.name)))
	info, err := p.out.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Mode().Perm()&^0o666 != 0) {
		err = fmt.Errorf("%w: %s is not of our making", upkeep.ErrConflict, p.out.Name())
	}
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w: %s is being unpacked by another upkeep", upkeep.ErrConflict, path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *partial) file() *os.File { return p.out }

// commit gives the file the name that it is to have, unless something has it.
func (p *partial) commit() error {
	if err := p.out.Sync(); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", p.out.Name(), err)
	}
	fd := int(p.folder.Fd())
	err := unix.Renameat2(fd, partialName(p.name), fd, p.name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: %s exists; nothing was changed", upkeep.ErrConflict, p.name)
	}
	if err != nil {
		return fmt.Errorf("naming %s: %w", p.name, err)
	}
	p.done = true
	if err := p.folder.Sync(); err != nil {
		return fmt.Errorf("writing the folder of %s to the disk: %w", p.name, err)
	}
	return nil
}

func (p *partial) Close() error { return errors.Join(p.out.Close(), p.folder.Close()) }

// have reports whether a chunk is in the file already, by its hash: what an
// earlier run left may be of another image, or half written. What is there and
// wrong is cleared, so that it does not show through where the image has zeros.
func (u *unpacker) have(ctx context.Context, i int) (bool, error) {
	whole := Range{u.table[i].Offset, int64(u.table[i].Size)}
	zeros := u.sums[i] < 0
	if !u.options.Keep {
		return zeros, nil
	}
	part := within(whole, u.part)
	part.Offset -= u.part.Offset
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	from, _, err := allocation.NextData(int(u.out.Fd()), part.Offset, u.part.Length)
	if err != nil {
		return false, fmt.Errorf("looking at what is there of %s: %w", u.out.Name(), err)
	}
	if from >= part.End() {
		return zeros, nil
	}
	if zeros || part.Length < whole.Length {
		return zeros, u.punch(part)
	}
	if u.check == nil {
		u.check = make([]byte, u.Manifest.Chunk)
	}
	chunk := u.check[:part.Length]
	if err := readFull(u.out, chunk, part.Offset); err != nil {
		return false, err
	}
	if sha256.Sum256(chunk) != u.Manifest.Sums[u.sums[i]] {
		return false, u.punch(part)
	}
	u.add(u.table[i], true)
	return true, nil
}

// punch makes a range of the file read as zeros.
func (u *unpacker) punch(r Range) error {
	how := uint32(unix.FALLOC_FL_PUNCH_HOLE)
	if u.result.Kind == upkeep.ImageFull {
		how = unix.FALLOC_FL_ZERO_RANGE
	}
	if err := unix.Fallocate(int(u.out.Fd()), how|unix.FALLOC_FL_KEEP_SIZE, r.Offset, r.Length); err != nil {
		return fmt.Errorf("clearing %d bytes at %d of %s: %w", r.Length, r.Offset, u.out.Name(), err)
	}
	return nil
}
