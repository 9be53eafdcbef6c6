package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/link"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

const imagesPolicy = `
kinds: [image.list, image.create, image.grow, image.shrink, image.mkfs, image.check, image.copy, image.clone, image.pack, image.unpack]
images: {roots: {vms: DIR/images, other: DIR/other}, max_size: 1G}
uids: {min: 20000, max: 20999}
delete_budget: 1
`

const trustingPolicy = `
kinds: [image.list, image.create, image.grow, image.shrink, image.mkfs, image.check, image.copy, image.clone, image.pack, image.unpack]
images: {roots: {vms: DIR/images, other: DIR/other}, max_size: 1G, trust: true}
delete_budget: 1
`

const mib = upkeep.Size(1 << 20)

// newImageLab is a server with folders for images.
func newImageLab(t testing.TB, policy string) *lab {
	t.Helper()
	testkit.Need(t, "mke2fs", "e2fsck", "resize2fs")
	l := newLab(t, policy)
	for _, dir := range []string{"images", "images/web", "other"} {
		l.must(os.Mkdir(l.path(dir), 0o755))
	}
	return l
}

func vms(path string) task.ImageAt { return task.ImageAt{Root: "vms", Path: path} }

func part(path string) task.ImagePart { return task.ImagePart{ImageAt: vms(path)} }

func made(path string, size upkeep.Size, fs string) task.ImageCreate {
	return task.ImageCreate{ImageAt: vms(path), Size: size, FileSystem: task.FileSystem{Type: fs}}
}

func from(target, source string) task.ImageFrom {
	return task.ImageFrom{ImageAt: vms(target), Source: vms(source)}
}

// described is an image as package image sees it.
func (l *lab) described(path string) image.Description {
	l.t.Helper()
	d, err := image.Info(l.path("images/" + path))
	l.must(err)
	return d
}

// whole wants an image of a size, in order and left by all.
func (l *lab) whole(path string, sizes ...upkeep.Size) {
	l.t.Helper()
	d := l.described(path)
	if !slices.Contains(sizes, d.Size) || d.Unfinished != "" || len(d.Holders) > 0 || d.FS == nil || d.FS.Size != int64(d.Size) {
		l.t.Errorf("the image is %+v, want a whole one of %v", d, sizes)
	}
	l.inOrder(path)
}

func (l *lab) inOrder(path string) {
	l.t.Helper()
	work, err := image.Check(l.path("images/"+path), image.Checking{Untrusted: true})
	l.must(err)
	defer work.Close()
	l.must(work.Do(context.Background(), nil))
	if verdict := work.Result.(image.Verdict); !verdict.Clean {
		l.t.Errorf("%s is not in order: %s", path, verdict.Found)
	}
}

// settledRecord wants nothing to be left: no work that was begun, and no file beside
// those that are named.
func (l *lab) settledRecord(names ...string) {
	l.t.Helper()
	if left := l.root.images.begun.all(); len(left) > 0 {
		l.t.Errorf("work that was begun is left: %+v", left)
	}
	entries, err := os.ReadDir(l.path("images"))
	l.must(err)
	for _, entry := range entries {
		if !entry.IsDir() && !slices.Contains(names, entry.Name()) {
			l.t.Errorf("%s is left beside the images", entry.Name())
		}
	}
}

func imageResult(t testing.TB, outcome link.Outcome) (result task.ImageResult) {
	t.Helper()
	if err := json.Unmarshal(outcome.Result, &result); err != nil || result.Image == nil {
		t.Fatalf("the result is %s: %v", outcome.Result, err)
	}
	return result
}

