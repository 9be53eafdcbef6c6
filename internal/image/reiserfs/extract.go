package reiserfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A Loss is something that a copy has not got.
type Loss struct {
	Path string // from the root, without a slash before it
	What string // "xattr NAME" or "flags"
	Why  string
}

// Report says what was copied.
type Report struct {
	Entries int64 // of folders, links and all
	Bytes   int64 // of files, without holes
	Lost    []Loss
}

// Extract copies everything into an empty folder, with owners, modes, links,
// devices, times, holes, extended attributes, access lists and flags. It does not
// wait for the disk. Nobody else may write to the folder meanwhile. Total is not
// known before the end, and passed to progress as 0.
func (f *FS) Extract(ctx context.Context, dst *os.File, progress func(done, total int64)) (Report, error) {
	x := &extraction{FS: f, ctx: ctx, root: int(dst.Fd()), progress: progress, made: map[ID]string{}, entered: map[ID]bool{}}
	root, err := f.Stat(Root)
	if err == nil && root.Type() != TypeFolder {
		err = damaged("the root is not a folder")
	}
	if err == nil {
		err = x.folder(root, x.root, "")
	}
	if err == nil {
		err = x.seal()
	}
	return x.report, err
}

type extraction struct {
	*FS
	ctx      context.Context
	root     int
	progress func(done, total int64)
	report   Report
	made     map[ID]string // what has more than one name, and the first of them
	entered  map[ID]bool
	sealed   []sealed
}

// sealed is what gets flags when everything is there: some forbid changes.
type sealed struct {
	path  string
	flags uint32
}

