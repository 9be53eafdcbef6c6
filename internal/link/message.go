package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"upkeep"
)

// Hello is the first message on a link, from the agent; it may be sent again
// when something in it has changed.
type Hello struct {
	Version string `json:"version"` // of upkeep
	// Protocol is the agent's [Protocol].
	Protocol int `json:"protocol"`
	// Kinds are the job kinds that the agent's policy allows.
	Kinds []string     `json:"kinds"`
	Facts upkeep.Facts `json:"facts"`
}

// Protocol numbers what the two sides of a link understand. It rises with what an
// older other side cannot read, so that neither is sent that, and people are told
// which of the two to upgrade:
//
//	0  as it began
//	1  long payloads travel packed
const Protocol = 1

// Age says in words that an agent is older or newer than this control; "" where it
// is neither.
func (h Hello) Age() string {
	switch {
	case h.Protocol < Protocol:
		return "its agent is of an older upkeep than control, and may not be able to do all that it is sent; upgrade upkeep on that server and restart upkeep-agent there"
	case h.Protocol > Protocol:
		return "its agent is of a newer upkeep than control, which may not know all that it does; upgrade control"
	}
	return ""
}

// Cancel asks the agent to give up a job that it has not begun, or can still
// abandon. The outcome says what became of it.
type Cancel struct {
	ID int64 `json:"id"`
}

// Progress tells how far a job has come.
type Progress struct {
	ID      int64  `json:"id"`
	Step    string `json:"step"` // in plain words
	Percent int    `json:"percent"`
}

// Outcome tells how a job ended: done, failed, superseded or cancelled.
type Outcome struct {
	ID    int64           `json:"id"`
	State upkeep.JobState `json:"state"`
	// Error says why it failed, for the person whose job it is.
	Error string `json:"error,omitempty"`
	// Field is the field of the object that the error is about, if one is.
	Field string `json:"field,omitempty"`
	// Holder is the site that has a name on the server which the job's site needs there,
	// where that is why it failed.
	Holder string          `json:"holder,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// Message is one thing said: exactly one of its members is set.
type Message struct {
	Hello    *Hello    `json:"hello,omitempty"`
	Job      *Signed   `json:"job,omitempty"`
	Cancel   *Cancel   `json:"cancel,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	Outcome  *Outcome  `json:"outcome,omitempty"`
}

// Bounds of what is sent. A job can be the whole of a web server's sites; what
// agents report is bounded more tightly, because a control has many of them.
const (
	MaxJob    = 64 << 20          // bytes of a job's body
	maxDown   = MaxJob*4/3 + 4096 // bytes of a message to an agent: the body is in base64
	maxReport = 4 << 20           // bytes of a message to control
)

// Bounds of texts in reports, in bytes. Longer ones are shortened when they are
// sent and refused when they are received.
const (
	maxStep  = 400
	maxError = 8 << 10
	maxField = 400
	maxKinds = 100
)

// encode validates and writes a message of at most limit bytes.
func encode(m Message, limit int) ([]byte, error) {
	m = shortened(m)
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("sending %s: %w", m.name(), err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("sending %s: %w", m.name(), err)
	}
	if len(text) > limit {
		return nil, fmt.Errorf("sending %s: it has %d bytes, and at most %d are possible", m.name(), len(text), limit)
	}
	return text, nil
}

// decode reads what the other side sent. Members and fields that are not known are
// ignored, so that the two sides need not be of one version; a message of which
// nothing is known is an error. What is signed is read strictly, see [Open].
func decode(text []byte, limit int) (envelope, error) {
	if len(text) > limit {
		return envelope{}, fmt.Errorf("receiving a message: it has %d bytes, and at most %d are possible", len(text), limit)
	}
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return envelope{}, fmt.Errorf("receiving a message: %w", err)
	}
	if e.aside() {
		return e, nil
	}
	if err := e.Message.validate(); err != nil {
		return envelope{}, fmt.Errorf("receiving %s: %w", e.Message.name(), err)
	}
	return e, nil
}

func (m Message) name() string {
	switch {
	case m.Hello != nil:
		return "a hello"
	case m.Job != nil:
		return "a job"
	case m.Cancel != nil:
		return "a cancel"
	case m.Progress != nil:
		return "progress"
	case m.Outcome != nil:
		return "an outcome"
	}
	return "a message"
}

// ended are the states that an outcome may have.
var ended = []upkeep.JobState{upkeep.JobDone, upkeep.JobFailed, upkeep.JobSuperseded, upkeep.JobCancelled}

func (m Message) validate() error {
	set := 0
	for _, is := range []bool{m.Hello != nil, m.Job != nil, m.Cancel != nil, m.Progress != nil, m.Outcome != nil} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		return fmt.Errorf("it must be one of hello, job, cancel, progress and outcome, but is %d of them", set)
	case m.Hello != nil && len(m.Hello.Kinds) > maxKinds:
		return fmt.Errorf("it lists %d kinds, and at most %d are possible", len(m.Hello.Kinds), maxKinds)
	case m.Job != nil:
		return m.Job.bounds()
	case m.Cancel != nil && m.Cancel.ID <= 0:
		return errNoID
	case m.Progress != nil:
		return m.Progress.validate()
	case m.Outcome != nil:
		return m.Outcome.validate()
	}
	return nil
}

var errNoID = errors.New("it is about no job")

func (p Progress) validate() error {
	switch {
	case p.ID <= 0:
		return errNoID
	case p.Percent < 0 || p.Percent > 100:
		return fmt.Errorf("%d percent is not between 0 and 100", p.Percent)
	case len(p.Step) > maxStep:
		return fmt.Errorf("its step has %d bytes, and at most %d are possible", len(p.Step), maxStep)
	}
	return nil
}

func (o Outcome) validate() error {
	switch {
	case o.ID <= 0:
		return errNoID
	case !slices.Contains(ended, o.State):
		return fmt.Errorf("%.40q is not how a job ends", o.State)
	case len(o.Error) > maxError || len(o.Field) > maxField:
		return fmt.Errorf("its error has %d bytes and its field %d, and at most %d and %d are possible", len(o.Error), len(o.Field), maxError, maxField)
	case o.State == upkeep.JobFailed && o.Error == "":
		return errors.New("the job failed, and it does not say why")
	}
	return nil
}

// shortened is the message with texts that fit: what a web server has to say
// about its configuration knows no bounds, and must not cost the outcome.
func shortened(m Message) Message {
	if m.Progress != nil {
		progress := *m.Progress
		progress.Step = shorten(progress.Step, maxStep)
		m.Progress = &progress
	}
	if m.Outcome != nil {
		outcome := *m.Outcome
		outcome.Error, outcome.Field = shorten(outcome.Error, maxError), shorten(outcome.Field, maxField)
		m.Outcome = &outcome
	}
	return m
}

// shorten also replaces what is not UTF-8, because JSON would, with longer text.
func shorten(s string, most int) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}
