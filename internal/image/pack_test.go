package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/pack"
	"upkeep/internal/testkit"
)

// A dirty image is packed as small as a clean one, is not touched by it, and comes
// back in order, with all files and of its kind.
func TestPackLeavesFreeBlocksOut(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "zstd")
	for _, fs := range []string{"ext3", "ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			kind, size := upkeep.ImageSparse, upkeep.Size(128*mib)
			switch fs {
			case "ext3":
				kind = upkeep.ImageFull
			case "xfs":
				size = 300 * mib
			}
			path := made(t, Creation{Size: size, Kind: kind, FS: fs})
			sums := fill(t, path, fs)
			scratch := t.TempDir()
			clean := run(t)(Pack(path, filepath.Join(scratch, "clean.zst"), PackOptions{})).(Packing)
			noise(t, path, fs)
			before := print(t, path)
			out := filepath.Join(scratch, "dirty.zst")
			dirty := run(t)(Pack(path, out, PackOptions{})).(Packing)
			if after := print(t, path); after != before {
				t.Errorf("packing made %s of %s", after, before)
			}
			onlyFile(t, path)
			if dirty.Dropped < 30*mib || dirty.Packed > clean.Packed*11/10+256<<10 /* what the journal keeps of it */ {
				t.Errorf("clean it is packed into %s, dirty into %s (%+v)", clean.Packed.About(), dirty.Packed.About(), dirty)
			}
			all := run(t)(Pack(path, filepath.Join(scratch, "all.zst"), PackOptions{All: true})).(Packing)
			if all.Dropped != 0 || all.Packed < 30*mib {
				t.Errorf("with all, %+v", all)
			}
			restored := filepath.Join(t.TempDir(), "restored.img")
			got := run(t)(Unpack(context.Background(), out, restored, Unpacking{})).(Unpacked)
			if got.Kind != kind || got.Size != size {
				t.Errorf("unpacked: %+v", got)
			}
			onlyFile(t, restored)
			inOrder(t, restored, fs)
			holds(t, restored, fs, sums)
			byZstd := filepath.Join(t.TempDir(), "byzstd.img")
			if out, err := exec.Command("zstd", "-q", "-d", out, "-o", byZstd).CombinedOutput(); err != nil {
				t.Fatalf("zstd: %v\n%s", err, out)
			}
			if exec.Command("cmp", "-s", byZstd, restored).Run() != nil {
				t.Error("zstd -d restores something else")
			}
			whole := filepath.Join(t.TempDir(), "whole.img")
			run(t)(Unpack(context.Background(), filepath.Join(scratch, "all.zst"), whole, Unpacking{}))
			if exec.Command("cmp", "-s", whole, path).Run() != nil {
				t.Error("packed with all, something else comes back")
			}
		})
	}
}

// noise fills an image with a file that cannot be packed, and removes it.
func noise(t *testing.T, path, fs string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	b := make([]byte, 40*mib)
	rand.NewChaCha8([32]byte{7}).Read(b)
	must(t, mount.With(file, mount.Options{Type: fs}, func(dir *os.File) error {
		fd, err := unix.Openat(int(dir.Fd()), "noise", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "noise")
		_, err = f.Write(b)
		return errors.Join(err, f.Sync(), f.Close(), unix.Unlinkat(int(dir.Fd()), "noise", 0))
	}))
}

// Where it cannot be told what is used, everything is packed, and why is said.
func TestPackTakesAllWhereItCannotTell(t *testing.T) {
	need(t, "ext3") // whose superblock has no checksum
	for _, c := range []struct {
		name, why string
		spoil     func(*testing.T, *os.File)
	}{
		{"needs recovery", "changes wait in the journal of its ext3, and which blocks are free is known after them; mounting it carries them out, and so does upkeep image check --repair", func(t *testing.T, f *os.File) { orByte(t, f, 1024+96, 4) }},
		{"has errors", `ext3 is in state "errors": the file system is not clean; check it first`, func(t *testing.T, f *os.File) { orByte(t, f, 1024+58, 2) }},
		{"cut off", "its ext3 was cut off", func(t *testing.T, f *os.File) { must(t, f.Truncate(int64(30*mib))) }},
		{"lost", "ext3, its primary superblock is lost; the copy in group 1 at block 8193 is whole", func(t *testing.T, f *os.File) { orByte(t, f, 1024+56, 0xff) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := made(t, Creation{Size: 64 * mib, FS: "ext3"})
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			_, err = file.WriteAt(bytes.Repeat([]byte("free"), 1000), int64(20*mib))
			must(t, err)
			c.spoil(t, file)
			must(t, file.Close())
			w, err := Pack(path, filepath.Join(t.TempDir(), "x.zst"), PackOptions{})
			must(t, err)
			defer w.Close()
			var notes []string
			must(t, w.Do(context.Background(), func(e upkeep.ImageEvent) {
				if e.Event == upkeep.ImageNote {
					notes = append(notes, e.Text)
				}
			}))
			if want := "free blocks are packed too: " + c.why; len(notes) != 1 || notes[0] != want {
				t.Errorf("it says %q, want %q", notes, want)
			}
			back := filepath.Join(t.TempDir(), "back")
			run(t)(Unpack(context.Background(), w.Plan.File, back, Unpacking{}))
			if exec.Command("cmp", "-s", back, path).Run() != nil {
				t.Error("something else comes back")
			}
		})
	}
}

