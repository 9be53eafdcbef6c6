package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/shadow"
	"upkeep/internal/testkit"
)

// patchy makes an image with text, noise, holes, zeros that are written and a size
// that is no multiple of anything.
func patchy(t *testing.T, kind upkeep.ImageKind) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "web.img"))
	must(t, err)
	t.Cleanup(func() { file.Close() })
	must(t, shadow.Allocate(file, 40<<20+777, kind))
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	for at, content := range map[int64][]byte{
		0:             []byte("boot"),
		1<<20 - 10:    bytes.Repeat([]byte("across chunks "), 10_000),
		5<<20 + 4096:  noise,
		20 << 20:      make([]byte, 2<<20),
		30<<20 + 4000: bytes.Repeat([]byte{7}, 200),
		40<<20 + 700:  bytes.Repeat([]byte("z"), 77),
	} {
		_, err := file.WriteAt(content, at)
		must(t, err)
	}
	return file
}

func TestPackedIsRestoredByZstdAndHere(t *testing.T) {
	testkit.Need(t, "zstd")
	for _, kind := range []upkeep.ImageKind{upkeep.ImageSparse, upkeep.ImageFull} {
		t.Run(string(kind), func(t *testing.T) {
			file := patchy(t, kind)
			want := content(t, file.Name())
			path := filepath.Join(t.TempDir(), "web.zst")
			result, err := Pack(context.Background(), path, file, Options{Facts: Facts{Type: "none", Label: "w"}})
			must(t, err)
			packed := content(t, path)
			if int64(len(packed)) != result.Packed || len(packed) > 4<<20 {
				t.Errorf("it has %d bytes, and %d are said", len(packed), result.Packed)
			}
			if got := run(t, packed, "-d", "-c"); !bytes.Equal(got, want) {
				t.Fatal("zstd -d restores something else")
			}
			run(t, packed, "-t")
			image := open(t, packed)
			if m := image.Manifest; m.Kind != kind || m.Facts.Label != "w" || m.Size != int64(len(want)) {
				t.Errorf("its manifest is %+v", m)
			}
			out := filepath.Join(t.TempDir(), "out.img")
			unpacked, err := image.Unpack(context.Background(), out, 0o644, UnpackOptions{})
			must(t, err)
			if got := content(t, out); !bytes.Equal(got, want) || unpacked.Kind != kind {
				t.Fatalf("unpacked is something else (%+v)", unpacked)
			}
			back, err := os.Open(out)
			must(t, err)
			defer back.Close()
			if got, err := shadow.KindOf(back); err != nil || got != kind {
				t.Errorf("unpacked it is %s, %v; want %s", got, err, kind)
			}
			again := filepath.Join(t.TempDir(), "again.zst")
			_, err = Pack(context.Background(), again, file, Options{Facts: Facts{Type: "none", Label: "w"}})
			must(t, err)
			if !bytes.Equal(content(t, again), packed) {
				t.Error("packed twice, it has other bytes")
			}
			if _, err := Pack(context.Background(), path, file, Options{}); !errors.Is(err, upkeep.ErrConflict) {
				t.Errorf("a file that exists: %v", err)
			}
			if _, err := image.Unpack(context.Background(), path, 0o644, UnpackOptions{}); !errors.Is(err, upkeep.ErrConflict) {
				t.Errorf("unpacking over a file: %v", err)
			}
		})
	}
}

func TestReadAnywhere(t *testing.T) {
	file := patchy(t, upkeep.ImageSparse)
	want := content(t, file.Name())
	image := open(t, packOf(t, file, Options{}))
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		at := random.IntN(len(want))
		n := min(random.IntN(3<<20), len(want)-at)
		got := make([]byte, n)
		if _, err := image.ReadAt(got, int64(at)); err != nil || !bytes.Equal(got, want[at:at+n]) {
			t.Fatalf("%d bytes at %d: %v", n, at, err)
		}
	}
	if n, err := image.ReadAt(make([]byte, 10), int64(len(want))-3); n != 3 || !errors.Is(err, io.EOF) {
		t.Errorf("over the end: %d, %v", n, err)
	}
	for _, part := range []Range{{0, 0}, {5000, 3}, {4 << 20, 20 << 20}, {30<<20 + 4001, 9 << 20}, {int64(len(want)) - 1, 1}} {
		out := filepath.Join(t.TempDir(), "part")
		_, err := image.Unpack(context.Background(), out, 0o644, UnpackOptions{Part: &part})
		must(t, err)
		if !bytes.Equal(content(t, out), want[part.Offset:part.End()]) {
			t.Errorf("the part %v is something else", part)
		}
	}
	if _, err := image.Unpack(context.Background(), filepath.Join(t.TempDir(), "x"), 0o644, UnpackOptions{Part: &Range{1, int64(len(want))}}); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("a part beyond the end: %v", err)
	}
}

