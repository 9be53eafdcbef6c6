package xfs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/lookup"
	"upkeep/internal/image/mount"
	"upkeep/internal/testkit"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made is a new file system, as mkfs.xfs makes it.
func made(t testing.TB, size int64, args ...string) *os.File {
	t.Helper()
	testkit.Need(t, "mkfs.xfs")
	file, err := os.Create(filepath.Join(testkit.InMemory(t), "x.img"))
	must(t, err)
	t.Cleanup(func() { file.Close() })
	must(t, file.Truncate(size))
	testkit.Run(t, append(append([]string{"mkfs.xfs", "-q", "-f"}, args...), file.Name())...)
	return file
}

// mounted runs work in a file system, which the kernel has.
func mounted(t testing.TB, file *os.File, readOnly bool, work func(root string)) {
	t.Helper()
	testkit.NeedRoot(t)
	must(t, mount.With(file, mount.Options{Type: fsinfo.XFS, ReadOnly: readOnly}, func(dir *os.File) error {
		work(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
		return nil
	}))
}

func opened(t testing.TB, file *os.File) *FS {
	t.Helper()
	info, err := file.Stat()
	must(t, err)
	f, err := Open(file, info.Size())
	must(t, err)
	return f
}

// inodeOf is the inode of what has a name in the root folder, or of that folder.
func inodeOf(t testing.TB, f *FS, name string) *inode {
	t.Helper()
	n, err := f.inode(f.Root)
	if err == nil && name != "." {
		n, err = n.Lookup(name)
	}
	must(t, err)
	return n
}

func noise(length int, seed byte) []byte {
	b := make([]byte, length)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// grow makes a folder with files of all kinds that matter to a reader; blocks of files
// that are in many pieces are of a size.
func grow(t testing.TB, root string, block int64) {
	t.Helper()
	at := func(name string) string { return filepath.Join(root, name) }
	for name, content := range map[string][]byte{
		"empty": nil, "tiny": []byte("tiny\n"), "noise": noise(3*mib+17, 3), "etc/passwd": []byte("root:x:0:0\n"), "ünïcödé 日本語": []byte("name"), "\xff\xfe\x80 bytes": []byte("odd"),
		"new\nline -dash": []byte("odd"), " ": []byte("space"), strings.Repeat("n", 255): []byte("long name"), strings.Repeat("deep/", 70) + "file": []byte("deep"),
	} {
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(t, os.WriteFile(at(name), content, 0o640))
	}
	folders(t, root)
	pieces(t, at("pieces"), 300, block)
	unwritten(t, at("unwritten"), block)
	for name, length := range map[string]int{"link-1": 1, "link-60": 60, "link-300": 300, "link-335": 335, "link-337": 337, "link-900": 900, "link-969": 969, "link-1023": 1023} {
		must(t, os.Symlink(strings.Repeat("./etc/../", 200)[:length], at(name)))
	}
	for link, to := range map[string]string{"link": "etc/passwd", "absolute": "/etc/passwd", "over": "../../../etc/passwd", "loop": "loop", "dangling": "nowhere", "folder": "deep/deep"} {
		must(t, os.Symlink(to, at(link)))
	}
	must(t, os.Link(at("tiny"), at("etc/hard")))
	special(t, root)
}

// folders makes folders of every form: within the inode, of one block, with an index of
// one block and of many, in many pieces, and with blocks that were given back.
func folders(t testing.TB, root string) {
	t.Helper()
	name := func(i int) string { return fmt.Sprintf("%d-%s", i, strings.Repeat("x", i*7%249)) }
	for folder, count := range map[string]int{"none": 0, "short": 4, "block": 20, "leaf": 100, "node": 5000} {
		must(t, os.Mkdir(filepath.Join(root, folder), 0o755))
		for i := range count {
			must(t, os.WriteFile(filepath.Join(root, folder, name(i)), nil, 0o600))
		}
	}
	for _, folder := range []string{"one", "other"} {
		must(t, os.Mkdir(filepath.Join(root, folder), 0o755))
	}
	for i := range 5000 { // in turn, so that their blocks are, too
		for _, folder := range []string{"one", "other"} {
			must(t, os.Link(filepath.Join(root, "empty"), filepath.Join(root, folder, name(i))))
		}
	}
	for i := range 5000 {
		if i%1000 > 200 {
			must(t, os.Remove(filepath.Join(root, "other", name(i))))
		}
	}
}

// pieces makes a file whose every second block is a hole.
func pieces(t testing.TB, name string, count int, block int64) {
	t.Helper()
	must(t, os.WriteFile(name, noise(2*count*int(block), 9), 0o644))
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	must(t, file.Sync())
	for i := range int64(count) {
		must(t, unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, i*2*block, block))
	}
	must(t, file.Close())
}

// unwritten makes a file with a hole, blocks that were allocated and not written, some
// of these behind its end, and an end in the middle of a block.
func unwritten(t testing.TB, name string, block int64) {
	t.Helper()
	file, err := os.Create(name)
	must(t, err)
	must(t, unix.Fallocate(int(file.Fd()), 0, 10*block, 40*block))
	must(t, unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 60*block, 20*block))
	for _, at := range []int64{3, 12*block - 7, 30 * block, 61*block + 5} {
		_, err := file.WriteAt(noise(int(block)/2+11, byte(at)), at)
		must(t, err)
	}
	must(t, file.Close())
}

