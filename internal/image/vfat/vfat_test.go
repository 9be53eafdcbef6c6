package vfat

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/lookup/lookuptest"
	"upkeep/internal/testkit"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree makes a folder with files of all kinds that matter to a reader.
func tree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	noise := make([]byte, 300_001)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	for name, content := range map[string][]byte{
		"EMPTY": nil, "tiny.txt": []byte("tiny\n"), "MiXed.Case": []byte("mixed"), "noise": noise, "UPPER.TXT": []byte("upper"), "a.b.c d": []byte("dots"),
		strings.Repeat("n", 200): []byte("long name"), "deep/er/and/deeper/file": []byte("deep"), "straße/größe.ü": []byte("umlauts"), "日本語.txt": []byte("wide"), "exactly13char": []byte("a whole piece"),
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, name), content, 0o755))
	}
	must(t, os.Mkdir(filepath.Join(root, "many"), 0o755))
	for i := range 300 {
		must(t, os.WriteFile(filepath.Join(root, "many", fmt.Sprintf("file with a name of some length %d", i)), bytes.Repeat([]byte{byte(i)}, i*7), 0o755))
	}
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		when := time.Date(2011, 12, 13, 14, 15, 16, 0, time.UTC)
		return errors.Join(err, os.Chtimes(path, when, when))
	}))
	return root
}

var kinds = map[string][]string{
	"FAT12":                  {"-F", "12", "-C", "4096"},
	"FAT16":                  {"-F", "16", "-C", "32768"},
	"FAT32":                  {"-F", "32", "-C", "65536"},
	"FAT32 of small sectors": {"-F", "32", "-s", "1", "-C", "40000"},
	"FAT16 of large sectors": {"-F", "16", "-S", "4096", "-C", "131072"},
}

// image has other programs make a file system and copy a folder into it.
func image(t testing.TB, from string, args ...string) *os.File {
	t.Helper()
	testkit.Need(t, "mkfs.vfat", "mcopy", "mdel")
	path := filepath.Join(t.TempDir(), "x.img")
	args = slices.Insert(slices.Clone(args), len(args)-1, path)
	mtools(t, "mkfs.vfat", args...)
	// What is deleted leaves holes, over which what follows is spread.
	gaps := t.TempDir()
	for i := range 60 {
		must(t, os.WriteFile(filepath.Join(gaps, fmt.Sprint("gap", i)), make([]byte, 5000), 0o600))
	}
	all, err := filepath.Glob(gaps + "/*")
	must(t, err)
	mtools(t, "mcopy", append(append([]string{"-i", path}, all...), "::/")...)
	for i := 0; i < 60; i += 2 {
		mtools(t, "mdel", "-i", path, fmt.Sprint("::/gap", i))
	}
	names, err := filepath.Glob(from + "/*")
	must(t, err)
	mtools(t, "mcopy", append(append([]string{"-i", path, "-s", "-m"}, names...), "::/")...)
	for i := 1; i < 60; i += 2 {
		mtools(t, "mdel", "-i", path, fmt.Sprint("::/gap", i))
	}
	file, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { file.Close() })
	return file
}

func mtools(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C.UTF-8", "MTOOLS_SKIP_CHECK=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func opened(t testing.TB, file *os.File) *FS {
	t.Helper()
	info, err := file.Stat()
	must(t, err)
	f, err := Open(file, info.Size())
	must(t, err)
	return f
}

// listing describes every file.
func listing(t *testing.T, f fs.FS) map[string]string {
	t.Helper()
	found := make(map[string]string)
	must(t, fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			found[path] = "folder"
			return err
		}
		content, err := fs.ReadFile(f, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		found[path] = fmt.Sprintf("%s %d %s %x", info.Mode(), info.Size(), info.ModTime().UTC(), sha256.Sum256(content))
		return err
	}))
	return found
}

// TestReadsWhatOthersWrote reads what dosfstools and mtools have written.
func TestReadsWhatOthersWrote(t *testing.T) {
	root := tree(t)
	want := listing(t, os.DirFS(root))
	for name, args := range kinds {
		t.Run(name, func(t *testing.T) {
			f := opened(t, image(t, root, args...))
			if want := name[3:5]; fmt.Sprint(f.Bits) != want {
				t.Errorf("it is read as FAT%d", f.Bits)
			}
			got := listing(t, f)
			for path, is := range want {
				if got[path] != is {
					t.Errorf("%.60q is %q, want %q", path, got[path], is)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d files, want %d: %v", len(got), len(want), slices.Sorted(maps.Keys(got)))
			}
			for _, name := range []string{"TINY.TXT", "mixed.case", "Deep/ER/and/deeper/FILE"} {
				if _, err := fs.ReadFile(f, name); err != nil {
					t.Errorf("in another case: %v", err)
				}
			}
			for name, want := range map[string]error{"nothing": fs.ErrNotExist, "deep/nothing": fs.ErrNotExist, "../deep": fs.ErrInvalid} {
				if _, err := f.Open(name); !errors.Is(err, want) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := f.Open("tiny.txt/x"); err == nil {
				t.Error("there is something in a file")
			}
			file, err := f.Open("noise")
			must(t, err)
			noise, err := os.ReadFile(filepath.Join(root, "noise"))
			must(t, err)
			for range 100 {
				at, length := rand.Int64N(300_001), rand.IntN(40_000)
				b := make([]byte, length)
				n, err := file.(io.ReaderAt).ReadAt(b, at)
				if end := min(at+int64(length), 300_001); !bytes.Equal(b[:n], noise[at:end]) || err != nil && !errors.Is(err, io.EOF) {
					t.Fatalf("%d bytes at %d are %d others: %v", length, at, n, err)
				}
			}
		})
	}
}

func TestIsAFileSystemOfGo(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "a/b/c"), bytes.Repeat([]byte("text "), 5000), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "d"), []byte("d"), 0o644))
	if err := fstest.TestFS(opened(t, image(t, root, kinds["FAT16"]...)), "a/b/c", "d"); err != nil {
		t.Fatal(err)
	}
}

