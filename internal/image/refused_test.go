package image

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/image/journal"
	"upkeep/internal/testkit"
)

// A file that holds an image packed is no image: bytes at its end would spoil it.
func TestPackedIsNotGrown(t *testing.T) {
	need(t, "ext2")
	image := made(t, Creation{Size: 4 * mib, FS: "ext2"})
	packed, zipped, qcow2 := filepath.Join(t.TempDir(), "a.zst"), filepath.Join(t.TempDir(), "a.gz"), filepath.Join(t.TempDir(), "a.qcow2")
	run(t)(Pack(image, packed, PackOptions{}))
	out, err := os.Create(zipped)
	must(t, err)
	z := gzip.NewWriter(out)
	_, err = z.Write(make([]byte, 8192))
	must(t, errors.Join(err, z.Close(), out.Close()))
	must(t, os.WriteFile(qcow2, append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 8192)...), 0o600))
	for path, says := range map[string]string{packed: "packed", zipped: "gzip", qcow2: "qcow2"} {
		for _, growth := range []Growth{{By: mib}, {By: mib, FileOnly: true}} {
			err := refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Grow(path, growth) })
			if !strings.Contains(err.Error(), "is a "+says+" file") {
				t.Errorf("growing %s: %v", path, err)
			}
		}
		err := refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Check(path, Checking{}) })
		if !strings.Contains(err.Error(), "is a "+says+" file") {
			t.Errorf("checking %s: %v", path, err)
		}
	}
}

// What a refusal says that works is not refused in its turn.
func TestRefusalsSayWhatWorks(t *testing.T) {
	hint := func(err error) string {
		var h *upkeep.HintError
		if !errors.As(err, &h) {
			t.Fatalf("there is no hint: %v", err)
		}
		return h.Hint
	}
	blank := made(t, Creation{Size: 4 * mib})
	if says := hint(refused(t, blank, upkeep.ErrRefused, func() (*Work, error) { return Grow(blank, Growth{By: mib}) })); !strings.Contains(says, `--file-only (in a job "file_only": true)`) {
		t.Errorf("growing a blank image: %s", says)
	}
	run(t)(Grow(blank, Growth{By: mib, FileOnly: true}))

	xfs := made(t, Creation{Size: 300 * mib, FS: "xfs"})
	says := hint(refused(t, xfs, upkeep.ErrRefused, func() (*Work, error) { return Grow(xfs, Growth{By: mib, Untrusted: true}) }))
	if !strings.Contains(says, "--file-only") || strings.Contains(says, "copy") {
		t.Errorf("growing xfs that is not trusted: %s", says)
	}
	run(t)(Grow(xfs, Growth{By: mib, FileOnly: true, Untrusted: true}))

	swap := made(t, Creation{Size: 4 * mib, FS: "swap"})
	var h *upkeep.HintError
	if _, err := OpenFiles(context.Background(), swap, 0); !errors.Is(err, upkeep.ErrRefused) || errors.As(err, &h) || !strings.Contains(err.Error(), "holds swap space") {
		t.Errorf("looking into swap: %v", err)
	}
	if says := hint(refused(t, swap, upkeep.ErrRefused, func() (*Work, error) { return Check(swap, Checking{Repair: true}) })); !strings.Contains(says, "make it anew") {
		t.Errorf("repairing swap: %s", says)
	}

	ext := made(t, Creation{Size: 16 * mib, FS: "ext4"})
	w, err := Shrink(ext, Shrinking{Min: true})
	must(t, err)
	if steps := fmt.Sprint(w.Plan.Steps); !strings.Contains(steps, "shrink its ext4 as far as it goes, and check") {
		t.Errorf("the plan is %s", steps)
	}
	must(t, w.Close())
}

