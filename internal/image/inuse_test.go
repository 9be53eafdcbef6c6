package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/image/chroot"
	"upkeep/internal/testkit"
)

// inUse are those who may have an image, and how a refusal names them.
var inUse = []struct {
	name string
	hold func(t *testing.T, path string) (named string)
	// Whether the holder may write to the image while it is looked at, as a kernel
	// that is short of memory does to its swap space.
	writes bool
}{
	{name: "mounted in another namespace", hold: func(t *testing.T, path string) string {
		folder := t.TempDir()
		pid := stranger(t, "unshare", "--mount", "sh", "-c", `mount -o loop "$0" "$1" && echo held && cat; :`, path, folder)
		return fmt.Sprintf("mounted at %s by pid %d", folder, pid)
	}},
	{name: "attached", hold: func(t *testing.T, path string) string {
		return "attached to " + strings.TrimPrefix(attached(t, path), "/dev/")
	}},
	{name: "swap", hold: func(t *testing.T, path string) string {
		device := attached(t, path)
		printed(t, "mkswap", device)
		printed(t, "swapon", device)
		t.Cleanup(func() { printed(t, "swapoff", device) })
		return "used as swap space (" + strings.TrimPrefix(device, "/dev/") + ")"
	}, writes: true},
	{name: "a machine", hold: func(t *testing.T, path string) string {
		pidFile := filepath.Join(t.TempDir(), "pid")
		stranger(t, "sh", "-c", `"$@" -pidfile "$0" -daemonize && echo held && cat >/dev/null; kill "$(cat "$0")"; while [ -e "$0" ]; do :; done`, pidFile,
			"qemu-system-x86_64", "-name", "guest=web1", "-machine", "pc,accel=tcg", "-m", "16", "-display", "none", "-nodefaults", "-S",
			"-drive", "format=raw,if=virtio,file="+path)
		return "qemu-system-x86, machine web1"
	}},
	{name: "open for writing", hold: func(t *testing.T, path string) string {
		return fmt.Sprintf("open for writing by pid %d", stranger(t, "sh", "-c", `exec 9<>"$0" && echo held && cat; :`, path))
	}},
}

func stranger(t *testing.T, name string, args ...string) int {
	t.Helper()
	path, err := testkit.Find(name)
	must(t, err)
	return testkit.Stranger(t, exec.Command(path, args...))
}

func printed(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := testkit.Find(name)
	must(t, err)
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func attached(t *testing.T, path string) string {
	t.Helper()
	device := printed(t, "losetup", "--find", "--show", path)
	t.Cleanup(func() { printed(t, "losetup", "-d", device) })
	return device
}

// start says what no holder changes: the length, and the first page, in which swap
// space has its label.
func start(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	stat, err := file.Stat()
	must(t, err)
	page := make([]byte, os.Getpagesize())
	_, err = io.ReadFull(file, page)
	must(t, err)
	return fmt.Sprintf("%d bytes, starting with %x", stat.Size(), sha256.Sum256(page))
}

// TestInUse tries each verb on an image that each kind of holder has: it is refused,
// the holder is named, and nothing is changed.
func TestInUse(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "unshare", "mount", "umount", "losetup", "mkswap", "swapon", "qemu-system-x86_64")
	work := func(w *Work, err error) error {
		if err == nil {
			w.Close()
		}
		return err
	}
	source, packed := planted(t), filepath.Join(t.TempDir(), "web.zst")
	run(t)(Pack(made(t, Creation{Size: 16 * mib, FS: "ext4"}), packed, PackOptions{}))
	verbs := map[string]func(path string) error{
		"grow":      func(p string) error { return work(Grow(p, Growth{By: mib})) },
		"grow file": func(p string) error { return work(Grow(p, Growth{By: mib, FileOnly: true})) },
		"shrink":    func(p string) error { return work(Shrink(p, Shrinking{Min: true})) },
		"mkfs":      func(p string) error { return work(MkFS(p, Remaking{Type: "ext4"})) },
		"check":     func(p string) error { return work(Check(p, Checking{})) },
		"repair":    func(p string) error { return work(Check(p, Checking{Repair: true})) },
		"trim":      func(p string) error { return work(Trim(p, 0)) },
		"clone":     func(p string) error { return work(Clone(p, p+".copy", Cloning{})) },
		"copy":      func(p string) error { return work(Copy(p, p+".copy", Copying{})) },
		"copy into": func(p string) error { return work(Copy(source, p, Copying{Merge: true})) },
		"pack":      func(p string) error { return work(Pack(p, p+".zst", PackOptions{})) },
		"mount": func(p string) error {
			_, err := Mount(p, filepath.Dir(p), MountOptions{})
			return err
		},
		"mount --ro": func(p string) error {
			_, err := Mount(p, filepath.Dir(p), MountOptions{ReadOnly: true})
			return err
		},
		"chroot": func(p string) error {
			_, err := Chroot(context.Background(), p, MountOptions{}, chroot.Command{Stderr: os.Stderr})
			return err
		},
	}
	for _, holder := range inUse {
		t.Run(holder.name, func(t *testing.T) {
			path := made(t, Creation{Size: 16 * mib, FS: "ext4"})
			named := holder.hold(t, path)
			state := func() string {
				if holder.writes {
					return start(t, path)
				}
				return print(t, path)
			}
			before := state()
			for verb, try := range verbs {
				err := try(path)
				if !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(fmt.Sprint(err), named) {
					t.Errorf("%s: %v, want a refusal that says %q", verb, err, named)
				}
			}
			// What is unpacked is a new file: nothing that others may have.
			if err := work(Unpack(context.Background(), packed, path, Unpacking{})); !errors.Is(err, upkeep.ErrConflict) {
				t.Errorf("unpack over it: %v", err)
			}
			if after := state(); after != before {
				t.Errorf("the image is %s, was %s", after, before)
			}
			onlyFile(t, path)
		})
	}
}
