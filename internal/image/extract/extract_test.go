package extract

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/lookup"
)

// node is a folder by its entries, or a file by its content.
type node struct {
	number  uint64
	links   uint32
	entries map[string]*node
	content *spread
}

func (n *node) Lookup(string) (*node, error) { return nil, errors.New("it is looked for by its name") }
func (n *node) Link() (string, error)        { return "", errors.ErrUnsupported }

func (n *node) Content() (lookup.Content, error) { return n.content, nil }

func (n *node) Entries() (all []lookup.Entry[*node], err error) {
	for name, below := range n.entries {
		all = append(all, lookup.Entry[*node]{Name: name, Node: func() (*node, error) { return below, nil }})
	}
	return all, nil
}

func (n *node) Stat() lookup.Stat {
	s := lookup.Stat{Mode: fs.ModeDir | 0o700, ModTime: time.Unix(1, 0), Owner: lookup.Owner{Unowned: true, Inode: n.number, Links: n.links}}
	if n.content != nil {
		s.Mode, s.Size = 0o600, n.content.size
	}
	return s
}

// spread is content that is nearly all holes, which nobody is to read.
type spread struct {
	t      *testing.T
	size   int64
	pieces map[int64][]byte // by where they are
	starts []int64
}

func (s *spread) NextData(offset int64) (from, to int64, err error) {
	for _, from := range s.starts {
		if to := from + int64(len(s.pieces[from])); offset < to {
			return max(from, offset), to, nil
		}
	}
	return s.size, s.size, nil
}

func (s *spread) ReadAt(b []byte, at int64) (int, error) {
	for from, piece := range s.pieces {
		if within := at - from; within >= 0 && within+int64(len(b)) <= int64(len(piece)) {
			return copy(b, piece[within:]), nil
		}
	}
	s.t.Errorf("%d bytes at %d are read, which are in a hole", len(b), at)
	return 0, io.ErrUnexpectedEOF
}

// A file of terabytes with next to nothing in it costs what is in it.
func TestHoles(t *testing.T) {
	first, second := bytes.Repeat([]byte("first"), 200_000), []byte("second")
	const at, behind = 1<<30 + 1000, 1<<40 - 77
	file := &node{number: 2, links: 2, content: &spread{t, 1 << 40, map[int64][]byte{at: first, behind: second}, []int64{at, behind}}}
	none := &node{number: 3, links: 1, content: &spread{t: t, size: 1 << 39}}
	top, err := lookup.FilesBelow(func() (*node, error) {
		return &node{number: 1, entries: map[string]*node{"file": file, "again": file, "none": none, "folder": {number: 4}}}, nil
	}).Top()
	must(t, err)
	want := (at+int64(len(first))+4095)/4096*4096 - at/4096*4096 + 4096
	if measured, err := Measure(context.Background(), top); err != nil || measured != want {
		t.Errorf("%d bytes are measured, %v, and not %d", measured, err, want)
	}
	folder := t.TempDir()
	dir, err := os.Open(folder)
	must(t, err)
	defer dir.Close()
	report, err := Tree(context.Background(), dir, top, Options{})
	if err != nil || report.Entries != 5 || report.Bytes != int64(len(first)+len(second)) || len(report.Lost) > 0 {
		t.Errorf("copied is %+v, %v", report, err)
	}
	var st, again unix.Stat_t
	must(t, errors.Join(unix.Stat(filepath.Join(folder, "file"), &st), unix.Stat(filepath.Join(folder, "again"), &again)))
	if st.Size != 1<<40 || st.Blocks*512 > 4<<20 || st.Ino != again.Ino {
		t.Errorf("the copy has %d bytes, takes %d blocks, and its other name is %d and not %d", st.Size, st.Blocks, again.Ino, st.Ino)
	}
	made, err := os.Open(filepath.Join(folder, "file"))
	must(t, err)
	defer made.Close()
	for from, piece := range file.content.pieces {
		got := make([]byte, len(piece))
		if _, err := made.ReadAt(got, from); err != nil || !bytes.Equal(got, piece) {
			t.Errorf("the piece at %d is another, %v", from, err)
		}
	}
	if _, err := Tree(context.Background(), dir, top, Options{}); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("into a folder that is not empty: %v", err)
	}
}

// A folder in itself ends, and so does one that is measured.
func TestFolderInItself(t *testing.T) {
	root := &node{number: 1, entries: map[string]*node{}}
	root.entries["itself"] = root
	top, err := lookup.FilesBelow(func() (*node, error) { return root, nil }).Top()
	must(t, err)
	if measured, err := Measure(context.Background(), top); err != nil || measured != 0 {
		t.Errorf("%d bytes are measured, %v", measured, err)
	}
	dir, err := os.Open(t.TempDir())
	must(t, err)
	defer dir.Close()
	if _, err := Tree(context.Background(), dir, top, Options{}); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("copying it: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
