package btrfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"upkeep/internal/image/btrfstree"
	"upkeep/internal/testkit"
)

// TestReadsWhatTheKernelWrote compares every file with what the kernel says of it.
func TestReadsWhatTheKernelWrote(t *testing.T) {
	for args, many := range map[string]int{
		"": 5000, "--mixed": 100, "-m single": 100, "-m dup -d dup": 100, "-n 4k": 1000, "-n 64k": 1000, "-O ^no-holes": 100, "-O ^extref,^skinny-metadata": 100, "-R quota": 100,
		"--csum xxhash": 100, "--csum sha256 --mixed -n 4k": 100, "--csum blake2": 100,
	} {
		t.Run(args, func(t *testing.T) {
			file := image(t, 512*mib, strings.Fields(args)...)
			var want map[string]string
			mounted(t, file, nil, func(dir string) {
				names(t, dir, many)
				kinds(t, dir)
				contents(t, dir)
				pieces(t, dir)
				subvolumes(t, dir)
			})
			for _, how := range []string{"lzo", "zlib", "zstd"} {
				mounted(t, file, []string{"compress-force=" + how}, func(dir string) {
					must(t, os.Mkdir(filepath.Join(dir, how), 0o755))
					contents(t, filepath.Join(dir, how))
				})
			}
			mounted(t, file, nil, func(dir string) { want = atMounted(t, dir) })
			f := opened(t, file)
			same(t, atReader(t, f), want)
			if all := layouts(t, f); len(all) != 9 && args != "-O ^no-holes" || len(all) < 9 {
				t.Errorf("extents are laid out in these ways: %v", all)
			}
		})
	}
}

// layouts are the ways in which extents lie there: inline or not, compressed or not.
func layouts(t *testing.T, f *FS) map[string]int {
	found := map[string]int{}
	must(t, f.t.Walk(f.top.root, btrfstree.Key{}, func(key btrfstree.Key, item btrfstree.Fields) (bool, error) {
		if key.Kind == extentData {
			found[fmt.Sprintf("type %d, compression %d, hole %v", item[20], item[16], item[20] == regular && item.U64(21) == 0)]++
		}
		return true, nil
	}))
	return found
}

// TestReadsAnywhere reads pieces at random places.
func TestReadsAnywhere(t *testing.T) {
	file := image(t, 256*mib)
	for _, how := range []string{"no", "lzo", "zlib", "zstd"} {
		option := []string{"compress-force=" + how}
		if how == "no" {
			option = nil
		}
		mounted(t, file, option, func(dir string) {
			must(t, os.Mkdir(filepath.Join(dir, how), 0o755))
			contents(t, filepath.Join(dir, how))
		})
	}
	f, random := opened(t, file), rand.New(rand.NewPCG(3, 4))
	must(t, fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		all, err := fs.ReadFile(f, path)
		must(t, err)
		at, err := f.Open(path)
		must(t, err)
		for range 40 {
			b, from := make([]byte, 1+random.IntN(200_000)), random.IntN(len(all)+1)
			n, err := at.(io.ReaderAt).ReadAt(b, int64(from))
			if want := all[from:min(len(all), from+len(b))]; !bytes.Equal(b[:n], want) || (n < len(b)) != errors.Is(err, io.EOF) || err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s: %d bytes at %d: %d are read, want %d; %v", path, len(b), from, n, len(want), err)
			}
		}
		return nil
	}))
}

func TestLinksLeadToPlacesInIt(t *testing.T) {
	file := image(t, 256*mib)
	mounted(t, file, nil, func(dir string) { kinds(t, dir); subvolumes(t, dir) })
	f := opened(t, file)
	for _, link := range []string{"link", "absolute", "over", "folder/and/deeper/file", "hard"} {
		if b, err := fs.ReadFile(f, link); err != nil || string(b) != "deep" {
			t.Errorf("%s leads to %q, %v", link, b, err)
		}
	}
	for _, none := range []string{"dangling", "nothing", "hard/x", "loop", "gone", "snapshot/folder/nested/file", "snapshot/folder/later"} {
		if _, err := f.Open(none); err == nil {
			t.Errorf("%s is opened", none)
		}
	}
	if f.Stale() {
		t.Error("it is stale after it was unmounted")
	}
}

