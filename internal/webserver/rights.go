package webserver

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep/internal/vhost"
)

// A file that is byte for byte as declared can still be wrong: what others may write
// to is theirs to change, and root's web server reads it. What has other rights than
// upkeep gives is written anew and not given these back: whoever opened it meanwhile
// could go on writing into it.

var errNotPlain = errors.New("is no regular file")

// readPlain reads a regular file. To open a FIFO as any other file waits for
// somebody who writes to it, and that may be for good.
func readPlain(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a link, a socket
		err = errNotPlain
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errNotPlain}
	}
	return io.ReadAll(f)
}

// kindOf is what something is, for people.
func kindOf(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFDIR:
		return "a folder"
	case unix.S_IFLNK:
		return "a link"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "a device"
}

// rightsText is how mode and owner are shown. The group is left out where it may be
// any: where it may do no more than everybody.
func rightsText(mode, uid uint32, gid int) string {
	text := fmt.Sprintf("mode %04o, owner %d", mode, uid)
	if gid >= 0 {
		text += fmt.Sprintf(", group %d", gid)
	}
	return text
}

// rights are mode and group that a file of ours has; group -1 for any.
func (a *Applier) rights(path string) (mode uint32, group int) {
	perm, web := vhost.Rights(path)
	if !web || os.Geteuid() != 0 {
		return uint32(perm), -1
	}
	return uint32(perm), a.o.Layout.Group
}

// wrong says what a file of ours is like whose mode or owner are not as upkeep gives
// them; "" for one that is as it should be, or is not there.
func (a *Applier) wrong(path string, s stamp) string {
	mode, group := a.rights(path)
	switch {
	case s.inode == 0:
		return ""
	case s.mode&unix.S_IFMT != unix.S_IFREG:
		return kindOf(s.mode)
	case s.mode&0o7777 == mode && int(s.uid) == os.Geteuid() && (group < 0 || int(s.gid) == group):
		return ""
	case group < 0:
		return rightsText(s.mode&0o7777, s.uid, -1)
	}
	return rightsText(s.mode&0o7777, s.uid, int(s.gid))
}

// wantRights is what stands beside what wrong says.
func (a *Applier) wantRights(w write) string {
	if w.rights == "" {
		return ""
	}
	mode, group := a.rights(w.file.Path)
	return rightsText(mode, uint32(os.Geteuid()), group)
}

// oddPools refuses what is no regular file where php-fpm reads pools, as
// [included.odd] does.
func (a *Applier) oddPools() error {
	pools, err := stampsIn(a.o.Layout.FPM)
	if err != nil {
		return err
	}
	if err := pools.odd(); err != nil {
		return errors.New(strings.Replace(err.Error(), "the web server", "php-fpm", 1))
	}
	return nil
}
