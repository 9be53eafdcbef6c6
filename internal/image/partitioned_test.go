package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/partition"
	"upkeep/internal/testkit"
)

// tables are how a disk may be divided, as sfdisk takes it, into a small partition and
// a last one, and the number of that.
var tables = []struct {
	name, script string
	last         int
}{
	{"gpt", "label: gpt\nsize=8M\n,\n", 2},
	{"mbr", "label: dos\nsize=8M\n,\n", 2},
	{"logical", "label: dos\nsize=8M\ntype=5\n,\n", 5},
}

// disk is an image with a table. Its first partition holds ext2, its last a file system
// of a type.
func disk(t *testing.T, c Creation, script string, last int) string {
	t.Helper()
	testkit.Need(t, "sfdisk")
	need(t, "ext2")
	typ, options := c.FS, c.Options
	c.FS, c.Options = "", filesystem.Options{}
	path := made(t, c)
	divide(t, path, script)
	run(t)(MkFS(path, Remaking{Type: "ext2", Partition: 1, Options: filesystem.Options{Label: "first"}}))
	if typ != "" {
		need(t, typ)
		run(t)(MkFS(path, Remaking{Type: typ, Partition: last, Options: options}))
	}
	onlyFile(t, path)
	return path
}

// divide gives an image a table.
func divide(t *testing.T, path, script string) {
	t.Helper()
	if out, err := testkit.TryWith(t, strings.NewReader(script), "sfdisk", "-q", path); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
}

// part is a partition as the table has it, which sfdisk has to agree on and to find
// nothing wrong with.
func part(t *testing.T, path string, number int) partition.Partition {
	t.Helper()
	if out, err := testkit.Try(t, "sfdisk", "--verify", path); err != nil || !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk finds: %v: %s", err, out)
	}
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	table, err := partition.Read(file, int64(look(t, path).Size))
	must(t, err)
	if len(table.Problems) > 0 {
		t.Errorf("the table has problems: %q", table.Problems)
	}
	p, err := table.Partition(number)
	must(t, err)
	var shown struct {
		Table struct {
			Partitions []struct{ Start, Size int64 }
		} `json:"partitiontable"`
	}
	must(t, json.Unmarshal([]byte(testkit.Run(t, "sfdisk", "-J", path)), &shown))
	found := false
	for _, s := range shown.Table.Partitions {
		found = found || s.Start*512 == p.Offset && s.Size*512 == p.Length
	}
	if !found {
		t.Errorf("sfdisk has no partition %+v: %+v", p, shown)
	}
	return p
}

// contentOf is what lies in a partition.
func contentOf(t *testing.T, path string, p partition.Partition) []byte {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	b := make([]byte, p.Length)
	_, err = file.ReadAt(b, p.Offset)
	must(t, err)
	return b
}

func (p at) mount() mount.Options {
	return mount.Options{Type: p.fs, Offset: p.Offset, Size: p.Length}
}

// at is a partition with the type of what it holds.
type at struct {
	partition.Partition
	fs string
}

