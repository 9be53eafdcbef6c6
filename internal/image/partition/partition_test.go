package partition_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upkeep/internal/image/partition"
	"upkeep/internal/testkit"
)

const mib = 1 << 20

func run(t testing.TB, input string, argv ...string) string {
	t.Helper()
	out, err := testkit.TryWith(t, strings.NewReader(input), argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// newImage is an image of the given size that sfdisk was given a script for.
func newImage(t testing.TB, size int64, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
		t.Fatal(err)
	}
	run(t, script, "sfdisk", "-q", path)
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

func read(t testing.TB, path string) partition.Table {
	t.Helper()
	file, size := open(t, path)
	table, err := partition.Read(file, size)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// sfdisk is what sfdisk -J prints.
type sfdisk struct {
	Table struct {
		Label, ID  string
		Sector     int64 `json:"sectorsize"`
		Partitions []struct {
			Node, Type, UUID, Name string
			Start, Size            int64
			Bootable               bool
		}
	} `json:"partitiontable"`
}

// compare checks that a table is read as sfdisk reads it.
func compare(t *testing.T, path string) partition.Table {
	t.Helper()
	table := read(t, path)
	var want sfdisk
	if err := json.Unmarshal([]byte(run(t, "", "sfdisk", "-J", path)), &want); err != nil {
		t.Fatal(err)
	}
	label, id := map[string]string{partition.MBR: "dos", partition.GPT: "gpt"}[table.Kind], table.ID
	if table.Kind == partition.MBR {
		id = "0x" + id
	}
	if label != want.Table.Label || !strings.EqualFold(id, want.Table.ID) {
		t.Errorf("a %s with ID %s, and sfdisk has %s with %s", label, id, want.Table.Label, want.Table.ID)
	}
	if len(table.Problems) > 0 {
		t.Errorf("problems: %q", table.Problems)
	}
	var got, wanted []string
	for _, p := range table.Partitions {
		kind := p.Type
		if table.Kind == partition.MBR {
			kind = strings.TrimLeft(kind, "0")
		}
		got = append(got, fmt.Sprintf("%s%d %d %d %s %t", path, p.Number, p.Offset/512, p.Length/512, kind, p.Boot))
		if table.Kind == partition.GPT {
			got[len(got)-1] += " " + p.Name + " " + p.UUID
		}
	}
	for _, p := range want.Table.Partitions {
		wanted = append(wanted, fmt.Sprintf("%s %d %d %s %t", p.Node, p.Start, p.Size, strings.ToLower(p.Type), p.Bootable))
		if table.Kind == partition.GPT {
			wanted[len(wanted)-1] += " " + p.Name + " " + strings.ToLower(p.UUID)
		}
	}
	if !slices.Equal(got, wanted) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
	return table
}

var scripts = map[string]string{
	"mbr":          "label: dos\nsize=20M,type=83,bootable\nsize=10M,type=82\nsize=10M",
	"mbr, one":     "label: dos\nsize=20M",
	"mbr, logical": "label: dos\n/dev/x1: size=10M,bootable\n/dev/x2: size=40M,type=5\n/dev/x5: size=5M,type=82\n/dev/x6: size=5M\n/dev/x7: size=7M",
	"mbr, mixed":   "label: dos\n/dev/x1: size=10M\n/dev/x2: start=80M,size=10M\n/dev/x3: start=20M,size=40M,type=f\n/dev/x5: size=5M\n/dev/x6: size=6M",
	"gpt":          "label: gpt\nsize=10M,name=\"a name\"\nsize=20M,type=uefi\nsize=30M",
	"gpt, sparse":  "label: gpt\n/dev/x1: size=10M\n/dev/x5: size=10M\n/dev/x30: start=70M,size=10M",
	"gpt, 400":     "label: gpt\ntable-length: 400\nsize=10M\nsize=20M",
	"gpt, reverse": "label: gpt\nstart=60M,size=10M\nstart=20M,size=20M",
}

func TestTablesAreReadAsSfdiskDoes(t *testing.T) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) { compare(t, newImage(t, 100*mib, script)) })
	}
}

