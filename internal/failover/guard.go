package failover

import (
	"net/netip"
	"time"

	"upkeep"
)

// AnchorInterval is the interval at which anchors ought to be pinged, so that
// their silence is noticed before any member of a pool is given up.
const AnchorInterval = 100 * time.Millisecond

// Guard answers the question "am I the one cut off?" for all pools. It is fed
// with every distinct target and anchor, and is not safe for concurrent use.
type Guard struct {
	anchors map[netip.Addr]bool // answers
}

// NewGuard returns a guard that knows no target.
func NewGuard() *Guard { return &Guard{anchors: map[netip.Addr]bool{}} }

// Observe tells whether a target is failing (see [Step]); call it at least when that
// changes, and once for each new target.
func (g *Guard) Observe(target string, failing bool, at time.Time) {}

// Forget drops a target that is checked no more.
func (g *Guard) Forget(target string) {}

// Anchor tells the state of an anchor's detector.
func (g *Guard) Anchor(anchor netip.Addr, d *Detector) {
	g.anchors[anchor] = !d.Failing() && d.Verdict() == upkeep.Up
}

// Release ends a freeze by mass failure on a person's word.
func (g *Guard) Release(now time.Time) {}

// Freeze is the reason for which nothing may be removed from the pool at
// present, and when its cause began.
type Freeze struct {
	Reason string // empty: not frozen
	From   time.Time
	// Wake is when to ask again although nothing was heard; zero for never.
	Wake time.Time
}

// Freeze says whether the pool, which has its defaults applied, is frozen.
func (g *Guard) Freeze(pool upkeep.Pool, now time.Time) Freeze {
	if len(pool.Policy.Anchors) == 0 {
		return Freeze{}
	}
	for _, a := range pool.Policy.Anchors {
		if g.anchors[a] {
			return Freeze{}
		}
	}
	return Freeze{Reason: "no anchor answers: the monitor itself looks cut off", From: now}
}
