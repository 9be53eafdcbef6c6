package shadow

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/allocation"
)

// Dig gives back the blocks of a sparse file that hold nothing but zeros, or were
// allocated and never written. Makers of file systems leave both: they zero their
// journals. A host that cannot punch holes keeps them.
func Dig(file *os.File, size int64) error {
	for at := int64(0); at < size; {
		from, to, err := allocation.NextData(int(file.Fd()), at, size)
		if err != nil {
			return fmt.Errorf("looking for the data of %s: %w", file.Name(), err)
		}
		if err := punch(file, at, from); err != nil {
			return err
		}
		if err := digRange(file, from, to); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// grain is the smallest hole that is worth an extent, in bytes.
const grain = 64 << 10

// digRange punches what of a range is zeros, each run of it in one go: each hole that is
// made takes a transaction of the host's.
func digRange(file *os.File, from, to int64) error {
	buffer, zeros := make([]byte, 1<<20), make([]byte, grain)
	empty := from // where the run of zeros before begins
	for from < to {
		n, err := file.ReadAt(buffer[:min(to-from, int64(len(buffer)))], from)
		if n == 0 {
			return fmt.Errorf("reading %s at %d: %w", file.Name(), from, err)
		}
		for start := 0; start < n; start += grain {
			end := min(start+grain, n)
			if bytes.Equal(buffer[start:end], zeros[:end-start]) {
				continue
			}
			if err := punch(file, empty, from+int64(start)); err != nil {
				return err
			}
			empty = from + int64(end)
		}
		from += int64(n)
	}
	return punch(file, empty, to)
}

func punch(file *os.File, from, to int64) error {
	if from >= to {
		return nil
	}
	err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("punching a hole into %s: %w", file.Name(), err)
	}
	return nil
}
