package image

import (
	"os"
	"testing"

	"upkeep"
)

// TestUntrusted does all that can be done without the kernel to images that are not
// trusted: the programs for each type work where they reach nothing but the image.
func TestUntrusted(t *testing.T) {
	sizes := map[string][3]int64{"ext4": {16, 24, 12}, "reiserfs": {48, 64, 40}, "vfat": {40, 0, 0}, "xfs": {300, 0, 0}, "btrfs": {256, 0, 0}, "swap": {16, 0, 0}}
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) {
			path := made(t, Creation{Size: mib})
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			need(t, name)
			w, err := Create(path, Creation{Size: mib * upkeep.Size(size[0]), FS: name})
			if err != nil {
				t.Fatal(err)
			}
			w.Confine()
			run(t)(w, nil)
			if size[1] != 0 {
				run(t)(Grow(path, Growth{To: mib * upkeep.Size(size[1]), Untrusted: true}))
				run(t)(Shrink(path, Shrinking{To: mib * upkeep.Size(size[2]), Untrusted: true}))
			}
			if name != "btrfs" && name != "swap" {
				run(t)(Check(path, Checking{Repair: true, Untrusted: true}))
			}
			if name != "swap" {
				inOrder(t, path, name)
			}
		})
	}
}