// TestImages does every kind of job on images, on a server that trusts none: what is
// there is there, in order, and told.
func TestImages(t *testing.T) {
	l := newImageLab(t, imagesPolicy)
	create := made("web/a.img", 16*mib, "ext4")
	create.Label = "root"
	if got := imageResult(t, l.wantDone(create, 1)).Image; got.Size != int64(16*mib) || got.Type != "ext4" || got.Label != "root" || got.Path != "web/a.img" {
		t.Errorf("told is %+v", got)
	}
	l.wantFailed(create, 2, "exists; nothing was changed")

	var mu sync.Mutex
	var steps []string
	signed := l.sign(upkeep.JobImageGrow, vms("web/a.img").Object(), 3, task.ImageGrow{ImagePart: part("web/a.img"), To: 24 * mib})
	outcome := l.root.Do(t.Context(), signed, func(p link.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Percent < 0 || p.Percent > 100 || p.ID == 0 {
			t.Errorf("told is %+v", p)
		}
		if len(steps) == 0 || steps[len(steps)-1] != p.Step {
			steps = append(steps, p.Step)
		}
	})
	if outcome.State != upkeep.JobDone || !slices.Contains(steps, "growing ext4") || !slices.Contains(steps, "checking") {
		t.Errorf("growing: %+v, by the steps %q", outcome, steps)
	}
	l.whole("web/a.img", 24*mib)
	l.wantDone(task.ImageShrink{ImagePart: part("web/a.img"), To: 12 * mib}, 4)
	l.whole("web/a.img", 12*mib)
	l.wantDone(task.ImageCheck{ImagePart: part("web/a.img"), Repair: true}, 5)

	before := l.described("web/a.img").FS.UUID
	l.wantDone(task.ImageClone{ImageFrom: from("b.img", "web/a.img"), NewIDs: true}, 6)
	if after := l.described("b.img").FS.UUID; after == before || after == "" {
		t.Errorf("the copy has the UUID %s, and the image %s", after, before)
	}
	packed := imageResult(t, l.wantDone(task.ImagePack{ImageFrom: from("b.zst", "b.img")}, 7)).Image
	if packed.Format != image.FormatPacked || packed.Holds != int64(12*mib) || packed.Type != "ext4" {
		t.Errorf("packed it is %+v", packed)
	}
	l.wantDone(task.ImageUnpack{ImageFrom: from("c.img", "b.zst"), As: upkeep.ImageFull}, 8)
	if d := l.described("c.img"); d.Kind != upkeep.ImageFull || d.FS == nil || d.FS.UUID != l.described("b.img").FS.UUID {
		t.Errorf("unpacked it is %+v", d)
	}
	l.wantDone(task.ImageMkFS{ImagePart: part("c.img"), FileSystem: task.FileSystem{Type: "ext2", Profile: "small"}, Force: true}, 9)
	l.whole("c.img", 12*mib)
	l.wantFailed(task.ImageMkFS{ImagePart: part("b.img"), FileSystem: task.FileSystem{Type: "ext2"}, Force: true}, 10, "allows 1 removals an hour")
	l.settledRecord("b.img", "b.zst", "c.img")

	var list upkeep.ImageList
	l.must(json.Unmarshal(l.wantDone(task.ImageList{}, 11).Result, &list))
	var names []string
	for _, i := range list.Images {
		names = append(names, i.Root+"/"+i.Path)
	}
	if want := []string{"vms/b.img", "vms/b.zst", "vms/c.img", "vms/web/a.img"}; !slices.Equal(names, want) || list.Server != "web1" || len(list.Problems) > 0 {
		t.Errorf("listed is %+v", list)
	}
}

// TestImageChecks has an image that is damaged: a check fails and says so.
func TestImageChecks(t *testing.T) {
	l := newImageLab(t, imagesPolicy)
	l.wantDone(made("a.img", 16*mib, "ext4"), 1)
	l.wantDone(task.ImageCheck{ImagePart: part("a.img")}, 2)
	file, err := os.OpenFile(l.path("images/a.img"), os.O_WRONLY, 0)
	l.must(err)
	_, err = file.WriteAt(make([]byte, 8192), 12<<10) // maps and inodes
	l.must(errors.Join(err, file.Close()))
	l.wantFailed(task.ImageCheck{ImagePart: part("a.img")}, 3, "is not in order")
}

