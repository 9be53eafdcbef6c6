package safefs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Attributes are what a folder or file shall be like. Modes have permission bits
// only.
type Attributes struct {
	UID, GID int
	Mode     fs.FileMode
	// Keep leaves the mode of a folder that is there already: its owner may have
	// changed it for good reasons.
	Keep bool
}

// Ensure makes a folder in this one, or sees that the one that is there is as it
// should be, and opens it. One that is there is never given to anybody: it must
// belong to the owner already, or else whoever may ask for folders could ask for
// those of others. In a tenant's folder the owner can be that tenant alone.
// Made says whether it was not there.
//
// When it is killed in between, the folder is not there, and the next call makes
// it: it gets owner and mode before it gets its name.
func (d *Dir) Ensure(name string, want Attributes) (sub *Dir, made bool, err error) {
	if err := plain(name); err != nil {
		return nil, false, refused(d.at(name), "%s", err)
	}
	if want.Mode&^fs.ModePerm != 0 {
		return nil, false, refused(d.at(name), "would have mode %s: only permission bits are given", want.Mode)
	}
	if (want.UID == 0 || want.UID == os.Geteuid()) && want.Mode&0o022 != 0 {
		return nil, false, refused(d.at(name), "would be root's and writable by others, with mode %04o", want.Mode)
	}
	if d.as != nil && want.UID != d.as.uid {
		return nil, false, refused(d.at(name), "lies in a folder of user %d and can belong to nobody else", d.as.uid)
	}
	err = d.do(func() (err error) {
		sub, made, err = d.ensure(name, want)
		return err
	})
	return sub, made, err
}

func (d *Dir) ensure(name string, want Attributes) (sub *Dir, made bool, err error) {
	for range 8 { // others may be at it, too
		fd, err := d.openat(name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err == nil {
			sub, err = d.check(fd, name, want)
			return sub, made, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, false, err
		}
		if made, err = d.make(name, want); err != nil {
			return nil, false, err
		}
	}
	return nil, false, refused(d.at(name), "is removed by somebody as often as it is made")
}

// check sees that an open folder is as it should be.
func (d *Dir) check(fd int, name string, want Attributes) (*Dir, error) {
	defer unix.Close(fd)
	path := d.at(name)
	st, err := statOf(fd, path)
	if err != nil {
		return nil, err
	}
	if int(st.Uid) != want.UID {
		return nil, upkeep.WithHint(refused(path, "is there already and belongs to user %d, not to user %d", st.Uid, want.UID),
			"move it away, or give it to its owner by hand once it is clear whose it is")
	}
	if !want.Keep {
		if err := d.adjust(fd, name, st, want); err != nil {
			return nil, err
		}
	}
	sub := &Dir{path: path, root: d.root, as: d.as}
	if d.as == nil {
		if st, err = statOf(fd, path); err == nil {
			err = sub.belongs(st)
		}
		if err != nil {
			return nil, err
		}
	}
	sub.fd, err = unix.Openat(fd, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, d.explain("opening", name, err)
	}
	return sub, nil
}

// adjust gives an open folder the group and mode that it shall have.
func (d *Dir) adjust(fd int, name string, st unix.Stat_t, want Attributes) error {
	if int(st.Gid) != want.GID {
		if d.as != nil && want.GID != d.as.gid {
			return refused(d.at(name), "lies in a folder of user %d and can have no group but %d", d.as.uid, d.as.gid)
		}
		if err := unix.Fchown(fd, -1, want.GID); err != nil {
			return d.explain("giving a group to", name, err)
		}
	}
	if fs.FileMode(st.Mode&0o7777) != want.Mode {
		if err := unix.Fchmod(fd, uint32(want.Mode)); err != nil {
			return d.explain("setting the mode of", name, err)
		}
	}
	return nil
}

// make makes a folder unless one is there by then.
func (d *Dir) make(name string, want Attributes) (made bool, err error) {
	if d.as != nil {
		if want.GID != d.as.gid {
			return false, refused(d.at(name), "lies in a folder of user %d and can have no group but %d", d.as.uid, d.as.gid)
		}
		err := unix.Mkdirat(d.fd, name, uint32(want.Mode))
		if err == nil {
			return true, d.sync()
		}
		if errors.Is(err, unix.EEXIST) {
			return false, nil
		}
		return false, d.explain("making", name, err)
	}
	temp := newName(name)
	if err := d.prepare(temp, want); err != nil {
		return false, err
	}
	err = unix.Renameat2(d.fd, temp, d.fd, name, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return true, d.sync()
	case errors.Is(err, unix.ENOENT): // another call was faster with the same one
		return false, nil
	case errors.Is(err, unix.EEXIST):
		_ = unix.Unlinkat(d.fd, temp, unix.AT_REMOVEDIR) // an empty folder of ours; harmless
		return false, nil
	}
	return false, d.explain("making", name, err)
}

// prepare makes a folder under a name that nobody looks for, closed to everybody
// until it is as it shall be. One that a killed process left is used.
func (d *Dir) prepare(temp string, want Attributes) error {
	if err := unix.Mkdirat(d.fd, temp, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return d.explain("making", temp, err)
	}
	fd, err := d.openat(temp, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has its name already
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, want.UID, want.GID); err != nil {
		return d.explain("giving an owner to", temp, err)
	}
	if err := unix.Fchmod(fd, uint32(want.Mode)); err != nil {
		return d.explain("setting the mode of", temp, err)
	}
	return nil
}

// newName is a name for what is not finished; names are as long as they may be
// already, so it cannot hold the other one.
func newName(name string) string {
	return fmt.Sprintf(".upkeep-new-%x", sha256.Sum256([]byte(name)))[:32]
}

// sync makes what was done to the entries of the folder outlive a power cut.
func (d *Dir) sync() error {
	fd, err := d.openat(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// EINVAL: a file system that cannot sync a folder.
	if err := unix.Fsync(fd); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("syncing %s: %w", d.path, err)
	}
	return nil
}
