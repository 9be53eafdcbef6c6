package secret

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"upkeep"
)

func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadDemandsAPrivateFile(t *testing.T) {
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o660: false, 0o644: false, 0o610: false} {
		path := write(t, "x", mode)
		_, err := Read(path, 10)
		if (err == nil) != ok {
			t.Errorf("mode %04o: got %v", mode, err)
		}
		var hint *upkeep.HintError
		if err != nil && (!errors.As(err, &hint) || hint.Hint != "chmod 600 "+path) {
			t.Errorf("mode %04o: no hint in %v", mode, err)
		}
	}
}

func TestReadFromServiceManager(t *testing.T) {
	path := write(t, "x", 0o440)
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
	if _, err := Read(path, 10); err != nil {
		t.Errorf("a credential of this service was refused: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(filepath.Dir(path)))
	if _, err := Read(path, 10); err == nil {
		t.Error("a readable file elsewhere was taken for a credential")
	}
}

func TestReadRefuses(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, t.TempDir(), write(t, strings.Repeat("x", 11), 0o600)} {
		if _, err := Read(path, 10); err == nil {
			t.Errorf("%s was read", path)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "gone"), 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestWord(t *testing.T) {
	for text, want := range map[string]string{"pass word\n": "pass word", "p\r\n": "p", "p": "p", "": "", "\n": "", "a\nb\n": "", "a\x00": ""} {
		got, err := Word(write(t, text, 0o600))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}
