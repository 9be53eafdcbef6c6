package btrfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"upkeep/internal/image/btrfstree"
	"upkeep/internal/image/lookup"
	"upkeep/internal/image/lookup/lookuptest"
)

// sign gives a block the checksum of what is in it.
func sign(block []byte) {
	binary.LittleEndian.PutUint32(block, crc32.Checksum(block[32:], crc32.MakeTable(crc32.Castagnoli)))
}

const blockSize = 4096 // of nodes and sectors of the small image

// small is a small image, which testdata/small.sh made, and where in it lie the
// nodes, the superblock first, and the content of files.
type small struct {
	image          []byte
	nodes, content []int64
	files          map[string]string
}

func newSmall(t testing.TB) *small {
	t.Helper()
	packed, err := os.ReadFile("testdata/small.img.zst")
	must(t, err)
	r, err := zstd.NewReader(nil)
	must(t, err)
	defer r.Close()
	s := &small{}
	s.image, err = r.DecodeAll(packed, nil)
	must(t, err)
	seen := &watched{t: t, image: s.image}
	s.files = readAll(seen)
	s.nodes = []int64{btrfstree.SuperOffset}
	slices.Sort(seen.blocks)
	for _, at := range slices.Compact(seen.blocks) {
		block := bytes.Clone(s.image[at : at+blockSize])
		if sign(block); bytes.Equal(block, s.image[at:at+blockSize]) && at != btrfstree.SuperOffset {
			s.nodes = append(s.nodes, at)
		} else if at != btrfstree.SuperOffset {
			s.content = append(s.content, at)
		}
	}
	if len(s.nodes) < 12 || len(s.content) < 40 || !strings.HasPrefix(s.files["zstd"], "-rw-r--r-- 168894 ") || !strings.HasPrefix(s.files["snapshot/file"], "-rw-r--r-- 3 ") {
		t.Fatalf("it has %d nodes, %d blocks of content and these files: %v", len(s.nodes), len(s.content), s.files)
	}
	return s
}

// edited is the image with changes: five bytes each say which block, where in it, and
// what is there then. Nodes get the checksums that fit.
func (s *small) edited(t testing.TB, blocks []int64, edits []byte, fit bool) *watched {
	w := &watched{t: t, image: s.image, changed: map[int64][]byte{}}
	for ; len(edits) >= 5; edits = edits[5:] {
		at := blocks[int(edits[0])%len(blocks)]
		if w.changed[at] == nil {
			w.changed[at] = bytes.Clone(s.image[at : at+blockSize])
		}
		copy(w.changed[at][int(binary.LittleEndian.Uint16(edits[1:]))%(blockSize-2):], edits[3:5])
		if fit {
			sign(w.changed[at])
		}
	}
	return w
}

// watched fails the test that reads what is not there, or without end.
type watched struct {
	t       testing.TB
	image   []byte
	changed map[int64][]byte // blocks that are others
	blocks  []int64          // that were read
}

func (w *watched) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > int64(len(w.image)) || len(b) > piece {
		w.t.Fatalf("%d bytes at %d are read of an image of %d", len(b), at, len(w.image))
	}
	n := copy(b, w.image[at:])
	for i := at / blockSize * blockSize; i < at+int64(len(b)); i += blockSize {
		w.blocks = append(w.blocks, i)
		if block, is := w.changed[i]; is {
			copy(b[max(0, i-at):], block[max(0, at-i):])
		}
	}
	if len(w.blocks) > 1<<18 {
		w.t.Fatal("it reads and reads")
	}
	return n, nil
}

// readAll describes what there is, in a file system whose nodes are in order.
func readAll(r *watched) map[string]string {
	found := map[string]string{}
	f, err := Open(r, int64(len(r.image)))
	must(r.t, err)
	must(r.t, fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link, sum := "", crc32.NewIEEE()
		if info.Mode()&fs.ModeSymlink != 0 {
			link, err = f.ReadLink(path)
		} else if !info.IsDir() {
			var file fs.File
			if file, err = f.Open(path); err == nil {
				_, err = io.CopyBuffer(struct{ io.Writer }{sum}, file, make([]byte, 100_000))
			}
		}
		if found[path] = fmt.Sprintf("%v %d %s %x", info.Mode(), info.Size(), link, sum.Sum32()); err != nil {
			found[path] = "error"
		}
		return nil
	}))
	return found
}

// check reads an image with changes: in nodes, where anything may come of it but what
// lookuptest and watched see, or in content, which is right then or an error.
func (s *small) check(t *testing.T, edits []byte, content bool) {
	if !content {
		w := s.edited(t, s.nodes, edits, true)
		if f, err := Open(w, int64(len(w.image))); err == nil {
			lookuptest.Explore(t, f)
		}
		if len(edits) < 5 && fmt.Sprint(readAll(w)) != fmt.Sprint(s.files) {
			t.Error("without a change it holds other files")
		}
		return
	}
	got := readAll(s.edited(t, s.content, edits, false))
	for path, want := range s.files {
		if got[path] != want && got[path] != "error" {
			t.Errorf("%s is read as %s, and is %s", path, got[path], want)
		}
	}
}

// Whatever is changed in an image, reading it ends, and no changed content is read.
func TestChanged(t *testing.T) {
	s, random := newSmall(t), rand.NewChaCha8([32]byte{7})
	s.check(t, nil, false)
	for i := range 500 {
		edits := make([]byte, 5*(1+i%6))
		random.Read(edits)
		s.check(t, edits, i%4 == 0)
	}
}

