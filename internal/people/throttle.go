package people

import (
	"net/netip"
	"sync"
	"time"
)

// How many passwords may be tried from one place: so many at once, and one more
// each time that so long has passed. It does not go by user, so that a list of names
// cannot be tried either.
const (
	burst  = 20
	refill = 15 * time.Second
)

// maxPlaces bounds what is remembered. When there are more, those that are whole
// again are forgotten, and then all: the locks of users are in the database.
const maxPlaces = 10000

// throttle slows down who tries passwords. The zero value is ready.
type throttle struct {
	mu     sync.Mutex
	places map[netip.Prefix]bucket
}

type bucket struct {
	left int
	at   time.Time
}

// place is the network that an address stands for: hosts with IPv6 have 2^64 of
// them.
func place(address string) netip.Prefix {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{} // all that are none share one
	}
	bits := 32
	if a = a.Unmap().WithZone(""); a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// take reports whether one more may be tried from an address now, and counts it.
func (t *throttle) take(address string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.places == nil || len(t.places) >= maxPlaces {
		t.forget(now)
	}
	p := place(address)
	b, known := t.places[p]
	if !known {
		b = bucket{burst, now}
	}
	b = b.filled(now)
	if b.left == 0 {
		t.places[p] = b
		return false
	}
	b.left--
	t.places[p] = b
	return true
}

// give takes a try back that was none: the password was right.
func (t *throttle) give(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := place(address)
	if b, known := t.places[p]; known {
		b.left = min(b.left+1, burst)
		t.places[p] = b
	}
}

func (b bucket) filled(now time.Time) bucket {
	if n := int(now.Sub(b.at) / refill); n > 0 {
		b.left, b.at = min(b.left+n, burst), b.at.Add(time.Duration(n)*refill)
	}
	return b
}

func (t *throttle) forget(now time.Time) {
	kept := map[netip.Prefix]bucket{}
	for p, b := range t.places {
		if b.filled(now).left < burst {
			kept[p] = b
		}
	}
	if len(kept) >= maxPlaces {
		clear(kept)
	}
	t.places = kept
}
