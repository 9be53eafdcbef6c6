package btrfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/lookup"
	"upkeep/internal/image/mount"
	"upkeep/internal/testkit"
)

const mib = 1 << 20

// image makes a file system.
func image(t testing.TB, size int64, args ...string) *os.File {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "mkfs.btrfs", "btrfs")
	file, err := os.Create(filepath.Join(testkit.InMemory(t), "x.img"))
	must(t, err)
	t.Cleanup(func() { file.Close() })
	must(t, file.Truncate(size))
	testkit.Run(t, append(append([]string{"mkfs.btrfs", "-q", "-f"}, args...), file.Name())...)
	return file
}

// mounted works in the file system as the kernel mounts it.
func mounted(t testing.TB, file *os.File, options []string, work func(dir string)) {
	t.Helper()
	must(t, mount.With(file, mount.Options{Type: "btrfs", Extra: options}, func(dir *os.File) error {
		work(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
		return nil
	}))
}

// run runs btrfs-progs, which find a mount of this process by its descriptor.
func run(t testing.TB, dir, verb string, args ...string) {
	t.Helper()
	own := fmt.Sprintf("/proc/%d/", os.Getpid())
	all := append([]string{"btrfs"}, strings.Fields(verb)...)
	for _, a := range args {
		all = append(all, strings.Replace(filepath.Join(dir, a), "/proc/self/", own, 1))
	}
	testkit.Run(t, all...)
}

func flush(t testing.TB, dir string) {
	t.Helper()
	top, err := os.Open(dir)
	must(t, err)
	must(t, errors.Join(unix.Syncfs(int(top.Fd())), top.Close()))
}

func opened(t testing.TB, file *os.File) *FS {
	t.Helper()
	info, err := file.Stat()
	must(t, err)
	f, err := Open(file, info.Size())
	must(t, err)
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// text is what can be compressed.
var text = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	random := rand.New(rand.NewPCG(1, 1))
	for b.Len() < 4*mib {
		fmt.Fprintf(&b, "line %d of %d; ", random.IntN(1000), b.Len())
	}
	return b.Bytes()
})

// words is a piece of it, another for each seed.
func words(n int, seed byte) []byte { return text()[1000*int(seed):][:n] }

// write writes a file and has it on the disk, in extents of its own.
func write(t testing.TB, name string, content []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o640)
	must(t, err)
	_, err = file.Write(content)
	must(t, errors.Join(err, file.Close()))
}

// names are such as people and machines give.
func names(t testing.TB, dir string, many int) {
	for n := 1; n <= 255; n += 1 + n/8 {
		write(t, filepath.Join(dir, "names", strings.Repeat("n", n)), []byte{byte(n)})
	}
	for i, name := range []string{strings.Repeat("x", 255), "é", "日本語", "\xff\xfe odd \x01", "new\nline", " ", "-dash", "*", "caf\xe9"} {
		write(t, filepath.Join(dir, "names", name), []byte(name))
		must(t, os.Symlink(name, filepath.Join(dir, "names", fmt.Sprint("to ", i))))
	}
	must(t, os.Symlink("in Latin-1", filepath.Join(dir, "names", "l\xeenk")))
	a, b := collision()
	write(t, filepath.Join(dir, "names", a), []byte("a"))
	write(t, filepath.Join(dir, "names", b), []byte("b"))
	for i := range many {
		write(t, filepath.Join(dir, "many", fmt.Sprintf("file-with-a-name-of-some-length-%d", i)), []byte{byte(i)})
	}
}

// collision are two names with the same hash.
func collision() (string, string) {
	seen := map[uint64]string{}
	for i := 0; ; i++ {
		name := fmt.Sprintf("collides %x", noise(8, 0)[:2]) + fmt.Sprint(i*i)
		if other, have := seen[hash(name)]; have && other != name {
			return other, name
		}
		seen[hash(name)] = name
	}
}

