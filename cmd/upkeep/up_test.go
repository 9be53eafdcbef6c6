package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"upkeep/internal/testkit"
)

// A terminal that is closed ends upkeep up in good order.
func TestUpEndsOnHangup(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "zone.yaml")
	if err := os.WriteFile(file, []byte("{kind: zone, name: example.test, publishers: [{type: transfer}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startUpkeep(t, nil, "up", "--data", filepath.Join(dir, "data"), "-f", file, "--dns", "", "--http", "", "--beat", "", "--apache", "none")
	testkit.Eventually(t, time.Minute, func() (bool, string) { return strings.Contains(p.Log(), "upkeep is up"), p.Log() })
	p.Signal(t, syscall.SIGHUP)
	if err := p.Wait(); err != nil || !strings.Contains(p.Log(), "stopped; what was declared") {
		t.Errorf("%v\n%s", err, p.Log())
	}
}
