package extfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
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

	"upkeep/internal/image/lookup/lookuptest"
	"upkeep/internal/testkit"
)

// tree makes a folder with files of all kinds that matter to a reader.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	noise := make([]byte, 300_000)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	for name, content := range map[string][]byte{
		"empty": nil, "tiny": []byte("tiny\n"), "inline": bytes.Repeat([]byte("i"), 100), "etc/passwd": []byte("root:x:0:0\n"), "noise": noise,
		strings.Repeat("n", 255): []byte("long name"), "deep/er/and/deeper/file": []byte("deep"), "new\nline -dash": []byte("odd"),
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, name), content, 0o640))
	}
	must(t, os.Mkdir(filepath.Join(root, "many"), 0o1777))
	for i := range 400 {
		must(t, os.WriteFile(filepath.Join(root, "many", fmt.Sprintf("file-with-a-name-of-some-length-%d", i)), []byte{byte(i)}, 0o600))
	}
	holes, err := os.Create(filepath.Join(root, "holes"))
	must(t, err)
	for i := range int64(700) {
		_, err := holes.WriteAt([]byte(fmt.Sprint("piece ", i)), i*24<<10)
		must(t, err)
	}
	_, err = holes.WriteAt([]byte("end"), 17<<20+5) // a hole at the end is not carried into every layout
	must(t, err)
	must(t, holes.Close())
	for link, to := range map[string]string{
		"link": "etc/passwd", "absolute": "/etc/passwd", "over": "../../../etc/passwd", "loop": "loop", "long-link": strings.Repeat("./", 100) + "tiny", "folder": "deep/er", "dangling": "nowhere",
	} {
		must(t, os.Symlink(to, filepath.Join(root, link)))
	}
	must(t, os.Link(filepath.Join(root, "tiny"), filepath.Join(root, "etc/hard")))
	return root
}

func image(t testing.TB, from string, args ...string) *os.File {
	t.Helper()
	testkit.Need(t, "mke2fs")
	path := filepath.Join(t.TempDir(), "x.img")
	args = append([]string{"-q", "-F", "-d", from}, append(args, path, "96M")...)
	if out, err := exec.Command("mke2fs", args...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs %v: %v\n%s", args, err, out)
	}
	file, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { file.Close() })
	return file
}

func opened(t testing.TB, file *os.File) *FS {
	t.Helper()
	info, err := file.Stat()
	must(t, err)
	f, err := Open(file, info.Size())
	must(t, err)
	return f
}

var layouts = map[string][]string{
	"ext2 of 1K":      {"-t", "ext2", "-b", "1024"},
	"ext3":            {"-t", "ext3", "-b", "1024"},
	"ext4":            {"-t", "ext4", "-b", "4096"},
	"ext4 of 1K":      {"-t", "ext4", "-b", "1024"},
	"without extents": {"-t", "ext4", "-O", "^extents,^64bit"},
	"inline":          {"-t", "ext4", "-O", "inline_data", "-I", "512"},
	"meta groups":     {"-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"},
	"few copies":      {"-t", "ext4", "-b", "1024", "-O", "sparse_super2"},
	"clusters":        {"-t", "ext4", "-O", "bigalloc", "-C", "16384"},
	"old inodes":      {"-t", "ext2", "-I", "128", "-O", "^sparse_super,^filetype,^resize_inode"},
}

