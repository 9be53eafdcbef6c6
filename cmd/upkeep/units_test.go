package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upkeep/internal/testkit"
)

// directives of a unit file by name, each with its values in order.
func directives(text string) map[string][]string {
	found := map[string][]string{}
	for line := range strings.Lines(text) {
		name, value, is := strings.Cut(strings.TrimSpace(line), "=")
		if is && !strings.HasPrefix(name, "#") {
			found[name] = append(found[name], value)
		}
	}
	return found
}

// systemd itself reads the units, and has nothing to say against them.
func TestUnitsAreSound(t *testing.T) {
	analyze, err := testkit.Find("systemd-analyze")
	if err != nil {
		testkit.Need(t, "systemd-analyze")
	}
	units, err := filepath.Glob("../../packaging/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, path := range units {
		t.Run(filepath.Base(path), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			const program = "/usr/bin/upkeep"
			start := directives(string(raw))["ExecStart"]
			if len(start) != 1 || !strings.HasPrefix(start[0], program+" ") {
				t.Fatalf("ExecStart is %q", start)
			}
			startsWith(t, strings.TrimPrefix(start[0], program+" "))

			// The program need not be installed where the tests run.
			copied := filepath.Join(t.TempDir(), filepath.Base(path))
			text := strings.ReplaceAll(string(raw), "ExecStart="+program, "ExecStart=/bin/true")
			if err := os.WriteFile(copied, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(analyze, "verify", "--man=no", copied)
			cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning")
			output, err := cmd.CombinedOutput()
			// It looks at the machine's own units too; these are not ours to mend.
			ours := slices.DeleteFunc(strings.Split(string(output), "\n"), func(line string) bool {
				return !strings.Contains(line, filepath.Base(path))
			})
			if len(ours) > 0 {
				t.Errorf("systemd-analyze: %v\n%s", err, strings.Join(ours, "\n"))
			}
			// The prefix that makes other settings optional is none here: the group
			// would be looked for under that name, and the service not be started.
			for _, group := range directives(string(raw))["SupplementaryGroups"] {
				if strings.HasPrefix(group, "-") {
					t.Errorf("SupplementaryGroups=%s names a group that cannot exist", group)
				}
			}
		})
	}
}

// startsWith holds that the program takes the arguments of a unit.
func startsWith(t *testing.T, args string) {
	t.Helper()
	args = strings.NewReplacer("${BEAT_TO}", "monitor.example.test:8054", "$BEAT_ARGS", "--interval 100ms", "%d", "/run/credentials").Replace(args)
	root := newRoot(&app{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
	verb, rest, err := root.Find(strings.Fields(args))
	if err != nil {
		t.Fatal(err)
	}
	if err := verb.ParseFlags(rest); err != nil || len(verb.Flags().Args()) > 0 || verb == root {
		t.Errorf("%s does not take %q: %v", verb.Name(), rest, err)
	}
}
