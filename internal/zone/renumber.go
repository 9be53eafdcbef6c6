package zone

import (
	"context"
	"fmt"
	"slices"
	"time"

	"upkeep"
)

// Renumberer is a publisher whose zone can be put under a given serial without
// a change of its records. The serial must come after the one that is served
// (RFC 1982). SetSerial returns when it is answered.
type Renumberer interface {
	SetSerial(ctx context.Context, serial uint32) error
	// ServedAt lists every name server that must take each step, the primary
	// first. One that is left out and lags may be stuck with a later serial for
	// ever.
	ServedAt() []ServedAt
}

// RenumberOptions say how to renumber.
type RenumberOptions struct {
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Pause between looking at the servers; 1s when zero.
	Pause time.Duration
	// Progress is told what is being done or waited for, whenever that changes.
	Progress func(text string)
}

// Renumber brings a zone whose serial is ahead of the clock, as one written
// YYYYMMDDnn is, to the Unix time. It may only go forward, so it goes round: to
// a serial halfway round the circle of RFC 1982, and from there on to the clock.
// A step is taken when every server has the one before, because from an earlier
// one the next would look like a step back. Nothing is remembered: a renumbering
// that was cut short goes on from whatever the servers answer. It returns the
// serial reached, and waits for servers until the context ends.
func Renumber(ctx context.Context, r Renumberer, o RenumberOptions) (uint32, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	said := ""
	tell := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != said && o.Progress != nil {
			said = text
			o.Progress(text)
		}
	}
	for {
		at := r.ServedAt()
		serials, waiting := look(ctx, at)
		if waiting == "" {
			step := renumberStep(serials, uint32(o.Now().Unix()))
			switch {
			case step.done:
				return serials[0], nil
			case step.wait >= 0:
				waiting = fmt.Sprintf("%s still has serial %d of %s", at[step.wait].Server, serials[step.wait], at[step.wait].Zone)
			default:
				tell("going from serial %d to %d", serials[0], step.next)
				if err := r.SetSerial(ctx, step.next); err != nil {
					return serials[0], fmt.Errorf("renumbering to %d: %w", step.next, err)
				}
				continue
			}
		}
		tell("waiting: %s", waiting)
		select {
		case <-ctx.Done():
			return 0, upkeep.WithHint(fmt.Errorf("renumbering: %s: %w", waiting, ctx.Err()),
				"run the same again: it goes on from where the servers are")
		case <-time.After(o.Pause):
		}
	}
}

// look asks all servers; waiting says which one does not answer.
func look(ctx context.Context, at []ServedAt) (serials []uint32, waiting string) {
	serials = make([]uint32, len(at))
	for i, a := range at {
		serial, err := ServedSerial(ctx, a.Server, a.Zone)
		if err != nil {
			return nil, err.Error()
		}
		serials[i] = serial
	}
	return serials, ""
}

// step is what comes next in a renumbering.
type step struct {
	done bool
	wait int // index of the server to wait for, -1 for none
	next uint32
}

// serialSlack is kept free at each step for ordinary publishes meanwhile, each
// of which raises the serial by one.
const serialSlack = 1 << 20

// renumberStep decides the next step from what the servers answer, the primary
// first. It is done when no serial is more than a day ahead of the clock: from
// there on the clock leads by itself. (Signers keep a little ahead.)
func renumberStep(serials []uint32, clock uint32) step {
	ahead := func(serial uint32) bool { return serial > clock && serial-clock > uint32(upkeep.Day/time.Second) }
	behind := slices.IndexFunc(serials, ahead)
	if behind < 0 {
		return step{done: true, wait: -1}
	}
	primary := serials[0]
	latest := latestSerial(serials)
	switch {
	case latest != primary:
		// A secondary holds a later serial than the primary, and takes nothing
		// from it: the way starts from there.
		return step{wait: -1, next: following(latest)}
	case !ahead(primary):
		return step{wait: behind}
	}
	// The way from here to the clock, always forward. It is cut into the fewest
	// equal steps that leave the slack, which is two from any date: a first step
	// of the full 2^31-1 would leave a single change no room.
	distance := uint64(clock - primary)
	const longest = 1<<31 - 1 - serialSlack
	steps := (distance + longest - 1) / longest
	next := max(primary+uint32(distance/steps), 1)
	for i, serial := range serials {
		if !SerialLess(serial, next) {
			return step{wait: i}
		}
	}
	return step{wait: -1, next: next}
}

// latestSerial returns the one that comes after all others, as far as the order
// of RFC 1982 reaches; the first of several such.
func latestSerial(serials []uint32) uint32 {
	latest := serials[0]
	for _, serial := range serials[1:] {
		if SerialLess(latest, serial) {
			latest = serial
		}
	}
	return latest
}
