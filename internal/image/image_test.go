package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/shadow"
	"upkeep/internal/testkit"
)

var kinds = []upkeep.ImageKind{upkeep.ImageSparse, upkeep.ImageFull}

func TestCreate(t *testing.T) {
	for _, kind := range kinds {
		path := made(t, Creation{Size: 1 << 30, Kind: kind})
		d := look(t, path)
		if d.Size != 1<<30 || d.Kind != kind || d.FS != nil {
			t.Errorf("made was %+v, want %s", d, kind)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("its mode is %v, %v", info.Mode(), err)
		}
		onlyFile(t, path)
		refused(t, path, upkeep.ErrConflict, func() (*Work, error) { return Create(path, Creation{Size: mib}) })
	}
	path := made(t, Creation{Size: 3 * mib, WriteZeros: true})
	if d := look(t, path); d.Kind != upkeep.ImageFull || int64(d.Allocated) < int64(d.Size) {
		t.Errorf("written with zeros it is %+v", d)
	}
	for _, size := range []upkeep.Size{0, -1, 17 << 40} {
		if _, err := Create(filepath.Join(t.TempDir(), "x"), Creation{Size: size}); err == nil || !strings.Contains(err.Error(), "at most 16T") {
			t.Errorf("a size of %d: %v", size, err)
		}
	}
	if _, err := Create("/nonexistent/x", Creation{Size: mib, Kind: upkeep.ImageFull}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a folder that does not exist: %v", err)
	}
	if err := room("/tmp/x", 1<<60); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "bytes are missing") {
		t.Errorf("more than the host has: %v", err)
	}
}

// TestGrowAndShrink grows and shrinks images with files in them.
func TestGrowAndShrink(t *testing.T) {
	for _, name := range []string{"ext2", "ext3", "ext4", "xfs", "btrfs"} {
		for _, kind := range kinds {
			t.Run(fmt.Sprint(name, " ", kind), func(t *testing.T) {
				testkit.NeedRoot(t)
				typ := need(t, name)
				testkit.NeedThat(t, "a kernel that knows "+name, known(name))
				if kind == upkeep.ImageFull && (name == "ext2" || name == "ext3") {
					return // as ext4
				}
				from := max(48*mib, typ.Min, typ.MinShrink)
				path := made(t, Creation{Size: from, Kind: kind, FS: name})
				sums := fill(t, path, name)

				run(t)(Grow(path, Growth{By: 200 * mib}))
				if d := look(t, path); d.Size != from+200*mib || d.Kind != kind {
					t.Errorf("grown it is %s of %s, want %s of %s", d.Kind, d.Size, kind, from+200*mib)
				}
				if fs := inOrder(t, path, name); fs.Size < int64(from+190*mib) {
					t.Errorf("the file system is %s large", upkeep.Size(fs.Size))
				}
				holds(t, path, name, sums)

				if typ.NoShrink != "" {
					refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Shrink(path, Shrinking{To: from}) })
					return
				}
				run(t)(Shrink(path, Shrinking{To: from + 50*mib}))
				if d := look(t, path); d.Size != from+50*mib || d.Kind != kind {
					t.Errorf("shrunk it is %s of %s, want %s of %s", d.Kind, d.Size, kind, from+50*mib)
				}
				inOrder(t, path, name)
				holds(t, path, name, sums)

				run(t)(Shrink(path, Shrinking{Min: true}))
				if d := look(t, path); d.Size >= from+50*mib || d.Kind != kind || int64(d.Size) != d.FS.Size {
					t.Errorf("as small as it can be it is %s of %s with %+v", d.Kind, d.Size, d.FS)
				}
				inOrder(t, path, name)
				holds(t, path, name, sums)
				onlyFile(t, path)
			})
		}
	}
}

func known(name string) error {
	if knownToKernel(name) {
		return nil
	}
	return errors.New("it does not")
}

