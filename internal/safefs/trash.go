package safefs

import (
	"context"
	"crypto/rand"
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

// Empty removes everything in a trash folder for good. Nothing is followed, and
// nothing outside of it is reached whatever the owners of what is in it do
// meanwhile: each entry is unlinked by its name in a folder that is held open,
// and a folder in a folder is first moved up into the trash, so that no path is
// ever walked and depth costs nothing. It may be killed at any instant and called
// again. What cannot be removed, such as a mount point, is left and told.
func Empty(ctx context.Context, trash *Dir) error {
	if err := trash.mustBeOurs(); err != nil {
		return err
	}
	var problems []error
	stuck := map[string]bool{}
	for {
		names, err := trash.Names(-1)
		if err != nil {
			return err
		}
		done := 0
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if stuck[name] {
				continue
			}
			done++
			if err := trash.destroy(name); err != nil {
				stuck[name] = true
				problems = append(problems, err)
			}
		}
		if done == 0 {
			return errors.Join(problems...)
		}
	}
}

// destroy removes an entry of the trash. What is in a folder is removed, but for
// folders, which become entries of the trash themselves.
func (d *Dir) destroy(name string) error {
	err := unix.Unlinkat(d.fd, name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR):
		return d.explain("removing", name, err)
	}
	inner := &Dir{path: d.at(name), root: &root{}} // ours to remove, whoever owned it
	if inner.fd, err = inner.from(d, name); err != nil {
		return err
	}
	defer inner.Close()
	for range 100 { // whoever had it open may go on making entries
		if err := inner.flatten(d); err != nil {
			return err
		}
		err := unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.ENOTEMPTY):
			return d.explain("removing", name, err)
		}
	}
	return refused(d.at(name), "is filled as fast as it is emptied; end the processes that still have it open")
}

// from opens the folder without entering a mount.
func (d *Dir) from(parent *Dir, name string) (int, error) {
	strict := &Dir{fd: parent.fd, path: parent.path, root: d.root}
	return strict.openat(name, unix.O_PATH|unix.O_DIRECTORY)
}

// flatten removes the entries of a folder and moves the folders in it up.
func (d *Dir) flatten(trash *Dir) error {
	file, err := d.list()
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		names, err := file.Readdirnames(1000)
		for _, name := range names {
			err := unix.Unlinkat(d.fd, name, 0)
			if errors.Is(err, unix.EISDIR) {
				err = unix.Renameat2(d.fd, name, trash.fd, "inner-"+rand.Text(), unix.RENAME_NOREPLACE)
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return d.explain("removing", name, err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing %s: %w", d.path, err)
		}
	}
}
