package lookup

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Node is a file of any type, as the reader of a file system has it.
type Node[N any] interface {
	// Lookup is what has a name in a folder. Without one it is [fs.ErrNotExist], and of
	// what is no folder [ErrNoFolder].
	Lookup(name string) (N, error)
	// Entries are what is in a folder, in any order, or [ErrNoFolder].
	Entries() ([]Entry[N], error)
	// Link is the text of a symbolic link, and is not asked of what is none.
	Link() (string, error)
	// Content is that of a regular file, and is not asked of others.
	Content() (Content, error)
	// Stat is what is known of it.
	Stat() Stat
}

// Content is what is in a file.
type Content interface {
	io.ReaderAt
	// NextData finds data at or behind an offset: from a byte up to another, which is at
	// most the end of the file. What is before is zeros, as what is read of it, and so
	// much of it can be that nobody is to read it. Without more data both are that end.
	NextData(offset int64) (from, to int64, err error)
}

// Stat is what [fs.FileInfo] tells of a file, apart from its name.
type Stat struct {
	Size    int64
	Mode    fs.FileMode
	ModTime time.Time
	Owner   Owner
}

// Owner is what [fs.FileInfo] has no methods for: a pointer to it is what Sys returns.
type Owner struct {
	UID, GID uint32
	// Unowned is that the file system knows no owners, and so UID and GID mean nothing.
	Unowned bool
	// Subvolume and Inode are the same for all names of a file, of which there are Links.
	Subvolume, Inode uint64
	Links            uint32
	Device           uint64 // of a device, as mknod(2) takes it
	Access           time.Time
	Flags            uint32 // of ext: of chattr(1), and those that say how it is laid out
}

// Entry is a name in a folder. What it stands for is read when it is asked for.
type Entry[N any] struct {
	Name string
	Node func() (N, error)
}

// DirEntry is an [fs.DirEntry] that can be read: by its path each file would be looked for
// among all that are in its folder, and above. Links are not followed.
type DirEntry interface {
	fs.DirEntry
	Open() (fs.File, error)
	ReadLink() (string, error)
	// ReadDir is what is in a folder, by name.
	ReadDir() ([]DirEntry, error)
}

// A Tree is all of what [Files] are.
type Tree interface {
	fs.ReadLinkFS
	Top() (DirEntry, error)
}

// Files are the files of a file system as package fs has them: [fs.ReadDirFS],
// [fs.StatFS] and [fs.ReadLinkFS]. Symbolic links lead to places in the file system,
// open regular files are [Content] too, and what is in folders are [DirEntry].
type Files[N Node[N]] struct{ root func() (N, error) }

// FilesBelow are the files below a root.
func FilesBelow[N Node[N]](root func() (N, error)) Files[N] { return Files[N]{root} }

// Open implements [fs.FS].
func (f Files[N]) Open(name string) (fs.File, error) {
	n, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	opened, err := open(n, path.Base(name))
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return opened, nil
}

func open[N Node[N]](n N, name string) (fs.File, error) {
	i := info{n.Stat(), name}
	switch mode := i.Mode(); {
	case mode.IsDir():
		return &folder{info: i, list: func() ([]fs.DirEntry, error) { return as[fs.DirEntry](list(n)) }}, nil
	case !mode.IsRegular():
		return &file{info: i}, nil
	}
	content, err := n.Content()
	if err != nil {
		return nil, err
	}
	return &regular{file{io.NewSectionReader(content, 0, i.Size()), i}, content}, nil
}

// Top is the root folder, with the name ".".
func (f Files[N]) Top() (DirEntry, error) {
	e := &entry[N]{Entry: Entry[N]{".", f.root}}
	_, err := e.Info()
	return e, err
}

// Stat implements [fs.StatFS].
func (f Files[N]) Stat(name string) (fs.FileInfo, error) { return f.stat(name, true) }

// Lstat implements [fs.ReadLinkFS].
func (f Files[N]) Lstat(name string) (fs.FileInfo, error) { return f.stat(name, false) }

func (f Files[N]) stat(name string, follow bool) (fs.FileInfo, error) {
	n, err := f.find("stat", name, follow)
	if err != nil {
		return nil, err
	}
	return info{n.Stat(), path.Base(name)}, nil
}

// ReadLink implements [fs.ReadLinkFS].
func (f Files[N]) ReadLink(name string) (string, error) {
	n, err := f.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	text, err := readLink(n)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return text, nil
}

