package webserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Process is a running server, as the kernel tells of it.
type Process struct {
	PID int
	// Environment are the variables of the server that its configuration may
	// refer to. A reload reads the configuration with these, so a test must too.
	Environment []string
	// Files is how many descriptors it has open, MaxFiles how many it may have.
	Files, MaxFiles int
}

var errNotRunning = errors.New("the web server is not running")

// findProcess reads a pid file and makes sure that the process it names is the
// program: pid files outlive servers, and numbers are given out again.
func findProcess(pidFile, program string) (Process, error) {
	pid, err := readPID(pidFile)
	if err != nil {
		return Process{}, err
	}
	if err := isProgram(pid, program); err != nil {
		return Process{}, err
	}
	p := Process{PID: pid, Environment: environment(pid)}
	if p.MaxFiles, err = maxFiles(pid); err != nil {
		return p, err
	}
	p.Files, err = openFiles(pid)
	return p, err
}

// openFiles counts the descriptors of a process. Since Linux 6.2 the size of the
// folder is their number (proc(5)); before that it is 0, and they are counted, which
// with the logs of thousands of sites takes milliseconds.
func openFiles(pid int) (int, error) {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	if info, err := os.Stat(folder); err == nil && info.Size() > 0 {
		return int(info.Size()), nil
	}
	dir, err := os.Open(folder)
	if err != nil {
		return 0, err
	}
	defer func() { _ = dir.Close() }() // nothing was written
	open, err := dir.Readdirnames(-1)
	return len(open), err
}

func readPID(file string) (int, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%w: %s is not there", errNotRunning, file)
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("%w: %s holds no process id", errNotRunning, file)
	}
	return pid, nil
}

func isProgram(pid int, program string) error {
	running, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: process %d has ended", errNotRunning, pid)
	}
	if err != nil {
		return err
	}
	want, err := filepath.EvalSymlinks(program)
	if err != nil {
		return err
	}
	// An upgrade replaces the program under the running server.
	if strings.TrimSuffix(running, " (deleted)") != want {
		return fmt.Errorf("%w: process %d is %s, not %s", errNotRunning, pid, running, want)
	}
	return nil
}

// signal sends a signal to the process of a pid file, and to no other that may
// get its number meanwhile.
func signal(pidFile, program string, s unix.Signal) error {
	pid, err := readPID(pidFile)
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: process %d has ended", errNotRunning, pid)
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	if err := isProgram(pid, program); err != nil {
		return err
	}
	if s != unix.SIGTERM && !handles(pid, s) { // one that is to end may as well do so at once
		return fmt.Errorf("%w: process %d is starting or ending", errNotRunning, pid)
	}
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil {
		return fmt.Errorf("signalling process %d: %w", pid, err)
	}
	return nil
}

// handles reports whether a process has a handler for a signal (proc(5), SigCgt).
// Apache writes its pid file some time before it has them, and a signal to reload
// ends it then.
func handles(pid int, s unix.Signal) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if mask, found := strings.CutPrefix(line, "SigCgt:"); found {
			caught, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && caught&(1<<(s-1)) != 0
		}
	}
	return false
}

// environment keeps of a process's variables those that web servers' own
// configuration refers to on Debian. Everything else may be a secret, and
// configuration can quote it.
func environment(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil // another user's: the configuration can do without, or its test says what is missing
	}
	var kept []string
	for variable := range strings.SplitSeq(string(text), "\x00") {
		if strings.HasPrefix(variable, "APACHE_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

func maxFiles(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "Max open files"); found {
			if fields := strings.Fields(rest); len(fields) > 0 {
				if fields[0] == "unlimited" {
					return 1 << 30, nil
				}
				return strconv.Atoi(fields[0])
			}
		}
	}
	return 0, fmt.Errorf("/proc/%d/limits has no limit of open files", pid)
}

const (
	// maxOutput bounds what is kept of a program's output.
	maxOutput = 1 << 20
	// maxRun bounds how long a program may take.
	maxRun = 2 * time.Minute
)

// run runs a program by its absolute path, with no environment but what is given
// and in the root folder, and returns its two outputs.
func run(ctx context.Context, env []string, argv ...string) (stdout, stderr string, err error) {
	if !filepath.IsAbs(argv[0]) {
		return "", "", fmt.Errorf("running %s: the program must be given with its absolute path", argv[0])
	}
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	var out, errs capped
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = "/", &out, &errs, time.Second
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}, env...)
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil: // it was killed for that, or did not begin
		err = fmt.Errorf("running %s: it was stopped before it ended: %w", argv[0], ctx.Err())
	case err != nil && !errors.As(err, &exit):
		err = upkeep.WithHint(fmt.Errorf("running %s: %w", argv[0], err), "look whether the web server is installed, and whether the agent's policy names the right program")
	}
	return out.String(), errs.String(), err
}

type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	c.Buffer.Write(p[:min(len(p), max(0, maxOutput-c.Len()))])
	return len(p), nil
}

// envvars reads the assignments of literal values in Debian's /etc/apache2/envvars,
// for a server that does not run yet. Nothing in it is executed.
func envvars(file string) []string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var kept []string
	for line := range strings.Lines(string(text)) {
		rest, found := strings.CutPrefix(strings.TrimSpace(line), "export APACHE_")
		rest = strings.ReplaceAll(strings.ReplaceAll(rest, "$SUFFIX", ""), `"`, "")
		if found && strings.Contains(rest, "=") && !strings.ContainsAny(rest, "$`'\\ ") {
			kept = append(kept, "APACHE_"+rest)
		}
	}
	slices.Sort(kept)
	return kept
}
