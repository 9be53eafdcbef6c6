package xfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Version 4 is what kernels are built without by now: mkfs.xfs fills it by itself, from
// a prototype, and has no trees of extents in it.

// filled is a file system that mkfs.xfs filled, and what is in it.
func filled(t testing.TB, size int64, args ...string) (*os.File, map[string]listed) {
	t.Helper()
	from, want := t.TempDir(), map[string]listed{}
	var prototype strings.Builder
	fmt.Fprint(&prototype, "/none\n0 0\nd--755 3 4\n")
	want["."] = listed{Mode: fs.ModeDir | 0o755, UID: 3, GID: 4}
	put := func(folder, name, kind string, one listed, rest ...any) {
		mode := []byte(kind + "--")
		if one.Mode&fs.ModeSetuid != 0 {
			mode[1] = 'u'
		}
		if one.Mode&fs.ModeSetgid != 0 {
			mode[2] = 'g'
		}
		fmt.Fprintf(&prototype, "%s %s%03o %d %d ", name, mode, one.Mode.Perm(), one.UID, one.GID)
		fmt.Fprintln(&prototype, rest...)
		want[filepath.Join(folder, name)] = one
	}
	content := func(name string, b []byte) string {
		must(t, os.WriteFile(filepath.Join(from, name), b, 0o600))
		return filepath.Join(from, name)
	}
	file := func(b []byte) listed {
		sum, err := sum(os.DirFS(from), filepath.Base(content("x", b)))
		must(t, err)
		return listed{Mode: 0o640, UID: 1000, GID: 70_000, Size: int64(len(b)), Sum: sum}
	}
	for name, b := range map[string][]byte{"tiny": []byte("tiny"), "noise": noise(300_003, 1), "tree": noise(16*4096, 2), "room": noise(3*4096, 3), "caf\xe9": []byte("odd")} {
		put("", name, "-", file(b), content("from-"+name, b))
	}
	setuid := file([]byte("setuid"))
	setuid.Mode |= fs.ModeSetuid | fs.ModeSetgid
	put("", "setuid", "-", setuid, content("setuid", []byte("setuid")))
	put("", "char", "c", listed{Mode: fs.ModeDevice | fs.ModeCharDevice | 0o620, Device: int64(unix.Mkdev(5, 1))}, 5, 1)
	put("", "block", "b", listed{Mode: fs.ModeDevice | 0o660, Device: int64(unix.Mkdev(8, 300))}, 8, 300)
	put("", "fifo", "p", listed{Mode: fs.ModeNamedPipe | 0o600})
	for _, length := range []int{1, 60, 156, 157, 400, 513, 1023} {
		text := strings.Repeat("x/", 512)[:length]
		put("", fmt.Sprint("link", length), "l", listed{Mode: fs.ModeSymlink | 0o777, Size: int64(length), Link: text}, text)
	}
	empty := content("empty", nil)
	none := listed{Mode: 0o640, UID: 1000, GID: 70_000}
	for folder, count := range map[string]int{"none": 0, "short": 3, "of-a-block": 10, "leaf": 80, "node": 2000} {
		put("", folder, "d", listed{Mode: fs.ModeDir | 0o700, UID: 5})
		for i := range count {
			put(folder, fmt.Sprintf("%d-%s", i, strings.Repeat("n", i*7%200)), "-", none, empty)
		}
		fmt.Fprintln(&prototype, "$")
	}
	fmt.Fprintln(&prototype, "$")
	image := made(t, size, append([]string{"-p", content("prototype", []byte(prototype.String()))}, args...)...)
	return image, want
}

func TestReadsVersion4(t *testing.T) {
	for _, args := range []string{"", "-n ftype=1", "-b size=512 -i size=256", "-b size=512 -n size=4096", "-b size=1024 -i size=512", "-n size=65536", "-b size=65536", "-i size=2048,attr=1,projid32bit=0"} {
		t.Run(args, func(t *testing.T) {
			before := time.Now().Add(-time.Second)
			file, want := filled(t, 400*mib, strings.Fields("-m crc=0 "+args)...)
			f := opened(t, file)
			for path, is := range listing(t, f) {
				if changed := time.Unix(0, is.Changed); changed.Before(before) || changed.After(time.Now()) {
					t.Errorf("%.40q was changed at %s", path, changed)
				}
				is.Changed, is.Accessed, is.Links = 0, 0, 0
				if is.Mode.IsDir() {
					is.Size = 0
				}
				if want[path] != is {
					t.Errorf("%.40q is %+v, want %+v", path, is, want[path])
				}
				delete(want, path)
			}
			if len(want) > 0 {
				t.Errorf("%d files are missing", len(want))
			}
			if got := forms(t, f); !slices.Contains(got, "folder in extents") || !slices.Contains(got, "folder within its inode") {
				t.Errorf("of the forms there are %v", got)
			}
		})
	}
}