// special makes what is no file, and attributes that are not usual.
func special(t testing.TB, root string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(root, name) }
	for name, node := range map[string]struct {
		mode   uint32
		device uint64
	}{
		"fifo": {unix.S_IFIFO | 0o600, 0}, "socket": {unix.S_IFSOCK | 0o666, 0}, "char": {unix.S_IFCHR | 0o620, unix.Mkdev(5, 1)}, "block-device": {unix.S_IFBLK | 0o660, unix.Mkdev(300, 70000)},
	} {
		must(t, unix.Mknod(at(name), node.mode, int(node.device)))
	}
	for name, mode := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2711, "sticky": 0o1777, "nothing": 0} {
		must(t, os.WriteFile(at(name), []byte(name), 0o600))
		must(t, unix.Lchown(at(name), 4_000_000_000, 70_000))
		must(t, unix.Chmod(at(name), mode))
	}
	for name, when := range map[string]time.Time{
		"old": time.Date(1905, 3, 4, 5, 6, 7, 89, time.UTC), "before": time.Unix(-1, 999_999_999), "late": time.Date(2200, 1, 2, 3, 4, 5, 678_901_234, time.UTC), "y2038": time.Unix(1<<31-1, 5),
	} {
		must(t, os.WriteFile(at(name), nil, 0o600))
		must(t, os.Chtimes(at(name), when, when.Add(time.Second)))
	}
	for _, name := range []string{"noise", "short", "tiny", "pieces"} { // attributes take room from the content
		must(t, unix.Setxattr(at(name), "user.comment", bytes.Repeat([]byte("c"), 40), 0))
	}
}

// kernelFS is a mounted file system. That of [os.DirFS] refuses names that are not
// UTF-8.
type kernelFS string

func (k kernelFS) at(name string) string                      { return filepath.Join(string(k), name) }
func (k kernelFS) Open(name string) (fs.File, error)          { return os.Open(k.at(name)) }
func (k kernelFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(k.at(name)) }
func (k kernelFS) Stat(name string) (fs.FileInfo, error)      { return os.Stat(k.at(name)) }
func (k kernelFS) Lstat(name string) (fs.FileInfo, error)     { return os.Lstat(k.at(name)) }
func (k kernelFS) ReadLink(name string) (string, error)       { return os.Readlink(k.at(name)) }

// listed is all that is compared of a file.
type listed struct {
	Mode         fs.FileMode
	UID, GID     uint32
	Links        uint32
	Size, Device int64
	Changed      int64 // nanoseconds fit until 2262
	Accessed     int64
	Link         string
	Sum          [32]byte
}

