package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/tree"
	"upkeep/internal/testkit"
)

// TestCopyWithoutKernel has what is in a folder go into an image and out again with
// nothing mounted: as root, where the image is not trusted.
func TestCopyWithoutKernel(t *testing.T) {
	source := planted(t)
	must(t, unix.Chmod(filepath.Join(source, "etc/file7"), 0o4755))
	late := []unix.Timespec{{Sec: 4102444800, Nsec: 123456789}, {Sec: 4102444800, Nsec: 123456789}} // 2100
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(source, "etc/file8"), late, 0))
	printed(t, "chattr", "+d", filepath.Join(source, "etc/file9"))
	testkit.Need(t, "chattr")
	latin1 := filepath.Join(source, "caf\xe9") // names are bytes
	must(t, errors.Join(os.Mkdir(latin1, 0o700), os.WriteFile(filepath.Join(latin1, "th\xe9"), []byte("noir"), 0o600)))
	for _, c := range []struct{ fs, way string }{{"ext4", "mounted"}, {"ext4", "made"}, {"ext2", "made"}, {"xfs", "mounted"}, {"btrfs", "mounted"}} {
		need(t, c.fs)
		image, folder := filepath.Join(t.TempDir(), "new.img"), t.TempDir()
		if c.way == "mounted" {
			run(t)(Copy(source, image, Copying{FS: c.fs}))
		} else {
			w := &Work{Plan: Plan{Verb: "copy", File: image}}
			must(t, w.planUnmounted(source, image, Copying{FS: c.fs, Size: 32 * mib}))
			must(t, errors.Join(w.Do(context.Background(), nil), w.Close()))
			inOrder(t, image, c.fs)
			compareMounted(t, source, image, c.fs)
		}
		w := &Work{Plan: Plan{Verb: "copy", File: folder}}
		must(t, w.planUnmounted(image, folder, Copying{}))
		must(t, errors.Join(w.Do(context.Background(), nil), w.Close()))
		harmless(t, image)
		if out, err := exec.Command("diff", "-r", "--no-dereference", "-x", "null", "-x", "lost+found", source, folder).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		for _, name := range []string{"etc", "etc/file7", "etc/file8", "hard", "soft", "null", "hole", ".", ".top"} {
			var want, got syscall.Stat_t
			must(t, errors.Join(syscall.Lstat(filepath.Join(source, name), &want), syscall.Lstat(filepath.Join(folder, name), &got)))
			if want.Mode != got.Mode || want.Uid != got.Uid || want.Gid != got.Gid || want.Rdev != got.Rdev || want.Mtim != got.Mtim || want.Nlink != got.Nlink && name != "." {
				t.Errorf("%s, %s: %s is %+v, and was %+v", c.fs, c.way, name, got, want)
			}
			if name == "hole" && got.Blocks*512 > 1<<20 {
				t.Errorf("the hole was filled: %d blocks", got.Blocks)
			}
		}
	}
}

// harmless wants nothing to come out of an image that is not trusted that would give
// anybody more than they had.
func harmless(t *testing.T, image string) {
	t.Helper()
	folder := t.TempDir()
	result := run(t)(Copy(image, folder, Copying{Untrusted: true})).(Copied)
	info, err := os.Stat(filepath.Join(folder, "etc/file7"))
	must(t, err)
	if _, err := os.Lstat(filepath.Join(folder, "null")); err == nil || info.Mode()&os.ModeSetuid != 0 || len(result.Lost) != 2 {
		t.Errorf("a device is there (%v), file7 has mode %s, and lost is %v", err == nil, info.Mode(), result.Lost)
	}
}

// compareMounted has the kernel read an image that was made without it, and compares
// all attributes with those of a folder, but for the one that nothing here can set.
func compareMounted(t *testing.T, source, image, fs string) {
	t.Helper()
	file, err := os.Open(image)
	must(t, err)
	defer file.Close()
	must(t, mountRead(file, fs, func(dir *os.File) error {
		src, err := os.Open(source)
		must(t, err)
		defer src.Close()
		want, err := tree.ReadTree(context.Background(), src, 0, nil)
		must(t, err)
		got, err := tree.ReadTree(context.Background(), dir, 0, nil)
		must(t, err)
		for _, d := range tree.Compare(want, got) {
			if text := d.String(); !strings.Contains(text, "lost+found") {
				t.Errorf("%s: %s", fs, text)
			}
		}
		return nil
	}))
}

