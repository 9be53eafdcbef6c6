package beat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"upkeep"
)

// Command is a program of the member's own that says whether it is well: with
// exit status 0 it is, with any other it is not.
type Command struct {
	Argv []string // program first; no shell is involved
	// Every is the time between two starts, Timeout the time that one may take.
	// The command is never run twice at once.
	Every, Timeout time.Duration
	Env            []string
}

func (c *Command) validate() error {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return errors.New("the command must name a program")
	}
	if c.Every < 100*time.Millisecond || c.Every > upkeep.MaxInterval {
		return fmt.Errorf("command interval %s must be 100ms to %s", c.Every, upkeep.Duration(upkeep.MaxInterval))
	}
	if c.Timeout <= 0 || c.Timeout > upkeep.MaxInterval {
		return fmt.Errorf("command timeout %s must be above 0s and at most %s", c.Timeout, upkeep.Duration(upkeep.MaxInterval))
	}
	return nil
}

// repeat runs the command until ctx is done.
func (c *Command) repeat(ctx context.Context, log *slog.Logger, p *pulse) {
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before, _ := p.get()
		now := c.run(ctx, log, before)
		if ctx.Err() == nil { // else it was killed because the sender stops
			p.set(now)
		}
	}
}

// run runs the command once, and logs when the outcome is another than before.
func (c *Command) run(ctx context.Context, log *slog.Logger, before Health) Health {
	timed, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var output head
	cmd := exec.CommandContext(timed, c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.Env, &output, &output
	// A group of its own, so that the timeout ends what the command started, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	health := outcome(cmd.Run(), timed.Err())
	if health != before && ctx.Err() == nil {
		if health.State == Well {
			log.Info("well again, says the command", "command", c.Argv[0])
		} else {
			log.Warn("not well, says the command", "command", c.Argv[0], "reason", health.Reason(), "output", output.line())
		}
	}
	return health
}

// outcome turns the end of a command into the member's health.
func outcome(err, timeout error) Health {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		// ErrWaitDelay: it exited with 0, but a child keeps its output open.
		return Health{}
	case errors.Is(timeout, context.DeadlineExceeded):
		return Health{NotWell, CauseTimeout, 0}
	case !errors.As(err, &exit):
		return Health{NotWell, CauseNotStarted, 0}
	}
	if status, is := exit.Sys().(syscall.WaitStatus); is && status.Signaled() {
		return Health{NotWell, CauseSignal, uint8(status.Signal())}
	}
	return Health{NotWell, CauseExit, uint8(exit.ExitCode())}
}

// head keeps the beginning of a command's output.
type head struct{ text bytes.Buffer }

const maxOutput = 4096

func (h *head) Write(p []byte) (int, error) {
	h.text.Write(p[:min(len(p), maxOutput-h.text.Len())])
	return len(p), nil
}

// line is the first line of the output, fit for a log.
func (h *head) line() string {
	first, _, _ := strings.Cut(strings.TrimSpace(h.text.String()), "\n")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(first, "?"))
}
