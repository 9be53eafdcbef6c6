package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/loop"
)

// Unmounted says what was unmounted.
type Unmounted struct {
	Folder string `json:"folder"`
	Device string `json:"device"`
	Image  string `json:"image"` // as it was called when it was attached
	// Kept says that the loop device stays, since somebody attached it to stay.
	Kept bool `json:"device_kept"`
}

// Unmount unmounts the image that is mounted at a folder, and returns when its loop
// device is gone and all is on the disk. Where it is in use, it stays mounted, and the
// error says by whom.
func Unmount(ctx context.Context, folder string) (Unmounted, error) {
	u, err := Lookup(folder)
	if err != nil {
		return Unmounted{}, err
	}
	return u, u.unmount(ctx)
}

// Lookup is what [Unmount] of a folder would unmount.
func Lookup(folder string) (Unmounted, error) {
	real, err := filepath.EvalSymlinks(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return Unmounted{}, fmt.Errorf("%w: there is no folder %s", upkeep.ErrNotFound, folder)
	}
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return Unmounted{}, fmt.Errorf("looking for %s: %w", folder, err)
	}
	at, err := hold.MountedAt(real)
	if err != nil {
		return Unmounted{}, err
	}
	name := strings.TrimPrefix(at.Source, "/dev/")
	if disk, _, partition := strings.Cut(strings.TrimPrefix(name, "loop"), "p"); strings.HasPrefix(name, "loop") && partition {
		name = "loop" + disk
	}
	image, err := os.ReadFile(filepath.Join("/sys/block", name, "loop/backing_file"))
	if err != nil {
		return Unmounted{}, fmt.Errorf("%w: what is mounted at %s is no image but %s (%s)", upkeep.ErrRefused, real, at.Source, at.Type)
	}
	return Unmounted{Folder: real, Device: name, Image: strings.TrimSuffix(string(image), "\n"), Kept: !loop.On(name).Autoclear()}, nil
}

func (u *Unmounted) unmount(ctx context.Context) error {
	device := loop.On(u.Device)
	backing, err := os.Open(u.Image)
	if err == nil {
		defer backing.Close()
	}
	if err := syncFolder(u.Folder); err != nil {
		return err
	}
	if err := unix.Unmount(u.Folder, unix.UMOUNT_NOFOLLOW); err != nil {
		return u.unmountError(err)
	}
	if u.Kept {
		return syncImage(u.Image, backing)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := device.Gone(ctx); err != nil {
		return u.stillThere(err, backing)
	}
	return syncImage(u.Image, backing)
}

func syncFolder(folder string) error {
	fd, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", folder, err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("writing what is in %s to the disk (it is still mounted): %w", folder, err)
	}
	return nil
}

// syncImage has the file itself on the disk. One that has no name here any more has
// nothing that could be lost.
func syncImage(name string, backing *os.File) error {
	if backing == nil {
		return nil
	}
	if err := backing.Sync(); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", name, err)
	}
	return nil
}

func (u *Unmounted) unmountError(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &upkeep.HintError{Err: fmt.Errorf("unmounting %s needs root: %w", u.Folder, err), Hint: "run it as root"}
	case !errors.Is(err, unix.EBUSY):
		return fmt.Errorf("unmounting %s: %w", u.Folder, err)
	}
	users, lookErr := hold.Users(u.Folder)
	if lookErr != nil || len(users) == 0 {
		return errors.Join(fmt.Errorf("%w: %s is in use, by whom cannot be seen; it is still mounted", upkeep.ErrRefused, u.Folder), lookErr)
	}
	return hold.Busy(u.Folder, users, "end it, or have it leave the folder, then try again; the image is still mounted")
}

// stillThere says who keeps a device after its image was unmounted here.
func (u *Unmounted) stillThere(err error, backing *os.File) error {
	if backing == nil {
		return err
	}
	found, lookErr := hold.Holders(backing)
	if lookErr != nil || len(found.Holders) == 0 {
		return errors.Join(err, lookErr)
	}
	return hold.Busy(u.Image, found.Holders, "it is not mounted at "+u.Folder+" any more")
}
