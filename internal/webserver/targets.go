package webserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/vhost"
)

// What a server's own test does not look at, and what then stops or hangs all
// sites when it reloads: a log that is a folder, a link, or a pipe that nobody
// reads.

func (r *round) checkTargets() {
	for _, c := range r.live() {
		if c.input == nil {
			continue
		}
		if err := logTarget(*c.input); err != nil {
			c.fail(fmt.Errorf("its logs: %w", err))
			continue
		}
		if err := documentRoot(*c.input); err != nil {
			c.fail(err)
			c.field = "root"
		}
	}
}

// logFiles are the names of a site's logs in its folder.
var logFiles = []string{"access.log", "error.log"}

// logTarget makes the log folder of a site where it is missing, and refuses
// anything that is not a plain file in a folder of root's. The folder belongs to
// the account's group and hands that on to what is made in it. One of another
// account's, which had the name before, is put aside for root: visitors' addresses
// are not handed on with a name.
func logTarget(in vhost.Input) error {
	dir := in.Layout.LogFolder(in.Site.Name)
	info, err := os.Lstat(dir)
	if err == nil && ofAnother(info, in.UID) {
		if err = putLogsAside(dir, time.Now()); err == nil {
			err = os.ErrNotExist
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		if err = os.Mkdir(dir, 0o750); err != nil {
			return err
		}
		if os.Geteuid() == 0 && in.UID > 0 {
			err = os.Chown(dir, 0, in.UID)
		}
		if err == nil {
			err = os.Chmod(dir, 0o750|os.ModeSetgid)
		}
		if err == nil {
			info, err = os.Lstat(dir)
		}
	}
	if err != nil {
		return err
	}
	if err := ownedFolder(dir, info); err != nil {
		return err
	}
	for _, name := range logFiles {
		if err := logFile(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// ofAnother reports whether a log folder is another account's: what is neither
// the account's nor root's alone.
func ofAnother(info os.FileInfo, uid int) bool {
	stat, is := info.Sys().(*unixStat)
	return os.Geteuid() == 0 && uid > 0 && is && info.IsDir() && stat.Gid != 0 && int(stat.Gid) != uid
}

// putLogsAside renames a log folder to what no site can be named, and closes it.
// The web server goes on writing into its files until it is reloaded.
func putLogsAside(dir string, now time.Time) error {
	aside := dir + "~" + now.UTC().Format("20060102T150405.000000000Z")
	err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, aside, unix.RENAME_NOREPLACE)
	if err != nil {
		return fmt.Errorf("putting aside the logs of the account that had the name before: %w", err)
	}
	return errors.Join(os.Chown(aside, 0, 0), os.Chmod(aside, 0o700), syncDir(filepath.Dir(dir)))
}

func logFile(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	stat, is := info.Sys().(*unixStat)
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a plain file (%s)", path, info.Mode().Type())
	case !is || stat.Nlink != 1:
		return fmt.Errorf("%s has a second name", path)
	case int(stat.Uid) == os.Geteuid():
		return nil
	case os.Geteuid() != 0:
		return fmt.Errorf("%s belongs to another user than the one that upkeep runs as", path)
	}
	return takeBack(path)
}

// takeBack makes a log root's again. nginx gives all of its logs to the user of
// its workers when it is told to open them anew, as Debian's logrotate does for
// logs of its own, and goes on writing to them whosever they are. The folder is
// root's alone, so that what was looked at is what is opened.
func takeBack(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	if err := unix.Fchownat(fd, "", 0, -1, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("making %s root's again: %w", path, err)
	}
	return nil
}

// documentRoot makes sure that the pages are in a folder, reached through no
// link. A server only warns of a missing one, and follows links above it.
func documentRoot(in vhost.Input) error {
	rel, err := filepath.Rel(in.Layout.Home, in.DocumentRoot())
	if err != nil {
		return err
	}
	home, err := unix.Open(in.Layout.Home, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the folder of homes: %w", err)
	}
	defer func() { _ = unix.Close(home) }()
	fd, err := unix.Openat2(home, rel, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case err == nil:
		return unix.Close(fd)
	case errors.Is(err, unix.ENOENT):
		return upkeep.WithHint(fmt.Errorf("the folder of its pages, %s, is not there", in.DocumentRoot()), "make it, or correct the root of the site")
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("the folder of its pages, %s, is no folder, or is reached through a link", in.DocumentRoot())
	}
	return fmt.Errorf("opening the folder of its pages: %w", err)
}
