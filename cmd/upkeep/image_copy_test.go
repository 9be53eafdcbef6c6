package main

import (
	"testing"

	"upkeep/internal/image"
	"upkeep/internal/image/tree"
)

// What was copied is counted as people count.
func TestCopiedText(t *testing.T) {
	lost := func(n int) []tree.Loss { return make([]tree.Loss, n) }
	for want, copied := range map[string]image.Copied{
		"copied a to b: an empty folder, in an image of 2M": {Entries: 1, Size: 2 << 20},
		"copied a to b: 2 entries, 1 byte":                  {Entries: 2, Bytes: 1},
		"copied a to b: 3 entries, 0 bytes; 1 attribute could not be carried; compared with its source, and the same but for that": {Entries: 3, Lost: lost(1), Verified: true},
		"copied a to b: 4 entries, 2K; 2 attributes could not be carried":                                                          {Entries: 4, Bytes: 2048, Lost: lost(2)},
	} {
		if got := copiedText("a", "b", image.Copying{}, copied); got != want {
			t.Errorf("%+v is told as %q, want %q", copied, got, want)
		}
	}
}
