package fsinfo_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/testkit"
)

const mib = 1 << 20

// newImage is a sparse file of the given size, on which the program is run.
func newImage(t testing.TB, size int64, argv ...string) string {
	t.Helper()
	path := filepath.Join(testkit.InMemory(t), "image")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
		t.Fatal(err)
	}
	if len(argv) > 0 {
		testkit.Run(t, append(argv, path)...)
	}
	return path
}

func open(t testing.TB, path string) (*os.File, int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	stat, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return file, stat.Size()
}

func read(t testing.TB, path string) fsinfo.Info {
	t.Helper()
	file, size := open(t, path)
	info, err := fsinfo.Read(file, size)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// number is what a program printed after some words.
func number(t testing.TB, out, before string) int64 {
	t.Helper()
	found := regexp.MustCompile(`(?m)` + before + `\s*(\d+)`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no number after %q in\n%s", before, out)
	}
	n, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const someUUID = "0b7d2a6e-3f0c-4c4e-9a55-2f1f3c0d9e11"

func TestExtIsReadAsDumpe2fsDoes(t *testing.T) {
	cases := map[string]struct {
		size int64
		args string
		kind string
	}{
		"ext2":          {40 * mib, "-t ext2", fsinfo.Ext2},
		"ext2, 1K":      {40 * mib, "-t ext2 -b 1024", fsinfo.Ext2},
		"ext2 of 1995":  {20 * mib, "-t ext2 -r 0", fsinfo.Ext2},
		"ext3":          {40 * mib, "-t ext3", fsinfo.Ext3},
		"ext3 small":    {64 * mib, "-t ext3 -T small -b 1024", fsinfo.Ext3},
		"ext4":          {100 * mib, "-t ext4", fsinfo.Ext4},
		"ext4, plain":   {100 * mib, "-t ext4 -O ^metadata_csum,^64bit", fsinfo.Ext4},
		"ext4, large":   {1 << 42, "-t ext4 -E lazy_itable_init=1,lazy_journal_init=1 -i 1048576", fsinfo.Ext4},
		"ext4, no log":  {64 * mib, "-t ext4 -O ^has_journal -m 0", fsinfo.Ext4},
		"ext4, meta_bg": {300 * mib, "-t ext4 -O meta_bg,^resize_inode -b 1024", fsinfo.Ext4},
		"bigalloc":      {200 * mib, "-t ext4 -O bigalloc -C 65536", fsinfo.Ext4},
		"bigalloc, 1K":  {200 * mib, "-t ext4 -O bigalloc -b 1024 -C 16384", fsinfo.Ext4},
		"sparse_super2": {300 * mib, "-t ext4 -O sparse_super2 -b 1024", fsinfo.Ext4},
		"128 inodes":    {64 * mib, "-t ext4 -I 128 -N 20000", fsinfo.Ext4},
		"inline":        {64 * mib, "-t ext4 -O inline_data,quota,project -I 512", fsinfo.Ext4},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := newImage(t, c.size, append(strings.Fields("mke2fs -q -F -L label -U "+someUUID), strings.Fields(c.args)...)...)
			info, out := read(t, path), testkit.Run(t, "dumpe2fs", "-h", path)
			block := number(t, out, "^Block size:")
			unit := block
			if strings.Contains(out, "Cluster size") {
				unit = number(t, out, "^Cluster size:")
			}
			want := fsinfo.Info{
				Type: c.kind, Label: "label", UUID: someUUID, BlockSize: unit,
				Size: block * number(t, out, "^Block count:"), Free: block * number(t, out, "^Free blocks:"), Reserved: block * number(t, out, "^Reserved block count:"),
				Inodes: number(t, out, "^Inode count:"), InodesFree: number(t, out, "^Free inodes:"), State: fsinfo.Clean,
			}
			want.Used = want.Size - want.Free
			want.Features = strings.Fields(regexp.MustCompile(`(?m)^Filesystem features:(.*)$`).FindStringSubmatch(out)[1])
			if want.Features[0] == "(none)" {
				want.Features = nil
			}
			compare(t, info, want)
			if strings.Contains(strings.Join(info.Features, " "), "has_journal") && info.JournalBytes < mib {
				t.Errorf("a journal of %d bytes", info.JournalBytes)
			}
			if c.args != "-t ext4 -O inline_data,quota,project -I 512" && !info.Empty() {
				t.Error("a fresh file system is not empty")
			}
		})
	}
}