func TestIsAFileSystemOfGo(t *testing.T) {
	file := image(t, 256*mib)
	mounted(t, file, nil, func(dir string) {
		write(t, filepath.Join(dir, "a/b/c"), words(25_000, 1))
		write(t, filepath.Join(dir, "d"), []byte("d"))
		must(t, os.Symlink("a/b", filepath.Join(dir, "e")))
		run(t, dir, "subvolume create", "sub")
		write(t, filepath.Join(dir, "sub/f"), []byte("f"))
	})
	if err := fstest.TestFS(opened(t, file), "a/b/c", "d", "sub/f"); err != nil {
		t.Fatal(err)
	}
}

// The subvolume that is the default is what is read, as it is what is mounted.
func TestDefaultSubvolume(t *testing.T) {
	file := image(t, 256*mib)
	mounted(t, file, nil, func(dir string) {
		write(t, filepath.Join(dir, "outside"), []byte("outside"))
		subvolumes(t, dir)
		run(t, dir, "subvolume set-default", "sub")
	})
	var want map[string]string
	mounted(t, file, nil, func(dir string) { want = atMounted(t, dir) })
	f := opened(t, file)
	same(t, atReader(t, f), want)
	if _, err := f.Stat("outside"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is outside of it: %v", err)
	}
}

// What was flushed and not committed waits in the log.
func TestStale(t *testing.T) {
	file, cut := image(t, 256*mib), filepath.Join(t.TempDir(), "cut.img")
	mounted(t, file, nil, func(dir string) {
		write(t, filepath.Join(dir, "committed"), []byte("committed"))
		flush(t, dir)
		late, err := os.Create(filepath.Join(dir, "flushed"))
		must(t, err)
		must(t, errors.Join(late.Sync(), late.Close()))
		testkit.Run(t, "cp", "--sparse=always", file.Name(), cut)
	})
	copied, err := os.Open(cut)
	must(t, err)
	defer copied.Close()
	f := opened(t, copied)
	if !f.Stale() {
		t.Error("it is not stale")
	}
	if b, err := fs.ReadFile(f, "committed"); err != nil || string(b) != "committed" {
		t.Errorf("committed holds %q, %v", b, err)
	}
	if _, err := f.Stat("flushed"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is in the log only: %v", err)
	}
}

// spoil changes a byte where an image has some content: in the first place, or all.
func spoil(t *testing.T, file *os.File, content []byte, everywhere bool) {
	t.Helper()
	all, err := os.ReadFile(file.Name())
	must(t, err)
	at := bytes.Index(all, content)
	if at < 0 {
		t.Fatal("the content is nowhere")
	}
	for next := 0; next >= 0; at += 1 + next {
		_, err := file.WriteAt([]byte{^all[at]}, int64(at))
		must(t, err)
		if next = bytes.Index(all[at+1:], content); !everywhere {
			break
		}
	}
}

// What is not what was written is an error that says where, or is read from its copy.
func TestDamagedContent(t *testing.T) {
	for _, c := range []struct {
		args, options string
		copies        int
	}{{"-d single", "", 1}, {"-d dup -m dup", "", 2}, {"--mixed --csum xxhash", "", 1}, {"--csum sha256", "nodatasum", 1}} {
		file, content := image(t, 256*mib, strings.Fields(c.args)...), noise(600_000, 7)
		mounted(t, file, strings.Fields(c.options), func(dir string) { write(t, filepath.Join(dir, "file"), content) })
		if c.copies == 2 {
			spoil(t, file, content[200_000:200_100], false)
			if got, err := fs.ReadFile(opened(t, file), "file"); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: with one copy in order: %v", c.args, err)
			}
		}
		spoil(t, file, content[200_000:200_100], true)
		got, err := fs.ReadFile(opened(t, file), "file")
		damage := btrfstree.Damage("")
		switch {
		case c.options != "":
			if err != nil || len(got) != len(content) || got[200_000] == content[200_000] {
				t.Errorf("without checksums: %v", err)
			}
		case !errors.As(err, &damage) || !strings.Contains(err.Error(), "at byte 196608:"):
			t.Errorf("%s: %v", c.args, err)
		case !bytes.Equal(got, content[:196_608]):
			t.Errorf("%s: %d bytes were read before it", c.args, len(got))
		}
	}
}

