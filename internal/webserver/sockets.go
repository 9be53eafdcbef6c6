package webserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/safefs"
)

// maxSocketPath is how long the path of a Unix socket may be (unix(7): sun_path).
const maxSocketPath = 107

// openSockets makes the folder of the pools' sockets where it is not there, as
// after every boot where it lies in /run. php-fpm ends at once, with all pools,
// over a socket that it cannot make, and its own test does not look at sockets;
// so it is never told of a pool without this. Root's php-fpm makes and chowns what
// is in the folder: who else could write there would decide what it gives away.
func (a *Applier) openSockets() error {
	folder := a.o.Layout.Sockets
	err := ensureRoots(folder)
	if err == nil {
		err = a.entered(folder)
	}
	if err == nil {
		return nil
	}
	var hint *upkeep.HintError
	if err = fmt.Errorf("the folder for sockets of PHP (web.php.sockets in the agent's policy) is not to be had: %w", err); errors.As(err, &hint) {
		return err
	}
	return upkeep.WithHint(err, "name another one, such as /run/upkeep-php: "+folder+" and all folders above it have to be root's, writable by root alone, and no symbolic links; one outside /run/upkeep-php has to be in ReadWritePaths of the agent's unit")
}

// ensureRoots makes a folder, and those above it, where they are not there.
func ensureRoots(path string) error {
	d, err := safefs.OpenRoot("/", true, nil)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // opened for searching only
	names := strings.Split(strings.Trim(path, "/"), "/")
	for i, name := range names {
		next, err := d.Open(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && i == len(names)-1 {
			if err == nil {
				_ = next.Close()
			}
			next, _, err = d.Ensure(name, safefs.Attributes{UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o755, Keep: true})
		}
		if err != nil {
			return err
		}
		_ = d.Close()
		d = next
	}
	return nil
}

// entered makes sure that the web server can enter a folder that was there: a pool
// that upkeep reaches and the web server does not would be called live.
func (a *Applier) entered(folder string) error {
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	stat, is := info.Sys().(*unixStat)
	mode := info.Mode().Perm()
	if mode&0o001 != 0 || is && int(stat.Gid) == a.o.Layout.Group && mode&0o010 != 0 {
		return nil
	}
	return upkeep.WithHint(fmt.Errorf("%s has mode %04o, and the web server cannot enter it", folder, mode), "chmod 0755 "+folder)
}

// freeSocket makes sure that php-fpm can listen on the socket of a pool. One that
// another program listens on, such as the php-fpm of another version, ends it.
func (a *Applier) freeSocket(site string) error {
	path := a.o.Layout.Socket(site)
	if len(path) > maxSocketPath {
		return fmt.Errorf("its socket %s would have a path of %d bytes, and at most %d are possible: web.php.sockets of the agent's policy is too long", path, len(path), maxSocketPath)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil // php-fpm replaces a socket that nobody listens on
	}
	defer func() { _ = conn.Close() }() // nothing was written
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred // who called listen, which for a pool is php-fpm's master
	var failed error
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	if own, err := readPID(a.o.PHP.PIDFile); err == nil && own == int(peer.Pid) {
		return nil
	}
	return upkeep.WithHint(fmt.Errorf("process %d listens on %s, and it is not the php-fpm that %s names", peer.Pid, path, a.o.PHP.PIDFile),
		"stop what listens there, such as the php-fpm of another version, or give "+filepath.Base(a.o.PHP.Program)+" a folder of sockets of its own in the agent's policy")
}
