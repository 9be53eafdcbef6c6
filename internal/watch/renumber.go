package watch

import (
	"context"
	"errors"
	"fmt"

	"upkeep"
	"upkeep/internal/zone"
)

// Renumber walks a zone's serial to the clock as far as it gets until ctx ends.
// Done means that every server has it; otherwise waiting says what for, and the
// next call goes on from there.
func (w *Watch) Renumber(ctx context.Context, who, name string) (serial uint32, done bool, waiting string, err error) {
	w.mu.Lock()
	z := w.zones[name]
	w.mu.Unlock()
	if z == nil {
		return 0, false, "", fmt.Errorf("zone %s: %w", name, upkeep.ErrNotFound)
	}
	target, err := z.renumberer()
	if err != nil {
		return 0, false, "", err
	}
	serial, err = zone.Renumber(ctx, target, zone.RenumberOptions{Now: w.cfg.Now, Progress: func(text string) {
		waiting = text
		w.record(ctx, upkeep.Event{At: w.cfg.Now(), Kind: upkeep.EventPublish, Who: who, Object: "zone/" + name, What: "renumbering: " + text})
	}})
	if errors.Is(err, context.DeadlineExceeded) && waiting != "" {
		return serial, false, waiting, nil
	}
	if err == nil {
		err = w.cfg.Store.AddAudit(ctx, upkeep.AuditEntry{Who: who, Object: "zone/" + name, What: fmt.Sprintf("renumbered: its serial is %d", serial)})
	}
	return serial, err == nil, "", err
}

// renumberer is the publisher of the zone that can be told a serial.
func (z *zoneRun) renumberer() (zone.Renumberer, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if len(z.spec.Publishers) > 1 {
		return nil, upkeep.WithHint(fmt.Errorf("zone %s has several publishers, each with a serial of its own: %w", z.spec.Name, upkeep.ErrRefused),
			"renumber with one of them declared")
	}
	if r, can := z.publishers[0].(zone.Renumberer); can {
		return r, nil
	}
	if agent := z.spec.Publishers[0].Agent; agent != "" {
		return nil, upkeep.WithHint(fmt.Errorf("zone %s is published by the agent on %s, which chooses the serial there: %w", z.spec.Name, agent, upkeep.ErrRefused),
			"renumber by hand: raise the serial by 2147483647, wait for all secondaries, then let upkeep go on; or declare a publisher on this machine meanwhile")
	}
	return nil, fmt.Errorf("zone %s: its publisher is not running, or takes no serial: %w", z.spec.Name, upkeep.ErrRefused)
}
