package xfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/lookup/lookuptest"
)

// patched is an image of which some bytes are others. Nothing is to read outside of it.
type patched struct {
	t       testing.TB
	image   []byte
	patches []patch
}

type patch struct {
	at int64
	b  []byte
}

// ReadAt implements [io.ReaderAt].
func (p *patched) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > int64(len(p.image)) {
		p.t.Errorf("%d bytes at %d are read of an image of %d", len(b), at, len(p.image))
		return 0, io.EOF
	}
	copy(b, p.image[at:])
	for _, patch := range p.patches {
		if from := patch.at - at; from < 0 && -from < int64(len(patch.b)) {
			copy(b, patch.b[-from:])
		} else if from >= 0 && from < int64(len(b)) {
			copy(b[from:], patch.b)
		}
	}
	return len(b), nil
}

func (p *patched) open() (*FS, error) { return Open(p, int64(len(p.image))) }

// small is a file system of a kind that has no checksums to find damage, and so lets it
// through to what must stand it; and where its metadata is.
func small(t testing.TB) (image []byte, places []int64) {
	for _, name := range []string{"TEST_DIR", "TEST_DEV", "QA_CHECK_FS"} { // or it would be too small for mkfs.xfs
		switch t := t.(type) {
		case *testing.F:
			t.Setenv(name, "/")
		case *testing.T:
			t.Setenv(name, "/")
		}
	}
	file, _ := filled(t, 40*mib, "-m", "crc=0", "-d", "agcount=2", "-l", "size=5m")
	places = append([]int64{0}, treed(t, file)...)
	f := opened(t, file)
	for _, name := range []string{".", "short", "of-a-block", "leaf", "node", "link60", "link400", "noise", "char"} {
		n := inodeOf(t, f, name)
		at, _ := f.Offset(n.number >> f.InodeBits)
		places = append(places, at+int64(n.number&(1<<f.InodeBits-1))*f.InodeSize)
		if n.format != inExtents {
			continue
		}
		for e, err := range n.extents(span{0, 8}) {
			must(t, err)
			places = append(places, e.at)
		}
	}
	image, err := os.ReadFile(file.Name())
	must(t, err)
	return image, places
}

// TestDamaged turns what it likes in an image, of which reading ends, and soon.
func TestDamaged(t *testing.T) {
	image, places := small(t)
	random := rand.New(rand.NewPCG(5, 6))
	values := []uint64{0, 1, 0xff, 0xffff, 1<<31 - 1, 1 << 32, 1 << 62, 1<<64 - 1}
	for range 300 {
		p := &patched{t: t, image: image}
		for range 1 + random.IntN(3) {
			at := places[random.IntN(len(places))] + int64(random.IntN([]int{64, 256, 4096}[random.IntN(3)]))
			b := binary.BigEndian.AppendUint64(nil, []uint64{values[random.IntN(len(values))], random.Uint64()}[random.IntN(2)])
			p.patches = append(p.patches, patch{at, b[random.IntN(8):]})
		}
		if f, err := p.open(); err == nil {
			lookuptest.Explore(t, f)
		}
	}
}

func FuzzRead(f *testing.F) {
	image, places := small(f)
	for i, place := range places {
		f.Add(uint8(i), uint16(0), bytes.Clone(image[place:place+256]), uint8(0), uint16(0), []byte{})
	}
	whole, err := Open(bytes.NewReader(image), int64(len(image)))
	must(f, err)
	want := listing(f, whole)
	f.Fuzz(func(t *testing.T, place uint8, within uint16, b []byte, place2 uint8, within2 uint16, b2 []byte) {
		p := &patched{t, image, []patch{{places[int(place)%len(places)] + int64(within%4096), b}, {places[int(place2)%len(places)] + int64(within2%4096), b2}}}
		same := true
		for _, patch := range p.patches {
			same = same && patch.at+int64(len(patch.b)) <= int64(len(image)) && bytes.Equal(patch.b, image[patch.at:][:len(patch.b)])
		}
		files, err := p.open()
		if same {
			must(t, err)
			if !maps.Equal(listing(t, files), want) {
				t.Error("the image reads in another way than it did")
			}
		} else if err == nil {
			lookuptest.Explore(t, files)
		}
	})
}

