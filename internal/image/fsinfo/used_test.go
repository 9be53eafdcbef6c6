package fsinfo_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/testkit"
)

// aged fills a mounted file system, and deletes and rewrites part of it, so that
// what is free is in pieces and full of what was there.
const aged = `
mkdir d0 d1 d2 d3 d4 d5 d6
head -c 3000000 /dev/urandom | split -a 3 -b 20001 - d0/f
head -c 200000 /dev/urandom | split -a 3 -b 800 - d1/a-long-name-so-that-the-folder-needs-more-blocks-
rm d0/f*[bdfhjlnprtvxz]
truncate -s 3M d1/sparse; echo end >>d1/sparse
ln d1/sparse d3/link; ln -s ../d1/sparse d3/symlink
head -c 4000000 /dev/urandom >gone; sync .; rm gone d1/*[bdfhjlnprtvxz]; mkdir d2/more`

// inside mounts an image where nobody else sees it and runs a script there.
func inside(t *testing.T, path, kind, script string) string {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "unshare", "mount")
	dir := t.TempDir()
	return testkit.Run(t, "unshare", "-m", "--propagation", "private", "sh", "-ec",
		`mount -t "$1" -o loop`+map[bool]string{true: ",nouuid"}[kind == "xfs"]+` "$2" "$3"; cd "$3"; sh -ec "$4"; cd /; umount "$3"`, "sh", kind, path, dir, script)
}

const hashes = `find . -type f -print0 | sort -z | xargs -0 -r sha256sum; find . -printf '%p %y %l %m %s\n' | grep -v '^\. ' | sort`

// spoil writes junk between the pieces that are in use, and returns what part of
// the file system those are.
func spoil(t *testing.T, path string) (share float64) {
	t.Helper()
	file, size := open(t, path)
	info, err := fsinfo.Read(file, size)
	if err != nil {
		t.Fatal(err)
	}
	used, err := fsinfo.Used(file, info)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, mib)
	for i := range noise {
		noise[i] = byte(rand.IntN(256))
	}
	next, sum := int64(0), int64(0)
	for i, piece := range append(slices.Clone(used), fsinfo.Extent{Offset: info.Size}) {
		if piece.Offset < next || piece.Offset == next && i > 0 && i < len(used) || piece.Length < 1 && i < len(used) || piece.End() > info.Size {
			t.Fatalf("piece %d of %d is %+v, after one that ended at %d of %d", i, len(used), piece, next, info.Size)
		}
		for at := next; at < piece.Offset; at += int64(len(noise)) {
			if _, err := file.WriteAt(noise[:min(int64(len(noise)), piece.Offset-at)], at); err != nil {
				t.Fatal(err)
			}
		}
		next, sum = piece.End(), sum+piece.Length
	}
	return float64(sum) / float64(info.Size)
}

// What is not in use may hold anything: with junk there, the file system is in
// order for its own checker, and all files are what they were.
func TestWhatIsNotUsedIsNotNeeded(t *testing.T) {
	allowSmallXFS(t)
	cases := []struct {
		size  int64
		make  string
		check string
	}{
		{40 * mib, "mke2fs -q -F -t ext2", "e2fsck -fn"},
		{40 * mib, "mke2fs -q -F -t ext2 -b 1024", "e2fsck -fn"},
		{40 * mib, "mke2fs -q -F -t ext3 -T small -b 1024", "e2fsck -fn"},
		{40*mib + 5000, "mke2fs -q -F -t ext4 -b 1024", "e2fsck -fn"},
		{140 * mib, "mke2fs -q -F -t ext4", "e2fsck -fn"},
		{40 * mib, "mke2fs -q -F -t ext4 -O ^metadata_csum,uninit_bg,^64bit -b 1024", "e2fsck -fn"},
		{40 * mib, "mke2fs -q -F -t ext4 -O ^flex_bg,metadata_csum_seed -b 1024", "e2fsck -fn"},
		{40 * mib, "mke2fs -q -F -t ext4 -O meta_bg,^resize_inode -b 1024", "e2fsck -fn"},
		{40 * mib, "mke2fs -q -F -t ext4 -O sparse_super2,^resize_inode -b 1024", "e2fsck -fn"},
		{40*mib + 3*4096, "mke2fs -q -F -t ext4 -O bigalloc -C 32768", "e2fsck -fn"},
		{40 * mib, "mke2fs -q -F -t ext4 -O bigalloc -C 16384 -b 1024", "e2fsck -fn"},
		{80 * mib, "mkfs.xfs -q -f", "xfs_repair -n"},
		{80 * mib, "mkfs.xfs -q -f -b size=1024 -m rmapbt=1", "xfs_repair -n"},
		{112 * mib, "mkfs.btrfs -q -f", "btrfs check"},
		{112 * mib, "mkfs.btrfs -q -f --mixed", "btrfs check"},
		{112 * mib, "mkfs.btrfs -q -f -m single --csum sha256 -n 4096 -O ^no-holes", "btrfs check"},
	}
	for _, c := range cases {
		t.Run(c.make, func(t *testing.T) {
			path := newImage(t, c.size, strings.Fields(c.make)...)
			kind := read(t, path).Type
			inside(t, path, kind, aged)
			before := inside(t, path, kind, hashes)
			share := spoil(t, path)
			out, err := testkit.Try(t, append(strings.Fields(c.check), path)...)
			if err != nil {
				t.Errorf("%s: %v\n%s", c.check, err, out)
			}
			if after := inside(t, path, kind, hashes); after != before {
				t.Errorf("files are not what they were; before:\n%s\nafter:\n%s", before, after)
			}
			if share < 0.01 || share > 0.7 {
				t.Errorf("%.0f %% are called used", 100*share)
			}
			if info := read(t, path); info.Empty() {
				t.Error("it holds files and is called empty")
			}
		})
	}
}

