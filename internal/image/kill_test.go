//go:build linux && amd64

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/partition"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/killer"
)

// built is the command line in a file without a name, built once for all tests of a
// kill: it goes with the process.
var built = sync.OnceValues(func() (*os.File, error) {
	folder, err := os.MkdirTemp("", "upkeep-killed-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "upkeep")
	if out, err := exec.Command("go", "build", "-o", path, "upkeep/cmd/upkeep").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building upkeep: %w\n%s", err, out)
	}
	return os.Open(path)
})

// program is the path of the command line.
func program(t *testing.T) string {
	t.Helper()
	file, err := built()
	must(t, err)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd())
}

// TestKilledAtAnyWrite kills a verb, with the programs that it started, at its
// writes. After recover the image is as it was, or as it was to be, and in order;
// its files are the same, and nothing is left beside it.
func TestKilledAtAnyWrite(t *testing.T) {
	testkit.NeedRoot(t)
	upkeepPath := program(t)
	cases := []struct {
		fs   string
		size upkeep.Size
		args []string // without the file
		full bool     // with -every-write only: another case is much like it
		part int      // of a disk; 0 is an image without any
	}{
		{"ext2", 24 * mib, []string{"grow", "--to", "40M"}, true, 0},
		{"ext2", 24 * mib, []string{"shrink", "--to", "12M"}, true, 0},
		{"ext3", 24 * mib, []string{"grow", "--to", "40M"}, true, 0},
		{"ext3", 24 * mib, []string{"shrink", "--to", "12M"}, true, 0},
		{"ext4", 24 * mib, []string{"grow", "--to", "40M"}, true, 0},
		{"ext4", 24 * mib, []string{"shrink", "--min"}, false, 0},
		{"ext4", 24 * mib, []string{"mkfs", "--force", "ext2"}, false, 0},
		{"ext4", 24 * mib, []string{"trim"}, true, 0},
		{"reiserfs", 48 * mib, []string{"grow", "--to", "80M"}, false, 0},
		{"reiserfs", 80 * mib, []string{"shrink", "--to", "48M"}, true, 0},
		{"xfs", 300 * mib, []string{"grow", "--to", "400M"}, false, 0},
		{"btrfs", 300 * mib, []string{"grow", "--to", "400M"}, true, 0},
		{"btrfs", 400 * mib, []string{"shrink", "--to", "300M"}, false, 0},
		{"ext4", 32 * mib, []string{"grow", "--to", "64M", "--partition", "2"}, false, 2},
		{"ext4", 32 * mib, []string{"grow", "--to", "64M", "--partition", "2", "--untrusted"}, true, 2},
		{"ext4", 48 * mib, []string{"grow", "--partition", "1"}, false, 1},
		{"ext4", 48 * mib, []string{"grow", "--partition", "1", "--untrusted"}, true, 1},
		{"ext4", 48 * mib, []string{"shrink", "--to", "12M", "--partition", "1"}, true, 1},
		{"ext3", 48 * mib, []string{"shrink", "--min", "--partition", "5"}, true, 5},
		{"ext4", 32 * mib, []string{"mkfs", "--force", "--partition", "2", "ext2"}, true, 2},
	}
	for _, c := range cases {
		if c.full && !*everyWrite {
			continue
		}
		t.Run(strings.Join(append([]string{c.fs}, c.args...), " "), func(t *testing.T) {
			creation := Creation{Size: c.size, FS: c.fs}
			k := killing{program: upkeepPath, fs: c.fs, args: c.args}
			if c.part == 0 {
				k.template = made(t, creation)
			} else {
				k.template = disk(t, creation, map[int]string{1: "label: gpt\nsize=20M\nstart=40M\n", 2: tables[0].script, 5: tables[2].script}[c.part], c.part)
				k.part = part(t, k.template, c.part)
			}
			if knownToKernel(c.fs) {
				k.files = fillAt(t, k.template, at{k.part, c.fs}.mount())
			}
			k.old = look(t, k.template).Size
			k.all(t)
		})
	}
}

// all kills the verb at its writes, each time on a fresh image.
func (k killing) all(t *testing.T) {
	t.Helper()
	path := k.fresh(t)
	old := inodeOf(t, path)
	calls, _, err := k.run(t, path, 0)
	if err != nil {
		t.Fatal(err)
	}
	powerCuts(t, path, old, calls)
	step := max(1, len(calls) / *killPoints)
	if *everyWrite {
		step = 1
	}
	for at := 1; at <= len(calls); at += step {
		k.at(t, at)
		passed(t, at, len(calls))
	}
	t.Logf("%d writes, killed at every %d", len(calls), step)
}