// listing describes every file.
func listing(t testing.TB, f fs.ReadLinkFS) map[string]listed {
	t.Helper()
	found := make(map[string]listed)
	must(t, fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		one := listed{Mode: info.Mode(), Size: info.Size(), Changed: info.ModTime().UnixNano()}
		switch o := info.Sys().(type) {
		case *lookup.Owner:
			one.UID, one.GID, one.Links, one.Device, one.Accessed = o.UID, o.GID, o.Links, int64(o.Device), o.Access.UnixNano()
		case *syscall.Stat_t:
			one.UID, one.GID, one.Links, one.Device, one.Accessed = o.Uid, o.Gid, uint32(o.Nlink), int64(o.Rdev), o.Atim.Nano()
		}
		if d.IsDir() {
			one.Accessed = 0 // the kernel changes it in memory when it lists one
		}
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			if one.Link, err = f.ReadLink(path); err != nil {
				return err
			}
		case 0:
			if one.Size == 0 {
				break // of thousands, each of which is looked for in its folder
			}
			if one.Sum, err = sum(f, path); err != nil {
				return err
			}
		}
		found[path] = one
		return nil
	}))
	return found
}

func sum(f fs.FS, path string) (sum [32]byte, err error) {
	file, err := f.Open(path)
	if err != nil {
		return sum, err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{file}, make([]byte, mib)); err != nil {
		return sum, fmt.Errorf("reading %s: %w", path, err)
	}
	return [32]byte(hash.Sum(nil)), nil
}

// compare compares every file with what the kernel says of it.
func compare(t *testing.T, file *os.File) {
	t.Helper()
	var want map[string]listed
	mounted(t, file, true, func(root string) { want = listing(t, kernelFS(root)) })
	got := listing(t, opened(t, file))
	for path, is := range want {
		if got[path] != is {
			t.Errorf("%.40q is %+v, want %+v", path, got[path], is)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
}

// forms are the ways in which the file system keeps things, of those that a test means
// to have.
func forms(t *testing.T, f *FS) []string {
	t.Helper()
	found := make(map[string]bool)
	must(t, fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		of, err := d.Info()
		if err != nil {
			return err
		}
		n, err := f.inode(of.Sys().(*lookup.Owner).Inode)
		if err != nil {
			return err
		}
		kind, form := map[uint32]string{unix.S_IFDIR: "folder", unix.S_IFLNK: "link", unix.S_IFREG: "file"}[n.kind()], ""
		switch {
		case kind == "":
			return nil
		case n.format == inInode:
			form = "within its inode"
		case n.format == inTree:
			form = fmt.Sprintf("in a tree of %d", be16(n.fork))
		case kind == "folder" && n.size == f.FolderBlock:
			form = "of one block"
		default:
			form = "in extents"
		}
		found[kind+" "+form] = true
		return nil
	}))
	return slices.Sorted(maps.Keys(found))
}

func TestReadsWhatTheKernelWrote(t *testing.T) {
	usual := []string{"file in extents", "file in a tree of 1", "folder within its inode", "folder of one block", "folder in extents", "folder in a tree of 1", "link within its inode", "link in extents"}
	for _, c := range []struct {
		args    string
		block   int64
		missing []string // of the usual forms
	}{
		{args: "-b size=4096", block: 4096},
		{args: "-n size=65536", block: 4096},
		{args: "-b size=1024", block: 1024},
		{args: "-b size=1024 -n size=8192", block: 1024},
		{args: "-b size=16384", block: 16384},
		{args: "-b size=65536", block: 65536},
		{args: "-i size=2048", block: 4096, missing: []string{"link in extents"}},
		{args: "-m bigtime=0", block: 4096},
		{args: "-i nrext64=1", block: 4096},
		{args: "-i sparse=0 -m finobt=0,rmapbt=0,reflink=0,inobtcount=0", block: 4096},
		{args: "-m rmapbt=1 -s size=4096 -d agcount=3", block: 4096},
	} {
		t.Run(c.args, func(t *testing.T) {
			file := made(t, 512*mib, strings.Fields(c.args)...)
			mounted(t, file, false, func(root string) { grow(t, root, c.block) })
			compare(t, file)
			got := forms(t, opened(t, file))
			for _, form := range usual {
				if slices.Contains(got, form) == slices.Contains(c.missing, form) {
					t.Errorf("of the forms there are %v, without %v: the tree does not test what it should", got, c.missing)
				}
			}
		})
	}
}

