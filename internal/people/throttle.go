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

// How many may be tried by who is signed in as a user, from wherever: the lock of the
// user does not hold there, see [People.own].
const (
	ownBurst  = 5
	ownRefill = 3 * time.Minute
)

// maxKnown bounds what is remembered. When there are more, those that are whole
// again are forgotten, and then all: the locks of users are in the database.
const maxKnown = 10000

// throttle slows down who tries passwords: so many at once, and one more each time
// that refill has passed.
type throttle[K comparable] struct {
	burst  int
	refill time.Duration

	mu    sync.Mutex
	known map[K]bucket
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

// take reports whether one more may be tried now, and counts it.
func (t *throttle[K]) take(who K, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= maxKnown {
		t.forget(now)
	}
	b, there := t.known[who]
	if !there {
		b = bucket{t.burst, now}
	}
	b = t.filled(b, now)
	if b.left == 0 {
		t.known[who] = b
		return false
	}
	b.left--
	t.known[who] = b
	return true
}

// give takes a try back that was none: the password was right.
func (t *throttle[K]) give(who K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b, there := t.known[who]; there {
		b.left = min(b.left+1, t.burst)
		t.known[who] = b
	}
}

func (t *throttle[K]) filled(b bucket, now time.Time) bucket {
	if n := int(now.Sub(b.at) / t.refill); n > 0 {
		b.left, b.at = min(b.left+n, t.burst), b.at.Add(time.Duration(n)*t.refill)
	}
	return b
}

func (t *throttle[K]) forget(now time.Time) {
	kept := map[K]bucket{}
	for who, b := range t.known {
		if t.filled(b, now).left < t.burst {
			kept[who] = b
		}
	}
	if len(kept) >= maxKnown {
		clear(kept)
	}
	t.known = kept
}
