package watch

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"upkeep"
)

// Force puts every member that matches o into its admin state, over the
// measured verdict and over earlier overrides. It returns the members meant, as
// pool/address. A pattern that matches no member is refused: it would be a typing
// error. So is one that takes the last members of a pool out, or the last that are
// up, unless all says that this is meant: an empty answer is the worst one, and
// caches keep it; and to fail open is for accidents.
func (w *Watch) Force(ctx context.Context, who string, o upkeep.Override, all bool) (members []string, err error) {
	if members, _, err = w.matching(o.Pool, o.Member); err != nil {
		return nil, err
	}
	if emptied := w.emptiedBy(o); len(emptied) > 0 && !all {
		return nil, upkeep.WithHint(fmt.Errorf("%s of %s: every member of pool %s would be out by hand, and nothing published: %w",
			o.State, o.Member, strings.Join(emptied, ", "), upkeep.ErrConflict),
			"nothing was changed; name fewer members, or say --all if nothing is to be published")
	}
	if dead := w.deadBy(o); len(dead) > 0 && !all {
		return nil, upkeep.WithHint(fmt.Errorf("%s of %s: every other member of pool %s is down: %w", o.State, o.Member, strings.Join(dead, ", "), upkeep.ErrConflict),
			"nothing was changed; wait until another one is up, or say --all if visitors may be sent to members that are down")
	}
	o.Who, o.At = who, w.cfg.Now()
	_, events, err := w.cfg.Store.SetOverride(ctx, o)
	if err != nil {
		return nil, err
	}
	return members, w.overridden(ctx, events)
}

// Release ends every override that was set with the same patterns and returns
// the members that they match, as pool/address.
func (w *Watch) Release(ctx context.Context, who, pool, member string) ([]string, error) {
	members, _, err := w.matching(pool, member)
	if err != nil {
		return nil, err
	}
	n, events, err := w.cfg.Store.ClearOverrides(ctx, who, pool, member)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, upkeep.WithHint(
			fmt.Errorf("no admin state was set with pool %s and member %s: %w", pool, member, upkeep.ErrNotFound),
			"an admin state is ended with the same patterns that it was set with")
	}
	return members, w.overridden(ctx, events)
}

const massIsReal = "mass failure declared real: pools are not frozen by it"

// Unfreeze says on a person's word that the mass failure of the moment is real:
// it freezes nothing any more, and the next one does again.
func (w *Watch) Unfreeze(ctx context.Context, who string) error {
	w.mu.Lock()
	w.guard.Release(w.cfg.Now())
	for name := range w.pools {
		w.dirty[name] = true
	}
	w.mu.Unlock()
	w.record(ctx, upkeep.Event{
		At: w.cfg.Now(), Kind: upkeep.EventAdmin, Who: who, Object: "pool", What: massIsReal,
	})
	w.pending.signal()
	return w.cfg.Store.AddAudit(ctx, upkeep.AuditEntry{Who: who, Object: "pool", What: massIsReal})
}

// emptiedBy names the pools for which o takes the last members out, so that
// nothing is published any more.
func (w *Watch) emptiedBy(o upkeep.Override) (pools []string) {
	return w.harmedBy(o, func(_ *pool, taken, staying []int) bool { return len(taken) > 0 && len(staying) == 0 })
}

// deadBy names the pools for which o takes the last members out that are up: they
// would fail open to members that are down.
func (w *Watch) deadBy(o upkeep.Override) (pools []string) {
	now := w.cfg.Now()
	return w.harmedBy(o, func(p *pool, taken, staying []int) bool {
		is := func(i int, want upkeep.Verdict) bool {
			if w.admin(p.spec.Name, p.spec.Members[i].Address).State == upkeep.AdminUp {
				return want == upkeep.Up
			}
			return w.targets[p.keys[i]].view(now).verdict == want
		}
		up := func(i int) bool { return is(i, upkeep.Up) }
		return len(staying) > 0 && slices.ContainsFunc(taken, up) && !slices.ContainsFunc(staying, func(i int) bool { return !is(i, upkeep.Down) })
	})
}

// harmedBy names the pools that o harms by taking members out. It is asked with
// the members that o takes out and with those that stay; whoever is out by hand
// already is neither.
func (w *Watch) harmedBy(o upkeep.Override, harms func(p *pool, taken, staying []int) bool) (pools []string) {
	if !out(o.State) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range sortedKeys(w.pools) {
		p := w.pools[name]
		if inPool, _ := path.Match(o.Pool, name); !inPool {
			continue
		}
		var taken, staying []int
		for i, m := range p.spec.Members {
			meant, _ := path.Match(o.Member, m.Address.String())
			switch {
			case out(w.admin(name, m.Address).State):
			case meant:
				taken = append(taken, i)
			default:
				staying = append(staying, i)
			}
		}
		// What a fixed set has beside the members is published even then.
		stands := slices.ContainsFunc(p.spec.Policy.Fixed, func(a netip.Addr) bool {
			return !slices.ContainsFunc(p.spec.Members, func(m upkeep.Member) bool { return m.Address == a })
		})
		if !stands && harms(p, taken, staying) {
			pools = append(pools, name)
		}
	}
	return pools
}

