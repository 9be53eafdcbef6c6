// Package journal keeps, beside an image that is changed in place, what was begun,
// so that whoever comes after a kill or a power cut can end or undo it.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Entry is what was begun.
type Entry struct {
	Version int       `json:"version"`
	Verb    string    `json:"verb"`
	At      time.Time `json:"at"`
	PID     int       `json:"pid"`
	// Device and Inode are the image, whatever name it has by now.
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	// From and To are the sizes of the file before and after, in bytes; FSFrom is the
	// size of the file system before.
	From   int64  `json:"from"`
	To     int64  `json:"to"`
	FSFrom int64  `json:"fs_from"`
	Type   string `json:"type"`
	// Partition is the one that was to grow, to a length in bytes; 0 is all of the image.
	Partition int   `json:"partition,omitempty"`
	Length    int64 `json:"length,omitempty"`
	// Undo is that programs work in place and keep what they write over, see [NewUndo].
	// To is then only known where the image grows; one that shrinks is done when it is
	// smaller than From.
	Undo bool `json:"undo,omitempty"`
}

const (
	version = 1
	suffix  = ".upkeep-journal~"
	// unwritten is added to the name of an entry that is not on the disk yet.
	unwritten = "~"
	// maxBytes is more than any entry has.
	maxBytes = 64 << 10
)

// Path is where the entry of an image is.
func Path(image string) string {
	return filepath.Join(filepath.Dir(image), "."+filepath.Base(image)+suffix)
}

// Begin writes an entry, and returns when it is on the disk. There may be none yet.
func Begin(image string, file *os.File, e Entry) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("looking at %s: %w", image, err)
	}
	e.Version, e.PID, e.Device, e.Inode = version, os.Getpid(), st.Dev, st.Ino
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing the journal of %s: %w", image, err)
	}
	folder, err := os.Open(filepath.Dir(image))
	if err != nil {
		return fmt.Errorf("opening the folder of %s: %w", image, err)
	}
	defer folder.Close()
	if err := put(folder, filepath.Base(Path(image)), text); err != nil {
		return fmt.Errorf("writing the journal of %s: %w", image, err)
	}
	return nil
}

// put writes a file whole, or not at all.
func put(folder *os.File, name string, text []byte) error {
	dir := int(folder.Fd())
	temp := name + unwritten
	if err := unix.Unlinkat(dir, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), temp)
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = unix.Renameat2(dir, temp, dir, name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(dir, temp, 0))
	}
	return folder.Sync()
}

// Read is the entry of an image, if there is one. An entry of another file that had
// the image's name is an error: nothing is known of this one.
func Read(image string, file *os.File) (Entry, bool, error) {
	e, found, err := read(Path(image))
	if err != nil || !found {
		return e, found, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return e, true, fmt.Errorf("looking at %s: %w", image, err)
	}
	if st.Dev != e.Device || st.Ino != e.Inode {
		return e, true, &upkeep.HintError{
			Err:  fmt.Errorf("%w: %s is of another file than the one that is named %s now", upkeep.ErrConflict, Path(image), image),
			Hint: "put the image back that it is of, or remove the journal if that image is gone for good",
		}
	}
	return e, true, nil
}

func read(path string) (Entry, bool, error) {
	var e Entry
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return e, false, nil
	}
	if err != nil {
		return e, false, fmt.Errorf("reading the journal: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return e, false, fmt.Errorf("%w: %s is no file, and not of our making", upkeep.ErrConflict, path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxBytes))
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	switch {
	case err != nil:
		return e, true, fmt.Errorf("reading the journal %s: %w", path, err)
	case e.Version != version:
		return e, true, fmt.Errorf("%w: the journal %s is of version %d, and this is a program for version %d", upkeep.ErrRefused, path, e.Version, version)
	case e.From < 0 || e.To < e.From && !e.Undo || e.To < 0 || e.FSFrom < 0 || e.Partition < 0:
		return e, true, fmt.Errorf("%w: the journal %s speaks of sizes from %d to %d, which cannot be", upkeep.ErrRefused, path, e.From, e.To)
	}
	return e, true, nil
}

// Pending reports whether an image has an entry, without the image.
func Pending(image string) (Entry, bool, error) { return read(Path(image)) }

// End removes the entry, and returns when that is on the disk.
func End(image string) error {
	folder, err := os.Open(filepath.Dir(image))
	if err != nil {
		return fmt.Errorf("opening the folder of %s: %w", image, err)
	}
	defer folder.Close()
	if err := unix.Unlinkat(int(folder.Fd()), filepath.Base(Path(image)), 0); err != nil {
		return fmt.Errorf("removing the journal of %s: %w", image, err)
	}
	if err := folder.Sync(); err != nil {
		return fmt.Errorf("writing the folder of %s to the disk: %w", image, err)
	}
	return nil
}

// UndoPath is where what is written over in an image is kept meanwhile.
func UndoPath(image string) string {
	return filepath.Join(filepath.Dir(image), "."+filepath.Base(image)+".upkeep-undo~")
}

// NewUndo makes the file that keeps what is written over, empty, and returns when it is
// on the disk. The entry comes after it.
func NewUndo(image string) (*os.File, error) {
	file, err := os.OpenFile(UndoPath(image), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		err = syncFolder(image)
	}
	if err != nil {
		return nil, fmt.Errorf("making a place for what is written over in %s: %w", image, err)
	}
	return file, nil
}

// OpenUndo opens the file of a command that was killed.
func OpenUndo(image string) (*os.File, error) {
	file, err := os.OpenFile(UndoPath(image), os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening what was written over in %s: %w", image, err)
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%w: %s is no file, and not of our making", upkeep.ErrConflict, file.Name()), file.Close())
	}
	return file, nil
}

// RemoveUndo removes the file, if there is one. The entry goes before it. What it takes
// comes back at once, though a program that was confined to it is not quite gone yet.
func RemoveUndo(image string) error {
	if file, err := OpenUndo(image); err == nil {
		_ = file.Truncate(0) // its removal says what is wrong there
		file.Close()
	}
	if err := os.Remove(UndoPath(image)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing what was kept: %w", err)
	}
	return syncFolder(image)
}

func syncFolder(image string) error {
	folder, err := os.Open(filepath.Dir(image))
	if err != nil {
		return fmt.Errorf("opening the folder of %s: %w", image, err)
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Torn reports whether there is an entry that a kill kept from being written whole.
func Torn(image string) (bool, error) {
	_, err := os.Lstat(Path(image) + unwritten)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Sweep removes an entry that a kill kept from being written whole: nothing was begun
// before it was.
func Sweep(image string) error {
	err := os.Remove(Path(image) + unwritten)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing an unfinished journal: %w", err)
	}
	return nil
}
