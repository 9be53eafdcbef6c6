package watch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"upkeep"
	"upkeep/internal/failover"
	"upkeep/internal/zone"
)

// Facts about BIND that bound a failover where its configuration is not at hand
// (BIND 9 Administrator Reference Manual).
const (
	// notifyDelay holds a second NOTIFY for a zone back (notify-delay).
	notifyDelay = 5 * time.Second
	// minRefresh is the least refresh of a secondary, whatever the SOA says
	// (min-refresh-time).
	minRefresh = 300 * time.Second
	// publishAllowance is what a publish may take until one was measured.
	publishAllowance = time.Second
)

// inspector is a publisher that can say what its name server's configuration
// costs a failover.
type inspector interface {
	Inspect(ctx context.Context) (zone.BindFacts, error)
}

// Budget adds up the longest that a dead member of a pool can go on being
// answered, part by part.
func (w *Watch) Budget(ctx context.Context, name string) (upkeep.Budget, error) {
	w.mu.Lock()
	p := w.pools[name]
	if p == nil {
		w.mu.Unlock()
		return upkeep.Budget{}, fmt.Errorf("pool %s: %w", name, upkeep.ErrNotFound)
	}
	spec, detect := p.spec, w.detectPart(p)
	var zones []*zoneRun
	for _, name := range p.spec.Zones {
		if z := w.zones[name]; z != nil {
			zones = append(zones, z)
		}
	}
	w.mu.Unlock()

	b := budget{Budget: upkeep.Budget{Pool: name}, spec: spec}
	b.Parts = append(b.Parts, detect)
	b.zones(ctx, zones)
	b.Parts = append(b.Parts, upkeep.BudgetPart{
		Name: "ttl", Worst: max(spec.TTL, spec.DegradedTTL), Why: "a resolver that asked just before the change keeps the old answer this long",
	})
	for _, part := range b.Parts {
		b.Worst += part.Worst
	}
	b.advise()
	return b.Budget, nil
}

// detectPart is the time from the last good probe to the decision, for the
// slowest member of the pool. w.mu is held.
func (w *Watch) detectPart(p *pool) upkeep.BudgetPart {
	part := upkeep.BudgetPart{Name: "detect", Measured: p.state.Detected, Why: "it cannot be told when a silent member would be called down"}
	for i, m := range p.spec.Members {
		t := w.targets[p.keys[i]]
		t.mu.Lock()
		worst := t.detector.TimeToDown(w.cfg.Now()).Round(time.Millisecond)
		learned := learnedOf(t.detector)
		t.mu.Unlock()
		if worst := upkeep.Duration(worst); worst > part.Worst {
			part.Worst = worst
			part.Why = fmt.Sprintf("%s, if it fell silent now: up to one interval (%s), then confirmation; %s", m.Address, p.spec.Check.Interval, learned)
		}
	}
	return part
}

// learnedOf says what a detector learned of its path.
func learnedOf(d *failover.Detector) string {
	if d.LastOK().IsZero() {
		return "nothing is learned of its path, since it has never answered"
	}
	rtt, loss := d.Learned()
	if rtt == 0 { // heartbeats go one way
		return fmt.Sprintf("learned: loss %.2f %%", 100*loss)
	}
	return fmt.Sprintf("learned: round trip %s, loss %.2f %%", max(rtt.Round(10*time.Microsecond), 10*time.Microsecond), 100*loss)
}

// budget is one in the making.
type budget struct {
	upkeep.Budget
	spec upkeep.Pool
}

// zones adds the parts from the decision to the last name server.
func (b *budget) zones(ctx context.Context, zones []*zoneRun) {
	publish := upkeep.BudgetPart{Name: "publish", Worst: upkeep.Duration(publishAllowance), Why: "writing, reloading and asking the primary; a second is allowed for it"}
	notify := upkeep.BudgetPart{Name: "notify", Why: "nothing holds a NOTIFY back"}
	transfer := upkeep.BudgetPart{Name: "transfer", Why: "no secondary is listed"}
	for _, z := range zones {
		status := z.snapshot()
		publish.Measured = max(publish.Measured, z.lastPublish())
		for _, s := range status.Servers {
			transfer.Measured = max(transfer.Measured, s.Lag)
		}
		delay, known := b.inspect(ctx, z)
		if len(status.Servers) < 2 {
			continue // nobody is told by a name server
		}
		if !known && slices.ContainsFunc(z.spec.Publishers, func(p upkeep.Publisher) bool { return p.Type != upkeep.PublishTransfer }) {
			delay = notifyDelay
		}
		if delay := upkeep.Duration(delay); delay > notify.Worst {
			notify.Worst = delay
			notify.Why = "the name server holds a second NOTIFY for a zone back (notify-delay)"
		}
		transfer.Worst = max(transfer.Worst, z.spec.SOA.Refresh, upkeep.Duration(minRefresh))
		transfer.Why = "a secondary that misses every NOTIFY asks again after the SOA's refresh, at least 300s on BIND (min-refresh-time)"
	}
	b.Parts = append(b.Parts, publish, notify, transfer)
}

// inspect adds what the publishers' name servers have in the way to the advice,
// and returns the delay of a second NOTIFY where it is known.
func (b *budget) inspect(ctx context.Context, z *zoneRun) (delay time.Duration, known bool) {
	z.mu.Lock()
	publishers := slices.Clone(z.publishers)
	z.mu.Unlock()
	for _, p := range publishers {
		i, can := p.(inspector)
		if !can {
			continue
		}
		facts, err := i.Inspect(ctx)
		if err != nil {
			b.Advice = append(b.Advice, err.Error())
			continue
		}
		delay, known = max(delay, facts.NotifyDelay), true
		for _, finding := range facts.Findings {
			if advice := finding.String(); !slices.Contains(b.Advice, advice) {
				b.Advice = append(b.Advice, advice)
			}
		}
	}
	return delay, known
}

// advise adds what the pool itself could do better.
func (b *budget) advise() {
	largest := slices.MaxFunc(b.Parts, func(x, y upkeep.BudgetPart) int { return int(x.Worst/1e6) - int(y.Worst/1e6) })
	switch {
	case largest.Name == "ttl" && largest.Worst > upkeep.Duration(time.Minute):
		b.Advice = append(b.Advice, fmt.Sprintf("ttl: %s is the largest part; 60s shortens it at the price of a few queries", largest.Worst))
	case largest.Name == "detect" && b.spec.Check.Interval > upkeep.Duration(time.Second):
		b.Advice = append(b.Advice, fmt.Sprintf("check.interval: up to %s are waited before the first failure is seen; 1s costs one probe a second for each member", b.spec.Check.Interval))
	case largest.Name == "transfer":
		b.Advice = append(b.Advice, "min-refresh-time: on the secondaries, \"min-refresh-time 10;\" in named.conf bounds what a lost NOTIFY costs, with soa.refresh as low",
			"serial-query-rate: on the secondaries, \"serial-query-rate 1000;\" lets them ask for a second change within half a second at once")
	}
	b.Advice = append(b.Advice, b.spec.Warnings()...)
}
