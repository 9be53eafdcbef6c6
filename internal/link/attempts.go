package link

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// attempts counts what each source did within a window of time, and says when it
// was enough.
type attempts struct {
	most   int
	window time.Duration

	mu sync.Mutex
	// Two generations: when the newer one is full it becomes the older, and what was
	// that is forgotten. Who can come from so many networks is not held up by counting.
	newer, older map[string]tally
}

type tally struct {
	count int
	since time.Time
}

// maxSources bounds the memory that strangers can take, in each generation.
const maxSources = 5000

func newAttempts(most int, window time.Duration) *attempts {
	return &attempts{most: most, window: window, newer: map[string]tally{}}
}

// blocked reports whether a source has had its share of this window.
func (a *attempts) blocked(source string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.find(source, now).count >= a.most
}

// find is what a source did in this window.
func (a *attempts) find(source string, now time.Time) tally {
	t, found := a.newer[source]
	if !found {
		t, found = a.older[source]
	}
	if !found || now.Sub(t.since) >= a.window {
		return tally{since: now}
	}
	return t
}

func (a *attempts) add(source string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.find(source, now)
	t.count++
	if len(a.newer) >= maxSources {
		a.newer, a.older = map[string]tally{}, a.newer
	}
	a.newer[source] = t
}

// network is who an address counts as: an IPv6 network of 64 bits is one
// customer's, who has all of its addresses.
func network(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if addr = addr.Unmap(); addr.Is6() {
		if prefix, err := addr.WithZone("").Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return addr.String()
}
