package notify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"upkeep"
)

// Message is what a receiver is told in one go. Its JSON form is the body of a
// webhook without a template, and the input of an exec receiver.
type Message struct {
	// ID is the same when a message is sent again, so that a receiver can tell.
	ID       string    `json:"id"`
	Receiver string    `json:"receiver"`
	Host     string    `json:"host"` // where this upkeep runs
	At       time.Time `json:"at"`
	// Title is one line that says the most important thing. Like all text here
	// it may quote what hostile targets answered, but holds no control characters.
	Title string `json:"title"`
	// Events in the order in which they happened, at most [MaxListed].
	Events []upkeep.Event `json:"events"`
	// Omitted events happened in the midst of those listed and are not listed.
	Omitted int `json:"omitted,omitempty"`
	// Expired events could not be told in time and are gone.
	Expired int `json:"expired,omitempty"`
	// Problems are what is still wrong, in a reminder.
	Problems []string `json:"problems,omitempty"`
	Reminder bool     `json:"reminder,omitempty"`
	Test     bool     `json:"test,omitempty"`
}

// MaxListed is the number of events that a message lists at most: half of them
// the first of its time, half the last.
const MaxListed = 200

// group is what waits to be told: all events of a stretch of ids that pass the
// receiver's filter, of which those in the middle of a crowd are only counted.
type group struct {
	first, last []upkeep.Event // each at most MaxListed/2
	omitted     int
	expired     int
	from, to    int64     // ids of the first and last event that was added
	begun       time.Time // when the first was seen
}

func (g *group) empty() bool { return len(g.first) == 0 }

// add takes an event in; now is when it was seen.
func (g *group) add(e upkeep.Event, now time.Time) {
	if g.empty() {
		g.from, g.begun = e.ID, now
	}
	g.to = e.ID
	if len(g.first) < MaxListed/2 {
		g.first = append(g.first, e)
		return
	}
	if len(g.last) == MaxListed/2 {
		g.last = append(g.last[:0], g.last[1:]...)
		g.omitted++
	}
	g.last = append(g.last, e)
}

// expire lets go of events that happened before cutoff.
func (g *group) expire(cutoff time.Time) {
	old := func(e upkeep.Event) bool {
		if e.At.Before(cutoff) {
			g.expired++
			return true
		}
		return false
	}
	all := len(g.first) + len(g.last)
	g.first = slices.DeleteFunc(g.first, old)
	g.last = slices.DeleteFunc(g.last, old)
	if all > 0 && len(g.first) == 0 {
		// What was only counted happened before the last ones.
		g.expired, g.omitted = g.expired+g.omitted, 0
		g.first, g.last = g.last, nil
	}
}

// message is the group as it is told.
func (g *group) message(receiver, host string, now time.Time) Message {
	m := Message{
		ID: fmt.Sprintf("%s/%d-%d", receiver, g.from, g.to), Receiver: receiver, Host: host, At: now.UTC().Truncate(time.Millisecond),
		Omitted: g.omitted, Expired: g.expired,
	}
	for _, e := range slices.Concat(g.first, g.last) {
		e.At = e.At.UTC()
		e.Kind, e.Who, e.Object, e.What, e.Why = clean(e.Kind), clean(e.Who), clean(e.Object), clean(e.What), clean(e.Why)
		m.Events = append(m.Events, e)
	}
	m.Title = title(m.Events, g.omitted)
	return m
}

// title says the weightiest event, and how many there are beside it.
func title(events []upkeep.Event, omitted int) string {
	if len(events) == 0 {
		return "nothing happened"
	}
	// The first of the weightiest: what began it all.
	head := slices.MinFunc(events, func(a, b upkeep.Event) int { return cmp.Compare(weight(a), weight(b)) })
	text := strings.TrimPrefix(head.Object, "pool/") + ": " + head.What
	if more := len(events) + omitted - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// weight orders events by how much a person wants to know them, 0 being the most.
func weight(e upkeep.Event) int {
	switch e.Kind {
	case upkeep.EventVerdict:
		if e.What == upkeep.Down.String() {
			return 0
		}
		return 3
	case upkeep.EventWarning:
		return 1
	case upkeep.EventDecision:
		return 2
	case upkeep.EventAdmin:
		return 4
	case upkeep.EventPublish, upkeep.EventProof:
		return 5
	}
	return 6
}

// maxText bounds one text of a message, in bytes.
const maxText = 1000

// clean makes text fit for one line of a mail, a terminal or a chat: no control
// characters, which could begin a header, and none that reorder or hide text.
func clean(s string) string {
	var b strings.Builder
	for _, c := range strings.ToValidUTF8(s, "?") {
		switch {
		case b.Len() >= maxText:
			return b.String() + "..."
		case unicode.IsSpace(c):
			b.WriteByte(' ')
		case !unicode.IsPrint(c):
			b.WriteByte('?')
		default:
			b.WriteRune(c)
		}
	}
	return strings.TrimSpace(b.String())
}

// testMessage is what is sent to try a receiver out.
func testMessage(receiver, host string, now time.Time) Message {
	now = now.UTC().Truncate(time.Millisecond)
	return Message{
		ID: fmt.Sprintf("%s/test-%d", receiver, now.UnixMilli()), Receiver: receiver, Host: host, At: now, Test: true,
		Title: "a test of receiver " + receiver,
		Events: []upkeep.Event{{
			At: now, Kind: upkeep.EventSystem, Who: "upkeep", Object: "receiver/" + receiver,
			What: "test", Why: "somebody asked for it; nothing is wrong",
		}},
	}
}

// reminder tells what is still wrong.
func reminder(receiver, host string, now time.Time, problems []string) Message {
	now = now.UTC().Truncate(time.Millisecond)
	m := Message{
		ID: fmt.Sprintf("%s/reminder-%d", receiver, now.Unix()), Receiver: receiver, Host: host, At: now,
		Reminder: true, Problems: problems, Events: []upkeep.Event{},
	}
	m.Title = "still: " + problems[0]
	if len(problems) > 1 {
		m.Title += fmt.Sprintf(" (and %d more)", len(problems)-1)
	}
	return m
}

// Text is the message for people.
func (m Message) Text() string {
	var b strings.Builder
	b.WriteString(m.Title + "\n")
	for i, e := range m.Events {
		if m.Omitted > 0 && i == len(m.Events)-MaxListed/2 {
			fmt.Fprintf(&b, "\n... %d more that are not listed ...\n", m.Omitted)
		}
		fmt.Fprintf(&b, "\n%s  %s  %s\n", e.At.Format("2006-01-02 15:04:05.000 MST"), e.Object, e.What)
		if e.Why != "" {
			b.WriteString("    " + e.Why + "\n")
		}
		if e.Who != "" && e.Who != "upkeep" {
			b.WriteString("    by " + e.Who + "\n")
		}
	}
	for _, problem := range m.Problems {
		b.WriteString("\n" + problem + "\n")
	}
	if m.Expired > 0 {
		fmt.Fprintf(&b, "\n%d older events could not be told in time; upkeep events lists them.\n", m.Expired)
	}
	fmt.Fprintf(&b, "\n-- \nupkeep on %s, receiver %s\n", m.Host, m.Receiver)
	return b.String()
}
