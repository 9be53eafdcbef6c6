package hold

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
)

func TestTwoReadersShare(t *testing.T) {
	path := image(t)
	for range 2 {
		if _, err := Take(open(t, path, false), Options{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASecondWriterOfThisProcessIsRefused(t *testing.T) {
	path := image(t)
	first, err := Take(open(t, path, true), Options{Write: true})
	must(t, err)
	if _, err := Take(open(t, path, true), Options{Write: true}); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("taking it twice: %v", err)
	}
	if _, err := Take(open(t, path, false), Options{}); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("reading it meanwhile: %v", err)
	}
	must(t, first.Again())
	must(t, first.Release())
	free(t, path, true)
}

func TestAgain(t *testing.T) {
	path := image(t)
	lock, err := Take(open(t, path, true), Options{Write: true})
	must(t, err)
	must(t, lock.Again())

	t.Run("a child has it", func(t *testing.T) {
		cmd := exec.Command("cat")
		cmd.ExtraFiles = []*os.File{lock.file}
		in, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		must(t, lock.Again())
		in.Close()
		must(t, cmd.Wait())
	})
	t.Run("a child opened it", func(t *testing.T) {
		cmd := exec.Command("sh", "-c", `exec 9<>"$0" && echo opened && cat`, path)
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = io.ReadFull(out, make([]byte, len("opened\n")))
		must(t, err)
		must(t, lock.Again())
		in.Close()
		must(t, cmd.Wait())
	})
	t.Run("another opened it", func(t *testing.T) {
		holder(t, "write", path)
		if err := lock.Again(); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "open for writing by pid") {
			t.Errorf("while another has it: %v", err)
		}
	})
	must(t, lock.Again())
	t.Run("replaced", func(t *testing.T) {
		must(t, os.Rename(path, path+".away"))
		if err := lock.Again(); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "is not what it was") {
			t.Errorf("moved away: %v", err)
		}
		must(t, os.WriteFile(path, []byte("other"), 0o600))
		if err := lock.Again(); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "replaced by another file") {
			t.Errorf("replaced: %v", err)
		}
		must(t, os.Remove(path+".away"))
		if err := lock.Again(); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "was deleted") {
			t.Errorf("deleted: %v", err)
		}
	})
}

func TestOurLoopDevice(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "losetup", "mke2fs", "mount")
	path := image(t)
	testkit.Run(t, "mke2fs", "-q", "-F", path)
	lock, err := Take(open(t, path, true), Options{Write: true})
	must(t, err)
	device := attach(t, path)
	if err := lock.Again(); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("with another's loop device: %v", err)
	}
	lock.Ours(device)
	must(t, lock.Again())
	folder := t.TempDir()
	testkit.Run(t, "mount", "/dev/"+device, folder)
	t.Cleanup(func() { testkit.Run(t, "umount", folder) })
	must(t, lock.Again())
	second := attach(t, path)
	if err := lock.Again(); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), second) {
		t.Errorf("with another's loop device beside ours: %v", err)
	}
	lock.Ours(second)
	must(t, lock.Again())
	lock.NoLonger(second)
	if err := lock.Again(); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("with one that is not ours any more: %v", err)
	}
}

