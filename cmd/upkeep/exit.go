package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/image/chroot"
)

// Exit statuses.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInvalid     = 3
	exitNotFound    = 4
	exitRefused     = 5
	exitUnreachable = 6
	exitTimeout     = 7
	exitInterrupted = 130
)

const exitHelp = `Exit status:
  0    done
  1    failed; for diff: there are differences
  2    wrong usage; for diff: also any failure that would be 1
  3    invalid input; nothing was changed
  4    not found
  5    refused, or in conflict with what is declared or running
  6    no running upkeep can be reached
  7    --timeout passed before what was waited for
  130  interrupted`

// usageError is a command line that cannot be understood.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// troubleError is a failure of a verb whose status 1 means something else, as
// with diff(1).
type troubleError struct{ err error }

func (e *troubleError) Error() string { return e.err.Error() }
func (e *troubleError) Unwrap() error { return e.err }

// timeoutError is a wait that took too long.
type timeoutError struct{ waiting string }

func (e *timeoutError) Error() string { return "timed out waiting: " + e.waiting }

// interruptedError is work that a person ended.
type interruptedError struct {
	text string
	err  error
}

func (e *interruptedError) Error() string   { return "interrupted: " + e.text }
func (e *interruptedError) Unwrap() []error { return []error{context.Canceled, e.err} }

// statusError ends the program with a status and no message.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitStatus is the one place where an error becomes an exit status.
func exitStatus(err error) int {
	var (
		usage   *usageError
		trouble *troubleError
		invalid *upkeep.InvalidError
		late    *timeoutError
		problem *wire.Problem
		status  statusError
		inside  *chroot.NotStartedError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &inside):
		return inside.Status
	case errors.As(err, &usage), errors.As(err, &trouble):
		return exitUsage
	case errors.As(err, &invalid), errors.As(err, &problem) && problem.Invalid():
		return exitInvalid
	case errors.Is(err, upkeep.ErrNotFound):
		return exitNotFound
	case errors.Is(err, upkeep.ErrConflict), errors.Is(err, upkeep.ErrRefused):
		return exitRefused
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	case errors.As(err, &late):
		return exitTimeout
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}

// failure is an error as -o json shows it.
type failure struct {
	Error  string              `json:"error"`
	Hint   string              `json:"hint,omitempty"`
	Status int                 `json:"exit_status"`
	Errors []upkeep.FieldError `json:"errors,omitempty"`
}

// report prints an error as "error:" and "hint:" lines, or as JSON, to standard
// error and returns the exit status.
func (a *app) report(err error, asJSON bool) int {
	status := exitStatus(err)
	var silent statusError
	if err == nil || errors.As(err, &silent) {
		return status
	}
	f := failure{Error: upkeep.Said(err), Hint: hintOf(err), Status: status}
	if told := (*interruptedError)(nil); status == exitInterrupted && !errors.As(err, &told) {
		f.Error = "interrupted" // whatever was being waited for
	}
	var problem *wire.Problem
	var invalid *upkeep.InvalidError
	switch {
	case errors.As(err, &problem):
		f.Errors = problem.Errors
	case errors.As(err, &invalid):
		f.Errors = invalid.Fields
	}
	if asJSON {
		encoder := json.NewEncoder(a.err)
		encoder.SetEscapeHTML(false)
		encoder.Encode(f)
		return status
	}
	for line := range strings.SplitSeq(strings.TrimRight(f.Error, "\n"), "\n") {
		fmt.Fprintln(a.err, "error:", upkeep.Printable(line))
	}
	for line := range strings.SplitSeq(f.Hint, "\n") {
		if line != "" {
			fmt.Fprintln(a.err, "hint:", upkeep.Printable(line))
		}
	}
	return status
}

func hintOf(err error) string {
	var usage *usageError
	var hinted *upkeep.HintError
	var problem *wire.Problem
	switch {
	case errors.As(err, &usage) && usage.hint != "":
		return usage.hint
	case errors.As(err, &hinted):
		return hinted.Hint
	case errors.As(err, &problem):
		return problem.Hint
	case errors.As(err, &usage):
		return "upkeep --help lists the verbs, upkeep VERB --help what one takes"
	}
	return ""
}
