package filesystem

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/image/shadow"
	"upkeep/internal/image/tool"
	"upkeep/internal/testkit"
)

func need(t *testing.T, typ Type) { testkit.Need(t, typ.Programs...) }

func sparse(t *testing.T, size int64) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return file
}

func find(t *testing.T, name string) Type {
	t.Helper()
	typ, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

func TestMakeAndCheck(t *testing.T) {
	ctx := context.Background()
	five := 5.0
	const id = "6b1f0c9e-2d1a-4c55-9f7e-0a1b2c3d4e5f"
	cases := []struct {
		of    string
		size  int64
		with  Options
		wants string // what the program says of it
		ask   tool.Command
	}{
		{Ext2, 64 << 20, Options{Profile: "small", Label: "root", UUID: id}, id, tool.Command{Name: "dumpe2fs", Args: []string{"-h", tool.Image}}},
		{Ext3, 64 << 20, Options{Profile: "xen-2010", Inodes: 5000}, `Inode size:\x09 128`, tool.Command{Name: "dumpe2fs", Args: []string{"-h", tool.Image}}},
		{Ext4, 64 << 20, Options{Profile: "small", BlockSize: 2048, Reserved: &five}, "Block size: 2048", tool.Command{Name: "dumpe2fs", Args: []string{"-h", tool.Image}}},
		{Ext4, 4 << 30, Options{Profile: "small"}, "Inode count: 1048576", tool.Command{Name: "dumpe2fs", Args: []string{"-h", tool.Image}}},
		{XFS, 300 << 20, Options{Profile: "xen-2010", Label: "data", UUID: id}, `"data"`, tool.Command{Name: "xfs_db", Args: []string{"-r", "-f", "-c", "label", tool.Image}}},
		{Btrfs, 128 << 20, Options{Label: "data"}, "data", tool.Command{Name: "btrfs", Args: []string{"filesystem", "label", tool.Image}}},
		{ReiserFS, 64 << 20, Options{Label: "old", UUID: id}, id, tool.Command{Name: "debugreiserfs", Args: []string{tool.Image}}},
		{VFAT, 64 << 20, Options{Label: "efi", UUID: "1A2B-3C4D"}, "EFI", tool.Command{Name: "fatlabel", Args: []string{tool.Image}}},
		{Swap, 64 << 20, Options{Label: "swap", UUID: id}, id, tool.Command{Name: "swaplabel", Args: []string{tool.Image}}},
	}
	for _, c := range cases {
		t.Run(c.of+" "+c.with.Profile, func(t *testing.T) {
			typ := find(t, c.of)
			need(t, typ)
			testkit.Need(t, c.ask.Name)
			file := sparse(t, c.size)
			if err := typ.Make(ctx, file, c.size, c.with); err != nil {
				t.Fatal(err)
			}
			if info, err := file.Stat(); err != nil || info.Size() != c.size {
				t.Errorf("the image is %v, %v afterwards", info, err)
			}
			if err := typ.Proven(ctx, file, "made", nil); err != nil {
				t.Error(err)
			}
			c.ask.File = file
			result, err := c.ask.Run(ctx)
			if said := strings.Join(strings.Fields(result.Output), " "); err != nil || !strings.Contains(said, c.wants) {
				t.Errorf("%s says %q, %v; want %q", c.ask.Name, said, err, c.wants)
			}
		})
	}
}

// TestMakesInSmallSpace has file systems made without writing what is zero already.
func TestMakesInSmallSpace(t *testing.T) {
	for _, name := range []string{Ext2, Ext3, Ext4} {
		typ := find(t, name)
		need(t, typ)
		file := sparse(t, 8<<30)
		if err := typ.Make(context.Background(), file, 8<<30, Options{}); err != nil {
			t.Fatal(err)
		}
		if err := shadow.Dig(file, 8<<30); err != nil {
			t.Fatal(err)
		}
		if used := allocated(t, file); used > 8<<20 {
			t.Errorf("%s of 8G takes %s", name, upkeep.Size(used).About())
		}
	}
}

func TestGrowAndShrink(t *testing.T) {
	ctx := context.Background()
	for _, name := range []string{Ext2, Ext3, Ext4, ReiserFS} {
		t.Run(name, func(t *testing.T) {
			typ := find(t, name)
			need(t, typ)
			file := sparse(t, 64<<20)
			steps := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			steps(typ.Make(ctx, file, 64<<20, Options{}))
			steps(file.Truncate(300 << 20))
			prepared := func() {
				t.Helper()
				if mended, err := typ.Prepare(ctx, file, nil); err != nil || mended != "" {
					t.Errorf("what is in order was repaired: %q, %v", mended, err)
				}
			}
			prepared()
			steps(typ.Grow(ctx, file))
			steps(typ.Proven(ctx, file, "grown", nil))
			prepared()
			steps(typ.Shrink(ctx, file, 100<<20))
			steps(file.Truncate(100 << 20))
			steps(typ.Proven(ctx, file, "shrunk", nil))
			if err := typ.Shrink(ctx, file, 1<<20); !errors.Is(err, errNotEnough) && (name == Ext3 || name == Ext4) { // whose journals are larger
				t.Errorf("shrinking to 1M: %v", err)
			}
		})
	}
}

func TestDamageIsSeenAndMended(t *testing.T) {
	ctx := context.Background()
	for name, at := range map[string]int64{Ext4: 0, VFAT: 0, ReiserFS: 0} {
		t.Run(name, func(t *testing.T) {
			typ := find(t, name)
			need(t, typ)
			file := sparse(t, 64<<20)
			if err := typ.Make(ctx, file, 64<<20, Options{}); err != nil {
				t.Fatal(err)
			}
			damage(t, name, file)
			verdict, err := typ.Check(ctx, file, nil)
			if err != nil || verdict.Clean || verdict.Found == "" || verdict.Hint == "" {
				t.Errorf("a check of damage at %d finds %+v, %v", at, verdict, err)
			}
			verdict, err = typ.Repair(ctx, file, nil)
			if err != nil || !verdict.Clean || !verdict.Mended || verdict.Found == "" {
				t.Errorf("mending ends with %+v, %v", verdict, err)
			}
			if err := typ.Proven(ctx, file, "mended", nil); err != nil {
				t.Error(err)
			}
			if verdict, err := typ.Repair(ctx, file, nil); err != nil || !verdict.Clean || verdict.Mended {
				t.Errorf("mending what is clean: %+v, %v", verdict, err)
			}
		})
	}
}

// damage breaks what each type's check looks at and can mend.
func damage(t *testing.T, name string, file *os.File) {
	t.Helper()
	var at int64
	var with []byte
	switch name {
	case Ext4:
		at, with = 1024+12, []byte{1, 0, 0, 0} // free blocks
	case VFAT:
		at, with = 510+512*4+8, []byte{0x12, 0x34} // an entry of one table, not of its copy
	case ReiserFS:
		at, with = 17*4096+1500, []byte{0xff, 0xff, 0xff} // free blocks that are marked used
	}
	if _, err := file.WriteAt(with, at); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeAsked(t *testing.T) {
	nan := math.NaN()
	cases := []struct {
		of   string
		size int64
		with Options
		want []string
	}{
		{Ext4, 4 << 10, Options{}, []string{"size: \"4K\": must be at least 1M"}},
		{Ext4, 1 << 30, Options{Profile: "tiny"}, []string{"profile: \"tiny\": must be one of large, news, small, xen-2010"}},
		{Ext4, 1 << 30, Options{Profile: "xen-2010"}, []string{"has no meaning for ext4"}},
		{XFS, 1 << 30, Options{Inodes: 5, Profile: "small", Reserved: &nan}, []string{"inodes: ", "profile: ", "reserved: "}},
		{Ext4, 1 << 30, Options{BlockSize: 1000, Reserved: &nan, Inodes: -1}, []string{"power of 2", "from 0 to 50", "from 1 to"}},
		{Ext4, 1 << 30, Options{Label: "seventeen letters", UUID: "random"}, []string{"at most 16 bytes", "must be a UUID"}},
		{Ext4, 1 << 30, Options{Label: "-q"}, []string{"dash"}},
		{Ext4, 1 << 30, Options{Label: "a\nb", UUID: "time"}, []string{"control characters", "must be a UUID"}},
		{VFAT, 1 << 30, Options{Label: "a/b", UUID: "6b1f0c9e-2d1a-4c55-9f7e-0a1b2c3d4e5f"}, []string{"must not hold any", "volume ID"}},
		{XFS, 1 << 30, Options{Label: "a b"}, []string{"space"}},
	}
	for _, c := range cases {
		err := find(t, c.of).Validate(c.size, c.with)
		var invalid *upkeep.InvalidError
		if !errors.As(err, &invalid) || len(invalid.Fields) != len(c.want) {
			t.Errorf("%s %+v: %v, want %q", c.of, c.with, err, c.want)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s %+v: %v, want %q", c.of, c.with, err, want)
			}
		}
	}
	if _, err := Find("ntfs"); err == nil || !strings.Contains(err.Error(), "must be one of ext2, ext3") {
		t.Errorf("ntfs: %v", err)
	}
}
