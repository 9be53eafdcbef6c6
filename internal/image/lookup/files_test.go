package lookup

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// thing is a [Node]: a folder by its entries, a link or a file by its text.
type thing struct {
	mode    fs.FileMode
	text    string
	entries map[string]*thing
	sought  int // how often something was looked for in it
}

func (n *thing) Lookup(name string) (*thing, error) {
	n.sought++
	if found := n.entries[name]; found != nil {
		return found, nil
	}
	return nil, fs.ErrNotExist
}

func (n *thing) Entries() (all []Entry[*thing], err error) {
	if !n.mode.IsDir() {
		return nil, ErrNoFolder
	}
	for name, e := range n.entries {
		all = append(all, Entry[*thing]{name, func() (*thing, error) { return e, nil }})
	}
	return all, nil
}

func (n *thing) Link() (string, error)     { return n.text, nil }
func (n *thing) Content() (Content, error) { return text{strings.NewReader(n.text)}, nil }
func (n *thing) Stat() Stat {
	return Stat{int64(len(n.text)), n.mode, time.Unix(0, 0), Owner{}}
}

// text is content without holes.
type text struct{ *strings.Reader }

func (t text) NextData(offset int64) (from, to int64, err error) {
	return min(offset, t.Size()), t.Size(), nil
}

func TestFiles(t *testing.T) {
	file, device := &thing{text: "content"}, &thing{mode: fs.ModeDevice, text: "that it has not"}
	folder := &thing{mode: fs.ModeDir, entries: map[string]*thing{"b": file, "a": file, "link": {mode: fs.ModeSymlink, text: "../file"}}}
	root := &thing{mode: fs.ModeDir, entries: map[string]*thing{"file": file, "folder": folder}}
	files := FilesBelow(func() (*thing, error) { return root, nil })
	if err := fstest.TestFS(files, "file", "folder/a", "folder/b", "folder/link"); err != nil {
		t.Error(err)
	}

	// Names that lead elsewhere, as a hostile image has them.
	for _, name := range []string{"", ".", "..", "../etc", "a/b", "a\x00b"} {
		folder.entries[name] = file
	}
	entries, err := files.ReadDir("folder")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); err != nil || got != "a b link" {
		t.Errorf("the folder has %q, %v", got, err)
	}

	root.entries["device"] = device
	for _, name := range []string{"device", "folder"} {
		f, err := files.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := f.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("of %s %d bytes are read, %v", name, n, err)
		}
	}
	for _, name := range []string{"file", "folder"} {
		if _, err := files.ReadLink(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s as a link: %v", name, err)
		}
	}
	if _, err := files.ReadDir("file"); !errors.Is(err, ErrNoFolder) {
		t.Errorf("a file as a folder: %v", err)
	}
}

// What is in a folder is read without being looked for among all the others.
func TestDirEntry(t *testing.T) {
	folder := &thing{mode: fs.ModeDir, entries: map[string]*thing{"file": {text: "content"}, "link": {mode: fs.ModeSymlink, text: "file"}}}
	root := &thing{mode: fs.ModeDir, entries: map[string]*thing{"folder": folder}}
	top, err := FilesBelow(func() (*thing, error) { return root, nil }).Top()
	if err != nil || top.Name() != "." || !top.IsDir() {
		t.Fatalf("the root is %v, %v", top, err)
	}
	found := map[string]string{}
	var read func(e DirEntry) error
	read = func(e DirEntry) error {
		switch e.Type() {
		case fs.ModeDir:
			entries, err := e.ReadDir()
			for _, below := range entries {
				err = errors.Join(err, read(below))
			}
			return err
		case fs.ModeSymlink:
			found[e.Name()], err = e.ReadLink()
			return err
		}
		f, err := e.Open()
		if err != nil {
			return err
		}
		text, err := io.ReadAll(f)
		found[e.Name()] = string(text)
		return err
	}
	if err := read(top); err != nil || len(found) != 2 || found["file"] != "content" || found["link"] != "file" {
		t.Errorf("it has %q, %v", found, err)
	}
	if sought := root.sought + folder.sought; sought != 0 {
		t.Errorf("files were looked for %d times", sought)
	}
	if _, err := top.ReadLink(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a folder as a link: %v", err)
	}
}
