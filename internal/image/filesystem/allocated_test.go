package filesystem

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// allocated is what a file takes of its host, in bytes.
func allocated(t *testing.T, file *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}