// treed gives the file "tree" a tree of extents, of a block each, in two levels below its
// inode: in the blocks of the file "room".
func treed(t testing.TB, file *os.File) (places []int64) {
	t.Helper()
	f := opened(t, file)
	find := func(name string) (n *inode, at int64, block uint64) {
		n = inodeOf(t, f, name)
		e, block := parseExtent(n.fork)
		if n.format != inExtents || n.extentCount() != 1 || e.count < 3 {
			t.Fatalf("%s has %d extents in format %d", name, n.extentCount(), n.format)
		}
		at, _ = f.Offset(block)
		return n, at, block
	}
	write := func(b []byte, at int64) {
		_, err := file.WriteAt(b, at)
		must(t, err)
		places = append(places, at)
	}
	tree, _, first := find("tree")
	_, at, room := find("room")
	entries := (int(f.BlockSize) - 24) / 16
	extents := tree.size / f.BlockSize
	var pointers [][2]uint64 // the first block of the file, and the block of the leaf
	for leaf := range int64(2) {
		b := append([]byte("BMAP\x00\x00"), make([]byte, f.BlockSize-6)...)
		from := leaf * extents / 2
		to := (leaf + 1) * extents / 2
		binary.BigEndian.PutUint16(b[6:], uint16(to-from))
		for i := range to - from {
			binary.BigEndian.PutUint64(b[24+16*i:], uint64(from+i)<<9)
			binary.BigEndian.PutUint64(b[32+16*i:], (first+uint64(from+i))<<21|1)
		}
		write(b, at+leaf*f.BlockSize)
		pointers = append(pointers, [2]uint64{uint64(from), room + uint64(leaf)})
	}
	node := append([]byte("BMAP\x00\x01\x00\x02"), make([]byte, f.BlockSize-8)...)
	for i, p := range pointers {
		binary.BigEndian.PutUint64(node[24+8*i:], p[0])
		binary.BigEndian.PutUint64(node[24+8*(entries+i):], p[1])
	}
	write(node, at+2*f.BlockSize)
	root := slices.Clone(tree.raw)
	root[5] = inTree
	fork := root[coreSize : coreSize+len(tree.fork)]
	clear(fork)
	fork[1], fork[3] = 2, 1
	binary.BigEndian.PutUint64(fork[4+8*((len(fork)-4)/16):], room+2)
	inodeAt, _ := f.Offset(tree.number >> f.InodeBits)
	write(root, inodeAt+int64(tree.number&(1<<f.InodeBits-1))*f.InodeSize)
	return places
}

func TestReadsTreesOfVersion4(t *testing.T) {
	file, want := filled(t, 400*mib, "-m", "crc=0")
	places := treed(t, file)
	f := opened(t, file)
	if got, err := sum(f, "tree"); err != nil || got != want["tree"].Sum || !slices.Contains(forms(t, f), "file in a tree of 2") {
		t.Errorf("through a tree there is %x, %v", got, err)
	}
	tree, err := f.Open("tree")
	must(t, err)
	b := make([]byte, 5000)
	if n, err := tree.(io.ReaderAt).ReadAt(b, 8*4096-2500); n != len(b) || err != nil || string(b) != string(noise(16*4096, 2)[8*4096-2500:][:5000]) {
		t.Errorf("across two leaves: %d bytes, %v", n, err)
	}
	// The second pointer leads to the first leaf, too.
	node := make([]byte, 4096)
	_, err = file.ReadAt(node, places[2])
	must(t, err)
	pointers := node[24+8*254:]
	copy(pointers[8:16], pointers[:8])
	_, err = file.WriteAt(node, places[2])
	must(t, err)
	if _, err := sum(opened(t, file), "tree"); err == nil || !strings.Contains(err.Error(), "not in order") {
		t.Errorf("a leaf that is in two places: %v", err)
	}
}
