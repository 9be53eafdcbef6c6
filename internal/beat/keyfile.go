package beat

import (
	"os"
	"syscall"
	"time"
)

// KeyFile is a key file that is read again when it has changed.
type KeyFile struct {
	path string
	seen fileID
}

// fileID tells one state of a file from another. A file that was replaced has
// another inode; one that was written into, another time of change.
type fileID struct {
	dev, ino uint64
	size     int64
	changed  syscall.Timespec
	mode     uint32
	read     bool
}

// racy is the age below which a file's time of change cannot be trusted: a
// second change within one tick of the kernel's clock leaves the time as it was.
const racy = 100 * time.Millisecond

// NewKeyFile returns a key file that was not read yet.
func NewKeyFile(path string) *KeyFile { return &KeyFile{path: path} }

// Read reads the file if it is not as it was at the last successful Read.
func (f *KeyFile) Read() (credentials []Credential, changed bool, err error) {
	now, young := identify(f.path)
	if now.read && now == f.seen {
		return nil, false, nil
	}
	credentials, err = ReadKeys(f.path)
	if err != nil {
		f.seen = fileID{}
		return nil, false, err
	}
	// Identified before it was read: a change in between is found next time.
	f.seen = now
	if young {
		f.seen = fileID{}
	}
	return credentials, true, nil
}

func identify(path string) (id fileID, young bool) {
	info, err := os.Stat(path)
	if err != nil {
		return fileID{}, false
	}
	stat, is := info.Sys().(*syscall.Stat_t)
	if !is {
		return fileID{}, false
	}
	changed := time.Unix(stat.Ctim.Unix())
	return fileID{
		dev: stat.Dev, ino: stat.Ino, size: stat.Size, changed: stat.Ctim, mode: stat.Mode, read: true,
	}, time.Since(changed).Abs() < racy
}