func compare(t *testing.T, got, want fsinfo.Info) {
	t.Helper()
	slices.Sort(got.Features)
	slices.Sort(want.Features)
	if want.Features == nil {
		got.Features = nil
	}
	got.JournalBytes, got.InodeBytes = want.JournalBytes, want.InodeBytes
	if a, b := fmt.Sprintf("%+v", plain(got)), fmt.Sprintf("%+v", plain(want)); a != b {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

// plain is an Info without what is not exported.
func plain(i fsinfo.Info) any {
	type fields struct {
		kind, label, uuid                                string
		block, size, used, free, reserved, inodes, ifree int64
		state                                            string
		features                                         []string
	}
	return fields{i.Type, i.Label, i.UUID, i.BlockSize, i.Size, i.Used, i.Free, i.Reserved, i.Inodes, i.InodesFree, i.State, i.Features}
}

func TestExtThatHoldsSomethingIsNotEmpty(t *testing.T) {
	for _, kind := range []string{"ext2", "ext3", "ext4"} {
		path := newImage(t, 20*mib, "mke2fs", "-q", "-F", "-t", kind)
		testkit.Run(t, "debugfs", "-w", "-R", "mkdir something", path)
		if read(t, path).Empty() {
			t.Errorf("%s: a folder was made and the file system is called empty", kind)
		}
	}
	path := newImage(t, 20*mib, "mke2fs", "-q", "-F", "-t", "ext4")
	testkit.Run(t, "debugfs", "-w", "-R", "rmdir lost+found", path)
	testkit.Run(t, "debugfs", "-w", "-R", "mkdir something", path)
	if read(t, path).Empty() {
		t.Error("a folder has the inode of lost+found and the file system is called empty")
	}
}

func TestExtState(t *testing.T) {
	for set, want := range map[string]string{
		"ssv state 0":            fsinfo.Unclean,
		"ssv state 3":            fsinfo.Errors,
		"feature +64bit":         fsinfo.Clean,
		"ssv last_orphan 12":     fsinfo.Unclean,
		"feature needs_recovery": fsinfo.Journal,
	} {
		path := newImage(t, 20*mib, "mke2fs", "-q", "-F", "-t", "ext4", "-O", "64bit")
		testkit.Run(t, "debugfs", "-w", "-R", set, path)
		if got := read(t, path).State; got != want {
			t.Errorf("after %q it is %s, want %s", set, got, want)
		}
	}
}

func TestXFSIsReadAsXfsDBDoes(t *testing.T) {
	for _, args := range []string{"", "-b size=1024", "-s size=4096", "-m crc=0,reflink=0,finobt=0,rmapbt=0,bigtime=0,inobtcount=0", "-l size=64m", "-d agcount=3", "-m rmapbt=1 -l su=32k"} {
		t.Run(args, func(t *testing.T) {
			path := newImage(t, 400*mib, append(strings.Fields("mkfs.xfs -q -f -L label"), strings.Fields(args)...)...)
			testkit.Run(t, "xfs_admin", "-U", someUUID, path) // it makes the log anew, too
			info := read(t, path)
			out := testkit.Run(t, "xfs_db", "-r", "-c", "sb 0", "-c", "print", path)
			block := number(t, out, "^blocksize =")
			want := fsinfo.Info{
				Type: fsinfo.XFS, Label: "label", UUID: someUUID, BlockSize: block,
				Size: block * number(t, out, "^dblocks ="), Free: block * number(t, out, "^fdblocks ="), State: fsinfo.Clean,
			}
			want.Used = want.Size - want.Free
			compare(t, info, want)
			if want := block * number(t, out, "^logblocks ="); info.JournalBytes != want {
				t.Errorf("the log has %d bytes, want %d", info.JournalBytes, want)
			}
			if !info.Empty() {
				t.Error("a fresh file system is not empty")
			}
		})
	}
}

func TestReiserFSIsReadAsDebugreiserfsDoes(t *testing.T) {
	for _, args := range []string{"", "--format 3.5", "-b 1024 -s 1000", "-b 8192", "-s 513"} {
		t.Run(args, func(t *testing.T) {
			argv := strings.Fields("mkreiserfs -q -f -f " + args)
			if !strings.Contains(args, "3.5") { // which has no place for them
				argv = append(argv, "-l", "label", "-u", someUUID)
			}
			path := newImage(t, 200*mib, argv...)
			info := read(t, path)
			out := testkit.Run(t, "debugreiserfs", path)
			block := number(t, out, "^Blocksize:")
			want := fsinfo.Info{
				Type: fsinfo.ReiserFS, Label: "label", UUID: someUUID, BlockSize: block, State: fsinfo.Clean,
				Size: block * number(t, out, "^Count of blocks on the device:"),
				Free: block * number(t, out, `^Free blocks.*\):`),
			}
			if strings.Contains(args, "3.5") {
				want.Label, want.UUID = "", ""
			}
			want.Used = want.Size - want.Free
			compare(t, info, want)
			if !info.Empty() {
				t.Error("a fresh file system is not empty")
			}
			if version := "3.6"; strings.Contains(args, "3.5") == slices.Contains(info.Features, version) {
				t.Errorf("features are %q", info.Features)
			}
		})
	}
}

func TestBtrfsIsReadAsBtrfsDoes(t *testing.T) {
	for _, args := range []string{"", "-m single --csum sha256", "--csum xxhash -n 4096", "--mixed -s 4096"} {
		t.Run(args, func(t *testing.T) {
			path := newImage(t, 200*mib, append(strings.Fields("mkfs.btrfs -q -f -L label -U "+someUUID), strings.Fields(args)...)...)
			info := read(t, path)
			out := testkit.Run(t, "btrfs", "inspect-internal", "dump-super", path)
			want := fsinfo.Info{
				Type: fsinfo.Btrfs, Label: "label", UUID: someUUID, BlockSize: number(t, out, "^sectorsize"), State: fsinfo.Clean,
				Size: number(t, out, "^total_bytes"), Used: number(t, out, "^bytes_used"),
			}
			want.Free = want.Size - want.Used
			compare(t, info, want)
		})
	}
}

func TestVFATIsReadAsFsckDoes(t *testing.T) {
	for _, args := range []string{"-F 12 -s 32", "-F 16 -s 4", "-F 32 -s 1", "-F 16 -S 2048 -s 1", ""} {
		t.Run(args, func(t *testing.T) {
			path := newImage(t, 60*mib, append(strings.Fields("mkfs.vfat -n LABEL -i 12AB34CD"), strings.Fields(args)...)...)
			empty := read(t, path)
			if !empty.Empty() {
				t.Error("a fresh file system is not empty")
			}
			for range 3 {
				testkit.Run(t, "mcopy", "-i", path, "/etc/services", "::"+fmt.Sprint(rand.IntN(1e6)))
			}
			info := read(t, path)
			out := testkit.Run(t, "fsck.fat", "-n", "-v", path)
			counts := regexp.MustCompile(`(\d+)/(\d+) clusters`).FindStringSubmatch(out)
			used, _ := strconv.ParseInt(counts[1], 10, 64)
			total, _ := strconv.ParseInt(counts[2], 10, 64)
			cluster := regexp.MustCompile(`(\d+) bytes per cluster`).FindStringSubmatch(out)
			size, _ := strconv.ParseInt(cluster[1], 10, 64)
			want := fsinfo.Info{Type: fsinfo.VFAT, Label: "LABEL", UUID: "12AB-34CD", BlockSize: size, State: fsinfo.Clean, Size: info.Size, Free: (total - used) * size}
			want.Used = want.Size - want.Free
			compare(t, info, want)
			if info.Size > 60*mib || info.Size < 59*mib {
				t.Errorf("its size is %d", info.Size)
			}
			if info.Empty() {
				t.Error("it holds files and is called empty")
			}
		})
	}
}

func TestSwapIsReadAsMkswapMadeIt(t *testing.T) {
	for _, args := range []string{"", "--pagesize 65536"} {
		path := newImage(t, 10*mib, append(strings.Fields("mkswap -L label -U "+someUUID), strings.Fields(args)...)...)
		info := read(t, path)
		page := int64(4096)
		if strings.HasPrefix(args, "--pagesize") {
			page = 65536
		}
		compare(t, info, fsinfo.Info{
			Type: fsinfo.Swap, Label: "label", UUID: someUUID, BlockSize: page, State: fsinfo.Clean, Size: 10 * mib, Used: page, Free: 10*mib - page,
		})
		if !info.Empty() {
			t.Error("swap is not empty")
		}
		file, _ := open(t, path)
		if _, err := file.WriteAt([]byte("S1SUSPEND\x00"), page-10); err != nil {
			t.Fatal(err)
		}
		if info := read(t, path); info.Type != fsinfo.Swap || info.Empty() || info.State == fsinfo.Clean {
			t.Errorf("a machine sleeps in it, and it is read as %+v", info)
		}
	}
}

// makers make each type of file system.
var makers = map[string]string{
	fsinfo.Ext2: "mke2fs -q -F -t ext2", fsinfo.Ext3: "mke2fs -q -F -t ext3", fsinfo.Ext4: "mke2fs -q -F -t ext4",
	fsinfo.XFS: "mkfs.xfs -q -f", fsinfo.Btrfs: "mkfs.btrfs -q -f", fsinfo.ReiserFS: "mkreiserfs -q -f -f", fsinfo.VFAT: "mkfs.vfat -F 32", fsinfo.Swap: "mkswap",
}

// A file system that is made over another one is the one that is found.
func TestTheLastOneMadeIsFound(t *testing.T) {
	for before, first := range makers {
		for after, second := range makers {
			if before == after {
				continue
			}
			path := newImage(t, 320*mib)
			testkit.Run(t, append(strings.Fields(first), path)...)
			testkit.Run(t, append(strings.Fields(second), path)...)
			if got := read(t, path).Type; got != after {
				t.Errorf("%s was made over %s, and %q is found", after, before, got)
			}
		}
	}
}

// What is cut off, overwritten or made up is an error or another file system or
// none, and never anything worse.
func TestDamagedImages(t *testing.T) {
	for kind, maker := range makers {
		t.Run(kind, func(t *testing.T) {
			path := newImage(t, 320*mib, strings.Fields(maker)...)
			file, size := open(t, path)
			head := make([]byte, 256<<10)
			if _, err := file.ReadAt(head, 0); err != nil {
				t.Fatal(err)
			}
			t.Run("cut off", func(t *testing.T) {
				for _, cut := range []int64{0, 1, 511, 512, 1023, 1500, 2048, 4096, 8192, 65536, 65600, 66000, 70000, 1 << 20, 100 << 20} {
					info, err := fsinfo.Read(io.NewSectionReader(file, 0, cut), cut)
					if err == nil && info.Type != fsinfo.None && info.Size <= cut {
						t.Errorf("of %d bytes %d are left, and it is read as %+v", size, cut, info)
					}
				}
			})
			t.Run("bits turned", func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, 2))
				for range 120 {
					broken := bytes.Clone(head)
					for range 1 + random.IntN(4) {
						at := []int{0, 1024, 4096 - 16, 65536}[random.IntN(4)] + random.IntN(512)
						broken[at] ^= byte(1 << random.IntN(8))
					}
					sound(t, overlay{file, broken}, size)
				}
			})
		})
	}
}