// contents are files that are laid out in all the ways that there are.
func contents(t testing.TB, dir string) {
	for _, size := range []int{0, 1, 100, 2000, 2047, 2048, 2049, 3900, 4095, 4096, 4097, 100_000} {
		write(t, filepath.Join(dir, fmt.Sprint("size ", size)), words(size, byte(size)))
	}
	write(t, filepath.Join(dir, "noise"), noise(3*mib+17, 4))
	write(t, filepath.Join(dir, "words"), words(3*mib+17, 5))
	holes, err := os.Create(filepath.Join(dir, "holes"))
	must(t, err)
	for i := range int64(500) {
		_, err := holes.WriteAt(words(5000, byte(i)), i*24<<10+i)
		must(t, err)
	}
	must(t, errors.Join(holes.Truncate(40*mib+5), holes.Close()))

	ahead, err := os.Create(filepath.Join(dir, "allocated ahead"))
	must(t, err)
	must(t, unix.Fallocate(int(ahead.Fd()), 0, 0, 2*mib))
	must(t, unix.Fallocate(int(ahead.Fd()), unix.FALLOC_FL_KEEP_SIZE, 2*mib, mib))
	_, err = ahead.WriteAt(noise(70_000, 6), 500_001)
	must(t, errors.Join(err, ahead.Sync(), ahead.Close()))

	// Extents of which a part is overwritten, cut out or shared.
	flush(t, dir)
	parts, err := os.OpenFile(filepath.Join(dir, "parts"), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	for _, name := range []string{"words", "noise"} {
		from, err := os.Open(filepath.Join(dir, name))
		must(t, err)
		end, err := parts.Seek(0, 2)
		must(t, err)
		end = (end + 4095) &^ 4095
		must(t, unix.IoctlFileCloneRange(int(parts.Fd()), &unix.FileCloneRange{Src_fd: int64(from.Fd()), Src_offset: 36 << 10, Src_length: mib, Dest_offset: uint64(end + 8<<10)}))
		must(t, from.Close())
	}
	_, err = parts.WriteAt([]byte("in the middle"), 300_000)
	must(t, err)
	must(t, unix.Fallocate(int(parts.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1_200_000, 50_000))
	must(t, errors.Join(parts.Sync(), parts.Close()))

	must(t, os.WriteFile(filepath.Join(dir, "not copied on write"), nil, 0o600))
	plain, err := os.OpenFile(filepath.Join(dir, "not copied on write"), os.O_RDWR, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(plain.Fd()), unix.FS_IOC_SETFLAGS, 0x00800000))
	_, err = plain.Write(noise(300_000, 9))
	must(t, errors.Join(err, plain.Close()))
}

// pieces is a file in hundreds of extents.
func pieces(t testing.TB, dir string) {
	file, err := os.Create(filepath.Join(dir, "pieces"))
	must(t, err)
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(200) {
		_, err := file.WriteAt(noise(4096, byte(i)), int64(i)*4096)
		must(t, errors.Join(err, unix.Fdatasync(int(file.Fd()))))
	}
	must(t, file.Close())
}

// kinds are files of all types, with attributes of all kinds.
func kinds(t testing.TB, dir string) {
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(in("deep/er/and/deeper"), 0o755))
	write(t, in("deep/er/and/deeper/file"), []byte("deep"))
	for name, mode := range map[string]uint32{"fifo": unix.S_IFIFO | 0o640, "socket": unix.S_IFSOCK | 0o755} {
		must(t, unix.Mknod(in(name), mode, 0))
	}
	must(t, unix.Mknod(in("char"), unix.S_IFCHR|0o620, int(unix.Mkdev(5, 1))))
	must(t, unix.Mknod(in("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70_000))))
	for name, to := range map[string]string{
		"link": "deep/er/and/deeper/file", "absolute": "/deep/er/and/deeper/file", "over": "../../../deep/er/and/deeper/file", "loop": "loop", "folder": "deep/er", "dangling": "nowhere", "long": strings.Repeat("./", 1500) + "fifo",
	} {
		must(t, os.Symlink(to, in(name)))
	}
	must(t, os.Link(in("deep/er/and/deeper/file"), in("hard")))
	for name, mode := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2711, "sticky": 0o1777} {
		write(t, in(name), []byte(name))
		must(t, errors.Join(unix.Chown(in(name), 70_000, 80_000), unix.Chmod(in(name), mode)))
	}
	for name, at := range map[string]unix.Timespec{"old": {Sec: -86400 * 365 * 20, Nsec: 5}, "late": {Sec: 4102444800, Nsec: 123456789}} {
		write(t, in(name), nil)
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), []unix.Timespec{at, at}, 0))
	}
}

