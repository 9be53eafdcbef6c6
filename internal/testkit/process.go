package testkit

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Command describes a child process. Only Argv is required.
type Command struct {
	Argv []string // program first; found as by [Find]
	Dir  string
	Env  []string // replaces the environment when not nil
	// User to run as; nil means the caller's own.
	User *syscall.Credential
	// Input is the child's standard input; nil means /dev/null.
	Input io.Reader
	// Watch is called with each piece of output, if set, from one goroutine.
	Watch func([]byte)
}

// Process is a running child of the test.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  *outputLog
	done chan struct{} // closed when the process has been waited for
	err  error         // outcome; readable once done is closed
}

// Start starts a program that is killed when the test ends, and shows its output
// if the test failed.
func Start(t testing.TB, argv ...string) *Process {
	t.Helper()
	return Command{Argv: argv}.Start(t)
}

// Start starts the command; see [Start].
func (c Command) Start(t testing.TB) *Process {
	t.Helper()
	p, err := c.Launch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.name, p.Log())
		}
	})
	return p
}

// Launch starts the command for callers that are no test, such as benchmarks.
// The process dies with the caller's; stopping it earlier is theirs to do.
func (c Command) Launch() (*Process, error) {
	path, err := Find(c.Argv[0])
	if err != nil {
		return nil, err
	}
	log := &outputLog{watch: c.Watch}
	cmd := &exec.Cmd{
		// PostgreSQL looks for the rest of itself beside the path it was called by.
		Path: path, Args: append([]string{path}, c.Argv[1:]...), Dir: c.Dir, Env: c.Env, Stdin: c.Input, Stdout: log, Stderr: log,
		// A daemon's own children may keep the output open after it died.
		WaitDelay: time.Second,
		// The group lets Kill reach what the program starts in turn.
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Credential: c.User},
	}
	if err := onStarter(cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Argv[0], err)
	}
	p := &Process{name: c.Argv[0], cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// starter is one operating-system thread that lives as long as the test binary.
// The parent-death signal comes when the thread that forked dies, and a test that
// locks a goroutine to a thread of its own (to enter a namespace) ends such a
// thread, which would take the servers down with it (golang.org/issue/27505).
var starter = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func onStarter(f func() error) error {
	result := make(chan error, 1)
	starter() <- func() { result <- f() }
	return <-result
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and its output is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process and returns its outcome as
// [exec.Cmd.Wait] does.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Log is what the process has written to its output and error output so far.
func (p *Process) Log() string { return p.log.String() }

// Signal sends a signal to the process alone.
func (p *Process) Signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("sending %s to %s: %v", signal, p.name, err)
	}
}

// Stop asks the process to end by SIGTERM and kills it when it has not done so
// within the grace.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	select {
	case <-p.done:
	case <-time.After(grace):
	}
	p.Kill()
}

// Kill kills the process and everything in its process group at once, and
// waits for its end. Killing twice is fine.
func (p *Process) Kill() {
	if p.Running() { // the group id is ours only until the leader is waited for
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	}
	<-p.done
}

// outputLog keeps the end of a process's output.
type outputLog struct {
	mu    sync.Mutex
	text  bytes.Buffer
	watch func([]byte)
}

// maxLog bounds the memory that a noisy daemon can take.
const maxLog = 1 << 20

func (l *outputLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len()+len(p) > maxLog {
		l.text.Next(l.text.Len() / 2)
	}
	if l.watch != nil {
		l.watch(p)
	}
	return l.text.Write(p)
}

func (l *outputLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
