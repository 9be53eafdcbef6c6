package notify

import (
	"context"
	"fmt"
	"time"

	"upkeep"
)

// Status tells what is wrong now, for reminders.
type Status interface {
	Pools(ctx context.Context) ([]upkeep.PoolStatus, error)
	Zones(ctx context.Context) ([]upkeep.ZoneStatus, error)
}

const (
	maxProblems = 100
	// settling is how long after a publish a name server that lags is no problem.
	settling = time.Minute
)

// problems are what is wrong among the things that the filter lets through, one
// sentence each.
func problems(ctx context.Context, status Status, f filter, now time.Time) ([]string, error) {
	pools, err := status.Pools(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for the state of pools: %w", err)
	}
	zones, err := status.Zones(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for the state of zones: %w", err)
	}
	var found []string
	add := func(format string, args ...any) { found = append(found, clean(fmt.Sprintf(format, args...))) }
	for _, p := range pools {
		if !f.pool(p.Name) {
			continue
		}
		if len(p.Published) == 0 {
			add("%s publishes no address: %s", p.Name, p.Reason)
		}
		if p.Frozen != "" {
			add("%s is frozen: %s", p.Name, p.Frozen)
		}
		for _, m := range p.Members {
			if m.Verdict == upkeep.Down && m.Admin != upkeep.AdminDown && m.Admin != upkeep.AdminDrain {
				add("%s/%s is down since %s: %s", p.Name, m.Address, m.ChangedAt.UTC().Format(time.DateTime+" MST"), m.Reason)
			}
		}
	}
	for _, z := range zones {
		if !f.zone(z.Name) {
			continue
		}
		for _, p := range z.Publishers {
			if p.Error != "" {
				add("zone %s is not published by %s: %s", z.Name, p.By(), p.Error)
			}
		}
		for _, s := range z.Servers {
			if !s.InSync && now.Sub(z.PublishedAt) > settling {
				add("zone %s: name server %s does not answer serial %d: %s", z.Name, s.Address, z.Serial, s.Error)
			}
		}
	}
	if more := len(found) - maxProblems; more > 0 {
		found = append(found[:maxProblems], fmt.Sprintf("and %d more", more))
	}
	return found, nil
}
