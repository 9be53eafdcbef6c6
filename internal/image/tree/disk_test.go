package tree

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep/internal/testkit"
)

// disk makes a file system in memory and gives its root. It is mounted nowhere: the
// mount has a descriptor and no place, and all goes with the test binary, however
// that ends.
func disk(t testing.TB, size int64, fsType string, mkfs ...string) *os.File {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, mkfs[0])
	fd, err := unix.MemfdCreate(fsType, unix.MFD_CLOEXEC)
	must(t, err)
	image := os.NewFile(uintptr(fd), fsType)
	t.Cleanup(func() { image.Close() })
	program, err := testkit.Find(mkfs[0])
	if err != nil {
		t.Fatal(err)
	}
	must(t, image.Truncate(size))
	if out, err := exec.Command(program, append(mkfs[1:], fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd))...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", mkfs, err, out)
	}
	loop := attach(t, image)
	root, err := detached(fsType, "source="+loop)
	testkit.NeedThat(t, "mounting "+fsType, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// attach gives an image a loop device that goes when nobody has it open.
func attach(t testing.TB, image *os.File) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	testkit.NeedThat(t, "loop devices", err)
	defer control.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		testkit.NeedThat(t, "a free loop device", err)
		path := fmt.Sprintf("/dev/loop%d", n)
		device, err := os.OpenFile(path, os.O_RDWR, 0)
		testkit.NeedThat(t, "a loop device", err)
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if errors.Is(err, unix.EBUSY) {
			device.Close() // somebody else took it
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { device.Close() })
		return path
	}
	t.Fatal("no loop device could be had")
	return ""
}

// detached mounts a file system without a place.
func detached(fsType string, options ...string) (*os.File, error) {
	fs, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return nil, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), fsType), nil
}

// tmpfs is a folder in memory; a folder on the disk without root.
func tmpfs(t testing.TB) *os.File {
	t.Helper()
	root, err := detached("tmpfs", "size=4g", "nr_inodes=1m")
	if err != nil {
		return folderOf(t, t.TempDir())
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// at is a path below a folder that has none.
func at(root *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", root.Fd(), name)
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func ext4(t testing.TB, size int64, more ...string) *os.File {
	return disk(t, size, "ext4", append([]string{"mke2fs", "-q", "-F", "-t", "ext4"}, more...)...)
}

func folderOf(t testing.TB, path string) *os.File {
	t.Helper()
	must(t, os.MkdirAll(path, 0o755))
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}
