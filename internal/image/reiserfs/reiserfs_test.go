package reiserfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/lookup/lookuptest"
	"upkeep/internal/image/reiserfs"
	"upkeep/internal/testkit"
)

const mib = 1 << 20

func open(t testing.TB, path string) *reiserfs.FS {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	stat, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fs, err := reiserfs.Open(f, stat.Size())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// everything is one of each.
func everything() []thing {
	things := []thing{
		{mode: folder | 0o755, uid: 0, mtime: 1000000000},
		{path: "empty", mode: file | 0o644, uid: 70000, gid: 80000, mtime: 1100000000},
		{path: "tail", mode: file | 0o4755, uid: 1000, gid: 1001, mtime: 1, data: sample(700, 1)},
		{path: "tail behind blocks", mode: file | 0o600, mtime: 1234567890, data: sample(4096*2+300, 2)},
		{path: "blocks", mode: file | 0o640, mtime: 0x7fffff00, data: sample(4096*5, 3)},
		{path: "large", mode: file | 0o640, mtime: 5, data: sample(4096*1100+99, 4), noTail: true},
		{path: "holes", mode: file | 0o640, mtime: 6, data: sample(4096*9, 5), holes: []int{0, 1, 4, 7}, noTail: true},
		{path: "hole at the end", mode: file | 0o640, mtime: 6, data: sample(4096, 6), size: 10*mib + 17, noTail: true},
		{path: "symlink", mode: link | 0o777, uid: 5, mtime: 7, data: []byte("../somewhere/else")},
		{path: "long symlink", mode: link | 0o777, mtime: 7, data: []byte(strings.Repeat("0123456789/", 80))},
		{path: "fifo", mode: 0o010644, mtime: 8},
		{path: "socket", mode: 0o140644, mtime: 8},
		{path: "char", mode: 0o020644, mtime: 8, rdev: 5<<8 | 1},
		{path: "block", mode: 0o060660, gid: 6, mtime: 8, rdev: 8<<8 | 17},
		{path: "dir", mode: folder | 0o1777, uid: 3, gid: 4, mtime: 9},
		{path: "dir/linked", mode: file | 0o644, mtime: 10, data: sample(100, 7), links: []string{"another name", "dir/a third one"}},
		{path: "dir/d", mode: folder | 0o700, mtime: 11},
		{path: "many", mode: folder | 0o755, mtime: 12},
	}
	deep := "dir/d"
	for i := range 60 {
		deep += fmt.Sprintf("/level-%d", i)
		things = append(things, thing{path: deep, mode: folder | 0o755, mtime: uint32(100 + i)})
	}
	for i := range 600 {
		things = append(things, thing{path: fmt.Sprintf("many/a file with a name that takes some room %d", i), mode: file | 0o644, mtime: uint32(i), uid: uint32(i), data: sample(i, byte(i))})
	}
	return things
}

var formats = []struct {
	args string
	size int64
}{{"", 64 * mib}, {"-b 1024 -s 1000", 48 * mib}, {"-b 8192", 96 * mib}, {"--format 3.5", 64 * mib}}

// plainly makes things fit for format 3.5, in which numbers have 16 bits.
func plainly(things []thing) []thing {
	for i := range things {
		things[i].uid &= 0xffff
		things[i].gid &= 0xffff
	}
	return things
}

func TestExtract(t *testing.T) {
	testkit.NeedRoot(t)
	for _, format := range formats {
		t.Run(format.args, func(t *testing.T) {
			things := everything()
			if strings.Contains(format.args, "3.5") {
				things = plainly(things)
			}
			path := build(t, format.size, format.args, things)
			checked(t, path)
			dir := t.TempDir()
			dst, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer dst.Close()
			report, err := open(t, path).Extract(context.Background(), dst, nil)
			if err != nil {
				t.Fatal(err)
			}
			if report.Entries != int64(len(things)) || len(report.Lost) > 0 {
				t.Errorf("copied %d of %d, and lost %v", report.Entries, len(things), report.Lost)
			}
			for _, c := range things {
				same(t, dir, c)
			}
			if n := count(t, dir); n != len(things)+2 {
				t.Errorf("there are %d names and should be %d", n, len(things)+2)
			}
		})
	}
}

func count(t *testing.T, dir string) (n int) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(string, os.DirEntry, error) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// same compares a thing with its copy.
func same(t *testing.T, dir string, c thing) {
	t.Helper()
	for _, name := range append(c.links, c.path) {
		path := filepath.Join(dir, name)
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			t.Error(err)
			return
		}
		mode := c.mode
		got := fmt.Sprintf("%o %d %d %d %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Atim.Sec)
		want := fmt.Sprintf("%o %d %d %d %d", mode, c.uid, c.gid, c.mtime, c.mtime+100)
		if mode&0o170000 == folder || mode&0o170000 == link { // which looking at changes
			got, want = fmt.Sprintf("%o %d %d %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec), fmt.Sprintf("%o %d %d %d", mode, c.uid, c.gid, c.mtime)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		switch mode & 0o170000 {
		case file:
			if name == c.path {
				sameContent(t, path, c, st) // which changes the time of the last access
			}
		case link:
			if text, err := os.Readlink(path); err != nil || text != string(c.data) {
				t.Errorf("%s: link to %q, %v", name, text, err)
			}
		case 0o020000, 0o060000:
			if unix.Major(st.Rdev) != c.rdev>>8 || unix.Minor(st.Rdev) != c.rdev&0xff {
				t.Errorf("%s: device %x", name, st.Rdev)
			}
		}
	}
}

func sameContent(t *testing.T, path string, c thing, st syscall.Stat_t) {
	t.Helper()
	if int(st.Nlink) != 1+len(c.links) {
		t.Errorf("%s: %d links", c.path, st.Nlink)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	if want := contentOf(c, 0); !bytes.Equal(got, want) && !bytes.Equal(got, contentOf(c, 1024)) && !bytes.Equal(got, contentOf(c, 4096)) && !bytes.Equal(got, contentOf(c, 8192)) {
		t.Errorf("%s: %d bytes that are not what they should be (%d)", c.path, len(got), len(want))
	}
	if c.size > 0 && st.Blocks*512 > int64(c.size)/2 {
		t.Errorf("%s: a hole was filled: %d bytes are allocated", c.path, st.Blocks*512)
	}
}

// contentOf is what a file reads as where blocks have the given size.
func contentOf(c thing, block int) []byte {
	out := append(bytes.Clone(c.data), make([]byte, max(0, c.size-len(c.data)))...)
	for _, hole := range c.holes {
		if hole*block < len(out) {
			clear(out[hole*block : min((hole+1)*block, len(out))])
		}
	}
	return out
}

// GRUB reads ReiserFS by itself, and debugreiserfs lists what is in a tree: what
// the tests lay out is what others take for it.
func TestOthersReadItLikewise(t *testing.T) {
	path := build(t, 64*mib, "", everything())
	fs := open(t, path)
	for _, name := range []string{"tail", "tail behind blocks", "blocks", "large", "holes", "dir/linked", "another name"} {
		want, err := testkit.Try(t, "grub-fstest", path, "cat", "/"+name)
		if err != nil {
			t.Fatalf("grub-fstest: %v\n%s", err, want)
		}
		if got := contentAt(t, fs, name); string(got) != want {
			t.Errorf("%s: %d bytes, and GRUB reads %d others", name, len(got), len(want))
		}
	}
	listed := testkit.Run(t, "grub-fstest", path, "ls", "(loop0)/many/")
	n := 0
	if err := fs.Entries(lookup(t, fs, "many"), func(e reiserfs.Entry) error {
		n++
		if !strings.Contains(listed, e.Name) {
			t.Errorf("GRUB does not see %q", e.Name)
		}
		return nil
	}); err != nil || n != 600 {
		t.Errorf("%d names, %v", n, err)
	}
	if out := testkit.Run(t, "debugreiserfs", "-d", path); !strings.Contains(out, "hole at the end") || !strings.Contains(out, "long symlink") {
		t.Error("debugreiserfs does not list what is there")
	}
}

func lookup(t testing.TB, fs *reiserfs.FS, path string) reiserfs.ID {
	t.Helper()
	at := reiserfs.Root
	for _, part := range strings.Split(path, "/") {
		found := false
		err := fs.Entries(at, func(e reiserfs.Entry) error {
			if e.Name == part {
				at, found = e.ID, true
				return io.EOF
			}
			return nil
		})
		if !found || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return at
}

func contentAt(t testing.TB, fs *reiserfs.FS, path string) []byte {
	t.Helper()
	n, err := fs.Stat(lookup(t, fs, path))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, n.Size)
	if err := fs.Content(n, func(at int64, p []byte) error { copy(out[at:], p); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDeepTree(t *testing.T) {
	var things []thing
	for i := range 40 {
		things = append(things, thing{path: fmt.Sprintf("folder%d", i), mode: folder | 0o755})
		for j := range 120 {
			things = append(things, thing{path: fmt.Sprintf("folder%d/file%d", i, j), mode: file | 0o644, data: sample(150+j, byte(i))})
		}
	}
	path := build(t, 48*mib, "-b 1024 -s 1000", things)
	checked(t, path)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if height := image[64<<10+68]; height < 5 {
		t.Errorf("the tree has height %d only", height)
	}
	fs := open(t, path)
	for _, i := range []int{0, 7, 39} {
		for _, j := range []int{0, 55, 119} {
			if got := contentAt(t, fs, fmt.Sprintf("folder%d/file%d", i, j)); !bytes.Equal(got, sample(150+j, byte(i))) {
				t.Errorf("file %d of folder %d is not what it should be", j, i)
			}
		}
	}
}

func TestXattrsAndFlags(t *testing.T) {
	testkit.NeedRoot(t)
	acl := []byte{1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 7, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 0x10, 0, 7, 0, 0x20, 0, 4, 0}
	value := func(p []byte) []byte { return append([]byte{0x41, 0x58, 0x46, 0x52, 0, 0, 0, 0}, p...) }
	const generation = 7000
	things := []thing{
		{path: "one", mode: file | 0o644, mtime: 5, data: sample(10, 1)},
		{path: "dir", mode: folder | 0o755, mtime: 6},
		{path: ".reiserfs_priv", mode: folder | 0o700},
		{path: ".reiserfs_priv/xattrs", mode: folder | 0o700},
		// Numbers are given in order; "one" has 3, "dir" has 4.
		{path: fmt.Sprintf(".reiserfs_priv/xattrs/%X.%X", 3, generation+3), mode: folder | 0o700},
		{path: fmt.Sprintf(".reiserfs_priv/xattrs/%X.%X/user.colour", 3, generation+3), mode: file | 0o600, data: value([]byte("blue"))},
		{path: fmt.Sprintf(".reiserfs_priv/xattrs/%X.%X/system.posix_acl_access", 3, generation+3), mode: file | 0o600, data: value(acl)},
		{path: fmt.Sprintf(".reiserfs_priv/xattrs/%X.%X", 4, generation+4), mode: folder | 0o700},
		{path: fmt.Sprintf(".reiserfs_priv/xattrs/%X.%X/trusted.large", 4, generation+4), mode: file | 0o600, data: value(sample(1500, 3)), noTail: true},
		{path: "immutable", mode: file | 0o644, mtime: 7, data: sample(10, 1), flags: 0x10 | 0x8000, links: []string{"dir/link to it"}},
		{path: "sealed", mode: folder | 0o755, mtime: 8, flags: 0x10},
		{path: "sealed/file", mode: file | 0o644, mtime: 9},
	}
	path := build(t, 48*mib, "", things)
	checked(t, path)
	dir := t.TempDir()
	dst, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	t.Cleanup(func() {
		for _, name := range []string{"immutable", "sealed"} {
			if f, err := os.Open(filepath.Join(dir, name)); err == nil {
				unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
				f.Close()
			}
		}
	})
	report, err := open(t, path).Extract(context.Background(), dst, nil)
	if err != nil || len(report.Lost) > 0 {
		t.Fatalf("%v, lost %v", err, report.Lost)
	}
	buffer := make([]byte, 4096)
	for _, c := range []struct{ file, name, want string }{
		{"one", "user.colour", "blue"},
		{"one", "system.posix_acl_access", "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"},
		{"dir", "trusted.large", string(sample(1500, 3))},
	} {
		n, err := unix.Lgetxattr(filepath.Join(dir, c.file), c.name, buffer)
		if err != nil || string(buffer[:n]) != c.want {
			t.Errorf("%s of %s is %q, %v", c.name, c.file, buffer[:max(n, 0)], err)
		}
	}
	for _, name := range []string{"immutable", "sealed"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		f.Close()
		if err != nil || flags&0x10 == 0 {
			t.Errorf("%s has flags %#x, %v", name, flags, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, ".reiserfs_priv")); !os.IsNotExist(err) {
		t.Errorf("the folder of attributes was copied as one: %v", err)
	}
	for _, name := range []string{"dir", "sealed", "immutable"} {
		for _, c := range things {
			if c.path == name {
				same(t, dir, c)
			}
		}
	}
}

// journalled takes an image and one that differs from it in some blocks, and makes
// one in which the difference waits in the journal.
func journalled(t *testing.T, before, after string) string {
	t.Helper()
	a, err := os.ReadFile(before)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(after)
	if err != nil {
		t.Fatal(err)
	}
	super := a[64<<10:]
	block := int(order.Uint16(super[44:]))
	first, size := int(order.Uint32(super[12:])), int(order.Uint32(super[20:]))
	start := size - 3 // so that it goes round
	header := a[(first+size)*block:]
	order.PutUint32(header, 41)
	order.PutUint32(header[4:], uint32(start))
	order.PutUint32(header[8:], 9)
	at := func(n int) []byte { return a[(first+(start+n)%size)*block:][:block] }
	description := at(0)
	copy(description[block-12:], "ReIsErLB")
	var changed []int
	for n := range len(a) / block {
		if !bytes.Equal(a[n*block:(n+1)*block], b[n*block:(n+1)*block]) && (n < first || n > first+size) {
			changed = append(changed, n)
		}
	}
	if len(changed) < 2 {
		t.Fatalf("blocks that differ: %d", changed)
	}
	commit := at(len(changed) + 1)
	for i, n := range changed {
		order.PutUint32(description[12+4*i:], uint32(n))
		copy(at(1+i), b[n*block:(n+1)*block])
	}
	for _, p := range [][]byte{description, commit} {
		order.PutUint32(p, 42)
		order.PutUint32(p[4:], uint32(len(changed)))
	}
	order.PutUint32(description[8:], 9)
	order.PutUint16(super[50:], 2)
	path := filepath.Join(t.TempDir(), "dirty")
	if err := os.WriteFile(path, a, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What waits in the journal is seen, and reiserfsck, which carries it out, comes
// to the same.
func TestJournal(t *testing.T) {
	things := func(seed byte) []thing {
		return []thing{{path: "file", mode: file | 0o644, mtime: uint32(seed), data: sample(500, seed)}, {path: "blocks", mode: file | 0o644, data: sample(4096*3, seed)}}
	}
	before, after := build(t, 48*mib, "", things(1)), build(t, 48*mib, "", things(2))
	dirty := journalled(t, before, after)
	for _, name := range []string{"file", "blocks"} {
		want := contentAt(t, open(t, after), name)
		if got := contentAt(t, open(t, dirty), name); !bytes.Equal(got, want) {
			t.Errorf("%s is read as it was before", name)
		}
	}
	checked(t, dirty)
	if got, want := contentAt(t, open(t, dirty), "file"), sample(500, 2); !bytes.Equal(got, want) {
		t.Error("reiserfsck carried out something else")
	}

	torn := journalled(t, before, after)
	f, err := os.OpenFile(torn, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image, _ := os.ReadFile(torn)
	super := image[64<<10:]
	first, size := int64(order.Uint32(super[12:])), int64(order.Uint32(super[20:]))
	header := image[(first+size)*4096:]
	description := image[(first+int64(order.Uint32(header[4:])))*4096:]
	commit := (int64(order.Uint32(header[4:])) + int64(order.Uint32(description[4:])) + 1) % size
	if _, err := f.WriteAt(make([]byte, 8), (first+commit)*4096); err != nil {
		t.Fatal(err)
	}
	if got := contentAt(t, open(t, torn), "file"); !bytes.Equal(got, sample(500, 1)) {
		t.Error("a transaction that was not finished is taken for one")
	}
}

// damage turns bits in the parts that are read, and everything must come back.
func TestDamagedImages(t *testing.T) {
	things := []thing{{path: "dir", mode: folder | 0o755}, {path: "file", mode: file | 0o644, data: sample(4096*20+5, 1), noTail: true}, {path: "link", mode: link | 0o777, data: []byte("x")}}
	for i := range 50 {
		things = append(things, thing{path: fmt.Sprintf("dir/file%d", i), mode: file | 0o644, data: sample(400, byte(i))})
	}
	path := build(t, 40*mib, "", things)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root := int(order.Uint32(image[64<<10+8:]))
	random := rand.New(rand.NewPCG(3, 4))
	for range 400 {
		var undo []func()
		for range 1 + random.IntN(3) {
			at := 64<<10 + random.IntN(204)
			if random.IntN(4) > 0 {
				at = (root-20+random.IntN(21))*4096 + random.IntN(4096)
			}
			was := image[at]
			image[at] ^= byte(1 << random.IntN(8))
			undo = append(undo, func() { image[at] = was })
		}
		exercise(t, image)
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
}

// exercise reads all that can be read; damage may make any of it an error. Folders
// may be in themselves, so depth has an end.
func exercise(t *testing.T, image []byte) {
	t.Helper()
	fs, err := reiserfs.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return
	}
	lookuptest.Explore(t, fs.Files())
	seen := map[reiserfs.ID]bool{}
	budget := 64 << 20
	var visit func(id reiserfs.ID)
	visit = func(id reiserfs.ID) {
		if seen[id] {
			return
		}
		seen[id] = true
		n, err := fs.Stat(id)
		if err != nil {
			return
		}
		_, _ = fs.Xattrs(n)
		switch n.Type() {
		case reiserfs.TypeFolder:
			_ = fs.Entries(id, func(e reiserfs.Entry) error { visit(e.ID); return nil })
		case reiserfs.TypeLink:
			_, _ = fs.Link(n)
		default:
			_ = fs.Content(n, func(_ int64, p []byte) error {
				if budget -= len(p); budget < 0 {
					return io.EOF
				}
				return nil
			})
		}
	}
	visit(reiserfs.Root)
}

func FuzzRead(f *testing.F) {
	path := build(f, 3*mib, "-b 1024 -s 513", []thing{{path: "dir", mode: folder | 0o755}, {path: "dir/file", mode: file | 0o644, data: sample(3000, 1)}, {path: "link", mode: link | 0o777, data: []byte("x")}})
	image, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	root := int(order.Uint32(image[64<<10+8:])) * 1024
	f.Add(image[64<<10:65<<10], image[root-4096:root+8192])
	f.Fuzz(func(t *testing.T, super, tree []byte) {
		copied := bytes.Clone(image)
		copy(copied[64<<10:65<<10], super)
		copy(copied[root-4096:root+8192], tree)
		exercise(t, copied)
	})
}