// TestImagesRefused asks for what the policy does not have, and for files that are
// none: each is refused with the reason, and nothing changes.
func TestImagesRefused(t *testing.T) {
	l := newImageLab(t, imagesPolicy)
	small := mib / 4
	l.wantDone(made("a.img", small, ""), 1)
	l.must(os.WriteFile(l.path("outside/x.img"), make([]byte, 4096), 0o600))
	l.must(os.WriteFile(l.path("other/o.img"), []byte("another root's"), 0o600))
	l.must(os.WriteFile(l.path("images/big.img"), []byte("x"), 0o600))
	l.must(os.Truncate(l.path("images/big.img"), 2<<30))
	l.must(os.WriteFile(l.path("images/x.gz"), []byte("\x1f\x8b\x08 packed by others"), 0o600))
	l.must(os.WriteFile(l.path("images/x.qcow2"), []byte("QFI\xfb\x00\x00\x00\x03"), 0o600))
	l.must(os.Symlink(l.path("outside/x.img"), l.path("images/link.img")))
	l.must(os.Symlink(l.path("outside"), l.path("images/dir")))
	l.must(os.Symlink("a.img", l.path("images/within.img")))
	l.must(os.Symlink(l.path("outside/new.img"), l.path("images/dangling.img")))
	l.must(unix.Mkfifo(l.path("images/fifo.img"), 0o600))
	device := "a block device"
	if err := unix.Mknod(l.path("images/device.img"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 250))); errors.Is(err, unix.EPERM) {
		device = "a FIFO" // an agent without that capability
		l.must(unix.Mkfifo(l.path("images/device.img"), 0o600))
	} else {
		l.must(err)
	}
	l.must(os.Mkdir(l.path("images/tenant"), 0o755))
	l.must(os.WriteFile(l.path("images/tenant/t.img"), []byte("a tenant's"), 0o600))
	l.must(os.Chown(l.path("images/tenant"), 20500, 20500))
	l.must(os.Mkdir(l.path("images/open"), 0o755))
	l.must(os.Chmod(l.path("images/open"), 0o777))
	l.must(os.Remove(l.path("images/big.img"))) // too large for the look below
	before := l.snapshot()
	grow := func(path string) task.ImageGrow { return task.ImageGrow{ImagePart: part(path), To: mib} }
	for _, one := range []struct {
		payload task.Payload
		words   string
	}{
		{grow("../outside/x.img"), "must be a relative path"},
		{grow("/etc/passwd"), "must be a relative path"},
		{grow("a.img\n"), "must be a relative path"},
		{grow("link.img"), "is a symbolic link"},
		{grow("within.img"), "is a symbolic link"},
		{grow("dir/x.img"), "is a symbolic link"},
		{grow("fifo.img"), "is no regular file"},
		{grow("device.img"), "is no regular file"},
		{grow("web"), "is no regular file"},
		{grow("none.img"), "no such file"},
		{grow("none/a.img"), "is not there"},
		{grow("tenant/t.img"), "belongs to user 20500"},
		{grow("open/a.img"), "may be written to by others"},
		{task.ImageGrow{ImagePart: task.ImagePart{ImageAt: task.ImageAt{Root: "etc", Path: "passwd"}}, To: mib}, `no root of images named "etc"`},
		{task.ImageGrow{ImagePart: task.ImagePart{ImageAt: task.ImageAt{Root: "outside", Path: "x.img"}}, To: mib}, `no root of images named "outside"`},
		{task.ImageGrow{ImagePart: part("a.img"), To: 2 << 30}, "larger than the 1G that the policy of this server allows"},
		{made("dangling.img", small, ""), "is a symbolic link"},
		{made("link.img", small, ""), "is a symbolic link"},
		{made("new.img", 2<<30, ""), "larger than the 1G"},
		{made("dir/new.img", small, ""), "is a symbolic link"},
		{made("tenant/new.img", small, ""), "belongs to user 20500"},
		{task.ImageMkFS{ImagePart: part("link.img"), FileSystem: task.FileSystem{Type: "ext2"}, Force: true}, "is a symbolic link"},
		{task.ImageCheck{ImagePart: part("link.img")}, "is a symbolic link"},
		{task.ImageClone{ImageFrom: from("new.img", "link.img")}, "is a symbolic link"},
		{task.ImageClone{ImageFrom: from("new.img", "fifo.img")}, "a FIFO"},
		{task.ImageClone{ImageFrom: from("new.img", "device.img")}, device},
		{task.ImageClone{ImageFrom: from("new.img", "web")}, "a directory"},
		{task.ImageClone{ImageFrom: from("new.img", "tenant/t.img")}, "belongs to user 20500"},
		{task.ImageClone{ImageFrom: task.ImageFrom{ImageAt: vms("new.img"), Source: task.ImageAt{Root: "vms", Path: "../other/o.img"}}}, "must be a relative path"},
		{task.ImagePack{ImageFrom: from("new.zst", "link.img")}, "is a symbolic link"},
		{task.ImagePack{ImageFrom: from("new.zst", "x.gz")}, "jobs pack raw images only"},
		{task.ImagePack{ImageFrom: from("dangling.img", "a.img")}, "is a symbolic link"},
		{task.ImageUnpack{ImageFrom: from("new.img", "x.gz")}, "unpacking"}, // it is none, but for its start
		{task.ImageUnpack{ImageFrom: task.ImageFrom{ImageAt: vms("new.img"), Source: vms("x.gz"), Partition: 1}}, "a partition can only be taken out of what upkeep packed"},
		{task.ImageUnpack{ImageFrom: from("new.img", "x.qcow2")}, "it is a qcow2 file, which jobs do not unpack"},
		{task.ImageUnpack{ImageFrom: from("new.img", "a.img")}, "it is not packed"},
		{task.ImageCopy{ImageFrom: from("new.img", "a.img")}, "its policy trusts none"},
	} {
		l.wantFailed(one.payload, 9, one.words)
		if outcome := l.do(one.payload, 9); strings.Contains(outcome.Error, "/proc/self") {
			t.Errorf("the error speaks of what nobody knows: %s", outcome.Error)
		}
	}
	if after := l.snapshot(); after != before {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
	l.settledRecord("a.img", "x.gz", "x.qcow2", "link.img", "dir", "within.img", "dangling.img", "fifo.img", "device.img")

	// What a policy does not mention is not done.
	l.reload("kinds: [image.list]\nimages: {roots: {vms: DIR/images}, max_size: 1G}\n")
	l.wantFailed(grow("a.img"), 10, "does not allow image.grow jobs")
	l.reload("kinds: [server.facts]\n")
	l.wantFailed(task.ImageList{}, 11, "does not allow image.list jobs")
}

