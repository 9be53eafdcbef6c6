package zone

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// nextSerial is later than what is answered and than what the secondaries have.
// They are asked where it matters: at the very first publish, since they may
// have the zone from a primary of before; where the clock is so far from the
// serial that the zone may be in the middle of a renumbering; and at the first
// publish after a start. Forgotten is true when they have a later serial than is
// answered, so that even the same content must come under a new one.
func (p *primary) nextSerial(ctx context.Context, current *version) (serial uint32, forgotten bool) {
	now := p.server.o.Now()
	p.mu.Lock()
	others, unasked := slices.Clone(p.others), p.unasked
	p.unasked = false
	p.mu.Unlock()
	const near = 1 << 30
	far := current == nil || NextSerial(current.serial, true, now)-current.serial > near
	if !far && !unasked {
		return NextSerial(current.serial, true, now), false
	}
	ctx, cancel := context.WithTimeout(ctx, othersTimeout)
	defer cancel()
	seen, quiet := servedBy(ctx, others)
	if !far {
		latest := current.serial
		for _, s := range seen {
			if SerialLess(latest, s) && ownSerial(current.serial, s, now) {
				latest = s
			}
		}
		return NextSerial(latest, true, now), latest != current.serial
	}
	if current != nil {
		seen = append(seen, current.serial)
	}
	// A first publish that cannot ask everybody has only the clock to go by.
	return risingSerial(now, seen, len(quiet) == 0 || current == nil), false
}

// ownSerial reports whether a later serial that a secondary answers is one that
// upkeep has given and forgotten, its database having been away or put back from
// a copy: it is not ahead of the clock, or few steps from what upkeep remembers.
// Any other is of a numbering that a person has to fix, see [Renumber].
func ownSerial(remembered, seen uint32, now time.Time) bool {
	const steps = 1 << 16
	return !SerialLess(uint32(now.Unix()), seen) || seen-remembered <= steps
}

// listOthers records who else has the zone.
func (p *primary) listOthers(servers []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.others = nil
	for _, server := range slices.Concat(p.settings.secondaries, servers) {
		if a := (ServedAt{server, p.name}); !slices.Contains(p.others, a) && !p.server.is(server) {
			p.others = append(p.others, a)
		}
	}
}

// is reports whether the address is one of the server's own.
func (s *Server) is(server string) bool {
	addr, err := netip.ParseAddrPort(server)
	return err == nil && slices.ContainsFunc(s.Addrs(), func(own netip.AddrPort) bool {
		return own == addr || own.Port() == addr.Port() && own.Addr().IsUnspecified() && addr.Addr().IsLoopback()
	})
}

// ServedAt implements [Renumberer].
func (h *handle) ServedAt() []ServedAt {
	own := h.p.server.Addr()
	if own.Addr().IsUnspecified() {
		loopback := netip.IPv6Loopback()
		if own.Addr().Is4() {
			loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		own = netip.AddrPortFrom(loopback, own.Port())
	}
	h.p.mu.RLock()
	defer h.p.mu.RUnlock()
	return append([]ServedAt{{own.String(), h.p.name}}, h.p.others...)
}

// SetSerial implements [Renumberer].
func (h *handle) SetSerial(ctx context.Context, serial uint32) error {
	p := h.p
	p.publishing.Lock()
	defer p.publishing.Unlock()
	p.mu.RLock()
	current := p.current
	p.mu.RUnlock()
	if current == nil {
		return fmt.Errorf("zone %s: nothing was published yet", p.name)
	}
	if !SerialLess(current.serial, serial) {
		return fmt.Errorf("zone %s: serial %d does not come after %d, which is served", p.name, serial, current.serial)
	}
	var records []dns.RR
	for _, rr := range current.zone.Records() {
		records = append(records, dns.Copy(rr)) // the SOA is changed in place
	}
	next, err := newVersion(p.origin, serial, records)
	if err != nil {
		return fmt.Errorf("zone %s: %w", p.name, err)
	}
	return p.advance(ctx, current, next)
}

// othersTimeout bounds the wait for servers other than the primary. A dead
// secondary must not hold up a removal.
const othersTimeout = 150 * time.Millisecond
