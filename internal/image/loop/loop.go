// Package loop puts loop devices on image files. They go by themselves when
// nothing uses them any more, so that a kill leaves none behind.
package loop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Options are the part of the file that the device has, and how it is reached.
type Options struct {
	Offset, Size int64 // in bytes; a size of 0 is all from the offset on
	ReadOnly     bool
	// DirectIO keeps what the device reads and writes out of the host's page cache,
	// where the file's file system can; what is mounted has a cache of its own.
	DirectIO  bool
	BlockSize int // of the device; 0 is 512 bytes
	// Name is what the kernel keeps of the device in the field for the file's name, of
	// which there are 63 bytes. It is the name of the file when it is empty.
	Name string
}

// A Device is a loop device on an image. It is there for as long as it is open:
// here, or because it is mounted.
type Device struct {
	Name string   // "loop3"
	File *os.File // the open device

	backing *os.File
	seq     string
}

// patience is how long is waited for what ends within milliseconds.
const patience = time.Minute

// Attach puts a device on the part of a file. The device shares the file's
// description: locks on it stay until the device goes.
func Attach(f *os.File, o Options) (*Device, error) {
	if err := o.validate(f); err != nil {
		return nil, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, noLoops(err)
	}
	defer control.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		d, err := attach(int(control.Fd()), f, o)
		// The number that was free is somebody else's by now.
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) || ctx.Err() != nil {
			return d, err
		}
		<-time.After(time.Millisecond)
	}
}

func (o Options) validate(f *os.File) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("looking at %s: %w", f.Name(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("looking at %s: %w", f.Name(), err)
	}
	switch {
	case o.Offset < 0 || o.Size < 0 || o.Size > math.MaxInt64-o.Offset || o.Offset+o.Size > st.Size || o.Offset >= st.Size:
		return fmt.Errorf("%w: %d bytes from byte %d on are not within %s, which has %d", upkeep.ErrRefused, o.Size, o.Offset, f.Name(), st.Size)
	case !o.ReadOnly && flags&unix.O_ACCMODE != unix.O_RDWR:
		return fmt.Errorf("attaching %s to write: %w", f.Name(), &fs.PathError{Op: "write", Path: f.Name(), Err: unix.EBADF})
	case st.Size-o.Offset < 512:
		return fmt.Errorf("%w: %s has less than the 512 bytes from byte %d on that a device has", upkeep.ErrRefused, f.Name(), o.Offset)
	}
	return nil
}

func noLoops(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &upkeep.HintError{Err: fmt.Errorf("making a loop device needs root: %w", err), Hint: "run it as root"}
	}
	return &upkeep.HintError{
		Err:  fmt.Errorf("there are no loop devices here: %w", err),
		Hint: "modprobe loop; in a container, allow it /dev/loop-control and the loop devices",
	}
}

func attach(control int, f *os.File, o Options) (*Device, error) {
	number, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("asking for a loop device: %w", err)
	}
	d := &Device{Name: "loop" + strconv.Itoa(number), backing: f}
	d.File, err = d.open(o.ReadOnly)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: uint32(o.BlockSize)}
	config.Info.Offset, config.Info.Sizelimit = uint64(o.Offset), uint64(o.Size)
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if o.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if o.DirectIO {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], cmp.Or(o.Name, f.Name()))
	if err := unix.IoctlLoopConfigure(int(d.File.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("attaching %s to %s: %w", f.Name(), d.Name, err), d.File.Close())
	}
	d.seq = d.sys("diskseq")
	return d, nil
}

// open opens the device, and makes its name where nothing else does, as in a
// container.
func (d *Device) open(readOnly bool) (*os.File, error) {
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	file, err := os.OpenFile(d.Path(), flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		major, minor, _ := strings.Cut(d.sys("dev"), ":")
		high, err1 := strconv.ParseUint(major, 10, 32)
		low, err2 := strconv.ParseUint(minor, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("looking up the number of %s: %w", d.Name, err)
		}
		err = unix.Mknod(d.Path(), unix.S_IFBLK|0o600, int(unix.Mkdev(uint32(high), uint32(low))))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("making %s: %w", d.Path(), err)
		}
		file, err = os.OpenFile(d.Path(), flags, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("opening a loop device: %w", err)
	}
	return file, nil
}

// sys is what the kernel tells of the device.
func (d *Device) sys(name string) string {
	text, err := os.ReadFile(filepath.Join("/sys/block", d.Name, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// Path is the device's name in /dev.
func (d *Device) Path() string { return "/dev/" + d.Name }

// Leave lets the device go when nothing else uses it any more, without waiting for
// that: what is mounted stays mounted.
func (d *Device) Leave() error { return d.File.Close() }

// Detach lets go of the device, and returns when it is gone and all that was written
// through it is on the disk.
func (d *Device) Detach() error {
	if err := d.File.Close(); err != nil {
		return fmt.Errorf("closing %s: %w", d.Name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.Gone(ctx); err != nil {
		return err
	}
	if err := d.backing.Sync(); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", d.backing.Name(), err)
	}
	return nil
}

// Gone waits until the device is detached.
func (d *Device) Gone(ctx context.Context) error {
	for d.Attached() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s is still in use", upkeep.ErrConflict, d.Path())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// Attached tells whether the device is still there. It asks without opening the device, which would keep it. A device that was
// attached anew since has another number in its sequence.
func (d *Device) Attached() bool {
	if _, err := os.Stat(filepath.Join("/sys/block", d.Name, "loop")); err != nil {
		return false
	}
	return d.seq == "" || d.sys("diskseq") == d.seq
}

// Autoclear reports whether the device goes with its last user.
func (d *Device) Autoclear() bool { return d.sys("loop/autoclear") == "1" }

// On is a device that somebody attached earlier, by its name. It holds nothing: it is
// there to be waited for.
func On(name string) *Device {
	d := &Device{Name: name}
	d.seq = d.sys("diskseq")
	return d
}