// folder fills a folder that is open and gives it its attributes.
func (x *extraction) folder(n Inode, fd int, path string) error {
	if x.entered[n.ID] {
		return damaged("folder %d is in two places, %q is one of them", n.Object, path)
	}
	x.entered[n.ID] = true
	x.report.Entries++
	err := x.Entries(n.ID, func(e Entry) error {
		if err := x.ctx.Err(); err != nil {
			return context.Cause(x.ctx)
		}
		below := e.Name
		if path != "" {
			below = path + "/" + e.Name
		}
		if err := x.entry(fd, e, below); err != nil {
			return fmt.Errorf("%q: %w", below, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return x.attributes(n, subject{fd: fd}, path)
}

// entry makes one name.
func (x *extraction) entry(dir int, e Entry, path string) error {
	n, err := x.Stat(e.ID)
	if err != nil {
		return err
	}
	if n.Type() == TypeFolder {
		if err := unix.Mkdirat(dir, e.Name, 0o700); err != nil {
			return fmt.Errorf("making the folder: %w", err)
		}
		fd, err := unix.Openat(dir, e.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening the folder: %w", err)
		}
		defer unix.Close(fd)
		return x.folder(n, fd, path)
	}
	if first, is := x.made[e.ID]; is {
		if err := unix.Linkat(x.root, first, dir, e.Name, 0); err != nil {
			return fmt.Errorf("linking it to %q: %w", first, err)
		}
		return nil
	}
	if n.Links > 1 {
		x.made[e.ID] = path
	}
	x.report.Entries++
	switch n.Type() {
	case TypeFile:
		return x.file(dir, e.Name, n, path)
	case TypeLink:
		text, err := x.Link(n)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(text, dir, e.Name); err != nil {
			return fmt.Errorf("making the link: %w", err)
		}
	default:
		if err := unix.Mknodat(dir, e.Name, n.Mode, int(n.Device())); err != nil {
			return fmt.Errorf("making the device: %w", err)
		}
	}
	return x.attributes(n, subject{fd: -1, dir: dir, name: e.Name, link: n.Type() == TypeLink}, path)
}

func (x *extraction) file(dir int, name string, n Inode, path string) (err error) {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("making the file: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	defer func() { err = errors.Join(err, file.Close()) }()
	err = x.Content(n, func(at int64, data []byte) error {
		if _, err := file.WriteAt(data, at); err != nil {
			return fmt.Errorf("writing the file: %w", err)
		}
		x.report.Bytes += int64(len(data))
		if x.progress != nil {
			x.progress(x.report.Bytes, 0)
		}
		return x.ctx.Err()
	})
	if err != nil {
		return err
	}
	if err := file.Truncate(n.Size); err != nil {
		return fmt.Errorf("giving the file its size: %w", err)
	}
	return x.attributes(n, subject{fd: fd}, path)
}

// subject is what gets attributes: by a descriptor, or by its name.
type subject struct {
	fd, dir int
	name    string
	link    bool
}

// attributes gives owner, mode, extended attributes and times, in this order: a
// change of the owner takes away what the mode and the attributes grant, and all of
// them change times.
func (x *extraction) attributes(n Inode, s subject, path string) error {
	empty := unix.AT_EMPTY_PATH
	dir, name := s.fd, ""
	if s.fd < 0 {
		dir, name, empty = s.dir, s.name, unix.AT_SYMLINK_NOFOLLOW
	}
	if err := unix.Fchownat(dir, name, int(n.UID), int(n.GID), empty); err != nil {
		return fmt.Errorf("giving it to user %d and group %d: %w", n.UID, n.GID, err)
	}
	var err error
	switch {
	case s.fd >= 0:
		err = unix.Fchmod(s.fd, n.Mode&0o7777)
	case !s.link:
		err = unix.Fchmodat(s.dir, s.name, n.Mode&0o7777, 0)
	}
	if err != nil {
		return fmt.Errorf("giving it mode %o: %w", n.Mode&0o7777, err)
	}
	if err := x.xattrs(n, s, path); err != nil {
		return err
	}
	times := []unix.Timespec{{Sec: n.Atime.Unix()}, {Sec: n.Mtime.Unix()}}
	if s.fd >= 0 {
		err = futimens(s.fd, times)
	} else {
		err = unix.UtimesNanoAt(s.dir, s.name, times, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return fmt.Errorf("giving it its times: %w", err)
	}
	if flags := n.Flags &^ layoutFlags; flags != 0 && x.flags && (n.Type() == TypeFile || n.Type() == TypeFolder) {
		x.sealed = append(x.sealed, sealed{path, flags})
	}
	return nil
}

func futimens(fd int, times []unix.Timespec) error {
	return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
}

const (
	layoutFlags  = 0x8000                           // no tails: it says how to store, and nothing else has it
	carriedFlags = 0x08 | 0x10 | 0x20 | 0x40 | 0x80 // sync, immutable, append, nodump, noatime
)

func (x *extraction) xattrs(n Inode, s subject, path string) error {
	all, err := x.Xattrs(n)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		value, err := fromDisk(name, all[name])
		if err == nil && s.fd >= 0 {
			err = unix.Fsetxattr(s.fd, name, value, 0)
		} else if err == nil {
			err = unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", s.dir, s.name), name, value, 0)
		}
		if err != nil && errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("giving it the extended attribute %q: %w", name, err)
		}
		if err != nil {
			x.report.Lost = append(x.report.Lost, Loss{path, "xattr " + name, err.Error()})
		}
	}
	return nil
}

// fromDisk makes what is set of what is kept: access lists are kept in a shorter
// form.
func fromDisk(name string, value []byte) ([]byte, error) {
	if name != "system.posix_acl_access" && name != "system.posix_acl_default" {
		return value, nil
	}
	const user, group, nobody = 2, 8, 0xffffffff
	wrong := errors.New("the access list is not one")
	if len(value) < 4 || le32(value, 0) != 1 {
		return nil, wrong
	}
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for p := value[4:]; len(p) > 0; {
		if len(p) < 4 {
			return nil, wrong
		}
		tag, id, size := le16(p, 0), uint32(nobody), 4
		if tag == user || tag == group {
			if size = 8; len(p) < size {
				return nil, wrong
			}
			id = le32(p, 4)
		}
		out = append(out, p[:4]...)
		out = binary.LittleEndian.AppendUint32(out, id)
		p = p[size:]
	}
	return out, nil
}

// seal sets the flags. Folders come behind what is in them.
func (x *extraction) seal() error {
	for _, s := range x.sealed {
		if lost := s.flags &^ carriedFlags; lost != 0 {
			x.report.Lost = append(x.report.Lost, Loss{s.path, "flags", fmt.Sprintf("%#x are ReiserFS's own", lost)})
		}
		if err := x.sealOne(s); err != nil {
			x.report.Lost = append(x.report.Lost, Loss{s.path, "flags", err.Error()})
		}
	}
	return nil
}

func (x *extraction) sealOne(s sealed) error {
	path := s.path
	if path == "" {
		path = "."
	}
	fd, err := unix.Openat(x.root, path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	now, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(now|s.flags&carriedFlags))
}
