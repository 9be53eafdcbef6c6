package watch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"upkeep"
)

// Facts about name servers that bound a failover.
const (
	// notifyDelay is BIND's default notify-delay: a second NOTIFY for a zone
	// waits that long after the one before (BIND 9 ARM).
	notifyDelay = 5 * time.Second
	// minRefresh is the least refresh that BIND's secondaries use, whatever the
	// SOA says (min-refresh-time).
	minRefresh = 300 * time.Second
)

// Budget adds up the longest that a dead member of a pool can go on being
// answered, part by part.
func (w *Watch) Budget(ctx context.Context, name string) (upkeep.Budget, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pools[name]
	if p == nil {
		return upkeep.Budget{}, fmt.Errorf("pool %s: %w", name, upkeep.ErrNotFound)
	}
	b := upkeep.Budget{Pool: name}
	b.Parts = append(b.Parts, w.detectPart(p))
	b.Parts = append(b.Parts, w.zoneParts(p)...)
	ttl := max(p.spec.TTL, p.spec.DegradedTTL)
	b.Parts = append(b.Parts, upkeep.BudgetPart{
		Name: "ttl", Worst: ttl, Why: "a resolver that asked just before the change keeps the old answer this long",
	})
	for _, part := range b.Parts {
		b.Worst += part.Worst
	}
	b.Advice = w.budgetAdvice(p, b)
	return b, nil
}

// detectPart is the time from the last good probe to the decision, for the
// slowest member of the pool.
func (w *Watch) detectPart(p *pool) upkeep.BudgetPart {
	part := upkeep.BudgetPart{Name: "detect", Measured: 0}
	for i, m := range p.spec.Members {
		t := w.targets[p.keys[i]]
		t.mu.Lock()
		rtt, loss := t.detector.Learned()
		t.mu.Unlock()
		if worst := worstDetection(t.spec.Check); worst > part.Worst {
			part.Worst = worst
			part.Why = fmt.Sprintf("%s: a wait of up to one interval (%s), then confirmation; learned: round trip %s, loss %.2g %%",
				m.Address, p.spec.Check.Interval, rtt.Round(10*time.Microsecond), 100*loss)
		}
	}
	return part
}

// worstDetection bounds the time from a death to the verdict: the wait for the
// next probe, then as many silent confirmations as are asked for. Adaptive
// detection asks for a dozen on a path of 20 % loss, and for four on a clean one.
func worstDetection(c upkeep.Check) upkeep.Duration {
	const lossy = 12
	confirmations := upkeep.Duration(lossy)
	if !c.Adaptive() {
		confirmations = upkeep.Duration(c.Fall)
	}
	apart := c.Timeout
	if !c.BurstOn() || c.Type == upkeep.CheckHeartbeat {
		apart = c.Interval
	}
	return c.Interval + max(confirmations*apart, c.MinSpan)
}

func (w *Watch) zoneParts(p *pool) []upkeep.BudgetPart {
	publish := upkeep.BudgetPart{Name: "publish", Worst: upkeep.Duration(time.Second), Why: "writing, reloading and asking the primary; a second is allowed for it"}
	notify := upkeep.BudgetPart{Name: "notify", Why: "no secondary is told by a name server of its own"}
	transfer := upkeep.BudgetPart{Name: "transfer", Why: "only one name server, or none, is listed"}
	for _, name := range p.spec.Zones {
		z := w.zones[name]
		if z == nil {
			continue
		}
		status := z.snapshot()
		for _, server := range status.Servers {
			transfer.Measured = max(transfer.Measured, server.Lag)
		}
		if len(status.Servers) > 1 {
			transfer.Worst = max(transfer.Worst, max(z.spec.SOA.Refresh, upkeep.Duration(minRefresh)))
			transfer.Why = "a secondary that misses every NOTIFY asks again after the SOA's refresh, at least 300s on BIND (min-refresh-time)"
			if slices.ContainsFunc(z.spec.Publishers, func(p upkeep.Publisher) bool { return p.Type != upkeep.PublishTransfer }) {
				notify.Worst = upkeep.Duration(notifyDelay)
				notify.Why = "BIND holds a second NOTIFY for a zone back for its notify-delay, 5s by default"
			}
		}
	}
	return []upkeep.BudgetPart{publish, notify, transfer}
}

func (w *Watch) budgetAdvice(p *pool, b upkeep.Budget) []string {
	advice := []string{}
	largest := slices.MaxFunc(b.Parts, func(x, y upkeep.BudgetPart) int { return int(x.Worst/1e6) - int(y.Worst/1e6) })
	switch {
	case largest.Name == "ttl" && largest.Worst > upkeep.Duration(time.Minute):
		advice = append(advice, fmt.Sprintf("ttl: %s is the largest part; 60s halves little else and costs few queries", largest.Worst))
	case largest.Name == "detect" && p.spec.Check.Interval > upkeep.Duration(time.Second):
		advice = append(advice, fmt.Sprintf("interval: %s is waited before the first failure is seen; 1s costs one probe a second for each member", p.spec.Check.Interval))
	}
	for _, part := range b.Parts {
		if part.Name == "notify" && part.Worst > 0 {
			advice = append(advice, "named.conf: \"notify-delay 0;\" in options lets a second change within five seconds reach the secondaries at once")
		}
		if part.Name == "transfer" && part.Worst > 0 {
			advice = append(advice, "named.conf on the secondaries: \"min-refresh-time 10;\" bounds what a lost NOTIFY costs, with a refresh as low in the SOA")
		}
	}
	return append(advice, p.spec.Warnings()...)
}
