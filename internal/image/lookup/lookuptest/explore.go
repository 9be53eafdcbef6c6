// Package lookuptest holds readers of file systems against what their callers build on,
// whatever an image says.
package lookuptest

import (
	"bytes"
	"io"
	"io/fs"
	"strings"
	"testing"

	"upkeep/internal/image/lookup"
)

const (
	maxFiles   = 100 // a folder may be in itself
	maxDepth   = 10
	maxContent = 1 << 20
	maxPieces  = 64 // of a file
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
	_, _ = at.ReadAt(make([]byte, 1), info.Size()-1)
	if err == nil {
		holes(t, file.(lookup.Content), name, content, info.Size())
	}
}

// holes goes from one piece of data to the next. What is between them is to be zeros, as
// far as the content is there.
func holes(t *testing.T, file lookup.Content, name string, content []byte, size int64) {
	t.Helper()
	at := int64(0)
	for range maxPieces {
		from, to, err := file.NextData(at)
		if err != nil || at == size {
			return
		}
		if from < at || to < from || to > size || to == from && to != size {
			t.Errorf("%s, of %d bytes, is said to have data from %d to %d behind %d", name, size, from, to, at)
			return
		}
		known := int64(len(content))
		if hole := content[min(at, known):min(from, known)]; len(bytes.Trim(hole, "\x00")) > 0 {
			t.Errorf("%s has data in the hole from %d to %d", name, at, from)
		}
		at = to
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