// TestImageSourcesAreBounded has sources that would become larger than the policy
// lets images be.
func TestImageSourcesAreBounded(t *testing.T) {
	l := newImageLab(t, imagesPolicy)
	for _, name := range []string{"big.img", "some.img"} {
		l.must(os.WriteFile(l.path("images/"+name), []byte("x"), 0o600))
	}
	l.must(os.Truncate(l.path("images/big.img"), 2<<30))
	l.wantFailed(task.ImageClone{ImageFrom: from("new.img", "big.img")}, 1, "larger than the 1G")
	l.wantDone(task.ImagePack{ImageFrom: from("big.zst", "big.img")}, 2)
	l.wantFailed(task.ImageUnpack{ImageFrom: from("new.img", "big.zst")}, 3, "larger than the 1G")
	l.settledRecord("big.img", "some.img", "big.zst")
}

// TestImageUnpacksWhatOthersPacked unpacks files of other programs, which do not say
// before how large they become: up to what the policy lets images be.
func TestImageUnpacksWhatOthersPacked(t *testing.T) {
	testkit.Need(t, "gzip", "xz", "zstd")
	l := newImageLab(t, strings.Replace(imagesPolicy, "max_size: 1G", "max_size: 16M", 1))
	l.wantDone(made("a.img", 16*mib, "ext4"), 1)
	want, err := os.ReadFile(l.path("images/a.img"))
	l.must(err)
	l.must(os.WriteFile(l.path("images/large.img"), append(want, 0), 0o600))
	names := []string{"a.img", "large.img"}
	for _, program := range []string{"gzip", "xz", "zstd"} {
		for _, name := range []string{"a.img", "large.img"} {
			packed, err := exec.Command(program, "-c", l.path("images/"+name)).Output()
			l.must(err)
			l.must(os.WriteFile(l.path("images/"+name+"."+program), packed, 0o600))
			names = append(names, name+"."+program)
		}
		made := program + ".img"
		l.wantDone(task.ImageUnpack{ImageFrom: from(made, "a.img."+program)}, 2)
		if got, err := os.ReadFile(l.path("images/" + made)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("what %s packed is another when it is unpacked: %v", program, err)
		}
		names = append(names, made)
		l.wantFailed(task.ImageUnpack{ImageFrom: from("large-"+made, "large.img."+program)}, 2, "it unpacks to more than 16M; max_size of images in the policy")
	}
	l.settledRecord(names...)
}

