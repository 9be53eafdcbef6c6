package testkit

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// recorder stands in for a test, to see how the helpers end it.
type recorder struct {
	testing.TB
	outcome string
}

type ended struct{}

func (r *recorder) Helper()          {}
func (r *recorder) Name() string     { return "TestX" }
func (r *recorder) Skip(args ...any) { r.outcome = "skip: " + fmt.Sprint(args...); panic(ended{}) }
func (r *recorder) Fatalf(f string, a ...any) {
	r.outcome = "fatal: " + fmt.Sprintf(f, a...)
	panic(ended{})
}

func outcome(f func(testing.TB)) (result string) {
	r := &recorder{}
	defer func() {
		if v := recover(); v != nil {
			if _, expected := v.(ended); !expected {
				panic(v)
			}
		}
		result = r.outcome
	}()
	f(r)
	return r.outcome
}

func TestNeedSkipsOnALaptopAndFailsInCI(t *testing.T) {
	missing := func(t testing.TB) { Need(t, "sh", "no-such-program") }
	t.Setenv("CI", "")
	if got := outcome(missing); !strings.HasPrefix(got, "skip") || !strings.Contains(got, "no-such-program") || strings.Contains(got, "sh,") {
		t.Errorf("without CI: %q", got)
	}
	t.Setenv("CI", "true")
	if got := outcome(missing); !strings.HasPrefix(got, "fatal") {
		t.Errorf("with CI: %q", got)
	}
	if got := outcome(func(t testing.TB) { Need(t, "sh") }); got != "" {
		t.Errorf("a program that is there: %q", got)
	}
}

func TestEventually(t *testing.T) {
	calls := 0
	Eventually(t, time.Minute, func() (bool, string) { calls++; return calls == 3, "" })
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
	got := outcome(func(t testing.TB) {
		Eventually(t, 0, func() (bool, string) { return false, "the last state" })
	})
	if !strings.HasPrefix(got, "fatal") || !strings.Contains(got, "the last state") {
		t.Errorf("at the deadline: %q", got)
	}
}

func TestProcessIsKilledWithItsGroup(t *testing.T) {
	p := Start(t, "sh", "-c", "sleep 1000 & echo child $!; wait")
	var child int
	Eventually(t, 10*time.Second, func() (bool, string) {
		_, err := fmt.Sscanf(p.Log(), "child %d", &child)
		return err == nil, p.Log()
	})
	p.Kill()
	p.Kill()
	if p.Running() {
		t.Error("still running")
	}
	Eventually(t, 10*time.Second, func() (bool, string) { return gone(child), "the grandchild lives" })
}

func TestProcessOutcome(t *testing.T) {
	p := Start(t, "sh", "-c", "echo out; echo err >&2; exit 3")
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("outcome %v", err)
	}
	if p.Log() != "out\nerr\n" {
		t.Errorf("log %q", p.Log())
	}
}

// A test may end the thread that it runs on; its servers must live on.
func TestProcessOutlivesTheThread(t *testing.T) {
	started := make(chan *Process)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		started <- Start(t, "sleep", "1000")
	}()
	p := <-started
	for range 20 {
		runtime.Gosched()
	}
	p.Signal(t, 0)
	if !p.Running() {
		t.Error("died with the thread")
	}
}

// What this test binary starts is gone when it is killed, folder included.
func TestNothingSurvivesTheTestBinary(t *testing.T) {
	Need(t, "postgres", "initdb")
	if path := os.Getenv("TESTKIT_CHILD"); path != "" {
		dsn := Postgres(t)
		p := Start(t, "sleep", "1000")
		if err := os.WriteFile(path, []byte(fmt.Sprintf("%d %s\n", p.PID(), dsn)), 0o600); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "started")
	child := Command{
		Argv: []string{self, "-test.run=^TestNothingSurvivesTheTestBinary$"},
		Env:  append(os.Environ(), "TESTKIT_CHILD="+path),
	}.Start(t)
	var text string
	Eventually(t, 2*time.Minute, func() (bool, string) {
		raw, _ := os.ReadFile(path)
		text = string(raw)
		return strings.HasSuffix(text, "\n"), child.Log()
	})
	var pid int
	var dsn string
	if _, err := fmt.Sscan(text, &pid, &dsn); err != nil {
		t.Fatal(err)
	}
	_, dir, _ := strings.Cut(dsn, "host=")
	dir, _, _ = strings.Cut(dir, "&")
	raw, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	postmaster, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 30*time.Second, func() (bool, string) {
		_, err := os.Stat(dir)
		return gone(pid) && gone(postmaster) && os.IsNotExist(err), fmt.Sprintf("%d gone %v, %d gone %v, %s: %v",
			pid, gone(pid), postmaster, gone(postmaster), dir, err)
	})
}

// gone reports whether a process has ended; a zombie that nobody waits for has.
func gone(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	return fields[0] == "Z"
}

func TestPostgresGivesFreshDatabases(t *testing.T) {
	for range 2 {
		db, err := sql.Open("pgx", Postgres(t))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		if _, err := db.ExecContext(context.Background(), "CREATE TABLE same (id INT)"); err != nil {
			t.Error(err)
		}
	}
}

// A program is run right after it was written, while others start all the time.
func TestWriteProgram(t *testing.T) {
	var others sync.WaitGroup
	defer others.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 4 {
		others.Go(func() {
			for ctx.Err() == nil {
				_ = exec.Command("true").Run()
			}
		})
	}
	large := append([]byte("#!/bin/sh\nexit 0\n"), bytes.Repeat([]byte("#"), 1<<20)...) // for time to be in the middle
	for i := range 200 {
		path := filepath.Join(t.TempDir(), fmt.Sprint("program", i))
		if err := WriteProgram(path, large); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command(path).Run(); err != nil {
			t.Fatalf("run %d: %v", i, err)
		}
	}
}
