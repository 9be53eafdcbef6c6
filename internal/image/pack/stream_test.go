package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"upkeep"
	"upkeep/internal/image/shadow"
	"upkeep/internal/testkit"
)

// Files that other programs packed.
func TestOtherFormats(t *testing.T) {
	testkit.Need(t, "zstd", "gzip", "xz", "qemu-img")
	file := patchy(t, upkeep.ImageFull)
	want := content(t, file.Name())
	for format, command := range map[Format][]string{
		Raw:    {"cp", file.Name()},
		Zstd:   {"zstd", "-q", "-1", file.Name(), "-o"},
		Gzip:   {"sh", "-c", `gzip -1 -c "$0" >"$1"`, file.Name()},
		XZ:     {"sh", "-c", `xz -0 -c "$0" >"$1"`, file.Name()},
		QCOW2:  {"qemu-img", "convert", "-c", "-O", "qcow2", file.Name()},
		Packed: nil,
	} {
		t.Run(string(format), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if command == nil {
				must(t, os.WriteFile(path, packOf(t, file, Options{}), 0o600))
			} else if out, err := exec.Command(command[0], append(command[1:], path)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", command, err, out)
			}
			in, err := os.Open(path)
			must(t, err)
			defer in.Close()
			info, err := in.Stat()
			must(t, err)
			got, err := FormatOf(in, info.Size())
			if err != nil || got != format {
				t.Fatalf("it is taken for %q, %v", got, err)
			}
			if format == Raw || format == Packed {
				return
			}
			must(t, got.Tool())
			want := want
			if format == QCOW2 { // its sizes are in sectors
				want = append(slices.Clone(want), make([]byte, 512-len(want)%512)...)
			}
			expands(t, got, in, want)
			bounded(t, got, in, int64(len(want)))
			if format != QCOW2 {
				cut, err := os.OpenFile(path, os.O_RDWR, 0)
				must(t, err)
				defer cut.Close()
				must(t, cut.Truncate(info.Size()*2/3))
				if err := got.Expand(context.Background(), scratch(t), cut, 0, nil); err == nil {
					t.Error("cut off, it is unpacked all the same")
				}
			}
		})
	}
}

func expands(t *testing.T, format Format, in *os.File, want []byte) {
	t.Helper()
	out := scratch(t)
	must(t, format.Expand(context.Background(), out, in, 0, func(done, total int64) {
		if done > total {
			t.Errorf("%d of %d are done", done, total)
		}
	}))
	if !bytes.Equal(content(t, out.Name()), want) {
		t.Fatal("expanded is something else")
	}
	if kind, err := shadow.KindOf(out); err != nil || kind != upkeep.ImageSparse {
		t.Errorf("its zeros are no holes: %s, %v", kind, err)
	}
}

// bounded has a file unpacked that may become as large as it does, and less.
func bounded(t *testing.T, format Format, in *os.File, size int64) {
	t.Helper()
	must(t, format.Expand(context.Background(), scratch(t), in, size, nil))
	for _, most := range []int64{size - 1, 1} {
		out := scratch(t)
		var large *TooLargeError
		if err := format.Expand(context.Background(), out, in, most, nil); !errors.As(err, &large) || large.Most != most {
			t.Errorf("where it may have %d of its %d bytes: %v", most, size, err)
		}
		if info, err := out.Stat(); err != nil || info.Size() > most {
			t.Errorf("where it may have %d bytes, %d were written: %v", most, info.Size(), err)
		}
	}
}

func scratch(t *testing.T) *os.File {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	must(t, err)
	t.Cleanup(func() { out.Close() })
	return out
}

// A qcow2 image may name any file of this machine as its own content.
func TestQCOW2ThatReadsOtherFiles(t *testing.T) {
	testkit.Need(t, "qemu-img")
	folder := t.TempDir()
	make := func(name string, args ...string) []byte {
		path := filepath.Join(folder, name)
		if out, err := exec.Command("qemu-img", append(append([]string{"create", "-q", "-f", "qcow2"}, args...), path, "1M")...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return content(t, path)
	}
	good := make("good")
	turned := func(at int, b byte) []byte {
		bad := slices.Clone(good)
		bad[at] = b
		return bad
	}
	huge := slices.Clone(good)
	binary.BigEndian.PutUint64(huge[24:], 1<<60)
	for name, b := range map[string][]byte{
		"backing file": make("backed", "-b", "/etc/passwd", "-F", "raw"),
		"data file":    make("split", "-o", "data_file="+filepath.Join(folder, "data")),
		"corrupt":      turned(79, qcowCorrupt),
		"encrypted":    turned(35, 2),
		"version 9":    turned(7, 9),
		"huge":         huge,
		"short":        good[:50],
	} {
		path := filepath.Join(folder, "file")
		must(t, os.WriteFile(path, b, 0o600))
		in, err := os.Open(path)
		must(t, err)
		if err := QCOW2.Expand(context.Background(), scratch(t), in, 0, nil); !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
		in.Close()
	}
}

func FuzzQCOW2Header(f *testing.F) {
	f.Add([]byte("QFI\xfb\x00\x00\x00\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if size, err := readQCOW2(bytes.NewReader(b)); err == nil && (size < 0 || size > maxImage) {
			t.Fatalf("a size of %d is taken", size)
		}
	})
}
