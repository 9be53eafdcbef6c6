package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
)

// TestMain is also the program that is killed while it has a device.
func TestMain(m *testing.M) {
	if path := os.Getenv("UPKEEP_TEST_ATTACH"); path != "" {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			var d *Device
			if d, err = Attach(f, Options{}); err == nil {
				fmt.Println(d.Name)
				io.Copy(io.Discard, os.Stdin)
			}
		}
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func image(t *testing.T, write bool) *os.File {
	t.Helper()
	testkit.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "web.img")
	content := make([]byte, 4<<20)
	for i := range content {
		content[i] = byte(i >> 12)
	}
	must(t, os.WriteFile(path, content, 0o600))
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheDeviceIsThePartOfTheFile(t *testing.T) {
	for _, o := range []Options{
		{}, {ReadOnly: true}, {DirectIO: true}, {BlockSize: 4096}, {Offset: 1 << 20}, {Offset: 1 << 20, Size: 1 << 20, DirectIO: true},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			f := image(t, !o.ReadOnly)
			d, err := Attach(f, o)
			must(t, err)
			content, err := os.ReadFile(f.Name())
			must(t, err)
			want := content[o.Offset:]
			if o.Size > 0 {
				want = want[:o.Size]
			}
			got, err := os.ReadFile(d.Path())
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("the device has %d bytes, and not the %d of the file", len(got), len(want))
			}
			_, err = d.File.WriteAt(bytes.Repeat([]byte("x"), 4096), 8192)
			if o.ReadOnly != (err != nil) {
				t.Errorf("writing: %v", err)
			}
			must(t, d.Detach())
			if _, err := os.Stat("/sys/block/" + d.Name + "/loop/backing_file"); err == nil && d.Attached() {
				t.Error("the device is still there")
			}
			if o.ReadOnly {
				return
			}
			copy(content[o.Offset+8192:], bytes.Repeat([]byte("x"), 4096))
			if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, content) {
				t.Errorf("what was written is not in the file: %v", err)
			}
		})
	}
}

func TestAttachRefuses(t *testing.T) {
	f := image(t, true)
	for _, o := range []Options{{Offset: -1}, {Size: -1}, {Offset: 4 << 20}, {Offset: 1, Size: 4 << 20}, {Offset: 4<<20 - 100}, {Offset: 1 << 62, Size: 1 << 62}} {
		if _, err := Attach(f, o); !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := Attach(image(t, false), Options{}); !errors.Is(err, unix.EBADF) {
		t.Errorf("writing to a file that is open to read: %v", err)
	}
}

// Many ask at a time for the number that is free.
func TestAttachAtOnce(t *testing.T) {
	files := make([]*os.File, 12)
	for i := range files {
		files[i] = image(t, true)
	}
	var all sync.WaitGroup
	for _, f := range files {
		all.Go(func() {
			for range 5 {
				d, err := Attach(f, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				info, err := unix.IoctlLoopGetStatus64(int(d.File.Fd()))
				var st unix.Stat_t
				if err = errors.Join(err, unix.Fstat(int(f.Fd()), &st)); err != nil || info.Inode != st.Ino {
					t.Errorf("%s is on another file, %v", d.Name, err)
				}
				if err := d.Detach(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestAKillLeavesNone(t *testing.T) {
	f := image(t, true)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "UPKEEP_TEST_ATTACH="+f.Name())
	out, err := cmd.StdoutPipe()
	must(t, err)
	_, err = cmd.StdinPipe() // it waits at its end
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, 100)
	n, err := out.Read(line)
	must(t, err)
	d := On(strings.TrimSpace(string(line[:n])))
	if !d.Attached() {
		t.Fatalf("%q is not there before the kill", line[:n])
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must(t, d.Gone(ctx))
}