func TestPartition(t *testing.T) {
	table := read(t, newImage(t, 100*mib, scripts["mbr, logical"]))
	if p, err := table.Partition(6); err != nil || p.Length != 5*mib {
		t.Errorf("partition 6 is %+v, %v", p, err)
	}
	for _, number := range []int{-1, 0, 2, 3, 8} {
		if p, err := table.Partition(number); err == nil || !strings.Contains(err.Error(), "the image has 1, 5, 6, 7") {
			t.Errorf("partition %d is %+v, %v", number, p, err)
		}
	}
}

// lastOf is the partition behind which there is none.
func lastOf(table partition.Table) partition.Partition {
	for _, p := range table.Partitions {
		if !p.Container && table.IsLast(p.Number) {
			return p
		}
	}
	return partition.Partition{}
}

// grow lets the last partition reach to the end of an image of size bytes.
func grow(file partition.File, size int64) (partition.Partition, error) {
	table, err := partition.Read(file, size)
	if err != nil {
		return partition.Partition{}, err
	}
	last := lastOf(table)
	room, err := table.Room(last.Number, size)
	if err != nil {
		return last, err
	}
	return partition.Resize(file, size, size, last.Number, max(room, last.Length))
}

// After growing, sfdisk and sgdisk find nothing wrong, the last partition reaches
// to the end, the others are as they were, and so is all that is in them.
func TestGrow(t *testing.T) {
	for name, script := range scripts {
		for _, to := range []int64{100*mib + 512, 777*mib + 512*7} {
			t.Run(fmt.Sprint(name, " to ", to), func(t *testing.T) {
				path := newImage(t, 100*mib, script)
				before := read(t, path)
				file, _ := open(t, path)
				last := lastOf(before)
				mark := bytes.Repeat([]byte("mark"), 128)
				for _, p := range before.Partitions {
					if p.Container {
						continue
					}
					for _, at := range []int64{p.Offset, p.End() - 512} {
						if _, err := file.WriteAt(mark, at); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := file.Truncate(to); err != nil {
					t.Fatal(err)
				}
				grown, err := grow(file, to)
				if err != nil {
					t.Fatal(err)
				}
				after := compare(t, path)
				room := to - grown.End()
				if grown.Number != last.Number || grown.Offset != last.Offset || room < 0 || room > 2*mib || to > 101*mib && grown.End()%mib != 0 {
					t.Errorf("of %d bytes partition %+v was made of %+v", to, grown, last)
				}
				for i, p := range after.Partitions {
					was := before.Partitions[i]
					if p.Number == grown.Number {
						was.Length = grown.Length
					}
					if p.Container && p.End() >= grown.End() {
						was.Length = p.Length
					}
					if p != was {
						t.Errorf("%+v became %+v", was, p)
					}
				}
				for _, p := range before.Partitions {
					for _, at := range []int64{p.Offset, p.End() - 512} {
						got := make([]byte, 512)
						if _, err := file.ReadAt(got, at); err != nil || !p.Container && !bytes.Equal(got, mark) {
							t.Errorf("partition %d was changed at %d", p.Number, at)
						}
					}
				}
				inOrder(t, path, after)
			})
		}
	}
}

// inOrder asks the programs that know tables whether they find anything wrong.
func inOrder(t *testing.T, path string, table partition.Table) {
	t.Helper()
	if out := run(t, "", "sfdisk", "--verify", path); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk: %s", out)
	}
	if table.Kind == partition.GPT {
		if out := run(t, "", "sgdisk", "--verify", path); !strings.Contains(out, "No problems found") {
			t.Errorf("sgdisk: %s", out)
		}
	}
}

// Any partition can become longer, up to what lies behind it, and shorter, and the others
// stay where they are.
func TestAnyPartitionIsResized(t *testing.T) {
	for _, c := range []struct {
		script           string
		number           int
		room, least, end int64 // in MiB; end is that of the container of logical ones
	}{
		{"label: dos\nsize=20M\nstart=60M,size=10M", 1, 59, 3, 0},
		{"label: gpt\nsize=20M\nstart=60M,size=10M\nstart=40M,size=10M", 1, 39, 20, 0},
		{"label: gpt\nsize=20M\nstart=60M,size=10M\nstart=40M,size=10M", 3, 20, 1, 0},
		{"label: gpt\n/dev/x1: size=10M\n/dev/x2: start=11M,size=10M", 1, 10, 10, 0},
		{"label: dos\n/dev/x1: size=10M\n/dev/x2: start=20M,size=40M,type=5\n/dev/x5: start=21M,size=5M\n/dev/x6: start=40M,size=5M", 1, 19, 2, 60},
		{"label: dos\n/dev/x1: size=10M\n/dev/x2: start=20M,size=40M,type=5\n/dev/x5: start=21M,size=5M\n/dev/x6: start=40M,size=5M", 5, 18, 4, 60},
		{"label: dos\n/dev/x1: start=20M,size=40M,type=5\n/dev/x2: start=80M,size=9M\n/dev/x5: start=21M,size=5M\n/dev/x6: start=40M,size=5M", 6, 40, 4, 80},
		{"label: dos\n/dev/x1: size=10M\n/dev/x2: start=70M,size=20M,type=5", 1, 69, 1, 0},
	} {
		t.Run(fmt.Sprintf("%d of %q", c.number, c.script), func(t *testing.T) {
			path := newImage(t, 100*mib, c.script)
			before := read(t, path)
			file, size := open(t, path)
			if room, err := before.Room(c.number, size); err != nil || room/mib != c.room || before.IsLast(c.number) {
				t.Errorf("it has room for %d MiB: %v", room/mib, err)
			}
			room, _ := before.Room(c.number, size)
			if _, err := partition.Resize(file, size, size, c.number, max(room, c.room*mib)+mib); err == nil {
				t.Error("it was laid over what lies behind it")
			}
			for _, length := range []int64{room, c.least * mib} {
				resized, err := partition.Resize(file, size, size, c.number, length)
				if err != nil || resized.Length != length {
					t.Fatalf("%d bytes: %+v, %v", length, resized, err)
				}
				after := compare(t, path)
				for i, p := range after.Partitions {
					was := before.Partitions[i]
					if p.Number == c.number {
						was.Length = length
					}
					if p.Container && c.end > 0 {
						was.Length = c.end*mib - p.Offset
					}
					if p != was {
						t.Errorf("%+v became %+v", was, p)
					}
				}
				inOrder(t, path, after)
			}
		})
	}
}

// A copy of a disk gets identifiers of its own, and stays what it is.
func TestRenew(t *testing.T) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			path := newImage(t, 100*mib, script)
			before := read(t, path)
			file, size := open(t, path)
			if err := partition.Renew(file, size); err != nil {
				t.Fatal(err)
			}
			after := compare(t, path)
			ids := map[string]bool{before.ID: true}
			for _, p := range before.Partitions {
				ids[p.UUID] = true
			}
			for _, id := range append([]string{after.ID}, uuids(after)...) {
				if ids[id] {
					t.Errorf("%s is there twice", id)
				}
				ids[id] = true
			}
			for i := range after.Partitions {
				after.Partitions[i].UUID = before.Partitions[i].UUID
			}
			if !slices.Equal(after.Partitions, before.Partitions) {
				t.Errorf("%+v became %+v", before.Partitions, after.Partitions)
			}
			inOrder(t, path, after)
		})
	}
}

