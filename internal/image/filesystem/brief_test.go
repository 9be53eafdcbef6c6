package filesystem

import (
	"context"
	"errors"
	"strings"
	"testing"

	"upkeep"
)

func TestBrief(t *testing.T) {
	verdict := Verdict{Found: "Pass 1: Checking inodes; " + strings.Repeat("Inode 12 is wrong; ", 999) + strings.Repeat("-123 ", 9999)}
	got := verdict.Brief()
	if !strings.HasPrefix(got, "Inode 12 is wrong; ") || !strings.HasSuffix(got, "; and 995 more") || len(got) > 1000 {
		t.Errorf("got %s", got)
	}
	if got := (Verdict{Found: strings.Repeat("-123 ", 9999)}).Brief(); len(got) > 200 {
		t.Errorf("one finding has %d bytes", len(got))
	}
}

// What resize2fs wants for itself is not laid to the files.
func TestLeastOfResize2fs(t *testing.T) {
	typ := find(t, Ext4)
	need(t, typ)
	const size = 64 << 20
	file := sparse(t, size)
	if err := typ.Make(context.Background(), file, size, Options{}); err != nil {
		t.Fatal(err)
	}
	err := typ.Shrink(context.Background(), file, 2<<20, nil)
	var hint *upkeep.HintError
	if !errors.Is(err, errNotEnough) || !errors.As(err, &hint) || !strings.Contains(err.Error(), "resize2fs makes it no smaller than ") {
		t.Errorf("shrinking it to 2M: %v", err)
	}
}