// Only what is used comes back; the rest is zeros, also within a chunk.
func TestFreeBlocksAreDropped(t *testing.T) {
	testkit.Need(t, "zstd")
	file := patchy(t, upkeep.ImageFull)
	want := content(t, file.Name())
	used := []Range{{0, 1024}, {2048, 1 << 20}, {6 << 20, 100}, {6<<20 + 500, 1}, {40 << 20, 777}}
	packed := packOf(t, file, Options{Used: used})
	at := int64(0)
	for _, r := range used {
		clear(want[at:r.Offset])
		at = r.End()
	}
	if got := run(t, packed, "-d", "-c"); !bytes.Equal(got, want) {
		t.Fatal("it is not the image with zeros outside what is used")
	}
	if m := open(t, packed).Manifest; m.Dropped == 0 {
		t.Errorf("nothing is said to be dropped")
	}
	if got := run(t, packOf(t, file, Options{Used: []Range{}}), "-d", "-c"); !bytes.Equal(got, make([]byte, len(want))) {
		t.Error("an image of which nothing is used is not all zeros")
	}
}

func TestOddImages(t *testing.T) {
	testkit.Need(t, "zstd")
	for name, make := range map[string]func(*os.File) error{
		"empty":      func(*os.File) error { return nil },
		"one byte":   func(f *os.File) error { _, err := f.Write([]byte{1}); return err },
		"all a hole": func(f *os.File) error { return f.Truncate(1<<30 + 5) },
		"end only":   func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 1<<28); return err },
	} {
		t.Run(name, func(t *testing.T) {
			file, err := os.Create(filepath.Join(t.TempDir(), "x"))
			must(t, err)
			defer file.Close()
			must(t, make(file))
			packed := packOf(t, file, Options{})
			if len(packed) > 200_000 {
				t.Errorf("it is packed into %d bytes", len(packed))
			}
			run(t, packed, "-t")
			image := open(t, packed)
			out := filepath.Join(t.TempDir(), "out")
			_, err = image.Unpack(context.Background(), out, 0o600, UnpackOptions{})
			must(t, err)
			back, err := os.Open(out)
			must(t, err)
			defer back.Close()
			if got, want := dataOf(t, back), dataOf(t, file); !maps.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("unpacked is something else: data at %v, not at %v", slices.Collect(maps.Keys(got)), slices.Collect(maps.Keys(want)))
			}
		})
	}
}

// Whatever byte of a packed file is turned, the image comes back as it was or not
// at all.
func TestDamageIsFound(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	must(t, err)
	defer file.Close()
	_, err = file.WriteAt(bytes.Repeat([]byte("some text "), 500), 1<<20)
	must(t, err)
	_, err = file.WriteAt([]byte("end"), 5<<20)
	must(t, err)
	want := content(t, file.Name())
	packed := packOf(t, file, Options{})
	refused := 0
	tried := 0
	for at := 0; at < len(packed); at += 1 + len(packed)/150 {
		bad := slices.Clone(packed)
		bad[at] ^= 0x11
		tried++
		if got, err := unpackAll(t, bad); err != nil {
			refused++
		} else if !bytes.Equal(got, want) {
			t.Fatalf("with byte %d turned it is unpacked as something else", at)
		}
	}
	// A frame may say in several ways what it holds; that it holds it is what counts.
	if refused < tried*9/10 {
		t.Errorf("%d of %d damages are found", refused, tried)
	}
	for cut := range len(packed) {
		if _, err := Open(bytes.NewReader(packed[:cut]), int64(cut)); err == nil {
			t.Fatalf("cut to %d bytes it is opened", cut)
		}
	}
}

