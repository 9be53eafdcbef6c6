// Package lookuptest holds readers of file systems against what their callers build on,
// whatever an image says.
package lookuptest

import (
	"bytes"
	"io"
	"io/fs"
	"strings"
	"testing"
)

const (
	maxFiles   = 100 // a folder may be in itself
	maxDepth   = 10
	maxContent = 1 << 20
)

// Explore goes through files that may come from a damaged or hostile image, and stops at
// nothing but its own bounds. Errors are in order there. Names that lead elsewhere are not,
// nor are sizes below zero, nor a file that has another length than is said, nor bytes that
// are others when they are read again.
func Explore(t *testing.T, files fs.ReadLinkFS) {
	t.Helper()
	count := 0
	_ = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error { // errors are what a damaged image has
		if count++; count > maxFiles {
			return fs.SkipAll
		}
		if err != nil || strings.Count(name, "/") > maxDepth {
			return fs.SkipDir
		}
		if element := d.Name(); name != "." && (strings.ContainsAny(element, "/\x00") || element == "" || element == "." || element == "..") {
			t.Errorf("a file is named %q, at %q", element, name)
		}
		explore(t, files, name)
		return nil
	})
}

// explore looks at one file in each way that there is.
func explore(t *testing.T, files fs.ReadLinkFS, name string) {
	t.Helper()
	_, _ = files.ReadLink(name) // of what is none it fails
	if info, err := files.Lstat(name); err == nil && info.Size() < 0 {
		t.Errorf("%s has %d bytes", name, info.Size())
	}
	file, err := files.Open(name)
	if err != nil {
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	content, err := io.ReadAll(io.LimitReader(file, maxContent))
	if want := min(info.Size(), maxContent); err == nil && int64(len(content)) != want {
		t.Errorf("of %s there are %d bytes, and it should have %d", name, len(content), want)
	}
	at, is := file.(io.ReaderAt)
	if !is {
		return
	}
	again := make([]byte, len(content)/2)
	start := len(content) - len(again)
	if n, err := at.ReadAt(again, int64(start)); err == nil && !bytes.Equal(again[:n], content[start:]) {
		t.Errorf("%s has other bytes behind %d when it is read again", name, start)
	}
	if n, _ := at.ReadAt(make([]byte, 1), info.Size()); n != 0 {
		t.Errorf("%s has bytes behind its end", name)
	}
}

// ZeroPadded is an image that is zero all over behind its first bytes.
type ZeroPadded []byte

// ReadAt implements [io.ReaderAt], and has no end.
func (z ZeroPadded) ReadAt(b []byte, offset int64) (int, error) {
	clear(b)
	if offset < int64(len(z)) {
		copy(b, z[offset:])
	}
	return len(b), nil
}
