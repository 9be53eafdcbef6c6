package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/shadow"
	"upkeep/internal/testkit"
)

var (
	everyWrite = flag.Bool("every-write", false, "kill at every write rather than at a sample of them, and have each test go through all cases")
	killPoints = flag.Int("kill-points", 2, "how many of its writes a verb is killed at without -every-write")
)

// made is a new image in a folder of its own.
func made(t *testing.T, c Creation) string {
	t.Helper()
	if c.FS != "" {
		need(t, c.FS)
	}
	path := filepath.Join(t.TempDir(), "web.img")
	run(t)(Create(path, c))
	return path
}

func need(t testing.TB, name string) filesystem.Type {
	t.Helper()
	typ, err := filesystem.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Need(t, typ.Programs...)
	return typ
}

// run carries work out that was made ready, and returns its result.
func run(t *testing.T) func(*Work, error) any {
	return func(w *Work, err error) any {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := w.Do(context.Background(), nil); err != nil {
			t.Fatalf("%s: %v", w.Plan.Verb, err)
		}
		return w.Result
	}
}

// refused wants work not to be made ready, and the image to be as it was.
func refused(t *testing.T, path string, want error, try func() (*Work, error)) error {
	t.Helper()
	before := print(t, path)
	w, err := try()
	if err == nil {
		w.Close()
		t.Errorf("%s was made ready", w.Plan.Verb)
		return errors.New("not refused")
	}
	if want != nil && !errors.Is(err, want) {
		t.Errorf("refused with %v, want %v", err, want)
	}
	if after := print(t, path); after != before {
		t.Errorf("what was refused changed the image: %s, was %s", after, before)
	}
	onlyFile(t, path)
	return err
}

// print is what an image is, in a line: size, kind and content.
func print(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	kind, err := shadow.KindOf(file)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// Zeros and holes are the same, and most of an image: only other blocks count.
	sum, block, zeros, size := sha256.New(), make([]byte, 64<<10), make([]byte, 64<<10), stat.Size()
	for at := int64(0); at < size; at += int64(len(block)) {
		if data, err := unix.Seek(int(file.Fd()), at, unix.SEEK_DATA); err != nil {
			break
		} else if data-at >= int64(len(block)) {
			at = data&^(64<<10-1) - int64(len(block))
			continue
		}
		n, err := file.ReadAt(block, at)
		if n == 0 {
			t.Fatal(err)
		}
		if !bytes.Equal(block[:n], zeros[:n]) {
			fmt.Fprint(sum, at)
			sum.Write(block[:n])
		}
	}
	return fmt.Sprintf("%d bytes, %s, %x", size, kind, sum.Sum(nil)[:6])
}

// onlyFile wants nothing beside an image.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%s is left beside the image", e.Name())
		}
	}
}

// look reads what an image is.
func look(t *testing.T, path string) Description {
	t.Helper()
	d, err := Info(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// inOrder wants a file system to be of a type, whole, and in order.
func inOrder(t *testing.T, path, name string) fsinfo.Info {
	t.Helper()
	d := look(t, path)
	if d.FS == nil || d.FS.Type != name || d.Cut != 0 || d.Unfinished != "" || len(d.Holders) != 0 {
		t.Fatalf("the image is %+v, want a whole %s that nobody uses", d, name)
	}
	if verdict := run(t)(Check(path, Checking{})).(filesystem.Verdict); !verdict.Clean {
		t.Errorf("%s is not in order: %s", name, verdict.Found)
	}
	return *d.FS
}

// fill writes files into an image, through the kernel.
func fill(t *testing.T, path, name string) map[string][32]byte {
	t.Helper()
	return fillAt(t, path, mount.Options{Type: name})
}

// fillAt is fill for a part of an image.
func fillAt(t *testing.T, path string, o mount.Options) map[string][32]byte {
	t.Helper()
	testkit.NeedRoot(t)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sums := map[string][32]byte{}
	err = mount.With(file, o, func(dir *os.File) error {
		for i := range 60 {
			name := fmt.Sprintf("file%02d", i)
			text := bytes.Repeat([]byte(name), 1<<(i%16))
			fd, err := unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(fd), name)
			_, err = f.Write(text)
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
			sums[name] = sha256.Sum256(text)
		}
		// Holes among the files' blocks, for those that follow to be moved.
		for i := 0; i < 60; i += 7 {
			name := fmt.Sprintf("file%02d", i)
			delete(sums, name)
			if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// holds wants an image to have the files that were written.
func holds(t *testing.T, path, name string, sums map[string][32]byte) {
	t.Helper()
	holdsAt(t, path, mount.Options{Type: name, ReadOnly: true}, sums)
}

// holdsAt is holds for a part of an image.
func holdsAt(t *testing.T, path string, o mount.Options, sums map[string][32]byte) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	err = mount.With(file, o, func(dir *os.File) error {
		names, err := dir.Readdirnames(-1)
		if err != nil {
			return err
		}
		found := 0
		for _, name := range names {
			want, known := sums[name]
			if !known {
				continue
			}
			fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(fd), name)
			text, err := io.ReadAll(f)
			f.Close()
			if err != nil || sha256.Sum256(text) != want {
				return fmt.Errorf("%s is not what was written: %v", name, err)
			}
			found++
		}
		if found != len(sums) {
			return fmt.Errorf("%d of %d files are left", found, len(sums))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

const mib = upkeep.Size(1 << 20)

// mountRead runs a function while an image is mounted that is only read.
func mountRead(file *os.File, name string, do func(dir *os.File) error) error {
	return mount.With(file, mount.Options{Type: name, ReadOnly: true}, do)
}
