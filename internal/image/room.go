package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/image/shadow"
)

// room refuses work for which the host has not the room: need bytes in the folder of
// path, of what is free there and of what quotas leave.
func room(path string, need int64) error {
	fs, free, err := freeIn(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("asking how much room there is beside %s: %w", path, err)
	}
	if free >= need {
		return quota(path, need, fs)
	}
	return &upkeep.HintError{
		Err:  &noRoomError{path: path, need: need, free: free},
		Hint: "make room, or move the image to a file system with more; where files can share blocks (xfs, btrfs) next to none is needed",
	}
}

// roomIn is room for files that are written into a folder.
func roomIn(folder string, need int64) error {
	err := room(filepath.Join(folder, "files"), need)
	var lacks *noRoomError
	if !errors.As(err, &lacks) {
		return err
	}
	lacks.path, lacks.inside = folder, true
	hint := "make room there, or name a folder on a file system with more"
	if lacks.quota {
		hint = "have the quota raised, or name a folder without one"
	}
	return upkeep.WithHint(lacks, hint)
}

// freeIn is how many bytes are free in a folder: what df says. Some file systems have more
// for root, who is not always one that they know.
func freeIn(folder string) (*unix.Statfs_t, int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err != nil {
		return nil, 0, err
	}
	return &fs, int64(fs.Bavail) * fs.Bsize, nil
}

// quota refuses what a quota does not leave. There are several kinds, each with its own
// way to be asked; all of them say so when blocks are asked for, which are given back.
func quota(path string, need int64, fs *unix.Statfs_t) error {
	// Root is bound by none but that of btrfs, and memory would be filled for nothing.
	if need <= 0 || fs.Type == unix.TMPFS_MAGIC || os.Geteuid() == 0 && fs.Type != unix.BTRFS_SUPER_MAGIC {
		return nil
	}
	file, err := shadow.Scratch(path)
	if err != nil {
		return nil //nolint:nilerr // the work says what is wrong there
	}
	defer file.Close()
	if fits(file, need) {
		return nil
	}
	// How much it leaves: between what fits and what does not.
	const exact = 64 << 10
	least, most := int64(0), need
	for most-least > exact {
		if middle := (least + most) / 2; fits(file, middle) {
			least = middle
		} else {
			most = middle
		}
	}
	return &upkeep.HintError{
		Err:  &noRoomError{path: path, need: need, free: least, quota: true},
		Hint: "have the quota raised, or move the image to a place without one",
	}
}

// fits reports whether a file can have as many bytes, as far as that can be found out.
func fits(file *os.File, bytes int64) bool {
	err := unix.Fallocate(int(file.Fd()), 0, 0, bytes)
	_ = file.Truncate(0) // it is asked for less next, or goes
	return !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC)
}

// noRoomError is that the host has not the room for what is to be done.
type noRoomError struct {
	path       string
	need, free int64
	// inside is that it is needed in the folder path, and not beside the file.
	inside bool
	// quota is that a quota leaves no more than that.
	quota bool
	// second is what a second file would need, where need is for work without one.
	second int64
	// packed is what would become about as large as needed, going by pieces of it.
	packed string
}

func (e *noRoomError) missing() int64 { return e.need - e.free }

func (e *noRoomError) Error() string {
	what, has := "", "are free"
	if e.quota {
		has = "are all that a quota leaves"
	}
	if e.packed != "" {
		return fmt.Sprintf("%v: packed, %s takes about %s, going by pieces of it, and beside %s %s %s: about %s are missing; nothing was changed",
			upkeep.ErrRefused, e.packed, upkeep.Size(e.need).About(), e.path, upkeep.Size(e.free).About(), has, upkeep.Size(e.missing()).About())
	}
	if e.second != 0 {
		what = fmt.Sprintf(" to work on the image itself (for a second file: %s)", upkeep.Size(e.second).About())
	}
	where := "beside"
	if e.inside {
		where = "in"
	}
	return fmt.Sprintf("%v: %s are needed %s %s%s and %s %s: %s missing; nothing was changed",
		upkeep.ErrRefused, upkeep.Size(e.need).About(), where, e.path, what, upkeep.Size(e.free).About(), has, upkeep.Plural(e.missing(), "byte is", "bytes are"))
}

func (e *noRoomError) Unwrap() error { return upkeep.ErrRefused }

// ranOut makes a person's words of the system's where the host had no more room for
// what a verb did. That is asked when the verb has let go of what it had begun.
func (w *Work) ranOut(err error) error {
	overQuota := errors.Is(err, unix.EDQUOT)
	if !overQuota && !errors.Is(err, unix.ENOSPC) || errors.As(err, new(*noRoomError)) || errors.As(err, new(*innerError)) {
		return err
	}
	hint := "make room there, or have the image on a file system with more"
	if overQuota {
		hint = "have the quota raised, or have the image in a place without one"
	}
	var inner *upkeep.HintError
	if errors.As(err, &inner) {
		hint += "; " + inner.Hint
	}
	return upkeep.WithHint(fmt.Errorf("%w; %s", err, w.noRoom(overQuota)), hint)
}

// noRoom says what of its host a verb had not enough of.
func (w *Work) noRoom(overQuota bool) string {
	at, folder := w.Plan.File, w.Plan.File
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		folder = filepath.Dir(folder)
	}
	fs, free, err := freeIn(folder)
	need := int64(max(w.Plan.Temporary, w.Plan.Writes))
	switch {
	case overQuota:
		return "a quota leaves no more room at " + at
	case err != nil:
		return "the file system of " + at + " is full"
	case fs.Files > 0 && fs.Ffree == 0:
		return "the file system of " + at + " has no inode left for another file"
	case need > free:
		return fmt.Sprintf("the file system of %s is full: up to %s are needed and %s are free: %s missing", at, upkeep.Size(need).About(), upkeep.Size(free).About(), upkeep.Plural(need-free, "byte is", "bytes are"))
	}
	return fmt.Sprintf("the file system of %s is full: %s are free now, and how much is needed is not known before", at, upkeep.Size(free).About())
}

// innerError is that it is the image which has no more room for what is copied into it.
type innerError struct{ err error }

func (e *innerError) Error() string { return e.err.Error() }
func (e *innerError) Unwrap() error { return e.err }

// full tells an image that is full from a host that is, which the kernel shows as a disk
// that fails.
func (m mounting) full(err error) error {
	fails := func(errno syscall.Errno) bool { return errors.Is(err, errno) }
	host := allocation.Exhausted(m.file)
	switch {
	case host != nil && slices.ContainsFunc([]syscall.Errno{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.ESHUTDOWN}, fails):
		return fmt.Errorf("%w: %w", err, host)
	case fails(unix.ENOSPC):
		return upkeep.WithHint(&innerError{err}, m.larger)
	}
	return err
}