// TestPartitionGrowsAndShrinks does both, with the kernel and without, and finds all
// files and what else is in the image.
func TestPartitionGrowsAndShrinks(t *testing.T) {
	testkit.NeedRoot(t)
	cases := []struct {
		fs        string
		size, to  upkeep.Size
		untrusted bool
		kind      upkeep.ImageKind
		table     int
	}{
		{"ext4", 40 * mib, 72 * mib, false, upkeep.ImageSparse, 0},
		{"ext4", 40 * mib, 72 * mib, true, upkeep.ImageFull, 2},
		{"reiserfs", 64 * mib, 96 * mib, false, upkeep.ImageSparse, 1},
		{"xfs", 330 * mib, 400 * mib, false, upkeep.ImageSparse, 0},
		{"btrfs", 330 * mib, 400 * mib, false, upkeep.ImageFull, 1},
	}
	for _, c := range cases {
		for i, table := range tables {
			if (i != c.table || c.fs == "btrfs") && !*everyWrite {
				continue
			}
			t.Run(fmt.Sprintf("%s untrusted %v %s", c.fs, c.untrusted, table.name), func(t *testing.T) {
				path := disk(t, Creation{Size: c.size, Kind: c.kind, FS: c.fs}, table.script, table.last)
				first, old := part(t, path, 1), at{part(t, path, table.last), c.fs}
				neighbour := contentOf(t, path, first)
				var files map[string][32]byte
				if knownToKernel(c.fs) {
					files = fillAt(t, path, old.mount())
				}
				run(t)(Grow(path, Growth{To: c.to, Partition: table.last, Untrusted: c.untrusted}))
				grown := at{part(t, path, table.last), c.fs}
				partInOrder(t, path, grown, c.to, c.kind, files)
				if grown.Offset != old.Offset || grown.Length-old.Length < int64(c.to-c.size)-(2<<20) {
					t.Errorf("%+v grew to %+v", old, grown)
				}
				if c.fs != "xfs" {
					to := c.size
					if c.fs == "btrfs" {
						to = 300 * mib
					}
					run(t)(Shrink(path, Shrinking{To: to, Partition: table.last}))
					partInOrder(t, path, at{part(t, path, table.last), c.fs}, to, c.kind, files)
				}
				if !bytes.Equal(contentOf(t, path, first), neighbour) {
					t.Error("the first partition is not what it was")
				}
				onlyFile(t, path)
			})
		}
	}
}

// TestPartitionBeforeOthersGrowsAndShrinks has room behind the first of two partitions.
// The image keeps its size and the other partition all that it has.
func TestPartitionBeforeOthersGrowsAndShrinks(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "sfdisk")
	need(t, "ext4")
	for _, c := range []struct {
		name, script string
		number, last int
		untrusted    bool
		kind         upkeep.ImageKind
	}{
		{"gpt", "label: gpt\nsize=16M\nstart=40M\n", 1, 2, false, upkeep.ImageFull},
		{"gpt untrusted", "label: gpt\nsize=16M\nstart=40M\n", 1, 2, true, upkeep.ImageFull},
		{"logical", "label: dos\n/dev/x1: size=60M,type=5\n/dev/x5: size=16M\n/dev/x6: start=40M,size=20M\n", 5, 6, true, upkeep.ImageSparse},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := made(t, Creation{Size: 64 * mib, Kind: c.kind})
			divide(t, path, c.script)
			run(t)(MkFS(path, Remaking{Type: "ext4", Partition: c.number}))
			run(t)(MkFS(path, Remaking{Type: "ext2", Partition: c.last}))
			last := part(t, path, c.last)
			neighbour := contentOf(t, path, last)
			files := fillAt(t, path, at{part(t, path, c.number), "ext4"}.mount())
			check := func(length int64) {
				t.Helper()
				p := at{part(t, path, c.number), "ext4"}
				if length != 0 && p.Length != length {
					t.Errorf("it is %d bytes large, want %d", p.Length, length)
				}
				partInOrder(t, path, p, 64*mib, c.kind, files)
				if part(t, path, c.last) != last || !bytes.Equal(contentOf(t, path, last), neighbour) {
					t.Error("the other partition is not what it was")
				}
				onlyFile(t, path)
			}
			w, err := Grow(path, Growth{By: 4 * mib, Partition: c.number, Untrusted: c.untrusted})
			must(t, err)
			if steps := fmt.Sprint(w.Plan.Steps); !strings.Contains(steps, "make partition "+fmt.Sprint(c.number)+" 20M large: the 4M behind it belong to no partition, and whatever bytes are there go") {
				t.Errorf("the plan is %s", steps)
			}
			must(t, errors.Join(w.Do(context.Background(), nil), w.Close()))
			check(int64(20 * mib))
			run(t)(Grow(path, Growth{Partition: c.number, Untrusted: c.untrusted})) // up to the other
			check(0)
			if end := part(t, path, c.number).End(); end > int64(40*mib) || end < int64(38*mib) {
				t.Errorf("it ends at %d", end)
			}
			run(t)(Shrink(path, Shrinking{To: 12 * mib, Partition: c.number}))
			check(int64(12 * mib))
			run(t)(Shrink(path, Shrinking{Min: true, Partition: c.number}))
			check(0)
		})
	}
}

