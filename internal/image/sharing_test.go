package image

import (
	"os"
	"path/filepath"
	"testing"

	"upkeep/internal/image/shadow"
	"upkeep/internal/testkit"
)

// sharing is a folder on a file system of which files can share blocks.
func sharing(t *testing.T, fs string) string {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	host, folder := made(t, Creation{Size: 640 * mib, FS: fs}), t.TempDir()
	printed(t, "mount", "-o", "loop", host, folder)
	t.Cleanup(func() { printed(t, "umount", folder) })
	return folder
}

// TestSharingBlocks has hosts on which the second file shares the blocks of the first:
// kinds, content and partitions are kept as they are elsewhere.
func TestSharingBlocks(t *testing.T) {
	hosts := []string{"xfs"}
	if *everyWrite {
		hosts = append(hosts, "btrfs")
	}
	for _, host := range hosts {
		folder := sharing(t, host)
		for _, kind := range kinds {
			path := filepath.Join(folder, string(kind)+".img")
			run(t)(Create(path, Creation{Size: 40 * mib, FS: "ext4", Kind: kind}))
			files := fill(t, path, "ext4")
			file, err := os.Open(path)
			must(t, err)
			if shares, err := shadow.CanReflink(path, file); !shares || err != nil {
				t.Fatalf("%s shares no blocks: %v", host, err)
			}
			must(t, file.Close())
			run(t)(Clone(path, path+".2", Cloning{}))
			run(t)(Grow(path, Growth{By: 8 * mib, Untrusted: true}))
			run(t)(Shrink(path+".2", Shrinking{To: 30 * mib}))
			disk := filepath.Join(folder, string(kind)+".disk")
			run(t)(Create(disk, Creation{Size: 48 * mib, Kind: kind}))
			divide(t, disk, tables[0].script)
			run(t)(MkFS(disk, Remaking{Type: "ext4", Partition: 2}))
			p := at{part(t, disk, 2), "ext4"}
			inside := fillAt(t, disk, p.mount())
			run(t)(Grow(disk, Growth{By: 8 * mib, Partition: 2, Untrusted: true}))
			run(t)(Clone(disk, disk+".part", Cloning{Partition: 2}))
			partInOrder(t, disk, at{part(t, disk, 2), "ext4"}, 56*mib, kind, inside)
			for name, want := range map[string]map[string][32]byte{path: files, path + ".2": files, disk + ".part": inside} {
				inOrder(t, name, "ext4")
				holds(t, name, "ext4", want)
				if d := look(t, name); d.Kind != kind {
					t.Errorf("on %s %s is %s", host, name, d.Kind)
				}
			}
		}
		left, err := os.ReadDir(folder)
		must(t, err)
		if len(left) != 4*len(kinds) {
			t.Errorf("on %s there are %v", host, left)
		}
	}
}