// asNobody runs image verbs as another user, who is in no group but his own, in a folder.
func asNobody(t *testing.T, folder string) func(args ...string) (string, error) {
	t.Helper()
	for dir := filepath.Dir(folder); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	binary := program(t)
	return func(args ...string) (string, error) {
		in, err := os.Open(binary)
		must(t, err)
		defer in.Close()
		cmd := exec.Command("/proc/self/fd/3", append([]string{"image"}, args...)...)
		cmd.ExtraFiles, cmd.Dir, cmd.Env = []*os.File{in}, folder, []string{"HOME=" + folder, "PATH=" + os.Getenv("PATH")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

// TestCopyWithoutRoot runs the command as another user.
func TestCopyWithoutRoot(t *testing.T) {
	testkit.NeedRoot(t)
	need(t, "ext4")
	base := t.TempDir()
	image, mine := filepath.Join(base, "web.img"), filepath.Join(base, "mine")
	run(t)(Copy(planted(t), image, Copying{FS: "ext4"}))
	must(t, errors.Join(os.Mkdir(mine, 0o755), os.Chown(mine, 65534, 65534), os.Chmod(image, 0o644)))
	as := asNobody(t, mine)
	must(t, os.Mkdir(filepath.Join(mine, "out"), 0o755))
	must(t, os.Chown(filepath.Join(mine, "out"), 65534, 65534))
	plan, err := as("copy", image, "out", "--plan")
	if err != nil || !strings.Contains(plan, "NOT kept: owners, devices, set-id bits, extended") {
		t.Errorf("the plan: %v: %s", err, plan)
	}
	said, err := as("copy", image, "out")
	if err != nil || !strings.Contains(said, "not carried: owner of") || !strings.Contains(said, "not carried: entry of null: making devices takes root") {
		t.Fatalf("out of an image: %v: %s", err, said)
	}
	said, err = as("copy", "out", "again.img")
	if err != nil {
		t.Fatalf("into an image: %v: %s", err, said)
	}
	inOrder(t, filepath.Join(mine, "again.img"), "ext4")
	compareMounted(t, filepath.Join(mine, "out"), filepath.Join(mine, "again.img"), "ext4")
	for what, args := range map[string][]string{
		"image to image": {"copy", image, "other.img"}, "into an image": {"copy", "out", "again.img"}, "xfs": {"copy", "out", "other.img", "--fs", "xfs"}, "verify": {"copy", "out", "other.img", "--verify"},
	} {
		if said, err := as(args...); err == nil || !strings.Contains(said, "hint: what works: ") {
			t.Errorf("%s: %v: %s", what, err, said)
		}
	}
	closed := filepath.Join(mine, "closed")
	must(t, errors.Join(os.Mkdir(closed, 0o700), os.Mkdir(filepath.Join(closed, "in"), 0o700)))
	if said, err := as("copy", "closed", "other.img"); err == nil || !strings.Contains(said, "opening closed: permission denied\nhint: run it as the owner") {
		t.Errorf("a folder that cannot be read: %v: %s", err, said)
	}
	must(t, os.Chmod(closed, 0o755))
	if said, err := as("copy", "closed", "other.img"); err == nil || !strings.Contains(said, "in: permission denied\nhint: run it as who may read all of it, or as root\n") {
		t.Errorf("a folder with one in it that cannot be read: %v: %s", err, said)
	}
	if _, err := os.Lstat(filepath.Join(mine, "other.img")); err == nil {
		t.Error("what was refused left a file")
	}
}

// TestCopyOfHoles has files that the kernel wrote in each type, of which next to nothing is
// data: room is asked for that, and not for journals and holes.
func TestCopyOfHoles(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	for name, c := range map[string]struct{ image, file upkeep.Size }{
		"ext2": {32 * mib, 12 << 30}, "ext4": {96 * mib, 12 << 30}, "xfs": {300 * mib, 1 << 40}, "btrfs": {200 * mib, 1 << 40},
	} {
		need(t, name)
		image := made(t, Creation{Size: c.image, FS: name})
		within(t, image, name, func(folder string) error {
			file, err := os.Create(filepath.Join(folder, "holes"))
			if err != nil {
				return err
			}
			_, err1 := file.WriteAt([]byte("first"), 1<<30)
			_, err2 := file.WriteAt([]byte("last"), int64(c.file)-4)
			err3 := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 2<<30, 1<<20)
			if errors.Is(err3, unix.EOPNOTSUPP) { // ext2
				err3 = nil
			}
			return errors.Join(err1, err2, err3, file.Close())
		})
		folder := crowded(t, 4*mib) // xfs has a journal of 64M
		w, err := Copy(image, folder, Copying{Untrusted: true})
		must(t, err)
		if w.Plan.Writes != 8192 {
			t.Errorf("%s: %d bytes are to be written", name, w.Plan.Writes)
		}
		must(t, errors.Join(w.Do(context.Background(), nil), w.Close()))
		file, err := os.Open(filepath.Join(folder, "holes"))
		must(t, err)
		info, err := file.Stat()
		must(t, err)
		first, last := make([]byte, 5), make([]byte, 4)
		_, err1 := file.ReadAt(first, 1<<30)
		_, err2 := file.ReadAt(last, info.Size()-4)
		must(t, errors.Join(err1, err2, file.Close()))
		if info.Size() != int64(c.file) || string(first) != "first" || string(last) != "last" {
			t.Errorf("%s: the file has %d bytes, %q and %q", name, info.Size(), first, last)
		}
	}
}

// TestCopyIntoWhatHasNoRoom has folders that cannot be copied into, which the plan says.
func TestCopyIntoWhatHasNoRoom(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	need(t, "ext4")
	image := made(t, Creation{Size: 64 * mib, FS: "ext4"})
	within(t, image, "ext4", func(folder string) error { return large(folder, "large", 8*mib) })
	folder := crowded(t, 4*mib)
	_, err := Copy(image, folder, Copying{Untrusted: true})
	var h *upkeep.HintError
	if !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "8M are needed in "+folder+" and ") || !errors.As(err, &h) || h.Hint != "make room there, or name a folder on a file system with more" {
		t.Errorf("a folder without room: %v, %v", err, h)
	}
	must(t, os.WriteFile(filepath.Join(folder, "other"), nil, 0o600))
	for _, untrusted := range []bool{true, false} {
		_, err := Copy(image, folder, Copying{Untrusted: untrusted})
		if !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "is not empty; it has ") {
			t.Errorf("a folder with a file, untrusted %v: %v", untrusted, err)
		}
	}
}