// TestImageInUse has somebody else who has the image.
func TestImageInUse(t *testing.T) {
	l := newImageLab(t, imagesPolicy)
	l.wantDone(made("a.img", 16*mib, "ext4"), 1)
	t.Run("while it is open", func(t *testing.T) {
		pid := testkit.Stranger(t, exec.Command("sh", "-c", `exec 9<>"$0"; echo held; exec cat >/dev/null`, l.path("images/a.img")))
		l.wantFailed(task.ImageGrow{ImagePart: part("a.img"), To: 24 * mib}, 2, fmt.Sprintf("is in use: open for writing by pid %d", pid))
		var list upkeep.ImageList
		l.must(json.Unmarshal(l.wantDone(task.ImageList{}, 3).Result, &list))
		if want := []string{fmt.Sprintf("open for writing by pid %d cat", pid)}; len(list.Images) != 1 || !slices.Equal(list.Images[0].Holders, want) {
			t.Errorf("listed is %+v", list)
		}
	})
	l.wantDone(task.ImageGrow{ImagePart: part("a.img"), To: 24 * mib}, 4)
	l.settledRecord("a.img")
}

// canMount skips where images cannot be mounted.
func canMount(t testing.TB) {
	t.Helper()
	testkit.NeedRoot(t)
	_, err := os.Stat("/dev/loop-control")
	testkit.NeedThat(t, "loop devices", err)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err = unix.Capget(&header, &data[0])
	if err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		err = errors.New("CAP_SYS_ADMIN is not there")
	}
	testkit.NeedThat(t, "mounting", err)
}

// TestImagesTrusted mounts images where the policy trusts them, and not where it does
// not.
func TestImagesTrusted(t *testing.T) {
	canMount(t)
	l := newImageLab(t, imagesPolicy)
	testkit.Need(t, "mkfs.xfs")
	l.wantDone(made("x.img", 300*mib, "xfs"), 1)
	l.wantFailed(task.ImageGrow{ImagePart: part("x.img"), To: 400 * mib}, 2, "an image that is not trusted is never mounted")
	l.reload(trustingPolicy)
	l.wantDone(task.ImageGrow{ImagePart: part("x.img"), To: 400 * mib}, 3)
	if d := l.described("x.img"); d.Size != 400*mib || d.FS.Size != int64(400*mib) {
		t.Errorf("grown it is %+v", d)
	}
	copying := task.ImageCopy{ImageFrom: from("y.img", "x.img"), Verify: true, FileSystem: task.FileSystem{Type: "ext4"}, Size: 16 * mib}
	result := imageResult(t, l.wantDone(copying, 4))
	if did := fmt.Sprint(result.Did); !strings.Contains(did, "verified:true") || result.Image.Type != "ext4" {
		t.Errorf("copied is %+v", result)
	}
	l.whole("y.img", 16*mib)
	l.settledRecord("x.img", "y.img")
}

