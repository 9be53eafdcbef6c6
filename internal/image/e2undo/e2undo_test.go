package e2undo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep/internal/testkit"
)

// TestReplay has several programs write to one image and keep what they write over.
func TestReplay(t *testing.T) {
	for _, block := range []string{"1024", "4096"} {
		t.Run(block, func(t *testing.T) {
			image, kept, before := changed(t, block)
			if after := content(t, image); bytes.Equal(after, before) {
				t.Fatal("the programs changed nothing")
			}
			for range 2 { // the second time after a kill
				replay(t, image, kept)
				if after := content(t, image)[:len(before)]; !bytes.Equal(after, before) {
					t.Fatal("it is not what it was")
				}
			}
		})
	}
}

// TestKeptIsDamaged wants an image not touched when any byte of what counts is wrong.
func TestKeptIsDamaged(t *testing.T) {
	image, kept, before := changed(t, "1024")
	after, whole := content(t, image), content(t, kept)
	all, err := read(file(t, kept))
	if err != nil || len(all.extents) < 2 {
		t.Fatal(all.extents, err)
	}
	last := all.extents[len(all.extents)-1]
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		wrong := slices.Clone(whole)
		what := "cut"
		if at := random.IntN(len(wrong)); random.IntN(4) > 0 {
			what = "with a bit turned"
			wrong[at] ^= 1 << random.IntN(8)
		} else {
			wrong = wrong[:at]
		}
		complete, err := Replay(context.Background(), file(t, image), written(t, kept, wrong))
		now := content(t, image)
		switch {
		case err == nil && !complete && what == "cut":
			if rest := last.to + last.size; int64(len(wrong)) < last.from || !bytes.Equal(now[:last.to], before[:last.to]) || !bytes.Equal(now[rest:len(before)], before[rest:]) {
				t.Fatalf("cut at %d, and what is kept last at %d: all else is not what it was", len(wrong), last.from)
			}
			written(t, image, after)
		case errors.Is(err, ErrDamaged) && bytes.Equal(now, after):
		case err == nil && complete && bytes.Equal(now[:len(before)], before): // what no program reads
			written(t, image, after)
		case err == nil && zeros(wrong[:min(len(wrong), headerSize)]) && bytes.Equal(now, after):
		default:
			t.Fatalf("%s: %v, and it is %t that nothing was changed", what, err, bytes.Equal(now, after))
		}
	}

	// What belongs to a larger image is not put into this one.
	written(t, kept, whole)
	written(t, image, before[:64<<10])
	if _, err := Replay(context.Background(), file(t, image), file(t, kept)); !errors.Is(err, ErrDamaged) || !bytes.Equal(content(t, image), before[:64<<10]) {
		t.Errorf("of a larger image: %v", err)
	}
}

// TestRoomEndsWhileItKeeps has a key of two blocks, for the second of which there was no
// room: the first is put back, and what belongs to the second is left alone.
func TestRoomEndsWhileItKeeps(t *testing.T) {
	keep, before := handmade(t), bytes.Repeat([]byte("now."), 4<<10)
	for blocks, complete := range map[int]bool{6: true, 5: false, 4: false} {
		image, kept := inMemory(t, before), inMemory(t, sealed(keep)[:blocks*minBlock+minBlock/2*min(1, 6-blocks)])
		defer image.Close()
		defer kept.Close()
		got, err := Replay(context.Background(), image, kept)
		if err != nil || got != complete {
			t.Errorf("of %d blocks: complete %t, %v", blocks, got, err)
		}
		now := make([]byte, len(before))
		if _, err := image.ReadAt(now, 0); err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(before)
		for at, from := range map[int]int{1: 3, 9: 4, 10: 5} {
			if from < blocks {
				copy(want[at*minBlock:], keep[from*minBlock:][:minBlock])
			}
		}
		if !bytes.Equal(now, want) {
			t.Errorf("of %d blocks: it is not what it was, as far as that was kept", blocks)
		}
	}
}

// handmade is what was kept of block 1, and of blocks 9 and 10 of 1K, without checksums.
func handmade(t testing.TB) []byte {
	t.Helper()
	keep := bytes.Repeat([]byte("kept"), 6*minBlock/4)
	clear(keep[:3*minBlock])
	_, err := binary.Encode(keep, binary.LittleEndian, header{Magic: [8]byte([]byte(magic)), Keys: 2, FirstKeys: 2, Block: minBlock, FSBlock: minBlock})
	for i, k := range []key{{At: 1, Size: minBlock}, {At: 9, Size: 2 * minBlock}} {
		_, wrong := binary.Encode(keep[2*minBlock+(i+1)*keySize:], binary.LittleEndian, k)
		err = errors.Join(err, wrong)
	}
	if err != nil {
		t.Fatal(err)
	}
	return keep
}

