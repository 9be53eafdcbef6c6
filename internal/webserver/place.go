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

// stage writes a file beside its place, whole and on disk, and returns where.
// What a kill left there is replaced. group is -1 for the caller's own.
func stage(path string, text []byte, mode fs.FileMode, group int) (string, error) {
	temp := tempName(path)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if errors.Is(err, os.ErrExist) {
		if err = os.Remove(temp); err == nil {
			f, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
		}
	}
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask
	}
	if err == nil && group >= 0 && os.Geteuid() == 0 {
		err = f.Chown(-1, group)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(temp))
	}
	return temp, nil
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
