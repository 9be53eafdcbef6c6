package zone

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// journalPause is how long an answer waits for the journal alone. What takes
	// longer is kept in the spare folder and then answered, while the journal is
	// written beside it.
	journalPause = 250 * time.Millisecond
	// journalPatience is how long it waits where there is no spare folder. It is
	// then answered all the same: a dead address in DNS is worse than what comes of
	// a serial that a restart forgets.
	journalPatience = 2 * time.Second
	// One attempt to write the journal may take journalLimit; after one that failed
	// there is a pause of journalRetry. Nobody waits for either.
	journalLimit = 20 * time.Second
	journalRetry = time.Second
	// loadLimit is how long the reading of a journal may take.
	loadLimit = 10 * time.Second
)

// keeper makes the versions of one zone durable: in the journal, and on this
// machine's disk while the journal, a database perhaps on another machine, takes
// no writes. At any time one goroutine at most writes the journal, so that
// nothing older is ever written over something newer.
type keeper struct {
	p      *primary
	ctx    context.Context
	cancel context.CancelFunc

	hurry chan struct{} // ends a pause

	mu      sync.Mutex
	busy    bool         // the journal is being written
	next    *version     // to write once that is over, the newest alone; nil for none
	waiting []chan error // each gets the outcome of one attempt, if it comes in time
	spared  bool         // the spare folder holds something of this zone
	work    sync.WaitGroup
}

func newKeeper(p *primary) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	return &keeper{p: p, ctx: ctx, cancel: cancel, hurry: make(chan struct{}, 1)}
}

// keep makes v, to which step leads, durable before it is answered, and returns
// an error where that did not succeed in the time that an answer may wait.
func (k *keeper) keep(ctx context.Context, v *version, step *delta) error {
	e, err := k.p.encode(v, step)
	if err != nil {
		return err
	}
	outcome, pause := k.begin(v, e)
	patience := time.NewTimer(journalPatience)
	defer patience.Stop()
	alone := time.NewTimer(pause)
	defer alone.Stop()
	var failed error
	for {
		select {
		case err := <-outcome:
			if err == nil {
				return nil
			}
			return orElse(err, k.spare(e.content))
		case <-alone.C:
			if failed = k.spare(e.content); failed == nil {
				return nil
			}
		case <-patience.C:
			return orElse(fmt.Errorf("the journal takes no writes within %s", journalPatience), failed)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// orElse is nil when the second way succeeded, and both errors otherwise.
func orElse(first, second error) error {
	if second == nil {
		return nil
	}
	return errors.Join(first, second)
}

// begin has v written to the journal. It returns where the outcome is told, and
// how long to wait for that alone.
func (k *keeper) begin(v *version, e encoded) (outcome chan error, pause time.Duration) {
	outcome = make(chan error, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ctx.Err() != nil:
		outcome <- k.ctx.Err()
		return outcome, journalPause
	case k.busy:
		k.waiting, k.next = append(k.waiting, outcome), v
		select {
		case k.hurry <- struct{}{}:
		default:
		}
		return outcome, 0
	}
	k.waiting, k.busy = append(k.waiting, outcome), true
	k.work.Go(func() { k.write(v, e) })
	return outcome, journalPause
}

// write writes the journal until the newest version is in it.
func (k *keeper) write(v *version, e encoded) {
	for failing := false; v != nil; {
		ctx, cancel := context.WithTimeout(k.ctx, journalLimit)
		err := k.p.server.o.Journal.SaveZone(ctx, k.p.name, e.content, e.step, e.keep)
		cancel()
		if err != nil && !failing && k.ctx.Err() == nil {
			k.p.log().Warn("the journal of a zone takes no writes; trying again", "serial", v.serial, "err", err)
		}
		if failing = err != nil; failing {
			k.tell(err)
			if !k.rest() {
				return
			}
		}
		if v = k.following(v, failing); v == nil {
			return
		}
		if e, err = k.p.encode(v, nil); err != nil { // it was encoded before
			k.p.log().Error("encoding a zone for its journal", "serial", v.serial, "err", err)
			return
		}
	}
}

// tell hands the outcome of an attempt to all who wait for it.
func (k *keeper) tell(outcome error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.waiting {
		w <- outcome
	}
	k.waiting = nil
}

// rest pauses between attempts, and is false when there are to be no more.
func (k *keeper) rest() bool {
	select {
	case <-k.ctx.Done():
	case <-time.After(journalRetry):
	case <-k.hurry:
	}
	return k.ctx.Err() == nil
}

// following is the version to write after an attempt to write v; nil when the
// journal has the newest.
func (k *keeper) following(v *version, failing bool) *version {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.next != nil:
		v, k.next = k.next, nil
		return v
	case failing:
		return v
	}
	k.busy = false
	for _, w := range k.waiting {
		w <- nil
	}
	k.waiting = nil
	if k.spared {
		if err := k.p.server.spares().drop(k.p.name); err != nil {
			k.p.log().Warn("removing what the journal has by now", "err", err)
		}
		k.spared = false
	}
	return nil
}

// spare keeps content on this machine's disk.
func (k *keeper) spare(content []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.busy { // the journal has taken it meanwhile
		return nil
	}
	if err := k.p.server.spares().save(k.p.name, content); err != nil {
		return fmt.Errorf("keeping zone %s beside its journal: %w", k.p.name, err)
	}
	if !k.spared {
		k.p.log().Info("kept beside the journal, which takes no writes at the moment")
	}
	k.spared = true
	return nil
}

// load returns the newest version that is kept, nil for none, and the steps that
// led to it.
func (k *keeper) load(ctx context.Context) (*version, []delta, error) {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	p := k.p
	current, deltas, err := p.journaled(ctx)
	if err != nil {
		return nil, nil, err
	}
	content, err := p.server.spares().load(p.name)
	if err != nil {
		return nil, nil, fmt.Errorf("loading zone %s from %s: %w", p.name, p.server.o.Spare, err)
	}
	if content == nil {
		return current, deltas, nil
	}
	spare, err := decodeVersion(p.origin, content)
	if err != nil {
		p.log().Error("what was kept beside the journal of a zone cannot be read", "err", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spared = true
	if err != nil || current != nil && !SerialLess(current.serial, spare.serial) {
		spare = current // the journal has caught up; what lies there is removed with the next write
	}
	if spare == nil {
		return nil, nil, nil
	}
	e, err := p.encode(spare, nil)
	if err != nil {
		return nil, nil, err
	}
	k.busy = true
	k.work.Go(func() { k.write(spare, e) })
	return spare, chain(deltas, spare.serial), nil
}

// close ends an attempt that is under way, and returns when none is.
func (k *keeper) close() {
	k.cancel()
	k.work.Wait()
}
