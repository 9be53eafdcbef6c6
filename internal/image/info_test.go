package image

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/pack"
	"upkeep/internal/testkit"
)

// Of a disk with partitions each is described, and one can be looked into as if it
// were an image of its own.
func TestInfoOfPartitions(t *testing.T) {
	testkit.Need(t, "sfdisk", "mke2fs", "mkfs.vfat")
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 64<<20)); err != nil {
		t.Fatal(err)
	}
	program, err := testkit.Find("sfdisk")
	if err != nil {
		t.Fatal(err)
	}
	sfdisk := exec.Command(program, "-q", disk)
	sfdisk.Stdin = strings.NewReader("label: gpt\nsize=20M\nsize=30M\nsize=2M\n")
	if out, err := sfdisk.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	put(t, disk, 1<<20, made(t, Creation{Size: 20 << 20, FS: "ext4"}))
	put(t, disk, 21<<20, made(t, Creation{Size: 30 << 20, FS: "vfat"}))

	d, err := Info(disk)
	if err != nil {
		t.Fatal(err)
	}
	if d.Table == nil || d.Table.Kind != "gpt" || len(d.Table.Partitions) != 3 || d.FS != nil || len(d.Table.Problems) > 0 {
		t.Fatalf("got %+v", d)
	}
	for i, want := range []string{fsinfo.Ext4, fsinfo.VFAT, fsinfo.None} {
		got := fsinfo.None
		if fs := d.Table.Partitions[i].FS; fs != nil {
			got = fs.Type
		}
		if got != want {
			t.Errorf("partition %d holds %q, want %q", i+1, got, want)
		}
	}
	one, err := InfoOf(disk, 1)
	if err != nil || one.FS == nil || one.FS.Type != fsinfo.Ext4 || one.FS.Size != 20<<20 || one.Partition != 1 || one.Parts == nil {
		t.Errorf("got %+v, %v", one, err)
	}
	one.Holders, one.Unseen, one.Parts = nil, 0, nil
	if outline, err := Outline(disk, 1); err != nil || !reflect.DeepEqual(outline, one) {
		t.Errorf("the outline is %+v, %v, want %+v", outline, err, one)
	}
	packed := filepath.Join(t.TempDir(), "disk.zst")
	run(t)(Pack(disk, packed, PackOptions{}))
	if inside, err := Info(packed); err != nil || inside.Inside == nil || !reflect.DeepEqual(inside.Table, d.Table) {
		t.Errorf("of the disk packed it is known %+v, %v, want %+v", inside, err, d.Table)
	}
	if inside, err := InfoOf(packed, 1); err != nil || inside.Partition != 1 || !reflect.DeepEqual(inside.FS, one.FS) || inside.Parts != nil || inside.Inside == nil {
		t.Errorf("of its first partition it is known %+v, %v, want %+v", inside, err, one.FS)
	}
	for _, path := range []string{disk, packed} {
		if _, err := InfoOf(path, 4); err == nil || !strings.Contains(err.Error(), "there is no partition 4; the image has 1, 2, 3") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := InfoOf(gzipped(t, 1<<20), 1); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("of a partition in a gzip file: %v", err)
	}
}

func put(t *testing.T, disk string, at int64, image string) {
	t.Helper()
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(content, at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// What is deleted is told from what is there, and what packing makes of it is
// foretold.
func TestWhyAnImageIsLarge(t *testing.T) {
	testkit.Need(t, "debugfs")
	path := made(t, Creation{Size: 64 << 20, FS: "ext4"})
	noise := filepath.Join(t.TempDir(), "noise")
	f, err := os.Create(noise)
	if err != nil {
		t.Fatal(err)
	}
	random, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer random.Close()
	if _, err := io.CopyN(f, random, 10<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	program, err := testkit.Find("debugfs")
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{"write " + noise + " kept", "write " + noise + " gone", "rm gone"} {
		if out, err := exec.Command(program, "-w", "-R", request, path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	d, err := Info(path)
	if err != nil {
		t.Fatal(err)
	}
	p := d.Parts
	if p == nil || p.Deleted < 10<<20 || p.Deleted > 12<<20 || p.Files < 10<<20 || p.Files > 12<<20 {
		t.Fatalf("10 MiB are kept and 10 MiB deleted, and it is told as %+v", p)
	}
	image, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	used, err := fsinfo.Used(image, *d.FS)
	if err != nil {
		t.Fatal(err)
	}
	var ranges []pack.Range
	for _, e := range used {
		ranges = append(ranges, pack.Range(e))
	}
	packed, err := pack.Pack(t.Context(), filepath.Join(t.TempDir(), "packed"), image, pack.Options{Used: ranges})
	if err != nil {
		t.Fatal(err)
	}
	if ratio := float64(p.Packed) / float64(packed.Packed); ratio < 0.8 || ratio > 1.25 {
		t.Errorf("it was to become %d and became %d", p.Packed, packed.Packed)
	}
}

// TestInfoOfADamagedSuperblock tells what is wrong, and all else.
func TestInfoOfADamagedSuperblock(t *testing.T) {
	path := made(t, Creation{Size: 16 * mib, FS: "ext4"})
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt([]byte{1, 2, 3, 4}, 1024+1020) // its checksum
	must(t, errors.Join(err, file.Close()))
	if d := look(t, path); !strings.Contains(d.Damage, "its checksum is") || d.Size != 16*mib || d.FS != nil {
		t.Errorf("told is %+v", d)
	}
}
