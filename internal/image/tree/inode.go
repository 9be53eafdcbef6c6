package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An xattr is an extended attribute; access lists and capabilities are some.
type xattr struct {
	name  string
	value []byte
}

// xattrSpace is as much as a list of names or a value can take.
const xattrSpace = 64 << 10

var xattrBuffers = sync.Pool{New: func() any { return new([xattrSpace]byte) }}

// readXattrs reads all attributes of a file, sorted by name. It goes by
// descriptor where there is one, else by name in a folder: devices, fifos and
// links are never opened.
func readXattrs(fd, dir int, name string) ([]xattr, error) {
	buffer := xattrBuffers.Get().(*[xattrSpace]byte)
	defer xattrBuffers.Put(buffer)
	path := ""
	if fd < 0 {
		path = inFolder(dir, name)
	}
	n, err := listXattrs(fd, path, buffer[:])
	if errors.Is(err, unix.EOPNOTSUPP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []xattr
	names := bytes.Split(bytes.TrimSuffix(bytes.Clone(buffer[:n]), []byte{0}), []byte{0})
	for _, name := range names {
		if again := accessListOfXFS[string(name)]; again != "" && slices.ContainsFunc(names, func(n []byte) bool { return string(n) == again }) {
			continue
		}
		n, err := getXattr(fd, path, string(name), buffer[:])
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // listed and not kept: computed by the system, as some of overlays are
		}
		if err != nil {
			return nil, err
		}
		found = append(found, xattr{string(name), bytes.Clone(buffer[:n])})
	}
	slices.SortFunc(found, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return found, nil
}

// accessListOfXFS are the names under which XFS shows access lists a second time,
// as it keeps them.
var accessListOfXFS = map[string]string{
	"trusted.SGI_ACL_FILE": "system.posix_acl_access", "trusted.SGI_ACL_DEFAULT": "system.posix_acl_default",
}

func listXattrs(fd int, path string, buffer []byte) (int, error) {
	if fd >= 0 {
		return unix.Flistxattr(fd, buffer)
	}
	return unix.Llistxattr(path, buffer)
}

func getXattr(fd int, path, name string, buffer []byte) (int, error) {
	if fd >= 0 {
		return unix.Fgetxattr(fd, name, buffer)
	}
	return unix.Lgetxattr(path, name, buffer)
}

func setXattr(fd int, path string, x xattr) error {
	if fd >= 0 {
		return unix.Fsetxattr(fd, x.name, x.value, 0)
	}
	return unix.Lsetxattr(path, x.name, x.value, 0)
}

// inFolder is a path to a name in a folder that is open, for system calls that
// have no other way; the last part of it is not followed by those that are used.
func inFolder(dir int, name string) string {
	return "/proc/self/fd/" + itoa(dir) + "/" + name
}

func itoa(n int) string {
	if n < 10 {
		return string([]byte{byte('0' + n)})
	}
	return itoa(n/10) + string([]byte{byte('0' + n%10)})
}

// Flags of inodes, of linux/fs.h; those of FS_IOC_SETFLAGS and, where the two are
// not the same thing, of FS_IOC_FSSETXATTR.
const (
	flagSync      = 0x8
	flagImmutable = 0x10
	flagAppend    = 0x20
	flagVerity    = 0x100000
	flagEncrypted = 0x800
	flagJournaled = 0x4000
	flagDirSync   = 0x10000

	// kept are those that people set and file systems let be set: s u c S i a d A m t
	// j D T C x F P of chattr. The others say how an inode is laid out.
	kept = 0x1 | 0x2 | 0x4 | flagSync | flagImmutable | flagAppend | 0x40 | 0x80 | 0x400 | 0x8000 | flagJournaled |
		flagDirSync | 0x20000 | 0x800000 | 0x2000000 | 0x20000000 | 0x40000000
	// sealing are flags that forbid what is still to be done, or make it slow.
	sealing = flagImmutable | flagAppend | flagSync | flagDirSync | flagJournaled

	xflagRealtime  = 0x1
	xflagPrealloc  = 0x2
	xflagRTInherit = 0x100
	xflagNoLinks   = 0x400
	xflagExtSize   = 0x800
	xflagExtSzInh  = 0x1000
	xflagNoDefrag  = 0x2000
	xflagFilestrm  = 0x4000
	xflagCowExt    = 0x10000
	xkept          = xflagRTInherit | xflagNoLinks | xflagExtSize | xflagExtSzInh | xflagNoDefrag | xflagFilestrm | xflagCowExt

	fsIocFSGetXattr = 0x801c581f
	fsIocFSSetXattr = 0x401c5820
)

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extSize, extents, project, cowExtSize uint32
	_                                             [8]byte
}

