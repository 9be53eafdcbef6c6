package webserver

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	ossignal "os/signal"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever is in the file, what is read of it is whole, and what is kept after
// that is found again.
func FuzzGoodTexts(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(appendGood(appendGood(nil, "sites/a.conf", []byte("one")), "sites/a.conf", []byte("two\n")))
	f.Add(appendGood(nil, "sites/a.conf", []byte("one"))[:70])
	f.Add([]byte("sites/a.conf 00 99999999999\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		state := t.TempDir()
		if err := os.WriteFile(state+"/good", content, 0o600); err != nil {
			t.Fatal(err)
		}
		var records []byte
		in := bufio.NewReader(bytes.NewReader(content))
		for {
			path, text, err := readGood(in)
			if err != nil {
				break
			}
			records = appendGood(records, path, text)
		}
		if len(records) > len(content) {
			t.Fatalf("%q was read of %q", records, content)
		}
		g, err := openGoodTexts(state, map[string]bool{"sites/a.conf": true})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.add(appendGood(nil, "sites/a.conf", []byte("last")), nil); err != nil {
			t.Fatal(err)
		}
		if text, err := g.latest("sites/a.conf"); err != nil || string(text) != "last" {
			t.Fatalf("%q, %v", text, err)
		}
	})
}

// The file does not grow for ever, and only what is still wanted stays in it.
func TestGoodTextsAreBounded(t *testing.T) {
	state := t.TempDir()
	wanted := func() map[string]bool { return map[string]bool{"kept": true} }
	g, err := openGoodTexts(state, wanted())
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("x"), 1<<20)
	for range 30 {
		if err := g.add(appendGood(appendGood(nil, "kept", large), "gone", large), wanted); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(g.file)
	if err != nil || info.Size() != g.size || g.size > 4*int64(len(large))+slackTexts {
		t.Errorf("%v, %v; counted as %d", info, err, g.size)
	}
	if text, err := g.latest("kept"); err != nil || !bytes.Equal(text, large) {
		t.Errorf("%d bytes are left, %v", len(text), err)
	}
	if _, err := openGoodTexts(state, wanted()); err != nil {
		t.Fatal(err)
	}
	if text, err := g.latest("gone"); err != nil || text != nil {
		t.Errorf("%d bytes of what is not wanted, %v", len(text), err)
	}
}

// A record that a full disk cuts off hides none that come after it. A limit on the
// size of files stands for the disk.
func TestGoodTextsOnAFullDisk(t *testing.T) {
	g, err := openGoodTexts(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.add(appendGood(nil, "before", []byte("one")), nil); err != nil {
		t.Fatal(err)
	}
	ossignal.Ignore(syscall.SIGXFSZ)
	defer ossignal.Reset(syscall.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(g.size) + 50, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	err = g.add(appendGood(nil, "cut", bytes.Repeat([]byte("x"), 1000)), nil)
	if again := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); again != nil {
		t.Fatal(again)
	}
	if !errors.Is(err, unix.EFBIG) {
		t.Fatalf("what does not fit: %v", err)
	}
	if err := g.add(appendGood(nil, "after", []byte("two")), nil); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"before": "one", "cut": "", "after": "two"} {
		if text, err := g.latest(path); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
}