// TestCopyOutOfSubvolumes has files with one number, and two names, in each of several.
func TestCopyOutOfSubvolumes(t *testing.T) {
	need(t, "btrfs")
	image, folder := made(t, Creation{Size: 200 * mib, FS: "btrfs"}), t.TempDir()
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	must(t, mount.With(file, mount.Options{Type: "btrfs"}, func(dir *os.File) error {
		top := fmt.Sprintf("/proc/%d/fd/%d/", os.Getpid(), dir.Fd())
		for _, name := range []string{"first", "second"} {
			printed(t, "btrfs", "subvolume", "create", top+name)
			must(t, errors.Join(os.WriteFile(top+name+"/file", []byte(name), 0o640), os.Link(top+name+"/file", top+name+"/again")))
		}
		printed(t, "btrfs", "subvolume", "snapshot", top+"second", top+"first/third")
		return nil
	}))
	w, err := Copy(image, folder, Copying{Untrusted: true})
	must(t, err)
	if steps := fmt.Sprint(w.Plan.Steps); !strings.Contains(steps, "NOT kept: devices, set-id bits of files, subvolumes, which become folders, extended attributes") {
		t.Errorf("the plan is %s", steps)
	}
	must(t, errors.Join(w.Do(context.Background(), nil), w.Close()))
	for name, want := range map[string]string{"first": "first", "second": "second", "first/third": "second"} {
		var one, two unix.Stat_t
		must(t, errors.Join(unix.Stat(filepath.Join(folder, name, "file"), &one), unix.Stat(filepath.Join(folder, name, "again"), &two)))
		text, err := os.ReadFile(filepath.Join(folder, name, "again"))
		if err != nil || string(text) != want || one.Ino != two.Ino || one.Nlink != 2 {
			t.Errorf("%s holds %q, %v, and its file has %d names", name, text, err, one.Nlink)
		}
	}
}

