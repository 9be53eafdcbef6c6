package selftest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// as runs f with the user and the group of a tenant and no other power, as a
// program of the tenant's would: on a thread of its own, which ends with it.
// Without users of accounts it runs as who this is.
func (w *World) as(uid int, f func() error) error {
	if !w.Users {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has become a tenant's is of no use to anybody
		// else, and the runtime ends it with the goroutine.
		runtime.LockOSThread()
		if err := become(uid); err != nil {
			done <- fmt.Errorf("becoming user %d: %w", uid, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// tenant is [World.as] for the account evil.
func (w *World) tenant(f func() error) error { return w.as(w.uid, f) }

// become gives up this thread's privileges for good. The system calls are made
// directly, for those of package syscall change every thread.
func become(id int) error {
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, uintptr(id), uintptr(id), uintptr(id)},
		{unix.SYS_SETRESUID, uintptr(id), uintptr(id), uintptr(id)},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return errno
		}
	}
	return nil
}

// put writes a page of a site of the tenant's, as the tenant.
func (w *World) put(site, name, text string) error {
	path := filepath.Join(w.htdocs(evil, site), filepath.FromSlash(name))
	return w.tenant(func() error {
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	})
}
