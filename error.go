package upkeep

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// FieldError says that one field of a declared thing breaks a rule.
type FieldError struct {
	// Object is the declared thing, such as "pool/web", where more than one is
	// at hand.
	Object string `json:"object,omitempty"`
	// Field is the path of the field inside its document, such as
	// "members[1].address". Empty means the document as a whole.
	Field string `json:"field"`
	// Value is what was given, shortened for printing.
	Value string `json:"value,omitempty"`
	// Rule is what was expected, as a sentence fragment.
	Rule string `json:"rule"`
	// File, Line and Column are filled in where the document was read from text.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// Error formats the error as "file:line:column: object: field: value: rule",
// leaving out what is not known.
func (e FieldError) Error() string {
	var b strings.Builder
	if e.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	}
	if e.Object != "" {
		b.WriteString(oneLine(e.Object) + ": ")
	}
	if e.Field != "" {
		b.WriteString(oneLine(e.Field) + ": ")
	}
	if e.Value != "" {
		fmt.Fprintf(&b, "%q: ", e.Value)
	}
	b.WriteString(e.Rule)
	return b.String()
}

// oneLine keeps a name that somebody else chose from forging lines of its own.
func oneLine(name string) string {
	if hasControl(name) {
		return strconv.Quote(name)
	}
	return name
}

// InvalidError carries every broken rule found in one input, so that a person
// fixes them all in one go.
type InvalidError struct{ Fields []FieldError }

func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Kinds of failure that callers tell apart; the API maps them to statuses and
// the command line to exit codes, each in one place.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("conflict")
	ErrRefused  = errors.New("refused")
	// ErrChanged is the conflict of a change that was made to what was read before
	// and is not the present any more: reading it again may help.
	ErrChanged = fmt.Errorf("%w: changed meanwhile", ErrConflict)
)

// Said is the text of an error for people. That it is a conflict is said by a status
// or an exit code, and is no news at the end of a sentence that says which.
func Said(err error) string {
	text := strings.TrimSuffix(err.Error(), ": "+ErrChanged.Error())
	return strings.TrimSuffix(text, ": "+ErrConflict.Error())
}

// HintError adds to an error what a person can do next.
type HintError struct {
	Err  error
	Hint string
}

func (e *HintError) Error() string { return e.Err.Error() }
func (e *HintError) Unwrap() error { return e.Err }

// WithHint wraps err with advice; the command line prints it on a line of its
// own after "hint:".
func WithHint(err error, hint string) error { return &HintError{Err: err, Hint: hint} }

// rules collects the broken rules of one document while it is validated.
type rules struct{ fields []FieldError }

func (r *rules) add(field string, value any, rule string, args ...any) {
	text := ""
	if value != nil {
		text = fmt.Sprint(value)
		if len(text) > 80 {
			text = strings.ToValidUTF8(text[:77], "") + "..." // a rune may be cut through
		}
	}
	r.fields = append(r.fields, FieldError{Field: field, Value: text, Rule: fmt.Sprintf(rule, args...)})
}

// mustBe says what a field is to be, and that there has to be one where there is none.
func (r *rules) mustBe(field, value, what string) {
	if value == "" {
		r.add(field, value, "is required: %s", what)
		return
	}
	r.add(field, value, "must be %s", what)
}

// atMost refuses a list that is longer than anybody has use for, before each of
// its elements is compared with all others. It reports whether it did.
func (r *rules) atMost(field string, length, most int) bool {
	if length > most {
		r.add(field, length, "may have at most %d elements", most)
	}
	return length > most
}