func TestWhatIsNotUsedIsNotNeededByVFAT(t *testing.T) {
	for _, args := range []string{"-F 12 -s 32", "-F 16 -s 4", "-F 32 -s 1"} {
		path := newImage(t, 60*mib, append([]string{"mkfs.vfat"}, strings.Fields(args)...)...)
		want := make([]byte, 3*mib)
		for i := range want {
			want[i] = byte(rand.IntN(256))
		}
		source := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(source, want, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"::a", "::b", "::c"} {
			testkit.Run(t, "mcopy", "-i", path, source, name)
		}
		testkit.Run(t, "mdel", "-i", path, "::b")
		if share := spoil(t, path); share < 0.1 || share > 0.2 {
			t.Errorf("%s: %.0f %% are called used", args, 100*share)
		}
		testkit.Run(t, "fsck.fat", "-n", path)
		if got := testkit.Run(t, "mtype", "-i", path, "::c"); got != string(want) {
			t.Errorf("%s: the file is not what it was", args)
		}
	}
}

// Kernels need no longer know version 4.
func TestWhatIsNotUsedIsNotNeededByOldXFS(t *testing.T) {
	path := newImage(t, 320*mib, strings.Fields("mkfs.xfs -q -f -m crc=0,finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0 -d agcount=3")...)
	spoil(t, path)
	testkit.Run(t, "xfs_repair", "-n", path)
}