// inode has what ioctls tell of an inode of a file or folder.
type inode struct {
	flags    uint32 // of FS_IOC_GETFLAGS, all of them
	xflags   uint32 // of FS_IOC_FSGETXATTR, all of them
	project  uint32
	extSize  uint32
	cowSize  uint32
	hasFlags bool // the file system has any
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// noIoctl reports that a file system, or a kind of file, has not got such a thing.
func noIoctl(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}

func readInode(fd int) (inode, error) {
	var i inode
	var flags int64 // the kernel writes 32 bits of it
	err := ioctl(fd, unix.FS_IOC_GETFLAGS, unsafe.Pointer(&flags))
	if err == nil {
		i.flags, i.hasFlags = low32(&flags), true
	} else if !noIoctl(err) {
		return i, err
	}
	var x fsxattr
	err = ioctl(fd, fsIocFSGetXattr, unsafe.Pointer(&x))
	if err == nil {
		i.xflags, i.project, i.extSize, i.cowSize = x.xflags, x.project, x.extSize, x.cowExtSize
	} else if !noIoctl(err) {
		return i, err
	}
	return i, nil
}

func low32(n *int64) uint32 {
	return binary.NativeEndian.Uint32((*[8]byte)(unsafe.Pointer(n))[:])
}

// setFlags gives a file flags; what of them it did not take is returned.
func setFlags(fd int, want, among uint32) (refused uint32, err error) {
	var now int64
	if err := ioctl(fd, unix.FS_IOC_GETFLAGS, unsafe.Pointer(&now)); err != nil {
		if noIoctl(err) {
			return want & among, nil
		}
		return 0, err
	}
	base := low32(&now) &^ among
	if base|want&among == low32(&now) {
		return 0, nil
	}
	try := func(flags uint32) error {
		value := int64(flags)
		if flags != 0 {
			binary.NativeEndian.PutUint32((*[8]byte)(unsafe.Pointer(&value))[:], flags)
		}
		return ioctl(fd, unix.FS_IOC_SETFLAGS, unsafe.Pointer(&value))
	}
	if try(base|want&among) != nil {
		// One of them is not to its liking; each is tried by itself.
		for bit := uint32(1); bit != 0; bit <<= 1 {
			if want&among&bit == 0 {
				continue
			}
			if try(base|bit) == nil {
				base |= bit
			}
		}
	}
	if err := ioctl(fd, unix.FS_IOC_GETFLAGS, unsafe.Pointer(&now)); err != nil {
		return 0, err
	}
	return want & among &^ low32(&now), nil
}

// setProject gives a file its project and what belongs to extents, as XFS has it;
// false when the target has no place for one of them.
func setProject(fd int, from inode) (project, extents bool, err error) {
	var x fsxattr
	if err := ioctl(fd, fsIocFSGetXattr, unsafe.Pointer(&x)); err != nil {
		if noIoctl(err) {
			return false, from.xflags&xkept == 0, nil
		}
		return false, false, err
	}
	x.project = from.project
	project = ioctl(fd, fsIocFSSetXattr, unsafe.Pointer(&x)) == nil
	if from.xflags&xkept == 0 {
		return project, true, nil
	}
	if !project {
		x.project = 0
	}
	x.xflags |= from.xflags & xkept
	x.extSize, x.cowExtSize = from.extSize, from.cowSize
	return project, ioctl(fd, fsIocFSSetXattr, unsafe.Pointer(&x)) == nil, nil
}

// flagNames are the letters of lsattr(1).
var flagNames = []struct {
	bit  uint32
	name byte
}{
	{0x1, 's'}, {0x2, 'u'}, {0x4, 'c'}, {flagSync, 'S'}, {flagImmutable, 'i'}, {flagAppend, 'a'}, {0x40, 'd'}, {0x80, 'A'},
	{0x400, 'm'}, {0x8000, 't'}, {flagJournaled, 'j'}, {flagDirSync, 'D'}, {0x20000, 'T'}, {0x800000, 'C'}, {0x2000000, 'x'},
	{0x20000000, 'P'}, {0x40000000, 'F'},
}

// letters writes flags as lsattr does.
func letters(flags uint32) string {
	var b []byte
	for _, f := range flagNames {
		if flags&f.bit != 0 {
			b = append(b, f.name)
		}
	}
	return string(b)
}
