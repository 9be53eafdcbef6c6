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

// The folder of PHP's sockets is one and the same in the example of the policy, at a
// boot and in the agent's unit, which leaves it to php-fpm when it ends.
func TestFolderOfSockets(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("../../packaging/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	unit := directives(read("upkeep-agent.service"))
	if unit["RuntimeDirectory"][0] != "upkeep-php" || unit["RuntimeDirectoryMode"][0] != "0755" || unit["RuntimeDirectoryPreserve"][0] != "yes" || unit["User"] != nil {
		t.Errorf("the unit makes %v with mode %v of user %v and keeps it: %v", unit["RuntimeDirectory"], unit["RuntimeDirectoryMode"], unit["User"], unit["RuntimeDirectoryPreserve"])
	}
	for name, line := range map[string]string{"upkeep-agent.tmpfiles": "\nd /run/upkeep-php 0755 root root -\n", "agent-policy.yaml": "#   sockets: /run/upkeep-php "} {
		if !strings.Contains(read(name), line) {
			t.Errorf("%s does not have %q", name, line)
		}
	}
	if tmpfiles, err := exec.LookPath("systemd-tmpfiles"); err == nil {
		if out, err := exec.Command(tmpfiles, "--create", "--dry-run", "../../packaging/upkeep-agent.tmpfiles").CombinedOutput(); err != nil && !strings.Contains(string(out), "unrecognized option") {
			t.Errorf("systemd-tmpfiles: %v\n%s", err, out)
		}
	}
}