// changeSuper changes the superblock, and the checksum that fits.
func changeSuper(t *testing.T, file *os.File, change func(super btrfstree.Fields)) {
	t.Helper()
	block := make([]byte, btrfstree.SuperSize)
	_, err := file.ReadAt(block, btrfstree.SuperOffset)
	must(t, err)
	change(block)
	sign(block)
	_, err = file.WriteAt(block, btrfstree.SuperOffset)
	must(t, err)
}

func TestWhatIsNotRead(t *testing.T) {
	refused := func(file *os.File, want string) {
		t.Helper()
		unsupported := btrfstree.Unsupported("")
		info, err := file.Stat()
		must(t, err)
		if _, err := Open(file, info.Size()); !errors.As(err, &unsupported) || err.Error() != want {
			t.Errorf("it is refused with %v, want %s", err, want)
		}
	}
	file := image(t, 128*mib)
	for bit, name := range map[int]string{12: "zoned", 13: "extent_tree_v2", 14: "raid_stripe_tree", 40: "feature incompat_40"} {
		flip := func(super btrfstree.Fields) { super[188+bit/8] ^= 1 << (bit % 8) }
		changeSuper(t, file, flip)
		refused(file, "btrfs with "+name)
		changeSuper(t, file, flip)
	}
	opened(t, file)
	second, err := os.Create(filepath.Join(t.TempDir(), "second.img"))
	must(t, err)
	defer second.Close()
	must(t, second.Truncate(128*mib))
	testkit.Run(t, "mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "raid1", file.Name(), second.Name())
	refused(file, "btrfs on 2 devices")
}

func TestDamaged(t *testing.T) {
	file := image(t, 256*mib, "-m", "dup")
	mounted(t, file, nil, func(dir string) { write(t, filepath.Join(dir, "a name to be found"), words(2000, 1)) })
	damage := btrfstree.Damage("")
	if _, err := Open(file, 100*mib); !errors.As(err, &damage) || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("cut off: %v", err)
	}
	if _, err := Open(bytes.NewReader(make([]byte, mib)), mib); !errors.As(err, &damage) {
		t.Errorf("zeros: %v", err)
	}
	// A leaf of which one copy is spoilt is read from the other.
	spoil(t, file, words(2000, 1), false)
	if b, err := fs.ReadFile(opened(t, file), "a name to be found"); err != nil || !bytes.Equal(b, words(2000, 1)) {
		t.Errorf("with one copy in order: %v", err)
	}
	spoil(t, file, words(2000, 1), true)
	f := opened(t, file)
	if _, err := fs.ReadFile(f, "a name to be found"); !errors.As(err, &damage) || !strings.Contains(err.Error(), "a name to be found") {
		t.Errorf("with none in order: %v", err)
	}
}

// A checksum of each kind is checked, of the superblock and of nodes.
func TestChecksums(t *testing.T) {
	for _, kind := range []string{"crc32c", "xxhash", "sha256", "blake2"} {
		file := image(t, 128*mib, "-m", "single", "--csum", kind)
		f := opened(t, file)
		node, err := f.t.Places(f.t.RootTree().At, uint64(f.t.NodeSize))
		must(t, err)
		for what, at := range map[string]int64{"superblock of btrfs": btrfstree.SuperOffset + 299, "node": int64(node[0]) + 2000} {
			b := make([]byte, 1)
			_, err := file.ReadAt(b, at)
			must(t, err)
			_, err = file.WriteAt([]byte{^b[0]}, at)
			must(t, err)
			damage := btrfstree.Damage("")
			if _, err := Open(file, 128*mib); !errors.As(err, &damage) || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "its checksum is not that of what is in it") {
				t.Errorf("%s, %s: %v", kind, what, err)
			}
			_, err = file.WriteAt(b, at)
			must(t, err)
		}
	}
}
