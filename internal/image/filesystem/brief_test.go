package filesystem

import (
	"context"
	"errors"
	"os"
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

// What a program does is not among what it finds.
func TestBriefHasFindings(t *testing.T) {
	for program, example := range map[string]struct{ said, want string }{
		"e2fsck -y":   {"Pass 1: Checking inodes; Inode 2 ref count is 854, should be 853.  Fix? yes; Block bitmap differences:  -12; Fix? yes; the image: ***** FILE SYSTEM WAS MODIFIED *****", "Inode 2 ref count is 854, should be 853.  Fix? yes; Block bitmap differences:  -12"},
		"e2fsck -n":   {"Free blocks count wrong (285809, counted=284001).; Fix? no; the image: 11/76912 files (0.0% non-contiguous), 21391/307200 blocks", "Free blocks count wrong (285809, counted=284001)."},
		"e2fsck -p":   {"the image: Unattached inode 6082; the image: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.", "Unattached inode 6082; UNEXPECTED INCONSISTENCY"},
		"xfs_repair":  {"Cannot get host filesystem geometry.; Repair may fail if there is a sector size mismatch between; the image and the host filesystem.; Phase 1 - find and verify superblock...; - zero log...; bad magic # 0x1 in inobt block 0/3; No modify flag set, skipping phase 5", "bad magic # 0x1 in inobt block 0/3"},
		"reiserfsck":  {"Will read-only check consistency of the filesystem on the image; Will put log info to 'stdout'; ###########; reiserfsck --check started at Fri Nov 27 23:32:17 2026; ###########; Replaying journal: No transactions found; Comparing bitmaps..Checking Semantic tree:; finished; vpf-10640: The on-disk and the correct bitmaps differs.", "vpf-10640: The on-disk and the correct bitmaps differs."},
		"btrfs check": {"Opening filesystem to check...; Checking filesystem on the image; UUID: 1; [1/7] checking root items; bad tree block 1", "bad tree block 1"},
		"fsck.vfat":   {"FATs differ but appear to be intact.; Leaving filesystem unchanged.; the image: 1 files, 1/20431 clusters", "FATs differ but appear to be intact."},
		"silence":     {"", "its program does not say what"},
	} {
		if got := (Verdict{Found: example.said}).Brief(); got != example.want {
			t.Errorf("%s: %q, want %q", program, got, example.want)
		}
	}
}

// A repair that failed does not say that a repair is what helps.
func TestRepairThatFailedHasAnotherHint(t *testing.T) {
	typ := Type{repair: func(context.Context, *os.File, Progress) (Verdict, error) { return Verdict{Hint: repairHint}, nil }}
	if verdict, err := typ.Repair(context.Background(), nil, nil); err != nil || verdict.Hint != RescueHint {
		t.Errorf("%+v, %v", verdict, err)
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
	if _, err := typ.Prepare(context.Background(), file, nil); err != nil {
		t.Fatal(err)
	}
	err := typ.Shrink(context.Background(), file, 2<<20)
	var hint *upkeep.HintError
	if !errors.Is(err, errNotEnough) || !errors.As(err, &hint) || !strings.Contains(err.Error(), "resize2fs makes it no smaller than ") {
		t.Errorf("shrinking it to 2M: %v", err)
	}
}