func TestReadsWhatMke2fsWrote(t *testing.T) {
	root := tree(t)
	want := listing(t, os.DirFS(root).(fs.ReadLinkFS), false)
	for name, args := range layouts {
		t.Run(name, func(t *testing.T) {
			f := opened(t, image(t, root, args...))
			got := listing(t, f, true)
			for path, is := range want {
				if got[path] != is {
					t.Errorf("%.40q is %.90q, want %.90q", path, got[path], is)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d files, want %d: %v", len(got), len(want), slices.Sorted(maps.Keys(got)))
			}
			for _, link := range []string{"link", "absolute", "over", "folder/../../etc/passwd"} {
				if !fs.ValidPath(link) {
					continue
				}
				if b, err := fs.ReadFile(f, link); err != nil || string(b) != "root:x:0:0\n" {
					t.Errorf("%s leads to %q, %v", link, b, err)
				}
			}
			if b, err := fs.ReadFile(f, "folder/and/deeper/file"); err != nil || string(b) != "deep" {
				t.Errorf("through a link: %q, %v", b, err)
			}
			for _, none := range []string{"dangling", "nothing", "tiny/x", "loop"} {
				if _, err := f.Open(none); err == nil {
					t.Errorf("%s is opened", none)
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
	must(t, os.Symlink("a/b", filepath.Join(root, "e")))
	if err := fstest.TestFS(opened(t, image(t, root, "-t", "ext4")), "a/b/c", "d"); err != nil {
		t.Fatal(err)
	}
}

// Whatever is turned in an image, reading it ends, and soon.
func TestDamaged(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "a"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "a/b"), bytes.Repeat([]byte("text "), 5000), 0o644))
	file := image(t, root, "-t", "ext4", "-N", "64", "-O", "^has_journal,^resize_inode")
	start := make([]byte, 2<<20)
	_, err := file.ReadAt(start, 0)
	must(t, err)
	random := rand.New(rand.NewPCG(5, 6))
	for range 250 {
		bad := slices.Clone(start)
		for range 1 + random.IntN(4) {
			// In the superblock, the groups, and the inodes and folders behind them.
			at := []int{1024 + random.IntN(300), 4096 + random.IntN(64), random.IntN(len(bad))}[random.IntN(3)]
			binary.LittleEndian.PutUint16(bad[min(at, len(bad)-2):], uint16(random.Uint32()))
		}
		explore(t, bad, 96<<20)
	}
	if _, err := Open(bytes.NewReader(start), int64(len(start))); !errors.Is(err, ErrDamaged) {
		t.Errorf("cut off: %v", err)
	}
	if _, err := Open(bytes.NewReader(make([]byte, 4096)), 4096); !errors.Is(err, ErrUnsupported) {
		t.Errorf("zeros: %v", err)
	}
}

// A folder whose blocks are all the same one has more names than there are.
func TestFolderOfOneBlock(t *testing.T) {
	root := t.TempDir()
	for i := range 200 {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprint("a file with a name ", i)), nil, 0o600))
	}
	f := opened(t, image(t, root, "-t", "ext2", "-b", "1024"))
	n, err := f.inode(rootInode)
	must(t, err)
	if all, err := n.Entries(); err != nil || len(all) < 200 {
		t.Fatalf("it has %d names, %v", len(all), err)
	}
	copy(n.raw[44:48], n.raw[40:44])
	if _, err := n.Entries(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("it lists %v", err)
	}
}

// A file with extents ends before block 2^32, whatever size it says that it has.
func TestSizeBeyondExtents(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "file"), []byte("content"), 0o600))
	f := opened(t, image(t, root, "-t", "ext4"))
	top, err := f.inode(rootInode)
	must(t, err)
	n, err := top.Lookup("file")
	must(t, err)
	n.size = 1 << 50
	if got, err := n.ReadAt(make([]byte, 1), 1<<46); got != 0 || !errors.Is(err, ErrDamaged) {
		t.Errorf("%d bytes are read, %v", got, err)
	}
	if _, _, err := n.NextData(1 << 46); !errors.Is(err, ErrDamaged) {
		t.Errorf("looking for data: %v", err)
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
	if err := os.WriteFile(filepath.Join(root, "a"), bytes.Repeat([]byte("x"), 9000), 0o644); err != nil {
		f.Fatal(err)
	}
	file := image(f, root, "-t", "ext4", "-b", "1024", "-N", "32", "-O", "^has_journal,^resize_inode,inline_data", "-I", "256")
	start := make([]byte, 64<<10)
	if _, err := file.ReadAt(start, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(start)
	f.Fuzz(func(t *testing.T, b []byte) { explore(t, b, 96<<20) })
}

// listing describes every file.
func listing(t *testing.T, f fs.ReadLinkFS, image bool) map[string]string {
	t.Helper()
	found := make(map[string]string)
	must(t, fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if image && path == "lost+found" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := f.ReadLink(path)
			if err != nil {
				return err
			}
			text += " " + to
		case info.Mode().IsRegular():
			b, err := fs.ReadFile(f, path)
			if err != nil {
				return fmt.Errorf("reading %s: %w", path, err)
			}
			text += fmt.Sprintf(" %d %d %x", info.ModTime().Unix(), len(b), sha256.Sum256(b))
		}
		if path != "." {
			found[path] = text
		}
		return nil
	}))
	return found
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