// TestReadsLargeFiles has a file with thousands of pieces, and one with gigabytes of holes.
func TestReadsLargeFiles(t *testing.T) {
	file := made(t, 512*mib, "-b", "size=1024")
	mounted(t, file, false, func(root string) {
		pieces(t, filepath.Join(root, "pieces"), 6000, 1024)
		large, err := os.Create(filepath.Join(root, "large"))
		must(t, err)
		for _, at := range []int64{5, gib - 3, 4*gib - 100, 4*gib + 200_000} {
			_, err := large.WriteAt(noise(5000, byte(at)), at)
			must(t, err)
		}
		must(t, large.Close())
		must(t, os.WriteFile(filepath.Join(root, "longest"), []byte("start"), 0o600))
		must(t, os.Truncate(filepath.Join(root, "longest"), 1<<63-1))
		must(t, os.Chmod(filepath.Join(root, "longest"), 0o600))
	})
	f := opened(t, file)
	longest, err := f.Open("longest")
	must(t, err)
	b := make([]byte, 10)
	if n, err := longest.(io.ReaderAt).ReadAt(b, 1<<63-6); n != 5 || err != io.EOF || !bytes.Equal(b[:5], make([]byte, 5)) {
		t.Errorf("at the end of the longest file there are %q, %v", b[:n], err)
	}
	if n, err := io.ReadFull(longest, b); n != 10 || err != nil || string(b) != "start\x00\x00\x00\x00\x00" {
		t.Errorf("the longest file begins with %q, %v", b, err)
	}
	if got := forms(t, f); !slices.Contains(got, "file in a tree of 2") {
		t.Errorf("of the forms there are %v", got)
	}
	mounted(t, file, false, func(root string) { must(t, os.Remove(filepath.Join(root, "longest"))) })
	compare(t, file)
}

// TestReadsLongNumbersOfInodes has folders in a file system that is so large that half of
// the inodes have numbers of more than 32 bits.
func TestReadsLongNumbersOfInodes(t *testing.T) {
	file := made(t, 4<<40, "-l", "size=64m", "-i", "size=512")
	mounted(t, file, false, func(root string) {
		for i := range 12 {
			folder := filepath.Join(root, fmt.Sprint("folder", i))
			must(t, os.MkdirAll(filepath.Join(folder, "within"), 0o755))
			must(t, os.WriteFile(filepath.Join(folder, "file"), noise(100_000, byte(i)), 0o644))
		}
	})
	compare(t, file)
	n := inodeOf(t, opened(t, file), ".")
	long, short := 0, 0
	for entry, err := range n.names() {
		must(t, err)
		if entry.inode>>32 != 0 {
			long++
		} else {
			short++
		}
	}
	if long == 0 || short == 0 || n.format != inInode {
		t.Errorf("%d numbers are long and %d short, in format %d", long, short, n.format)
	}
}

// TestReadsUnderANewUUID has metadata that still carries the old one.
func TestReadsUnderANewUUID(t *testing.T) {
	file := made(t, 300*mib)
	mounted(t, file, false, func(root string) { must(t, os.WriteFile(filepath.Join(root, "a"), []byte("a"), 0o644)) })
	testkit.Run(t, "xfs_admin", "-U", "generate", file.Name())
	compare(t, file)
}

func TestIsAFileSystemOfGo(t *testing.T) {
	file := made(t, 300*mib)
	mounted(t, file, false, func(root string) {
		must(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o755))
		must(t, os.WriteFile(filepath.Join(root, "a/b/c"), bytes.Repeat([]byte("text "), 5000), 0o644))
		must(t, os.WriteFile(filepath.Join(root, "d"), []byte("d"), 0o644))
		must(t, os.Symlink("a/b", filepath.Join(root, "e")))
	})
	if err := fstest.TestFS(opened(t, file), "a/b/c", "d"); err != nil {
		t.Fatal(err)
	}
}
