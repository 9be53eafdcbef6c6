package selftest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"upkeep"
)

// Needs are what an attack cannot be tried without.
type Needs uint8

const (
	// Users are system users of the accounts' own, which take root to make.
	Users Needs = 1 << iota
	// Keys are control's, for attacks by who has stolen them.
	Keys
)

// Attack is one thing that a tenant tries.
type Attack struct {
	// Name is short and stays the same from version to version.
	Name string
	// Tries and Holds are sentences: what is done, and what must hold.
	Tries, Holds string
	// Lesson is who fell to it, or the trap that it is about; may be empty.
	Lesson string
	Needs  Needs
	// Do carries it out and returns what it brought about that must not be. It
	// also returns what kept it from being carried out: that is no success either.
	Do func(context.Context, *World) error
}

// States of a result.
const (
	Held     = "held"
	Broken   = "BROKEN"
	NotTried = "not tried"
)

// Result is what became of an attack.
type Result struct {
	Family string `json:"family"`
	Attack string `json:"attack"`
	Tries  string `json:"tries"`
	Holds  string `json:"holds"`
	Lesson string `json:"lesson,omitempty"`
	State  string `json:"state"`
	// Why is what broke, or why it was not tried.
	Why     string  `json:"why,omitempty"`
	Seconds float64 `json:"seconds"`
}

// family is a table of attacks of one kind.
type family struct {
	name    string
	attacks []Attack
}

// families are all attacks, in the order in which they are tried. The last has
// control itself in the attacker's hands, and takes it away from the others.
var families = []family{
	{"texts", texts},
	{"names", nameAttacks},
	{"accounts", accountAttacks},
	{"files", fileAttacks},
	{"logs", logAttacks},
	{"visitors", slices.Concat(visitorAttacks, signInAttacks)},
	{"sizes", sizeAttacks},
	{"imports", importAttacks},
	{"orders", orderAttacks},
}

// Attacks lists the attacks of every family.
func Attacks() map[string][]Attack {
	all := map[string][]Attack{}
	for _, f := range families {
		all[f.name] = slices.Clone(f.attacks)
	}
	return all
}

// Run tries every attack, one after the other, and tells of each as it ends. Only
// chooses attacks by name; nil for all. The error is about what kept the rest
// from being tried.
func Run(ctx context.Context, w *World, only func(string) bool, tell func(Result)) error {
	if err := w.Settle(ctx); err != nil {
		return fmt.Errorf("before any attack: %w", err)
	}
	defer w.Leave()
	for _, f := range families {
		for _, a := range f.attacks {
			if only != nil && !only(a.Name) {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r := Result{Family: f.name, Attack: a.Name, Tries: a.Tries, Holds: a.Holds, Lesson: a.Lesson}
			began := time.Now()
			r.State, r.Why = w.try(ctx, a)
			r.Seconds = time.Since(began).Seconds()
			tell(r)
		}
	}
	return ctx.Err()
}

// longest is how long one attack may take: one that hangs is one that came
// through.
const longest = 3 * time.Minute

// try carries out one attack and looks at what it has brought about.
func (w *World) try(ctx context.Context, a Attack) (state, why string) {
	switch {
	case a.Needs&Users != 0 && !w.Users:
		return NotTried, "accounts have no system users of their own here: that takes root"
	case a.Needs&Keys != 0 && w.Stolen == nil:
		return NotTried, "the agent is in control's own process here: keys are stolen from control as root"
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if err := w.Endure(ctx, func() error { return a.Do(ctx, w) }); err != nil {
		// So that the next attack is told apart from this one.
		if restored := w.restore(context.WithoutCancel(ctx)); restored != nil {
			err = errors.Join(err, fmt.Errorf("and the neighbours cannot be put back: %w", restored))
		}
		return Broken, oneLine(err)
	}
	return Held, ""
}

// Endure does something, and returns its error with whatever else is wrong: a
// neighbour that did not answer meanwhile, or something that changed and is not
// the tenant's.
func (w *World) Endure(ctx context.Context, do func() error) error {
	before, err := w.look(ctx)
	if err != nil {
		return fmt.Errorf("before it: %w", err)
	}
	w.neighbours.fresh()
	broke := append([]error{do()}, w.neighbours.fresh()...)
	after, err := w.look(ctx)
	if err != nil {
		return errors.Join(append(broke, fmt.Errorf("after it: %w", err))...)
	}
	return errors.Join(append(broke, before.compare(after)...)...)
}

// oneLine is an error as a line of the report.
func oneLine(err error) string {
	text := upkeep.Printable(strings.Join(strings.FieldsFunc(err.Error(), func(c rune) bool { return c == '\n' }), "; "))
	if len(text) > 2000 {
		text = strings.ToValidUTF8(text[:2000], "") + "..."
	}
	return text
}
