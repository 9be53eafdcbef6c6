// Package shadow changes image files so that whoever opens one finds it as it
// was or as it shall be, never half: the work is done on a second file, which has
// no name until it is whole and on the disk, and then takes the image's place in
// one step.
package shadow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"upkeep"
)

// A Shadow is a file in the folder of an image. It goes when it is closed, or
// when its process dies, unless it was put in place.
type Shadow struct {
	// File is worked on. Programs get it as a descriptor; it has no name that they
	// could be given.
	File *os.File

	folder *os.File
	name   string // that it is to have
	temp   string // that it has meanwhile, where the file system cannot do without
}

// suffix ends the name that a file has for the moment between two names: see
// [Leftover].
const suffix = ".upkeep-new~"

// tempName is the name beside an image that [Shadow.Replace] uses for a moment.
func tempName(name string) string { return "." + name + suffix }

// New makes an empty file that is to be named path, which need not exist.
func New(path string) (*Shadow, error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("opening the folder of %s: %w", path, err)
	}
	s := &Shadow{folder: folder, name: filepath.Base(path)}
	if len(tempName(s.name)) > unix.NAME_MAX {
		folder.Close()
		return nil, fmt.Errorf("%w: the name of %s is longer than %d bytes, which leaves no room for one beside it",
			upkeep.ErrRefused, path, unix.NAME_MAX-len(tempName("")))
	}
	if err := s.open(); err != nil {
		folder.Close()
		return nil, err
	}
	return s, nil
}

// open makes the file: without a name where the file system can (O_TMPFILE), so
// that a kill leaves nothing; else under the name that [Leftover] knows.
func (s *Shadow) open() error {
	fd, err := unix.Openat(int(s.folder.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		s.temp = tempName(s.name)
		fd, err = unix.Openat(int(s.folder.Fd()), s.temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if errors.Is(err, unix.EEXIST) {
			return s.leftover()
		}
	}
	if err != nil {
		s.temp = ""
		return fmt.Errorf("making a file in %s: %w", s.folder.Name(), &fs.PathError{Op: "open", Path: s.folder.Name(), Err: err})
	}
	s.File = os.NewFile(uintptr(fd), filepath.Join(s.folder.Name(), s.name))
	return nil
}

func (s *Shadow) leftover() error {
	s.temp = "" // not ours to remove
	path := filepath.Join(s.folder.Name(), s.name)
	return &upkeep.HintError{
		Err:  fmt.Errorf("%w: %s was left by a command that was killed while it changed %s", upkeep.ErrConflict, tempName(s.name), path),
		Hint: "upkeep image recover " + path,
	}
}

// Scratch is an empty file that never has a name, in the folder of path: what work
// needs on its way.
func Scratch(path string) (*os.File, error) {
	s, err := New(path)
	if err != nil {
		return nil, err
	}
	if s.temp != "" {
		err = unix.Unlinkat(int(s.folder.Fd()), s.temp, 0)
	}
	if err = errors.Join(err, s.folder.Close()); err != nil {
		return nil, errors.Join(err, s.File.Close())
	}
	return s.File, nil
}

// link gives the file the name that it needs for a moment, or one that is to stay.
func (s *Shadow) link(name string) error {
	if s.temp != "" {
		return unix.Renameat2(int(s.folder.Fd()), s.temp, int(s.folder.Fd()), name, unix.RENAME_NOREPLACE)
	}
	// AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH.
	self := fmt.Sprintf("/proc/self/fd/%d", s.File.Fd())
	return unix.Linkat(unix.AT_FDCWD, self, int(s.folder.Fd()), name, unix.AT_SYMLINK_FOLLOW)
}

// Create gives the file its name, which nothing may have yet, and returns when
// both are on the disk.
func (s *Shadow) Create() error {
	if err := s.File.Sync(); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", s.File.Name(), err)
	}
	err := s.link(s.name)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: %s exists; nothing was changed", upkeep.ErrConflict, s.File.Name())
	}
	if err != nil {
		return fmt.Errorf("naming %s: %w", s.File.Name(), err)
	}
	s.temp = ""
	return s.syncFolder()
}

// Replace puts the file where old is, with old's owner, mode, access lists and
// extended attributes, and returns when that is on the disk. Old must still be
// what its name leads to: a file that took its place meanwhile stays, and Replace
// fails.
func (s *Shadow) Replace(old *os.File) error {
	if err := keepAttributes(s.File, old); err != nil {
		return err
	}
	if err := s.File.Sync(); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", s.File.Name(), err)
	}
	if s.temp == "" {
		err := s.link(tempName(s.name))
		if errors.Is(err, unix.EEXIST) {
			return s.leftover()
		}
		if err != nil {
			return fmt.Errorf("naming %s: %w", s.File.Name(), err)
		}
		s.temp = tempName(s.name)
	}
	if err := s.exchange(old); err != nil {
		return err
	}
	if err := s.syncFolder(); err != nil {
		return err
	}
	// What has the name now is the old file.
	if err := unix.Unlinkat(int(s.folder.Fd()), s.temp, 0); err != nil {
		return fmt.Errorf("%s is in place; removing what was there before: %w", s.File.Name(), err)
	}
	s.temp = ""
	return s.syncFolder()
}

