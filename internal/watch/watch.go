// Package watch is the one loop that carries a probe's result to DNS:
// probe -> failover -> store -> zone -> proof.
//
// Three kinds of goroutine meet here. The probe engine calls [target.observe],
// which updates one detector and, when a verdict changed, wakes the loop. The
// loop ([Watch.Run]) alone takes decisions and writes them to the store. One
// goroutine per zone publishes and proves, so that a name server that hangs
// delays nothing but its own zone.
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/failover"
	"upkeep/internal/probe"
	"upkeep/internal/store"
	"upkeep/internal/zone"
)

// Prober runs checks; [probe.Engine] is the one.
type Prober interface {
	Set(specs map[probe.Key]probe.Spec)
	Preflight(c upkeep.Check) error
	// Kick asks for a probe of the keys now, beside the regular ones.
	Kick(keys ...probe.Key)
}

// PublisherFunc makes the publisher that one entry of a zone document asks for;
// w takes its notices and keeps its memory.
type PublisherFunc func(w *Watch, z upkeep.Zone, p upkeep.Publisher) (zone.Publisher, error)

// Config is what a Watch is made of. All fields are
// required but for those that say what stands in.
type Config struct {
	Store     *store.Store
	Prober    Prober
	Publisher PublisherFunc
	// DNS is the address at which upkeep answers queries itself. It is asked for
	// the proof of a zone with a transfer publisher that lists no servers.
	DNS string
	Log *slog.Logger
	// Meter counts what happens; nil for nobody.
	Meter Meter
	// EventAge is how long events are kept; zero keeps them for 90 days.
	EventAge time.Duration
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Meter counts what happens. It must not block.
type Meter interface {
	Event(e upkeep.Event)
	// Failover is told of each removal that was proven on every name server, with
	// the time since the last good probe.
	Failover(took time.Duration)
	// Publish is told of each run of a publisher.
	Publish(publisher string, err error)
}

type noMeter struct{}

func (noMeter) Event(upkeep.Event)     {}
func (noMeter) Failover(time.Duration) {}
func (noMeter) Publish(string, error)  {}

// Watch holds what is declared, what is observed of it and what is published.
type Watch struct {
	cfg    Config
	log    *slog.Logger
	events *broadcaster

	declare    sync.Mutex // serialises changes of declared things
	overriding sync.Mutex // serialises that changed overrides are read

	mu        sync.Mutex // guards all below
	objects   []upkeep.Declared
	overrides []upkeep.Override
	targets   map[probe.Key]*target
	pools     map[string]*pool
	zones     map[string]*zoneRun
	guard     *failover.Guard
	dirty     map[string]bool // pools to decide on

	remembered map[string]time.Time // targets that the guard knew in its earlier life
	guardSaved struct {
		at       time.Time
		revision int
	}

	pending pending // verdict changes that the loop has not seen yet
	runners sync.WaitGroup
	base    context.Context // ends when the watch is closed
	stop    context.CancelFunc
	ledger  *ledger
	looped  time.Time // end of the last round; guarded by mu
	started time.Time
	kicked  time.Time // when others were last asked to corroborate
}

// New loads what the store holds and starts probing and publishing at once;
// decisions wait for [Watch.Run].
func New(ctx context.Context, cfg Config) (*Watch, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Meter == nil {
		cfg.Meter = noMeter{}
	}
	if cfg.EventAge == 0 {
		cfg.EventAge = 90 * upkeep.Day
	}
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	w := &Watch{
		cfg: cfg, log: cfg.Log, events: newBroadcaster(),
		targets: map[probe.Key]*target{}, pools: map[string]*pool{}, zones: map[string]*zoneRun{},
		guard: failover.NewGuard(), dirty: map[string]bool{},
		pending: pending{wake: make(chan struct{}, 1)}, base: base, stop: stop, started: cfg.Now(),
	}
	w.ledger = newLedger(cfg.Store, cfg.Log, cfg.Now, w.announce)
	if err := w.load(ctx); err != nil {
		stop()
		return nil, err
	}
	return w, nil
}

func (w *Watch) load(ctx context.Context) error {
	objects, err := w.cfg.Store.Objects(ctx, upkeep.PoolKinds...)
	if err != nil {
		return err
	}
	if w.overrides, err = w.cfg.Store.Overrides(ctx); err != nil {
		return err
	}
	states, err := w.cfg.Store.LoadStates(ctx, "")
	if err != nil {
		return err
	}
	w.restoreGuard(states[guardKey])
	faults, err := w.cfg.Store.Faults(ctx)
	if err != nil {
		return err
	}
	for _, fault := range faults {
		w.log.Error("a row of the database is not as upkeep writes it; nothing is done by it", "object", fault.Ref.String(), "err", fault.Err)
	}
	if stale := w.rebuild(objects, states); len(stale) > 0 {
		return w.cfg.Store.DeleteStates(ctx, stale...)
	}
	return nil
}

// housekeeping is how often states are saved and old events pruned.
const housekeeping = time.Minute

// Run decides until ctx ends, then saves what was learned, stops the zones'
// goroutines and closes their publishers.
func (w *Watch) Run(ctx context.Context) error {
	w.runners.Go(w.housekeep)
	w.runners.Go(func() { w.ledger.run(w.base) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return w.close()
		case <-w.pending.wake:
		case <-timer.C:
		}
		wakeAt := w.round()
		now := w.cfg.Now()
		wait := time.Second // the loop's own heartbeat: a Wake that was missed costs a second at most
		if !wakeAt.IsZero() {
			wait = min(wait, max(wakeAt.Sub(now), time.Millisecond))
		}
		timer.Reset(wait)
	}
}

// Alive returns when the loop last ended a round. A watchdog that sees it stand
// still restarts the process: a checker that dies in silence is the worst kind.
func (w *Watch) Alive() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.looped
}

