package watch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/failover"
	"upkeep/internal/probe"
	"upkeep/internal/zone"
)

// pool is a declared pool at work. Everything in it is guarded by Watch.mu.
type pool struct {
	spec       upkeep.Pool // defaults applied
	generation int64
	keys       []probe.Key // one per member
	anchors    []probe.Key
	state      poolState
	decision   failover.Decision
	freeze     failover.Freeze
	told       string // the freeze that was last told of, "" for none
	blind      string // of members that cannot be checked, as it was last told
	stored     []byte // state as it was last handed to the ledger
}

// poolState is what of a pool survives a restart.
type poolState struct {
	Failover  failover.PoolState `json:"failover"`
	ChangedAt time.Time          `json:"changed_at"`
	// Gone holds the addresses taken out of DNS and not yet put back.
	Gone map[netip.Addr]departure `json:"gone,omitempty"`
	// Longer holds the TTLs, longer than the present one, that the pool's names
	// were answered with and that caches may still go by.
	Longer []lasting `json:"longer,omitempty"`
	// Took is the failover time of the latest removal that was proven.
	Took upkeep.Duration `json:"took,omitempty"`
	// Detected is the time from the last good probe to the latest removal.
	Detected upkeep.Duration `json:"detected,omitempty"`
}

// lasting is a TTL that was replaced by a shorter one.
type lasting struct {
	TTL    time.Duration `json:"ttl"`
	Proven time.Time     `json:"proven,omitzero"` // when the last server answered without it
}

// departure follows one address out of DNS and out of caches.
type departure struct {
	At     time.Time     `json:"at"`               // the decision
	LastOK time.Time     `json:"last_ok,omitzero"` // the last good probe before it
	TTL    time.Duration `json:"ttl"`              // of the records it stood in
	Proven time.Time     `json:"proven,omitzero"`  // when the last server answered without it
}

// decide runs the pure decision on what is known now, and changes nothing.
func (w *Watch) decide(p *pool, now time.Time) (failover.Decision, failover.Freeze) {
	for i, anchor := range p.spec.Policy.Anchors {
		t := w.targets[p.anchors[i]]
		t.mu.Lock()
		w.guard.Anchor(anchor, t.detector)
		t.mu.Unlock()
	}
	freeze := w.guard.Freeze(p.spec, now)
	in := failover.PoolInput{
		Pool: p.spec, State: p.state.Failover, Now: now,
		Members: make([]failover.MemberInput, len(p.spec.Members)),
		Freeze:  freeze.Reason, FreezeFrom: freeze.From,
	}
	for i, m := range p.spec.Members {
		v := w.targets[p.keys[i]].view(now)
		in.Members[i] = failover.MemberInput{
			Verdict: v.verdict, Admin: w.admin(p.spec.Name, m.Address).State, Since: v.since, Reason: v.reason, Next: v.next,
		}
	}
	return failover.Decide(in), freeze
}

// admin is the admin state of a member: the last override that matches it.
func (w *Watch) admin(poolName string, address netip.Addr) upkeep.Override {
	last := upkeep.Override{State: upkeep.AdminAuto}
	for _, o := range w.overrides {
		inPool, _ := path.Match(o.Pool, poolName) // patterns were checked when they were stored
		isMember, _ := path.Match(o.Member, address.String())
		if inPool && isMember {
			last = o
		}
	}
	return last
}