// TestClonedDiskHasItsOwnIdentifiers looks at all that tells a disk from another.
func TestClonedDiskHasItsOwnIdentifiers(t *testing.T) {
	testkit.Need(t, "sfdisk")
	for i, script := range []string{"label: gpt\nsize=8M\nsize=8M\nsize=8M\n,\n", "label: dos\nsize=8M\nsize=8M\nsize=8M\n,\n"} {
		path := made(t, Creation{Size: 48 * mib, Kind: kinds[i]})
		divide(t, path, script)
		for number, typ := range map[int]string{1: "vfat", 2: "swap", 4: "ext4"} {
			need(t, typ)
			run(t)(MkFS(path, Remaking{Type: typ, Partition: number}))
		}
		before := print(t, path)
		copied := filepath.Join(t.TempDir(), "copy.img")
		var notes []string
		work, err := Clone(path, copied, Cloning{NewIDs: true})
		must(t, err)
		must(t, work.Do(context.Background(), func(e upkeep.ImageEvent) { notes = append(notes, e.Text) }))
		must(t, work.Close())
		if said := strings.Join(notes, " "); !strings.Contains(said, "partition 3 holds nothing that is known here") || !strings.Contains(said, "fstab") {
			t.Errorf("told is %q", said)
		}
		if print(t, path) != before {
			t.Error("the image is not what it was")
		}
		onlyFile(t, copied)
		a, b := look(t, path), look(t, copied)
		if a.Table.ID == b.Table.ID || b.Kind != kinds[i] {
			t.Errorf("the disks are %s and %s; the copy is %s", a.Table.ID, b.Table.ID, b.Kind)
		}
		for n := range a.Table.Partitions {
			p, q := a.Table.Partitions[n], b.Table.Partitions[n]
			if p.UUID == q.UUID || p.FS != nil && p.FS.UUID == q.FS.UUID || p.Offset != q.Offset || p.Length != q.Length {
				t.Errorf("%+v with %+v was copied to %+v with %+v", p, p.FS, q, q.FS)
			}
			if part(t, copied, p.Number); q.FS != nil {
				if verdict := run(t)(Check(copied, Checking{Partition: p.Number})).(filesystem.Verdict); !verdict.Clean {
					t.Errorf("%s is not in order: %s", q.FS.Type, verdict.Found)
				}
			}
		}
	}
}

// partInOrder wants an image to have a size and a kind, and a partition to be filled by
// a file system that is in order and has the files.
func partInOrder(t *testing.T, path string, p at, size upkeep.Size, kind upkeep.ImageKind, files map[string][32]byte) {
	t.Helper()
	d, err := InfoOf(path, p.Number)
	must(t, err)
	if d.Size != size || d.Kind != kind || d.FS == nil || d.FS.Type != p.fs || d.Cut != 0 || d.FS.Size > p.Length || p.Length-d.FS.Size > 1<<20 {
		t.Fatalf("the image is %+v with %+v in %+v; want %s, %s, filled by %s", d, d.FS, p, size, kind, p.fs)
	}
	if verdict := run(t)(Check(path, Checking{Partition: p.Number})).(filesystem.Verdict); !verdict.Clean {
		t.Errorf("%s is not in order: %s", p.fs, verdict.Found)
	}
	if files != nil {
		o := p.mount()
		o.ReadOnly = true
		holdsAt(t, path, o, files)
	}
}

// TestPartitionShrinksToTheLeast has the image end right behind what is needed.
func TestPartitionShrinksToTheLeast(t *testing.T) {
	for _, table := range tables[1:] {
		path := disk(t, Creation{Size: 64 * mib, FS: "ext4"}, table.script, table.last)
		run(t)(Shrink(path, Shrinking{Min: true, Partition: table.last}))
		d, p := look(t, path), part(t, path, table.last)
		if d.Size >= 30*mib || int64(d.Size)-p.End() > 1<<20 {
			t.Errorf("%s: %d bytes are left, and the partition ends at %d", table.name, int64(d.Size), p.End())
		}
		run(t)(Grow(path, Growth{Partition: table.last})) // fills it, and is in order
		partInOrder(t, path, at{part(t, path, table.last), "ext4"}, d.Size, upkeep.ImageSparse, nil)
	}
}

