package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/partition"
	"upkeep/internal/testkit"
)

// overwrite has bytes of an image be others.
func overwrite(t *testing.T, path string, at int64, p []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt(p, at)
	must(t, errors.Join(err, file.Close()))
}

// TestLostSuperblock has zeros where the primary superblock was: a check says so and
// changes nothing, and a repair puts it back with all files.
func TestLostSuperblock(t *testing.T) {
	for _, c := range []struct {
		fs    string
		block int64
		part  int
	}{{"ext2", 1024, 0}, {"ext3", 2048, 0}, {"ext4", 4096, 0}, {"ext4", 1024, 2}} {
		size := 160 * mib
		creation := Creation{Size: size, FS: c.fs, Options: filesystem.Options{BlockSize: c.block}}
		var path string
		var p partition.Partition
		o := mount.Options{Type: c.fs}
		if c.part == 0 {
			path = made(t, creation)
		} else {
			path = disk(t, creation, tables[0].script, c.part)
			p = part(t, path, c.part)
			o = at{p, c.fs}.mount()
		}
		files := fillAt(t, path, o)
		overwrite(t, path, p.Offset+1024, make([]byte, 1024))

		d, err := InfoOf(path, c.part)
		must(t, err)
		if d.Lost == nil || d.Lost.Type != c.fs || d.Lost.Group != 1 || d.Lost.BlockSize != c.block || d.FS != nil {
			t.Fatalf("%s: told is %+v", c.fs, d)
		}
		for what, try := range map[string]func() (*Work, error){
			"grow":      func() (*Work, error) { return Grow(path, Growth{By: mib, Partition: c.part}) },
			"file only": func() (*Work, error) { return Grow(path, Growth{By: mib, FileOnly: c.part == 0, Partition: c.part}) },
			"mkfs":      func() (*Work, error) { return MkFS(path, Remaking{Type: "ext2", Partition: c.part}) },
		} {
			if err := refused(t, path, upkeep.ErrRefused, try); !strings.Contains(err.Error(), c.fs) {
				t.Errorf("%s: %v", what, err)
			}
		}
		before := print(t, path)
		verdict := run(t)(Check(path, Checking{Partition: c.part})).(filesystem.Verdict)
		if verdict.Clean || !strings.Contains(verdict.Found, "its primary superblock is lost") || verdict.Hint == "" {
			t.Errorf("%s: found is %+v", c.fs, verdict)
		}
		if after := print(t, path); after != before {
			t.Errorf("%s: a check changed it to %s, from %s", c.fs, after, before)
		}
		verdict = run(t)(Check(path, Checking{Partition: c.part, Repair: true})).(filesystem.Verdict)
		if !verdict.Clean || !verdict.Mended || !strings.Contains(verdict.Found, "its primary superblock is lost") {
			t.Errorf("%s: repaired is %+v", c.fs, verdict)
		}
		if verdict = run(t)(Check(path, Checking{Partition: c.part})).(filesystem.Verdict); !verdict.Clean {
			t.Errorf("%s: after that found is %+v", c.fs, verdict)
		}
		o.ReadOnly = true
		holdsAt(t, path, o, files)
		onlyFile(t, path)
	}
}

// Copies of a superblock that outlived what was made of the image are not repaired from.
func TestLeftoversAreNotTaken(t *testing.T) {
	testkit.Need(t, "sfdisk")
	ext := func() string {
		path := made(t, Creation{Size: 64 * mib, FS: "ext4", Options: filesystem.Options{BlockSize: 1024}})
		overwrite(t, path, 1024, make([]byte, 1024))
		if look(t, path).Lost == nil {
			t.Fatal("its superblock is not lost")
		}
		return path
	}
	for what, becomes := range map[string]func(path string){
		"a disk": func(path string) { divide(t, path, "label: dos\nsize=8M\n") },
		"a disk of which the start is lost": func(path string) {
			divide(t, path, "label: gpt\nsize=8M\n")
			overwrite(t, path, 0, make([]byte, mib))
		},
		"a packed image": func(path string) { overwrite(t, path, 0, []byte("QFI\xfb\x00\x00\x00\x03")) },
		"swap":           func(path string) { testkit.Run(t, "mkswap", path) },
		"LUKS": func(path string) {
			overwrite(t, path, 0, append([]byte("LUKS\xba\xbe\x00\x01"), bytes.Repeat([]byte("key"), 2000)...))
		},
	} {
		path := ext()
		becomes(path)
		if d := look(t, path); d.Lost != nil {
			t.Errorf("%s is told to be %v", what, d.Lost)
		}
		if what != "swap" {
			refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Check(path, Checking{Repair: true}) })
		}
	}
}

// An image that lost its end, too, is left alone.
func TestLostAndCut(t *testing.T) {
	path := made(t, Creation{Size: 64 * mib, FS: "ext4", Options: filesystem.Options{BlockSize: 1024}})
	overwrite(t, path, 1024, make([]byte, 1024))
	must(t, os.Truncate(path, int64(48*mib)))
	err := refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Check(path, Checking{Repair: true}) })
	if !strings.Contains(err.Error(), filepath.Base(path)+" was cut off") {
		t.Errorf("refused with %v", err)
	}
}
