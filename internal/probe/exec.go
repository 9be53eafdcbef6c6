package probe

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// execCheck runs a plugin of the Nagios plugin API
// (https://nagios-plugins.org/doc/guidelines.html): exit status 0 is OK, 1 is
// WARNING, 2 is CRITICAL, 3 is UNKNOWN; the first line of output is for people,
// with performance data after a bar.
//
//   - 1 counts as well, with the line as a warning: what warns still serves.
//   - 3 is void. The guidelines reserve it for what keeps the plugin from checking
//     at all (wrong arguments, no socket), which says nothing about the member;
//     whoever means a failure says 2.
//   - Any other status counts as a failure, as in Nagios, so that a plain command
//     such as curl -f can serve as a plugin.
//   - A plugin that cannot be started, or that a signal ended, is void: that is
//     this machine's fault.
//   - A plugin that does not end in time is a failure by silence. It is killed
//     with its whole process group.
type execCheck struct {
	argv  []string
	port  string
	slots *execSlots
}

// execSlots bounds the plugins that run at once, over all definitions.
type execSlots struct {
	now   atomic.Int64
	limit int64
}

// maxOutput is how much of a plugin's output is kept, in bytes. The rest is read
// and dropped: a full pipe would stop the plugin.
const maxOutput = 8 << 10

func prepareExec(e *Engine, c upkeep.Check) (asker, error) {
	port := ""
	if c.Port != 0 {
		port = strconv.Itoa(c.Port)
	}
	return &execCheck{argv: c.Command, port: port, slots: &e.plugins}, nil
}

// preflightExec sees that the program is there and may be run.
func preflightExec(_ *Engine, c upkeep.Check) error {
	if _, err := findProgram(c.Command[0]); err != nil {
		return fmt.Errorf("looking for the program of an exec check: %w", err)
	}
	return nil
}

// execPath is where programs without a slash in their name are looked for.
const execPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/nagios/plugins:/usr/lib64/nagios/plugins"

// findProgram finds a program by execPath; the PATH of the engine's own
// environment, which may hold a person's folders, is not asked.
func findProgram(name string) (string, error) {
	if filepath.IsAbs(name) {
		return exec.LookPath(name)
	}
	if strings.Contains(name, "/") {
		return "", fmt.Errorf("%q must be an absolute path or a name without a slash", name)
	}
	for dir := range strings.SplitSeq(execPath, ":") {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%q is not in %s", name, execPath)
}

func (x *execCheck) run(ctx context.Context, t target) (Result, error) {
	if x.slots.now.Add(1) > x.slots.limit {
		x.slots.now.Add(-1)
		return Result{}, errNoRoom
	}
	defer x.slots.now.Add(-1)
	began := time.Now()
	run, err := x.start(ctx, t)
	if err != nil {
		return Result{}, fmt.Errorf("running the plugin: %w", err)
	}
	code, signal := run.wait()
	if signal != 0 && ctx.Err() != nil {
		return Result{Reason: "the plugin did not end within " + upkeep.Duration(t.timeout.Round(time.Millisecond)).String()}, nil
	}
	if signal != 0 {
		return Result{}, fmt.Errorf("the plugin was ended by signal %d (%s)", signal, signal)
	}
	output := run.output.String()
	if output == "" {
		output, _, _ = strings.Cut(run.complaint.String(), "\n") // what a shell says, for one
	}
	r := judgePlugin(code, output)
	if r.OK {
		r.RTT = time.Since(began)
	}
	return r, nil
}

// plugin is one run.
type plugin struct {
	cmd       *exec.Cmd
	output    head
	complaint head          // standard error
	undo      func() bool   // of the kill at the end of the timeout
	killed    chan struct{} // closed when that kill is over
}

func (x *execCheck) start(ctx context.Context, t target) (*plugin, error) {
	program, err := findProgram(x.argv[0])
	if err != nil {
		return nil, err
	}
	// Argument by argument, in one pass: what is put in is never looked at again
	// and never becomes two arguments.
	fill := strings.NewReplacer("{address}", t.addr.String(), "{port}", x.port)
	args := []string{x.argv[0]}
	for _, arg := range x.argv[1:] {
		args = append(args, fill.Replace(arg))
	}
	p := &plugin{killed: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path: program,
		Args: args,
		Dir:  "/",
		// Nothing of the engine's own environment, which may hold passwords.
		Env:         []string{"PATH=" + execPath, "LC_ALL=C", "HOME=/"},
		Stdout:      &p.output,
		Stderr:      &p.complaint,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
		// A child that left the group may keep the pipe open; it is not waited for.
		WaitDelay: 100 * time.Millisecond,
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	group := p.cmd.Process.Pid
	p.undo = context.AfterFunc(ctx, func() {
		_ = unix.Kill(-group, unix.SIGKILL)
		close(p.killed)
	})
	return p, nil
}

// wait waits for the plugin's end and ends what it left running.
func (p *plugin) wait() (code int, signal syscall.Signal) {
	pid := p.cmd.Process.Pid
	// Not reaped yet, the plugin keeps its number, so that the group that is
	// killed cannot be somebody else's.
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if !p.undo() {
		<-p.killed // it must not come after the number is free
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	err := p.cmd.Wait()
	var exit *exec.ExitError
	switch {
	case p.cmd.ProcessState == nil:
		return -1, 0
	case errors.As(err, &exit):
		status, _ := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return -1, status.Signal()
		}
	}
	return p.cmd.ProcessState.ExitCode(), 0
}

// head keeps the first maxOutput bytes of what is written to it.
type head struct{ text strings.Builder }

func (h *head) Write(b []byte) (int, error) {
	h.text.Write(b[:min(len(b), maxOutput-h.text.Len())])
	return len(b), nil
}

func (h *head) String() string { return h.text.String() }

// judgePlugin makes a result of exit status and output.
func judgePlugin(code int, output string) Result {
	text, perf := splitOutput(output)
	r := Result{PerfData: perf}
	if text == "" {
		text = "no output"
	}
	switch code {
	case 0:
		r.OK = true
	case 1:
		r.OK, r.Warning = true, text
	case 2:
		r.Refused, r.Reason = true, text
	case 3:
		r.Void, r.Reason = true, "the plugin says UNKNOWN: "+text
	default:
		r.Refused, r.Reason = true, fmt.Sprintf("the plugin ended with status %d: %s", code, text)
	}
	return r
}
