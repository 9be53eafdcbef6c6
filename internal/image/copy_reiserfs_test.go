package image

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"upkeep/internal/image/mount"
	"upkeep/internal/testkit"
)

// What is in an image of ReiserFS gets into one of ext4 with all that it is. The
// image was laid out by the tests of the reader, and passed reiserfsck --check.
func TestCopyOfFilledReiserFS(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "zstd", "mke2fs")
	from, to := filepath.Join(t.TempDir(), "old.img"), filepath.Join(t.TempDir(), "new.img")
	if out, err := exec.Command("zstd", "-q", "-d", "testdata/reiserfs.img.zst", "-o", from).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if result := run(t)(Copy(from, to, Copying{FS: "ext4"})).(Copied); result.Entries != 6 {
		t.Errorf("%+v", result)
	}
	inOrder(t, to, "ext4")
	file, err := os.Open(to)
	must(t, err)
	defer file.Close()
	must(t, mount.With(file, mount.Options{Type: "ext4", ReadOnly: true}, func(dir *os.File) error {
		at := func(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name) }
		for name, want := range map[string]string{
			"etc":         "40750 3 4 1000000001 2",
			"etc/passwd":  "100640 1000 70000 1000000002 2",
			"second name": "100640 1000 70000 1000000002 2",
			"holes":       "100600 0 0 1000000003 1",
			"null":        "20666 0 0 1000000004 1",
			"link":        "120777 0 0 1000000005 1",
		} {
			var st syscall.Stat_t
			must(t, syscall.Lstat(at(name), &st))
			if got := fmt.Sprintf("%o %d %d %d %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Nlink); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			if name == "holes" && (st.Size != 9*4096 || st.Blocks*512 >= st.Size) {
				t.Errorf("holes were filled: %d bytes take %d", st.Size, st.Blocks*512)
			}
		}
		content, err := os.ReadFile(at("second name"))
		must(t, err)
		if !strings.HasPrefix(string(content), "root:x:0:0") {
			t.Errorf("it holds %q", content)
		}
		return nil
	}))
}
