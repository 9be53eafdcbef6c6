package safefs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep/internal/testkit"
)

// TestMain lets the test binary be started again as a customer, or as a process
// that is to be killed.
func TestMain(m *testing.M) {
	switch os.Getenv("SAFEFS_TEST_ROLE") {
	case "racer":
		race(os.Args[1], os.Args[2], nil)
	case "own":
		if err := own(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "victim":
		victim(os.Args[1])
	default:
		os.Exit(m.Run())
	}
}

// racing is how long the racers run.
const racing = 3 * time.Second

// race swaps the entries of a folder, as fast as it can, between folders, links
// to the outside (absolute, relative, through /proc), files, hard links and
// FIFOs, at two depths. As root, at one: it would itself change what it has made
// links to.
func race(place, outside string, stop *atomic.Bool) {
	names := []string{"a", "b"}
	for stop == nil || !stop.Load() {
		dir := place
		if rand.IntN(2) == 0 && os.Geteuid() != 0 {
			dir = filepath.Join(place, names[rand.IntN(len(names))])
		}
		path := filepath.Join(dir, names[rand.IntN(len(names))])
		aside := filepath.Join(place, fmt.Sprint(".aside", rand.IntN(4)))
		// Every one of these fails now and then: the other side is at it, too.
		_ = unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, aside, 0)
		_ = os.RemoveAll(aside)
		switch rand.IntN(8) {
		case 0:
			_ = os.Symlink(outside, path)
		case 1:
			_ = os.Symlink("../../outside", path)
		case 2:
			_ = os.Symlink("/proc/self/root"+outside, path)
		case 3:
			_ = os.Symlink(filepath.Join(outside, "inner"), path)
		case 4:
			_ = os.Link(filepath.Join(outside, "secret"), path)
		case 5:
			_ = unix.Mkfifo(path, 0o666)
		case 6:
			if file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o666); err == nil {
				_ = file.Close()
			}
		case 7:
			_ = os.Mkdir(path, 0o755)
		}
		// A folder and a link to the outside change places in one step.
		_ = os.Symlink(outside, aside)
		_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(place, "a"), unix.AT_FDCWD, aside, unix.RENAME_EXCHANGE)
	}
}

// startRacer runs the racer as a customer, in a process of its own.
func startRacer(t *testing.T, uid uint32, place, outside string) *testkit.Process {
	t.Helper()
	return testkit.Command{
		Argv: []string{binary(t), place, outside}, Env: []string{"SAFEFS_TEST_ROLE=racer"}, Dir: "/",
		User: &syscall.Credential{Uid: uid, Gid: uid},
	}.Start(t)
}

// binary is a copy of this test binary that everybody may execute.
func binary(t *testing.T) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "racer")
	if err := errors.Join(testkit.WriteProgram(path, self), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// attempts counts what the work under attack came to.
type attempts struct{ done, refused int }

func (a *attempts) count(t *testing.T, err error) {
	switch {
	case err == nil:
		a.done++
	case errors.As(err, new(*RefusedError)), errors.Is(err, os.ErrNotExist):
		a.refused++
	default:
		t.Errorf("an error that is no refusal: %v", err)
	}
}

// work does what jobs do, over and over, in the folder that a racer works in.
func work(t *testing.T, home *Dir, owner int) attempts {
	var a attempts
	own := Attributes{UID: owner, GID: owner, Mode: 0o750}
	for end := time.Now().Add(racing); time.Now().Before(end); {
		for _, path := range []string{"site/a", "site/b", "site/a/b"} {
			parent, err := home.Walk(filepath.Dir(path))
			if err != nil {
				a.count(t, err)
				continue
			}
			sub, _, err := parent.Ensure(filepath.Base(path), own)
			a.count(t, err)
			if err == nil {
				if _, err := sub.Names(10); err != nil && !errors.Is(err, os.ErrPermission) {
					a.count(t, err)
				}
				_ = sub.Link("log", "/var/log/x") // the racer may have made it anything
				_ = sub.Close()
			}
			if parent.as == nil {
				_, err := parent.WriteFile("b", []byte("written"), Attributes{Mode: 0o644})
				a.count(t, err)
				_, err = parent.ReadFile("b", 100)
				a.count(t, err)
			}
			_ = parent.Close()
		}
	}
	return a
}

// TestRacerWhoIsACustomer has a customer swap what is in his folder while work is
// done in it.
func TestRacerWhoIsACustomer(t *testing.T) {
	dir, home := tree(t)
	site := mkdir(t, dir, "home/site", acme, 0o755)
	before := snapshot(t, filepath.Join(dir, "outside"))
	racer := startRacer(t, acme, site, filepath.Join(dir, "outside"))
	a := work(t, home, acme)
	if !racer.Running() {
		t.Fatalf("the racer ended: %s", racer.Log())
	}
	racer.Kill()
	t.Logf("%d done, %d refused", a.done, a.refused)
	if a.done == 0 || a.refused == 0 {
		t.Errorf("there was no race: %d done, %d refused", a.done, a.refused)
	}
	if after := snapshot(t, filepath.Join(dir, "outside")); after != before {
		t.Errorf("the outside changed:\n%s\nwas\n%s", after, before)
	}
}

// TestRacerWhoIsRoot has root swap the entries of a folder that is root's: no
// customer could, and even so nothing outside is reached. This is what holds
// when owner and mode of a folder are wrong without anybody's noticing.
func TestRacerWhoIsRoot(t *testing.T) {
	dir, home := tree(t)
	site := mkdir(t, dir, "home/site", 0, 0o755)
	// Hard links would be the same file: they are refused, not told apart.
	before := unlinked(snapshot(t, filepath.Join(dir, "outside")))
	var stop atomic.Bool
	var racer sync.WaitGroup
	racer.Go(func() { race(site, filepath.Join(dir, "outside"), &stop) })
	a := work(t, home, acme)
	stop.Store(true)
	racer.Wait()
	t.Logf("%d done, %d refused", a.done, a.refused)
	if a.done == 0 || a.refused == 0 {
		t.Errorf("there was no race: %d done, %d refused", a.done, a.refused)
	}
	if err := os.RemoveAll(site); err != nil {
		t.Fatal(err)
	}
	if after := unlinked(snapshot(t, filepath.Join(dir, "outside"))); after != before {
		t.Errorf("the outside changed:\n%s\nwas\n%s", after, before)
	}
}

// unlinked takes the line of the file to which the racer makes links out of a
// snapshot, but for what it holds.
func unlinked(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.Contains(line, "/secret ") {
			fields := strings.Fields(line)
			lines[i] = strings.Join(append(fields[:3:3], fields[4:]...), " ")
		}
	}
	return strings.Join(lines, "\n")
}