// TestCopyOfWhatIsOutOfDate has changes that wait in a log: they would be missing.
func TestCopyOfWhatIsOutOfDate(t *testing.T) {
	for name, c := range map[string]struct {
		size upkeep.Size
		hint string
	}{"xfs": {300 * mib, "upkeep image check --repair carries them out"}, "btrfs": {200 * mib, "mounting it carries them out"}} {
		image := unplugged(t, name, c.size)
		for _, untrusted := range []bool{true, false} {
			_, err := Copy(image, t.TempDir(), Copying{Untrusted: untrusted})
			var h *upkeep.HintError
			if !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "changes wait in the journal of "+image) || !errors.As(err, &h) || !strings.HasPrefix(h.Hint, c.hint) {
				t.Errorf("%s, untrusted %v: %v, %v", name, untrusted, err, h)
			}
		}
	}
}

// TestCopyOutOfVFAT has the files of an image that is not trusted, as mtools put them in.
func TestCopyOutOfVFAT(t *testing.T) {
	need(t, "vfat")
	testkit.Need(t, "mcopy")
	image, source, folder := made(t, Creation{Size: 40 * mib, FS: "vfat"}), t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(source, "a/folder in it"), 0o755))
	for name, content := range map[string]string{"a/folder in it/A long name.txt": "long", "SHORT.TXT": "short", "a/empty": "", "large": strings.Repeat("large ", 100_000)} {
		must(t, os.WriteFile(filepath.Join(source, name), []byte(content), 0o644))
	}
	printed(t, "mcopy", "-i", image, "-s", filepath.Join(source, "a"), filepath.Join(source, "SHORT.TXT"), filepath.Join(source, "large"), "::/")
	w, err := Copy(image, folder, Copying{Untrusted: true})
	must(t, err)
	if steps := fmt.Sprint(w.Plan.Steps); !strings.Contains(steps, "NOT kept: whether a file is hidden") {
		t.Errorf("the plan is %s", steps)
	}
	must(t, errors.Join(w.Do(context.Background(), nil), w.Close()))
	if result := w.Result.(Copied); result.Entries != 7 || len(result.Lost) > 0 {
		t.Errorf("copied is %+v", result)
	}
	if out, err := exec.Command("diff", "-r", source, folder).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestLooksIntoReiserFS has ls and cat of an image that kernels know no more.
func TestLooksIntoReiserFS(t *testing.T) {
	testkit.Need(t, "zstd")
	path := filepath.Join(t.TempDir(), "old.img")
	if out, err := exec.Command("zstd", "-q", "-d", "testdata/reiserfs.img.zst", "-o", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := OpenFiles(context.Background(), path, 0)
	must(t, err)
	defer f.Close()
	list, err := f.List("/")
	must(t, err)
	var names []string
	for _, l := range list {
		names = append(names, l.Mode+" "+l.Path)
	}
	if got, want := strings.Join(names, ", "), "drwxr-x--- /etc, -rw------- /holes, Lrwxrwxrwx /link, Dcrw-rw-rw- /null, -rw-r----- /second name"; got != want {
		t.Errorf("it lists %s, want %s", got, want)
	}
	var content bytes.Buffer
	must(t, f.Cat(context.Background(), "/etc/passwd", &content))
	if !strings.HasPrefix(content.String(), "root:x:0:0") {
		t.Errorf("passwd holds %q", content.String())
	}
	content.Reset()
	must(t, f.Cat(context.Background(), "holes", &content))
	if content.Len() != 9*4096 {
		t.Errorf("holes has %d bytes", content.Len())
	}
	if err := f.Cat(context.Background(), "none", &content); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
	// The same as what the copy makes of it.
	folder := t.TempDir()
	run(t)(Copy(path, folder, Copying{}))
	want, err := os.ReadFile(filepath.Join(folder, "holes"))
	must(t, err)
	if !bytes.Equal(want, content.Bytes()) {
		t.Error("holes differs from its copy")
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(folder, "null"), &st))
}

