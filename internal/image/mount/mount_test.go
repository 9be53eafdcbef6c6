package mount

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/loop"
	"upkeep/internal/testkit"
)

// TestMain is also the program that is killed while it has a mount.
func TestMain(m *testing.M) {
	if path := os.Getenv("UPKEEP_TEST_MOUNT"); path != "" {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			var m *Mounted
			if m, err = Open(f, Options{Type: fsinfo.Ext4}); err == nil {
				fmt.Println(m.Device())
				_, err = io.Copy(io.Discard, os.Stdin)
			}
		}
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image makes an image of a type, with the file system at an offset.
func image(t *testing.T, kind string, offset int64) *os.File {
	t.Helper()
	testkit.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "web.img")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	size := int64(64 << 20)
	if kind == fsinfo.XFS || kind == fsinfo.Btrfs {
		size = 320 << 20
	}
	must(t, f.Truncate(size+offset))
	switch kind {
	case fsinfo.XFS:
		testkit.Need(t, "mkfs.xfs")
		testkit.Run(t, "mkfs.xfs", "-q", path)
	case fsinfo.Btrfs:
		testkit.Need(t, "mkfs.btrfs")
		testkit.Run(t, "mkfs.btrfs", "-q", path)
	case fsinfo.ReiserFS:
		testkit.Need(t, "mkreiserfs")
		testkit.Run(t, "mkreiserfs", "-q", "-f", "-f", path)
	default:
		testkit.Need(t, "mke2fs")
		testkit.Run(t, "mke2fs", "-q", "-F", "-t", kind, "-E", fmt.Sprintf("offset=%d", offset), path, fmt.Sprint(size/1024)+"k")
	}
	return f
}

// sum is of what the file has, and where.
func sum(t *testing.T, f *os.File) string {
	t.Helper()
	h := sha256.New()
	for at := int64(0); ; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return fmt.Sprintf("%x", h.Sum(nil))
		}
		must(t, err)
		at, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		must(t, err)
		fmt.Fprintln(h, from, at)
		_, err = io.Copy(h, io.NewSectionReader(f, from, at-from))
		must(t, err)
	}
}

// root is a path to the mount's root folder, for as long as it is mounted.
func root(m *Mounted) string { return fmt.Sprintf("/proc/self/fd/%d", m.Dir.Fd()) }

// seen reports whether a mount of the device is in the caller's namespace.
func seen(t *testing.T, m *Mounted) bool {
	t.Helper()
	list, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return strings.Contains(string(list), " /dev/"+m.Device()+" ")
}

