package safefs

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// identity is who the kernel takes a thread for when it opens and makes files.
type identity struct{ uid, gid int }

// do runs f as whoever the folder belongs to.
func (d *Dir) do(f func() error) error {
	if d.as == nil {
		return f()
	}
	return d.as.run(f)
}

// run runs f on a thread of its own with the identity, which ends with it: there
// is nothing to put back, and nothing that could be forgotten.
func (id identity) run(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := id.assume()
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// assume gives this thread the identity. The raw calls are meant: those of the
// syscall package change every thread of the process. With a file system user id
// other than 0 the thread has none of the capabilities that override permissions
// (capabilities(7), "Effect of user ID changes on capabilities").
func (id identity) assume() error {
	if id.uid <= 0 || id.gid <= 0 {
		return fmt.Errorf("acting as user %d with group %d: these are root's", id.uid, id.gid)
	}
	groups := [1]uint32{uint32(id.gid)}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&groups)), 0); errno != 0 {
		return fmt.Errorf("acting as user %d: setting its groups: %w", id.uid, errno)
	}
	// Neither call reports an error; asking with an id that cannot be has the
	// present one returned (setfsuid(2), "BUGS").
	const ask = ^uintptr(0)
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(id.gid), 0, 0)
	if now, _, _ := unix.RawSyscall(unix.SYS_SETFSGID, ask, 0, 0); int(now) != id.gid {
		return fmt.Errorf("acting as user %d: its group was not taken; the agent needs CAP_SETGID", id.uid)
	}
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(id.uid), 0, 0)
	if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ask, 0, 0); int(now) != id.uid {
		return fmt.Errorf("acting as user %d: it was not taken; the agent needs CAP_SETUID", id.uid)
	}
	return nil
}
