package partition_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"upkeep/internal/image/partition"
)

// Cut off after any sector, a GPT that is brought to the end of its image has the same
// partitions, and doing it again brings it to its end.
func TestToEndIsInterrupted(t *testing.T) {
	for _, name := range []string{"mbr", "gpt, reverse"} {
		t.Run(name, func(t *testing.T) {
			path := newImage(t, 100*mib, scripts[name])
			want := ends(read(t, path))
			file, _ := open(t, path)
			if err := file.Truncate(200 * mib); err != nil {
				t.Fatal(err)
			}
			original := save(t, file)
			for cut := 1; ; cut++ {
				err := partition.ToEnd(&interrupted{file, cut}, 200*mib)
				if err != nil && !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				if now := ends(read(t, path)); now != want {
					t.Fatalf("cut after %d sectors: the table is\n%s\nwant\n%s", cut, now, want)
				}
				if again := partition.ToEnd(file, 200*mib); again != nil {
					t.Fatalf("cut after %d sectors, and again: %v", cut, again)
				}
				table := read(t, path)
				if ends(table) != want || len(table.Problems) > 0 || !table.AtEnd() {
					t.Fatalf("cut after %d sectors, and again: %+v", cut, table)
				}
				if err == nil {
					inOrder(t, path, table)
					return
				}
				restore(t, file, original)
			}
		})
	}
}

// There is no place for the copy behind a partition that reaches to the end.
func TestToEndHasNoRoom(t *testing.T) {
	path := newImage(t, 100*mib, scripts["gpt"])
	last := lastOf(read(t, path))
	file, _ := open(t, path)
	if err := file.Truncate(last.End()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := partition.ToEnd(file, last.End()); err == nil {
		t.Error("it was put over the end of the last partition")
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("what was refused changed the image: %v", err)
	}
}