// readError reads all until something is wrong.
func readError(w *watched) error {
	f, err := Open(w, int64(len(w.image)))
	if err != nil {
		return err
	}
	return fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		if err == nil && d.Type().IsRegular() {
			_, err = fs.ReadFile(f, path)
		}
		return err
	})
}

// A node that is in order, and not the one that belongs there, is not read: a disk may
// have lost the write of that.
func TestNodesThatDoNotBelong(t *testing.T) {
	s, begins := newSmall(t), 0
	for i := range s.nodes[1:] {
		node := byte(i + 1)
		if err := readError(s.edited(t, s.nodes, []byte{node, 80, 0, 1, 0}, true)); err == nil || !strings.Contains(err.Error(), "it is of generation 1 and should be of") {
			t.Errorf("node %d is of another generation: %v", i, err)
		}
		if err := readError(s.edited(t, s.nodes, []byte{node, 100, 0, 7, s.image[s.nodes[node]+101]}, true)); err == nil || !strings.Contains(err.Error(), "it is another one") {
			t.Errorf("node %d is of another level: %v", i, err)
		}
		if err := readError(s.edited(t, s.nodes, []byte{node, 110, 0, 7, 7}, true)); err != nil && strings.Contains(err.Error(), "does not begin as it should") {
			begins++
		}
	}
	if begins < 3 {
		t.Errorf("%d nodes that begin with another key than is said were told", begins)
	}
}

// What two extents claim has no one content.
func TestExtentsOnTopOfEachOther(t *testing.T) {
	s := newSmall(t)
	w := s.edited(t, s.nodes, nil, true)
	f, err := Open(w, int64(len(w.image)))
	must(t, err)
	info, err := f.Stat("lzo")
	must(t, err)
	key := func(offset uint64) []byte {
		b := append(binary.LittleEndian.AppendUint64(nil, info.Sys().(*lookup.Owner).Inode), extentData)
		return binary.LittleEndian.AppendUint64(b, offset)
	}
	for _, at := range s.nodes {
		if node := s.image[at : at+blockSize]; bytes.Contains(node, key(128<<10)) {
			w.changed[at] = bytes.ReplaceAll(node, key(128<<10), key(64<<10))
			sign(w.changed[at])
		}
	}
	if err := readError(w); err == nil || !strings.Contains(err.Error(), "have byte 65536") {
		t.Errorf("%d nodes were changed: %v", len(w.changed), err)
	}
}

func FuzzRead(f *testing.F) {
	s := newSmall(f)
	f.Add([]byte{}, false)
	f.Add([]byte{0, 188, 0, 1, 2}, false)
	f.Add([]byte{1, 1, 2, 3, 4, 5, 101, 0, 7, 7}, false)
	f.Add([]byte{9, 1, 2, 3, 4}, true)
	f.Fuzz(func(t *testing.T, edits []byte, content bool) { s.check(t, edits, content) })
}

func TestLZO(t *testing.T) {
	for name, c := range map[string]struct{ in, out string }{
		"nothing":           {"\x11\x00\x00", ""},
		"literals first":    {"\x15abcd\x11\x00\x00", "abcd"},
		"a run":             {"\x01abcd\x11\x00\x00", "abcd"},
		"a long run":        {"\x00\x00\x01" + strings.Repeat("x", 274) + "\x11\x00\x00", strings.Repeat("x", 274)},
		"repeats":           {"\x15abcd\x6c\x00\x11\x00\x00", "abcdabcd"},
		"runs into itself":  {"\x12a\x20\x07\x00\x00\x11\x00\x00", "a" + strings.Repeat("a", 40)},
		"few literals next": {"\x15abcd\x6d\x00e\x11\x00\x00", "abcdabcde"},
	} {
		if got, err := lzo(nil, []byte(c.in), 1000); err != nil || string(got) != c.out {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, in := range map[string]string{
		"empty": "", "cut off": "\x15abcd", "cut off in a run": "\x15abc", "before the start": "\x15abcd\x6c\x01\x11\x00\x00", "too much": "\x00" + strings.Repeat("\x00", 9) + "\x01x",
		"something behind the end": "\x15abcd\x11\x00\x00x",
	} {
		if got, err := lzo(nil, []byte(in), 1000); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// FuzzLZO has anything decompressed, which ends within bounds; and what is sent as
// literals come out again, behind what was there.
func FuzzLZO(f *testing.F) {
	f.Add([]byte("\x15abcd\x6c\x00\x11\x00\x00"), 100)
	f.Fuzz(func(t *testing.T, in []byte, most int) {
		most &= 1<<17 - 1
		before := []byte("what was there")
		if out, err := lzo(bytes.Clone(before), in, most); err == nil && (len(out) > max(most, len(before)) || !bytes.HasPrefix(out, before)) {
			t.Fatalf("%d bytes of %d at most: %q", len(out), most, out)
		}
		if len(in) == 0 || len(in) > 200 {
			return
		}
		sent := append(append([]byte{byte(17 + len(in))}, in...), 0x11, 0, 0)
		if out, err := lzo(bytes.Clone(before), sent, 1000); err != nil || string(out) != string(before)+string(in) {
			t.Fatalf("%q came out as %q, %v", in, out, err)
		}
		_, _ = unpackLZO(in, most, blockSize)
	})
}