// passed tells how far kills at every write have come, which takes hours.
func passed(t *testing.T, at, of int) {
	if *everyWrite && at%50 == 0 {
		t.Logf("killed at %d of %d writes so far", at, of)
	}
}

// TestKilledWithoutRoom has a host that has no room for a second file, so that the image
// itself is worked on, and what is written over kept.
func TestKilledWithoutRoom(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	upkeepPath := program(t)
	for _, c := range []struct {
		fs   string
		args []string
		full bool
	}{
		{"ext2", []string{"grow", "--to", "28M"}, false},
		{"ext3", []string{"shrink", "--min"}, true},
		{"ext4", []string{"shrink", "--to", "16M"}, false},
		{"ext4", []string{"grow", "--by", "4M", "--untrusted"}, true},
	} {
		if c.full && !*everyWrite {
			continue
		}
		t.Run(c.fs+" "+c.args[0], func(t *testing.T) {
			k := killing{program: upkeepPath, fs: c.fs, template: made(t, Creation{Size: 24 * mib, FS: c.fs, Kind: upkeep.ImageFull}), args: c.args, host: crowded(t, 46*mib)}
			k.files = fill(t, k.template, c.fs)
			k.old = look(t, k.template).Size
			k.all(t)
		})
	}
}

// crowded is a folder that has room for so much and no more.
func crowded(t *testing.T, size upkeep.Size) string {
	t.Helper()
	folder := t.TempDir()
	printed(t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", int64(size)), "tmpfs", folder)
	t.Cleanup(func() { printed(t, "umount", folder) })
	return folder
}

// killing is a verb that is killed again and again, on a fresh image each time.
type killing struct {
	program, fs, template string
	part                  partition.Partition // that is changed; of number 0 for all
	args                  []string
	files                 map[string][32]byte
	old                   upkeep.Size
	host                  string // where the images are; a folder of their own when empty
}

func (k killing) fresh(t *testing.T) string {
	t.Helper()
	folder := k.host
	if folder == "" {
		folder = t.TempDir()
	}
	path := filepath.Join(folder, "web.img")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if k.host != "" {
		freed(t, k.host)
	}
	run(t)(Clone(k.template, path, Cloning{}))
	return path
}

// freed waits until a host has the blocks back of what was removed from it. The rules of
// Landlock by which a program could open the image keep that until the kernel has cleared
// away what is left of the program, which it does some time after its end.
func freed(t *testing.T, host string) {
	t.Helper()
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		var fs unix.Statfs_t
		err := unix.Statfs(host, &fs)
		return err == nil && fs.Bfree == fs.Blocks, fmt.Sprintf("%d of %d blocks of %s are free, and nothing is in it: %v", fs.Bfree, fs.Blocks, host, err)
	})
}

func (k killing) run(t *testing.T, path string, at int) ([]killer.Call, bool, error) {
	t.Helper()
	return runKilled(k.program, append([]string{k.args[0], path}, k.args[1:]...), at)
}

func runKilled(program string, args []string, at int) ([]killer.Call, bool, error) {
	cmd := exec.Command(program, append([]string{"image"}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	calls, killed, err := killer.Run(cmd, at)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, said.String())
	}
	return calls, killed, err
}

func (k killing) at(t *testing.T, number int) {
	t.Helper()
	path := k.fresh(t)
	before := print(t, path)
	calls, killed, err := k.run(t, path, number)
	if err != nil {
		t.Fatalf("write %d: %v", number, err)
	}
	if !killed { // it needed fewer this time
		return
	}
	where := fmt.Sprintf("killed before write %d, %s of %s", number, calls[number-1].Name, calls[number-1].Target)
	letGo(t, path, where)
	if out, err := exec.Command(k.program, "image", "recover", path).CombinedOutput(); err != nil {
		t.Fatalf("%s: recover: %v: %s", where, err, out)
	}
	onlyFile(t, path)
	if print(t, path) == before {
		return
	}
	d, err := InfoOf(path, k.part.Number)
	must(t, err)
	if k.args[0] == "mkfs" && d.FS != nil && d.FS.Type == "ext2" {
		k.clean(t, path, "ext2", where)
		return
	}
	if d.Size == k.old && (k.args[0] != "trim" && k.args[0] != "grow" || k.host != "") {
		t.Errorf("%s: the image is neither what it was nor what it was to be: %+v", where, d)
	}
	k.clean(t, path, k.fs, where)
	if k.files != nil {
		o := at{k.part, k.fs}.mount()
		o.ReadOnly, o.Size = true, 0
		if k.part.Number != 0 {
			o.Size = part(t, path, k.part.Number).Length
		}
		holdsAt(t, path, o, k.files)
	}
}