// TestPartitionIsTreatedAlone goes through the verbs that work on one partition.
func TestPartitionIsTreatedAlone(t *testing.T) {
	testkit.NeedRoot(t)
	path := disk(t, Creation{Size: 64 * mib, FS: "ext4"}, tables[0].script, 2)
	first, second := part(t, path, 1), at{part(t, path, 2), "ext4"}
	neighbour := contentOf(t, path, first)
	files := fillAt(t, path, second.mount())
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	junk := make([]byte, 2<<20) // as a file that was deleted leaves it
	rand.Read(junk)
	_, err = file.WriteAt(junk, second.End()-(5<<20))
	must(t, errors.Join(err, file.Close()))
	folder := t.TempDir()
	out := func(name string) string { return filepath.Join(folder, name) }

	refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return MkFS(path, Remaking{Type: "ext3", Partition: 2}) })
	run(t)(Clone(path, out("clone.img"), Cloning{NewIDs: true, Partition: 2}))
	run(t)(Pack(path, out("part.zst"), PackOptions{Partition: 2}))
	run(t)(Unpack(context.Background(), out("part.zst"), out("part.img"), Unpacking{}))
	whole := run(t)(Pack(path, out("disk.zst"), PackOptions{})).(Packing)
	run(t)(Unpack(context.Background(), out("disk.zst"), out("taken.img"), Unpacking{Partition: 2}))
	run(t)(Copy(path, out("copy.img"), Copying{Partition: 2, FS: "ext3", Verify: true}))
	for name, fs := range map[string]string{"clone.img": "ext4", "part.img": "ext4", "taken.img": "ext4", "copy.img": "ext3"} {
		inOrder(t, out(name), fs)
		holds(t, out(name), fs, files)
	}
	all := run(t)(Pack(path, out("all.zst"), PackOptions{All: true})).(Packing)
	if trimmed := run(t)(Trim(path, 2)).(Trimmed); trimmed.After >= trimmed.Before {
		t.Errorf("trimmed: %+v", trimmed)
	}
	if whole.Dropped == 0 || all.Dropped != 0 || whole.Data >= all.Data {
		t.Errorf("packed %+v without what is deleted, %+v with it", whole, all)
	}
	run(t)(Copy(out("copy.img"), path, Copying{Into: 2, Merge: true}))
	partInOrder(t, path, second, 64*mib, upkeep.ImageSparse, files)
	if !bytes.Equal(contentOf(t, path, first), neighbour) {
		t.Error("the first partition is not what it was")
	}
	onlyFile(t, path)

	text := &strings.Builder{}
	for _, src := range []string{path, out("disk.zst")} {
		f, err := OpenFiles(context.Background(), src, 2)
		must(t, err)
		must(t, f.Cat(context.Background(), "file01", text))
		must(t, f.Close())
	}
	if text.String() != strings.Repeat("file01", 4) {
		t.Errorf("file01 holds %q", text)
	}
	if _, err := OpenFiles(context.Background(), path, 0); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "2 partitions") {
		t.Errorf("looking into a disk: %v", err)
	}
}

// TestPartitionIsMended damages the last partition, whose neighbour stays.
func TestPartitionIsMended(t *testing.T) {
	path := disk(t, Creation{Size: 40 * mib, FS: "ext4"}, tables[1].script, 2)
	first, damaged := part(t, path, 1), part(t, path, 2)
	neighbour := contentOf(t, path, first)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt([]byte{9, 9}, damaged.Offset+1024+0x10) // the count of free inodes, and so the checksum
	must(t, errors.Join(err, file.Close()))
	if verdict := run(t)(Check(path, Checking{Partition: 2})).(filesystem.Verdict); verdict.Clean {
		t.Error("a damaged partition passes for clean")
	}
	if verdict := run(t)(Check(path, Checking{Partition: 2, Repair: true})).(filesystem.Verdict); !verdict.Mended {
		t.Errorf("mended: %+v", verdict)
	}
	if verdict := run(t)(Check(path, Checking{Partition: 2})).(filesystem.Verdict); !verdict.Clean {
		t.Errorf("after it was mended: %+v", verdict)
	}
	if part(t, path, 2) != damaged || !bytes.Equal(contentOf(t, path, first), neighbour) {
		t.Error("what lies beside the mended partition is not what it was")
	}
	onlyFile(t, path)
}

