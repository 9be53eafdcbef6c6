package selftest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"upkeep"
	"upkeep/internal/api/wire"
)

// refused holds an answer of the front door to what a refusal must be: it says
// which field, what stood there, and which rule, in words that do no harm where
// they are printed.
func refused(err error) error {
	if err == nil {
		return errors.New("it was taken")
	}
	var problem *wire.Problem
	if !errors.As(err, &problem) {
		return fmt.Errorf("the refusal is no answer: %w", err)
	}
	if unclear := printable(err.Error()); unclear != nil {
		return unclear
	}
	switch problem.Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusConflict:
	case http.StatusRequestEntityTooLarge:
		return nil // there is no field of what was not read
	default:
		return fmt.Errorf("the refusal has status %d: %s", problem.Status, problem.Error())
	}
	if len(problem.Errors) == 0 {
		return fmt.Errorf("the refusal names no field: %s", problem.Error())
	}
	for _, detail := range problem.Errors {
		if unclear := clear(detail); unclear != nil {
			return unclear
		}
	}
	return nil
}

// clear reports what a detail of a refusal lacks.
func clear(d upkeep.FieldError) error {
	// A text that is no document has lines in place of fields.
	if d.Rule == "" || d.Field == "" && d.Line == 0 {
		return fmt.Errorf("the refusal does not say which field or which rule: %q", d.Error())
	}
	// The value of a password's hash is kept back on purpose; what is empty, or not
	// there, has none to show.
	if d.Value == "" && !strings.Contains(d.Field, ".users") && !missing(d.Rule) && d.Line == 0 {
		return fmt.Errorf("the refusal does not say what was given: %q", d.Error())
	}
	return nil
}

func missing(rule string) bool {
	return strings.Contains(rule, "is required") || strings.HasPrefix(rule, "must") || strings.HasPrefix(rule, "is not")
}

// refusedBy holds the end of a job to what it must say: that it failed, and why,
// in a sentence.
func refusedBy(state upkeep.JobState, sentence string) error {
	if state != upkeep.JobFailed {
		return fmt.Errorf("the job is %s", state)
	}
	if len(sentence) < 20 {
		return fmt.Errorf("the job does not say why it failed: %q", sentence)
	}
	return printable(sentence)
}

// printable refuses texts for people that could move a terminal's cursor, or
// that say of upkeep itself that it broke.
func printable(text string) error {
	if strings.ContainsFunc(text, func(c rune) bool { return unicode.IsControl(c) && c != '\n' }) {
		return fmt.Errorf("what people are told has control characters: %q", text)
	}
	for _, word := range []string{"panic", "goroutine ", "runtime error", "SQL", "reflect."} {
		if strings.Contains(text, word) {
			return fmt.Errorf("what people are told is about the inside of upkeep: %q", text)
		}
	}
	if len(text) > 64<<10 {
		return fmt.Errorf("what people are told has %d bytes", len(text))
	}
	return nil
}