// clean wants what was changed to hold a file system of a type that is in order.
func (k killing) clean(t *testing.T, path, fs, where string) {
	t.Helper()
	d, err := InfoOf(path, k.part.Number)
	must(t, err)
	if d.FS == nil || d.FS.Type != fs || d.Cut != 0 || d.Unfinished != "" || len(d.Holders) != 0 {
		t.Fatalf("%s: the image is %+v, want a whole %s that nobody uses", where, d, fs)
	}
	if verdict := run(t)(Check(path, Checking{Partition: k.part.Number})).(filesystem.Verdict); !verdict.Clean {
		t.Errorf("%s: %s is not in order: %s", where, fs, verdict.Found)
	}
}

// letGo waits for the kernel to let go of what the killed had.
func letGo(t *testing.T, path, where string) {
	t.Helper()
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		d := look(t, path)
		return len(d.Holders) == 0, fmt.Sprint(where, ": held by ", d.Holders)
	})
}

// TestKilledWhileMaking kills the verbs that make something new of something that they
// only read. What was to be is not there, or is whole; the source is what it was, and
// nothing is left beside the two.
func TestKilledWhileMaking(t *testing.T) {
	testkit.NeedRoot(t)
	upkeepPath := program(t)
	source := made(t, Creation{Size: 24 * mib, FS: "ext4"})
	files := fill(t, source, "ext4")
	packed := filepath.Join(t.TempDir(), "web.zst")
	run(t)(Pack(source, packed, PackOptions{}))
	for _, c := range []struct {
		args  []string
		whole func(t *testing.T, path string)
		full  bool
	}{
		{[]string{"copy", source, "DST", "--fs", "ext3"}, func(t *testing.T, path string) { inOrder(t, path, "ext3"); holds(t, path, "ext3", files) }, false},
		{[]string{"clone", source, "DST"}, func(t *testing.T, path string) { inOrder(t, path, "ext4"); holds(t, path, "ext4", files) }, true},
		{[]string{"pack", source, "DST"}, func(t *testing.T, path string) {
			out := filepath.Join(t.TempDir(), "again.img")
			run(t)(Unpack(context.Background(), path, out, Unpacking{}))
			holds(t, out, "ext4", files)
		}, false},
		{[]string{"unpack", packed, "DST"}, func(t *testing.T, path string) { inOrder(t, path, "ext4"); holds(t, path, "ext4", files) }, false},
	} {
		if c.full && !*everyWrite {
			continue
		}
		t.Run(c.args[0], func(t *testing.T) {
			before := print(t, c.args[1])
			one := func(at int) int {
				path := filepath.Join(t.TempDir(), "new")
				args := slices.Clone(c.args)
				args[2] = path
				calls, killed, err := runKilled(upkeepPath, args, at)
				if err != nil {
					t.Fatalf("write %d: %v", at, err)
				}
				letGo(t, c.args[1], fmt.Sprint("killed before write ", at))
				if _, err := os.Lstat(path); err == nil {
					letGo(t, path, fmt.Sprint("killed before write ", at))
					c.whole(t, path)
				} else if !killed {
					t.Errorf("nothing was made: %v", err)
				}
				onlyFile(t, path)
				return len(calls)
			}
			n := one(0)
			step := max(1, n / *killPoints)
			if *everyWrite {
				step = 1
			}
			for at := 1; at <= n; at += step {
				one(at)
				passed(t, at, n)
			}
			if after := print(t, c.args[1]); after != before {
				t.Errorf("the source is %s, and was %s", after, before)
			}
			t.Logf("%d writes, killed at every %d", n, step)
		})
	}
}

