package failover

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"upkeep"
)

// limit leaves out what exceeds the number of addresses that a name server takes
// at one name. Those that stay are those forced up, those published already, and
// then the first by a hash of pool and address (rendezvous hashing): a choice
// that stays the same when others come and go, and that differs between pools,
// so that the same hosts are not left out of all of them.
func (d *decider) limit(f *family) {
	var chosen []*member
	for _, m := range f.members {
		if m.publish {
			chosen = append(chosen, m)
		}
	}
	room := max(0, upkeep.MaxAnswer-len(f.extra))
	if len(f.extra) > upkeep.MaxAnswer {
		f.extra = f.extra[:upkeep.MaxAnswer]
	}
	if len(chosen) <= room {
		return
	}
	for _, m := range chosen {
		m.rank = rendezvous(d.Pool.Name, m.addr)
	}
	slices.SortFunc(chosen, func(a, b *member) int {
		return cmp.Or(first(a.forced(), b.forced()), first(a.was, b.was), cmp.Compare(a.rank, b.rank), a.addr.Compare(b.addr))
	})
	for _, m := range chosen[room:] {
		m.publish, m.left = false, leftByCap
	}
}

// first orders true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// rendezvous is the 64-bit FNV-1a hash of both.
func rendezvous(pool string, addr netip.Addr) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for _, c := range []byte(pool) {
		h = (h ^ uint64(c)) * prime
	}
	for _, c := range addr.As16() {
		h = (h ^ uint64(c)) * prime
	}
	return h
}

// holdAdditions keeps members that would be added to the next add window, in
// which all that wait are added together. An addition does not wait when a hand
// ordered it, when something is removed anyway, or when its family would
// otherwise be without any member that was there before.
func (d *decider) holdAdditions() {
	for i := range d.members {
		m := &d.members[i]
		if !m.publish && m.up && !m.out() && !m.was && !d.past(m.ready) {
			d.wakeAt(m.ready)
		}
	}
	window := time.Duration(0)
	if d.Pool.Policy.AddWindow != nil {
		window = time.Duration(*d.Pool.Policy.AddWindow)
	}
	opens := d.state.AddedAt.Add(window)
	// An addition "in the future" was made before the clock was set back.
	held := !d.removes() && !d.state.AddedAt.IsZero() && !d.past(opens) && !d.state.AddedAt.After(d.Now)
	added := false
	for _, f := range []*family{&d.four, &d.six} {
		stays := slices.ContainsFunc(f.members, func(m *member) bool { return m.publish && m.was })
		for _, m := range f.members {
			if !m.publish || m.was || m.forced() {
				continue
			}
			if held && stays && f.mode == byHealth {
				m.publish, m.left = false, leftByWindow
				d.held++
				d.wakeAt(opens)
				continue
			}
			added = added || f.mode != starting
		}
	}
	if added {
		d.state.AddedAt = d.Now
	}
}

// removes reports whether an address that was published is so no more.
func (d *decider) removes() bool {
	now := d.published()
	for _, a := range d.State.Published {
		if _, still := slices.BinarySearchFunc(now, a, netip.Addr.Compare); !still {
			return true
		}
	}
	return false
}

// published is the set as it stands, sorted.
func (d *decider) published() []netip.Addr {
	var set []netip.Addr
	for i := range d.members {
		if d.members[i].publish {
			set = append(set, d.members[i].addr)
		}
	}
	set = append(append(set, d.four.extra...), d.six.extra...)
	slices.SortFunc(set, netip.Addr.Compare)
	return slices.Compact(set)
}
