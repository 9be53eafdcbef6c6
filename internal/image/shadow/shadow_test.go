package shadow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
)

// patchy writes a file with data, a hole, data of zeros and a hole at the end.
func patchy(t *testing.T, path string, full bool) *os.File {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	kind := upkeep.ImageSparse
	if full {
		kind = upkeep.ImageFull
	}
	if err := Allocate(file, 8<<20, kind); err != nil {
		t.Fatal(err)
	}
	for at, fill := range map[int64]byte{0: 'a', 3 << 20: 'b', 5 << 20: 0} {
		if _, err := file.WriteAt(bytes.Repeat([]byte{fill}, 100_000), at); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func TestReplaceKeepsWhatTheFileIs(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprint("full ", full), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.img")
			old := patchy(t, path, full)
			must(t, old.Chmod(0o4640))
			if os.Geteuid() == 0 {
				must(t, old.Chown(1234, 5678))
				must(t, old.Chmod(0o4640)) // changing the owner cleared a bit
			}
			must(t, unix.Fsetxattr(int(old.Fd()), "user.note", []byte("mine"), 0))

			s, way, err := Of(context.Background(), path, old, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if kind(t, s.File) != kind(t, old) || kind(t, old) == upkeep.ImageFull != full {
				t.Errorf("the image is %s, its shadow %s (%s), full %v", kind(t, old), kind(t, s.File), way, full)
			}
			if names := entries(t, path); len(names) != 1 {
				t.Errorf("while it is worked on there are %q", names)
			}
			if _, err := s.File.WriteAt([]byte("changed"), 1<<20); err != nil {
				t.Fatal(err)
			}
			before := content(t, path)
			if err := s.Replace(old); err != nil {
				t.Fatal(err)
			}
			copy(before[1<<20:], "changed")
			if !bytes.Equal(content(t, path), before) {
				t.Error("the content is not what was written")
			}
			var was, is unix.Stat_t
			must(t, unix.Fstat(int(old.Fd()), &was))
			must(t, unix.Stat(path, &is))
			if was.Uid != is.Uid || was.Gid != is.Gid || was.Mode != is.Mode || is.Nlink != 1 {
				t.Errorf("owner %d:%d mode %o links %d, want %d:%d %o 1", is.Uid, is.Gid, is.Mode, is.Nlink, was.Uid, was.Gid, was.Mode)
			}
			note := make([]byte, 10)
			if n, err := unix.Getxattr(path, "user.note", note); err != nil || string(note[:n]) != "mine" {
				t.Errorf("the attribute is %q, %v", note[:max(n, 0)], err)
			}
			if names := entries(t, path); len(names) != 1 {
				t.Errorf("afterwards there are %q", names)
			}
		})
	}
}

func TestReplaceLeavesTheFileOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.img")
	old := patchy(t, path, false)
	s, _, err := Of(context.Background(), path, old, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, []byte("of another"), 0o600))
	if err := s.Replace(old); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("replacing a file that is not the one: %v", err)
	}
	must(t, s.Close())
	if got := content(t, path); string(got) != "of another" {
		t.Errorf("the other's file is %.20q", got)
	}
	if names := entries(t, path); len(names) != 1 {
		t.Errorf("afterwards there are %q", names)
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.img")
	for i, want := range []error{nil, upkeep.ErrConflict} {
		s, err := New(path)
		if err != nil {
			t.Fatal(err)
		}
		must(t, Allocate(s.File, int64(i+1)<<20, upkeep.ImageFull))
		if err := s.Create(); !errors.Is(err, want) {
			t.Errorf("creating, time %d: %v, want %v", i+1, err, want)
		}
		must(t, s.Close())
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 1<<20 {
		t.Errorf("the file is %v, %v", info, err)
	}
}

// TestLeftover has what a kill between the two names leaves.
func TestLeftover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.img")
	old := patchy(t, path, false)
	if left, err := Leftover(path); left != "" || err != nil {
		t.Errorf("nothing was left, and found is %q, %v", left, err)
	}
	s, _, err := Of(context.Background(), path, old, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	must(t, s.link(tempName("web.img")))
	left, err := Leftover(path)
	if err != nil || filepath.Base(left) != tempName("web.img") {
		t.Fatalf("left is %q, %v", left, err)
	}
	if err := s.Replace(old); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "was left by a command") {
		t.Errorf("replacing beside what was left: %v", err)
	}
	must(t, os.Remove(left))
	must(t, os.Mkdir(left, 0o700))
	if _, err := Leftover(path); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("a folder is taken for what was left: %v", err)
	}
}

func TestLongNames(t *testing.T) {
	folder := t.TempDir()
	if _, err := New(filepath.Join(folder, strings.Repeat("n", 250))); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("a name without room for one beside it: %v", err)
	}
	for _, name := range []string{"-rf", "two\nlines", "\xff", " ", strings.Repeat("n", 200)} {
		s, err := New(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		must(t, s.Create())
		must(t, s.Close())
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			t.Error(err)
		}
	}
}

// copied is a file to be copied, and an empty one beside it.
func copied(t *testing.T) (dst, src *os.File) {
	t.Helper()
	folder := t.TempDir()
	dst, err := os.Create(filepath.Join(folder, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dst.Close() })
	return dst, patchy(t, filepath.Join(folder, "src"), false)
}

func TestCopyStops(t *testing.T) {
	dst, src := copied(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if way, err := Copy(ctx, dst, src, nil); way != Reflink && !errors.Is(err, context.Canceled) {
		t.Errorf("copying after the end: %s, %v", way, err)
	}
}

// TestCopyReserves has the blocks of all that is copied before the first of it is, and
// none for holes.
func TestCopyReserves(t *testing.T) {
	dst, src := copied(t)
	const data = 3 * 100_000
	var taken []int64
	note := func(int64, int64) {
		var st unix.Stat_t
		if err := unix.Fstat(int(dst.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		taken = append(taken, st.Blocks*512)
	}
	must(t, dst.Truncate(8<<20))
	must(t, copyData(context.Background(), dst, src, stretch{length: 8 << 20}, note))
	if len(taken) < 3 || taken[0] < data || taken[len(taken)-1] > 2*data {
		t.Errorf("for %d bytes it takes %d", data, taken)
	}
	if !bytes.Equal(content(t, dst.Name()), content(t, src.Name())) {
		t.Error("the copy differs")
	}
}

func kind(t *testing.T, file *os.File) upkeep.ImageKind {
	t.Helper()
	k, err := KindOf(file)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func entries(t *testing.T, path string) []string {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
