package chroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// leftMode is the mode of files that are made to mount others over: no other would
// have it.
const leftMode = 0o404

// tree is the tree of the image while a command runs in it.
type tree struct {
	made []string // empty files that others are mounted over
}

// enter makes the mounted image the whole tree, and puts into it what a system needs
// to run. Of the host's mounts none stays.
func (t *tree) enter() error {
	resolver, err := os.ReadFile("/etc/resolv.conf") // the host's, while it can be read
	if err != nil {
		resolver = nil
	}
	for _, setUp := range []func() error{pivot, keepHost, setUpProc, setUpDev, setUpRun} {
		if err := setUp(); err != nil {
			return err
		}
	}
	if err := t.lendResolver(resolver); err != nil {
		return err
	}
	return t.lendPolicy()
}

// pivot makes the image the root, and lets go of the host's tree.
func pivot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making a mount namespace private: %w", err)
	}
	if err := unix.MoveMount(rootFD, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("putting the image into a mount namespace: %w", err)
	}
	if err := unix.Fchdir(rootFD); err != nil {
		return fmt.Errorf("going into the image: %w", err)
	}
	// With both names the same, the old root ends up on top of the new one, from where
	// it is taken away (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("making the image the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the host's tree: %w", err)
	}
	return errors.Join(unix.Close(rootFD), unix.Chdir("/"))
}

// keepHost takes what root can do to the host beside files: its clock, its kernel's
// modules, its memory and its restart. That holds for the calling thread and for what
// it starts.
func keepHost() error {
	for _, capability := range []uintptr{unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO, unix.CAP_SYS_TIME, unix.CAP_SYS_BOOT} {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
			return fmt.Errorf("giving up capability %d: %w", capability, err)
		}
	}
	return nil
}

var errNoPlace = errors.New("the image has no folder")

// mountOn mounts a file system of the kernel's on a folder of the image, which must
// be one: a symbolic link is not followed.
func mountOn(folder, kind string, flags uintptr, data string) error {
	info, err := os.Lstat(folder)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return fmt.Errorf("%w %s: no system's tree is in it", errNoPlace, folder)
	}
	if err != nil {
		return fmt.Errorf("looking at %s in the image: %w", folder, err)
	}
	if err := unix.Mount(kind, folder, kind, flags|unix.MS_NOSUID, data); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", kind, folder, err)
	}
	return nil
}

// setUpProc mounts the processes of the namespace. What in there belongs to the
// whole machine can be read only.
func setUpProc() error {
	if err := mountOn("/proc", "proc", unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"} {
		err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, "")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		}
		if err != nil {
			return fmt.Errorf("protecting %s: %w", path, err)
		}
	}
	return nil
}

// setUpDev fills /dev with devices that hold nothing of the host. A devtmpfs would
// be the host's own: there is but one, and what is removed there is gone everywhere.
func setUpDev() error {
	if err := mountOn("/dev", "tmpfs", unix.MS_NOEXEC, "mode=755,size=1m"); err != nil {
		return err
	}
	defer unix.Umask(unix.Umask(0))
	for _, device := range []struct {
		name  string
		minor uint32
		major uint32
	}{{"null", 3, 1}, {"zero", 5, 1}, {"full", 7, 1}, {"random", 8, 1}, {"urandom", 9, 1}, {"tty", 0, 5}} {
		if err := unix.Mknod("/dev/"+device.name, unix.S_IFCHR|0o666, int(unix.Mkdev(device.major, device.minor))); err != nil {
			return fmt.Errorf("making /dev/%s: %w", device.name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return fmt.Errorf("making /dev/%s: %w", name, err)
		}
	}
	if err := errors.Join(os.Mkdir("/dev/pts", 0o755), os.Mkdir("/dev/shm", 0o1777)); err != nil {
		return fmt.Errorf("setting up /dev: %w", err)
	}
	if err := mountOn("/dev/pts", "devpts", unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5"); err != nil {
		return err
	}
	return mountOn("/dev/shm", "tmpfs", unix.MS_NODEV, "mode=1777")
}

// setUpRun gives /run as a system finds it when it starts.
func setUpRun() error {
	if info, err := os.Lstat("/run"); err != nil || !info.IsDir() {
		return nil
	}
	return mountOn("/run", "tmpfs", unix.MS_NODEV, "mode=755")
}

// lendResolver has names looked up as the host does.
func (t *tree) lendResolver(content []byte) error {
	place, err := t.place("/etc/resolv.conf")
	if err != nil || place == "" || content == nil {
		return err
	}
	return lend(place, content, 0o644)
}

// lendPolicy tells Debian's packages to start no services as they are installed.
// An image that has a policy of its own keeps it.
func (t *tree) lendPolicy() error {
	const path = "/usr/sbin/policy-rc.d"
	if _, err := os.Stat("/var/lib/dpkg"); err != nil || executable(path) {
		return nil
	}
	place, err := t.place(path)
	if err != nil || place == "" {
		return err
	}
	return lend(place, []byte("#!/bin/sh\nexit 101\n"), 0o755)
}

// lend mounts a file over one of the image, which stays as it is.
func lend(place string, content []byte, mode os.FileMode) error {
	const source = "/dev/shm/.upkeep"
	err := os.WriteFile(source, content, mode)
	if err == nil {
		err = errors.Join(os.Chmod(source, mode), unix.Mount(source, place, "", unix.MS_BIND, ""), os.Remove(source))
	}
	if err != nil {
		return fmt.Errorf("lending %s to the image: %w", place, err)
	}
	return nil
}

// place is the file of the image that one is mounted over, or empty where there
// can be none. Where there is none yet an empty one is made, and removed at the end:
// should it be left by a kill, it means nothing to those that look for it, and the
// next command removes it.
func (t *tree) place(path string) (string, error) {
	for range 10 {
		info, err := os.Lstat(path)
		switch {
		case err == nil && info.Mode()&fs.ModeSymlink != 0: // into /run, with systemd-resolved
			target, err := os.Readlink(path)
			if err != nil {
				return "", fmt.Errorf("reading the link %s in the image: %w", path, err)
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(path), target)
			}
			path = target
			if strings.HasPrefix(path, "/run/") { // a folder of ours
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return "", fmt.Errorf("making a folder for %s: %w", path, err)
				}
			}
		case err == nil && info.Mode().IsRegular():
			if info.Size() == 0 && info.Mode().Perm() == leftMode {
				t.made = append(t.made, path) // one that a killed command left
			}
			return path, nil
		case errors.Is(err, fs.ErrNotExist):
			file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, leftMode)
			if errors.Is(err, fs.ErrNotExist) {
				return "", nil // no folder for it: not that kind of system
			}
			if err != nil {
				return "", fmt.Errorf("making a place for %s in the image: %w", path, err)
			}
			t.made = append(t.made, path)
			return path, file.Close()
		default:
			return "", nil
		}
	}
	return "", nil
}

// leave takes away what enter has put into the image.
func (t *tree) leave() {
	for _, path := range t.made {
		unix.Unmount(path, unix.MNT_DETACH)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err == nil && st.Size == 0 && st.Mode&unix.S_IFMT == unix.S_IFREG {
			unix.Unlink(path)
		}
	}
}
