package fit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/tree"
	"upkeep/internal/testkit"
)

// memory is a folder in memory that is mounted nowhere.
func memory(t testing.TB) *os.File {
	t.Helper()
	testkit.NeedRoot(t)
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	testkit.NeedThat(t, "tmpfs", err)
	defer unix.Close(fs)
	must(t, unix.FsconfigSetString(fs, "size", "2g"), unix.FsconfigSetString(fs, "nr_inodes", "1m"), unix.FsconfigCreate(fs))
	mounted, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(mounted)
	fd, err := unix.Openat(mounted, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	root := os.NewFile(uintptr(fd), "tree")
	t.Cleanup(func() { root.Close() })
	return root
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func at(root *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", root.Fd(), name)
}

// trees are such as are put into images, and some that are mean.
var trees = map[string]func(t testing.TB, root *os.File){
	"system": func(t testing.TB, root *os.File) {
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 2000 {
			dir := fmt.Sprintf("usr/%d/%d", i%40, i%200)
			if i < 200 {
				must(t, os.MkdirAll(at(root, dir), 0o755))
			}
			size := int(random.ExpFloat64() * 15_000)
			must(t, os.WriteFile(at(root, fmt.Sprintf("%s/file-%d.so", dir, i)), make([]byte, size), 0o644))
		}
		for i := range 300 {
			must(t, os.Symlink(strings.Repeat("x", i%100+1), at(root, fmt.Sprint("usr/link", i))))
		}
	},
	"few large files": func(t testing.TB, root *os.File) {
		for i := range 3 {
			must(t, os.WriteFile(at(root, fmt.Sprint(i)), make([]byte, 40<<20), 0o644))
		}
		must(t, os.Link(at(root, "1"), at(root, "again")))
	},
	"holes": func(t testing.TB, root *os.File) {
		for i := range 20 {
			f, err := os.Create(at(root, fmt.Sprint(i)))
			must(t, err, f.Truncate(1<<30))
			for j := range 100 {
				_, err := f.WriteAt([]byte("x"), int64(j)*7_000_000)
				must(t, err)
			}
			must(t, f.Close())
		}
	},
	"long names": func(t testing.TB, root *os.File) {
		for i := range 6_000 {
			must(t, os.WriteFile(at(root, fmt.Sprintf("%0200d", i)), nil, 0o644))
		}
	},
	"small files": func(t testing.TB, root *os.File) {
		for i := range 4_000 {
			must(t, os.WriteFile(at(root, fmt.Sprint(i)), []byte("small"), 0o644))
		}
	},
	"empty files": func(t testing.TB, root *os.File) { // which take nothing but inodes
		for i := range 20_000 {
			must(t, os.WriteFile(at(root, fmt.Sprint(i)), nil, 0o644))
		}
	},
	"attributes": func(t testing.TB, root *os.File) {
		for i := range 1000 {
			must(t, os.WriteFile(at(root, fmt.Sprint(i)), []byte("x"), 0o644))
			must(t, unix.Setxattr(at(root, fmt.Sprint(i)), "trusted.x", []byte(strings.Repeat(fmt.Sprint(i), 50)), 0))
		}
	},
}

// fill makes a file system of a size and copies a tree into it.
func fill(t testing.TB, root *os.File, name string, size int64, o filesystem.Options) error {
	t.Helper()
	typ, err := filesystem.Find(name)
	must(t, err)
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	must(t, err)
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	must(t, file.Truncate(size))
	if err := typ.Make(context.Background(), file, size, o); err != nil {
		return err
	}
	return mount.With(file, mount.Options{Type: name}, func(dir *os.File) error {
		if _, err := tree.Copy(context.Background(), dir, root, tree.Options{}); err != nil {
			return err
		}
		return unix.Syncfs(int(dir.Fd()))
	})
}

// TestFits makes what was found, and something smaller, and fills both.
func TestFits(t *testing.T) {
	testkit.Need(t, "mke2fs", "mkfs.xfs", "mkfs.btrfs")
	for name, plant := range trees {
		t.Run(name, func(t *testing.T) {
			root := memory(t)
			plant(t, root)
			u, err := Measure(context.Background(), root)
			must(t, err)
			for typ, blocks := range map[string][]int64{"ext2": {1024}, "ext3": {4096}, "ext4": {1024, 4096}, "xfs": {0}, "btrfs": {0}} {
				if !isExt(typ) && name != "system" && name != "small files" {
					continue
				}
				for _, block := range blocks {
					fits(t, root, u, typ, filesystem.Options{BlockSize: block})
				}
			}
		})
	}
}

// slack is by how many percent of the size found a file system may be smaller and
// still hold the tree, and how many bytes beside: what was seen, and a bit.
func slack(typ string) (percent, bytes int64) {
	if isExt(typ) {
		return 3, 64 << 10
	}
	return 45, 128 << 20
}

func fits(t *testing.T, root *os.File, u *Usage, typ string, o filesystem.Options) {
	t.Helper()
	fit, err := Find(context.Background(), u, typ, o, 0)
	if err != nil {
		t.Errorf("%s: %v", typ, err)
		return
	}
	if err := fill(t, root, typ, int64(fit.Size), fit.Options); err != nil {
		t.Errorf("%s of %s, blocks of %d, does not hold the tree: %v (%q)", typ, fit.Size.About(), fit.Options.BlockSize, err, fit.Why)
		return
	}
	percent, bytes := slack(typ)
	smaller := int64(fit.Size)*(100-percent)/100 - bytes
	kind, err := filesystem.Find(typ)
	must(t, err)
	if smaller < int64(kind.Min) || (typ == "ext3" || typ == "ext4") && smaller < minJournaled*fit.Options.BlockSize {
		return // there is none that small, or none with a journal
	}
	if err := fill(t, root, typ, smaller, fit.Options); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%s, blocks of %d: found %s, and %s would do: %v (%q)", typ, fit.Options.BlockSize, fit.Size.About(), upkeep.Size(smaller).About(), err, fit.Why)
	}
}
