package probe

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
)

// script writes an executable shell script and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	if err := testkit.WriteProgram(path, []byte("#!/bin/sh\n"+text)); err != nil {
		t.Fatal(err)
	}
	return path
}

// slowly is a check whose timeout no healthy plugin meets.
func slowly(argv ...string) upkeep.Check {
	return upkeep.Check{Type: upkeep.CheckExec, Command: argv, Interval: every(time.Minute), Timeout: every(20 * time.Second)}
}

func TestExecStatus(t *testing.T) {
	for _, c := range []struct {
		script string
		want   Result // but for At and RTT
	}{
		{`echo "PING OK | rta=0.5ms;100;200;0 pl=0%"`, Result{OK: true, PerfData: "rta=0.5ms;100;200;0 pl=0%"}},
		{`echo "DISK WARNING - 9% left"; exit 1`, Result{OK: true, Warning: "DISK WARNING - 9% left"}},
		{`echo "HTTP CRITICAL"; exit 2`, Result{Refused: true, Reason: "HTTP CRITICAL"}},
		{`echo "usage: plugin"; exit 3`, Result{Void: true, Reason: "the plugin says UNKNOWN: usage: plugin"}},
		{`exit 2`, Result{Refused: true, Reason: "no output"}},
		{`echo "curl: (7) no" >&2; exit 7`, Result{Refused: true, Reason: "the plugin ended with status 7: curl: (7) no"}},
		{`kill -SEGV $$`, Result{Void: true, Reason: "the plugin was ended by signal 11 (segmentation fault)"}},
		{"printf 'a\\033[2Jb\\001c\\n'; exit 2", Result{Refused: true, Reason: "a?[2Jb?c"}},
		{"printf 'OK | a=1\\nlong | b=2\\nc=3 broken d=x\\n'", Result{OK: true, PerfData: "a=1 b=2 c=3"}},
	} {
		r := once(t, "127.0.0.1", slowly(script(t, c.script)))
		if r.OK != (r.RTT > 0) {
			t.Errorf("%s: OK %v with RTT %v", c.script, r.OK, r.RTT)
		}
		r.At, r.RTT = time.Time{}, 0
		if r != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.script, r, c.want)
		}
	}
}

func TestExecArguments(t *testing.T) {
	t.Setenv("UPKEEP_SECRET", "hidden")
	c := slowly(script(t, `
for a in "$@"; do printf '<%s>' "$a"; done
printf ' %s in %s' "${UPKEEP_SECRET-none}" "$PWD"
exit 2`), "-H", "{address}", "-p{port}", "a b; $(touch /tmp/x) *", "{address}:{port}")
	c.Port = 8081
	r := once(t, "127.1.2.3", c)
	if want := "<-H><127.1.2.3><-p8081><a b; $(touch /tmp/x) *><127.1.2.3:8081> none in /"; r.Reason != want {
		t.Errorf("the plugin saw %s, want %s", r.Reason, want)
	}
}

func TestExecHugeOutput(t *testing.T) {
	// More than any pipe holds: a plugin that nobody reads would never end.
	r := once(t, "127.0.0.1", slowly(script(t, `head -c 100000000 /dev/zero | tr '\0' x; exit 2`)))
	if !r.Refused || len(r.Reason) > maxReason+len("…") || !strings.HasPrefix(r.Reason, "xxx") {
		t.Errorf("got %+v", r)
	}
}

// TestExecTimeout has a plugin that ignores SIGTERM, with children in its group
// and one that left it, all of which hold its output.
func TestExecTimeout(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	plugin := script(t, fmt.Sprintf(`
trap '' TERM
sleep 1000 & echo $! >> %[1]s
(trap '' TERM; sleep 1000 & echo $! >> %[1]s; wait) &
setsid sleep 1000 & echo $! > %[1]s.away
echo $$ >> %[1]s
wait`, pids))
	c := slowly(plugin)
	c.Timeout = every(3 * time.Second) // for all of its processes to be there
	r := once(t, "127.0.0.1", c)
	t.Cleanup(func() {
		for _, pid := range readPIDs(t, pids+".away") {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
	if r.OK || r.Refused || r.Reason != "the plugin did not end within 3s" {
		t.Errorf("got %+v", r)
	}
	for _, pid := range readPIDs(t, pids) {
		eventually(t, fmt.Sprintf("process %d ends", pid), func() bool { return !alive(pid) })
	}
}

// TestExecLeftovers has a plugin that ends and leaves a child behind.
func TestExecLeftovers(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	r := once(t, "127.0.0.1", slowly(script(t, "sleep 1000 & echo $! > "+pids+"; echo fine")))
	if !r.OK {
		t.Errorf("got %+v", r)
	}
	for _, pid := range readPIDs(t, pids) {
		eventually(t, fmt.Sprintf("process %d ends", pid), func() bool { return !alive(pid) })
	}
}

func TestExecMissing(t *testing.T) {
	e := newEngine(t, Options{})
	for _, command := range []string{"/nonexistent/plugin", "check_that_nobody_has", "./plugin", t.TempDir()} {
		c := slowly(command)
		if err := e.Preflight(c); err == nil {
			t.Errorf("%s: Preflight has nothing to say", command)
		}
		if r := once(t, "127.0.0.1", c); !r.Void || r.Reason == "" {
			t.Errorf("%s: %+v", command, r)
		}
	}
	if err := e.Preflight(slowly("/bin/true")); err != nil {
		t.Errorf("/bin/true: %v", err)
	}
}

// TestExecLimit has more plugins due at once than may run.
func TestExecLimit(t *testing.T) {
	e := newEngine(t, Options{MaxExec: 2})
	dir := t.TempDir()
	c := slowly(script(t, fmt.Sprintf(`
mkdir %[1]s/$1 && ls %[1]s | wc -l
sleep 0.3
rmdir %[1]s/$1
exit 2`, dir)), "{address}")
	specs, observers := map[Key]Spec{}, []*observer{}
	for i := range 6 {
		o := newObserver()
		target := "127.0.0." + strconv.Itoa(i+1)
		specs[KeyOf(target, c)] = Spec{Target: target, Check: c, Observe: o.observe}
		observers = append(observers, o)
	}
	e.Set(specs)
	e.Kick(slices.Collect(maps.Keys(specs))...) // else each is due at a time of its own
	for _, o := range observers {
		o.wait(t, 1)
		if r := o.all()[0]; r.Reason != "1" && r.Reason != "2" {
			t.Errorf("running at once: %s", r.Reason)
		}
	}
	if s := e.Stats(); s.PutOff == 0 || s.Probes < 6 {
		t.Errorf("got %+v, want at least 6 probes and some put off", s)
	}
}

func readPIDs(t *testing.T, file string) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// alive reports whether a process is there and no zombie.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))[0]
	return state != "Z" && state != "X"
}

// eventually polls for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, func() (bool, string) { return holds(), "not yet: " + what })
}
