package mount

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/loop"
	"upkeep/internal/testkit"
)

// at mounts an image at a folder, as the command line does.
func at(t *testing.T, f *os.File) (folder string, device *loop.Device) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "a folder")
	must(t, os.Mkdir(folder, 0o700))
	m, err := Open(f, Options{Type: fsinfo.Ext4})
	must(t, err)
	must(t, m.At(folder))
	must(t, m.Leave())
	t.Cleanup(func() { unix.Unmount(folder, unix.MNT_DETACH) })
	return folder, loop.On(m.Device())
}

func TestUnmount(t *testing.T) {
	f := image(t, fsinfo.Ext4, 0)
	folder, device := at(t, f)
	must(t, os.WriteFile(filepath.Join(folder, "a"), []byte("kept"), 0o600))
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(folder, link))
	u, err := Unmount(context.Background(), link)
	must(t, err)
	if device.Attached() || u.Folder != folder || u.Image != f.Name() || u.Device != device.Name || u.Kept {
		t.Errorf("unmounted %+v, attached %v", u, device.Attached())
	}
	if _, err := Unmount(context.Background(), folder); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("a second time: %v", err)
	}
}

func TestUnmountNamesWhoUsesIt(t *testing.T) {
	f := image(t, fsinfo.Ext4, 0)
	folder, device := at(t, f)
	cmd := exec.Command("cat")
	cmd.Dir = folder
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = Unmount(context.Background(), folder)
	if !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "the working folder of pid") {
		t.Errorf("while it is in use: %v", err)
	}
	if !device.Attached() {
		t.Error("it was unmounted nevertheless")
	}
	in.Close()
	must(t, cmd.Wait())
	_, err = Unmount(context.Background(), folder)
	must(t, err)
}

func TestUnmountRefusesOthers(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount")
	folder := t.TempDir()
	testkit.Run(t, "mount", "-t", "tmpfs", "tmpfs", folder)
	t.Cleanup(func() { must(t, unix.Unmount(folder, 0)) })
	if _, err := Unmount(context.Background(), folder); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "is no image but tmpfs") {
		t.Errorf("unmounting a tmpfs: %v", err)
	}
	if _, err := Unmount(context.Background(), "/none/such"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("unmounting no folder: %v", err)
	}
}

func TestUnmountLeavesADeviceThatIsToStay(t *testing.T) {
	f := image(t, fsinfo.Ext4, 0)
	testkit.Need(t, "losetup", "mount")
	name := strings.TrimSpace(testkit.Run(t, "losetup", "--find", "--show", f.Name()))
	folder := t.TempDir()
	testkit.Run(t, "mount", name, folder)
	u, err := Unmount(context.Background(), folder)
	must(t, err)
	if !u.Kept || !loop.On(u.Device).Attached() {
		t.Errorf("unmounted %+v", u)
	}
	testkit.Run(t, "losetup", "-d", name)
}

// The locks of who mounted an image stay with the loop device after its end.
func TestAMountKeepsTheLocks(t *testing.T) {
	f := image(t, fsinfo.Ext4, 0)
	testkit.Need(t, "qemu-io")
	locked, err := hold.Open(f.Name(), true)
	must(t, err)
	must(t, f.Close())
	_, err = hold.Take(locked, hold.Options{Write: true})
	must(t, err)
	folder, _ := at(t, locked)
	must(t, locked.Close())
	qemu, err := testkit.Find("qemu-io")
	must(t, err)
	out, err := exec.Command(qemu, "-f", "raw", "-c", "write 0 512", f.Name()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "lock") {
		t.Errorf("QEMU writes to an image that is mounted: %v, %s", err, out)
	}
	found, err := hold.HoldersOf(f.Name())
	must(t, err)
	if len(found.Holders) != 2 || found.Holders[0].Mount != folder {
		t.Errorf("holders are %v", found.Holders)
	}
	_, err = Unmount(context.Background(), folder)
	must(t, err)
	if out, err := exec.Command(qemu, "-f", "raw", "-c", "write 0 512", f.Name()).CombinedOutput(); err != nil {
		t.Errorf("QEMU does not write to it afterwards: %s", out)
	}
}

func TestRoomFor(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount")
	folder := t.TempDir()
	testkit.Run(t, "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder)
	t.Cleanup(func() { must(t, unix.Unmount(folder, 0)) })
	f, err := os.Create(filepath.Join(folder, "web.img"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, 1<<20), 0)
	must(t, err)
	for size, short := range map[int64]bool{1 << 20: false, 3 << 20: false, 8 << 20: true} {
		must(t, f.Truncate(size))
		room, err := RoomFor(f)
		must(t, err)
		if room.Short() != short || room.Wants != size-1<<20 || room.Free != 3<<20 {
			t.Errorf("of %d bytes: %+v", size, room)
		}
	}
}
