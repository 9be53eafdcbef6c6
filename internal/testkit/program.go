package testkit

import (
	"io"
	"os"
	"os/exec"
	"strings"
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
