// Package chroot runs a command inside an image, in namespaces of its own: it sees
// the image as its whole tree, its own processes, and devices that are none of the
// host's. Nothing of the host's tree is mounted there, so that nothing in there can
// remove it. The network is the host's.
//
// It guards against accidents, not against an image that means harm: a command that
// runs as root on the host's kernel is to be trusted.
package chroot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Command is what runs in an image.
type Command struct {
	// Root is a mounted image that is in no folder yet.
	Root *os.File
	// Args is the command; a shell when empty.
	Args []string
	// Init starts this program again so that it calls [Init]: its arguments.
	Init []string

	Stdin, Stdout, Stderr *os.File
}

// Descriptors that Init is started with.
const (
	rootFD  = 3 // the mounted image
	errorFD = 4 // takes the reason why the command could not be started
	aliveFD = 5 // ends with the process that waits for the command
)

// passedOn are the signals that the command gets as if they were sent to it.
var passedOn = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}

// Run runs the command to its end, and returns its exit status, which is 128 and
// the signal's number where one killed it. An error is that it could not be started.
// When Run returns, no process is left in the image.
func (c Command) Run(ctx context.Context) (int, error) {
	if err := privileged(); err != nil {
		return 0, err
	}
	report, reportTo, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("making a pipe: %w", err)
	}
	defer report.Close()
	alive, living, err := os.Pipe()
	if err != nil {
		return 0, errors.Join(fmt.Errorf("making a pipe: %w", err), reportTo.Close())
	}
	defer living.Close()

	cmd := exec.Command("/proc/self/exe", append(c.Init, c.Args...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.ExtraFiles = []*os.File{c.Root, reportTo, alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		// Signals reach the command through us, and once. One that reads the terminal
		// has to stay in the group that may.
		Setpgid: !isTerminal(c.Stdin),
	}
	if state, err := unix.IoctlGetTermios(fdOf(c.Stdin), unix.TCGETS); err == nil {
		defer unix.IoctlSetTermios(fdOf(c.Stdin), unix.TCSETS, state) // also where Init was killed
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn...)
	defer signal.Stop(signals)
	err = cmd.Start()
	err = errors.Join(err, reportTo.Close(), alive.Close())
	if err != nil {
		return 0, fmt.Errorf("making namespaces for a command: %w", err)
	}
	ended := make(chan struct{})
	go passOn(ctx, signals, cmd.Process, ended)
	reason, readErr := io.ReadAll(io.LimitReader(report, 4096))
	waitErr := cmd.Wait()
	close(ended)
	if len(reason) > 0 {
		return 0, startError(c.Root.Name(), string(reason))
	}
	var exit *exec.ExitError
	switch {
	case readErr != nil:
		return 0, fmt.Errorf("starting a command in the image: %w", readErr)
	case waitErr != nil && !errors.As(waitErr, &exit):
		return 0, fmt.Errorf("running a command in the image: %w", waitErr)
	}
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

func privileged() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &upkeep.HintError{Err: fmt.Errorf("%w: running a command inside an image needs root", upkeep.ErrRefused), Hint: "run it as root"}
}

// passOn gives signals to the first process in there, which gives them to the
// command. The end of the context is a polite SIGTERM.
func passOn(ctx context.Context, signals <-chan os.Signal, to *os.Process, ended <-chan struct{}) {
	done := ctx.Done()
	for {
		select {
		case <-ended:
			return
		case s := <-signals:
			to.Signal(s) // it may have ended by now
		case <-done:
			done = nil
			to.Signal(unix.SIGTERM)
		}
	}
}

// Kinds of reasons why a command did not start, before a colon in what Init reports.
const (
	notFound    = "not found"
	otherFormat = "other format"
	notStarted  = "not started"
	noPlace     = "no place"
	trouble     = "trouble"
)

// NotStartedError is that a program could not be started in an image. Status is that of
// chroot(1) and env(1): 127 where there is none, 126 where there is one.
type NotStartedError struct {
	Status int
	Err    error
}

func (e *NotStartedError) Error() string { return e.Err.Error() }
func (e *NotStartedError) Unwrap() error { return e.Err }

func startError(image, reason string) error {
	kind, text, _ := strings.Cut(reason, ":")
	switch kind {
	case notFound:
		return &NotStartedError{Status: 127, Err: fmt.Errorf("%w: %s: %s", upkeep.ErrNotFound, image, text)}
	case otherFormat:
		return &NotStartedError{Status: 126, Err: &upkeep.HintError{
			Err:  fmt.Errorf("%w: %s: %s", upkeep.ErrRefused, image, text),
			Hint: "this machine is " + runtime.GOARCH + "; for others install qemu-user-static, which registers itself with the kernel (binfmt_misc, flag F)",
		}}
	case notStarted:
		return &NotStartedError{Status: 126, Err: fmt.Errorf("%s: %s", image, text)}
	case noPlace:
		return &upkeep.HintError{
			Err:  fmt.Errorf("%w: %s: %s", upkeep.ErrRefused, image, text),
			Hint: "is the system in another partition? upkeep image info " + image + "; else: upkeep image mount " + image + " FOLDER, mkdir -p FOLDER/proc FOLDER/dev, upkeep image umount FOLDER",
		}
	}
	return fmt.Errorf("%s: %s", image, text)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(fdOf(f), unix.TCGETS)
	return err == nil
}

func fdOf(f *os.File) int {
	if f == nil {
		return -1
	}
	return int(f.Fd())
}
