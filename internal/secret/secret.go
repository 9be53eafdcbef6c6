// Package secret reads and writes files that nobody but their owner may read:
// keys, passwords, tokens.
package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"upkeep"
)

// Read reads a file of at most max bytes. A file that others than its owner can
// get at is refused, with a hint: whoever reads it can pass for its owner.
// What is no regular file is refused, too.
func Read(path string, max int) (text []byte, err error) {
	// Without O_NONBLOCK, opening a named pipe would wait for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && !isCredential(path) {
		return nil, upkeep.WithHint(fmt.Errorf("%s has mode %04o, so others than its owner can get at what it holds", path, mode), "chmod 600 "+path)
	}
	text, err = io.ReadAll(io.LimitReader(file, int64(max)+1))
	if err != nil {
		return nil, err
	}
	if len(text) > max {
		return nil, fmt.Errorf("%s must be at most %d bytes", path, max)
	}
	return text, nil
}

// Word reads a file that holds one password, token or URL, without the newline
// at its end.
func Word(path string) (string, error) {
	text, err := Read(path, 64<<10)
	if err != nil {
		return "", err
	}
	word := strings.TrimRight(string(text), "\r\n")
	if word == "" || strings.ContainsFunc(word, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
		return "", fmt.Errorf("%s must hold one line", path)
	}
	return word, nil
}

// isCredential reports whether systemd put the file there for this service
// alone (LoadCredential=). It gives access by an ACL, whose mask shows as group
// permission, in a folder that nobody else can enter.
func isCredential(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return dir != "" && filepath.Dir(filepath.Clean(path)) == filepath.Clean(dir)
}
