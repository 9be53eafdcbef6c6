package datadir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/datadir"
	"upkeep/internal/testkit"
)

func TestOpenMakesAPrivateFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "parent", "data")
	d, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v", info.Mode(), err)
	}
	if d.Path() != path || d.Socket() != datadir.Socket(path) || !strings.HasPrefix(d.Database(), "sqlite:"+path) {
		t.Errorf("paths %s %s %s", d.Path(), d.Socket(), d.Database())
	}
}

// TestMain lets this binary be the other process.
func TestMain(m *testing.M) {
	if path := os.Getenv("DATADIR_HOLD"); path != "" {
		if _, err := datadir.Open(path); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("held")
		select {}
	}
	os.Exit(m.Run())
}

func TestSecondProcessIsRefusedByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	other := testkit.Command{Argv: []string{self}, Env: append(os.Environ(), "DATADIR_HOLD="+path)}.Start(t)
	testkit.Eventually(t, 30*time.Second, func() (bool, string) { return strings.Contains(other.Log(), "held"), other.Log() })

	_, err = datadir.Open(path)
	var hint *upkeep.HintError
	if !errors.Is(err, upkeep.ErrConflict) || !errors.As(err, &hint) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", other.PID())) {
		t.Errorf("opening a held folder: %v", err)
	}

	// The lock goes with the process, even when it had no time to tidy up.
	other.Kill()
	d, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	parent := t.TempDir()
	shared := filepath.Join(parent, "shared")
	if err := os.Mkdir(shared, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		shared:                       "chmod go-w",
		file:                         "not a folder",
		filepath.Join(file, "below"): "not a directory",
		filepath.Join(parent, strings.Repeat("long", 30)): "shorter",
	} {
		d, err := datadir.Open(path)
		if err == nil {
			_ = d.Close()
			t.Errorf("%s was opened", path)
			continue
		}
		var hint *upkeep.HintError
		text := err.Error()
		if errors.As(err, &hint) {
			text += hint.Hint
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s: %s; want a word of %q", path, text, want)
		}
	}
}