// TestMounts holds that work does not go on in a file system that is mounted
// below the root, unless that is meant.
func TestMounts(t *testing.T) {
	dir, home := tree(t)
	mkdir(t, dir, "home/site", 0, 0o755)
	mounted := make(chan error)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // the namespace ends with the thread
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("none", filepath.Join(dir, "home/site"), "tmpfs", 0, "mode=755")
		}
		mounted <- err
		if err != nil {
			return
		}
		defer close(done)
		home, err := OpenRoot(filepath.Join(dir, "home"), false, customers)
		if err != nil {
			t.Error(err)
			return
		}
		defer home.Close()
		_, err = home.Open("site")
		wantRefused(t, err, "on another file system")
		_, _, err = home.Ensure("site", Attributes{Mode: 0o755})
		wantRefused(t, err, "on another file system")
		_, err = home.Discard("site", home, "gone")
		wantRefused(t, err, "in use")
		crossing, err := OpenRoot(filepath.Join(dir, "home"), true, customers)
		if err != nil {
			t.Error(err)
			return
		}
		defer crossing.Close()
		site, err := crossing.Open("site")
		if err != nil {
			t.Error(err)
			return
		}
		if _, _, err := site.Ensure("x", Attributes{UID: acme, GID: acme, Mode: 0o755}); err != nil {
			t.Error(err)
		}
		_ = site.Close()
	}()
	testkit.NeedThat(t, "a mount namespace", <-mounted)
	<-done
	// Outside of the namespace nothing of it is to be seen.
	site, err := home.Open("site")
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	if names, err := site.Names(-1); err != nil || len(names) > 0 {
		t.Errorf("found %v, %v", names, err)
	}
}

// TestTenantCannotReachTheThread has the customer send signals to the process
// that acts as him, and look into it, while it does so.
func TestTenantCannotReachTheThread(t *testing.T) {
	dir, home := tree(t)
	mkdir(t, dir, "home/site", acme, 0o755)
	site, err := home.Open("site")
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	err = site.do(func() error {
		thread := unix.Gettid()
		for _, argv := range [][]string{
			{"/bin/kill", "-0", strconv.Itoa(os.Getpid())},
			{"/bin/kill", "-0", strconv.Itoa(thread)},
			{"/bin/cat", fmt.Sprintf("/proc/%d/task/%d/mem", os.Getpid(), thread)},
			{"/bin/ls", fmt.Sprintf("/proc/%d/task/%d/fd/", os.Getpid(), thread)},
		} {
			// Started from another thread: this one could not take another identity.
			result := make(chan string)
			go func() {
				cmd := exec.Command(argv[0], argv[1:]...)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: acme, Gid: acme}}
				out, err := cmd.CombinedOutput()
				if err == nil {
					out = append(out, "it succeeded"...)
				}
				result <- string(out)
			}()
			if got := <-result; !strings.Contains(got, "permitted") && !strings.Contains(got, "denied") && !strings.Contains(got, "cannot open") {
				t.Errorf("%v: %q", argv, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// BenchmarkTenant is what it costs to act as a customer.
func BenchmarkTenant(b *testing.B) {
	if os.Geteuid() != 0 {
		testkit.NeedRoot(b)
	}
	for b.Loop() {
		if err := (identity{acme, acme}).run(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
