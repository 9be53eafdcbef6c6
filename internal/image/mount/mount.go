// Package mount mounts what an image holds. A mount belongs to this process alone:
// it is in no folder, and goes with the process, until it is put into one.
//
// The host's kernel reads the image then. A kernel trusts what it mounts, and so
// must who calls.
package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/loop"
)

// Options says what is mounted, and how.
type Options struct {
	// Type is the type of the file system, which is never guessed: a guess would let
	// the image choose among all the kernel's drivers.
	Type string
	// Offset and Size are the part of the file that holds it; a size of 0 is the rest.
	Offset, Size int64
	// ReadOnly changes no byte, not even to replay a journal.
	ReadOnly bool
	// DirectIO keeps the image out of the host's page cache; see [loop.Options].
	DirectIO bool
	// Attached is told the name of the loop device, such as "loop3", before it is
	// mounted, and Detached when it is no more.
	Attached, Detached func(device string)
	// Setuid lets set-user-id programs in it work.
	Setuid bool
	// Name is that of [loop.Options].
	Name string
	// Extra are further options of the file system: "name" or "name=value".
	Extra []string
}

// Types are the file systems that can be mounted. Of the kernel's others, most have
// met few hostile images and fewer fixes.
func Types() []string {
	return []string{fsinfo.Ext2, fsinfo.Ext3, fsinfo.Ext4, fsinfo.XFS, fsinfo.Btrfs, fsinfo.VFAT, fsinfo.ReiserFS}
}

// Mounted is a mounted image.
type Mounted struct {
	// Dir is the root folder of the image, to be read and for ioctls on the file
	// system.
	Dir *os.File

	device  *loop.Device
	mount   *os.File // it is in no folder
	options Options
}

