package webserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
)

// rotate runs the real logrotate on the file that is shipped, with this world's
// folder of logs, and a systemctl that knows its server alone.
func (w *world) rotate(unit string, reload func() error) {
	w.t.Helper()
	text, err := os.ReadFile("../../packaging/upkeep-agent.logrotate")
	if err != nil {
		w.t.Fatal(err)
	}
	const shipped = "/var/log/upkeep/sites"
	if n := strings.Count(string(text), shipped+"/*"); n != 1 {
		w.t.Fatalf("%s is there %d times", shipped, n)
	}
	config, bin, asked := filepath.Join(w.dir, "logrotate.conf"), filepath.Join(w.dir, "bin"), filepath.Join(w.dir, "asked")
	w.write(config, strings.Replace(string(text), shipped+"/*", w.options.Layout.Logs+"/*", 1), 0o644)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		w.t.Fatal(err)
	}
	w.write(filepath.Join(bin, "systemctl"), fmt.Sprintf(`#!/bin/sh
case "$*" in
"--quiet is-active %s") exit 0 ;;
"reload %[1]s") echo reload >>%[2]s ;;
*) exit 3 ;;
esac
`, unit, asked), 0o755)
	cmd := exec.CommandContext(w.t.Context(), "/usr/sbin/logrotate", "-f", "-s", filepath.Join(w.dir, "logrotate.state"), config)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		w.t.Fatalf("logrotate: %v\n%s", err, out)
	}
	if text, err := os.ReadFile(asked); err != nil || string(text) != "reload\n" {
		w.t.Fatalf("systemctl was asked for %q, %v", text, err)
	}
	if err := reload(); err != nil {
		w.t.Fatal(err)
	}
}

// rotated demands that lines go into a new file, readable by the account, and that
// changes go on.
func (w *world) rotated() {
	w.t.Helper()
	dir := w.options.Layout.LogFolder("example.test")
	w.logged("example.test", "access.log.1", "GET /before")
	// A server that reloads gives its last answers by what it had.
	testkit.Eventually(w.t, 20*time.Second, func() (bool, string) {
		w.get("example.test", "/after")
		text, err := os.ReadFile(filepath.Join(dir, "access.log"))
		return err == nil && strings.Contains(string(text), "GET /after"), fmt.Sprint(err)
	})
	if info, err := os.Stat(filepath.Join(dir, "access.log")); err != nil || info.Sys().(*unixStat).Gid != 20001 || info.Sys().(*unixStat).Uid != 0 || info.Mode().Perm()&0o040 == 0 {
		w.t.Errorf("the new log: %v, %v", info, err)
	}
	in := w.input("example.test", 2)
	in.Site.Index = []string{"index.html", "other.html"}
	w.mustApply(in)
	w.answers("example.test")
}

func TestLogrotate(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "logrotate")
	for _, piped := range []bool{false, true} {
		t.Run(fmt.Sprintf("apache,piped=%v", piped), func(t *testing.T) {
			w := newWorld(t)
			if piped {
				w.options.Layout.Pipe, w.options.PipeAbove = splitCommand(w), -1
				w.reopen()
			}
			w.mustApply(w.input("example.test", 1))
			w.get("example.test", "/before")
			w.logged("example.test", "access.log", "GET /before")
			w.rotate("apache2", func() error { return w.options.Server.Reload(t.Context()) })
			w.rotated()
		})
	}
	t.Run("nginx", func(t *testing.T) {
		w := newNginxWorld(t)
		w.mustApply(w.input("example.test", 1))
		w.get("example.test", "/before")
		w.logged("example.test", "access.log", "GET /before")
		w.rotate("nginx", func() error { return w.options.Server.Reload(t.Context()) })
		w.rotated()
	})
}

// Debian's logrotate tells nginx to open its files anew, which gives all of them to
// the user of its workers, those of sites too. That is taken back, and is no reason
// to refuse a change.
func TestNginxGivesLogsAway(t *testing.T) {
	testkit.NeedRoot(t)
	w := newNginxWorld(t)
	w.mustApply(w.input("example.test", 1))
	w.get("example.test", "/before")
	w.logged("example.test", "access.log", "GET /before")
	server := w.options.Server.(*Nginx)
	if err := signal(server.PIDFile, server.Program, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(w.options.Layout.LogFolder("example.test"), "access.log")
	owner := func() uint32 {
		info, err := os.Stat(log)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*unixStat).Uid
	}
	testkit.Eventually(t, 20*time.Second, func() (bool, string) { return owner() != 0, "nginx has not given its log away" })
	in := w.input("example.test", 2)
	in.Site.Index = []string{"index.html", "other.html"}
	w.mustApply(in)
	w.answers("example.test")
	if uid := owner(); uid != 0 {
		t.Errorf("the log is still user %d's", uid)
	}
	w.get("example.test", "/after")
	w.logged("example.test", "access.log", "GET /after")
	// A second name of a file of somebody else's is refused as before.
	if err := os.Link(log, log+".second"); err != nil {
		t.Fatal(err)
	}
	in.Generation, in.Site.Index = 3, nil
	if r := w.apply(in); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), "second name") {
		t.Errorf("%s, %v", r.State, r.Err)
	}
}
