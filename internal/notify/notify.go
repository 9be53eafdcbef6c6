// Package notify tells people and programs what happens: by mail, webhook, or
// by running a program.
//
// It reads events from the database after a cursor of each receiver's own, which
// moves when a message was taken. So a crash loses no event and repeats one
// message at most, and nobody who decides or publishes ever waits for a receiver.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"upkeep"
)

// Store keeps what is declared, what happened, and how far each receiver was told.
type Store interface {
	Objects(ctx context.Context, kinds ...string) ([]upkeep.Declared, error)
	Events(ctx context.Context, q Query) ([]upkeep.Event, error)
	Cursor(ctx context.Context, name string) (int64, error)
	SetCursor(ctx context.Context, name string, event int64) error
	DeleteCursor(ctx context.Context, name string) error
}

// Query asks for events in the order of their ids.
type Query struct {
	After        int64  // ids above this
	Object, Kind string // empty for any
	Limit        int
	Latest       bool // the last ones instead of the first
}

// Options of a notifier. Store is required.
type Options struct {
	Store Store
	// Status is asked for reminders; without it there are none.
	Status Status
	// Notice records that a receiver cannot be reached, and that it can again.
	Notice func(object, what, why string)
	Logger *slog.Logger // discarded when nil
	// Poll is how often the database is looked at without being told to by
	// [Notifier.Wake], 1s when zero.
	Poll time.Duration
	// Host is what messages say they come from, the host name when empty.
	Host string
}

// Notifier tells every declared receiver.
type Notifier struct {
	options Options
	log     *slog.Logger
	poke    chan struct{}

	mu      sync.Mutex
	workers map[string]*worker
}

// New makes a notifier that does nothing yet.
func New(o Options) *Notifier {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Notice == nil {
		o.Notice = func(string, string, string) {}
	}
	if o.Host == "" {
		o.Host, _ = os.Hostname() // empty is no worse than an error
	}
	o.Host = clean(o.Host)
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	return &Notifier{options: o, log: o.Logger, poke: make(chan struct{}, 1), workers: map[string]*worker{}}
}

// Wake has the notifier look for events at once. It does not block.
func (n *Notifier) Wake() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// Run tells receivers until ctx is done.
func (n *Notifier) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	tick := time.NewTicker(n.options.Poll)
	defer tick.Stop()
	seen, declared, failing := int64(-1), int64(-1), false
	for {
		news, latest, changed, err := n.look(ctx, seen, declared)
		if err == nil && changed != declared {
			if err = n.reconcile(ctx, &work); err == nil {
				declared = changed
			}
		}
		switch {
		case err == nil:
			seen, failing = latest, false
			if news {
				n.wakeAll()
			}
		case ctx.Err() != nil:
			return nil
		case !failing:
			failing = true
			n.log.Error("looking for events to tell", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-n.poke:
		}
	}
}

// look asks whether anything has happened, by the latest id of all and the
// latest one of a declaration.
func (n *Notifier) look(ctx context.Context, seen, declared int64) (news bool, latest, changed int64, err error) {
	if latest, err = n.latest(ctx, Query{}); err != nil {
		return false, seen, declared, err
	}
	if latest == seen {
		return false, seen, declared, nil
	}
	changed, err = n.latest(ctx, Query{Kind: upkeep.EventDeclared})
	return true, latest, changed, err
}

func (n *Notifier) latest(ctx context.Context, q Query) (int64, error) {
	q.Latest, q.Limit = true, 1
	events, err := n.options.Store.Events(ctx, q)
	if err != nil || len(events) == 0 {
		return 0, err
	}
	return events[len(events)-1].ID, nil
}

func (n *Notifier) wakeAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.workers {
		w.wake()
	}
}