// overlay is a file with another beginning.
type overlay struct {
	io.ReaderAt
	head []byte
}

func (o overlay) ReadAt(p []byte, at int64) (int, error) {
	n, err := o.ReaderAt.ReadAt(p, at)
	if at < int64(len(o.head)) {
		copy(p[:n], o.head[at:])
	}
	return n, err
}

// sound reads an image and checks what must hold for any.
func sound(t *testing.T, r io.ReaderAt, size int64) {
	t.Helper()
	info, err := fsinfo.Read(r, size)
	if err != nil {
		return
	}
	if info.Size < 0 || info.Used < 0 || info.Free < 0 || info.Used+info.Free != info.Size || info.InodesFree < 0 || info.InodesFree > info.Inodes {
		t.Fatalf("what is read does not add up: %+v", info)
	}
	if info.Type == fsinfo.None && (info.Size != 0 || info.Empty()) {
		t.Fatalf("nothing is found, and it is %+v", info)
	}
}

// A disk that cannot be read is not one that is empty.
func TestDiskErrorsAreNotTakenForNothing(t *testing.T) {
	broken := errors.New("input/output error")
	if info, err := fsinfo.Read(failing{broken}, mib); !errors.Is(err, broken) {
		t.Errorf("got %+v and %v", info, err)
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func TestChecksumsAreChecked(t *testing.T) {
	for kind, at := range map[string]int64{fsinfo.Ext4: 1024 + 120, fsinfo.XFS: 108, fsinfo.Btrfs: 65536 + 299} {
		path := newImage(t, 320*mib, strings.Fields(makers[kind])...)
		file, size := open(t, path)
		if _, err := file.WriteAt([]byte("x"), at); err != nil { // into the label
			t.Fatal(err)
		}
		if info, err := fsinfo.Read(file, size); !errors.Is(err, fsinfo.ErrDamaged) || info.Type != kind || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("%s: got %+v and %v", kind, info, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, maker := range makers {
		path := newImage(f, 320*mib, strings.Fields(maker)...)
		file, _ := open(f, path)
		head := make([]byte, 72<<10)
		if _, err := file.ReadAt(head, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(head)
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		sound(t, bytes.NewReader(image), int64(len(image)))
		sound(t, bytes.NewReader(image), 1<<40) // as if it went on, and the disk did not
	})
}
