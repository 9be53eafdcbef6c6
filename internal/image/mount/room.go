package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Room is what a sparse image may still take of the file system that it lies on, and
// what that one has left.
type Room struct {
	Wants, Free int64 // in bytes
}

// Short reports whether the image can run its host out of room: a program that writes
// into it then gets an error that it takes for a broken disk.
func (r Room) Short() bool { return r.Wants > r.Free }

// RoomFor looks how much room an image may still want.
func RoomFor(f *os.File) (Room, error) {
	var st unix.Stat_t
	var host unix.Statfs_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Room{}, fmt.Errorf("looking at %s: %w", f.Name(), err)
	}
	if err := unix.Fstatfs(int(f.Fd()), &host); err != nil {
		return Room{}, fmt.Errorf("asking how much room there is beside %s: %w", f.Name(), err)
	}
	return Room{Wants: max(0, st.Size-st.Blocks*512), Free: int64(host.Bavail) * host.Bsize}, nil
}
