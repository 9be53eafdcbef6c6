// Package testkit starts real servers for tests and says loudly what a test
// could not have. Only tests import it.
//
// Everything it starts dies with the test binary, however that ends: the kernel
// is asked to kill the children (prctl PR_SET_PDEATHSIG), so a panic, a timeout
// or kill -9 leaves no daemon behind.
package testkit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Need skips the test when one of the programs is not installed. Where CI is
// set in the environment it fails instead: there, a test that did not run must
// never look like one that passed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	var missing []string
	for _, program := range programs {
		if _, err := Find(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		lack(t, fmt.Sprintf("needs %s (try: make deps)", strings.Join(missing, ", ")))
	}
}

// NeedRoot skips the test, or fails it where CI is set, when it does not run as
// root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "needs root")
	}
}

// NeedThat skips the test, or fails it where CI is set, when err is not nil: for
// what can only be found out by trying, such as making a network namespace.
func NeedThat(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		lack(t, fmt.Sprintf("needs %s: %v", what, err))
	}
}

func lack(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s %s, and CI is set: refusing to skip", t.Name(), what)
	}
	fmt.Fprintf(os.Stderr, "NOT RUN: %s %s\n", t.Name(), what)
	t.Skip("NOT RUN: " + what)
}

// Find returns the path of a program. It also looks where Debian keeps daemons
// that are not in every user's PATH.
func Find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, pattern := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/postgresql/*/bin", "/usr/libexec"} {
		found, _ := filepath.Glob(filepath.Join(pattern, program)) // the pattern is well-formed
		slices.Sort(found)
		for _, path := range slices.Backward(found) {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("finding %s: %w", program, exec.ErrNotFound)
}

// FreePort returns a port of 127.0.0.1 that is free for both TCP and UDP. It
// lies below the range from which the kernel takes ports of its own accord
// (ip_local_port_range), so that no outgoing connection or question gets it
// before the caller binds it, or while a server of the test is restarted. Give a
// server port 0 and read the port back wherever it can tell it.
func FreePort(t testing.TB) int {
	t.Helper()
	var last error
	for range 50 {
		port := 10240 + rand.IntN(32768-10240)
		if last = bindable(port); last == nil {
			return port
		}
	}
	t.Fatalf("finding a free port: %v", last)
	return 0
}

func bindable(port int) error {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	tcp, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp4", addr)
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	return errors.Join(tcp.Close(), udp.Close())
}

// Eventually calls check until it reports ok, and fails the test with the last
// state when that has not happened within the deadline. It is for real servers;
// whatever has a fake clock has no need of it.
func Eventually(t testing.TB, deadline time.Duration, check func() (ok bool, state string)) {
	t.Helper()
	const pause = 5 * time.Millisecond
	end := time.Now().Add(deadline)
	for {
		ok, state := check()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not so after %s; last seen: %s", deadline, state)
		}
		<-time.After(pause)
	}
}

// InMemory is a folder of which the disk hears nothing, where there is such: for what is
// large, or flushed often. It goes with the test.
func InMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "upkeep-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
