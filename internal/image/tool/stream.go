package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// Pipe runs a program that reads InputFrom and hands what it prints to a function
// as it comes. That the program fails is an error, and so is one of the function,
// which ends the program.
func (c Command) Pipe(ctx context.Context, take func(io.Reader) error) error {
	path, err := Find(c.Name)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe for %s: %w", c.Name, err)
	}
	said := ends{max: maxOutput}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Env = environment()
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.InputFrom, write, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	taken := make(chan error, 1)
	go func() {
		err := take(read)
		if err != nil {
			stop(err)
		}
		read.Close()
		taken <- err
	}()
	err = c.start(ctx, cmd, 0)
	write.Close()
	if failed := <-taken; failed != nil {
		return failed
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s was stopped: %w", c.Name, context.Cause(ctx))
	case errors.As(err, &exit) && exit.Exited():
		return Failed(c.Name, Result{Code: exit.ExitCode(), Output: plain(said.String())})
	}
	return fmt.Errorf("running %s: %w", c.Name, err)
}