// TestPartitionRefuses has what cannot be done, and says what can.
func TestPartitionRefuses(t *testing.T) {
	path := disk(t, Creation{Size: 40 * mib, FS: "ext4"}, tables[0].script, 2)
	for what, one := range map[string]struct {
		says string
		try  func() (*Work, error)
	}{
		"growing one over the next":     {"another lies behind it", func() (*Work, error) { return Grow(path, Growth{By: mib, Partition: 1}) }},
		"growing one to less":           {"the partition's own size", func() (*Work, error) { return Grow(path, Growth{To: mib, Partition: 1}) }},
		"shrinking one to more":         {"the partition's own size", func() (*Work, error) { return Shrink(path, Shrinking{To: 20 * mib, Partition: 1}) }},
		"one that is not there":         {"no partition 7", func() (*Work, error) { return Check(path, Checking{Partition: 7}) }},
		"none named, to grow":           {"has partitions", func() (*Work, error) { return Grow(path, Growth{By: mib}) }},
		"none named, to check":          {"2 partitions", func() (*Work, error) { return Check(path, Checking{}) }},
		"none named, to shrink":         {"2 partitions", func() (*Work, error) { return Shrink(path, Shrinking{Min: true}) }},
		"less than is used":             {"leaves less", func() (*Work, error) { return Shrink(path, Shrinking{To: 9 * mib, Partition: 2}) }},
		"a file alone, and a partition": {"file-only", func() (*Work, error) { return Grow(path, Growth{By: mib, FileOnly: true, Partition: 2}) }},
	} {
		if err := refused(t, path, nil, one.try); !strings.Contains(err.Error(), one.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A disk that lost its end is not made longer.
	must(t, os.Truncate(path, int64(30*mib)))
	refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Grow(path, Growth{By: 9 * mib, Partition: 2}) })
}

// A file that is grown alone has the second copy of its GPT at its end, as sgdisk -e
// would put it, and its partitions and what is in them as they were.
func TestGrowTheFileOfADisk(t *testing.T) {
	testkit.Need(t, "sgdisk")
	for _, table := range tables {
		path := disk(t, Creation{Size: 32 * mib, FS: "ext4"}, table.script, table.last)
		before := part(t, path, table.last)
		content := contentOf(t, path, before)
		for _, g := range []Growth{{To: 48 * mib, FileOnly: true}, {FileOnly: true}} {
			if g.To == 0 { // as it was left by truncate, or a kill
				must(t, os.Truncate(path, int64(64*mib)))
			}
			if table.name == "gpt" || g.To != 0 {
				run(t)(Grow(path, g))
			}
			if after := part(t, path, table.last); after != before {
				t.Errorf("%s: the partition is %+v, and was %+v", table.name, after, before)
			}
			if table.name != "gpt" {
				continue
			}
			if out := testkit.Run(t, "sgdisk", "--verify", path); strings.Contains(out, "Problem") || !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk finds: %s", out)
			}
			if left := strings.TrimSpace(testkit.Run(t, "sgdisk", "--end-of-largest", path)); left != fmt.Sprint(int64(look(t, path).Size)/512-34) {
				t.Errorf("the room behind the partitions ends with sector %s", left)
			}
		}
		refused(t, path, nil, func() (*Work, error) { return Grow(path, Growth{FileOnly: true}) })
		if !bytes.Equal(contentOf(t, path, before), content) {
			t.Errorf("%s: what the partition holds was changed", table.name)
		}
	}
}

// The only copy of a GPT that is in order is found by the end of its file: it stays where
// it is.
func TestGrowTheFileOfADiskWithoutItsFirstTable(t *testing.T) {
	path := disk(t, Creation{Size: 32 * mib, FS: "ext2"}, tables[0].script, 2)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt(make([]byte, 512), 512)
	must(t, errors.Join(err, file.Close()))
	for _, growth := range []Growth{{By: mib, FileOnly: true}, {By: mib, Partition: 2}} {
		err = refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Grow(path, growth) })
		var hint *upkeep.HintError
		if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "sgdisk -e") {
			t.Errorf("refused %+v without saying what to do: %v", growth, err)
		}
	}
}
