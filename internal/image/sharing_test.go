package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upkeep"
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

// TestFullSharesWhatWasWritten has less free than a full image takes. XFS shares no blocks
// that were not written, so that there is no room for a second file; btrfs shares all.
func TestFullSharesWhatWasWritten(t *testing.T) {
	need(t, "ext4")
	for host, inPlace := range map[string]bool{"xfs": true, "btrfs": false} {
		folder := sharing(t, host)
		path := filepath.Join(folder, "web.img")
		run(t)(Create(path, Creation{Size: 200 * mib, FS: "ext4", Kind: upkeep.ImageFull}))
		ballast := leave(t, folder, 150*mib)
		cloned, err := Clone(path, path+".clone", Cloning{})
		if errors.As(err, new(*noRoomError)) != inPlace || (err == nil) == inPlace {
			t.Errorf("on %s a clone: %v", host, err)
		}
		if err == nil {
			must(t, errors.Join(cloned.Do(context.Background(), nil), cloned.Close()))
		}
		w, err := Grow(path, Growth{By: 20 * mib})
		must(t, err)
		if says := fmt.Sprint(w.Plan.Steps); strings.Contains(says, "bytes are missing for one") != inPlace {
			t.Errorf("on %s: the plan is %s", host, says)
		}
		must(t, errors.Join(w.Do(context.Background(), nil), w.Close(), os.Remove(ballast)))
		inOrder(t, path, "ext4")
		if d := look(t, path); d.Kind != upkeep.ImageFull || d.Size != 220*mib {
			t.Errorf("on %s it is %s of %s", host, d.Kind, d.Size)
		}
	}
}

// TestWithoutACheckBefore has file systems that say that they are clean, and are in
// order, are not but can be mended, or can not.
func TestWithoutACheckBefore(t *testing.T) {
	need(t, "ext4")
	testkit.Need(t, "debugfs")
	path := filepath.Join(sharing(t, "xfs"), "web.img")
	for doing, plan := range map[string]func() (*Work, error){
		"growing ext4":   func() (*Work, error) { return Grow(path, Growth{By: 8 * mib}) },
		"shrinking ext4": func() (*Work, error) { return Shrink(path, Shrinking{Min: true}) },
	} {
		once := []string{"sharing blocks", doing, "checking", "putting it in place"}
		for _, c := range []struct {
			name, damage string
			steps        []string
			fails        bool
		}{
			{"in order", "stat /", once, false},
			{"can be mended", "sif / links_count 9", append(slices.Clone(once[:3]), once...), false},
			{"cannot", "clri <2>", append(slices.Clone(once[:3]), once[:2]...), true},
		} {
			run(t)(Create(path, Creation{Size: 40 * mib, FS: "ext4"}))
			files := fill(t, path, "ext4")
			printed(t, "debugfs", "-w", "-R", c.damage, path)
			before := print(t, path)
			w, err := plan()
			must(t, err)
			if says := fmt.Sprint(w.Plan.Steps); !strings.Contains(says, "or begin anew with a check before") {
				t.Errorf("the plan is %s", says)
			}
			var steps []string
			err = w.Do(context.Background(), func(e upkeep.ImageEvent) {
				if e.Event == upkeep.ImageStep {
					steps = append(steps, e.Step)
				}
			})
			must(t, w.Close())
			if !slices.Equal(steps, c.steps) || (err != nil) != c.fails {
				t.Errorf("%s, %s: it did %q: %v", doing, c.name, steps, err)
			}
			if c.fails && print(t, path) != before {
				t.Errorf("%s, %s: it was changed", doing, c.name)
			}
			if !c.fails {
				inOrder(t, path, "ext4")
				holds(t, path, "ext4", files)
			}
			onlyFile(t, path)
			must(t, os.Remove(path))
		}
	}

	// A partition is tried so, too.
	disk := filepath.Join(filepath.Dir(path), "disk.img")
	run(t)(Create(disk, Creation{Size: 48 * mib}))
	divide(t, disk, tables[0].script)
	run(t)(MkFS(disk, Remaking{Type: "ext4", Partition: 2}))
	files := fillAt(t, disk, at{part(t, disk, 2), "ext4"}.mount())
	w, err := Grow(disk, Growth{By: 8 * mib, Partition: 2})
	must(t, err)
	if says := fmt.Sprint(w.Plan.Steps); !strings.Contains(says, "or begin anew with a check before") {
		t.Errorf("the plan for a partition is %s", says)
	}
	must(t, errors.Join(w.Do(context.Background(), nil), w.Close()))
	partInOrder(t, disk, at{part(t, disk, 2), "ext4"}, 56*mib, upkeep.ImageSparse, files)

	// What is not trusted is checked before programs that are less wary work on it.
	run(t)(Create(path, Creation{Size: 40 * mib, FS: "ext4"}))
	for _, plan := range []func() (*Work, error){
		func() (*Work, error) { return Grow(path, Growth{By: 8 * mib, Untrusted: true}) },
		func() (*Work, error) { return Shrink(path, Shrinking{Min: true, Untrusted: true}) },
	} {
		w, err := plan()
		must(t, err)
		if says := fmt.Sprint(w.Plan.Steps); !strings.Contains(says, "before and after") {
			t.Errorf("the plan for what is not trusted is %s", says)
		}
		must(t, w.Close())
	}
}