// TestSignatures has damage found by what metadata of version 5 says of itself, and told
// with its place.
func TestSignatures(t *testing.T) {
	file := made(t, 300*mib)
	mounted(t, file, false, func(root string) {
		must(t, os.WriteFile(filepath.Join(root, "empty"), nil, 0o600))
		folders(t, root)
		pieces(t, filepath.Join(root, "pieces"), 100, 4096)
		must(t, os.Symlink(strings.Repeat("a/", 400), filepath.Join(root, "link")))
	})
	f := opened(t, file)
	for name, check := range map[string]func() error{
		"block":  func() error { _, err := f.ReadDir("block"); return err },
		"node":   func() error { _, err := f.ReadDir("node"); return err },
		"link":   func() error { _, err := f.ReadLink("link"); return err },
		"pieces": func() error { _, err := sum(f, "pieces"); return err },
	} {
		n := inodeOf(t, f, name)
		inodeAt, _ := f.Offset(n.number >> f.InodeBits)
		inodeAt += int64(n.number&(1<<f.InodeBits-1)) * f.InodeSize
		at, size, s := inodeAt, int64(len(n.raw)), inodeSignature
		damage(t, file, at, size, s, check, "inode", "at byte")
		switch n.kind() {
		case 0o040000:
			size, s = f.FolderBlock, folderSignature
		case 0o120000:
			size, s = f.BlockSize, linkSignature
		}
		if n.format == inTree {
			at, _ = f.Offset(be64(n.fork[4+8*((len(n.fork)-4)/16):]))
			size, s = f.BlockSize, treeSignature
		} else {
			for e, err := range n.extents(span{0, 1}) {
				must(t, err)
				at = e.at
			}
		}
		damage(t, file, at, size, s, check, "block at byte", "inode")
		must(t, check())
	}
}

// damage changes a piece of metadata in each way that its signature gives away, and puts
// it back.
func damage(t *testing.T, file *os.File, at, size int64, s signature, check func() error, says ...string) {
	t.Helper()
	was := make([]byte, size)
	_, err := file.ReadAt(was, at)
	must(t, err)
	for what, place := range map[string]int{"checksum": -1, "another file system": s.uuid, "is of inode": s.owner, "belongs to sector": s.place} {
		if place == 0 {
			continue
		}
		b := bytes.Clone(was)
		if place < 0 {
			b[len(b)-1] ^= 1
		} else {
			b[place+7] ^= 1
			clear(b[s.sum : s.sum+4])
			binary.LittleEndian.PutUint32(b[s.sum:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		}
		_, err := file.WriteAt(b, at)
		must(t, err)
		err = check()
		if !errors.Is(err, fsinfo.ErrDamaged) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		for _, text := range says {
			if err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, without %q", what, err, text)
			}
		}
		_, err = file.WriteAt(was, at)
		must(t, err)
	}
}

// TestFolderOfOneBlock has a folder whose blocks are all the same one.
func TestFolderOfOneBlock(t *testing.T) {
	image, _ := small(t)
	f, err := Open(bytes.NewReader(image), int64(len(image)))
	must(t, err)
	n := inodeOf(t, f, "leaf")
	if n.format != inExtents {
		t.Fatalf("the folder is of format %d", n.format)
	}
	high, low, count := be64(n.fork), be64(n.fork[8:]), uint64(f.FolderBlock/f.BlockSize)
	for i := range uint64(2) { // extents of one block of the folder each; it begins with the first
		binary.BigEndian.PutUint64(n.fork[extentSize*i:], high|i*count<<9)
		binary.BigEndian.PutUint64(n.fork[extentSize*i+8:], low&^(1<<21-1)|count)
	}
	binary.BigEndian.PutUint32(n.raw[76:], 2)
	n.size = 2 * f.FolderBlock
	if _, err := n.Entries(); !errors.Is(err, fsinfo.ErrDamaged) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("it lists %v", err)
	}
}

// TestRefuses has what is not read here.
func TestRefuses(t *testing.T) {
	file := made(t, 300*mib)
	mounted(t, file, false, func(root string) { must(t, os.WriteFile(filepath.Join(root, "file"), []byte("x"), 0o600)) })
	super := make([]byte, 512)
	_, err := file.ReadAt(super, 0)
	must(t, err)
	with := func(change func(b []byte)) error {
		b := bytes.Clone(super)
		change(b)
		clear(b[224:228])
		binary.LittleEndian.PutUint32(b[224:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		_, err := file.WriteAt(b, 0)
		must(t, err)
		_, err = Open(file, 300*mib)
		return err
	}
	must(t, with(func(b []byte) { b[219] |= 0xc0 })) // exchange, parent
	if err := with(func(b []byte) { b[218] |= 1 }); !errors.Is(err, fsinfo.ErrUnsupported) {
		t.Errorf("with a folder of metadata: %v", err)
	}
	if err := with(func(b []byte) { b[122] = 12 }); !errors.Is(err, fsinfo.ErrDamaged) {
		t.Errorf("with inodes of 4096 bytes: %v", err)
	}
	must(t, with(func([]byte) {}))
	if _, err := Open(file, 299*mib); !errors.Is(err, fsinfo.ErrDamaged) || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("cut off: %v", err)
	}
	if _, err := Open(bytes.NewReader(make([]byte, 4096)), 4096); !errors.Is(err, fsinfo.ErrUnsupported) {
		t.Errorf("zeros: %v", err)
	}

	f := opened(t, file)
	n := inodeOf(t, f, "file")
	n.raw[91] |= onRealtime
	if _, err := n.ReadAt(make([]byte, 1), 0); !errors.Is(err, fsinfo.ErrUnsupported) || !strings.Contains(err.Error(), "realtime device") {
		t.Errorf("a file on a realtime device: %v", err)
	}
	if _, err := f.ReadLink("file"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("the link of a file: %v", err)
	}
}
