package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep/internal/image/mount"
	"upkeep/internal/testkit"
)

// TestFilesInXFS has one in an image, in a packed one, and with changes in its log.
func TestFilesInXFS(t *testing.T) {
	testkit.NeedRoot(t)
	path := made(t, Creation{Size: 300 * mib, FS: "xfs"})
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	folder := t.TempDir()
	packed, cut := filepath.Join(folder, "x.zst"), filepath.Join(folder, "cut.img")
	must(t, mount.With(file, mount.Options{Type: "xfs"}, func(dir *os.File) error {
		name := filepath.Join(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), "file")
		must(t, os.WriteFile(name, []byte("content"), 0o640))
		must(t, os.Chown(name, 12, 34))
		opened, err := os.Open(name)
		must(t, err)
		must(t, opened.Sync())
		must(t, opened.Close())
		testkit.Run(t, "cp", "--sparse=always", path, cut)
		return nil
	}))
	must(t, file.Close())
	run(t)(Pack(path, packed, PackOptions{}))
	for _, src := range []string{path, packed} {
		files, err := OpenFiles(t.Context(), src, 0)
		must(t, err)
		list, err := files.List("/")
		if err != nil || len(list) != 1 || list[0].Path != "/file" || list[0].Mode != "-rw-r-----" || list[0].UID != 12 || list[0].GID != 34 || files.Stale {
			t.Errorf("%s lists %+v, stale %v, %v", src, list, files.Stale, err)
		}
		text := &strings.Builder{}
		if err := files.Cat(t.Context(), "file", text); err != nil || text.String() != "content" {
			t.Errorf("%s: %q, %v", src, text, err)
		}
		must(t, files.Close())
	}
	files, err := OpenFiles(t.Context(), cut, 0)
	must(t, err)
	defer files.Close()
	if !files.Stale {
		t.Error("nothing is told of changes in the log")
	}
}
