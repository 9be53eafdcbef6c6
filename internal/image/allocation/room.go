package allocation

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Exhausted asks for a little more room behind the end of a file that is given up, and
// returns ENOSPC or EDQUOT where its host has none: of what a program or a mounted image
// says it had, that is not always told.
func Exhausted(file *os.File) error {
	const little = 64 << 10
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil //nolint:nilerr // what is wrong with it is told elsewhere
	}
	err = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, info.Size(), little)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err
	}
	return nil
}
