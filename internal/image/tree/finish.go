package tree

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// subject is what gets attributes: an open file, or a name in a folder.
type subject struct {
	fd   int
	dir  int
	name string
}

func (s subject) path() string {
	if s.fd >= 0 {
		return ""
	}
	return inFolder(s.dir, s.name)
}

func (s subject) chown(uid, gid int) error {
	if s.fd >= 0 {
		return unix.Fchown(s.fd, uid, gid)
	}
	return unix.Fchownat(s.dir, s.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// chmod changes the mode of what is no link: those have none.
func (s subject) chmod(mode uint32) error {
	if s.fd >= 0 {
		return unix.Fchmod(s.fd, mode)
	}
	// fchmodat(2) would follow a link that took the name's place.
	fd, err := unix.Openat(s.dir, s.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod("/proc/self/fd/"+itoa(fd), mode)
}

func (s subject) setTimes(times []unix.Timespec) error {
	if s.fd >= 0 {
		return futimens(s.fd, times)
	}
	return unix.UtimesNanoAt(s.dir, s.name, times, unix.AT_SYMLINK_NOFOLLOW)
}

func futimens(fd int, times []unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(unsafe.SliceData(times))), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (s subject) stat() (item, error) {
	dir, name, flags := s.dir, s.name, unix.AT_SYMLINK_NOFOLLOW
	if s.fd >= 0 {
		dir, name, flags = s.fd, "", unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	err := retry(func() error { return unix.Statx(dir, name, flags, unix.STATX_BASIC_STATS, &st) })
	return itemOf(&st), err
}

// early gives a file or folder what it takes only while it is empty, or what has
// to be there before the data is.
func (c *copier) early(f *folder, name string, fd int, ext inode) error {
	if want := ext.flags & kept &^ sealing; want != 0 {
		refused, err := setFlags(fd, want, kept&^sealing)
		if err != nil {
			return fmt.Errorf("giving it its flags: %w", err)
		}
		if refused != 0 {
			c.lose(f, name, "flags", "the target does not take "+letters(refused)+" (as chattr writes it)")
		}
	}
	for _, never := range []struct {
		flag uint32
		why  string
	}{{flagVerity, "fs-verity protects it in the source, and does not in the copy"}, {flagEncrypted, "it is encrypted in the source, and is not in the copy"}} {
		if ext.flags&never.flag != 0 {
			c.lose(f, name, "protection", never.why)
		}
	}
	if ext.xflags&xflagRealtime != 0 {
		c.lose(f, name, "realtime", "it lies on a device of its own in the source")
	}
	if ext.project == 0 && ext.xflags&xkept == 0 {
		return nil
	}
	project, extents, err := setProject(fd, ext)
	if err != nil {
		return fmt.Errorf("giving it its project: %w", err)
	}
	if !project {
		c.lose(f, name, "project", "the target keeps none; mke2fs -O project,quota makes one that does")
	}
	if !extents {
		c.lose(f, name, "extent hints", "the target has none")
	}
	return nil
}

// finish gives an entry its owner, mode, attributes, times and last of all the
// flags that forbid to change any. The order matters: a new owner clears set-id
// bits and capabilities.
func (c *copier) finish(f *folder, name string, i *item, to subject, xattrs []xattr, ext inode, seal bool) error {
	err := retry(func() error { return to.chown(int(i.uid), int(i.gid)) })
	if err == nil && i.kind() != unix.S_IFLNK {
		err = to.chmod(uint32(i.mode & 0o7777))
	}
	if err != nil && !notTaken(err) {
		return fmt.Errorf("giving it its owner and mode: %w", err)
	}
	if err := c.giveXattrs(f, name, to, xattrs); err != nil {
		return err
	}
	times := []unix.Timespec{{Sec: i.atime.Sec, Nsec: int64(i.atime.Nsec)}, {Sec: i.mtime.Sec, Nsec: int64(i.mtime.Nsec)}}
	if err := retry(func() error { return to.setTimes(times) }); err != nil && !notTaken(err) {
		return fmt.Errorf("giving it its time: %w", err)
	}
	if err := c.compare(f, name, i, to); err != nil {
		return err
	}
	want := ext.flags & sealing
	if want == 0 {
		return nil
	}
	if !seal {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sealed = append(c.sealed, sealed{f, name, want})
		return nil
	}
	return c.giveSeal(f, name, to.fd, want)
}

func (c *copier) giveSeal(f *folder, name string, fd int, want uint32) error {
	refused, err := setFlags(fd, want, sealing)
	if err != nil {
		return fmt.Errorf("giving it its flags: %w", err)
	}
	if refused != 0 {
		c.lose(f, name, "flags", "the target does not take "+letters(refused)+" (as chattr writes it)")
	}
	return nil
}

// notTaken reports that a target has no place for an attribute, or that we may
// not give it. What it has instead is looked at afterwards.
func notTaken(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOVERFLOW)
}

func (c *copier) giveXattrs(f *folder, name string, to subject, xattrs []xattr) error {
	for _, x := range xattrs {
		err := retry(func() error { return setXattr(to.fd, to.path(), x) })
		switch {
		case err == nil:
		case notTaken(err), errors.Is(err, unix.E2BIG), errors.Is(err, unix.ERANGE),
			errors.Is(err, unix.ENOSPC) && c.hasRoom():
			c.lose(f, name, "xattr "+Escape(x.name), "the target does not take it: "+err.Error())
		case errors.Is(err, unix.ENOSPC):
			return full(err)
		default:
			return fmt.Errorf("giving it the attribute %s: %w", Escape(x.name), err)
		}
	}
	return nil
}

// hasRoom reports that the target has blocks left: an attribute that does not
// fit is larger than one may be there.
func (c *copier) hasRoom() bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(c.root, &fs) == nil && int64(fs.Bavail)*fs.Bsize > 16*xattrSpace
}

// compare looks at what an entry came to have, and lists what differs.
func (c *copier) compare(f *folder, name string, i *item, to subject) error {
	is, err := to.stat()
	if err != nil {
		return fmt.Errorf("looking at its copy: %w", err)
	}
	if is.uid != i.uid || is.gid != i.gid {
		c.lose(f, name, "owner", fmt.Sprintf("it was %d:%d and is %d:%d", i.uid, i.gid, is.uid, is.gid))
	}
	if is.mode != i.mode {
		c.lose(f, name, "mode", fmt.Sprintf("it was %04o and is %04o", i.mode&0o7777, is.mode&0o7777))
	}
	if is.mtime != i.mtime {
		c.lose(f, name, "time", fmt.Sprintf("it was %s and is %s", seconds(i.mtime), seconds(is.mtime)))
	}
	return nil
}

// scrub takes from a folder of the target what its entries would inherit, and
// what its counterpart may not have.
func scrub(fd int) error {
	xattrs, err := readXattrs(fd, 0, "")
	if err != nil {
		return fmt.Errorf("reading the attributes of its copy: %w", err)
	}
	for _, x := range xattrs {
		if err := unix.Fremovexattr(fd, x.name); err != nil && !notTaken(err) && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("clearing the attribute %s of its copy: %w", Escape(x.name), err)
		}
	}
	_, err = setFlags(fd, 0, kept&^sealing)
	return err
}