// TestReiserFS is worked on without a kernel that knows it.
func TestReiserFS(t *testing.T) {
	need(t, "reiserfs")
	for _, kind := range kinds {
		path := made(t, Creation{Size: 64 * mib, Kind: kind, FS: "reiserfs"})
		run(t)(Grow(path, Growth{To: 200 * mib}))
		inOrder(t, path, "reiserfs")
		run(t)(Shrink(path, Shrinking{To: 100 * mib}))
		if fs := inOrder(t, path, "reiserfs"); fs.Size != int64(100*mib) || look(t, path).Kind != kind {
			t.Errorf("it is %+v", fs)
		}
		onlyFile(t, path)
	}
}

// TestGrowWithoutRoot grows by programs alone, as --untrusted wants it too.
func TestUntrustedIsNotMounted(t *testing.T) {
	for _, name := range []string{"ext4", "xfs", "btrfs"} {
		need(t, name)
		path := made(t, Creation{Size: 300 * mib, FS: name})
		if name == "ext4" {
			run(t)(Grow(path, Growth{By: mib, Untrusted: true}))
			continue
		}
		err := refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Grow(path, Growth{By: mib, Untrusted: true}) })
		if !strings.Contains(err.Error(), "not trusted") {
			t.Errorf("growing %s: %v", name, err)
		}
		if name == "btrfs" {
			refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Shrink(path, Shrinking{Min: true, Untrusted: true}) })
		}
	}
}

func TestGrowWhatHoldsNothing(t *testing.T) {
	for _, kind := range kinds {
		path := made(t, Creation{Size: 5 * mib, Kind: kind})
		err := refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Grow(path, Growth{By: 3 * mib}) })
		var hint *upkeep.HintError
		if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--file-only") {
			t.Errorf("growing what holds no file system: %v", err)
		}
		run(t)(Grow(path, Growth{By: 3 * mib, FileOnly: true}))
		if d := look(t, path); d.Size != 8*mib || d.Kind != kind {
			t.Errorf("it is %s of %s", d.Kind, d.Size)
		}
		refused(t, path, nil, func() (*Work, error) { return Grow(path, Growth{FileOnly: true}) })
	}
	need(t, "ext4")
	path := made(t, Creation{Size: 16 * mib, FS: "ext4"})
	run(t)(Grow(path, Growth{To: 32 * mib, FileOnly: true}))
	if d := look(t, path); d.Size != 32*mib || d.FS.Size != int64(16*mib) {
		t.Errorf("the file alone was grown to %s, its file system is %s", d.Size, upkeep.Size(d.FS.Size))
	}
	run(t)(Grow(path, Growth{})) // fills it
	if fs := inOrder(t, path, "ext4"); fs.Size != int64(32*mib) {
		t.Errorf("the file system is %s", upkeep.Size(fs.Size))
	}
}

// TestCutImageIsLeftAlone has an image that lost its end: growing would put zeros
// in the place of data.
func TestCutImageIsLeftAlone(t *testing.T) {
	for _, name := range []string{"ext4", "xfs", "reiserfs", "btrfs"} {
		need(t, name)
		path := made(t, Creation{Size: 300 * mib, FS: name})
		must(t, os.Truncate(path, 100<<20))
		for verb, try := range map[string]func() (*Work, error){
			"grow":      func() (*Work, error) { return Grow(path, Growth{To: 400 * mib}) },
			"file only": func() (*Work, error) { return Grow(path, Growth{To: 400 * mib, FileOnly: true}) },
			"check":     func() (*Work, error) { return Check(path, Checking{}) },
			"repair":    func() (*Work, error) { return Check(path, Checking{Repair: true}) },
			"trim":      func() (*Work, error) { return Trim(path, 0) },
		} {
			if err := refused(t, path, upkeep.ErrRefused, try); !strings.Contains(err.Error(), "cut off") {
				t.Errorf("%s of a cut %s: %v", verb, name, err)
			}
		}
		if d := look(t, path); d.Cut == 0 {
			t.Errorf("nobody is told that %s was cut: %+v", name, d)
		}
	}
}

