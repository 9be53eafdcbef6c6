package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
)

// Flags go before the file, and the file before what is usual.
func TestAgentSettings(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("control: https://control.example.test:8055\ndata: /srv/agent\nlog: warn\n")
	usual := "/etc/upkeep/agent-policy.yaml"
	for name, one := range map[string]struct {
		verb agentVerb
		want agentConfig
	}{
		"the file":       {agentVerb{config: file}, agentConfig{"https://control.example.test:8055", "/srv/agent", usual, "warn"}},
		"beside --data":  {agentVerb{flags: agentConfig{Data: dir}}, agentConfig{"https://control.example.test:8055", dir, usual, "warn"}},
		"flags":          {agentVerb{config: file, flags: agentConfig{Control: "https://other:1", Policy: "/p", Log: "debug"}}, agentConfig{"https://other:1", "/srv/agent", "/p", "debug"}},
		"no file at all": {agentVerb{flags: agentConfig{Data: filepath.Join(dir, "none")}}, agentConfig{"", filepath.Join(dir, "none"), usual, "info"}},
	} {
		if got, err := one.verb.settings(); err != nil || got != one.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, one.want)
		}
	}
	if _, err := (&agentVerb{config: file + "2"}).settings(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was named and is not there: %v", err)
	}
	for text, want := range map[string]string{
		"control: http://x":           `1:10: control: "http://x": must be https://HOST:PORT`,
		"data: relative":              "1:7: data",
		"policy: /a/../b":             "1:9: policy",
		"log: loud":                   "1:6: log",
		"polcy: /x":                   "did you mean policy?",
		"data: /a\ndata: /b":          "2:1: data",
		"data: [/a]":                  "1:7: data",
		"data: /a\n---\ndata: /b\n":   "one document",
		"data: " + "\"/a\\u0000\"":    "data",
		strings.Repeat("#", 70_000):   "more than",
		"control: https://u:p@host:1": "control",
	} {
		write(text)
		if _, err := (&agentVerb{config: file}).settings(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v; want %q", text, err, want)
		}
	}
}

// A join writes the configuration where there is none, keeps one that fits, and
// uses up no token where one leads elsewhere.
func TestJoinConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etc", "agent.yaml")
	want := agentConfig{Control: "https://control.example.test:8055", Data: `/srv/"odd" name`, Policy: "/etc/upkeep/agent-policy.yaml"}
	if write, err := joinConfig(file, want); err != nil || !write {
		t.Fatalf("where there is none: %t, %v", write, err)
	}
	if err := want.write(file); err != nil {
		t.Fatal(err)
	}
	if got, err := loadAgentConfig(file); err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	if write, err := joinConfig(file, want); err != nil || write {
		t.Errorf("once more: %t, %v", write, err)
	}
	for _, other := range []agentConfig{{Control: "https://other.example.test:8055", Data: want.Data}, {Control: want.Control, Data: "/srv/other"}} {
		if _, err := joinConfig(file, other); !errors.Is(err, upkeep.ErrConflict) {
			t.Errorf("%+v: %v", other, err)
		}
	}
}
