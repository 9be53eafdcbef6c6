package safefs

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Look tells what something below this folder is like, by its relative path, whoever
// the folders on the way belong to, and what has some names in it: nothing is read or
// changed, and no link is followed. To open the folder once, for all names, is for
// those who look at tens of thousands.
func (d *Dir) Look(relative string, names ...string) (found Found, in []Found, err error) {
	fd, err := d.openat(relative, unix.O_PATH)
	if err != nil {
		return Found{}, nil, d.explain("looking at", relative, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Found{}, nil, d.explain("looking at", relative, err)
	}
	found = foundOf(st)
	if !found.Dir {
		return found, nil, nil
	}
	for _, name := range names {
		if err := plain(name); err != nil {
			return found, nil, refused(d.at(relative), "is looked for a name that %s", err)
		}
		var st unix.Stat_t
		switch err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); {
		case errors.Is(err, unix.ENOENT):
			in = append(in, Found{Missing: true})
		case err != nil:
			return found, nil, d.explain("looking at", relative+"/"+name, err)
		default:
			in = append(in, foundOf(st))
		}
	}
	return found, in, nil
}

// Found is what [Dir.Look] tells. The mode has the permissions, and the setuid, setgid
// and sticky bits, as chmod(2) takes them.
type Found struct {
	UID, GID     int
	Mode         fs.FileMode
	Dir, Missing bool
}

func foundOf(st unix.Stat_t) Found {
	return Found{UID: int(st.Uid), GID: int(st.Gid), Mode: fs.FileMode(st.Mode & 0o7777), Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}
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
