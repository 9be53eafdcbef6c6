package safefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Tenants tells the group of a user whose folders may be worked in, and fails,
// with a sentence, for users that are nobody's customers.
type Tenants func(uid int) (gid int, err error)

// Dir is an open folder. What is done in it reaches that folder and no other,
// wherever it may have been moved since.
type Dir struct {
	fd   int    // O_PATH
	path string // for messages: where it was when it was opened
	root *root
	as   *identity // nil in folders that are ours
}

// root is what all folders below one have in common.
type root struct {
	tenants Tenants
	mounts  bool
}

// RefusedError says why something was not touched.
type RefusedError struct{ Path, Why string }

func (e *RefusedError) Error() string { return e.Path + " " + e.Why }
func (e *RefusedError) Unwrap() error { return upkeep.ErrRefused }

func refused(path, why string, args ...any) error {
	return &RefusedError{path, fmt.Sprintf(why, args...)}
}

// OpenRoot opens the folder at an absolute path, from which work starts. It and
// every folder above it must be ours, and none of them a symbolic link: whoever
// can move one of them decides what the path means. With mounts, other file
// systems that are mounted below it are entered, too. Without tenants, no
// folder below it may be a tenant's.
func OpenRoot(path string, mounts bool, tenants Tenants) (*Dir, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, refused(path, "must be an absolute path without . and .. and without a slash at its end")
	}
	if tenants == nil {
		tenants = func(int) (int, error) { return 0, errors.New("which nothing is done for here") }
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /: %w", err)
	}
	d := &Dir{fd: fd, path: "/", root: &root{tenants: tenants, mounts: true}}
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			break // the path is "/"
		}
		next, err := d.Open(name)
		_ = d.Close() // opened for searching only
		if err != nil {
			return nil, err
		}
		d = next
	}
	if err := d.mustBeOurs(); err != nil {
		_ = d.Close()
		return nil, err
	}
	d.root.mounts = mounts
	return d, nil
}