// exchange swaps the two names and looks at what came out: only then can no file
// that somebody else put there get lost.
func (s *Shadow) exchange(old *os.File) error {
	fd := int(s.folder.Fd())
	if err := unix.Renameat2(fd, s.temp, fd, s.name, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchanging %s: %w", s.File.Name(), err)
	}
	var out, want unix.Stat_t
	if err := errors.Join(unix.Fstatat(fd, s.temp, &out, unix.AT_SYMLINK_NOFOLLOW), unix.Fstat(int(old.Fd()), &want)); err != nil {
		return fmt.Errorf("looking at what was exchanged for %s: %w", s.File.Name(), err)
	}
	if out.Dev == want.Dev && out.Ino == want.Ino {
		return nil
	}
	if err := unix.Renameat2(fd, s.temp, fd, s.name, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("putting back %s, which somebody replaced meanwhile and is now %s: %w", s.File.Name(), s.temp, err)
	}
	return fmt.Errorf("%w: %s was replaced by another file meanwhile; that one was left as it is", upkeep.ErrConflict, s.File.Name())
}

func (s *Shadow) syncFolder() error {
	if err := s.folder.Sync(); err != nil {
		return fmt.Errorf("writing the folder of %s to the disk: %w", s.File.Name(), err)
	}
	return nil
}

// Close lets go of the file; one that was not put in place is gone.
func (s *Shadow) Close() error {
	var err error
	if s.temp != "" {
		err = unix.Unlinkat(int(s.folder.Fd()), s.temp, 0)
		s.temp = ""
	}
	return errors.Join(err, s.File.Close(), s.folder.Close())
}

// Leftover is the path of the file that a killed [Shadow.Replace] of an image
// left, or empty. It is the old image or the new one, whichever did not get the
// image's name, or a file that was not finished: it can go.
func Leftover(path string) (string, error) {
	return Beside(path, tempName(filepath.Base(path)))
}

// Beside is the path of the file of ours that has a name in the folder of path, or
// empty when there is none. What has it and is no file is an error.
func Beside(path, name string) (string, error) {
	left := filepath.Join(filepath.Dir(path), name)
	info, err := os.Lstat(left)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("looking for what a killed command left: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%w: %s is no file, and not of our making", upkeep.ErrConflict, left)
	}
	return left, nil
}

// keepAttributes gives a file the owner, mode, access lists and extended
// attributes of another. The owner comes first: changing it clears set-id bits
// and capabilities.
func keepAttributes(file, from *os.File) error {
	var was, is unix.Stat_t
	if err := errors.Join(unix.Fstat(int(from.Fd()), &was), unix.Fstat(int(file.Fd()), &is)); err != nil {
		return fmt.Errorf("reading the attributes of %s: %w", from.Name(), err)
	}
	if was.Uid != is.Uid || was.Gid != is.Gid {
		if err := unix.Fchown(int(file.Fd()), int(was.Uid), int(was.Gid)); err != nil {
			return notGiven(from.Name(), was, is, err)
		}
	}
	if err := unix.Fchmod(int(file.Fd()), was.Mode&0o7777); err != nil {
		return fmt.Errorf("keeping the mode of %s: %w", from.Name(), err)
	}
	return copyXattrs(file, from)
}

// notGiven is the error when a file could not be given the owner or the group that the
// image has.
func notGiven(name string, was, is unix.Stat_t, err error) error {
	if was.Uid != is.Uid {
		return &upkeep.HintError{
			Err:  fmt.Errorf("a changed %s would not keep its owner, which is uid %d: %w", name, was.Uid, err),
			Hint: "only root and the image's owner can put a changed image in its place",
		}
	}
	return &upkeep.HintError{
		Err:  fmt.Errorf("a changed %s would not keep its group, which is gid %d: %w", name, was.Gid, err),
		Hint: fmt.Sprintf("only root and members of that group can give it to a file; where the image may have your own: chgrp %d %s", is.Gid, name),
	}
}

// CanReplace finds out whether a second file can be given what [Shadow.Replace] gives it
// of an image, before any work is done on one.
func CanReplace(path string, image *os.File) error {
	s, err := New(path)
	if err != nil {
		return err
	}
	return errors.Join(keepAttributes(s.File, image), s.Close())
}

func copyXattrs(file, from *os.File) error {
	names, err := xattrs(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err == nil {
			err = unix.Fsetxattr(int(file.Fd()), name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("keeping the attribute %s of %s: %w", name, from.Name(), err)
		}
	}
	return nil
}

func xattrs(file *os.File) ([]string, error) {
	list := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(int(file.Fd()), list)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the attributes of %s: %w", file.Name(), err)
	}
	var names []string
	for start, i := 0, 0; i < n; i++ {
		if list[i] == 0 {
			names = append(names, string(list[start:i]))
			start = i + 1
		}
	}
	return names, nil
}

// Of makes a shadow of an image, with its content and its kind.
func Of(ctx context.Context, path string, image *os.File, progress func(done, total int64)) (*Shadow, Way, error) {
	s, err := New(path)
	if err != nil {
		return nil, "", err
	}
	way, err := Copy(ctx, s.File, image, progress)
	if err != nil {
		return nil, "", errors.Join(err, s.Close())
	}
	return s, way, nil
}