func readLink[N Node[N]](n N) (string, error) {
	text, is, err := link(n)
	if err == nil && !is {
		err = fs.ErrInvalid
	}
	return text, err
}

// ReadDir implements [fs.ReadDirFS].
func (f Files[N]) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	entries, err := as[fs.DirEntry](list(n))
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return entries, nil
}

func (f Files[N]) find(op, name string, follow bool) (N, error) {
	n, err := f.root()
	if err == nil {
		n, err = walk(n, name, follow, N.Lookup, link[N])
	}
	if err != nil {
		return n, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

// link is the text of what is a symbolic link.
func link[N Node[N]](n N) (text string, is bool, err error) {
	if n.Stat().Mode&fs.ModeSymlink == 0 {
		return "", false, nil
	}
	text, err = n.Link()
	return text, true, err
}

// list is what is in a folder, by name. Names that nothing could open are left out:
// those of the folder itself and of the one above, and what has a slash in it.
func list[N Node[N]](n N) ([]*entry[N], error) {
	found, err := n.Entries()
	if err != nil {
		return nil, err
	}
	var all []*entry[N]
	for _, e := range found {
		if e.Name != "" && e.Name != "." && e.Name != ".." && !strings.ContainsAny(e.Name, "/\x00") {
			all = append(all, &entry[N]{Entry: e})
		}
	}
	slices.SortFunc(all, func(a, b *entry[N]) int { return strings.Compare(a.Name(), b.Name()) })
	return all, nil
}

// as are entries as an interface has them.
func as[I fs.DirEntry, N Node[N]](entries []*entry[N], err error) ([]I, error) {
	all := make([]I, len(entries))
	for i, e := range entries {
		all[i] = fs.DirEntry(e).(I)
	}
	return all, err
}

// info implements [fs.FileInfo].
type info struct {
	stat Stat
	name string // as it was asked for
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.stat.Size }
func (i info) Mode() fs.FileMode  { return i.stat.Mode }
func (i info) ModTime() time.Time { return i.stat.ModTime }
func (i info) IsDir() bool        { return i.stat.Mode.IsDir() }
func (i info) Sys() any           { return &i.stat.Owner }

// file is an open file; the reader is nil of what has no content.
type file struct {
	*io.SectionReader
	info fs.FileInfo
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }

// Read reads on.
func (f *file) Read(b []byte) (int, error) {
	if f.SectionReader == nil {
		return 0, &fs.PathError{Op: "read", Path: f.info.Name(), Err: fs.ErrInvalid}
	}
	return f.SectionReader.Read(b)
}

// ReadAt implements [io.ReaderAt].
func (f *file) ReadAt(b []byte, offset int64) (int, error) {
	if f.SectionReader == nil {
		return 0, &fs.PathError{Op: "read", Path: f.info.Name(), Err: fs.ErrInvalid}
	}
	return f.SectionReader.ReadAt(b, offset)
}

// regular is an open file that has content.
type regular struct {
	file
	content Content
}

// NextData implements [Content].
func (f *regular) NextData(offset int64) (from, to int64, err error) {
	return f.content.NextData(offset)
}

// entry implements [DirEntry].
type entry[N Node[N]] struct {
	Entry[N]
	info fs.FileInfo
}

func (e *entry[N]) Name() string { return e.Entry.Name }

func (e *entry[N]) Info() (fs.FileInfo, error) {
	if e.info == nil {
		n, err := e.Node()
		if err != nil {
			return nil, err
		}
		e.info = info{n.Stat(), e.Entry.Name}
	}
	return e.info, nil
}

func (e *entry[N]) Type() fs.FileMode {
	info, err := e.Info()
	if err != nil {
		return fs.ModeIrregular
	}
	return info.Mode().Type()
}

func (e *entry[N]) IsDir() bool { return e.Type().IsDir() }

func (e *entry[N]) Open() (fs.File, error) {
	n, err := e.Node()
	if err != nil {
		return nil, err
	}
	return open(n, e.Entry.Name)
}

func (e *entry[N]) ReadLink() (string, error) {
	n, err := e.Node()
	if err != nil {
		return "", err
	}
	return readLink(n)
}

func (e *entry[N]) ReadDir() ([]DirEntry, error) {
	n, err := e.Node()
	if err != nil {
		return nil, err
	}
	return as[DirEntry](list(n))
}
