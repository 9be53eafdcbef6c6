// Package allocation asks how a file lies on its host: where it has data, and which of
// its blocks are allocated.
package allocation

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Extent is a piece of a file, in bytes, that is allocated in one piece.
type Extent struct {
	From, To int64
	// Unwritten is that it was allocated and never written: it reads as zeros, and
	// SEEK_DATA takes it for a hole.
	Unwritten bool
}

// The request of FIEMAP; see Documentation/filesystems/fiemap.rst of Linux.
type (
	fiemap struct {
		start, length                    uint64
		flags, mapped, extents, reserved uint32
		extent                           [48]fiemapExtent
	}
	fiemapExtent struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
)

const (
	fsIocFiemap     = 0xc020660b
	fiemapSync      = 0x1
	extentLast      = 0x1
	extentUnwritten = 0x800
)

// Extents calls each with the extents of a file, in order, until it returns false.
// With sync, what is in memory alone is written first: until then it has no place.
// A file system that knows no FIEMAP has an error of ioctl(2).
func Extents(fd int, sync bool, each func(Extent) bool) error {
	var m fiemap
	for {
		m.length = ^uint64(0) - m.start
		m.extents, m.mapped, m.flags = uint32(len(m.extent)), 0, 0
		if sync {
			m.flags = fiemapSync
		}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocFiemap, uintptr(unsafe.Pointer(&m))); errno == unix.EINTR {
			continue
		} else if errno != 0 {
			return errno
		}
		if m.mapped == 0 {
			return nil
		}
		for _, e := range m.extent[:min(m.mapped, m.extents)] {
			x := Extent{From: int64(e.logical), To: int64(e.logical + e.length), Unwritten: e.flags&extentUnwritten != 0}
			if x.From < 0 || x.To <= x.From || uint64(x.To) <= m.start {
				return unix.EIO
			}
			if !each(x) || e.flags&extentLast != 0 {
				return nil
			}
			m.start = uint64(x.To)
		}
	}
}

// Whole reports whether each of the first size bytes of a file is allocated.
func Whole(file *os.File, size int64) (bool, error) {
	at := int64(0)
	err := Extents(int(file.Fd()), true, func(e Extent) bool {
		if e.From > at {
			return false
		}
		at = max(at, e.To)
		return at < size
	})
	return at >= size, err
}

// NextData finds the first data at or after an offset: from == to == size when
// there is none. A file system that knows no holes has data everywhere.
func NextData(fd int, at, size int64) (from, to int64, err error) {
	from, err = unix.Seek(fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL):
		return at, size, nil
	case err != nil:
		return 0, 0, err
	}
	to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) {
		to, err = size, nil // the file was cut meanwhile, which is for who reads it to find
	}
	if err != nil {
		return 0, 0, err
	}
	return min(from, size), min(to, size), nil
}

// Data is how many bytes of a range hold data, as far as the host can tell.
func Data(file *os.File, at, end int64) int64 {
	sum := int64(0)
	for at < end {
		from, to, err := NextData(int(file.Fd()), at, end)
		if err != nil {
			break
		}
		sum += to - from
		at = to
	}
	return sum
}
