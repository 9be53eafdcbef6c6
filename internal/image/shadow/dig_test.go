package shadow

import (
	"bytes"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	file := patchy(t, path, true)
	before := content(t, path)
	must(t, Dig(file, 8<<20))
	if !bytes.Equal(content(t, path), before) {
		t.Error("digging changed what is read")
	}
	var st unix.Stat_t
	must(t, unix.Fstat(int(file.Fd()), &st))
	if st.Size != 8<<20 || st.Blocks*512 > 2*128<<10+4096 {
		t.Errorf("%d bytes in %d blocks are left, of which 200000 hold data", st.Size, st.Blocks)
	}
	// What is smaller than a grain at the end.
	must(t, file.Truncate(8<<20+100))
	must(t, Dig(file, 8<<20+100))
	must(t, Dig(file, 0))
}
