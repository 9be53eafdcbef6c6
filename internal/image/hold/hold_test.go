package hold

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
)

// TestMain is also the program of the processes that hold files for the tests.
func TestMain(m *testing.M) {
	if how := os.Getenv("UPKEEP_TEST_HOLD"); how != "" {
		if err := holdAs(how, os.Args[1]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin) // until the test ends
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func holdAs(how, path string) error {
	flags := unix.O_RDONLY
	if how == "write" || how == "map" || how == "posix" {
		flags = unix.O_RDWR
	}
	if how == "path" {
		flags = unix.O_PATH
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return err
	}
	switch how {
	case "map":
		if _, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return err
		}
		return unix.Close(fd)
	case "lease":
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
		signals := make(chan os.Signal, 1) // a lease that is broken is given back too late
		go func() { <-signals }()
	case "flock":
		err = unix.Flock(fd, unix.LOCK_SH)
	case "posix": // as libvirt's virtlockd
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 1})
	case "writer", "reader": // as another upkeep
		_, err = Take(os.NewFile(uintptr(fd), path), Options{Write: how == "writer"})
	}
	return err
}

// holder starts a process that holds the file, and returns its number.
func holder(t *testing.T, how, path string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], path)
	cmd.Env = append(os.Environ(), "UPKEEP_TEST_HOLD="+how)
	return testkit.Stranger(t, cmd)
}

func image(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.img")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 16<<20))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string, write bool) *os.File {
	t.Helper()
	f, err := Open(path, write)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// refused asserts that the file cannot be taken, and that the error has the texts.
func refused(t *testing.T, path string, write bool, texts ...string) {
	t.Helper()
	f, err := Open(path, write)
	if err == nil {
		defer f.Close()
		_, err = Take(f, Options{Write: write})
	}
	if !errors.Is(err, upkeep.ErrRefused) {
		t.Fatalf("taking it (write %v): %v, want a refusal", write, err)
	}
	var hint *upkeep.HintError
	if !errors.As(err, &hint) {
		t.Errorf("the refusal has no hint: %v", err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the refusal (write %v) is %q, want %q in it", write, err, text)
		}
	}
}

// free asserts that the file can be taken.
func free(t *testing.T, path string, write bool) {
	t.Helper()
	f, err := Open(path, write)
	must(t, err)
	defer f.Close()
	lock, err := Take(f, Options{Write: write})
	if err != nil {
		t.Fatalf("taking it (write %v): %v", write, err)
	}
	must(t, lock.Release())
}

func TestProcessesThatHold(t *testing.T) {
	for _, c := range []struct {
		how          string
		text         string // of the refusal; %d is the process
		read, writes bool   // whether reading is refused too
	}{
		{"read", "open by pid %d hold.test", false, false},
		{"write", "open for writing by pid %d hold.test", true, true},
		{"map", "mapped into memory by pid %d hold.test", true, true},
		{"flock", "locked by pid %d hold.test", false, false},
		{"posix", "locked by pid %d hold.test", true, true},
		{"writer", "locked by pid %d hold.test", true, true},
		{"reader", "locked by pid %d hold.test", false, false},
		{"lease", "leased to pid %d hold.test", false, false},
	} {
		t.Run(c.how, func(t *testing.T) {
			path := image(t)
			free(t, path, true)
			pid := holder(t, c.how, path)
			text := fmt.Sprintf(c.text, pid)
			refused(t, path, true, text)
			if c.read {
				refused(t, path, false, text)
			} else {
				free(t, path, false)
			}
			found, err := Holders(open(t, path, false))
			must(t, err)
			if len(found.Holders) != 1 || found.Holders[0].String() != text || found.Holders[0].Writes != c.writes || found.Unseen != 0 {
				t.Errorf("holders are %+v", found)
			}
		})
	}
}

func TestANameAloneHoldsNothing(t *testing.T) {
	path := image(t)
	holder(t, "path", path)
	free(t, path, true)
}
