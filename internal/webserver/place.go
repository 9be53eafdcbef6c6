package webserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tempMark is in the names of files that are not whole yet. They begin with a dot
// and do not end in .conf, so no server includes them.
const tempMark = ".upkeep-tmp"

func tempName(path string) string {
	dir, name := filepath.Split(path)
	if len(name) > 240 {
		name = name[:240]
	}
	return dir + "." + name + tempMark
}

// stager writes files beside their places. Few are brought to disk one by one,
// many by one call for their file system.
type stager struct {
	many bool
	dirs map[string]int // descriptors of folders
}

// manyFiles is from how many on one call for all costs less.
const manyFiles = 32

func newStager(files int) *stager {
	return &stager{many: files >= manyFiles, dirs: map[string]int{}}
}

func (s *stager) dir(path string) (int, error) {
	if fd, open := s.dirs[path]; open {
		return fd, nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", path, err)
	}
	s.dirs[path] = fd
	return fd, nil
}

// write writes a file whole and returns where. What a kill left there is replaced.
// group is -1 for the caller's own.
func (s *stager) write(path string, text []byte, mode fs.FileMode, group int) (string, error) {
	temp := tempName(path)
	dir, err := s.dir(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	name := filepath.Base(temp)
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, uint32(mode.Perm()))
	if errors.Is(err, unix.EEXIST) {
		if err = unix.Unlinkat(dir, name, 0); err == nil {
			fd, err = unix.Openat(dir, name, flags, uint32(mode.Perm()))
		}
	}
	if err != nil {
		return "", fmt.Errorf("making %s: %w", temp, err)
	}
	if err := errors.Join(s.fill(fd, text, mode, group), unix.Close(fd)); err != nil {
		return "", fmt.Errorf("writing %s: %w", temp, errors.Join(err, unix.Unlinkat(dir, name, 0)))
	}
	return temp, nil
}

func (s *stager) fill(fd int, text []byte, mode fs.FileMode, group int) error {
	for len(text) > 0 {
		n, err := unix.Write(fd, text)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		text = text[max(n, 0):]
	}
	if mode.Perm()&0o077 != 0 { // which the umask may have taken away
		if err := unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
			return err
		}
	}
	if group >= 0 && os.Geteuid() == 0 {
		if err := unix.Fchown(fd, -1, group); err != nil {
			return err
		}
	}
	if s.many {
		return nil
	}
	return unix.Fsync(fd)
}

// close brings what was written to disk, if that was not done before, and closes
// the folders.
func (s *stager) close() error {
	var all error
	for _, fd := range s.dirs {
		if s.many {
			all = errors.Join(all, unix.Syncfs(fd))
		}
		all = errors.Join(all, unix.Close(fd))
	}
	clear(s.dirs)
	return all
}

// stage writes one file beside its place, whole and on disk, and returns where.
func stage(path string, text []byte, mode fs.FileMode, group int) (string, error) {
	s := newStager(1)
	temp, err := s.write(path, text, mode, group)
	return temp, errors.Join(err, s.close())
}

// replaceFile puts a file in its place, whole, but without waiting for the disk:
// for what is made anew after a crash.
func replaceFile(path string, text []byte, mode fs.FileMode) error {
	temp := tempName(path)
	if err := os.WriteFile(temp, text, mode); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// writeScratch writes a file that only the server's own test reads, and that nobody has
// open: over one that is there, the kernel would begin to write it to the disk.
func writeScratch(path string, text []byte) error {
	if err := removeAll(path); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// rewrite replaces a file that belongs to somebody else: owner and mode stay.
func rewrite(path string, text []byte) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	group := -1
	if stat, is := info.Sys().(*unixStat); is {
		group = int(stat.Gid)
	}
	temp, err := stage(path, text, info.Mode().Perm(), group)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// ownFolder makes sure that a folder exists, is one and not a link to one, and
// that nobody but its owner writes to it.
func ownFolder(dir string, mode fs.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	return ownedFolder(dir, info)
}

func ownedFolder(dir string, info fs.FileInfo) error {
	stat, is := info.Sys().(*unixStat)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", dir)
	case !is || int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user than the one that upkeep runs as", dir)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written to by others", dir)
	}
	return nil
}

// sweep removes files that a kill left half written.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); strings.HasPrefix(name, ".") && strings.HasSuffix(name, tempMark) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
