package webserver

import (
	"os"
	"testing"
)

// TestOpenFiles opens descriptors and finds just these counted.
func TestOpenFiles(t *testing.T) {
	count := func() int {
		t.Helper()
		n, err := openFiles(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	const more = 7
	for range more {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if got := count(); got != before+more {
		t.Errorf("%d descriptors, want %d and %d", got, before, more)
	}
	if n, err := openFiles(1 << 30); err == nil {
		t.Errorf("a process that is not there has %d descriptors", n)
	}
}
