package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// listed lists what is below a folder.
func listed(t *testing.T, c *Catalog, dir string) upkeep.ImageList {
	t.Helper()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	list, err := c.List(t.Context(), []CatalogRoot{{Name: "vms", Folder: folder}})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func pathsOf(list upkeep.ImageList) (names []string) {
	for _, i := range list.Images {
		names = append(names, i.Path)
	}
	return names
}

// TestCatalog lists images among files that are none, and things that are no files.
func TestCatalog(t *testing.T) {
	need(t, "ext4")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	run(t)(Create(in("b.img"), Creation{Size: 16 * mib, FS: "ext4"}))
	run(t)(Create(in("full"), Creation{Size: 16 * mib, FS: "ext2", Kind: upkeep.ImageFull}))
	run(t)(Create(in("blank.img"), Creation{Size: 16 * mib}))
	run(t)(Create(in("blank"), Creation{Size: 16 * mib}))
	run(t)(Pack(in("b.img"), in("b.zst"), PackOptions{}))
	err := errors.Join(
		os.Mkdir(in("sub"), 0o755), os.Mkdir(in("closed"), 0o755),
		os.WriteFile(in("notes.txt"), []byte("no image"), 0o644), os.WriteFile(in("empty.img"), nil, 0o644),
		os.WriteFile(in(".hidden.img"), []byte("x"), 0o644),
		os.Symlink("/etc/passwd", in("link.img")), os.Symlink(dir, in("sub/round")), unix.Mkfifo(in("fifo.img"), 0o600),
		os.WriteFile(in(".b.img.upkeep-new~"), []byte("x"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	run(t)(Clone(in("b.img"), in("sub/c.img"), Cloning{}))
	file, err := os.OpenFile(in("b.img"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	list := listed(t, &Catalog{}, dir)
	if got, want := pathsOf(list), []string{"b.img", "b.zst", "blank.img", "full", "sub/c.img"}; !slices.Equal(got, want) || list.More != 0 || len(list.Problems) > 0 {
		t.Fatalf("listed is %q of %+v, want %q", got, list, want)
	}
	b, zst, blank, full := list.Images[0], list.Images[1], list.Images[2], list.Images[3]
	if b.Root != "vms" || b.Type != "ext4" || b.State != "clean" || b.Kind != upkeep.ImageSparse || b.Size != int64(16*mib) || b.Used == 0 || !strings.Contains(b.Unfinished, "was left by a command") {
		t.Errorf("got %+v", b)
	}
	if strings.Contains(b.Unfinished, "/proc/") {
		t.Errorf("it speaks of what nobody knows: %s", b.Unfinished)
	}
	if zst.Format != FormatPacked || zst.Holds != int64(16*mib) || zst.Type != "ext4" || zst.UUID != b.UUID {
		t.Errorf("got %+v", zst)
	}
	if blank.Type != "" || full.Kind != upkeep.ImageFull || full.Type != "ext2" {
		t.Errorf("got %+v and %+v", blank, full)
	}
}

// TestCatalogRemembers holds that a file is read again only when it was changed.
func TestCatalogRemembers(t *testing.T) {
	need(t, "ext4")
	dir := t.TempDir()
	path := filepath.Join(dir, "a.img")
	run(t)(Create(path, Creation{Size: 16 * mib, FS: "ext4", Options: Options{Label: "first"}}))
	c := &Catalog{}
	listed(t, c, dir)
	for state, found := range c.known {
		found.Label = "remembered"
		c.known[state] = found
	}
	if list := listed(t, c, dir); list.Images[0].Label != "remembered" {
		t.Errorf("it was read again: %+v", list)
	}
	run(t)(MkFS(path, Remaking{Type: "ext4", Options: Options{Label: "second"}, Force: true}))
	if list := listed(t, c, dir); list.Images[0].Label != "second" || len(c.known) != 1 {
		t.Errorf("it was not read again: %+v", list)
	}
}

// TestCatalogOfThousands logs what it costs to list thousands of images, and again.
func TestCatalogOfThousands(t *testing.T) {
	dir := t.TempDir()
	const n = 2000
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.img", i)), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &Catalog{}
	for range 2 {
		begun := time.Now()
		if list := listed(t, c, dir); len(list.Images) != n || list.Images[0].Holders != nil {
			t.Fatalf("%d images, %q", len(list.Images), list.Problems)
		}
		t.Logf("%d images in %s", n, time.Since(begun))
	}
}