// round acts on all that happened since the last one and returns when to come
// again without news. What was decided is stored before any publisher hears of
// it: after a crash the stored set is published again.
func (w *Watch) round() time.Time {
	r := w.decideAll()
	// No lock is held while the database is written to: one that hangs must
	// neither stop decisions nor keep people from asking about them.
	w.ledger.save(w.base, r.states)
	w.offer(r.zones)
	w.record(w.base, r.events...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looped = w.cfg.Now()
	return r.wakeAt
}

// decided is what one round has to carry out.
type decided struct {
	events []upkeep.Event
	states map[string][]byte // to store
	zones  map[string]bool   // to hand new content
	wakeAt time.Time
}

func (w *Watch) decideAll() decided {
	changes, turns, blind := w.pending.take()
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.cfg.Now()
	w.corroborate(turns)
	r := decided{events: w.verdictEvents(changes), states: map[string][]byte{}, zones: map[string]bool{}}
	r.events = append(r.events, w.blindEvents(blind, now)...)
	for name, p := range w.pools {
		if w.dirty[name] || isDue(p.decision.Wake, now) || isDue(p.freeze.Wake, now) {
			delete(w.dirty, name)
			r.events = append(r.events, w.settle(p, now, r.states)...)
			for _, z := range p.spec.Zones {
				r.zones[z] = true
			}
		}
		r.wakeAt = earlier(earlier(r.wakeAt, p.decision.Wake), p.freeze.Wake)
	}
	w.saveGuard(now, r.states)
	return r
}

// offer hands zones their new content.
func (w *Watch) offer(zones map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range zones {
		if z := w.zones[name]; z != nil {
			z.offer(w.content(z.spec))
		}
	}
}

func isDue(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// settle decides on p; the state that must be stored is put into states.
func (w *Watch) settle(p *pool, now time.Time, states map[string][]byte) []upkeep.Event {
	old, oldTTL := p.state.Failover.Published, time.Duration(p.state.Failover.TTL)
	d, freeze := w.decide(p, now)
	wasOpen := p.state.Failover.Open4 || p.state.Failover.Open6
	p.decision, p.freeze, p.state.Failover = d, freeze, d.State
	p.outlive(oldTTL, now)
	var events []upkeep.Event
	say := func(what, why string) {
		events = append(events, upkeep.Event{
			At: now, Kind: upkeep.EventDecision, Who: "upkeep", Object: "pool/" + p.spec.Name, What: what, Why: why,
		})
	}
	switch {
	case freeze.Brief: // likely to be over before anybody has read of it
	case p.told == "" && freeze.Reason != "":
		say("frozen: nothing is removed", freeze.Reason)
		p.told = freeze.Reason
	case p.told != "" && freeze.Reason == "":
		say("no longer frozen", d.Reason)
		p.told = ""
	}
	if d.Changed {
		w.depart(p, old, now)
		p.state.ChangedAt = now
		say("publishing "+describe(d.Published, len(p.spec.Members)), d.Change)
	}
	// The set may be the one of before, as when no member ever answered.
	switch {
	case d.Open && !wasOpen && len(d.Published) == 0:
		say("answering with no address", d.Reason)
	case d.Open && !wasOpen:
		say("failing open: answering with "+describe(d.Published, len(p.spec.Members)), d.Reason)
	case wasOpen && !d.Open:
		say("no longer failing open", d.Reason)
	}
	blob, err := json.Marshal(p.state)
	switch {
	case err != nil:
		w.log.Error("encoding a decision", "pool", p.spec.Name, "err", err)
	case !bytes.Equal(blob, p.stored):
		states[poolKey(p.spec.Name)], p.stored = blob, blob
	}
	return events
}

func describe(set []netip.Addr, members int) string {
	if len(set) == 0 {
		return "no address"
	}
	names := make([]string, 0, 8)
	for i, addr := range set {
		if i == 8 {
			names = append(names, fmt.Sprintf("and %d more", len(set)-i))
			break
		}
		names = append(names, addr.String())
	}
	return fmt.Sprintf("%d of %d: %s", len(set), members, strings.Join(names, ", "))
}

// depart notes which addresses left the set, and forgets those that came back.
func (w *Watch) depart(p *pool, old []netip.Addr, now time.Time) {
	gone := map[netip.Addr]departure{}
	for addr, d := range p.state.Gone {
		if !slices.Contains(p.decision.Published, addr) && now.Sub(d.At) < upkeep.Day*8 {
			gone[addr] = d
		}
	}
	for _, addr := range old {
		if slices.Contains(p.decision.Published, addr) {
			continue
		}
		d := departure{At: now, TTL: time.Duration(max(p.spec.TTL, p.spec.DegradedTTL))}
		if i := slices.IndexFunc(p.spec.Members, func(m upkeep.Member) bool { return m.Address == addr }); i >= 0 {
			// A verdict from before the last change did not cause this one.
			if v := w.targets[p.keys[i]].view(now); v.verdict == upkeep.Down && v.since.After(p.state.ChangedAt) {
				d.LastOK = v.lastOK
				if !d.LastOK.IsZero() {
					p.state.Detected = upkeep.Duration(max(0, now.Sub(d.LastOK)))
				}
			}
		}
		gone[addr] = d
	}
	p.state.Gone = gone
}

// outlive keeps oldTTL in mind if it was longer than the present TTL, and forgets
// those that no cache goes by any more.
func (p *pool) outlive(oldTTL time.Duration, now time.Time) {
	present := time.Duration(p.decision.TTL)
	p.state.Longer = slices.DeleteFunc(slices.Clone(p.state.Longer), func(l lasting) bool {
		return l.TTL <= present || l.TTL == oldTTL || !l.Proven.IsZero() && !now.Before(l.Proven.Add(l.TTL))
	})
	if oldTTL > present {
		p.state.Longer = append(p.state.Longer, lasting{TTL: oldTTL})
	}
}

// content is all that upkeep publishes in a zone.
func (w *Watch) content(z upkeep.Zone) zone.Content {
	c := zone.Content{Zone: z}
	for _, name := range sortedKeys(w.pools) {
		p := w.pools[name]
		if !slices.Contains(p.spec.Zones, z.Name) || len(p.decision.Members) == 0 {
			continue // elsewhere, or declared since the last round and not decided on yet
		}
		for _, owner := range p.spec.Records {
			c.Sets = append(c.Sets, zone.AddressSet{
				Owner: owner, TTL: time.Duration(p.decision.TTL), Addresses: slices.Clone(p.decision.Published),
			})
		}
	}
	return c
}

// corroborators is how many other targets are asked at once when one comes
// under suspicion.
const corroborators = 8

// kickPause bounds what lossy paths, on which suspicions are frequent, add to
// the load: corroborators probes in each.
const kickPause = 200 * time.Millisecond

// corroborate tells the guard which targets began or ceased to fail. For each
// that began, the anchors of its pools and some other targets are asked at once:
// by the time the suspicion is decided, it is known whether they fail as well.
func (w *Watch) corroborate(turns []turn) {
	began := false
	for _, turn := range turns {
		t := w.targets[turn.key]
		if t == nil {
			continue // undeclared since
		}
		w.guard.Observe(string(turn.key), turn.failing, turn.at)
		began = began || turn.failing
		for _, user := range t.users {
			w.dirty[user.pool] = true
			if turn.failing {
				w.cfg.Prober.Kick(w.pools[user.pool].anchors...)
			}
		}
	}
	now := w.cfg.Now()
	if !began || now.Sub(w.kicked) < kickPause {
		return
	}
	w.kicked = now
	others := make([]probe.Key, 0, corroborators)
	for key := range w.targets { // in random order, so that no target is asked more than others
		if len(others) == corroborators {
			break
		}
		others = append(others, key)
	}
	w.cfg.Prober.Kick(others...)
}

func (w *Watch) verdictEvents(changes []verdictChange) []upkeep.Event {
	var events []upkeep.Event
	for _, c := range changes {
		t := w.targets[c.key]
		if t == nil {
			continue // undeclared since
		}
		for _, user := range t.users {
			w.dirty[user.pool] = true
			if user.index < 0 {
				continue // an anchor
			}
			address := w.pools[user.pool].spec.Members[user.index].Address
			events = append(events, upkeep.Event{
				At: c.at, Kind: upkeep.EventVerdict, Who: "upkeep",
				Object: "pool/" + user.pool + "/" + address.String(), What: c.verdict.String(), Why: c.why,
			})
		}
	}
	return events
}

func poolKey(name string) string     { return "pool/" + name }
func publisherKey(key string) string { return "publisher/" + key }
func targetKey(key probe.Key) string { return "target/" + string(key) }
