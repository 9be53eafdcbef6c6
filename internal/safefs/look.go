package safefs

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Look tells what something below this folder is like, by its relative path, whoever
// the folders on the way belong to: it is neither read nor changed, and no link is
// followed. The mode has the permissions, and the setuid, setgid and sticky bits.
func (d *Dir) Look(relative string) (Found, error) {
	fd, err := d.openat(relative, unix.O_PATH)
	if err != nil {
		return Found{}, d.explain("looking at", relative, err)
	}
	defer unix.Close(fd)
	st, err := statOf(fd, d.at(relative))
	if err != nil {
		return Found{}, err
	}
	return Found{UID: int(st.Uid), GID: int(st.Gid), Mode: fs.FileMode(st.Mode & 0o7777), Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}, nil
}

// Found is what [Dir.Look] tells.
type Found struct {
	UID, GID int
	Mode     fs.FileMode
	Dir      bool
}

// GiveBack gives a folder in this one, which must be ours, the owner, group and mode
// that it had: itself alone, and nothing in it. It is for folders that the caller knows
// to have been made by upkeep. In a tenant's folder there is no telling, since a
// tenant can rename what is somebody else's.
func (d *Dir) GiveBack(name string, want Attributes) error {
	if err := plain(name); err != nil {
		return refused(d.at(name), "%s", err)
	}
	if err := d.mustBeOurs(); err != nil {
		return err
	}
	fd, err := d.openat(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return d.explain("opening", name, err)
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, want.UID, want.GID); err != nil {
		return d.explain("giving back", name, err)
	}
	if err := unix.Fchmod(fd, uint32(want.Mode)); err != nil {
		return d.explain("setting the mode of", name, err)
	}
	return nil
}

// Lacks reports whether nothing has a name in this folder.
func (d *Dir) Lacks(relative string) (bool, error) {
	_, err := d.Look(relative)
	var refusal *RefusedError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.As(err, &refusal): // such as a link
		return false, nil
	}
	return false, err
}