// TestListsBytes has names that are no UTF-8, which JSON cannot have as they are.
func TestListsBytes(t *testing.T) {
	need(t, "ext4")
	folder, image := t.TempDir(), filepath.Join(t.TempDir(), "x.img")
	must(t, errors.Join(os.WriteFile(filepath.Join(folder, "caf\xe9"), nil, 0o600), os.Symlink("caf\xe9", filepath.Join(folder, "café"))))
	run(t)(Copy(folder, image, Copying{FS: "ext4"}))
	f, err := OpenFiles(context.Background(), image, 0)
	must(t, err)
	defer f.Close()
	list, err := f.List("/")
	must(t, err)
	text, err := json.Marshal(list)
	must(t, err)
	var back []Listed
	must(t, json.Unmarshal(text, &back))
	if len(back) != 3 || back[0].Path != "/café" || back[0].PathBytes != nil || string(back[0].LinkBytes) != "caf\xe9" || string(back[1].PathBytes) != "/caf\xe9" || back[2].PathBytes != nil {
		t.Errorf("it lists %s", text)
	}
}

// TestLooksIntoPartitions has ls and cat of a partition, in an image and in packed ones.
func TestLooksIntoPartitions(t *testing.T) {
	testkit.NeedRoot(t)
	for name, size := range map[string]upkeep.Size{"btrfs": 160 * mib, "xfs": 340 * mib} {
		image := disk(t, Creation{Size: size, FS: name}, tables[0].script, 2)
		files := fillAt(t, image, at{part(t, image, 2), name}.mount())
		folder := t.TempDir()
		run(t)(Pack(image, filepath.Join(folder, "disk.zst"), PackOptions{}))
		run(t)(Pack(image, filepath.Join(folder, "part.zst"), PackOptions{Partition: 2}))
		for src, number := range map[string]int{image: 2, filepath.Join(folder, "disk.zst"): 2, filepath.Join(folder, "part.zst"): 0} {
			f, err := OpenFiles(context.Background(), src, number)
			must(t, err)
			list, err := f.List("/")
			must(t, err)
			var content bytes.Buffer
			must(t, errors.Join(f.Cat(context.Background(), "file13", &content), f.Close()))
			first := Listed{Path: "/file01", Mode: "-rw-r--r--", Size: 12, Changed: list[0].Changed}
			if len(list) != len(files) || !reflect.DeepEqual(list[0], first) || f.Stale || sha256.Sum256(content.Bytes()) != files["file13"] {
				t.Errorf("%s lists %d files, the first %+v; of file13 %d bytes are read", src, len(list), list[0], content.Len())
			}
		}
	}
}

// TestBtrfsOnDevices has one that is not read, and wants what reads it to be said.
func TestBtrfsOnDevices(t *testing.T) {
	testkit.Need(t, "mkfs.btrfs")
	folder := t.TempDir()
	several := []string{filepath.Join(folder, "1.img"), filepath.Join(folder, "2.img")}
	for _, path := range several {
		run(t)(Create(path, Creation{Size: 128 * mib}))
	}
	printed(t, "mkfs.btrfs", append([]string{"-q", "-f", "-m", "raid1"}, several...)...)
	_, look := OpenFiles(context.Background(), several[0], 0)
	_, copied := Copy(several[0], t.TempDir(), Copying{Untrusted: true})
	for _, err := range []error{look, copied} {
		var h *upkeep.HintError
		if !errors.Is(err, upkeep.ErrRefused) || err.Error() != "refused: btrfs on 2 devices" || !errors.As(err, &h) || !strings.Contains(h.Hint, "btrfs restore IMAGE DIR") {
			t.Errorf("on several devices: %v", err)
		}
	}
}