// FuzzReplay has checksums made right, which no fuzzer finds: what they guard is hostile.
func FuzzReplay(f *testing.F) {
	keep := handmade(f)
	f.Add(keep)
	f.Add(keep[:5*minBlock])
	before := bytes.Repeat([]byte("before"), 8<<10)
	replay := func(raw []byte) ([]byte, error) {
		image, kept := inMemory(f, before), inMemory(f, sealed(raw))
		defer image.Close()
		defer kept.Close()
		_, err := Replay(context.Background(), image, kept)
		now, unread := io.ReadAll(io.NewSectionReader(image, 0, 1<<40))
		if unread != nil {
			f.Fatal(unread)
		}
		return now, err
	}
	if now, err := replay(keep); err != nil || bytes.Equal(now, before) {
		f.Fatal("what is kept is not put back: ", err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		now, err := replay(raw)
		if len(now) != len(before) || err != nil && !bytes.Equal(now, before) {
			t.Errorf("an image of %d bytes has %d: %v", len(before), len(now), err)
		}
	})
}

// inMemory is a file that the disk has nothing to do with.
func inMemory(t testing.TB, content []byte) *os.File {
	fd, err := unix.MemfdCreate("file", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "file")
	if _, err := file.Write(content); err != nil {
		t.Fatal(err)
	}
	return file
}

// sealed is what was kept with the checksums that it should have, of one block of keys.
func sealed(raw []byte) []byte {
	raw = slices.Clone(raw)
	if len(raw) < headerSize {
		return raw
	}
	binary.LittleEndian.PutUint32(raw[headerSize-4:], checksum(raw[:headerSize-4]))
	h, err := parse(raw)
	at := h.FirstKeys * uint64(h.Block)
	if err != nil || at+uint64(h.Block) > uint64(len(raw)) {
		return raw
	}
	keys, kept := raw[at:at+uint64(h.Block)], raw[at+uint64(h.Block):]
	for one := keys[keySize:]; len(one) > 0; one = one[keySize:] {
		if size := binary.LittleEndian.Uint32(one[12:]); uint64(size) <= uint64(len(kept)) {
			binary.LittleEndian.PutUint32(one[8:], checksum(kept[:size]))
			kept = kept[min(len(kept), int(size+h.Block-1)/int(h.Block)*int(h.Block)):]
		}
	}
	binary.LittleEndian.PutUint32(keys, keysMagic)
	clear(keys[4:8])
	binary.LittleEndian.PutUint32(keys[4:], checksum(keys))
	return raw
}

// changed is an image that programs have changed, what they kept, and what it was.
func changed(t *testing.T, block string) (image, kept string, before []byte) {
	t.Helper()
	testkit.Need(t, "mke2fs", "debugfs", "e2fsck", "resize2fs")
	folder := t.TempDir()
	image, kept = filepath.Join(folder, "web.img"), filepath.Join(folder, "kept")
	command(t, "mke2fs", "-qF", "-t", "ext4", "-b", block, image, "3M")
	command(t, "debugfs", "-w", "-R", "write "+os.Args[0]+" program", image) // as much as there is room for
	before = content(t, image)
	if err := os.Truncate(image, 5<<20); err != nil {
		t.Fatal(err)
	}
	command(t, "debugfs", "-z", kept, "-w", "-R", "rm program", image)
	command(t, "e2fsck", "-z", kept, "-fy", image)
	command(t, "resize2fs", "-z", kept, image)
	return image, kept, before
}

// command runs a program. That e2fsck has mended something is what its status says.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	var status *exec.ExitError
	if err != nil && (!errors.As(err, &status) || name != "e2fsck" || status.ExitCode() > 1) {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

func replay(t *testing.T, image, kept string) {
	t.Helper()
	if complete, err := Replay(context.Background(), file(t, image), file(t, kept)); err != nil || !complete {
		t.Fatal(complete, err)
	}
}

func content(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func file(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func written(t testing.TB, path string, b []byte) *os.File {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file(t, path)
}
