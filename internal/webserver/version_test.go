package webserver

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The program is asked for its version when it has changed, and not each time
// that somebody wants to know.
func TestVersionIsAskedOnce(t *testing.T) {
	dir := t.TempDir()
	program, asked := filepath.Join(dir, "apache2"), filepath.Join(dir, "asked")
	install := func(version string) {
		script := fmt.Sprintf("#!/bin/sh\necho >>%s\necho 'Server version: %s (Debian)'\n", asked, version)
		if err := replaceFile(program, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	a := &Applier{o: Options{Server: Apache{Program: program}}}
	want := func(version string, times int64) {
		t.Helper()
		for range 3 {
			if got, err := a.Version(t.Context()); err != nil || got != version {
				t.Errorf("the version is %q, %v, want %s", got, err, version)
			}
		}
		if info, err := os.Stat(asked); err != nil || info.Size() != times {
			t.Errorf("the program was asked %v times, %v, want %d", info.Size(), err, times)
		}
	}
	install("Apache/2.4.65")
	want("Apache/2.4.65", 1)
	install("Apache/2.4.66") // as an upgrade does: another file in its place
	want("Apache/2.4.66", 2)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Version(t.Context()); err == nil {
		t.Errorf("a program that is gone has the version %q", got)
	}
}
