package pack

import (
	"bytes"
	"os/exec"
	"slices"
	"testing"

	"upkeep/internal/testkit"
)

// What plain zstd made, with the table behind it, plain zstd restores.
func TestZstdRestoresWithTable(t *testing.T) {
	testkit.Need(t, "zstd")
	var file, want []byte
	var table SeekTable
	for i := range 3 {
		piece := bytes.Repeat([]byte{byte('a' + i)}, 70_000+i)
		packed := run(t, piece, "-1", "-c")
		if err := table.Add(uint32(len(packed)), uint32(len(piece))); err != nil {
			t.Fatal(err)
		}
		file, want = append(file, packed...), append(want, piece...)
	}
	file = append(file, table.Encode()...)
	if got := run(t, file, "-d", "-c"); !bytes.Equal(got, want) {
		t.Fatalf("zstd -d gives %d bytes, other than the %d packed", len(got), len(want))
	}
	got, err := DecodeSeekTable(file, 0)
	if err != nil || !slices.Equal(got, table) {
		t.Fatalf("decoded %v, %v; want %v", got, err, table)
	}
	i, ok := got.Find(70_000)
	if !ok || i != 1 {
		t.Fatalf("byte 70000 is in frame %d, %v; want 1", i, ok)
	}
	f := got[i]
	piece := run(t, file[f.PackedOffset:f.PackedOffset+int64(f.PackedSize)], "-d", "-c")
	if !bytes.Equal(piece, want[f.Offset:f.Offset+int64(f.Size)]) {
		t.Fatal("a frame alone gives other bytes than its place in the image has")
	}
	for _, outside := range []int64{-1, int64(len(want))} {
		if _, ok := got.Find(outside); ok {
			t.Errorf("byte %d is found in an image of %d", outside, len(want))
		}
	}
	for cut := range len(file) {
		if _, err := DecodeSeekTable(file[:cut], 0); err == nil {
			t.Fatalf("cut to %d of %d bytes, the table is still taken", cut, len(file))
		}
	}
}

func TestHostileTables(t *testing.T) {
	var table SeekTable
	if err := table.Add(10, 100); err != nil {
		t.Fatal(err)
	}
	good := table.Encode()
	if _, err := DecodeSeekTable(good, 10); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]int{"header": 0, "length": 4, "packed": 8, "bomb": 15, "count": 19, "reserved": 20, "magic": 24} {
		bad := slices.Clone(good)
		bad[at] ^= 0x44
		if got, err := DecodeSeekTable(bad, 10); err == nil {
			t.Errorf("%s: taken as %v", name, got)
		}
	}
	for _, before := range []int64{0, 9, 11} {
		if _, err := DecodeSeekTable(good, before); err == nil {
			t.Errorf("frames of 10 bytes are taken for a file with %d", before)
		}
	}
}

func FuzzDecodeSeekTable(f *testing.F) {
	table := SeekTable{{PackedSize: 10, Size: 100}}
	f.Add(table.Encode(), int64(10))
	f.Fuzz(func(t *testing.T, tail []byte, before int64) {
		got, err := DecodeSeekTable(tail, before)
		if err != nil {
			return
		}
		for i, frame := range got[:max(0, len(got)-1)] {
			if frame.PackedOffset+int64(frame.PackedSize) != got[i+1].PackedOffset || frame.Offset+int64(frame.Size) != got[i+1].Offset {
				t.Fatalf("frame %d does not end where the next begins", i)
			}
		}
	})
}

func run(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("zstd", append([]string{"-q"}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("zstd %v: %v", args, err)
	}
	return out
}
