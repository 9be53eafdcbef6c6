package watch

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/zone"
)

const (
	// proveFor is how long one round of proof keeps asking a server that is not
	// in step; it then is reported and the publishers run again.
	proveFor  = 20 * time.Second
	proveFast = 5 * time.Millisecond // first pause between two questions to one server
	proveSlow = time.Second          // last one
	// alarmAfter is the lag at which a server is reported: twice BIND's
	// notify-delay, which holds back a second change within five seconds.
	alarmAfter = 10 * time.Second
)

// prove asks every name server until it answers what was published, and reports
// whether all did within the time given. It ends early when fresh says that there
// is newer content. Where there is no name server to ask, the publishers' word is
// taken: published says whether all of them succeeded.
func (z *zoneRun) prove(ctx context.Context, content zone.Content, fresh <-chan struct{}, published bool, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	go func() {
		select {
		case <-fresh:
			cancel()
		case <-ctx.Done():
		}
	}()
	z.mu.Lock()
	minimum, was := z.oldestSerial(), z.proven
	began := z.status.PublishedAt
	if !was.IsZero() || began.IsZero() {
		began = z.w.cfg.Now() // asking again after what was proven before, or before any publish
	}
	z.mu.Unlock()
	var wait sync.WaitGroup
	for i := range z.spec.Servers {
		wait.Go(func() { z.proveServer(ctx, i, minimum, content.Sets, began) })
	}
	wait.Wait()
	z.mu.Lock()
	all := published || len(z.spec.Servers) > 0
	last := time.Time{}
	for _, s := range z.status.Servers {
		all = all && s.InSync
		if s.AskedAt.After(last) {
			last = s.AskedAt
		}
	}
	if len(z.spec.Servers) == 0 {
		last = z.w.cfg.Now()
	}
	first := all && was.IsZero() && z.fresh == fresh // else it is other content that is to be proven now
	if first {
		z.proven = last
	}
	serial, since := z.status.Serial, z.status.PublishedAt
	z.mu.Unlock()
	if first {
		z.w.provenEverywhere(z, last, said(len(z.spec.Servers), serial, last, since))
	}
	return all
}

// said puts a proof into words. since is when what was proven was published, zero
// when it stood there before any publisher succeeded.
func said(servers int, serial uint32, at, since time.Time) string {
	switch {
	case servers == 0:
		return fmt.Sprintf("serial %d published; there is no name server to ask for it", serial)
	case since.IsZero():
		return "every server answers already what is to be published"
	}
	return fmt.Sprintf("every server answers serial %d, %s after it was published", serial, at.Sub(since).Round(time.Millisecond))
}

// oldestSerial is the least that a server may answer: publishers of one zone
// may stand at different serials. z.mu is held.
func (z *zoneRun) oldestSerial() uint32 {
	oldest := z.status.Serial
	for _, p := range z.status.Publishers {
		if p.Error == "" && zone.SerialLess(p.Serial, oldest) {
			oldest = p.Serial
		}
	}
	return oldest
}

