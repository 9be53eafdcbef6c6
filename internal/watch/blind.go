package watch

import (
	"fmt"
	"slices"
	"time"

	"upkeep"
	"upkeep/internal/probe"
)

// blindEvents says of pools whether they have members of which nothing can be
// learned, when that began or ceased: what is published stays as it is meanwhile,
// and a checker that has gone blind must not do so in silence. One event stands
// for all members of a pool, whose checks are alike. w.mu is held.
func (w *Watch) blindEvents(news []probe.Key, now time.Time) []upkeep.Event {
	pools := map[string]bool{}
	for _, key := range news {
		if t := w.targets[key]; t != nil {
			for _, user := range t.users {
				pools[user.pool] = true
			}
		}
	}
	for name, p := range w.pools {
		if p.blind != "" && w.dirty[name] {
			pools[name] = true // it may have been declared anew, without them
		}
	}
	var events []upkeep.Event
	for _, name := range sortedKeys(pools) {
		p := w.pools[name]
		said := w.unchecked(p, now)
		e := upkeep.Event{At: now, Kind: upkeep.EventWarning, Who: "upkeep", Object: "pool/" + name}
		switch {
		case p.blind == "" && said != "":
			e.What, e.Why = "some of it cannot be checked: nothing is learned of it, and what is published stays", said
		case p.blind != "" && said == "":
			e.What, e.Why = "all of it can be checked again", "after: "+p.blind
		default:
			continue
		}
		p.blind = said
		events = append(events, e)
	}
	return events
}

// unchecked says which members and anchors of p cannot be checked, and why; ""
// for none. w.mu is held.
func (w *Watch) unchecked(p *pool, now time.Time) string {
	n, first := 0, ""
	for i, key := range slices.Concat(p.keys, p.anchors) {
		v := w.targets[key].view(now)
		if !v.blind {
			continue
		}
		if n++; n > 1 {
			continue
		}
		if i < len(p.keys) {
			first = p.spec.Members[i].Address.String() + ": " + v.void
		} else {
			first = "anchor " + p.spec.Policy.Anchors[i-len(p.keys)].String() + ": " + v.void
		}
	}
	switch n {
	case 0:
		return ""
	case 1:
		return first
	}
	return fmt.Sprintf("%s, and %d more", first, n-1)
}
