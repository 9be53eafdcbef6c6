package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"upkeep"
)

// program runs a program that takes the message as JSON on its standard input.
type program struct{ receiver upkeep.Receiver }

func newExec(r upkeep.Receiver, _ *slog.Logger) sender { return &program{r} }

// send succeeds when the program ends with status 0. What happened reaches it on
// its input alone: nothing that a target said is ever an argument or in the
// environment.
func (p *program) send(ctx context.Context, m Message) error {
	input, err := encode(m)
	if err != nil {
		return err
	}
	argv := p.receiver.Command
	var output start
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = environment(p.receiver.Name, os.Getenv)
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &output, &output
	// A group of its own, so that the timeout ends what the program started, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		// ErrWaitDelay: it ended with 0, but a child keeps its output open.
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("running %s: it did not end within %s", argv[0], p.receiver.Timeout)
	}
	said := clean(output.text.String())
	if said == "" {
		return fmt.Errorf("running %s: %w", argv[0], err)
	}
	return fmt.Errorf("running %s: %w: %.200s", argv[0], err, said)
}

// environment is what a program gets: enough to find others and to speak UTF-8,
// none of this process's own settings and secrets.
func environment(receiver string, getenv func(string) string) []string {
	env := []string{"LANG=C.UTF-8", "UPKEEP_RECEIVER=" + receiver}
	for _, name := range []string{"PATH", "HOME", "TZ", "TMPDIR"} {
		if value := getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// start keeps the beginning of a program's output.
type start struct{ text bytes.Buffer }

func (s *start) Write(p []byte) (int, error) {
	s.text.Write(p[:min(len(p), maxText-s.text.Len())])
	return len(p), nil
}
