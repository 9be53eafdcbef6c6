package hold

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
)

func TestOpenRefusesWhatIsNoImage(t *testing.T) {
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	must(t, os.WriteFile(at("image"), []byte("x"), 0o600))
	must(t, os.WriteFile(at("empty"), nil, 0o600))
	must(t, unix.Mkfifo(at("fifo"), 0o600))
	must(t, unix.Mkfifo(at("odd\nname"), 0o600))
	must(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0))
	must(t, os.Symlink("circle", at("circle")))
	must(t, os.Symlink("nowhere", at("dangling")))
	must(t, os.Symlink("fifo", at("to the fifo")))
	must(t, os.Symlink("image", at("link")))
	must(t, os.Symlink("link", at("link of a link")))
	for _, c := range []struct {
		name, text string
		is         error
	}{
		{folder, "is a directory; an image is a regular file", upkeep.ErrRefused},
		{at("empty"), "is an empty file", upkeep.ErrRefused},
		{at("fifo"), "is a FIFO", upkeep.ErrRefused},
		{at("to the fifo"), "is a FIFO", upkeep.ErrRefused},
		{at("odd\nname"), "is a FIFO", upkeep.ErrRefused},
		{at("socket"), "is a socket", upkeep.ErrRefused},
		{"/dev/null", "is a character device", upkeep.ErrRefused},
		{at("circle"), "leads round in a circle", upkeep.ErrRefused},
		{at("dangling"), "there is no file", upkeep.ErrNotFound},
		{at("none"), "there is no file", upkeep.ErrNotFound},
		{at("image/below"), "leads through something that is no directory", upkeep.ErrNotFound},
		{at("link of a link"), "", nil},
	} {
		for _, write := range []bool{false, true} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			ended := make(chan error)
			go func() {
				f, err := Open(c.name, write)
				if err == nil {
					err = f.Close()
				}
				ended <- err
			}()
			select {
			case err := <-ended:
				if c.is == nil && err != nil || c.is != nil && (!errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), c.name)) {
					t.Errorf("opening %s (write %v): %v", c.name, write, err)
				}
			case <-ctx.Done():
				t.Fatalf("opening %s hangs", c.name)
			}
			cancel()
		}
	}
}

func TestOpenRefusesABlockDevice(t *testing.T) {
	testkit.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "disk")
	must(t, unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))))
	if _, err := Open(path, false); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "is a block device") {
		t.Errorf("opening a block device: %v", err)
	}
}