// What a killed command left half done is not read as if it were whole.
func TestHalfDoneIsNotRead(t *testing.T) {
	need(t, "ext4")
	path := made(t, Creation{Size: 16 * mib, FS: "ext4"})
	file, err := os.Open(path)
	must(t, err)
	must(t, journal.Begin(path, file, journal.Entry{Verb: "grow", At: time.Now(), From: int64(16 * mib), To: int64(32 * mib), FSFrom: int64(16 * mib), Type: "ext4"}))
	must(t, file.Close())
	folder := t.TempDir()
	to := filepath.Join(folder, "new")
	for verb, try := range map[string]func() (*Work, error){
		"check": func() (*Work, error) { return Check(path, Checking{}) },
		"pack":  func() (*Work, error) { return Pack(path, to, PackOptions{}) },
		"clone": func() (*Work, error) { return Clone(path, to, Cloning{}) },
		"copy":  func() (*Work, error) { return Copy(path, folder, Copying{Untrusted: true}) },
	} {
		w, err := try()
		var hint *upkeep.HintError
		if w != nil || !errors.Is(err, upkeep.ErrConflict) || !errors.As(err, &hint) || !strings.HasPrefix(hint.Hint, "upkeep image recover ") {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if d := look(t, path); !strings.HasPrefix(d.Unfinished, "a command (grow, begun ") {
		t.Errorf("it is described as %q", d.Unfinished)
	}
	w, err := Recover(path)
	must(t, err)
	if steps := fmt.Sprint(w.Plan.Steps); !strings.Contains(steps, "from 16M to 32M that was begun 20") || strings.Contains(steps, ".") {
		t.Errorf("the plan to recover it is %s", steps)
	}
	must(t, w.Close())
}

// TestCopyNames has names that lead to nothing, or to one file.
func TestCopyNames(t *testing.T) {
	image := made(t, Creation{Size: 4 * mib})
	missing := filepath.Join(t.TempDir(), "missing")
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(image, link))
	for _, c := range []struct {
		src, dst, says string
		want           error
	}{
		{missing, image, "there is no file " + missing, upkeep.ErrNotFound},
		{image, filepath.Join(missing, "x.img"), "there is no folder " + missing, upkeep.ErrNotFound},
		{image, image, "are the same file", upkeep.ErrRefused},
		{image, link, "are the same file", upkeep.ErrRefused},
	} {
		w, err := Copy(c.src, c.dst, Copying{})
		if w != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("copy %s %s: %v", c.src, c.dst, err)
		}
	}
}

// What nothing can find out is refused before anything is copied.
func TestShrinkReiserFSToTheLeast(t *testing.T) {
	need(t, "reiserfs")
	path := made(t, Creation{Size: 64 * mib, FS: "reiserfs"})
	err := refused(t, path, upkeep.ErrRefused, func() (*Work, error) { return Shrink(path, Shrinking{Min: true}) })
	var hint *upkeep.HintError
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--to") {
		t.Errorf("shrinking it to the least: %v", err)
	}
}

// What a changed image could not keep is said before anything is begun, and of whom it is.
func TestOwnersThatCannotBeKept(t *testing.T) {
	testkit.NeedRoot(t)
	image := made(t, Creation{Size: 32 * mib, FS: "ext4"})
	folder := filepath.Dir(image)
	must(t, os.Chown(folder, 65534, 65534))
	as := asNobody(t, folder)
	for _, c := range []struct {
		uid, gid int
		says     string
	}{
		{65534, 0, "would not keep its group, which is gid 0"},
		{0, 0, "would not keep its owner, which is uid 0"},
		{65534, 65534, ""},
	} {
		must(t, errors.Join(os.Chown(image, c.uid, c.gid), os.Chmod(image, 0o666)))
		before := print(t, image)
		for _, args := range [][]string{{"grow", "--by", "1M"}, {"shrink", "--min"}, {"mkfs", "ext4", "--force"}, {"check", "--repair"}} {
			args = append([]string{args[0], image}, args[1:]...)
			said, err := as(append(args, "--plan")...)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(said, c.says) || !strings.Contains(said, "hint: ")) {
				t.Errorf("%d:%d: the plan of %s: %v: %s", c.uid, c.gid, args[0], err, said)
			}
		}
		if after := print(t, image); after != before {
			t.Errorf("it is %s, and was %s", after, before)
		}
		onlyFile(t, image)
	}
}