func (z *zoneRun) proveServer(ctx context.Context, i int, serial uint32, sets []zone.AddressSet, began time.Time) {
	pause := proveFast
	for {
		status := zone.Prove(ctx, z.spec.Servers[i], z.spec.Name, serial, sets)
		if ctx.Err() != nil && !status.InSync {
			return
		}
		// Of the question that was answered well, as in the event of the proof.
		lag := max(0, status.AskedAt.Sub(began))
		z.noteServer(ctx, i, status, lag)
		if status.InSync {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(pause*3/2, proveSlow)
	}
}

// noteServer keeps what a server answered and raises or ends its alarm.
func (z *zoneRun) noteServer(ctx context.Context, i int, status upkeep.ServerStatus, lag time.Duration) {
	z.mu.Lock()
	before := z.status.Servers[i]
	status.Address = before.Address
	switch {
	case !status.InSync: // a lag of before would be taken for one of now
	case before.InSync && z.seen[i].Equal(z.asOf):
		status.Lag = before.Lag
	default:
		status.Lag, z.seen[i] = upkeep.Duration(lag), z.asOf
	}
	z.status.Servers[i] = status
	now := z.w.cfg.Now()
	switch {
	case status.InSync:
		z.lost[i] = time.Time{}
	case z.lost[i].IsZero():
		z.lost[i] = now
	}
	event := upkeep.Event{At: now, Kind: upkeep.EventProof, Who: "upkeep", Object: "zone/" + z.spec.Name}
	was := z.alarmed[status.Address]
	// Rounds that are shorter than that, as beside a publisher that fails, each
	// begin their lag anew.
	alarm := !status.InSync && (lag > alarmAfter || now.Sub(z.lost[i]) > alarmAfter)
	z.alarmed[status.Address] = alarm || was && !status.InSync
	z.mu.Unlock()
	switch {
	case alarm && !was:
		event.What = "server " + status.Address + " does not answer what was published"
		event.Why = status.Error
	case was && status.InSync:
		event.What = "server " + status.Address + " is in step again"
	default:
		return
	}
	z.w.record(ctx, event)
}

// provenEverywhere is called once per content that all servers of a zone answer.
func (w *Watch) provenEverywhere(z *zoneRun, at time.Time, what string) {
	w.mu.Lock()
	if w.zones[z.spec.Name] != z {
		w.mu.Unlock()
		return
	}
	why := ""
	for _, p := range w.pools {
		took, news := w.proveDepartures(p, at)
		if news {
			w.dirty[p.spec.Name] = true // the loop stores it
		}
		if took > 0 {
			why = fmt.Sprintf("pool %s: %s after the last good probe of the member that left", p.spec.Name, took.Round(time.Millisecond))
			p.state.Took = upkeep.Duration(took)
			w.cfg.Meter.Failover(took)
		}
	}
	w.mu.Unlock()
	w.pending.signal()
	w.record(w.base, upkeep.Event{
		At: at, Kind: upkeep.EventProof, Who: "upkeep", Object: "zone/" + z.spec.Name,
		What: what, Why: why,
	})
}

// proveDepartures marks the addresses of p that no server of any of its zones
// answers any more, and such TTLs. It returns whether there were any, and the longest time that
// took from the last good probe, zero where that is not known. w.mu is held.
func (w *Watch) proveDepartures(p *pool, at time.Time) (took time.Duration, news bool) {
	for addr, d := range p.state.Gone {
		if !d.Proven.IsZero() || !w.outEverywhere(p, addr) {
			continue
		}
		d.Proven, news = at, true
		p.state.Gone[addr] = d
		if !d.LastOK.IsZero() && d.At.After(w.started) {
			took = max(took, at.Sub(d.LastOK))
		}
	}
	for i, l := range p.state.Longer {
		if l.Proven.IsZero() && w.shorterEverywhere(p, l.TTL) {
			p.state.Longer[i].Proven, news = at, true
		}
	}
	return took, news
}

// outEverywhere reports whether all zones of p were proven with a content that
// does not hold addr at the pool's names.
func (w *Watch) outEverywhere(p *pool, addr netip.Addr) bool {
	for _, name := range p.spec.Zones {
		z := w.zones[name]
		if z == nil || !z.provenThat(p.spec.Records, func(s zone.AddressSet) bool { return !slices.Contains(s.Addresses, addr) }) {
			return false
		}
	}
	return true
}

// shorterEverywhere reports whether all zones of p were proven with a shorter TTL
// at the pool's names.
func (w *Watch) shorterEverywhere(p *pool, ttl time.Duration) bool {
	for _, name := range p.spec.Zones {
		z := w.zones[name]
		if z == nil || !z.provenThat(p.spec.Records, func(s zone.AddressSet) bool { return s.TTL < ttl }) {
			return false
		}
	}
	return true
}

// provenThat reports whether the zone was proven with a content of which the sets
// of the given owners have a property.
func (z *zoneRun) provenThat(owners []string, has func(zone.AddressSet) bool) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return !z.proven.IsZero() && !slices.ContainsFunc(z.content.Sets, func(set zone.AddressSet) bool {
		return slices.Contains(owners, set.Owner) && !has(set)
	})
}