// Open mounts an image file. It is to be held (package hold) by who calls.
func Open(f *os.File, o Options) (*Mounted, error) {
	if !slices.Contains(Types(), o.Type) {
		return nil, fmt.Errorf("%w: what %s holds cannot be mounted: want one of %s, not %q",
			upkeep.ErrRefused, f.Name(), strings.Join(Types(), ", "), o.Type)
	}
	device, err := loop.Attach(f, loop.Options{Offset: o.Offset, Size: o.Size, ReadOnly: o.ReadOnly, DirectIO: o.DirectIO, Name: o.Name})
	if err != nil {
		return nil, err
	}
	if o.Attached != nil {
		o.Attached(device.Name)
	}
	m := &Mounted{device: device, options: o}
	if m.mount, err = mountDevice(device, f.Name(), o); err == nil {
		m.Dir, err = openFolder(m.mount)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func openFolder(mount *os.File) (*os.File, error) {
	fd, err := unix.Openat(int(mount.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the root folder of %s: %w", mount.Name(), err)
	}
	return os.NewFile(uintptr(fd), mount.Name()+":/"), nil
}

// With calls work while an image is mounted, with its root folder.
func With(f *os.File, o Options, work func(dir *os.File) error) error {
	m, err := Open(f, o)
	if err != nil {
		return err
	}
	return errors.Join(work(m.Dir), m.Close())
}

func mountDevice(device *loop.Device, name string, o Options) (*os.File, error) {
	fd, err := unix.Fsopen(o.Type, unix.FSOPEN_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, &upkeep.HintError{
			Err:  fmt.Errorf("%w: this kernel has no driver for %s, which %s holds", upkeep.ErrRefused, o.Type, name),
			Hint: withoutDriver(o.Type),
		}
	case errors.Is(err, fs.ErrPermission):
		return nil, &upkeep.HintError{Err: fmt.Errorf("mounting %s needs root: %w", name, err), Hint: "run it as root"}
	case err != nil:
		return nil, fmt.Errorf("mounting %s: %w", name, err)
	}
	context := os.NewFile(uintptr(fd), "fscontext")
	defer context.Close()
	for _, option := range append(o.options(device.Path()), o.Extra...) {
		key, value, hasValue := strings.Cut(option, "=")
		if hasValue {
			err = unix.FsconfigSetString(fd, key, value)
		} else {
			err = unix.FsconfigSetFlag(fd, key)
		}
		if err != nil {
			return nil, kernelSays(context, fmt.Sprintf("mounting %s: option %s", name, option), err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, kernelSays(context, fmt.Sprintf("mounting %s as %s", name, o.Type), err)
	}
	attributes := unix.MOUNT_ATTR_NODEV
	if !o.Setuid {
		attributes |= unix.MOUNT_ATTR_NOSUID
	}
	if o.ReadOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return nil, kernelSays(context, "mounting "+name, err)
	}
	return os.NewFile(uintptr(mount), name), nil
}

// withoutDriver says what is left where the kernel does not know a type.
func withoutDriver(kind string) string {
	const reads = "what reads it without a driver: upkeep image ls, cat, and copy --untrusted into a folder; "
	if kind == fsinfo.XFS || kind == fsinfo.Btrfs { // which only the kernel grows
		return reads + "info, check and pack need none either"
	}
	return reads + "info, check, pack and grow need none either"
}

// options are the file system's own.
func (o Options) options(device string) []string {
	options := []string{"source=" + device}
	if o.ReadOnly {
		options = append(options, "ro")
	}
	switch o.Type {
	case fsinfo.Ext2:
		options = append(options, "errors=remount-ro")
	case fsinfo.Ext3, fsinfo.Ext4:
		options = append(options, "errors=remount-ro")
		if o.ReadOnly {
			options = append(options, "noload")
		}
	case fsinfo.XFS:
		options = append(options, "nouuid") // a copy of what is mounted already may be mounted too
		if o.ReadOnly {
			options = append(options, "norecovery")
		}
	case fsinfo.Btrfs:
		if o.ReadOnly {
			options = append(options, "rescue=nologreplay")
		}
	case fsinfo.VFAT:
		options = append(options, "errors=remount-ro")
	}
	return options
}

// kernelSays adds to an error what the file system has to say about it.
func kernelSays(context *os.File, doing string, err error) error {
	var said []string
	message := make([]byte, 4096)
	for range 20 {
		n, readErr := unix.Read(int(context.Fd()), message)
		if readErr != nil || n <= 0 {
			break
		}
		// "e ext4: Unknown parameter"
		said = append(said, upkeep.Printable(strings.TrimSpace(strings.TrimLeft(string(message[:n]), "ewi "))))
	}
	if len(said) > 0 {
		return fmt.Errorf("%s: %w: %s", doing, err, strings.Join(said, "; "))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Mount is the mount itself, for move_mount(2) and for openat(2).
func (m *Mounted) Mount() *os.File { return m.mount }

// Device is the name of its loop device: "loop3".
func (m *Mounted) Device() string { return m.device.Name }

// At puts the mount into a folder of the mount namespace that the calling thread is
// in. Whoever lives there sees it, and it stays when this process ends.
func (m *Mounted) At(folder string) error { return moveTo(m.mount, folder) }

func moveTo(mount *os.File, folder string) error {
	err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, folder, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
	if err != nil {
		return fmt.Errorf("mounting %s at %s: %w", mount.Name(), folder, err)
	}
	return nil
}

// Sync has all that was written to it on the disk.
func (m *Mounted) Sync() error {
	if err := unix.Syncfs(int(m.Dir.Fd())); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", m.mount.Name(), err)
	}
	return nil
}

// Leave lets go of a mount that was put into a folder, where it stays.
func (m *Mounted) Leave() error {
	return errors.Join(m.Dir.Close(), m.mount.Close(), m.device.Leave())
}

// Close writes what was changed to the disk, unmounts it, and returns when the loop
// device is gone. What still has a file of it open keeps it, and is an error.
func (m *Mounted) Close() error {
	var err error
	if m.Dir != nil {
		if !m.options.ReadOnly {
			err = m.Sync()
		}
		err = errors.Join(err, m.Dir.Close())
	}
	if m.mount != nil {
		err = errors.Join(err, m.mount.Close())
	}
	err = errors.Join(err, m.device.Detach())
	if m.options.Detached != nil {
		m.options.Detached(m.device.Name)
	}
	return err
}