func TestSizesThatCannotBe(t *testing.T) {
	need(t, "ext4")
	path := made(t, Creation{Size: 64 * mib, FS: "ext4"})
	var invalid *upkeep.InvalidError
	for want, try := range map[string]func() (*Work, error){
		"must not be less than the image's own size": func() (*Work, error) { return Grow(path, Growth{To: 10 * mib}) },
		"cannot be given beside to":                  func() (*Work, error) { return Grow(path, Growth{To: 100 * mib, By: mib}) },
		"must be more than 0":                        func() (*Work, error) { return Grow(path, Growth{By: -1}) },
		"must be at most 16T":                        func() (*Work, error) { return Grow(path, Growth{To: 17 << 40}) },
		"makes more than 16T":                        func() (*Work, error) { return Grow(path, Growth{By: 1<<63 - 1}) },
		"must not be more than the image's own size": func() (*Work, error) { return Shrink(path, Shrinking{To: 100 * mib}) },
		"cannot be given beside min":                 func() (*Work, error) { return Shrink(path, Shrinking{To: 30 * mib, Min: true}) },
		"or min given":                               func() (*Work, error) { return Shrink(path, Shrinking{}) },
		"multiple of 512":                            func() (*Work, error) { return Shrink(path, Shrinking{To: 30*mib + 1}) },
		"that are used in it":                        func() (*Work, error) { return Shrink(path, Shrinking{To: mib}) },
	} {
		if err := refused(t, path, nil, try); !errors.As(err, &invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// More than is used and less than can be: the program finds out, and nothing is changed.
	before := print(t, path)
	w, err := Shrink(path, Shrinking{To: upkeep.Size(look(t, path).FS.Used) + 64<<10})
	must(t, err)
	defer w.Close()
	if err := w.Do(context.Background(), nil); err == nil && look(t, path).Size == 64*mib {
		t.Error("the work was done and the image is what it was")
	} else if err != nil && print(t, path) != before {
		t.Errorf("it failed (%v) and the image changed", err)
	}
	onlyFile(t, path)
}

func TestMkFS(t *testing.T) {
	for _, kind := range kinds {
		need(t, "ext4")
		path := made(t, Creation{Size: 400 * mib, Kind: kind, FS: "ext4"})
		must(t, os.Chmod(path, 0o640))
		for _, name := range []string{"ext3", "xfs", "btrfs", "reiserfs", "vfat", "swap"} {
			need(t, name)
			run(t)(MkFS(path, Remaking{Type: name, Force: true}))
			if d := look(t, path); d.Kind != kind || d.Size != 400*mib || d.FS == nil || d.FS.Type != name {
				t.Errorf("%s in a %s image gives %+v", name, kind, d)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("its mode is %v, %v", info, err)
			}
			onlyFile(t, path)
		}
	}
}

// TestMkFSKeepsFiles refuses to make a file system where files are.
func TestMkFSKeepsFiles(t *testing.T) {
	testkit.NeedRoot(t)
	need(t, "ext4")
	path := made(t, Creation{Size: 64 * mib, FS: "ext4"})
	run(t)(MkFS(path, Remaking{Type: "ext2"})) // it held nothing
	run(t)(MkFS(path, Remaking{Type: "ext4"}))
	sums := fill(t, path, "ext4")
	refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return MkFS(path, Remaking{Type: "ext2"}) })
	holds(t, path, "ext4", sums)
	run(t)(MkFS(path, Remaking{Type: "ext2", Force: true}))
	inOrder(t, path, "ext2")
}