func uuids(table partition.Table) (all []string) {
	for _, p := range table.Partitions {
		all = append(all, p.UUID)
	}
	return all
}

// A hybrid's MBR stays as it is but for its signature.
func TestHybridsAreRenewed(t *testing.T) {
	path := newImage(t, 100*mib, scripts["gpt"])
	run(t, "", "sgdisk", "-h", "1", path)
	file, size := open(t, path)
	mbr := make([]byte, 512)
	if _, err := file.ReadAt(mbr, 0); err != nil {
		t.Fatal(err)
	}
	if err := partition.Renew(file, size); err != nil {
		t.Fatal(err)
	}
	now := make([]byte, 512)
	if _, err := file.ReadAt(now, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(now[:440], mbr[:440]) || !bytes.Equal(now[446:], mbr[446:]) {
		t.Error("its partitions are not what they were")
	}
}

// Where only the copy at the end is in order, it is not written over before the first is
// in order, too.
func TestOnlyCopyIsKept(t *testing.T) {
	path := newImage(t, 100*mib, scripts["gpt, reverse"])
	file, size := open(t, path)
	if _, err := file.WriteAt([]byte("xxxx"), 512+60); err != nil {
		t.Fatal(err)
	}
	want := ends(read(t, path))
	for cut := 1; cut < 40; cut++ {
		if _, err := partition.Resize(&interrupted{file, cut}, size, size, 1, 15*mib); err == nil {
			t.Fatalf("%d sectors were enough", cut)
		}
		if now := ends(read(t, path)); now != want && now != strings.Replace(want, fmt.Sprint(10*mib), fmt.Sprint(15*mib), 1) {
			t.Fatalf("cut after %d sectors: %s", cut, now)
		}
	}
}

// interrupted writes the first sectors it is asked to and nothing after them.
type interrupted struct {
	*os.File
	left int // sectors
}

var errCut = errors.New("the power failed")

func (f *interrupted) WriteAt(p []byte, at int64) (int, error) {
	n := min(len(p), f.left*512)
	f.left -= n / 512
	if _, err := f.File.WriteAt(p[:n], at); err != nil {
		return 0, err
	}
	if n < len(p) || f.left == 0 {
		return n, errCut
	}
	return n, nil
}

// Cut off after any sector, the table is the old or the new one, for sgdisk too,
// and growing again brings it to its end.
func TestGrowingIsInterrupted(t *testing.T) {
	for _, name := range []string{"mbr", "mbr, logical", "gpt", "gpt, reverse", "gpt, sparse"} {
		t.Run(name, func(t *testing.T) {
			path := newImage(t, 100*mib, scripts[name])
			old := read(t, path)
			file, _ := open(t, path)
			if err := file.Truncate(200 * mib); err != nil {
				t.Fatal(err)
			}
			original, last := save(t, file), 0
			for cut := 1; ; cut++ {
				_, err := grow(&interrupted{file, cut}, 200*mib)
				if err != nil && !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				now := read(t, path)
				if n, want := ends(now), []string{ends(old), last200(old)}; !slices.Contains(want, n) {
					t.Fatalf("cut after %d sectors: the table is\n%s\nwant one of\n%s", cut, n, strings.Join(want, "\n"))
				}
				if err == nil {
					last = cut
				}
				if _, err := grow(file, 200*mib); err != nil {
					t.Fatalf("cut after %d sectors, growing again: %v", cut, err)
				}
				if again := read(t, path); ends(again) != last200(old) || len(again.Problems) > 0 {
					t.Fatalf("cut after %d sectors, grown again: %+v", cut, again)
				}
				if cut < 4 || cut%20 == 0 {
					inOrder(t, path, now)
				}
				if last > 0 {
					break
				}
				restore(t, file, original)
			}
		})
	}
}

// save keeps the parts of an image of 200 MiB in which tables lie.
func save(t *testing.T, file *os.File) map[int64][]byte {
	t.Helper()
	out := map[int64][]byte{}
	for at := int64(0); at < 200*mib; at += mib {
		p := make([]byte, 64<<10)
		if _, err := file.ReadAt(p, at); err != nil {
			t.Fatal(err)
		}
		out[at] = p
		end := make([]byte, 64<<10)
		if _, err := file.ReadAt(end, at+mib-64<<10); err != nil {
			t.Fatal(err)
		}
		out[at+mib-64<<10] = end
	}
	return out
}

func restore(t *testing.T, file *os.File, parts map[int64][]byte) {
	t.Helper()
	for at, p := range parts {
		if _, err := file.WriteAt(p, at); err != nil {
			t.Fatal(err)
		}
	}
}

func ends(table partition.Table) string {
	text := ""
	for _, p := range table.Partitions {
		if !p.Container {
			text += fmt.Sprintln(p.Number, p.Offset, p.Length)
		}
	}
	return text
}

// last200 is the table as it will be with 200 MiB.
func last200(table partition.Table) string {
	end := int64(200 * mib)
	if table.Kind == partition.GPT {
		end -= mib
	}
	last := lastOf(table)
	grown := table
	grown.Partitions = slices.Clone(table.Partitions)
	for i, p := range grown.Partitions {
		if p.Number == last.Number {
			grown.Partitions[i].Length = end - p.Offset
		}
	}
	return ends(grown)
}

func TestOneCopyOfAGPTIsEnough(t *testing.T) {
	for name, at := range map[string]int64{"first header": 512 + 60, "first list": 1024 + 40, "second header": 100*mib - 512 + 60, "second list": 100*mib - 33*512 + 40} {
		path := newImage(t, 100*mib, scripts["gpt"])
		want := ends(read(t, path))
		file, size := open(t, path)
		if _, err := file.WriteAt([]byte("xxxx"), at); err != nil {
			t.Fatal(err)
		}
		table, err := partition.Read(file, size)
		if err != nil || ends(table) != want || len(table.Problems) != 1 || !strings.Contains(table.Problems[0], "checksum") {
			t.Errorf("%s: %+v, %v", name, table.Partitions, err)
		}
		if _, err := grow(file, size); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		inOrder(t, path, compare(t, path))
	}
}

func TestTablesThatAreRefused(t *testing.T) {
	image := func(t *testing.T, script string, change func(file *os.File)) (*os.File, int64) {
		file, _ := open(t, newImage(t, 100*mib, script))
		change(file)
		stat, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return file, stat.Size()
	}
	write := func(p []byte, at int64) func(*os.File) {
		return func(file *os.File) {
			if _, err := file.WriteAt(p, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name, script string
		change       func(*os.File)
		want         string
	}{
		{"cut off mbr", scripts["mbr"], func(f *os.File) { f.Truncate(30 * mib) }, "it was cut off"},
		{"cut off gpt", scripts["gpt"], func(f *os.File) { f.Truncate(30 * mib) }, "it was cut off"},
		{"both copies", scripts["gpt"], func(f *os.File) { write([]byte("x"), 600)(f); write([]byte("x"), 100*mib-452)(f) }, "checksum"},
		{"no protective mbr", scripts["gpt"], write(make([]byte, 512), 0), "the MBR that must stand before it is missing"},
		{"over each other", scripts["mbr"], write([]byte{0, 8, 0, 0}, 446+16+8), "lie over each other"},
		{"a chain in a circle", scripts["mbr, logical"], func(f *os.File) { write([]byte{0, 0, 0, 0}, 11*mib+446+16+8)(f) }, "the chain of logical partitions goes from"},
		{"a chain to nowhere", scripts["mbr, logical"], func(f *os.File) { write([]byte{0, 0, 0, 0x70}, 11*mib+446+16+8)(f) }, "the chain of logical partitions goes from"},
		{"logical outside", scripts["mbr, logical"], func(f *os.File) { write([]byte{0, 0, 0, 0x70}, 11*mib+446+12)(f) }, "lies outside of the partition for it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, size := image(t, c.script, c.change)
			if table, err := partition.Read(file, size); !errors.Is(err, partition.ErrDamaged) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %+v, %v", table.Partitions, err)
			}
			if _, err := grow(file, size); err == nil {
				t.Error("it was grown all the same")
			}
		})
	}
}

func TestHybridsAreNotGrown(t *testing.T) {
	path := newImage(t, 100*mib, scripts["gpt"])
	run(t, "", "sgdisk", "-h", "1", path)
	file, size := open(t, path)
	table, err := partition.Read(file, size)
	if err != nil || table.Kind != partition.GPT || len(table.Problems) != 1 {
		t.Errorf("got %+v, %v", table.Partitions, err)
	}
	if _, err := grow(file, size); err == nil || !strings.Contains(err.Error(), "hybrid") {
		t.Errorf("got %v", err)
	}
}

// Images without a table have none, whatever their first sector looks like.
func TestNoTable(t *testing.T) {
	for _, maker := range []string{"", "mke2fs -q -F", "mkfs.vfat -F 32", "mkfs.vfat -F 16", "mkfs.xfs -q -f", "mkswap"} {
		path := filepath.Join(t.TempDir(), "image")
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 320*mib)); err != nil {
			t.Fatal(err)
		}
		if maker != "" {
			run(t, "", append(strings.Fields(maker), path)...)
		}
		file, size := open(t, path)
		if table, err := partition.Read(file, size); !errors.Is(err, partition.ErrNone) {
			t.Errorf("%s: %+v, %v", maker, table, err)
		}
	}
	for _, size := range []int64{0, 1, 511} {
		if _, err := partition.Read(bytes.NewReader(make([]byte, size)), size); !errors.Is(err, partition.ErrNone) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestDisksWithSectorsOf4096(t *testing.T) {
	testkit.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 100*mib)); err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(run(t, "", "losetup", "--show", "-f", "-b", "4096", path))
	t.Cleanup(func() { run(t, "", "losetup", "-d", device) })
	run(t, "label: gpt\nsize=20M\nsize=30M\n", "sfdisk", "-q", device)
	run(t, "", "blockdev", "--flushbufs", device)
	table := read(t, path)
	if want := fmt.Sprintln(1, mib, 20*mib) + fmt.Sprintln(2, 21*mib, 30*mib); table.SectorSize != 4096 || ends(table) != want {
		t.Fatalf("got %+v", table)
	}
	file, size := open(t, path)
	if _, err := grow(file, size); err != nil {
		t.Fatal(err)
	}
	if table := read(t, path); len(table.Problems) > 0 || table.Partitions[1].Length != (99-21)*mib {
		t.Errorf("grown to %+v", table)
	}
	run(t, "", "blockdev", "--flushbufs", device)
	if out := run(t, "", "sgdisk", "--verify", device); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
}

