// Package hold finds out who holds an image file, and holds it for as long as work
// on it goes on: others are refused meanwhile, and it is not touched while others
// have it.
//
// A file is known by its device and inode, never by its name, which may be another
// in each mount namespace and lead elsewhere a moment later.
package hold

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Open opens an image file, to write where that is asked for. Symbolic links are
// followed. What is no file, or an empty one, is refused before it is opened, since
// opening a FIFO waits and opening a device may do things.
func Open(path string, write bool) (*os.File, error) { return openWith(path, write, 0) }

// OpenReal is [Open] of a path with no symbolic link at its end. One that came to be
// there meanwhile is refused.
func OpenReal(path string, write bool) (*os.File, error) {
	return openWith(path, write, unix.O_NOFOLLOW)
}

func openWith(path string, write bool, flag int) (*os.File, error) {
	seen, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flag, 0)
	if err != nil {
		return nil, OpenError(path, err)
	}
	defer unix.Close(seen)
	var st unix.Stat_t
	if err := unix.Fstat(seen, &st); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	}
	if err := refuseOther(path, &st); err != nil {
		return nil, err
	}
	if err := refuseLeased(path, seen, write); err != nil {
		return nil, err
	}
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	fd, err := openSeen(seen, flags)
	if errors.Is(err, unix.EAGAIN) {
		return nil, &upkeep.HintError{
			Err:  fmt.Errorf("%w: %s is leased to another program, such as a file server", upkeep.ErrRefused, path),
			Hint: "upkeep image holders " + path + " names it",
		}
	}
	if err != nil {
		return nil, OpenError(path, err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openSeen opens the file that was looked at, and no other that has its name by now.
func openSeen(seen, flags int) (fd int, err error) {
	for try := 1; ; try++ {
		// Without O_NONBLOCK a lease that somebody holds would have this wait for a minute.
		fd, err = unix.Open("/proc/self/fd/"+strconv.Itoa(seen), flags|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		// Another that looks whether it is alone has a lease for a moment: see [alone].
		if !errors.Is(err, unix.EAGAIN) || try >= tries {
			return fd, err
		}
		<-time.After(pause)
	}
}

// refuseLeased refuses a file whose lease opening it would break.
func refuseLeased(path string, seen int, write bool) error {
	fd, err := unix.FcntlInt(uintptr(seen), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("looking at %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	l, err := newLook(f)
	if err != nil {
		return err
	}
	for pid, h := range l.listedLocks() {
		if h.What == IsLeased && (write || h.Writes) && !l.ours.has(pid) {
			return busy(f, []Holder{h.named(pid)})
		}
	}
	return nil
}

func refuseOther(path string, st *unix.Stat_t) error {
	is := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Size > 0 {
			return nil
		}
		return &upkeep.HintError{
			Err:  fmt.Errorf("%w: %s is an empty file; an image has a size", upkeep.ErrRefused, path),
			Hint: "remove it, and make an image with upkeep image create",
		}
	case unix.S_IFLNK:
		is = "a symbolic link, which is not followed"
	case unix.S_IFDIR:
		is = "a directory"
	case unix.S_IFIFO:
		is = "a FIFO"
	case unix.S_IFSOCK:
		is = "a socket"
	case unix.S_IFBLK:
		is = "a block device"
	case unix.S_IFCHR:
		is = "a character device"
	default:
		is = "of an unknown kind"
	}
	return fmt.Errorf("%w: %s is %s; an image is a regular file", upkeep.ErrRefused, path, is)
}

// OpenError says in words what the usual failures to find or open an image mean.
func OpenError(path string, err error) error {
	if at := (*fs.PathError)(nil); errors.As(err, &at) {
		err = at.Err // which does not name the path again
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(path, "://"):
		return upkeep.WithHint(fmt.Errorf("%w: %s is no file of this machine", upkeep.ErrNotFound, path), "upkeep image unpack, ls and cat read from http:// and https://")
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no file %s", upkeep.ErrNotFound, path)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: %s leads through something that is no directory", upkeep.ErrNotFound, path)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: %s is a symbolic link that leads round in a circle, or through more than 40 others", upkeep.ErrRefused, path)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %s lies on a file system that is mounted read-only", upkeep.ErrRefused, path)
	case errors.Is(err, fs.ErrPermission):
		return &upkeep.HintError{
			Err:  fmt.Errorf("opening %s: %w", path, err),
			Hint: "run it as the owner of the file, or as root",
		}
	}
	return fmt.Errorf("opening %s: %w", path, err)
}