// TestImageJobsWait holds that no more work on images goes on at a time than the disk
// is good for, and that what waits can be cancelled.
func TestImageJobsWait(t *testing.T) {
	l := newImageLab(t, imagesPolicy)
	for range atImages {
		l.root.images.busy <- struct{}{}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	create := made("a.img", mib, "")
	outcome := l.root.Do(ctx, l.sign(create.Kind(), create.Object(), 1, create), func(p link.Progress) {
		if p.Step != "waiting for other work on images" {
			t.Errorf("told is %+v", p)
		}
		cancel(errCancelled)
	})
	if outcome.State != upkeep.JobCancelled {
		t.Errorf("got %+v", outcome)
	}
	for range atImages {
		<-l.root.images.busy
	}
	l.wantDone(create, 2)
}

// TestImageJobsTwice sends jobs again that were done: nothing is done again, and what
// was told is told again. Older ones do nothing.
func TestImageJobsTwice(t *testing.T) {
	l := newImageLab(t, imagesPolicy)
	create := made("a.img", mib, "ext2")
	first := l.sign(create.Kind(), create.Object(), 1, create)
	want := l.root.Do(t.Context(), first, nil)
	remake := task.ImageMkFS{ImagePart: part("a.img"), FileSystem: task.FileSystem{Type: "ext2", Label: "x"}, Force: true}
	second := l.sign(remake.Kind(), remake.Object(), 2, remake)
	for turn := range 3 {
		if turn == 2 {
			l.start() // what is remembered is on the disk
		}
		before := l.described("a.img").FS
		outcome := l.root.Do(t.Context(), second, nil)
		if outcome.State != upkeep.JobDone || imageResult(t, outcome).Image.Label != "x" {
			t.Errorf("turn %d: %+v", turn, outcome)
		}
		if after := l.described("a.img").FS; turn > 0 && after.UUID != before.UUID {
			t.Errorf("turn %d: it was made again", turn)
		}
	}
	before := l.described("a.img").FS
	if outcome := l.root.Do(t.Context(), first, nil); want.State != upkeep.JobDone || outcome.State == upkeep.JobFailed || l.described("a.img").FS.UUID != before.UUID {
		t.Errorf("a job from before: %+v, and was %+v", outcome, want)
	}
}

// TestImageRacer swaps the folder of images for links to others while images are made
// in it: they are made in the folder, or not at all.
func TestImageRacer(t *testing.T) {
	l := newImageLab(t, imagesPolicy)
	l.must(os.Mkdir(l.path("elsewhere"), 0o755))
	for _, dir := range []string{"images/swap", "images/real"} {
		l.must(os.Mkdir(l.path(dir), 0o755))
	}
	l.must(os.Remove(l.path("images/swap")))
	l.must(os.Symlink(l.path("elsewhere"), l.path("images/swap")))
	ctx, stop := context.WithCancel(t.Context())
	var racer sync.WaitGroup
	racer.Go(func() {
		for ctx.Err() == nil {
			_ = unix.Renameat2(unix.AT_FDCWD, l.path("images/swap"), unix.AT_FDCWD, l.path("images/real"), unix.RENAME_EXCHANGE)
		}
	})
	done, refused := 0, 0
	for i := int64(1); i <= 2000 && (done < 10 || refused < 10); i++ {
		outcome := l.do(made(fmt.Sprintf("swap/n%d.img", i), 4096, ""), i)
		switch {
		case outcome.State == upkeep.JobDone:
			done++
		case strings.Contains(outcome.Error, "is a symbolic link"), strings.Contains(outcome.Error, "is not a folder"): // as it was called while it was a folder again
			refused++
		default:
			t.Errorf("got %+v", outcome)
		}
	}
	stop()
	racer.Wait()
	if entries, err := os.ReadDir(l.path("elsewhere")); err != nil || len(entries) > 0 {
		t.Errorf("elsewhere there are %v: %v", entries, err)
	}
	if done == 0 || refused == 0 {
		t.Errorf("%d were made and %d refused: the race was not run", done, refused)
	}
}

// TestImageRootsMayComeLater has a root of images that is not there when the agent is
// started, and one that others may write to.
func TestImageRootsMayComeLater(t *testing.T) {
	l := newLab(t, imagesPolicy)
	l.wantFailed(made("a.img", mib, ""), 1, "root vms of images")
	l.must(os.Mkdir(l.path("images"), 0o755))
	l.wantDone(made("a.img", mib, ""), 2)
	l.must(os.Mkdir(l.path("other"), 0o755))
	l.must(os.Chmod(l.path("other"), 0o777))
	var list upkeep.ImageList
	l.must(json.Unmarshal(l.wantDone(task.ImageList{}, 3).Result, &list))
	if len(list.Images) != 1 || len(list.Problems) != 1 || !strings.Contains(list.Problems[0], "may be written to by others") {
		t.Errorf("listed is %+v", list)
	}
}

// TestImageTypesAreThoseOfTheLibrary holds the two lists together.
func TestImageTypesAreThoseOfTheLibrary(t *testing.T) {
	if got, want := task.FileSystems, image.FileSystems(); !slices.Equal(got, want) {
		t.Errorf("jobs know %q, and the library %q", got, want)
	}
}