// TestKilledWhileCopyingIntoImage has a copy into an image that exists.
func TestKilledWhileCopyingIntoImage(t *testing.T) {
	source := planted(t)
	k := killing{program: program(t), fs: "ext4", template: made(t, Creation{Size: 24 * mib, FS: "ext4"}), args: []string{"copy", source, "--merge"}}
	k.files = fill(t, k.template, k.fs)
	into := func(path string, at int) ([]killer.Call, bool, error) {
		return runKilled(k.program, []string{"copy", source, path, "--merge"}, at)
	}
	path := k.fresh(t)
	old := inodeOf(t, path)
	calls, _, err := into(path, 0)
	must(t, err)
	powerCuts(t, path, old, calls)
	step := max(1, len(calls) / *killPoints)
	if *everyWrite {
		step = 1
	}
	for at := 1; at <= len(calls); at += step {
		path := k.fresh(t)
		if _, _, err := into(path, at); err != nil {
			t.Fatalf("write %d: %v", at, err)
		}
		where := fmt.Sprint("killed before write ", at)
		letGo(t, path, where)
		if out, err := exec.Command(k.program, "image", "recover", path).CombinedOutput(); err != nil {
			t.Fatalf("%s: recover: %v: %s", where, err, out)
		}
		onlyFile(t, path)
		inOrder(t, path, k.fs)
		holds(t, path, k.fs, k.files)
	}
	t.Logf("%d writes, killed at every %d", len(calls), step)
}

// cut is what a disk may hold of a folder and of the files in it when the power goes:
// all that was synced, and of the rest any part.
type cut struct {
	folder, image string
	names         map[string]uint64 // on the disk, with inodes
	pending       []killer.Call     // changes of names that are not
	written       map[uint64]int    // writes to a file that are not
	all           map[uint64]int    // writes to a file so far
	next          uint64            // the inode of the second file
}

// powerCuts goes through the calls of a verb that works on a second file and cuts the
// power before each, and after the last: whatever part of the changes of names is on
// the disk then, the image's name leads to the old file, which nobody wrote to, or to
// the new one, which is complete and on the disk.
func powerCuts(t *testing.T, path string, old uint64, calls []killer.Call) {
	t.Helper()
	next := inodeOf(t, path)
	if next == old {
		return // it is changed in place, by the kernel
	}
	total := 0
	for _, c := range calls {
		if writes(c) && c.Inode == next {
			total++
		}
	}
	d := cut{folder: filepath.Dir(path), image: filepath.Base(path), names: map[string]uint64{filepath.Base(path): old}, written: map[uint64]int{}, all: map[uint64]int{}, next: next}
	for i := 0; ; i++ {
		for kept := range 1 << len(d.pending) {
			switch d.after(kept)[d.image] {
			case old:
				if d.all[old] > 0 {
					t.Fatalf("before call %d the old image was written to", i)
				}
			case next:
				if d.written[next] > 0 || d.all[next] < total {
					t.Fatalf("a power cut before call %d leaves an image of which %d of %d writes may be missing", i, d.written[next]+total-d.all[next], total)
				}
			default:
				t.Fatalf("a power cut before call %d leaves no image", i)
			}
		}
		if i == len(calls) {
			break
		}
		d.see(calls[i])
	}
	if len(d.pending) > 0 || d.names[d.image] != next {
		t.Errorf("at the end the disk has %v, and these changes of names are not on it: %v", d.names, d.pending)
	}
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Ino
}

// see takes a call into account.
func (d *cut) see(c killer.Call) {
	switch synced := c.Name == "fsync" || c.Name == "fdatasync"; {
	case len(c.Names) > 0:
		d.pending = append(d.pending, c)
	case synced && c.Target == d.folder:
		d.names, d.pending = d.after(1<<len(d.pending)-1), nil
	case synced:
		d.written[c.Inode] = 0
	case writes(c):
		d.written[c.Inode]++
		d.all[c.Inode]++
	}
}

// after are the names when of the pending changes those are kept that have a bit.
func (d *cut) after(kept int) map[string]uint64 {
	names := maps.Clone(d.names)
	for i, c := range d.pending {
		if kept>>i&1 == 0 {
			continue
		}
		switch from, to := filepath.Base(c.Names[0]), filepath.Base(c.Names[len(c.Names)-1]); c.Name {
		case "linkat":
			names[to] = d.next
		case "renameat2":
			if names[from] != 0 && names[to] != 0 {
				names[from], names[to] = names[to], names[from]
			}
		case "unlinkat":
			delete(names, from)
		}
	}
	return names
}

// writes reports whether a call changes a file.
func writes(c killer.Call) bool {
	return c.Inode != 0 && len(c.Names) == 0 && !strings.HasPrefix(c.Target, "/dev/") &&
		!slices.Contains([]string{"fsync", "fdatasync", "syncfs", "ioctl", "fsmount"}, c.Name)
}