func out(state string) bool { return state == upkeep.AdminDown || state == upkeep.AdminDrain }

// matching returns the members that two patterns mean.
func (w *Watch) matching(poolGlob, memberGlob string) (names []string, addresses []netip.Addr, err error) {
	for field, glob := range map[string]string{"pool": poolGlob, "member": memberGlob} {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			return nil, nil, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: field, Value: glob, Rule: "must be a name or a pattern such as 192.0.2.*"}}}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range sortedKeys(w.pools) {
		p := w.pools[name]
		if ok, _ := path.Match(poolGlob, name); !ok {
			continue
		}
		for _, m := range p.spec.Members {
			if ok, _ := path.Match(memberGlob, m.Address.String()); ok {
				names = append(names, name+"/"+m.Address.String())
				addresses = append(addresses, m.Address)
			}
		}
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("pool %s has no member %s: %w", poolGlob, memberGlob, upkeep.ErrNotFound)
	}
	return names, addresses, nil
}

// overridden makes changed admin states count.
func (w *Watch) overridden(ctx context.Context, events []upkeep.Event) error {
	w.overriding.Lock() // of two that are read side by side the older must not win
	defer w.overriding.Unlock()
	overrides, err := w.cfg.Store.Overrides(ctx)
	if err != nil {
		return err
	}
	w.announce(events)
	w.mu.Lock()
	changed := append(without(w.overrides, overrides), without(overrides, w.overrides)...)
	w.overrides = overrides
	for name := range w.pools { // only these: deciding on all takes as long as there are many
		if slices.ContainsFunc(changed, func(o upkeep.Override) bool { in, _ := path.Match(o.Pool, name); return in }) {
			w.dirty[name] = true
		}
	}
	w.mu.Unlock()
	w.pending.signal()
	return nil
}

// without are the overrides that are not among others.
func without(some, others []upkeep.Override) (left []upkeep.Override) {
	among := make(map[upkeep.Override]bool, len(others))
	for _, o := range others {
		among[o] = true
	}
	for _, o := range some {
		if !among[o] {
			left = append(left, o)
		}
	}
	return left
}

// Drained reports whether no name server answers any member that matches any
// more and the TTL that they were last answered with has run out since. Waiting
// says what is still missing, and after a semicolon what changes while it is: the time
// left.
func (w *Watch) Drained(ctx context.Context, poolName, memberGlob string) (done bool, waiting string, err error) {
	_, members, err := w.matching(poolName, memberGlob)
	if err != nil {
		return false, "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pools[poolName]
	if p == nil {
		return false, "", fmt.Errorf("pool %s: %w", poolName, upkeep.ErrNotFound)
	}
	now := w.cfg.Now()
	for _, addr := range members {
		if waiting := w.stillAnswered(p, addr, now); waiting != "" {
			return false, waiting, nil
		}
	}
	return true, "", nil
}

func (w *Watch) stillAnswered(p *pool, addr netip.Addr, now time.Time) string {
	if decided := w.decided(p, now); slices.Contains(decided.Published, addr) {
		return fmt.Sprintf("%s is still published: %s", addr, decided.Reason)
	}
	if !w.outEverywhere(p, addr) {
		return fmt.Sprintf("not every name server answers without %s yet", addr)
	}
	for _, l := range p.state.Longer {
		if l.Proven.IsZero() {
			return fmt.Sprintf("waiting for proof that the earlier TTL of %s is answered nowhere", upkeep.Duration(l.TTL))
		}
		if left := l.Proven.Add(l.TTL).Sub(now); left > 0 {
			return fmt.Sprintf("caches may hold %s by the earlier TTL of %s; %s left", addr, upkeep.Duration(l.TTL), left.Round(time.Second))
		}
	}
	gone, known := p.state.Gone[addr]
	if !known {
		return "" // was not published within memory
	}
	if left := gone.Proven.Add(gone.TTL).Sub(now); !gone.Proven.IsZero() && left > 0 {
		return fmt.Sprintf("caches may hold %s; %s left", addr, left.Round(time.Second))
	}
	if gone.Proven.IsZero() {
		return fmt.Sprintf("waiting for proof that %s is answered nowhere", addr)
	}
	return ""
}
