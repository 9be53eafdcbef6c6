package watch

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/zone"
)

// zoneRun carries the content of one zone to its publishers and proves it on
// its name servers. Its goroutine is the only one that publishes.
type zoneRun struct {
	w    *Watch
	spec upkeep.Zone
	stop context.CancelFunc
	done chan struct{}

	publishers []zone.Publisher // same order as spec.Publishers; written under mu

	mu      sync.Mutex
	content zone.Content
	fresh   chan struct{} // closed when newer content is offered
	offered bool
	status  upkeep.ZoneStatus
	alarmed map[string]bool // servers that were reported as lagging
	seen    []time.Time     // of each server: asOf of the content that it was first seen to answer
	lost    []time.Time     // of each server: since when it is not in step; zero while it is
	proven  time.Time       // when the present content was proven everywhere; zero before
	asOf    time.Time       // when the present content was offered
	took    time.Duration   // from the offer of the latest published content to its publish
}

// startZone starts a zone's goroutine. It waits until previous, which may hold
// the same sockets and files, has ended; previous may be nil. It publishes only
// when made is done: zones that share BIND's include files must all be known
// before the first of them is written.
func (w *Watch) startZone(spec upkeep.Zone, previous *zoneRun, made *sync.WaitGroup) *zoneRun {
	ctx, stop := context.WithCancel(w.base)
	z := &zoneRun{
		w: w, spec: spec, stop: stop, done: make(chan struct{}), fresh: make(chan struct{}),
		alarmed: map[string]bool{}, seen: make([]time.Time, len(spec.Servers)), lost: make([]time.Time, len(spec.Servers)),
		status: upkeep.ZoneStatus{
			Name: spec.Name, Servers: make([]upkeep.ServerStatus, len(spec.Servers)),
			Publishers: make([]upkeep.PublisherStatus, len(spec.Publishers)),
		},
	}
	for i, server := range spec.Servers {
		z.status.Servers[i].Address = server
	}
	z.publishers = make([]zone.Publisher, len(spec.Publishers))
	for i, p := range spec.Publishers {
		z.status.Publishers[i].Type, z.status.Publishers[i].Agent = p.Type, p.Agent
	}
	made.Add(1)
	w.runners.Go(func() {
		defer close(z.done)
		if previous != nil {
			<-previous.done
		}
		for i := range z.publishers {
			if err := z.make(i); err != nil {
				w.log.Warn("making a publisher; trying again", "zone", spec.Name, "type", spec.Publishers[i].Type, "err", err)
			}
		}
		made.Done()
		made.Wait()
		z.run(ctx)
		if err := z.closePublishers(); err != nil {
			w.log.Error("closing publishers", "zone", spec.Name, "err", err)
		}
	})
	return z
}

