// Package datadir owns the folder in which a running upkeep keeps everything:
// the database, the control socket and the lock that makes it the only one.
package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Dir is a data folder that this process holds.
type Dir struct {
	path string
	lock *os.File
}

// maxSocketPath is the longest path that fits into sockaddr_un (unix(7)).
const maxSocketPath = 107

// Open creates the folder where it does not exist, for its owner alone, and
// locks it. When another process holds it, the error names that process. The
// lock goes with the process, however it ends.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("finding the data folder: %w", err)
	}
	d := &Dir{path: path}
	if socket := d.Socket(); len(socket) > maxSocketPath {
		return nil, upkeep.WithHint(fmt.Errorf("opening the data folder: the path of its socket, %s, has %d bytes and at most %d are possible",
			socket, len(socket), maxSocketPath), "choose a shorter path with --data")
	}
	if err := create(path); err != nil {
		return nil, upkeep.WithHint(fmt.Errorf("creating the data folder %s: %w", path, err),
			fmt.Sprintf("user id %d must be able to write its parent; or choose another folder with --data", os.Geteuid()))
	}
	if err := d.hold(); err != nil {
		return nil, err
	}
	return d, nil
}

// create makes the folder, and refuses one that others can write to: whoever
// writes it decides what DNS answers, and who may talk to the socket.
func create(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New("it is not a folder")
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("it has mode %04o, so that others can write it; fix it with: chmod go-w %s", mode, path)
	}
	return nil
}

func (d *Dir) hold() error {
	// Not truncated here: until the lock is ours, the text is another's.
	lock, err := os.OpenFile(d.file("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return upkeep.WithHint(fmt.Errorf("opening the lock of the data folder: %w", err),
			fmt.Sprintf("user id %d must be able to write in %s", os.Geteuid(), d.path))
	}
	err = flock(lock)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = d.heldError(lock)
	} else if err != nil {
		err = fmt.Errorf("locking %s: %w", lock.Name(), err)
	} else {
		err = writePID(lock)
	}
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	d.lock = lock
	return nil
}

// flock takes the lock. It is an flock(2), not a POSIX lock: those vanish when
// any descriptor of the file is closed. It tries more than once, because
// [Holder] holds the lock for an instant when it looks.
func flock(file *os.File) error {
	const tries, pause = 5, 20 * time.Millisecond
	var err error
	for range tries {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}

func (d *Dir) heldError(lock *os.File) error {
	who := ""
	if pid, known := readPID(lock); known {
		who = fmt.Sprintf(" (pid %d)", pid)
	}
	return upkeep.WithHint(fmt.Errorf("another upkeep%s is running on %s: %w", who, d.path, upkeep.ErrConflict),
		"stop it first, or choose another folder with --data")
}

func writePID(lock *os.File) error {
	text := strconv.Itoa(os.Getpid()) + "\n"
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("writing %s: %w", lock.Name(), err)
	}
	if _, err := lock.WriteAt([]byte(text), 0); err != nil {
		return fmt.Errorf("writing %s: %w", lock.Name(), err)
	}
	return nil
}

func readPID(lock io.ReaderAt) (int, bool) {
	text := make([]byte, 20)
	n, err := lock.ReadAt(text, 0)
	if err != nil && err != io.EOF {
		return 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid, err == nil && pid > 0
}

// Close gives the folder up.
func (d *Dir) Close() error { return d.lock.Close() }

// Path is the folder, absolute.
func (d *Dir) Path() string { return d.path }

// Database is the address of the default database.
func (d *Dir) Database() string { return "sqlite:" + d.file("upkeep.db") }

// Spare is the path of the folder that keeps zones while the database takes no
// writes.
func (d *Dir) Spare() string { return d.file("zones") }

// Socket is the path of the control socket.
func (d *Dir) Socket() string { return Socket(d.path) }

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

// Socket is the path of the control socket of a data folder that another
// process holds.
func Socket(path string) string { return filepath.Join(path, "control.sock") }
