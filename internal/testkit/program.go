package testkit

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Run runs a program, found as by [Find], to its end and returns all that it
// prints. One that fails ends the test.
func Run(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := Try(t, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// Try is Run for a program that may fail.
func Try(t testing.TB, argv ...string) (string, error) {
	t.Helper()
	return TryWith(t, nil, argv...)
}

// TryWith is Try for a program that reads something; nil is /dev/null.
func TryWith(t testing.TB, input io.Reader, argv ...string) (string, error) {
	t.Helper()
	Need(t, argv[0])
	path, err := Find(argv[0])
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, argv[1:]...)
	// What programs say is compared; and mtools and mke2fs are not to doubt small images.
	command.Env = append(os.Environ(), "LC_ALL=C", "MTOOLS_SKIP_CHECK=1", "MKE2FS_SKIP_CHECK_MSG=1")
	command.Stdin = input
	out, err := command.CombinedOutput()
	return string(out), err
}

// WriteProgram writes a program to be run right after, by anyone. No program is
// started meanwhile: its process would have the file open for writing until it runs
// what it is for, and who runs the file then is told "text file busy" (see
// [syscall.ForkLock] and https://go.dev/issue/22315).
func WriteProgram(path string, text []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, text, 0o755)
}