// subvolumes are some, and snapshots, and one that is gone. In a snapshot there is
// nothing of what was mounted below.
func subvolumes(t testing.TB, dir string) {
	run(t, dir, "subvolume create", "sub")
	write(t, filepath.Join(dir, "sub/folder/file"), words(9000, 1))
	must(t, os.Chown(filepath.Join(dir, "sub/folder"), 7, 8))
	run(t, dir, "subvolume create", "sub/folder/nested")
	write(t, filepath.Join(dir, "sub/folder/nested/file"), words(90_000, 2))
	flush(t, dir)
	run(t, dir, "subvolume snapshot -r", "sub", "snapshot")
	write(t, filepath.Join(dir, "sub/folder/later"), []byte("later"))
	must(t, os.Rename(filepath.Join(dir, "sub/folder/nested"), filepath.Join(dir, "sub/moved")))
	run(t, dir, "subvolume create", "gone")
	write(t, filepath.Join(dir, "gone/file"), words(9000, 3))
	must(t, os.RemoveAll(filepath.Join(dir, "gone"))) // the kernel takes it for a folder
}

// atMounted describes every file as the kernel has it.
func atMounted(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, filepath.WalkDir(dir+"/.", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(name, &st))
		info, err := os.Lstat(name)
		must(t, err)
		link, content := "", []byte(nil)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			link, err = os.Readlink(name)
		case info.Mode().IsRegular():
			content, err = os.ReadFile(name)
		}
		must(t, err)
		path, err := filepath.Rel(dir, name)
		must(t, err)
		device := st.Rdev
		if info.Mode()&fs.ModeDevice == 0 {
			device = 0
		}
		found[path] = describe(path, info, lookup.Owner{UID: st.Uid, GID: st.Gid, Links: uint32(st.Nlink), Device: device}, link, content)
		return nil
	}))
	return found
}

// atReader describes every file as it is read here.
func atReader(t testing.TB, f *FS) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		must(t, err)
		again, err := f.Lstat(path)
		must(t, err)
		if again.Mode() != info.Mode() || again.Size() != info.Size() || again.Sys().(*lookup.Owner).Inode != info.Sys().(*lookup.Owner).Inode {
			t.Errorf("%q is one thing in its folder, and another by its name", path)
		}
		link, content := "", []byte(nil)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			link, err = f.ReadLink(path)
		case info.Mode().IsRegular():
			content, err = fs.ReadFile(f, path)
		}
		must(t, err)
		owner := *info.Sys().(*lookup.Owner)
		found[path] = describe(path, info, lookup.Owner{UID: owner.UID, GID: owner.GID, Links: owner.Links, Device: owner.Device}, link, content)
		return nil
	}))
	return found
}

func describe(path string, info fs.FileInfo, owner lookup.Owner, link string, content []byte) string {
	changed := info.ModTime().UTC().Format(time.RFC3339Nano)
	if path == "snapshot/folder/nested" {
		changed = "" // what is not there has no time
	}
	return fmt.Sprintf("%v %d %d:%d %d %d %s %q %d %x", info.Mode(), info.Size(), owner.UID, owner.GID, owner.Links, owner.Device, changed, link, len(content), sha256.Sum256(content))
}

func same(t testing.TB, got, want map[string]string) {
	t.Helper()
	wrong := 0
	for path, is := range want {
		if got[path] != is {
			if wrong++; wrong < 10 {
				t.Errorf("%.60q is\n%.300s, want\n%.300s", path, got[path], is)
			}
		}
	}
	for path := range got {
		if _, have := want[path]; !have {
			t.Errorf("%.60q is none of the kernel's", path)
		}
	}
	if len(want) < 5 {
		t.Errorf("there are %d files only", len(want))
	}
}
