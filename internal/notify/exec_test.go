package notify

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
)

func runProgram(t *testing.T, timeout time.Duration, m Message, argv ...string) error {
	t.Helper()
	r := upkeep.Receiver{Name: "run", Type: upkeep.ReceiverExec, Command: argv, Timeout: upkeep.Duration(timeout)}.WithDefaults()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.Timeout))
	defer cancel()
	return newExec(r, slog.New(slog.DiscardHandler)).send(ctx, m)
}

func TestExec(t *testing.T) {
	t.Setenv("UPKEEP_TOKEN", "s3cret")
	out := filepath.Join(t.TempDir(), "out")
	m := testMessage("run", "monitor", time.Unix(1000, 0))
	m.Title = "$(touch /tmp/x) `id` \"quote\""
	if err := runProgram(t, time.Minute, m, "sh", "-c", `cat >"$0"; env >"$0.env"`, out); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var got Message
	if err := json.Unmarshal(text, &got); err != nil || got.Title != m.Title || got.ID != m.ID {
		t.Errorf("%v: %s", err, text)
	}
	env, err := os.ReadFile(out + ".env")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(env)) {
		name, _, _ := strings.Cut(line, "=")
		if !slices.Contains([]string{"LANG", "PATH", "HOME", "TZ", "TMPDIR", "UPKEEP_RECEIVER", "PWD", "OLDPWD", "SHLVL", "_"}, name) {
			t.Errorf("the environment has %s", line)
		}
	}
}

func TestExecFailures(t *testing.T) {
	for name, tt := range map[string]struct {
		timeout time.Duration
		argv    []string
		want    string
	}{
		"status":      {time.Minute, []string{"sh", "-c", "echo no; echo more >&2; exit 3"}, "exit status 3: no more"},
		"silent":      {time.Minute, []string{"false"}, "exit status 1"},
		"missing":     {time.Minute, []string{"/nonexistent"}, "no such file"},
		"hangs":       {100 * time.Millisecond, []string{"sh", "-c", "trap '' TERM; sleep 60 & wait"}, "did not end within 100ms"},
		"much output": {time.Minute, []string{"sh", "-c", "yes | head -c 10000000; exit 1"}, "exit status 1: y y"},
	} {
		err := runProgram(t, tt.timeout, testMessage("run", "monitor", time.Now()), tt.argv...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 400 {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	// A program that does not read its input has still been told.
	if err := runProgram(t, time.Minute, testMessage("run", "monitor", time.Now()), "true"); err != nil {
		t.Error(err)
	}
}
