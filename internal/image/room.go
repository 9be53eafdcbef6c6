package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/shadow"
)

// room refuses work for which the host has not the room: need bytes in the folder of
// path, of what is free there and of what quotas leave.
func room(path string, need int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &fs); err != nil {
		return fmt.Errorf("asking how much room there is beside %s: %w", path, err)
	}
	free := int64(fs.Bavail) * fs.Bsize
	if os.Geteuid() == 0 {
		free = int64(fs.Bfree) * fs.Bsize
	}
	if free >= need {
		return quota(path, need, &fs)
	}
	return &upkeep.HintError{
		Err:  &noRoomError{path: path, need: need, free: free},
		Hint: "make room, or move the image to a file system with more; where files can share blocks (xfs, btrfs) next to none is needed",
	}
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
	return fmt.Sprintf("%v: %s are needed beside %s%s and %s %s: %d bytes are missing; nothing was changed",
		upkeep.ErrRefused, upkeep.Size(e.need).About(), e.path, what, upkeep.Size(e.free).About(), has, e.missing())
}

func (e *noRoomError) Unwrap() error { return upkeep.ErrRefused }
