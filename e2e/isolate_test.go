package e2e

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"upkeep/internal/selftest"
	"upkeep/internal/testkit"
)

// isolatedEnv names the folder of a test that runs in namespaces of its own.
const isolatedEnv = "UPKEEP_E2E_ISOLATED"

// isolated runs the rest of a test in namespaces of its own, in which upkeep's
// agent makes users in a copy of /etc. It returns the folder for everything there,
// and false in the process that only waits for the other.
func isolated(t *testing.T) (dir string, inside bool) {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "apache2", "useradd")
	if dir := os.Getenv(isolatedEnv); dir != "" {
		if err := selftest.Enter(dir); err != nil {
			t.Fatal(err)
		}
		return dir, true
	}
	program := upkeepProgram(t)
	dir = t.TempDir()
	for _, path := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := selftest.Isolated(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=8m")
	cmd.Env = append(os.Environ(), isolatedEnv+"="+dir, "UPKEEP_E2E_PROGRAM="+program)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	runtime.LockOSThread() // the other process ends with this thread
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	testkit.NeedThat(t, "namespaces of its own", err)
	if err := cmd.Wait(); err != nil {
		t.Errorf("in its namespaces: %v", err)
	}
	return dir, false
}

// attacked is a control with an agent and an Apache, with two customers.
func attacked(t *testing.T, dir, database string) *selftest.System {
	t.Helper()
	s, err := selftest.Start(context.Background(), selftest.Options{Program: []string{upkeepProgram(t)}, Dir: dir, Database: database})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Leave)
	return s
}