func (w *Watch) close() error {
	w.cfg.Prober.Set(nil)
	w.stop()
	w.runners.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	w.events.close()
	return errors.Join(w.ledger.flush(ctx), w.savePools(ctx), w.saveTargets(ctx, math.MaxInt))
}

// housekeep works beside the loop until the watch is closed.
func (w *Watch) housekeep() {
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	for {
		select {
		case <-w.base.Done():
			return
		case <-tick.C:
		}
		if err := w.saveTargets(w.base, savedAtOnce); err != nil && w.base.Err() == nil {
			w.log.Error("saving what was learned", "err", err)
		}
		if _, err := w.cfg.Store.PruneEvents(w.base, w.cfg.Now().Add(-w.cfg.EventAge)); err != nil && w.base.Err() == nil {
			w.log.Error("pruning events", "err", err)
		}
		if _, err := w.cfg.Store.PruneAudit(w.base, w.cfg.Now().Add(-auditAge)); err != nil && w.base.Err() == nil {
			w.log.Error("pruning the audit log", "err", err)
		}
	}
}

// auditAge is how long it is kept who changed what.
const auditAge = 2 * upkeep.Year

// savedAtOnce is how many targets are saved in one housekeeping: with more, each
// one's turn comes every few minutes. What is lost with a crash is learned again.
const savedAtOnce = 10_000

// saveTargets stores what the detectors of at most so many targets learned, those
// first whose turn was longest ago. Decisions go on meanwhile.
func (w *Watch) saveTargets(ctx context.Context, atMost int) error {
	w.mu.Lock()
	targets := slices.Collect(maps.Values(w.targets))
	w.mu.Unlock()
	if len(targets) > atMost {
		slices.SortFunc(targets, func(a, b *target) int { return a.saved.Compare(b.saved) })
		targets = targets[:atMost]
	}
	now := w.cfg.Now()
	for some := range slices.Chunk(targets, 500) {
		states := make(map[string][]byte, len(some))
		for _, t := range some {
			blob, err := t.snapshot()
			if err != nil {
				return fmt.Errorf("encoding what was learned of %s: %w", t.key, err)
			}
			states[targetKey(t.key)], t.saved = blob, now
		}
		if err := w.cfg.Store.SaveStates(ctx, states); err != nil {
			return err
		}
	}
	return nil
}

// savePools stores what became of pools when the loop has ended. Before that the
// loop alone writes it, so that nothing older is written over it.
func (w *Watch) savePools(ctx context.Context) error {
	states := map[string][]byte{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, p := range w.pools {
		blob, err := json.Marshal(p.state)
		if err != nil {
			return fmt.Errorf("encoding the state of pool %s: %w", name, err)
		}
		states[poolKey(name)] = blob
	}
	w.guardSaved.at = time.Time{}
	w.saveGuard(w.cfg.Now(), states)
	return w.cfg.Store.SaveStates(ctx, states)
}

// record writes events and hands them to whoever follows them. A store that
// cannot be written does not stop failover: the events are then written when it
// can.
func (w *Watch) record(ctx context.Context, events ...upkeep.Event) {
	if len(events) == 0 {
		return
	}
	w.announce(w.ledger.record(ctx, events))
}

// Notice records something that a person should know and that changes no
// answer. It does not block.
func (w *Watch) Notice(object, what, why string) {
	w.runners.Go(func() {
		w.record(w.base, upkeep.Event{At: w.cfg.Now(), Kind: upkeep.EventWarning, Who: "upkeep", Object: object, What: what, Why: why})
	})
}

// Announce tells whoever follows events of some that are written already.
func (w *Watch) Announce(events []upkeep.Event) { w.announce(events) }

func (w *Watch) announce(events []upkeep.Event) {
	for _, e := range events {
		w.cfg.Meter.Event(e)
		w.log.Info(e.What, "object", e.Object, "kind", e.Kind, "why", e.Why, "who", e.Who)
	}
	w.events.send(events)
}

// Recall returns what [Watch.Remember] was last given for a publisher's key, nil
// for nothing.
func (w *Watch) Recall(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, latePatience)
	defer cancel()
	return w.ledger.load(ctx, publisherKey(key))
}

// Remember keeps a value for a publisher across restarts. While the database
// takes no writes it is kept in memory, and written when it does. For one key it
// must be called by one goroutine.
func (w *Watch) Remember(ctx context.Context, key string, value []byte) {
	w.ledger.save(ctx, map[string][]byte{publisherKey(key): value})
}

// Unwritten says how many events wait in memory for a database that takes no
// writes, and since when; both are zero while it does.
func (w *Watch) Unwritten() (events int, since time.Time) { return w.ledger.waiting() }

// Subscribe returns events as they happen. The channel is closed when cancel is
// called or when its reader falls too far behind; read what was missed with
// [Watch.Events] and subscribe again.
func (w *Watch) Subscribe() (events <-chan upkeep.Event, cancel func()) { return w.events.subscribe() }

// Events reads stored events.
func (w *Watch) Events(ctx context.Context, filter store.EventFilter) ([]upkeep.Event, error) {
	return w.cfg.Store.Events(ctx, filter)
}