func orByte(t *testing.T, f *os.File, at int64, bits byte) {
	t.Helper()
	b := make([]byte, 1)
	_, err := f.ReadAt(b, at)
	must(t, err)
	b[0] |= bits
	_, err = f.WriteAt(b, at)
	must(t, err)
}

func TestPackRefuses(t *testing.T) {
	need(t, "ext4")
	path := made(t, Creation{Size: 16 * mib, FS: "ext4"})
	scratch := t.TempDir()
	packed := filepath.Join(scratch, "x.zst")
	run(t)(Pack(path, packed, PackOptions{}))
	refused(t, path, upkeep.ErrConflict, func() (*Work, error) { return Pack(path, packed, PackOptions{}) })
	refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Pack(packed, filepath.Join(scratch, "y.zst"), PackOptions{}) })
	refused(t, path, upkeep.ErrConflict, func() (*Work, error) { return Unpack(context.Background(), packed, path, Unpacking{}) })
	refused(t, path, upkeep.ErrRefused, func() (*Work, error) {
		return Unpack(context.Background(), path, filepath.Join(scratch, "z"), Unpacking{})
	})
	refused(t, path, upkeep.ErrRefused, func() (*Work, error) {
		return Unpack(context.Background(), packed, filepath.Join(scratch, "z"), Unpacking{Part: &pack.Range{Offset: 1, Length: 1 << 40}})
	})
	file, err := hold.Open(path, true)
	must(t, err)
	defer file.Close()
	lock, err := hold.Take(file, hold.Options{Write: true, Self: []int{1}})
	must(t, err)
	defer lock.Release()
	var busy *hold.BusyError
	if _, err := Pack(path, filepath.Join(scratch, "y.zst"), PackOptions{}); !errors.As(err, &busy) {
		t.Errorf("an image that is held for changes: %v", err)
	}
}

func TestUnpackFromServers(t *testing.T) {
	testkit.Need(t, "gzip")
	need(t, "ext4")
	path := made(t, Creation{Size: 32 * mib, FS: "ext4"})
	folder := t.TempDir()
	run(t)(Pack(path, filepath.Join(folder, "x.zst"), PackOptions{All: true}))
	if out, err := exec.Command("sh", "-c", `gzip -1 <"$0" >"$1"`, path, filepath.Join(folder, "x.gz")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	parts := httptest.NewServer(http.FileServer(http.Dir(folder)))
	defer parts.Close()
	whole := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(filepath.Join(folder, filepath.Base(r.URL.Path)))
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Write(b)
	}))
	defer whole.Close()
	for _, address := range []string{parts.URL + "/x.zst", whole.URL + "/x.zst", parts.URL + "/x.gz", whole.URL + "/x.gz"} {
		out := filepath.Join(t.TempDir(), "out.img")
		run(t)(Unpack(context.Background(), address, out, Unpacking{}))
		if exec.Command("cmp", "-s", out, path).Run() != nil {
			t.Errorf("%s is unpacked as something else", address)
		}
		onlyFile(t, out)
	}
	// Stopped in the middle, it leaves what recover removes.
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	out := filepath.Join(t.TempDir(), "out.img")
	w, err := Unpack(ctx, parts.URL+"/x.zst", out, Unpacking{})
	must(t, err)
	err = w.Do(ctx, func(e upkeep.ImageEvent) {
		if e.Event == upkeep.ImageProgress {
			stop()
		}
	})
	if w.Close(); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped, it says %v", err)
	}
	if r := run(t)(Recover(out)).(Recovery); r.Found == "" {
		t.Error("nothing was left to go on with")
	}
	onlyFile(t, out)
	if _, err := Unpack(context.Background(), parts.URL+"/none", filepath.Join(folder, "none"), Unpacking{}); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Files are read out of images, packed ones, and packed ones on servers, of which
