package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	"upkeep/internal/image/loop"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/shadow"
)

// mounted runs a function while a file that holds the file system alone is mounted
// where nobody else can see it: the image itself, or a second file. The device and
// the mount are no other's holding.
func (t *target) mounted(file *os.File, do func(dir *os.File) error) error {
	return mount.With(file, mount.Options{Type: t.typ.Name, Attached: t.lock.Ours, Detached: t.lock.NoLonger}, do)
}

// inPlace runs a function while the image, or what of it is meant, is mounted.
func (t *target) inPlace(readOnly bool, do func(dir *os.File) error) error {
	return mount.With(t.file, mount.Options{
		Type: t.typ.Name, Offset: t.part.Offset, Size: t.part.Length, ReadOnly: readOnly, Attached: t.lock.Ours, Detached: t.lock.NoLonger,
	}, do)
}

// alone runs a function with a file that holds the file system alone, for programs
// that know of no partitions and check: a loop device on the partition, as root, or a
// copy of it. Those that write to what they only check get a copy.
func (t *target) alone(ctx context.Context, tell *teller, do func(file *os.File) error) error {
	switch {
	case t.checksCopy():
		return t.apart(ctx, tell, t.path, do)
	case t.part.Number == 0:
		return do(t.file)
	}
	device, err := loop.Attach(t.file, loop.Options{Offset: t.part.Offset, Size: t.part.Length, ReadOnly: true})
	if err != nil { // a service may have no devices
		return t.apart(ctx, tell, t.path, do)
	}
	t.lock.Ours(device.Name)
	defer t.lock.NoLonger(device.Name)
	return errors.Join(do(device.File), device.Detach())
}

// checksCopy reports whether a copy is checked in place of the image.
func (t *target) checksCopy() bool {
	return t.typ.CheckWrites || t.part.Number != 0 && os.Geteuid() != 0
}

// apart runs a function with a copy of the part that is meant, which has no name, lies
// in the folder of a path, and goes afterwards.
func (t *target) apart(ctx context.Context, tell *teller, beside string, do func(file *os.File) error) error {
	piece, err := shadow.Scratch(beside)
	if err != nil {
		return err
	}
	if err := piece.Truncate(t.part.Length); err != nil {
		return errors.Join(fmt.Errorf("making room for the partition: %w", err), piece.Close())
	}
	if !t.goes {
		err = shadow.CopyPiece(ctx, piece, 0, t.file, t.part.Offset, t.part.Length, tell.progress)
	}
	if err == nil {
		err = do(piece)
	}
	return errors.Join(err, piece.Close())
}