// TestWhatIsNoFileSystemIsKept has images with partitions, and with data that is not
// known: neither is overwritten, or taken for a blank image that is to be larger.
func TestWhatIsNoFileSystemIsKept(t *testing.T) {
	testkit.Need(t, "sfdisk")
	need(t, "ext2")
	sfdisk, err := testkit.Find("sfdisk")
	must(t, err)
	for _, label := range []string{"dos", "gpt"} {
		path := made(t, Creation{Size: 64 * mib})
		cmd := exec.Command(sfdisk, "-q", path)
		cmd.Stdin = strings.NewReader("label: " + label + "\n,20M\n,\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sfdisk: %v: %s", err, out)
		}
		if err := refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return MkFS(path, Remaking{Type: "ext2"}) }); !strings.Contains(err.Error(), "2 partitions") {
			t.Errorf("mkfs over %s: %v", label, err)
		}
		refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Grow(path, Growth{By: mib}) })
		run(t)(Grow(path, Growth{By: mib, FileOnly: true}))
		if d := look(t, path); d.Size != 65*mib || d.Table == nil || len(d.Table.Partitions) != 2 {
			t.Errorf("grown as a file it is %+v", d)
		}
		run(t)(MkFS(path, Remaking{Type: "ext2", Force: true}))
	}
	path := made(t, Creation{Size: 8 * mib})
	must(t, os.WriteFile(path, append([]byte("LUKS\xba\xbe"), make([]byte, 8<<20)...), 0o600))
	if err := refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return MkFS(path, Remaking{Type: "ext2"}) }); !strings.Contains(err.Error(), "not known here") {
		t.Errorf("mkfs over what is not known: %v", err)
	}
}

func TestRepair(t *testing.T) {
	need(t, "ext4")
	path := made(t, Creation{Size: 64 * mib, FS: "ext4"})
	whole := print(t, path)
	if verdict := run(t)(Check(path, Checking{Repair: true})).(filesystem.Verdict); !verdict.Clean || verdict.Mended || print(t, path) != whole {
		t.Errorf("mending what is in order: %+v", verdict)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt([]byte{9, 9}, 1024+0x10) // the count of free inodes, and so the checksum
	must(t, errors.Join(err, file.Close()))
	broken := print(t, path)
	if verdict := run(t)(Check(path, Checking{})).(filesystem.Verdict); verdict.Clean || verdict.Found == "" {
		t.Errorf("a check finds %+v", verdict)
	}
	if print(t, path) != broken {
		t.Error("a check changed the image")
	}
	if verdict := run(t)(Check(path, Checking{Repair: true})).(filesystem.Verdict); !verdict.Clean || !verdict.Mended {
		t.Errorf("mending ends with %+v", verdict)
	}
	inOrder(t, path, "ext4")
	onlyFile(t, path)
}

// TestCheckChangesNothing has programs check images that are in order and others that
// are not: no byte is written, and the time of the last change stays.
func TestCheckChangesNothing(t *testing.T) {
	for _, name := range FileSystems() {
		typ := need(t, name)
		path := made(t, Creation{Size: max(48*mib, typ.Min), FS: name})
		for _, damaged := range []bool{false, true} {
			if damaged {
				file, err := os.OpenFile(path, os.O_WRONLY, 0)
				must(t, err)
				_, err = file.WriteAt(bytes.Repeat([]byte{0xff}, 4096), 18*4096) // behind superblocks; maps, tables or folders
				must(t, errors.Join(err, file.Close()))
			}
			before := print(t, path)
			info, err := os.Stat(path)
			must(t, err)
			work, err := Check(path, Checking{})
			must(t, err)
			if err := work.Do(context.Background(), nil); err != nil && !damaged {
				t.Errorf("%s: %v", name, err)
			}
			must(t, work.Close())
			after, err := os.Stat(path)
			must(t, err)
			if print(t, path) != before || !after.ModTime().Equal(info.ModTime()) {
				t.Errorf("checking %s, damaged %v, changed it", name, damaged)
			}
			onlyFile(t, path)
		}
	}
}

func TestClone(t *testing.T) {
	for _, name := range []string{"ext4", "xfs", "btrfs", "reiserfs", "vfat", "swap"} {
		for _, kind := range kinds {
			src := made(t, Creation{Size: max(48*mib, need(t, name).Min), Kind: kind, FS: name})
			dst := filepath.Join(t.TempDir(), "copy.img")
			run(t)(Clone(src, dst, Cloning{}))
			if print(t, dst) != print(t, src) {
				t.Errorf("the copy is %s, the image %s", print(t, dst), print(t, src))
			}
			refused(t, dst, upkeep.ErrConflict, func() (*Work, error) { return Clone(src, dst, Cloning{}) })
			must(t, os.Remove(dst))
			run(t)(Clone(src, dst, Cloning{NewIDs: true}))
			if a, b := look(t, src), look(t, dst); a.FS.UUID == b.FS.UUID || b.Kind != kind {
				t.Errorf("%s: the UUID of both is %s, %s", name, a.FS.UUID, b.Kind)
			}
			if name != "swap" {
				inOrder(t, dst, name)
			}
			onlyFile(t, dst)
		}
	}
}

func TestTrim(t *testing.T) {
	testkit.NeedRoot(t)
	need(t, "ext4")
	path := made(t, Creation{Size: 200 * mib, FS: "ext4"})
	sums := fill(t, path, "ext4")
	junk(t, path, "ext4")
	before := look(t, path)
	if before.Parts == nil || before.Parts.Deleted < 30*mib {
		t.Errorf("what deleted files take is not told: %+v", before.Parts)
	}
	trimmed := run(t)(Trim(path, 0)).(Trimmed)
	if trimmed.Before-trimmed.After < 30*mib || look(t, path).Allocated != trimmed.After {
		t.Errorf("trimming took it from %s to %s", trimmed.Before.About(), trimmed.After.About())
	}
	inOrder(t, path, "ext4")
	holds(t, path, "ext4", sums)
	full := made(t, Creation{Size: 16 * mib, Kind: upkeep.ImageFull, FS: "ext4"})
	refused(t, full, upkeep.ErrRefused, func() (*Work, error) { return Trim(full, 0) })
}

// TestNamesAndPlaces has images with odd names, behind links, and with two names.
func TestNamesAndPlaces(t *testing.T) {
	need(t, "ext4")
	folder := t.TempDir()
	for _, name := range []string{"-rf", "two\nlines", "spa ce", "\xff\xfe", "ünï", "$(id)", "a;b", "%s"} {
		path := filepath.Join(folder, name)
		run(t)(Create(path, Creation{Size: 16 * mib, FS: "ext4"}))
		run(t)(Grow(path, Growth{To: 32 * mib, Untrusted: true}))
		inOrder(t, path, "ext4")
		must(t, os.Remove(path))
	}
	real, link := filepath.Join(folder, "real.img"), filepath.Join(folder, "link.img")
	run(t)(Create(real, Creation{Size: 16 * mib, FS: "ext4"}))
	must(t, os.Symlink("real.img", link))
	run(t)(Grow(link, Growth{To: 32 * mib, Untrusted: true}))
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
	if d := look(t, real); d.Size != 32*mib {
		t.Errorf("what the link leads to is %s", d.Size)
	}
	must(t, os.Link(real, filepath.Join(folder, "second.img")))
	if _, err := Shrink(real, Shrinking{To: 16 * mib}); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "2 names") {
		t.Errorf("an image with two names: %v", err)
	}
	must(t, os.Symlink("loop", filepath.Join(folder, "loop")))
	if _, err := Grow(filepath.Join(folder, "loop"), Growth{By: mib}); err == nil {
		t.Error("a link that leads to itself")
	}
}

