package allocation

import "golang.org/x/sys/unix"

// StartWriting has the kernel begin to bring a piece of a file to the disk, while the
// next one is made: else nearly all of a large file waits for the sync at its end, and
// the disk for the file. It is a hint: what fails here fails again at that sync.
func StartWriting(fd int, from, length int64) {
	_ = unix.SyncFileRange(fd, from, length, unix.SYNC_FILE_RANGE_WRITE)
}