func (z *zoneRun) closePublishers() error {
	var errs []error
	for _, p := range z.publishers {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// offer hands over the content that the zone should have; only the newest counts.
func (z *zoneRun) offer(c zone.Content) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.offered && reflect.DeepEqual(c, z.content) {
		return
	}
	z.content, z.offered, z.proven, z.asOf = c, true, time.Time{}, z.w.cfg.Now()
	close(z.fresh)
	z.fresh = make(chan struct{})
}

// lastPublish is how long the latest publish took, zero before any.
func (z *zoneRun) lastPublish() upkeep.Duration {
	z.mu.Lock()
	defer z.mu.Unlock()
	return upkeep.Duration(max(0, z.took))
}

const (
	retryFirst = time.Second
	retryMax   = time.Minute
	// verifyEvery is how often a zone that was proven is asked after again: a
	// name server that was restored from a backup, or edited by hand, is noticed.
	verifyEvery = 30 * time.Second
)

func (z *zoneRun) run(ctx context.Context) {
	retry := retryFirst
	for {
		z.mu.Lock()
		content, offered, fresh := z.content, z.offered, z.fresh
		z.mu.Unlock()
		wait := verifyEvery
		switch {
		case !offered:
		case !z.publish(ctx, content):
			// What the other publishers carried is proven all the same.
			began := time.Now()
			z.prove(ctx, content, fresh, false, retry)
			wait, retry = retry-time.Since(began), min(2*retry, retryMax)
		case !z.prove(ctx, content, fresh, true, proveFor):
			z.doubt()
			wait, retry = proveSlow, retryFirst
		default:
			retry = retryFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-fresh:
			retry = retryFirst
		case <-time.After(wait):
		}
	}
}

// doubter is a publisher that does not look each time at whether what it has
// published is still there, since looking costs much; Doubt has it look the next
// time.
type doubter interface{ Doubt() }

// doubt tells the publishers that a name server does not answer what was
// published.
func (z *zoneRun) doubt() {
	for _, p := range z.publishers {
		if d, is := p.(doubter); is {
			d.Doubt()
		}
	}
}

// Republish has a zone published again at once, because what a publisher waited
// for has come about.
func (w *Watch) Republish(name string) {
	w.mu.Lock()
	z := w.zones[name]
	w.mu.Unlock()
	if z == nil {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	close(z.fresh)
	z.fresh = make(chan struct{})
}

// publish runs every publisher and reports whether all of them succeeded. They
// run side by side: one that hangs does not hold up another.
func (z *zoneRun) publish(ctx context.Context, content zone.Content) bool {
	var wait sync.WaitGroup
	good := make([]bool, len(z.publishers))
	for i := range z.publishers {
		wait.Go(func() { good[i] = z.publishBy(ctx, i, content) })
	}
	wait.Wait()
	for _, ok := range good {
		if !ok {
			return false
		}
	}
	return true
}

// make makes a publisher that is not there yet; what it needs, such as a key
// file, may appear later.
func (z *zoneRun) make(i int) error {
	if z.publishers[i] != nil {
		return nil
	}
	p, err := z.w.cfg.Publisher(z.w, z.spec, z.spec.Publishers[i])
	if err != nil {
		return err // p may be a nil pointer in an interface
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.publishers[i] = p
	return nil
}

func (z *zoneRun) publishBy(ctx context.Context, i int, content zone.Content) bool {
	serial, err := uint32(0), z.make(i)
	if err == nil {
		serial, err = z.publishers[i].Publish(ctx, content)
	}
	if ctx.Err() != nil {
		return false
	}
	z.w.cfg.Meter.Publish(z.spec.Publishers[i].Type, err)
	z.mu.Lock()
	p := &z.status.Publishers[i]
	before := *p
	p.At, p.Error, p.Hint = z.w.cfg.Now(), "", ""
	if err != nil {
		p.Error = err.Error()
		if hint := (*upkeep.HintError)(nil); errors.As(err, &hint) {
			p.Hint = hint.Hint
		}
	} else {
		p.Serial = serial
		if z.status.Serial == 0 || zone.SerialLess(z.status.Serial, serial) {
			z.status.Serial, z.status.PublishedAt = serial, p.At
			if z.proven.IsZero() { // else it was published once more, long after its offer
				z.took = p.At.Sub(z.asOf)
			}
		}
	}
	after := *p
	z.mu.Unlock()
	if before.Error != after.Error || before.Serial != after.Serial {
		z.w.record(ctx, z.publishEvent(before, after))
	}
	return err == nil
}

func (z *zoneRun) publishEvent(before, after upkeep.PublisherStatus) upkeep.Event {
	e := upkeep.Event{At: after.At, Kind: upkeep.EventPublish, Who: "upkeep", Object: "zone/" + z.spec.Name}
	switch {
	case after.Error != "":
		e.What, e.Why = "publishing by "+after.By()+" did not succeed; trying again", after.Error
		if after.Hint != "" {
			e.Why += " (" + after.Hint + ")"
		}
	default:
		e.What = fmt.Sprintf("serial %d published by %s", after.Serial, after.By())
		if before.Error != "" {
			e.Why = "it had not succeeded before: " + before.Error
		}
	}
	return e
}
