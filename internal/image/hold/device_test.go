package hold

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/testkit"
)

// attach puts a loop device on the image, and returns its name in /sys.
func attach(t *testing.T, path string, args ...string) string {
	t.Helper()
	device := strings.TrimSpace(testkit.Run(t, slices.Concat([]string{"losetup"}, args, []string{"--find", "--show", path})...))
	t.Cleanup(func() { testkit.Run(t, "losetup", "-d", device) })
	return filepath.Base(device)
}

func TestDevicesThatHold(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "losetup", "mke2fs", "mkswap", "swapon", "unshare")

	t.Run("loop", func(t *testing.T) {
		path := image(t)
		device := attach(t, path)
		refused(t, path, true, "attached to "+device)
		refused(t, path, false, "attached to "+device)
	})
	t.Run("loop at an offset", func(t *testing.T) {
		path := image(t)
		device := attach(t, path, "--offset", "1048576", "--sizelimit", "1048576")
		refused(t, path, true, "attached to "+device)
	})
	t.Run("loop by another name of the file", func(t *testing.T) {
		path := image(t)
		must(t, os.Link(path, path+".too"))
		device := attach(t, path+".too")
		refused(t, path, true, "attached to "+device)
	})
	t.Run("loop that only reads", func(t *testing.T) {
		path := image(t)
		device := attach(t, path, "--read-only")
		refused(t, path, true, "attached to "+device)
		free(t, path, false)
	})
	t.Run("loop on a loop", func(t *testing.T) {
		path := image(t)
		first := attach(t, path)
		second := attach(t, "/dev/"+first)
		refused(t, path, true, "attached to "+first, "attached to "+second)
	})
	t.Run("loop of a file of the same name elsewhere", func(t *testing.T) {
		path := image(t)
		attach(t, path)
		must(t, os.Remove(path))
		must(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
		free(t, path, true)
	})
	t.Run("swap on a loop", func(t *testing.T) {
		path := image(t)
		device := attach(t, path)
		testkit.Run(t, "mkswap", "/dev/"+device)
		testkit.Run(t, "swapon", "/dev/"+device)
		t.Cleanup(func() { testkit.Run(t, "swapoff", "/dev/"+device) })
		refused(t, path, true, "used as swap space ("+device+")")
		refused(t, path, false, "used as swap space ("+device+")")
		var hint *upkeep.HintError
		if _, err := Take(open(t, path, true), Options{Write: true}); !errors.As(err, &hint) || hint.Hint != "swapoff /dev/"+device+" first" {
			t.Errorf("it says: %v, hint %+v", err, hint)
		}
	})
	t.Run("swap on the file", func(t *testing.T) {
		path := image(t)
		must(t, os.WriteFile(path, make([]byte, 4<<20), 0o600)) // no holes
		testkit.Run(t, "mkswap", path)
		testkit.Run(t, "swapon", path)
		t.Cleanup(func() { testkit.Run(t, "swapoff", path) })
		refused(t, path, true, "used as swap space")
		refused(t, path, false, "used as swap space")
	})
}

// The kernels that the tests run on need not have device mapper; its folders are
// played.
func TestWhatStandsOnADevice(t *testing.T) {
	class := t.TempDir()
	for _, folder := range []string{"loop3/loop3p1", "loop3/loop3p2", "loop3/holders/dm-1", "loop3/holders/dm-0", "loop3/queue"} {
		must(t, os.MkdirAll(filepath.Join(class, folder), 0o700))
	}
	var got []string
	for _, d := range standingOn(class, device{name: "loop3"}, []device{{name: "dm-0"}}) {
		got = append(got, d.name+" "+d.what)
	}
	if want := []string{"loop3p1 ", "loop3p2 ", "dm-1 mapper"}; !slices.Equal(got, want) {
		t.Errorf("on it stand %q, want %q", got, want)
	}
}

func TestMountsThatHold(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "losetup", "mke2fs", "mount", "umount", "unshare")

	t.Run("here", func(t *testing.T) {
		path := image(t)
		testkit.Run(t, "mke2fs", "-q", "-F", path)
		folder := filepath.Join(t.TempDir(), "a folder")
		must(t, os.Mkdir(folder, 0o700))
		testkit.Run(t, "mount", "-o", "loop", path, folder)
		t.Cleanup(func() { testkit.Run(t, "umount", folder) })
		refused(t, path, true, "mounted at "+folder+" (loop")
		refused(t, path, false, "mounted at "+folder+" (loop")
	})
	t.Run("in another namespace", func(t *testing.T) {
		path := image(t)
		testkit.Run(t, "mke2fs", "-q", "-F", path)
		folder := t.TempDir()
		unshare, err := testkit.Find("unshare")
		must(t, err)
		pid := testkit.Stranger(t, exec.Command(unshare, "--mount", "sh", "-c", `mount -o loop "$0" "$1" && echo held && cat; :`, path, folder))
		refused(t, path, true, fmt.Sprintf("mounted at %s by pid %d", folder, pid))
		refused(t, path, false, fmt.Sprintf("mounted at %s by pid %d", folder, pid))
	})
	t.Run("a partition", func(t *testing.T) {
		path := image(t)
		testkit.Run(t, "mke2fs", "-q", "-F", "-E", "offset=1048576", path, "4096")
		folder := t.TempDir()
		testkit.Run(t, "mount", "-o", "loop,offset=1048576", path, folder)
		t.Cleanup(func() { testkit.Run(t, "umount", folder) })
		refused(t, path, true, "mounted at "+folder)
	})
	t.Run("btrfs", func(t *testing.T) { // which has a device number of its own
		testkit.Need(t, "mkfs.btrfs")
		path := image(t)
		must(t, os.Truncate(path, 128<<20))
		testkit.Run(t, "mkfs.btrfs", "-q", path)
		folder := t.TempDir()
		testkit.Run(t, "mount", "-o", "loop", path, folder)
		t.Cleanup(func() { testkit.Run(t, "umount", folder) })
		refused(t, path, true, "mounted at "+folder)
		// And a file on it, of which the kernel's lists have another device than stat.
		inner := filepath.Join(folder, "inner.img")
		must(t, os.WriteFile(inner, make([]byte, 1<<20), 0o600))
		pid := holder(t, "posix", inner)
		refused(t, inner, true, fmt.Sprintf("locked by pid %d", pid))
		pid = holder(t, "map", filepath.Join(folder, "inner.img"))
		found, err := Holders(open(t, inner, false))
		must(t, err)
		if !strings.Contains(fmt.Sprint(found.Holders), fmt.Sprintf("mapped into memory by pid %d", pid)) {
			t.Errorf("holders are %v", found.Holders)
		}
		t.Cleanup(func() { _ = os.Remove(inner) })
	})
}
