package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

const (
	// promptly is how long failover waits for decisions and events to be written.
	promptly = 2 * time.Second
	// lateRetry is the pause between attempts to write what could not be written,
	// and latePatience how long one attempt may take. Nobody waits for it, so it is
	// long: a database that is slow is not away.
	lateRetry    = time.Second
	latePatience = 20 * time.Second
	// maxLate is how many events are kept for a database that is away. They take
	// some 5 MB, and about 4 KiB each when their reasons are long.
	maxLate = 10_000
	// lateChunk is how many of them are written at once.
	lateChunk = 500
)

// ledger writes decisions and events to the store without ever making failover
// wait for a store that is away. Once something could not be written promptly,
// everything is kept in memory, in order, until a goroutine of the ledger's own
// has written it all; then it is written directly again. So what is stored is
// never overtaken by something older.
//
// An attempt that was given up may have been carried out by the database all
// the same. States are then written twice, which changes nothing; events may
// stand there twice, which is better than to lose one.
type ledger struct {
	store *store.Store
	log   *slog.Logger
	now   func() time.Time
	wake  chan struct{} // has one element when there may be something to write late

	mu     sync.Mutex
	since  time.Time         // of what is being kept; zero while all is written directly
	why    error             // what ended that
	states map[string][]byte // to write, the newest of each key
	events []upkeep.Event    // to write, oldest first
	first  int               // number of events[0], counted from the start
	lost   int               // events for which there was no room
	told   func([]upkeep.Event)
}

// newLedger makes a ledger; told is called with what was written late.
func newLedger(s *store.Store, log *slog.Logger, now func() time.Time, told func([]upkeep.Event)) *ledger {
	return &ledger{store: s, log: log, now: now, told: told, states: map[string][]byte{}, wake: make(chan struct{}, 1)}
}

// save writes states, and at the latest when the store takes writes again. A key
// belongs to one goroutine.
func (l *ledger) save(ctx context.Context, states map[string][]byte) {
	if len(states) == 0 || l.keepWhileAway(states, nil) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, promptly)
	defer cancel()
	if err := l.store.SaveStates(ctx, states); err != nil {
		l.keep(err, states, nil)
	}
}

// load returns the state of a key, nil for none: the one that waits to be written,
// if one does, and not the older one that the store has.
func (l *ledger) load(ctx context.Context, key string) ([]byte, error) {
	l.mu.Lock()
	value, waits := l.states[key]
	l.mu.Unlock()
	if waits {
		return value, nil
	}
	states, err := l.store.LoadStates(ctx, key)
	return states[key], err
}

// record writes events and returns them with their ids, or as they were given
// where they will be written later.
func (l *ledger) record(ctx context.Context, events []upkeep.Event) []upkeep.Event {
	if l.keepWhileAway(nil, events) {
		return events
	}
	ctx, cancel := context.WithTimeout(ctx, promptly)
	defer cancel()
	written, err := l.store.AddEvents(ctx, events...)
	if err != nil {
		l.keep(err, nil, events)
		return events
	}
	return written
}

// keepWhileAway keeps states and events if others wait to be written already.
func (l *ledger) keepWhileAway(states map[string][]byte, events []upkeep.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		return false
	}
	l.add(states, events)
	return true
}

// keep takes in what could not be written because of err.
func (l *ledger) keep(err error, states map[string][]byte, events []upkeep.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		l.since, l.why = l.now(), err
		l.log.Error("the database takes no writes; decisions go on and are written later", "err", err)
	}
	l.add(states, events)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// add appends; l.mu is held.
func (l *ledger) add(states map[string][]byte, events []upkeep.Event) {
	maps.Copy(l.states, states)
	l.events = append(l.events, events...)
	if excess := len(l.events) - maxLate; excess > 0 {
		// The oldest go, since what counts most is how things are now; many at
		// once, since the rest is moved.
		excess += maxLate / 10
		l.drop(excess)
		l.lost += excess
	}
}

// drop removes the oldest n events; l.mu is held.
func (l *ledger) drop(n int) {
	l.events = append([]upkeep.Event(nil), l.events[n:]...)
	l.first += n
}

// run writes what was kept, until ctx ends.
func (l *ledger) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		for l.flush(ctx) != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(lateRetry):
			}
		}
	}
}

// flush writes all that was kept. Only one flush runs at a time.
func (l *ledger) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, latePatience)
	defer cancel()
	for {
		l.mu.Lock()
		if len(l.states) == 0 && len(l.events) == 0 {
			back := l.back()
			l.mu.Unlock()
			if len(back) > 0 {
				l.told(l.record(ctx, back))
			}
			return nil
		}
		states, events, first := maps.Clone(l.states), l.events[:min(len(l.events), lateChunk)], l.first
		l.mu.Unlock()
		err := l.store.SaveStates(ctx, states)
		if err == nil {
			_, err = l.store.AddEvents(ctx, events...)
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		maps.DeleteFunc(l.states, func(key string, value []byte) bool { return bytes.Equal(value, states[key]) })
		l.drop(max(0, first+len(events)-l.first)) // some may have been dropped meanwhile
		l.mu.Unlock()
	}
}

// back notes that everything is written, and returns the event that says for
// how long it was not. l.mu is held.
func (l *ledger) back() []upkeep.Event {
	if l.since.IsZero() {
		return nil
	}
	e := upkeep.Event{At: l.now(), Kind: upkeep.EventWarning, Who: "upkeep", Object: "database",
		What: fmt.Sprintf("takes writes again, after %s without", l.now().Sub(l.since).Round(time.Millisecond)), Why: reasonOf(l.why)}
	if l.lost > 0 {
		e.What += fmt.Sprintf("; the oldest %d events of that time were only logged", l.lost)
	}
	l.since, l.why, l.lost = time.Time{}, nil, 0
	return []upkeep.Event{e}
}

func reasonOf(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("a write took longer than %s", promptly)
	}
	return err.Error()
}

// waiting is how many events are kept in memory, and since when; zero while
// everything is written directly.
func (l *ledger) waiting() (events int, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events), l.since
}
