package failover

import (
	"time"

	"upkeep"
)

// TimeToDown is how long it would take to call the target down if it fell
// silent right after a good probe: the wait for the next probe, then what the
// tests ask for as they stand now. It is played through on a copy. Of a target that
// is down it is what would come after the answer that brings it up. One that cannot
// be called down within a day gives zero.
func (d *Detector) TimeToDown(now time.Time) time.Duration {
	copied := *d
	c := &copied
	c.clear()
	c.fails = 0
	c.verdict, c.last = upkeep.Up, now
	_, c.given = c.plan(Sample{At: now, OK: true})
	slot, again := now, time.Duration(0)
	for at := now; at.Sub(now) < upkeep.Day; {
		for !slot.After(at) {
			slot = slot.Add(c.p.interval)
		}
		start := slot
		if soon := at.Add(again); again > 0 && soon.Before(slot) {
			start = soon
		}
		at = start.Add(c.given)
		step := c.Observe(Sample{At: at, RTT: c.given, Reason: "silent"})
		if step.Verdict == upkeep.Down {
			return at.Sub(now)
		}
		again = step.Again
	}
	return 0
}