// A file that is in flight over a socket is in no list of any process.
func TestAFileInFlight(t *testing.T) {
	path := image(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(pair[0])
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	must(t, err)
	must(t, unix.Sendmsg(pair[1], []byte("x"), unix.UnixRights(fd), nil, 0))
	must(t, unix.Close(fd))
	must(t, unix.Close(pair[1]))
	refused(t, path, true, "open for writing by a program that cannot be seen from here")
	refused(t, path, false, "open for writing by a program that cannot be seen from here")
}

// A program that was killed is in no list any more while its files are closed, one after
// the other, and its locks stay as long.
// It is waited for, a moment.
func TestALockThatOutlivesItsProgram(t *testing.T) {
	path := image(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	must(t, unix.Sendmsg(pair[1], []byte("x"), unix.UnixRights(int(f.Fd())), nil, 0))
	must(t, errors.Join(f.Close(), unix.Close(pair[1])))
	_, err = Take(open(t, path, true), Options{Write: true})
	if hinted := (*upkeep.HintError)(nil); !errors.As(err, &hinted) || !strings.Contains(hinted.Hint, "try again in a moment") {
		t.Errorf("while it is locked: %v", err)
	}
	time.AfterFunc(untilGone/4, func() { unix.Close(pair[0]) })
	lock, err := Take(open(t, path, true), Options{Write: true})
	must(t, err)
	must(t, lock.Release())
}

func TestWithoutRoot(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "setpriv")
	folder, err := os.MkdirTemp("/var/tmp", "upkeep-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	must(t, os.Chmod(folder, 0o755))
	path, program := filepath.Join(folder, "web.img"), filepath.Join(folder, "program")
	must(t, os.WriteFile(path, []byte("image"), 0o644))
	must(t, os.Chown(path, 65534, 65534))
	text, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, testkit.WriteProgram(program, text))
	holder(t, "write", path) // root's process, which nobody may not look into
	setpriv, err := testkit.Find("setpriv")
	must(t, err)
	cmd := exec.Command(setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups", program, path)
	cmd.Env = append(os.Environ(), "UPKEEP_TEST_HOLD=writer")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "open for writing by a program that cannot be seen from here") {
		t.Errorf("taking what root has open: %v, %s", err, out)
	}
}

func TestParseLock(t *testing.T) {
	for line, want := range map[string]struct {
		what   string
		writes bool
		pid    int
	}{
		"1: OFDLCK ADVISORY  READ -1 fe:00:7 101 101":   {IsLocked, true, -1},
		"1: OFDLCK ADVISORY  READ -1 fe:00:7 201 203":   {IsLocked, false, -1},
		"1: OFDLCK ADVISORY  READ -1 fe:00:7 0 EOF":     {IsLocked, true, -1},
		"2: POSIX  ADVISORY  WRITE 12 fe:00:7 0 0":      {IsLocked, true, 12},
		"3: FLOCK  ADVISORY  WRITE 12 fe:00:7 0 EOF":    {IsLocked, true, 12},
		"3: FLOCK  ADVISORY  READ 12 fe:00:7 0 EOF":     {IsLocked, false, 12},
		"4: LEASE  ACTIVE    READ 12 fe:00:7 0 EOF":     {IsLeased, false, 12},
		"3: -> FLOCK  ADVISORY  WRITE 12 fe:00:7 0 EOF": {},
		"3: FLOCK":                             {},
		"":                                     {},
		"3: FLOCK ADVISORY WRITE x fe:0 0 EOF": {},
	} {
		if what, writes, pid := parseLock(line); what != want.what || writes != want.writes || pid != want.pid {
			t.Errorf("%q is %s %v %d", line, what, writes, pid)
		}
	}
}

// Of upkeeps that come and go at a time, one that is refused is told by whom: no other
// is a program that cannot be seen.
func TestAnotherUpkeepIsNamed(t *testing.T) {
	path := image(t)
	refusals := 0
	for range 30 {
		var all [4]*exec.Cmd
		var said [len(all)]bytes.Buffer
		for i := range all {
			all[i] = exec.Command(os.Args[0], path) // whose input ends at once
			all[i].Env = append(os.Environ(), "UPKEEP_TEST_HOLD=writer")
			all[i].Stdout = &said[i]
			must(t, all[i].Start())
		}
		for i, cmd := range all {
			if err := cmd.Wait(); err == nil {
				continue
			}
			refusals++
			if !strings.Contains(said[i].String(), "is in use: ") || !strings.Contains(said[i].String(), " by pid ") {
				t.Fatalf("beside others: %s", said[i].String())
			}
		}
	}
	if refusals == 0 {
		t.Error("no two of them had it at a time")
	}
}
