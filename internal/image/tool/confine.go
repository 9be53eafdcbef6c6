package tool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/thread"
)

type confinedKey struct{}

// Confined is a context in which programs are given an image that may mean harm: they
// can open it, and read what programs need to run, and nothing else (Landlock); they
// have no capability but to open the file whoever owns it, no network, no signal for
// others, and no way to gain more. Where the kernel has no Landlock, or this process
// may not drop capabilities, what that would add is left out.
func Confined(ctx context.Context) context.Context {
	return context.WithValue(ctx, confinedKey{}, true)
}

// start runs a command to its end, see [run]. It is started from a thread of its own: what
// is laid on that is inherited by the program and can never be taken off, and a program is
// killed with the thread that started it, not with the process (prctl(2),
// PR_SET_PDEATHSIG).
func (c Command) start(ctx context.Context, cmd *exec.Cmd, ask time.Duration) error {
	done := make(chan error, 1)
	thread.Own(func() {
		var err error
		if ctx.Value(confinedKey{}) != nil {
			err = confine(cmd.ExtraFiles)
		}
		if err == nil && c.NoSync {
			err = errors.Join(without(unix.SYS_SYNC), without(unix.SYS_FSYNC))
		}
		if err == nil {
			err = run(cmd, ask)
		}
		done <- err
	})
	return <-done
}

// confine confines the calling thread.
func confine(files []*os.File) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("confining a program: %w", err)
	}
	if err := restrictFiles(files); err != nil {
		return fmt.Errorf("confining a program to its image: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	// A program that root starts gets what is left in the bounding set.
	for capability := uintptr(0); capability <= unix.CAP_LAST_CAP; capability++ {
		if capability == unix.CAP_DAC_OVERRIDE {
			continue // the image may be another user's
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			break // more than this kernel knows; or a service that has few, and may drop none
		}
		if err != nil {
			return fmt.Errorf("confining a program: dropping capability %d: %w", capability, err)
		}
	}
	return nil
}

// What may be opened, beside the image.
var (
	runs  = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
	reads = []string{"/proc", "/sys", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/mke2fs.conf", "/etc/e2fsck.conf", "/etc/mtab", "/etc/localtime", "/etc/nsswitch.conf",
		"/dev/urandom", "/dev/random"}
	writes = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/tty"}
)

const (
	readable = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// onFiles are the rights that a file can have, rather than a folder.
	onFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// handled are the rights that a version of Landlock knows: what is handled and not
// given is refused.
func handled(version uintptr) unix.LandlockRulesetAttr {
	r := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_REFER - 1}
	for _, one := range []struct {
		since uintptr
		right uint64
	}{{2, unix.LANDLOCK_ACCESS_FS_REFER}, {3, unix.LANDLOCK_ACCESS_FS_TRUNCATE}, {5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}} {
		if version >= one.since {
			r.Handled_access_fs |= one.right
		}
	}
	if version >= 4 {
		r.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= 6 {
		r.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return r
}

// landlock is the version of Landlock that the kernel has, 0 for none.
func landlock() (version uintptr, err error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
		return version, nil
	case unix.ENOSYS, unix.EOPNOTSUPP:
		return 0, nil
	}
	return 0, errno
}

// ConfinesFiles reports whether [Confined] keeps programs from other files here.
func ConfinesFiles() bool {
	version, err := landlock()
	return err == nil && version > 0
}

// restrictFiles lets the calling thread open these files, what programs need, and
// nothing else. The kernel keeps the files until the thread and the programs have ended,
// and a moment longer: the blocks of one that is removed meanwhile are free after that.
func restrictFiles(files []*os.File) error {
	version, err := landlock()
	if err != nil || version == 0 {
		return err
	}
	rights := handled(version)
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rights)), unsafe.Sizeof(rights), 0)
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(set))
	allow := func(fd int, may uint64) error {
		rule := unix.LandlockPathBeneathAttr{Allowed_access: may & rights.Handled_access_fs, Parent_fd: int32(fd)}
		_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
		if errno != 0 && errno != unix.EBADFD { // a pipe is no file
			return errno
		}
		return nil
	}
	for _, file := range files {
		if err := allow(int(file.Fd()), onFiles&^unix.LANDLOCK_ACCESS_FS_EXECUTE); err != nil {
			return fmt.Errorf("letting it have %s: %w", file.Name(), err)
		}
	}
	for may, paths := range map[uint64][]string{
		readable | unix.LANDLOCK_ACCESS_FS_EXECUTE: runs, readable: reads, unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE: writes,
	} {
		for _, path := range paths {
			if err := allowPath(path, may, allow); err != nil {
				return fmt.Errorf("letting it have %s: %w", path, err)
			}
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// allowPath allows a path, if it is there. Files have fewer rights than folders.
func allowPath(path string, may uint64, allow func(fd int, may uint64) error) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		may &= onFiles
	}
	return allow(fd, may)
}
