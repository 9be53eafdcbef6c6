package allocation

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep/internal/testkit"
)

const mib = 1 << 20

// laid is a file of 5 MiB: data, a hole, blocks that are allocated and not written,
// data, a hole.
func laid(t *testing.T) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	fd := int(file.Fd())
	for _, err := range []error{file.Truncate(5 * mib), unix.Fallocate(fd, 0, 2*mib, mib)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []int64{0, 3 * mib} {
		if _, err := file.WriteAt(slices.Repeat([]byte{1}, mib), at); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func TestExtents(t *testing.T) {
	file := laid(t)
	var found []Extent
	err := Extents(int(file.Fd()), true, func(e Extent) bool {
		if n := len(found); n > 0 && found[n-1].To == e.From && found[n-1].Unwritten == e.Unwritten {
			found[n-1].To = e.To // where the disk has it in two places
			return true
		}
		found = append(found, e)
		return true
	})
	testkit.NeedThat(t, "a file system with FIEMAP below the folder for temporary files", err)
	want := []Extent{{0, mib, false}, {2 * mib, 3 * mib, true}, {3 * mib, 4 * mib, false}}
	if !slices.Equal(found, want) {
		t.Errorf("extents are %v, want %v", found, want)
	}
	calls := 0
	if err := Extents(int(file.Fd()), true, func(Extent) bool { calls++; return false }); err != nil || calls != 1 {
		t.Errorf("told to stop it called %d times, %v", calls, err)
	}
	for size, want := range map[int64]bool{0: true, mib: true, mib + 1: false, 5 * mib: false} {
		if whole, err := Whole(file, size); err != nil || whole != want {
			t.Errorf("of %d bytes all are allocated: %v, %v, want %v", size, whole, err, want)
		}
	}
}

func TestNextData(t *testing.T) {
	file := laid(t)
	for at, want := range map[int64][2]int64{0: {0, mib}, mib / 2: {mib / 2, mib}, mib: {3 * mib, 4 * mib}, 4 * mib: {5 * mib, 5 * mib}} {
		if from, to, err := NextData(int(file.Fd()), at, 5*mib); err != nil || from != want[0] || to != want[1] {
			t.Errorf("from %d on there is data in %d to %d, %v; want %v", at, from, to, err, want)
		}
	}
	if n := Data(file, mib/2, 5*mib); n != mib/2+mib {
		t.Errorf("data are %d bytes", n)
	}
}
