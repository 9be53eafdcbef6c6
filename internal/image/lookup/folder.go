package lookup

import (
	"errors"
	"io"
	"io/fs"
)

// folder is an open folder, and implements [fs.ReadDirFile]. What it holds is read when
// it is asked for, by list.
type folder struct {
	info    fs.FileInfo
	list    func() ([]fs.DirEntry, error)
	entries []fs.DirEntry
	read    bool
}

func (f *folder) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *folder) Close() error               { return nil }

func (f *folder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.info.Name(), Err: errors.New("is a directory")}
}

func (f *folder) ReadDir(n int) ([]fs.DirEntry, error) {
	if !f.read {
		var err error
		if f.entries, err = f.list(); err != nil {
			return nil, err
		}
		f.read = true
	}
	if n <= 0 {
		n = len(f.entries)
	} else if len(f.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.entries))
	found := f.entries[:n]
	f.entries = f.entries[n:]
	return found, nil
}