// little is fetched.
func TestFilesInImages(t *testing.T) {
	testkit.Need(t, "mke2fs")
	tree := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(tree, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(tree, "etc/fstab"), []byte("none\n"), 0o640))
	must(t, os.Symlink("etc", filepath.Join(tree, "link")))
	for i := range 40 {
		must(t, os.WriteFile(filepath.Join(tree, fmt.Sprint("big", i)), bytes.Repeat(fmt.Appendf(nil, "%d", i*7919), 100_000), 0o644))
	}
	path := filepath.Join(t.TempDir(), "x.img")
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path, "128M").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	folder := t.TempDir()
	run(t)(Pack(path, filepath.Join(folder, "x.zst"), PackOptions{}))
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.ServeFile(w, r, filepath.Join(folder, filepath.Base(r.URL.Path)))
	}))
	defer server.Close()
	for _, src := range []string{path, filepath.Join(folder, "x.zst"), server.URL + "/x.zst"} {
		files, err := OpenFiles(context.Background(), src, 0)
		must(t, err)
		list, err := files.List("/link")
		if err != nil || len(list) != 1 || list[0].Path != "/link/fstab" || list[0].Size != 5 || list[0].Mode != "-rw-r-----" {
			t.Errorf("%s lists %+v, %v", src, list, err)
		}
		root, err := files.List("/../..")
		if err != nil || len(root) != 43 {
			t.Errorf("%s has %d files, %v", src, len(root), err)
		}
		var b bytes.Buffer
		if err := files.Cat(context.Background(), "etc/fstab", &b); err != nil || b.String() != "none\n" {
			t.Errorf("%s: %q, %v", src, b.String(), err)
		}
		if err := files.Cat(context.Background(), "/etc", &b); !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("a folder is printed: %v", err)
		}
		if err := files.Cat(context.Background(), "/no", &b); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("what is not there: %v", err)
		}
		must(t, files.Close())
	}
	if asked == 0 || asked > 12 {
		t.Errorf("the server was asked %d times", asked)
	}
}

// TestPackLooksForRoom has a host with too little, with enough for what is known to become
// small, and one whose room is taken meanwhile.
func TestPackLooksForRoom(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	host := crowded(t, 16*mib)
	dst := filepath.Join(host, "web.zst")
	image := made(t, Creation{Size: 64 * mib})
	noise := make([]byte, 32*mib)
	rand.NewChaCha8([32]byte{}).Read(noise)
	must(t, os.WriteFile(image, noise, 0o600))
	err := refused(t, image, upkeep.ErrRefused, func() (*Work, error) { return Pack(image, dst, PackOptions{}) })
	var lacks *noRoomError
	if !errors.As(err, &lacks) || lacks.need < int64(31*mib) {
		t.Errorf("packing noise: %v", err)
	}
	const says = `^refused: packed, %s takes about 32(\.0\d)?M, going by pieces of it, and beside %s 16M are free: about 16(\.0\d)?M are missing; nothing was changed$`
	if want := regexp.MustCompile(fmt.Sprintf(says, image, dst)); !want.MatchString(err.Error()) {
		t.Errorf("packing noise: %v, want %s", err, want)
	}

	must(t, os.WriteFile(image, bytes.Repeat([]byte("text"), 8<<20), 0o600))
	w, err := Pack(image, dst, PackOptions{})
	must(t, err)
	if steps := fmt.Sprint(w.Plan.Steps); !strings.Contains(steps, "going by pieces of it, and 32M at most") {
		t.Errorf("the plan is %s", steps)
	}
	must(t, errors.Join(w.Do(t.Context(), nil), w.Close(), os.Remove(dst)))

	must(t, os.WriteFile(image, noise[:12*mib], 0o600))
	w, err = Pack(image, dst, PackOptions{})
	must(t, err)
	ballast := filepath.Join(host, "ballast")
	must(t, os.WriteFile(ballast, noise[:8*mib], 0o600))
	if err := w.Do(t.Context(), nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("when the room was taken meanwhile: %v", err)
	}
	must(t, w.Close())
	onlyFile(t, ballast)
	must(t, os.Remove(ballast))
	freed(t, host)
}
