package safefs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteFile makes a file hold a text, with owner and mode, in a folder that is
// ours: whoever opens it finds the old text or the new one, also after a kill or
// a power cut. Changed says whether it was not so already; a file that is as it
// should be is not touched. A name that is something else than a file, or a file
// with a second name (a hard link), is refused: neither is of our making. Calls
// for one file must not overlap.
func (d *Dir) WriteFile(name string, text []byte, want Attributes) (changed bool, err error) {
	if err := plain(name); err != nil {
		return false, refused(d.at(name), "%s", err)
	}
	if err := d.mustBeOurs(); err != nil {
		return false, err
	}
	same, err := d.holds(name, text, want)
	if err != nil || same {
		return false, err
	}
	temp := newName(name)
	if err := d.stage(temp, text, want); err != nil {
		return false, err
	}
	if err := unix.Renameat(d.fd, temp, d.fd, name); err != nil {
		return false, d.explain("putting in place", name, err)
	}
	return true, d.sync()
}

// holds reports whether the file is as it should be.
func (d *Dir) holds(name string, text []byte, want Attributes) (bool, error) {
	file, st, err := d.openFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	if int(st.Uid) != want.UID || int(st.Gid) != want.GID || os.FileMode(st.Mode&0o7777) != want.Mode || st.Size != int64(len(text)) {
		return false, nil
	}
	found, err := io.ReadAll(io.LimitReader(file, int64(len(text))+1))
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", d.at(name), err)
	}
	return bytes.Equal(found, text), nil
}

// stage writes the text whole to disk under a name of its own. A file that a
// killed process left there is replaced.
func (d *Dir) stage(temp string, text []byte, want Attributes) error {
	if err := unix.Unlinkat(d.fd, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return d.explain("removing", temp, err)
	}
	fd, err := unix.Openat(d.fd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return d.explain("making", temp, err)
	}
	file := os.NewFile(uintptr(fd), d.at(temp))
	err = fill(file, text, want)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // replaced by the next call otherwise
	}
	return err
}

func fill(file *os.File, text []byte, want Attributes) error {
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := file.Chown(want.UID, want.GID); err != nil {
		return err
	}
	if err := file.Chmod(want.Mode); err != nil {
		return err
	}
	return file.Sync()
}

// AddFile makes a file of whoever the folder belongs to, unless anything has that
// name already, which is then left as it is. The file is there whole or not at all;
// after a power cut it may be missing.
func (d *Dir) AddFile(name string, text []byte, mode os.FileMode) error {
	if err := plain(name); err != nil {
		return refused(d.at(name), "%s", err)
	}
	return d.do(func() error {
		want := Attributes{UID: os.Geteuid(), GID: os.Getegid(), Mode: mode.Perm()}
		if d.as != nil {
			want.UID, want.GID = d.as.uid, d.as.gid
		}
		temp := newName(name)
		if err := d.stage(temp, text, want); err != nil {
			return err
		}
		err := unix.Renameat2(d.fd, temp, d.fd, name, unix.RENAME_NOREPLACE)
		if err == nil {
			return nil
		}
		_ = unix.Unlinkat(d.fd, temp, 0) // replaced by the next call otherwise
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return d.explain("putting in place", name, err)
	})
}

// ReadFile reads a file of at most max bytes that is ours, and that nobody else
// may write to, in a folder that is ours.
func (d *Dir) ReadFile(name string, max int) ([]byte, error) {
	if err := plain(name); err != nil {
		return nil, refused(d.at(name), "%s", err)
	}
	if err := d.mustBeOurs(); err != nil {
		return nil, err
	}
	file, st, err := d.openFile(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if !ours(st) {
		return nil, refused(d.at(name), "belongs to user %d", st.Uid)
	}
	if st.Mode&0o022 != 0 {
		return nil, refused(d.at(name), "may be written to by others than its owner (its mode is %04o)", st.Mode&0o7777)
	}
	text, err := io.ReadAll(io.LimitReader(file, int64(max)+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", d.at(name), err)
	}
	if len(text) > max {
		return nil, refused(d.at(name), "has more than %d bytes", max)
	}
	return text, nil
}

// ReadTrusted reads a file of at most max bytes that says what root does: it and
// every folder above it must be ours, and nothing that others may write to.
func ReadTrusted(path string, max int) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, refused(path, "must be an absolute path")
	}
	path = filepath.Clean(path)
	dir, err := OpenRoot(filepath.Dir(path), false, nil)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.ReadFile(filepath.Base(path), max)
}

// openFile opens a regular file that has one name only.
func (d *Dir) openFile(name string) (*os.File, unix.Stat_t, error) {
	fd, err := d.openat(name, unix.O_RDONLY)
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	st, err := statOf(fd, d.at(name))
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = refused(d.at(name), "is not a regular file")
	case st.Nlink != 1:
		err = refused(d.at(name), "has %d names (hard links), so that it may be another file of somebody else", st.Nlink)
	default:
		return os.NewFile(uintptr(fd), d.at(name)), st, nil
	}
	_ = unix.Close(fd)
	return nil, st, err
}

// Remove removes a file in a folder that is ours, whatever it is but a folder;
// a link is removed itself. It is no error when there is none.
func (d *Dir) Remove(name string) error {
	if err := plain(name); err != nil {
		return refused(d.at(name), "%s", err)
	}
	if err := d.mustBeOurs(); err != nil {
		return err
	}
	err := unix.Unlinkat(d.fd, name, 0)
	switch {
	case err == nil:
		return d.sync()
	case errors.Is(err, unix.ENOENT):
		return nil
	}
	return d.explain("removing", name, err)
}

// Link makes a symbolic link, unless anything has that name already: in a
// tenant's folder what is there is the tenant's business. Nothing here ever
// follows it.
func (d *Dir) Link(name, target string) error {
	if err := plain(name); err != nil {
		return refused(d.at(name), "%s", err)
	}
	return d.do(func() error {
		err := unix.Symlinkat(target, d.fd, name)
		switch {
		case err == nil:
			return d.sync()
		case errors.Is(err, unix.EEXIST):
			return nil
		}
		return d.explain("making", name, err)
	})
}