// TestNoImages has what is no image: each is refused, and none is waited for.
func TestNoImages(t *testing.T) {
	folder := t.TempDir()
	fifo := filepath.Join(folder, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	empty := filepath.Join(folder, "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	paths := []string{folder, fifo, empty, "/dev/null", filepath.Join(folder, "none")}
	for _, path := range paths {
		for verb, try := range verbs(path) {
			if w, err := try(); err == nil {
				w.Close()
				t.Errorf("%s of %s was made ready", verb, path)
			} else if !strings.Contains(err.Error(), path) {
				t.Errorf("%s: the error does not name the file: %v", verb, err)
			}
		}
		if _, err := Info(path); err == nil {
			t.Errorf("info of %s", path)
		}
	}
}

// verbs are all that change or read an image, with arguments that would do.
func verbs(path string) map[string]func() (*Work, error) {
	return map[string]func() (*Work, error){
		"grow":    func() (*Work, error) { return Grow(path, Growth{By: 64 * mib}) },
		"shrink":  func() (*Work, error) { return Shrink(path, Shrinking{Min: true}) },
		"mkfs":    func() (*Work, error) { return MkFS(path, Remaking{Type: "ext2", Force: true}) },
		"check":   func() (*Work, error) { return Check(path, Checking{}) },
		"repair":  func() (*Work, error) { return Check(path, Checking{Repair: true}) },
		"trim":    func() (*Work, error) { return Trim(path, 0) },
		"clone":   func() (*Work, error) { return Clone(path, path+".copy", Cloning{}) },
		"recover": func() (*Work, error) { return Recover(path) },
	}
}

func TestHoldersAreNamed(t *testing.T) {
	need(t, "ext4")
	path := made(t, Creation{Size: 64 * mib, FS: "ext4"})
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	lock, err := hold.Take(file, hold.Options{Write: true})
	must(t, err)
	defer lock.Release()
	before := print(t, path)
	for verb, try := range verbs(path) {
		w, err := try()
		if err == nil {
			w.Close()
			t.Errorf("%s was made ready on an image that another holds", verb)
			continue
		}
		var busy *hold.BusyError
		if !errors.As(err, &busy) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if after := print(t, path); after != before {
		t.Errorf("the image is %s, was %s", after, before)
	}
}

func TestStopLeavesAllAsItWas(t *testing.T) {
	need(t, "ext4")
	path := made(t, Creation{Size: 64 * mib, FS: "ext4"})
	before := print(t, path)
	for _, verb := range []string{"grow", "shrink", "mkfs", "repair"} {
		ctx, cancel := context.WithCancel(context.Background())
		w, err := verbs(path)[verb]()
		must(t, err)
		steps := 0
		err = w.Do(ctx, func(e upkeep.ImageEvent) {
			if e.Event == upkeep.ImageStep {
				if steps++; steps == 2 {
					cancel()
				}
			}
		})
		cancel()
		must(t, w.Close())
		if verb != "repair" && !errors.Is(err, context.Canceled) { // there is nothing to mend
			t.Errorf("%s was stopped and ends with %v", verb, err)
		}
		if after := print(t, path); after != before {
			t.Errorf("%s was stopped, and the image is %s, was %s", verb, after, before)
		}
		onlyFile(t, path)
	}
}

func TestPlans(t *testing.T) {
	need(t, "ext4")
	path := made(t, Creation{Size: 200 * mib, Kind: upkeep.ImageFull, FS: "ext4"})
	before := print(t, path)
	for verb, try := range verbs(path) {
		if verb == "trim" {
			continue // refused for a full image
		}
		w, err := try()
		must(t, err)
		w.Estimate()
		p := w.Plan
		must(t, w.Close())
		if p.Verb == "" || len(p.Steps) == 0 || p.Undo == "" || slices.ContainsFunc(p.Steps, func(s PlanStep) bool { return s.What == "" }) {
			t.Errorf("the plan of %s is %+v", verb, p)
		}
		if reflinks, err := shadow.CanReflink(path, open(t, path)); err == nil && !reflinks && verb == "shrink" && (p.Writes < 200*mib || p.Temporary < 200*mib || p.Writes > 201*mib || p.Expected == 0) {
			t.Errorf("copying 200M is planned as %+v", p)
		}
	}
	if print(t, path) != before {
		t.Error("a plan changed the image")
	}
	onlyFile(t, path)
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { file.Close() })
	return file
}

func TestEventsTellOfTheWork(t *testing.T) {
	need(t, "ext4")
	path := made(t, Creation{Size: 64 * mib, FS: "ext4"})
	w, err := Shrink(path, Shrinking{Min: true})
	must(t, err)
	defer w.Close()
	var events []upkeep.ImageEvent
	must(t, w.Do(context.Background(), func(e upkeep.ImageEvent) { events = append(events, e) }))
	if len(events) < 4 || events[0].Event != upkeep.ImageStep || events[len(events)-1].Event != upkeep.ImageDone {
		t.Errorf("told was %+v", events)
	}
	for _, e := range events {
		if e.Verb != "shrink" || e.File != path || e.At.IsZero() || e.Event == upkeep.ImageProgress && (e.Done < 0 || e.Done > e.Total) {
			t.Errorf("an event is %+v", e)
		}
	}
}

// junk fills an image with a file and removes it: its blocks stay on the host.
func junk(t *testing.T, path, name string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	text := bytes.Repeat([]byte("junk"), 10<<20)
	must(t, mount.With(file, mount.Options{Type: name}, func(dir *os.File) error {
		fd, err := unix.Openat(int(dir.Fd()), "junk", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "junk")
		_, err = f.Write(text)
		return errors.Join(err, f.Sync(), f.Close(), unix.Unlinkat(int(dir.Fd()), "junk", 0))
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a program that only looks gives up at is mended by the same one that mends.
func TestRepairGoesOnWhereALookEnds(t *testing.T) {
	testkit.Need(t, "debugfs", "e2fsck")
	path := made(t, Creation{Size: 32 * mib, FS: "ext4"})
	printed(t, "debugfs", "-w", "-R", "set_inode_field <8> mode 0", path)
	verdict := run(t)(Check(path, Checking{})).(filesystem.Verdict)
	if verdict.Clean || !strings.Contains(verdict.Found, "invalid journal") || !strings.Contains(verdict.Hint, "--repair") {
		t.Errorf("a journal that is none is found to be %+v", verdict)
	}
	verdict = run(t)(Check(path, Checking{Repair: true})).(filesystem.Verdict)
	if !verdict.Clean || !verdict.Mended {
		t.Errorf("it was mended to %+v", verdict)
	}
	inOrder(t, path, "ext4")
	onlyFile(t, path)
}

// What a check repairs before an image is changed is told.
func TestRepairsBeforeAreTold(t *testing.T) {
	path := made(t, Creation{Size: 64 * mib, FS: "ext4"})
	for _, change := range []func() (*Work, error){
		func() (*Work, error) { return Grow(path, Growth{By: 8 * mib}) },
		func() (*Work, error) { return Shrink(path, Shrinking{To: 48 * mib}) },
	} {
		printed(t, "debugfs", "-w", "-R", "set_inode_field <11> blocks 9", path)
		var told []string
		w, err := change()
		must(t, err)
		must(t, errors.Join(w.Do(context.Background(), func(e upkeep.ImageEvent) { told = append(told, e.Text) }), w.Close()))
		if text := strings.Join(told, "\n"); !strings.Contains(text, "repaired before, as a boot would: ") || !strings.Contains(text, "Inode 11, i_blocks is 9, should be ") {
			t.Errorf("%s tells %q", w.Plan.Verb, text)
		}
		inOrder(t, path, "ext4")
	}
}

// unplugged is an image as a disk is when the power fails: it has a file, which was
// flushed, in its log alone.
func unplugged(t *testing.T, name string, size upkeep.Size) string {
	t.Helper()
	testkit.NeedRoot(t)
	path := made(t, Creation{Size: size, FS: name})
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	cut := path + ".cut"
	must(t, mount.With(file, mount.Options{Type: name}, func(dir *os.File) error {
		fd, err := unix.Openat(int(dir.Fd()), "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return errors.Join(unix.Fsync(fd), exec.Command("cp", "--sparse=always", path, cut).Run())
	}))
	return cut
}

// What waits in the log of an xfs is said, and that a repair carried it out.
func TestCheckOfAnXFSWhoseLogWaits(t *testing.T) {
	cut := unplugged(t, "xfs", 300*mib)
	verdict := run(t)(Check(cut, Checking{})).(filesystem.Verdict)
	if verdict.Clean || !strings.HasPrefix(verdict.Brief(), "changes wait in its log, which mounting it carries out, and --repair too") || strings.Contains(verdict.Found, "ALERT") {
		t.Errorf("it is found to be %+v", verdict)
	}
	verdict = run(t)(Check(cut, Checking{Repair: true})).(filesystem.Verdict)
	if !verdict.Clean || !verdict.Mended || !strings.HasPrefix(verdict.Brief(), "changes waited in its log, and were carried out") {
		t.Errorf("it was repaired to %+v", verdict)
	}
	inOrder(t, cut, "xfs")
}
