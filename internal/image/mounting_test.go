package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/mount"
	"upkeep/internal/testkit"
)

// TestMountOfPackedImage mounts what was packed, to be read: of a disk one partition.
// Nothing is left when it is unmounted.
func TestMountOfPackedImage(t *testing.T) {
	testkit.NeedRoot(t)
	path := disk(t, Creation{Size: 40 * mib, FS: "ext4"}, tables[0].script, 2)
	files := fillAt(t, path, at{part(t, path, 2), "ext4"}.mount())
	packed, folder := filepath.Join(t.TempDir(), "disk.zst"), t.TempDir()
	run(t)(Pack(path, packed, PackOptions{}))
	if _, err := Mount(packed, folder, MountOptions{Partition: 2}); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "packed") {
		t.Errorf("mounting a packed image to write: %v", err)
	}
	m, err := Mount(packed, folder, MountOptions{Partition: 2, ReadOnly: true})
	must(t, err)
	if m.File != packed || m.Type != "ext4" {
		t.Errorf("mounted is %+v", m)
	}
	for name := range files {
		if text, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !strings.HasPrefix(string(text), name) {
			t.Errorf("%s holds %.20q: %v", name, text, err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing: %v", err)
	}
	onlyFile(t, packed)
	_, err = mount.Unmount(context.Background(), folder)
	must(t, err)
	if _, err := os.Stat("/sys/block/" + m.Device + "/loop"); err == nil {
		t.Errorf("%s is left", m.Device)
	}
	onlyFile(t, packed)
}

// gzipped is a file of gzip that holds so many bytes which are not zeros.
func gzipped(t *testing.T, size int) string {
	t.Helper()
	noise := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	path := filepath.Join(t.TempDir(), "noise.img.gz")
	out, err := os.Create(path)
	must(t, err)
	z := gzip.NewWriter(out)
	_, err = z.Write(noise)
	must(t, errors.Join(err, z.Close(), out.Close()))
	return path
}

// TestHostFillsUp has the host's room go between the plan and the work.
func TestHostFillsUp(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	need(t, "ext4")
	host := crowded(t, 64*mib)
	path := filepath.Join(host, "web.img")
	run(t)(Create(path, Creation{Size: 16 * mib, FS: "ext4", Kind: upkeep.ImageFull}))
	before := print(t, path)
	source := planted(t)
	zipped := gzipped(t, 8<<20)
	large := t.TempDir()
	must(t, os.WriteFile(filepath.Join(large, "noise"), bytes.Repeat([]byte("noise"), 2<<20), 0o600))
	const known, unknown = `up to \S+ are needed and \S+ are free: \d+ bytes are missing$`, `\S+ are free now, and how much is needed is not known before$`
	mkfs := func(name string) func() (*Work, error) {
		wide := path + ".3"
		return func() (*Work, error) {
			must(t, errors.Join(os.WriteFile(wide, nil, 0o600), os.Truncate(wide, int64(320*mib))))
			return MkFS(wide, Remaking{Type: name})
		}
	}
	for what, one := range map[string]struct {
		begin func() (*Work, error)
		says  string
	}{
		"grow":          {func() (*Work, error) { return Grow(path, Growth{By: 8 * mib, Untrusted: true}) }, known},
		"shrink":        {func() (*Work, error) { return Shrink(path, Shrinking{To: 12 * mib}) }, known},
		"mkfs":          {func() (*Work, error) { return MkFS(path, Remaking{Type: "ext2", Force: true}) }, known},
		"mkfs xfs":      {mkfs("xfs"), unknown},
		"mkfs btrfs":    {mkfs("btrfs"), unknown},
		"mkfs vfat":     {mkfs("vfat"), unknown},
		"mkfs swap":     {mkfs("swap"), unknown},
		"mkfs reiserfs": {mkfs("reiserfs"), unknown},
		"create":        {func() (*Work, error) { return Create(path+".2", Creation{Size: 20 * mib, Kind: upkeep.ImageFull}) }, unknown},
		"write zeros":   {func() (*Work, error) { return Create(path+".2", Creation{Size: 20 * mib, WriteZeros: true}) }, known},
		"clone":         {func() (*Work, error) { return Clone(path, path+".2", Cloning{}) }, known},
		"copy":          {func() (*Work, error) { return Copy(source, path+".2", Copying{Kind: upkeep.ImageFull, Size: 20 * mib}) }, unknown},
		// Of which the kernel, that has it mounted, says that the disk fails.
		"copy sparse": {func() (*Work, error) { return Copy(large, path+".2", Copying{Size: 20 * mib}) }, known},
		// Of which is not known before how large it becomes.
		"unpack": {func() (*Work, error) { return Unpack(context.Background(), zipped, path+".2", Unpacking{}) }, unknown},
	} {
		w, err := one.begin()
		must(t, err)
		filler := filepath.Join(host, "filler")
		var fs unix.Statfs_t
		must(t, unix.Statfs(host, &fs))
		left := uint64(256)
		if w.Plan.Verb == "mkfs" {
			left = 0
		}
		must(t, os.WriteFile(filler, make([]byte, int64(fs.Bfree-left)*fs.Bsize), 0o600))
		err = w.Do(context.Background(), nil)
		var hint *upkeep.HintError
		if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &hint) || hint.Hint != "make room there, or have the image on a file system with more" ||
			!regexp.MustCompile("; the file system of "+regexp.QuoteMeta(w.Plan.File)+" is full: "+one.says).MatchString(err.Error()) {
			t.Errorf("%s on a host that is full: %v", what, err)
		}
		must(t, errors.Join(w.Close(), os.Remove(filler), os.RemoveAll(path+".3")))
		if after := print(t, path); after != before {
			t.Errorf("%s changed the image to %s, from %s", what, after, before)
		}
		onlyFile(t, path)
	}
}

// TestHostHasNoInodes has no inode for a second file, and bytes enough.
func TestHostHasNoInodes(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	host := t.TempDir()
	printed(t, "mount", "-t", "tmpfs", "-o", "size=1M,nr_inodes=2", "tmpfs", host)
	t.Cleanup(func() { printed(t, "umount", host) })
	must(t, os.WriteFile(filepath.Join(host, "other"), nil, 0o600))
	w, err := Create(filepath.Join(host, "web.img"), Creation{Size: mib})
	must(t, err)
	defer w.Close()
	if err := w.Do(t.Context(), nil); !errors.Is(err, unix.ENOSPC) || !strings.HasSuffix(err.Error(), "the file system of "+w.Plan.File+" has no inode left for another file") {
		t.Errorf("got %v", err)
	}
}