func TestWhatIsNotUsedIsNotNeededByReiserFS(t *testing.T) {
	for _, args := range []string{"", "--format 3.5", "-b 1024 -s 1000"} {
		path := newImage(t, 200*mib, append(strings.Fields("mkreiserfs -q -f -f"), strings.Fields(args)...)...)
		if share := spoil(t, path); share > 0.2 {
			t.Errorf("%s: %.0f %% are called used", args, 100*share)
		}
		if out, err := testkit.Try(t, "reiserfsck", "--check", "-y", "-q", path); err != nil || strings.Contains(out, "corruption") && !strings.Contains(out, "No corruptions found") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
}

func TestFreshBtrfsIsEmpty(t *testing.T) {
	path := newImage(t, 160*mib, "mkfs.btrfs", "-q", "-f")
	if !read(t, path).Empty() {
		t.Error("a fresh file system is not empty")
	}
	inside(t, path, "btrfs", "btrfs subvolume create sub >/dev/null; btrfs subvolume set-default sub")
	if read(t, path).Empty() {
		t.Error("a subvolume was made and the file system is called empty")
	}
}

// A journal that was not carried out, and a file system that was not unmounted,
// are told as such, and nothing is called free.
func TestUsedOfADirtyFileSystemIsRefused(t *testing.T) {
	for _, kind := range []string{fsinfo.Ext4, fsinfo.Ext3, fsinfo.XFS} {
		t.Run(kind, func(t *testing.T) {
			path := newImage(t, 320*mib, strings.Fields(makers[kind])...)
			// The copy is what the disk holds when the power fails.
			cut := path + ".cut"
			inside(t, path, kind, "echo text >file; sync; echo more >other; sync; cp --sparse=always '"+path+"' '"+cut+"'")
			file, size := open(t, cut)
			info, err := fsinfo.Read(file, size)
			if err != nil {
				t.Fatal(err)
			}
			if info.State != fsinfo.Journal || info.Empty() {
				t.Errorf("it is read as %+v", info)
			}
			if used, err := fsinfo.Used(file, info); !errors.Is(err, fsinfo.ErrNotClean) {
				t.Errorf("got %d pieces and %v", len(used), err)
			}
		})
	}
}

// allowSmallXFS has mkfs.xfs make file systems that are too small for people.
func allowSmallXFS(t *testing.T) {
	for _, name := range []string{"TEST_DIR", "TEST_DEV", "QA_CHECK_FS"} {
		t.Setenv(name, "/")
	}
}

// A log that went round many times is read to its end.
func TestStateOfAnXFSLogThatWentRound(t *testing.T) {
	allowSmallXFS(t)
	path := newImage(t, 100*mib, "mkfs.xfs", "-q", "-f", "-m", "reflink=0,rmapbt=0,finobt=0,inobtcount=0", "-b", "size=1024", "-l", "size=3m")
	for round := range 4 {
		cut := path + ".cut"
		inside(t, path, "xfs", `i=0; while [ $i -lt 5 ]; do i=$((i+1)); mkdir d; head -c 200000 /dev/zero | split -a 3 -b 200 - d/; sync .; rm -r d; sync .; done; touch last; sync .; cp --sparse=always '`+path+`' '`+cut+`'`)
		if got := read(t, path).State; got != fsinfo.Clean {
			t.Errorf("round %d: after it was unmounted it is %s", round, got)
		}
		if got := read(t, cut).State; got != fsinfo.Journal {
			t.Errorf("round %d: while it is mounted it is %s", round, got)
		}
		if out, err := testkit.Try(t, "xfs_logprint", "-t", path); err == nil && !strings.Contains(out, "<CLEAN>") {
			t.Errorf("round %d: xfs_logprint does not call it clean:\n%s", round, out)
		}
		if out, err := testkit.Try(t, "xfs_logprint", "-t", cut); err == nil && !strings.Contains(out, "<DIRTY>") {
			t.Errorf("round %d: xfs_logprint does not call it dirty:\n%s", round, out)
		}
	}
}

// Allocation maps that were overwritten must not pass for free space.
func TestSpoiltMapsAreRefused(t *testing.T) {
	for _, c := range []struct {
		make   string
		offset func(t *testing.T, path string) int64
	}{
		{"mke2fs -q -F -t ext2", extBitmap}, {"mke2fs -q -F -t ext3", extBitmap}, {"mke2fs -q -F -t ext4", extBitmap},
		{"mkfs.xfs -q -f", func(*testing.T, string) int64 { return 4096 }}, // the root of the tree of free space
		{"mkreiserfs -q -f -f", func(*testing.T, string) int64 { return 17 * 4096 }},
		{"mkfs.vfat -F 32", func(*testing.T, string) int64 { return 32 * 512 }},
	} {
		path := newImage(t, 320*mib, strings.Fields(c.make)...)
		offset := c.offset(t, path)
		for name, spoilt := range map[string][]byte{"zeros": make([]byte, 4096), "a pattern": bytes.Repeat([]byte{0x5a}, 4096)} {
			file, size := open(t, path)
			was := make([]byte, 4096)
			if _, err := file.ReadAt(was, offset); err != nil {
				t.Fatal(err)
			}
			info, err := fsinfo.Read(file, size)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fsinfo.Used(file, info); err != nil {
				t.Errorf("%s: before it was spoilt: %v", c.make, err)
			}
			if _, err := file.WriteAt(spoilt, offset); err != nil {
				t.Fatal(err)
			}
			if used, err := fsinfo.Used(file, info); !errors.Is(err, fsinfo.ErrDamaged) {
				t.Errorf("%s, spoilt with %s: %d pieces and %v", c.make, name, len(used), err)
			}
			if _, err := file.WriteAt(was, offset); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func extBitmap(t *testing.T, path string) int64 {
	out := testkit.Run(t, "dumpe2fs", path)
	return number(t, out, "^Block size:") * number(t, out, "Block bitmap at")
}

func FuzzUsed(f *testing.F) {
	for _, maker := range makers {
		path := newImage(f, 320*mib, strings.Fields(maker)...)
		file, _ := open(f, path)
		head := make([]byte, 140<<10)
		if _, err := file.ReadAt(head, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(head, uint32(0), uint32(0))
	}
	f.Fuzz(func(t *testing.T, head []byte, at, value uint32) {
		if len(head) > 8 {
			head = bytes.Clone(head) // the fuzzer's own must stay
			i := int(at) % (len(head) - 4)
			for n := range 4 {
				head[i+n] ^= byte(value >> (8 * n))
			}
		}
		m := overlay{io.NewSectionReader(zeros{}, 0, 320*mib), head}
		info, err := fsinfo.Read(m, 320*mib)
		if err != nil {
			return
		}
		used, err := fsinfo.Used(m, info)
		if err != nil {
			return
		}
		next := int64(-1)
		for _, piece := range used {
			if piece.Offset <= next || piece.Length < 1 || piece.End() > info.Size {
				t.Fatalf("%+v after %d of %d", piece, next, info.Size)
			}
			next = piece.End()
		}
	})
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}
