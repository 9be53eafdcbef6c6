package watch

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"upkeep"
	"upkeep/internal/failover"
)

// Pools returns the status of every pool, by name.
func (w *Watch) Pools(ctx context.Context) ([]upkeep.PoolStatus, error) {
	w.mu.Lock()
	names := sortedKeys(w.pools)
	w.mu.Unlock()
	all := make([]upkeep.PoolStatus, 0, len(names))
	for _, name := range names {
		// One lock a pool: describing a hundred thousand members in one go would
		// hold up a decision.
		if status, err := w.Pool(ctx, name); err == nil {
			all = append(all, status)
		}
	}
	return all, nil
}

// Pool returns the status of one pool, or [upkeep.ErrNotFound].
func (w *Watch) Pool(ctx context.Context, name string) (upkeep.PoolStatus, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pools[name]
	if p == nil {
		return upkeep.PoolStatus{}, fmt.Errorf("pool %s: %w", name, upkeep.ErrNotFound)
	}
	return w.poolStatus(p, w.cfg.Now()), nil
}

// Zones returns the status of every zone, by name.
func (w *Watch) Zones(ctx context.Context) ([]upkeep.ZoneStatus, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]upkeep.ZoneStatus, 0, len(w.zones))
	for _, name := range sortedKeys(w.zones) {
		all = append(all, w.zones[name].snapshot())
	}
	return all, nil
}

// snapshot is a copy of the zone's status.
func (z *zoneRun) snapshot() upkeep.ZoneStatus {
	z.mu.Lock()
	defer z.mu.Unlock()
	s := z.status
	s.Servers, s.Publishers = slices.Clone(s.Servers), slices.Clone(s.Publishers)
	return s
}

// poolStatus describes p. The sentences are made anew from what is known now;
// the set shown is the one that was decided and stored.
func (w *Watch) poolStatus(p *pool, now time.Time) upkeep.PoolStatus {
	said, freeze := w.decide(p, now)
	decided := w.decided(p, now)
	s := upkeep.PoolStatus{
		Name: p.spec.Name, Generation: p.generation, Published: slices.Clone(decided.Published),
		TTL: decided.TTL, Reason: said.Reason, Next: said.Next, Frozen: freeze.Reason,
		ChangedAt: p.state.ChangedAt, Failover: p.state.Took, Warnings: p.spec.Warnings(), Page: p.spec.Status,
		Members: make([]upkeep.MemberStatus, len(p.spec.Members)), Zones: []upkeep.ZoneStatus{},
	}
	if s.Published == nil {
		s.Published = []netip.Addr{}
	}
	published := make(map[netip.Addr]bool, len(s.Published))
	for _, addr := range s.Published {
		published[addr] = true
	}
	if said := w.unchecked(p, now); said != "" {
		s.Warnings = append(s.Warnings, "cannot be checked: "+said)
	}
	for i, m := range p.spec.Members {
		s.Members[i] = w.memberStatus(p, i, said.Members[i], published[m.Address], now)
	}
	for _, name := range p.spec.Zones {
		if z := w.zones[name]; z != nil {
			s.Zones = append(s.Zones, z.snapshot())
		}
	}
	return s
}

// decided is the last decision on p: what the first round will decide, while none
// has been since the start.
func (w *Watch) decided(p *pool, now time.Time) failover.Decision {
	if len(p.decision.Members) > 0 {
		return p.decision
	}
	coming, _ := w.decide(p, now)
	return coming
}

func (w *Watch) memberStatus(p *pool, i int, said failover.MemberDecision, published bool, now time.Time) upkeep.MemberStatus {
	m, v := p.spec.Members[i], w.targets[p.keys[i]].view(now)
	admin := w.admin(p.spec.Name, m.Address)
	s := upkeep.MemberStatus{
		Address: m.Address, Label: m.Label, Backup: m.Backup, Verdict: v.verdict, Admin: admin.State, AdminWho: admin.Who, AdminWhy: admin.Why,
		Published: published, Reason: said.Reason, Next: said.Next, ChangedAt: v.since, LastOK: v.lastOK, LastProbe: v.last.At,
		RTT: upkeep.Duration(v.rtt), Loss: v.loss, Warning: v.last.Warning, PerfData: v.last.PerfData,
		Target: m.Target(),
	}
	if v.void != "" {
		s.Warning, s.Unchecked = "cannot be checked: "+v.void, v.blind
	}
	return s
}