func FuzzRead(f *testing.F) {
	for _, script := range scripts {
		file, _ := open(f, newImage(f, 100*mib, script))
		start := make([]byte, 32<<10)
		if _, err := file.ReadAt(start, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(start, int64(100*mib))
	}
	f.Fuzz(func(t *testing.T, start []byte, size int64) {
		if size < int64(len(start)) || size > 1<<50 {
			size = int64(len(start))
		}
		table, err := partition.Read(bytes.NewReader(start), size)
		if err != nil {
			return
		}
		for _, p := range table.Partitions {
			if p.Number < 1 || p.Offset < 512 || p.Length < 512 || p.End() > size || p.End() < p.Offset {
				t.Fatalf("%+v of %d", p, size)
			}
		}
		for _, p := range table.Partitions {
			room, err := table.Room(p.Number, size)
			if err != nil {
				continue
			}
			if p.Offset+room > size {
				t.Fatalf("%+v has room for %d of %d", p, room, size)
			}
			to, length, err := table.Around(p.Number, p.Length/2)
			if err != nil {
				t.Fatal(err)
			}
			if room, err := table.Room(p.Number, to); err != nil || table.IsLast(p.Number) && room < length || length < p.Length/2 {
				t.Fatalf("%+v takes %d for %d bytes of %+v, which are %d then", table, to, p.Length/2, p, length)
			}
			memory := memory{bytes.NewReader(start), start}
			_, _ = partition.Resize(memory, size, to, p.Number, length)
			_, _ = partition.Resize(memory, size, size, p.Number, room)
			_ = partition.Renew(memory, size)
			return
		}
	})
}

// memory is a file in memory, of which the rest is missing.
type memory struct {
	*bytes.Reader
	b []byte
}

func (m memory) Sync() error { return nil }

func (m memory) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at > int64(len(m.b)) {
		return 0, io.ErrShortWrite
	}
	n := copy(m.b[at:], p)
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