// reconcile starts and stops workers so that there is one for each receiver as
// it is declared now.
func (n *Notifier) reconcile(ctx context.Context, work *sync.WaitGroup) error {
	declared, err := n.options.Store.Objects(ctx, upkeep.PoolKinds...)
	if err != nil {
		return fmt.Errorf("reading receivers: %w", err)
	}
	objects := make([]upkeep.Object, len(declared))
	for i, d := range declared {
		objects[i] = d.Object
	}
	want := map[string]*worker{}
	for _, object := range objects {
		if r, is := object.(upkeep.Receiver); is {
			if senders[r.Type] == nil { // written past all rules, or by a later version
				n.log.Error("a receiver has a type that this upkeep does not know; it is not notified", "receiver", r.Name, "type", r.Type)
				continue
			}
			r = r.WithDefaults()
			want[r.Name] = newWorker(r, newFilter(r, objects), n.options)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, old := range n.workers {
		fresh, still := want[name]
		if still && fresh.identity == old.identity {
			delete(want, name)
			continue
		}
		old.stop()
		delete(n.workers, name)
		if still {
			fresh.counts = old.snapshot()
			continue
		}
		for _, cursor := range []string{cursorName(name), sentName(name)} {
			if err := n.options.Store.DeleteCursor(ctx, cursor); err != nil {
				return fmt.Errorf("forgetting receiver %s: %w", name, err)
			}
		}
	}
	for name, fresh := range want {
		n.workers[name] = fresh
		fresh.start(ctx, work)
	}
	return nil
}

// Test sends a test message to a declared receiver at once and returns what
// came of it. Neither its cursor nor its rate limit is touched.
func (n *Notifier) Test(ctx context.Context, name string) error {
	declared, err := n.options.Store.Objects(ctx, upkeep.KindReceiver)
	if err != nil {
		return err
	}
	for _, d := range declared {
		if r, is := d.Object.(upkeep.Receiver); is && r.Name == name {
			r = r.WithDefaults()
			ctx, cancel := context.WithTimeout(ctx, time.Duration(r.Timeout))
			defer cancel()
			return senders[r.Type](r, n.log).send(ctx, testMessage(r.Name, n.options.Host, time.Now()))
		}
	}
	return fmt.Errorf("receiver %s: %w", name, upkeep.ErrNotFound)
}

// Stats counts what was told to a receiver since the start.
type Stats struct {
	Sent    uint64 // messages taken
	Failed  uint64 // attempts that were not
	Expired uint64 // events that could not be told in time
	Waiting int    // events that wait to be told, as far as they were read
	// Failing is since when the receiver cannot be reached, zero when it can.
	Failing time.Time
}

// Stats returns the counts of every receiver.
func (n *Notifier) Stats() map[string]Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[string]Stats, len(n.workers))
	for name, w := range n.workers {
		all[name] = w.snapshot()
	}
	return all
}

func cursorName(receiver string) string { return upkeep.KindReceiver + "/" + receiver }

// sentName is where the time of the last message is kept, in Unix milliseconds,
// so that restarts do not get round the rate limit.
func sentName(receiver string) string { return cursorName(receiver) + "/sent" }

// sender tells one receiver.
type sender interface {
	// send sends a message once. An error means that it was not taken, and
	// sending it again is right.
	send(ctx context.Context, m Message) error
}

// senders is the registry: a receiver type is a file of its own and a line here.
var senders = map[string]func(upkeep.Receiver, *slog.Logger) sender{
	upkeep.ReceiverEmail:   newEmail,
	upkeep.ReceiverWebhook: newWebhook,
	upkeep.ReceiverExec:    newExec,
}

// laterError asks for a pause before the next attempt.
type laterError struct {
	error
	after time.Duration
}

func (e *laterError) Unwrap() error { return e.error }

// later is the pause that an error asks for.
func later(err error) time.Duration {
	var l *laterError
	if errors.As(err, &l) {
		return l.after
	}
	return 0
}

// identity is equal for workers that would do the same.
func identity(r upkeep.Receiver, f filter) string {
	text, err := json.Marshal([]any{r, f.zones})
	if err != nil {
		panic(fmt.Sprintf("encoding a receiver: %v", err)) // strings, numbers and lists of them
	}
	return string(text)
}