// TestShortNames has names as old programs write them, without long ones.
func TestShortNames(t *testing.T) {
	// Eleven characters, attributes, and which part is in lower case.
	for raw, want := range map[string]string{
		"README  TXT \x00": "README.TXT", "NOEND       \x00": "NOEND", "LOWER   TXT \x18": "lower.txt", "BASE    TXT \x08": "base.TXT", "\x05BC     X   \x00": "σBC.X", "GR\x99\x9aE       \x00": "GRÖÜE",
	} {
		if got := shortName([]byte(raw)); got != want {
			t.Errorf("%q is %q, want %q", raw, got, want)
		}
	}
	if got := len(upper); got != 128 {
		t.Errorf("%d characters from 0x80 on", got)
	}
}

// Whatever is turned in an image, reading it ends, and soon.
func TestDamaged(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "a/folder with a long name"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "a/file with a long name"), bytes.Repeat([]byte("text "), 5000), 0o644))
	for name, args := range kinds {
		file := image(t, root, args...)
		info, err := file.Stat()
		must(t, err)
		start := make([]byte, 2<<20)
		_, err = file.ReadAt(start, 0)
		must(t, err)
		random := rand.New(rand.NewPCG(5, 6))
		for range 100 {
			bad := slices.Clone(start)
			for range 1 + random.IntN(4) {
				at := []int{11 + random.IntN(60), 512 + random.IntN(40<<10), random.IntN(len(bad))}[random.IntN(3)]
				binary.LittleEndian.PutUint16(bad[min(at, len(bad)-2):], uint16(random.Uint32()))
			}
			explore(t, bad, info.Size())
		}
		if _, err := Open(bytes.NewReader(start[:1<<20]), 1<<20); !errors.Is(err, fsinfo.ErrDamaged) {
			t.Errorf("%s, cut off: %v", name, err)
		}
	}
	if _, err := Open(bytes.NewReader(make([]byte, 4096)), 4096); !errors.Is(err, fsinfo.ErrUnsupported) {
		t.Errorf("zeros: %v", err)
	}
}

// TestCircles has chains of clusters that lead back, and end too early.
func TestCircles(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "file"), bytes.Repeat([]byte("text "), 50000), 0o644))
	must(t, os.Mkdir(filepath.Join(root, "folder"), 0o755))
	file := image(t, root, kinds["FAT16"]...)
	info, err := file.Stat()
	must(t, err)
	whole := make([]byte, info.Size())
	_, err = file.ReadAt(whole, 0)
	must(t, err)
	f := opened(t, file)
	for _, name := range []string{"file", "folder"} {
		n, err := f.root().Lookup(name)
		must(t, err)
		entry := int(f.Table) + int(n.cluster)*2
		for what, next := range map[string]uint16{"itself": uint16(n.cluster), "nothing": 0, "outside": 0xfff0, "the end": 0xffff} {
			bad := slices.Clone(whole)
			binary.LittleEndian.PutUint16(bad[entry:], next)
			turned, err := Open(bytes.NewReader(bad), int64(len(bad)))
			must(t, err)
			if name == "file" {
				_, err = fs.ReadFile(turned, name)
			} else {
				_, err = fs.ReadDir(turned, name)
			}
			// A circle has as many clusters as a file says, or as a folder may have.
			if bad := what != "itself" && !(name == "folder" && what == "the end"); bad != errors.Is(err, ErrDamaged) {
				t.Errorf("%s goes on at %s: %v", name, what, err)
			}
		}
	}
}

// explore opens an image that may be damaged, and looks at all that can be read.
func explore(t *testing.T, image []byte, size int64) {
	t.Helper()
	if files, err := Open(lookuptest.ZeroPadded(image), size); err == nil {
		lookuptest.Explore(t, files)
	}
}

func FuzzRead(f *testing.F) {
	root := f.TempDir()
	if err := os.WriteFile(filepath.Join(root, "file with a long name"), bytes.Repeat([]byte("x"), 9000), 0o644); err != nil {
		f.Fatal(err)
	}
	for _, args := range kinds {
		file := image(f, root, args...)
		start := make([]byte, 128<<10)
		if _, err := file.ReadAt(start, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(start)
	}
	f.Fuzz(func(t *testing.T, b []byte) { explore(t, b, 64<<20) })
}
