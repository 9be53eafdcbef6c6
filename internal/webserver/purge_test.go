package webserver

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
)

// The line comes and goes by itself, everything else stays as it is, and what the
// server's program does not accept is not done.
func TestSetInclude(t *testing.T) {
	for name, start := range map[string]func(*testing.T) (*world, Includer, string){
		"apache": func(t *testing.T) (*world, Includer, string) {
			w := newWorld(t)
			return w, w.apache, w.apache.Config
		},
		"nginx": func(t *testing.T) (*world, Includer, string) {
			w := newNginxWorld(t)
			server := w.options.Server.(*Nginx)
			return w, server, server.Config
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, server, config := start(t)
			w.mustApply(w.input("example.test", 1))
			set := func(on, want bool) {
				t.Helper()
				if changed, err := server.SetInclude(t.Context(), on); err != nil || changed != want {
					t.Fatalf("set to %t: %t, %v", on, changed, err)
				}
			}
			set(true, false)
			set(false, true)
			if text, err := os.ReadFile(config); err != nil || strings.Contains(string(text), w.options.Layout.Include) {
				t.Fatalf("%v\n%s", err, text)
			}
			set(false, false)
			if r := w.apply(w.input("other.test", 1)); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), "include") {
				t.Errorf("a site without the line: %s, %v", r.State, r.Err)
			}
			set(true, true)
			w.mustApply(w.input("other.test", 2))
			w.answers("example.test")
			w.answers("other.test")
			set(false, true)
			w.appendTo(config, "no_such_thing;\n")
			before, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := server.SetInclude(t.Context(), true); err == nil || !strings.Contains(err.Error(), "no_such_thing") {
				t.Errorf("with a fault of its own: %v", err)
			}
			if after, err := os.ReadFile(config); err != nil || !bytes.Equal(after, before) {
				t.Errorf("it was changed, %v:\n%s", err, after)
			}
			if left, _ := filepath.Glob(filepath.Dir(config) + "/.upkeep*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// With the last site gone nothing of upkeep's is left but logs, and the server
// goes on with what is the operator's.
func TestPurge(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.input("example.test", 1))
	hand := filepath.Join(w.options.Layout.Include, "by-hand.conf")
	w.write(hand, "# somebody's\n", 0o600)
	if err := w.Purge(t.Context()); !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), "example.test") {
		t.Fatalf("with a site: %v", err)
	}
	w.answers("example.test")
	if r := w.Remove(t.Context(), "example.test", testAccount, 2); r.State != upkeep.JobDone {
		t.Fatal(r.Err)
	}
	w.serverIsTheSame(func() {
		for range 2 { // as when the first was cut off
			if err := w.Purge(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
	if text, err := os.ReadFile(w.apache.Config); err != nil || strings.Contains(string(text), w.options.Layout.Include) {
		t.Errorf("%v\n%s", err, text)
	}
	left, err := os.ReadDir(w.options.Layout.Include)
	if err != nil || len(left) != 1 || left[0].Name() != "by-hand.conf" {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, dir := range []string{w.options.Layout.Pages, w.options.Layout.Auth} {
		if exists(dir) {
			t.Errorf("%s is still there", dir)
		}
	}
	if !exists(w.options.Layout.LogFolder("example.test")) {
		t.Error("the logs are gone")
	}
	w.get("unknown.test", "/") // it still answers
	// And a site that comes after all is served once the line is there again.
	if err := os.Remove(hand); err != nil {
		t.Fatal(err)
	}
	if err := w.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.apache.SetInclude(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	w.mustApply(w.input("again.test", 1))
	w.answers("again.test")
}