// OpenOwn opens a folder for a process that does not run as root, which must be
// its user's own. Folders above it are not looked at, and may be links: such a
// process can do no more than its user may, and people's folders are often open
// to their groups.
func OpenOwn(path string) (*Dir, error) {
	if os.Geteuid() == 0 {
		return OpenRoot(path, false, nil)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	d := &Dir{fd: fd, path: path, root: &root{mounts: true}}
	if err := d.classify(); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// Close releases the descriptor.
func (d *Dir) Close() error { return unix.Close(d.fd) }

// Handle is a descriptor of the folder, which must be ours, for work that is given an
// open folder. The caller closes it.
func (d *Dir) Handle() (*os.File, error) {
	if err := d.mustBeOurs(); err != nil {
		return nil, err
	}
	return d.list()
}

// Path is where the folder was when it was opened, for messages.
func (d *Dir) Path() string { return d.path }

// Tenant is the user whose folder it is; false for one that is ours.
func (d *Dir) Tenant() (uid int, is bool) {
	if d.as == nil {
		return 0, false
	}
	return d.as.uid, true
}

func (d *Dir) mustBeOurs() error {
	if d.as != nil {
		return refused(d.path, "belongs to user %d: it and everything above it must be root's", d.as.uid)
	}
	return nil
}

// at is the path of an entry, for messages.
func (d *Dir) at(name string) string { return filepath.Join(d.path, name) }

// Open opens a folder in this one by its name.
func (d *Dir) Open(name string) (*Dir, error) {
	if err := plain(name); err != nil {
		return nil, refused(d.at(name), "%s", err)
	}
	var sub *Dir
	err := d.do(func() (err error) {
		sub, err = d.open(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sub, nil
}

// Walk opens a folder below this one by its relative path.
func (d *Dir) Walk(path string) (*Dir, error) {
	current := d
	for name := range strings.SplitSeq(path, "/") {
		next, err := current.Open(name)
		if current != d {
			_ = current.Close() // opened for searching only
		}
		if err != nil {
			return nil, err
		}
		current = next
	}
	return current, nil
}

// open opens a folder and finds out whose it is. It runs as whoever the folder
// d belongs to.
func (d *Dir) open(name string) (*Dir, error) {
	fd, err := d.openat(name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	sub := &Dir{fd: fd, path: d.at(name), root: d.root, as: d.as}
	if d.as == nil {
		if err := sub.classify(); err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
	}
	return sub, nil
}

// classify tells ours from a tenant's and refuses what is neither.
func (d *Dir) classify() error {
	st, err := d.stat()
	if err != nil {
		return err
	}
	return d.belongs(st)
}

func (d *Dir) belongs(st unix.Stat_t) error {
	if ours(st) {
		// In a sticky folder, such as /tmp, nobody can rename or remove what
		// belongs to somebody else; what is opened next is looked at itself.
		if st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 {
			return refused(d.path, "may be written to by others than its owner (its mode is %04o)", st.Mode&0o7777)
		}
		d.as = nil
		return nil
	}
	uid := int(st.Uid)
	if os.Geteuid() != 0 {
		return refused(d.path, "belongs to user %d, and this process does not run as root", uid)
	}
	gid, err := d.root.tenants(uid)
	if err != nil {
		return refused(d.path, "belongs to user %d, %s", uid, err)
	}
	d.as = &identity{uid, gid}
	return nil
}

// ours reports whether root or this process's user owns it.
func ours(st unix.Stat_t) bool { return st.Uid == 0 || int(st.Uid) == os.Geteuid() }

func (d *Dir) stat() (unix.Stat_t, error) { return statOf(d.fd, d.path) }

func statOf(fd int, path string) (st unix.Stat_t, err error) {
	if err := unix.Fstat(fd, &st); err != nil {
		return st, fmt.Errorf("looking at %s: %w", path, err)
	}
	return st, nil
}

// openat opens an entry without following anything, waiting for anybody (a FIFO
// has no writer) or leaving the folder.
func (d *Dir) openat(name string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	if !d.root.mounts {
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	for {
		fd, err := unix.Openat2(d.fd, name, &how)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue // something was renamed meanwhile (openat2(2))
		}
		return -1, d.explain("opening", name, err)
	}
}

// explain makes a sentence of an error of a system call.
func (d *Dir) explain(doing, name string, err error) error {
	path := d.at(name)
	switch {
	case errors.Is(err, unix.ELOOP):
		return refused(path, "is a symbolic link, which is never followed")
	case errors.Is(err, unix.ENOTDIR):
		var st unix.Stat_t // for the wording only
		if unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return refused(path, "is a symbolic link, which is never followed")
		}
		return refused(path, "is not a folder")
	case errors.Is(err, unix.EISDIR):
		return refused(path, "is a folder")
	case errors.Is(err, unix.ENXIO):
		return refused(path, "is a socket or a device")
	case errors.Is(err, unix.EXDEV):
		return upkeep.WithHint(refused(path, "is on another file system, or outside of %s", d.path),
			"set mounts: true for this root in the agent's policy where that is meant")
	case errors.Is(err, unix.EBUSY):
		return refused(path, "is in use, such as by a mount")
	case errors.Is(err, unix.ENOSYS):
		return upkeep.WithHint(fmt.Errorf("%s %s: %w", doing, path, err), "upkeep needs Linux 5.6 or later for openat2")
	case d.as != nil && errors.Is(err, unix.EACCES):
		return refused(path, "may not be used by user %d, whose folder it is in", d.as.uid)
	}
	return fmt.Errorf("%s %s: %w", doing, path, err)
}

// plain refuses names that are not the name of one entry.
func plain(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("must end in a name, not in %q", name)
	case len(name) > 255:
		return errors.New("has a name of more than 255 bytes")
	case strings.ContainsAny(name, "/\x00"):
		return errors.New("must be given name by name")
	}
	return nil
}