func TestAMountIsOurs(t *testing.T) {
	for _, kind := range []string{fsinfo.Ext2, fsinfo.Ext3, fsinfo.Ext4, fsinfo.XFS, fsinfo.Btrfs} {
		t.Run(kind, func(t *testing.T) {
			f := image(t, kind, 0)
			device := ""
			attached := func(name string) { device = name }
			detached := func(name string) {
				if name == device {
					device = ""
				}
			}
			m, err := Open(f, Options{Type: kind, Attached: attached, Detached: detached})
			must(t, err)
			if seen(t, m) {
				t.Error("the mount is in a folder")
			}
			if device == "" || device != m.Device() {
				t.Errorf("we were told of %q, and it is %s", device, m.Device())
			}
			must(t, os.WriteFile(filepath.Join(root(m), "a"), []byte("kept"), 0o600))
			must(t, m.Close())
			if device != "" {
				t.Errorf("we were not told that %s is gone", device)
			}

			before := sum(t, f)
			m, err = Open(f, Options{Type: kind, ReadOnly: true})
			must(t, err)
			if text, err := os.ReadFile(filepath.Join(root(m), "a")); err != nil || string(text) != "kept" {
				t.Errorf("what was written is %q, %v", text, err)
			}
			if err := os.WriteFile(filepath.Join(root(m), "b"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("writing where we only look: %v", err)
			}
			must(t, m.Close())
			if sum(t, f) != before {
				t.Error("looking has changed the image")
			}
		})
	}
}

// A machine that was killed leaves changes in the journal, which the kernel puts
// into place even when it mounts to read only.
func TestLookingReplaysNoJournal(t *testing.T) {
	for _, kind := range []string{fsinfo.Ext3, fsinfo.Ext4, fsinfo.XFS, fsinfo.Btrfs} {
		t.Run(kind, func(t *testing.T) {
			f := image(t, kind, 0)
			m, err := Open(f, Options{Type: kind})
			must(t, err)
			for i := range 200 {
				must(t, os.WriteFile(filepath.Join(root(m), fmt.Sprint(i)), []byte("text"), 0o600))
			}
			file, err := os.Create(filepath.Join(root(m), "last"))
			must(t, err)
			must(t, file.Sync())
			must(t, m.Sync())
			must(t, os.WriteFile(filepath.Join(root(m), "after"), []byte("text"), 0o600))
			must(t, file.Sync())
			must(t, file.Close())
			testkit.Run(t, "cp", "--sparse=always", f.Name(), f.Name()+".killed") // as a power cut leaves it
			must(t, m.Close())

			killed, err := os.Open(f.Name() + ".killed")
			must(t, err)
			defer killed.Close()
			if info, err := fsinfo.Read(killed, 1<<30); err != nil || kind != fsinfo.Btrfs && info.State != fsinfo.Journal {
				t.Fatalf("the copy's state is %q, %v: this test tests nothing", info.State, err)
			}
			before := sum(t, killed)
			m, err = Open(killed, Options{Type: kind, ReadOnly: true})
			must(t, err)
			must(t, m.Close())
			if sum(t, killed) != before {
				t.Error("looking has changed the image")
			}
		})
	}
}

func TestPartOfAnImage(t *testing.T) {
	f := image(t, fsinfo.Ext4, 3<<20)
	m, err := Open(f, Options{Type: fsinfo.Ext4, Offset: 3 << 20, Size: 64 << 20})
	must(t, err)
	if _, err := os.Stat(filepath.Join(root(m), "lost+found")); err != nil {
		t.Error(err)
	}
	must(t, m.Close())
}

func TestAttributes(t *testing.T) {
	f := image(t, fsinfo.Ext4, 0)
	for _, setuid := range []bool{false, true} {
		m, err := Open(f, Options{Type: fsinfo.Ext4, Setuid: setuid})
		must(t, err)
		var st unix.Statfs_t
		must(t, unix.Fstatfs(int(m.mount.Fd()), &st))
		if st.Flags&unix.ST_NODEV == 0 || st.Flags&unix.ST_NOSUID != 0 == setuid {
			t.Errorf("with setuid %v, the flags are %x", setuid, st.Flags)
		}
		must(t, m.Close())
	}
}

func TestRefusals(t *testing.T) {
	f := image(t, fsinfo.Ext4, 0)
	for _, kind := range []string{"", "auto", "ntfs", "nfs", "overlay", fsinfo.Swap} {
		if _, err := Open(f, Options{Type: kind}); !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("mounting as %q: %v", kind, err)
		}
	}
	if _, err := Open(f, Options{Type: fsinfo.XFS}); err == nil {
		t.Error("ext4 was mounted as XFS")
	}
	if _, err := Open(f, Options{Type: fsinfo.Ext4, Extra: []string{"none=such"}}); err == nil || !strings.Contains(err.Error(), "Unknown parameter") {
		t.Errorf("with an option that is none: %v", err)
	}
	list, err := os.ReadFile("/proc/filesystems")
	must(t, err)
	for _, kind := range []string{fsinfo.ReiserFS, fsinfo.VFAT} {
		if strings.Contains(string(list), kind) {
			continue
		}
		_, err := Open(image(t, kind, 0), Options{Type: kind})
		hinted := (*upkeep.HintError)(nil)
		if !errors.Is(err, upkeep.ErrRefused) || !errors.As(err, &hinted) || !strings.Contains(err.Error(), "no driver for "+kind) || !strings.Contains(hinted.Hint, "upkeep image ls, cat, and copy") {
			t.Errorf("without a driver: %v", err)
		}
	}
}

func TestAtAFolder(t *testing.T) {
	f := image(t, fsinfo.Ext4, 0)
	m, err := Open(f, Options{Type: fsinfo.Ext4})
	must(t, err)
	folder := t.TempDir()
	must(t, m.At(folder))
	device := loop.On(m.Device())
	must(t, m.Leave())
	if !device.Attached() {
		t.Fatal("the device went with who mounted it")
	}
	must(t, os.WriteFile(filepath.Join(folder, "a"), []byte("kept"), 0o600))
	must(t, unix.Unmount(folder, 0))
	testkit.Eventually(t, time.Minute, func() (bool, string) { return !device.Attached(), device.Name + " is attached" })
}

func TestAKillLeavesNothing(t *testing.T) {
	f := image(t, fsinfo.Ext4, 0)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "UPKEEP_TEST_MOUNT="+f.Name())
	out, err := cmd.StdoutPipe()
	must(t, err)
	_, err = cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, 100)
	n, err := out.Read(line)
	must(t, err)
	name := strings.TrimSpace(string(line[:n]))
	device := loop.On(name)
	if !device.Attached() {
		t.Fatalf("%q is not there before the kill", name)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	testkit.Eventually(t, time.Minute, func() (bool, string) { return !device.Attached(), name + " is attached" })
}