// Manifests that are whole, and lie.
func TestHostileManifests(t *testing.T) {
	file := patchy(t, upkeep.ImageSparse)
	packed := packOf(t, file, Options{})
	table, good, err := readTables(bytes.NewReader(packed), int64(len(packed)))
	must(t, err)
	for name, lie := range map[string]func(*Manifest, *SeekTable){
		"larger":            func(m *Manifest, _ *SeekTable) { m.Size++ },
		"negative":          func(m *Manifest, _ *SeekTable) { m.Size = -1 },
		"kind":              func(m *Manifest, _ *SeekTable) { m.Kind = "fat" },
		"chunk of nothing":  func(m *Manifest, _ *SeekTable) { m.Chunk = 0 },
		"giant chunk":       func(m *Manifest, _ *SeekTable) { m.Chunk = 1 << 40 },
		"dropped":           func(m *Manifest, _ *SeekTable) { m.Dropped = m.Size + 1 },
		"extent outside":    func(m *Manifest, _ *SeekTable) { m.Data = append(m.Data, Range{1 << 40, 4096}) },
		"extents overlap":   func(m *Manifest, _ *SeekTable) { m.Data = append(m.Data, m.Data[len(m.Data)-1]) },
		"extents touch":     func(m *Manifest, _ *SeekTable) { m.Data = slices.Insert(m.Data, 1, Range{m.Data[0].End(), 4096}) },
		"no extent":         func(m *Manifest, _ *SeekTable) { m.Data = slices.Delete(m.Data, 2, 3) },
		"a hash less":       func(m *Manifest, _ *SeekTable) { m.Sums = m.Sums[1:] },
		"a hash more":       func(m *Manifest, _ *SeekTable) { m.Sums = append(m.Sums, m.Sums[0]) },
		"frame as zeros":    func(m *Manifest, t *SeekTable) { (*t)[1].Size = 1 << 30 },
		"frames not placed": func(m *Manifest, t *SeekTable) { (*t)[0].Size--; (*t)[1].Size++ },
	} {
		t.Run(name, func(t *testing.T) {
			m, frames := *good, rebuilt(t, table)
			m.Data, m.Sums = slices.Clone(good.Data), slices.Clone(good.Sums)
			lie(&m, &frames)
			if got, err := Open(bytes.NewReader(assemble(t, packed, &m, frames)), sizeOf(t, packed, &m, frames)); err == nil {
				t.Errorf("it is taken as %+v", got.Manifest)
			}
		})
	}
	m := *good
	if _, err := Open(bytes.NewReader(assemble(t, packed, &m, rebuilt(t, table))), int64(len(packed))); err != nil {
		t.Fatalf("without a lie it is refused: %v", err)
	}
	m.Sums = slices.Clone(good.Sums)
	m.Sums[2] = sha256.Sum256(nil)
	image, err := Open(bytes.NewReader(assemble(t, packed, &m, rebuilt(t, table))), int64(len(packed)))
	must(t, err)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := image.Unpack(context.Background(), out, 0o600, UnpackOptions{}); !errors.Is(err, errDamaged) {
		t.Errorf("a chunk with another hash: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// A frame that unpacks to more than its chunk is stopped at the chunk's size.
func TestBomb(t *testing.T) {
	testkit.Need(t, "zstd")
	bomb := run(t, make([]byte, 1<<26), "-3", "-c")
	m := &Manifest{Size: 1 << 20, Kind: upkeep.ImageSparse, Chunk: 1 << 20, Data: []Range{{0, 1 << 20}}, Sums: make([][32]byte, 1)}
	var table SeekTable
	must(t, table.Add(uint32(len(bomb)), 1<<20))
	packed := assemble(t, bomb, m, table)
	image, err := Open(bytes.NewReader(packed), int64(len(packed)))
	must(t, err)
	if _, err := image.ReadAt(make([]byte, 1), 0); !errors.Is(err, errDamaged) {
		t.Errorf("a bomb: %v", err)
	}
}

func TestOtherFilesAreNoPackedImages(t *testing.T) {
	testkit.Need(t, "zstd")
	plain := run(t, []byte("plain"), "-c")
	for name, b := range map[string][]byte{"nothing": nil, "text": []byte("hello, I am a text"), "plain zstd": plain, "gzip": []byte("\x1f\x8b aaaaaaaaaaaaaaaaaaaa")} {
		if _, err := Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrNotPacked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var table SeekTable
	must(t, table.Add(uint32(len(plain)), 5))
	other := append(plain, table.Encode()...)
	if _, err := Open(bytes.NewReader(other), int64(len(other))); !errors.Is(err, ErrNotPacked) {
		t.Errorf("a seekable file of another program: %v", err)
	}
}

func TestPackIsStopped(t *testing.T) {
	file := patchy(t, upkeep.ImageSparse)
	ctx, stop := context.WithCancel(context.Background())
	path := filepath.Join(t.TempDir(), "x.zst")
	_, err := Pack(ctx, path, file, Options{Progress: func(int64, int64) { stop() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("stopped, it says %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestChangedWhilePacked(t *testing.T) {
	file := patchy(t, upkeep.ImageSparse)
	path := filepath.Join(t.TempDir(), "x.zst")
	once := false
	_, err := Pack(context.Background(), path, file, Options{Progress: func(int64, int64) {
		if !once {
			once = true
			_, err := file.WriteAt([]byte("new"), 9)
			must(t, err)
		}
	}})
	if !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "changed while") {
		t.Errorf("changed meanwhile, it says %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func FuzzOpen(f *testing.F) {
	m := &Manifest{Size: 1 << 20, Kind: upkeep.ImageSparse, Chunk: 1 << 20}
	var table SeekTable
	if err := table.Add(uint32(zeroFrameSize(1<<20)), 1<<20); err != nil {
		f.Fatal(err)
	}
	frame, err := m.encode(table)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame[headerSize:len(frame)-sha256.Size], []byte{54, 0, 0, 0, 0, 0, 16, 0})
	f.Fuzz(func(t *testing.T, manifest, entries []byte) {
		var table SeekTable
		for ; len(entries) >= 8; entries = entries[8:] {
			if table.Add(binary.LittleEndian.Uint32(entries), binary.LittleEndian.Uint32(entries[4:])) != nil {
				return
			}
		}
		sum := manifestSum(manifest, table)
		m, err := decodeManifest(skippable(manifestMagic, append(slices.Clone(manifest), sum[:]...)), table)
		if err != nil {
			return
		}
		at := int64(0)
		for _, r := range m.Data {
			if r.Offset < at || r.Length <= 0 || r.End() > m.Size {
				t.Fatalf("extent %v is taken", r)
			}
			at = r.End()
		}
		if n := len(table); n > 0 && table[n-1].Offset+int64(table[n-1].Size) != m.Size || n == 0 && m.Size != 0 {
			t.Fatal("frames do not fill the image")
		}
	})
}

// FuzzUnpack gives the packed bytes of a chunk.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte("\x28\xb5\x2f\xfd\x04\x00\x09\x00\x00a\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		if len(packed) == 0 || int64(len(packed)) > maxPacked(1000) {
			return
		}
		m := &Manifest{Size: 1000, Kind: upkeep.ImageSparse, Chunk: minChunk, Data: []Range{{0, 4096}}, Sums: make([][32]byte, 1)}
		var table SeekTable
		must(t, table.Add(uint32(len(packed)), 1000))
		whole := assemble(t, packed, m, table)
		image, err := Open(bytes.NewReader(whole), int64(len(whole)))
		must(t, err)
		if _, err := image.ReadAt(make([]byte, 10), 5); err == nil {
			t.Fatal("a hash of nothing fits")
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// dataOf has the ranges of a file that hold data, and its size.
func dataOf(t *testing.T, file *os.File) map[int64][]byte {
	t.Helper()
	info, err := file.Stat()
	must(t, err)
	found := map[int64][]byte{info.Size(): nil}
	for at := int64(0); at < info.Size(); {
		from, to, err := allocation.NextData(int(file.Fd()), at, info.Size())
		must(t, err)
		if from < to {
			found[from] = make([]byte, to-from)
			_, err := file.ReadAt(found[from], from)
			must(t, err)
		}
		at = to
	}
	return found
}

func packOf(t *testing.T, file *os.File, o Options) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "packed.zst")
	_, err := Pack(context.Background(), path, file, o)
	must(t, err)
	return content(t, path)
}

func open(t *testing.T, packed []byte) *Image {
	t.Helper()
	image, err := Open(bytes.NewReader(packed), int64(len(packed)))
	must(t, err)
	return image
}

func unpackAll(t *testing.T, packed []byte) ([]byte, error) {
	t.Helper()
	image, err := Open(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		return nil, err
	}
	out := filepath.Join(t.TempDir(), "out")
	if _, err := image.Unpack(context.Background(), out, 0o600, UnpackOptions{}); err != nil {
		return nil, err
	}
	defer os.Remove(out)
	return content(t, out), nil
}

// rebuilt is a copy of a table.
func rebuilt(t *testing.T, table SeekTable) SeekTable {
	t.Helper()
	return slices.Clone(table)
}

// assemble puts a manifest and a table behind the frames of a packed file.
func assemble(t *testing.T, packed []byte, m *Manifest, table SeekTable) []byte {
	t.Helper()
	frame, err := m.encode(table)
	must(t, err)
	last := table[len(table)-1]
	whole := append(slices.Clone(packed[:last.PackedOffset+int64(last.PackedSize)]), frame...)
	table = slices.Clone(table)
	must(t, table.Add(uint32(len(frame)), 0))
	return append(whole, table.Encode()...)
}

func sizeOf(t *testing.T, packed []byte, m *Manifest, table SeekTable) int64 {
	t.Helper()
	return int64(len(assemble(t, packed, m, table)))
}
