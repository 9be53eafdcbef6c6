package weblog

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func folder(t *testing.T, dir, site string) string {
	t.Helper()
	path := filepath.Join(dir, site)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func split(t *testing.T, o Options, text string) Stats {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Copy(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.Stats()
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

func TestSplit(t *testing.T) {
	dir := t.TempDir()
	folder(t, dir, "a.test")
	folder(t, dir, "b.test")
	stats := split(t, Options{Dir: dir, File: "access.log", MaxOpen: 1},
		"a.test one\nb.test two\na.test three\nother.test x\n../a.test x\n/etc x\n. x\n x\nnoblank\na.test last")
	if a, b := read(t, dir+"/a.test/access.log"), read(t, dir+"/b.test/access.log"); a != "one\nthree\nlast\n" || b != "two\n" {
		t.Errorf("a has %q, b has %q", a, b)
	}
	if stats.Lines != 4 || stats.Dropped != 6 {
		t.Errorf("%+v", stats)
	}
}

// TestTriedAgain: what kept a file from being opened, such as a full disk, may be over.
func TestTriedAgain(t *testing.T) {
	dir := t.TempDir()
	s, err := New(Options{Dir: dir, File: "access.log"})
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Unix(1_700_000_000, 0)
	s.now = func() time.Time { return clock }
	path := folder(t, dir, "a.test")
	if err := os.Mkdir(path+"/access.log", 0o700); err != nil {
		t.Fatal(err)
	}
	copied := func(line string) {
		t.Helper()
		if err := s.Copy(strings.NewReader("a.test " + line + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	copied("one")
	if err := os.Remove(path + "/access.log"); err != nil {
		t.Fatal(err)
	}
	copied("two") // not tried with each line
	clock = clock.Add(absentFor)
	copied("three")
	copied("four")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path+"/access.log"); got != "three\nfour\n" {
		t.Errorf("the log has %q", got)
	}
}

func TestLongLines(t *testing.T) {
	dir := t.TempDir()
	folder(t, dir, "a.test")
	split(t, Options{Dir: dir, File: "x.log"}, "a.test "+strings.Repeat("x", 3*maxLine)+"\na.test next\n")
	text := read(t, dir+"/a.test/x.log")
	if lines := strings.Split(text, "\n"); len(lines) != 3 || lines[1] != "next" || len(lines[0]) < maxLine/2 {
		t.Errorf("%d lines, the first of %d bytes", len(lines), len(lines[0]))
	}
}

// Nothing but a plain file in a folder that only we write to is written to.
func TestTargets(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink(outside, folder(t, dir, "link.test")+"/access.log"))
	must(syscall.Mkfifo(folder(t, dir, "fifo.test")+"/access.log", 0o600))
	must(os.Mkdir(folder(t, dir, "dir.test")+"/access.log", 0o700))
	must(os.Link(outside, folder(t, dir, "hard.test")+"/access.log"))
	must(os.Symlink(filepath.Dir(outside), filepath.Join(dir, "folder.test")))
	must(os.Chmod(folder(t, dir, "open.test"), 0o777))
	text := ""
	for _, site := range []string{"link", "fifo", "dir", "hard", "folder", "open"} {
		text += site + ".test attack\n"
	}
	if stats := split(t, Options{Dir: dir, File: "access.log"}, text); stats.Dropped != 6 || stats.Lines != 0 {
		t.Errorf("%+v", stats)
	}
	if got := read(t, outside); got != "secret\n" {
		t.Errorf("a file outside has %q", got)
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(outside), "access.log")); err == nil {
		t.Error("a log was made in a folder outside")
	}
}

// With many sites, few files are open at a time, and no line is lost.
func TestManySites(t *testing.T) {
	dir := t.TempDir()
	const sites, most = 2000, 64
	var text bytes.Buffer
	for round := range 2 {
		for i := range sites {
			site := fmt.Sprintf("s%d.test", i)
			if round == 0 {
				folder(t, dir, site)
			}
			fmt.Fprintf(&text, "%s line %d\n", site, round)
		}
	}
	s, err := New(Options{Dir: dir, File: "access.log", MaxOpen: most})
	if err != nil {
		t.Fatal(err)
	}
	highest := int64(0)
	err = s.Copy(readerFunc(func(p []byte) (int, error) {
		highest = max(highest, s.Stats().Open)
		return text.Read(p[:min(len(p), 4096)])
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if highest > most || highest == 0 {
		t.Errorf("%d files were open, at most %d are wanted", highest, most)
	}
	for i := range sites {
		if got := read(t, fmt.Sprintf("%s/s%d.test/access.log", dir, i)); got != "line 0\nline 1\n" {
			t.Fatalf("s%d.test has %q", i, got)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestReopenAndRotate(t *testing.T) {
	dir := t.TempDir()
	path := folder(t, dir, "a.test") + "/access.log"
	s, err := New(Options{Dir: dir, File: "access.log", MaxSize: 10, Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := s.Copy(io.MultiReader(strings.NewReader(text))); err != nil {
			t.Fatal(err)
		}
	}
	write("a.test 1\n")
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	s.Reopen()
	write("a.test 2\n")
	if moved, now := read(t, path+".moved"), read(t, path); moved != "1\n" || now != "2\n" {
		t.Errorf("after Reopen the old file has %q, the new %q", moved, now)
	}
	for i := range 4 {
		write(fmt.Sprintf("a.test %d%s\n", i, strings.Repeat("x", 10)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if one, two := read(t, path+".1"), read(t, path+".2"); one[:1] != "3" || two[:1] != "2" {
		t.Errorf("put aside: %q and %q", one, two)
	}
	if _, err := os.Lstat(path + ".3"); err == nil {
		t.Error("more files are kept than was asked for")
	}
}

func FuzzCopy(f *testing.F) {
	f.Add([]byte("a.test x\n"))
	f.Add([]byte("../a.test x\n\x00 \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		folder(t, dir, "a.test")
		split(t, Options{Dir: dir, File: "access.log", MaxSize: 100}, string(text))
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Fatalf("%v %v", entries, err)
		}
	})
}

// Who moves a file away or removes it tells nobody: within a second lines go into
// a new one.
func TestMovedAway(t *testing.T) {
	dir := t.TempDir()
	path := folder(t, dir, "a.test") + "/x.log"
	s, err := New(Options{Dir: dir, File: "x.log"})
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Now()
	s.now = func() time.Time { return clock }
	line := func(text string) {
		t.Helper()
		if err := s.Copy(strings.NewReader("a.test " + text + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	line("one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	line("two") // it is not looked at with every line
	clock = clock.Add(lookEvery)
	line("three")
	if old, now := read(t, path+".1"), read(t, path); old != "one\ntwo\n" || now != "three\n" {
		t.Errorf("the file that was moved has %q, the new one %q", old, now)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(lookEvery)
	line("four")
	if err := os.Symlink(path+".1", path+".link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".link", path); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(lookEvery)
	line("five") // into the file that it has, not through a link
	if now := read(t, path); now != "one\ntwo\n" {
		t.Errorf("through the link there is %q", now)
	}
	if stats := s.Stats(); stats.Open != 1 || stats.Lines != 5 {
		t.Errorf("%+v", stats)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
