package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"upkeep"
)

// TestInAFolder works on an image by its folder, which gets another name meanwhile,
// and something else its own: nothing outside is touched.
func TestInAFolder(t *testing.T) {
	need(t, "ext4")
	top := t.TempDir()
	dir := filepath.Join(top, "images")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o755))
	folder, err := os.Open(dir)
	must(err)
	defer folder.Close()
	must(os.Rename(dir, filepath.Join(top, "moved")))
	must(os.Mkdir(dir, 0o755))
	run(t)(Create(In(folder, "a.img"), Creation{Size: 16 * mib, FS: "ext4"}))
	run(t)(Grow(In(folder, "a.img"), Growth{To: 24 * mib, Untrusted: true}))
	run(t)(Clone(In(folder, "a.img"), In(folder, "b.img"), Cloning{}))
	run(t)(Pack(In(folder, "b.img"), In(folder, "b.zst"), PackOptions{}))
	run(t)(Unpack(t.Context(), In(folder, "b.zst"), In(folder, "c.img"), Unpacking{}))
	for _, name := range []string{"a.img", "b.img", "c.img"} {
		inOrder(t, filepath.Join(top, "moved", name), "ext4")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("in the folder that has its name there are %v: %v", left, err)
	}
}

// TestInFollowsNoLink has symbolic links in the place of images, and one that comes to
// be there after a verb was made ready.
func TestInFollowsNoLink(t *testing.T) {
	need(t, "ext4")
	top := t.TempDir()
	outside := filepath.Join(top, "outside.img")
	run(t)(Create(outside, Creation{Size: 16 * mib, FS: "ext4"}))
	before := print(t, outside)
	dir := filepath.Join(top, "images")
	folder := func() *os.File {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		folder, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return folder
	}()
	defer folder.Close()
	if err := os.Symlink(outside, filepath.Join(dir, "link.img")); err != nil {
		t.Fatal(err)
	}
	link := In(folder, "link.img")
	for name, try := range map[string]func() (*Work, error){
		"grow":   func() (*Work, error) { return Grow(link, Growth{To: 24 * mib}) },
		"shrink": func() (*Work, error) { return Shrink(link, Shrinking{Min: true}) },
		"mkfs":   func() (*Work, error) { return MkFS(link, Remaking{Type: "ext4", Force: true}) },
		"check":  func() (*Work, error) { return Check(link, Checking{Repair: true, Untrusted: true}) },
		"trim":   func() (*Work, error) { return Trim(link, 0) },
		"clone":  func() (*Work, error) { return Clone(link, In(folder, "x.img"), Cloning{}) },
		"pack":   func() (*Work, error) { return Pack(link, In(folder, "x.zst"), PackOptions{}) },
		"unpack": func() (*Work, error) { return Unpack(context.Background(), link, In(folder, "x.img"), Unpacking{}) },
		"copy":   func() (*Work, error) { return Copy(link, In(folder, "x.img"), Copying{}) },
		"over":   func() (*Work, error) { return Copy(outside, link, Copying{}) },
	} {
		if w, err := try(); !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%s: %v, %v", name, w, err)
		}
	}
	// Replaced by a link after it was looked at.
	run(t)(Create(In(folder, "a.img"), Creation{Size: 16 * mib, FS: "ext4"}))
	w, err := Grow(In(folder, "a.img"), Growth{To: 24 * mib, Untrusted: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := errors.Join(os.Remove(filepath.Join(dir, "a.img")), os.Symlink(outside, filepath.Join(dir, "a.img"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Do(t.Context(), nil); err == nil {
		t.Error("it was grown")
	}
	if after := print(t, outside); after != before {
		t.Errorf("the image outside is %s, and was %s", after, before)
	}
}
