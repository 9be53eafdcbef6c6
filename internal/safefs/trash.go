package safefs

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Discard moves an entry of this folder, whatever it is, into a trash folder
// under a new name, in one step. Both folders must be ours and on one file
// system. Found is false when there is no such entry.
func (d *Dir) Discard(name string, trash *Dir, as string) (found bool, err error) {
	for _, one := range []string{name, as} {
		if err := plain(one); err != nil {
			return false, refused(d.at(one), "%s", err)
		}
	}
	for _, dir := range []*Dir{d, trash} {
		if err := dir.mustBeOurs(); err != nil {
			return false, err
		}
	}
	err = unix.Renameat2(d.fd, name, trash.fd, as, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, d.explain("moving to "+trash.path, name, err)
	}
	return true, errors.Join(d.sync(), trash.sync())
}

// Names lists the entries of a folder, at most max of them, unordered.
func (d *Dir) Names(max int) (names []string, err error) {
	err = d.do(func() error {
		file, err := d.list()
		if err != nil {
			return err
		}
		defer file.Close()
		names, err = file.Readdirnames(max)
		if err != nil && len(names) == 0 && !errors.Is(err, io.EOF) {
			return fmt.Errorf("listing %s: %w", d.path, err)
		}
		return nil
	})
	return names, err
}

func (d *Dir) list() (*os.File, error) {
	fd, err := d.openat(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.path), nil
}
