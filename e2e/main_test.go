package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"upkeep/internal/testkit"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The scenarios wait for servers most of the time: more of them than
	// processors may run at once.
	parallel := flag.Lookup("test.parallel")
	if parallel.Value.String() == parallel.DefValue {
		if err := parallel.Value.Set("4"); err != nil {
			panic(err)
		}
	}
	status := m.Run()
	if path, err := program(); err == nil && os.Getenv("UPKEEP_E2E_PROGRAM") == "" {
		_ = os.RemoveAll(filepath.Dir(path)) // best effort: it is in the temporary folder
	}
	os.Exit(status)
}

// program builds upkeep once, as it is shipped: without the race detector.
// UPKEEP_E2E_PROGRAM names another program to test.
var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("UPKEEP_E2E_PROGRAM"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "upkeep-e2e-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // accounts that are not root's run it too
		return "", err
	}
	path := filepath.Join(dir, "upkeep")
	if output, err := exec.Command("go", "build", "-o", path, "upkeep/cmd/upkeep").CombinedOutput(); err != nil {
		return path, fmt.Errorf("building upkeep: %w\n%s", err, output)
	}
	return path, nil
})

func upkeepProgram(t testing.TB) string {
	t.Helper()
	testkit.Need(t, "go")
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
