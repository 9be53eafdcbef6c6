package failover

import (
	"time"

	"upkeep"
)

// Plain counters, as gdnsd keeps them (src/plugins/mon.c, gdnsd_mon_state_updater):
//
//	up    failure   fails+1, oks=0; fails = fall: down
//	up    good      if fails > 0: oks+1; oks = ok_reset: fails = oks = 0
//	down  good      oks+1; oks = rise: up, fails = oks = 0
//	down  failure   oks=0
//
// so that a host that fails every third time is caught, which counting only
// failures in a row never does. Two things differ. Before the first decision one
// good answer is enough for up, but only fall failures for down, where gdnsd
// believes a single one. And the failures must span min_span when it is set.

func (d *Detector) countGood(s Sample) {
	d.lastOK = s.At
	d.rtt.learn(s.RTT)
	d.learn(s.At) // for people to read: the counters make no use of it
	switch d.verdict {
	case upkeep.Unknown:
		d.turn(upkeep.Up, s.At, byCount)
		d.fails = 0
	case upkeep.Up:
		if d.fails == 0 {
			return
		}
		if d.oks = up(d.oks); int(d.oks) >= d.p.okReset {
			d.fails, d.oks = 0, 0
		}
	case upkeep.Down:
		if d.oks = up(d.oks); int(d.oks) >= d.p.rise {
			d.turn(upkeep.Up, s.At, byCount)
			d.fails = 0
		}
	}
}

func (d *Detector) countBad(s Sample) {
	d.reason = s.Reason
	d.run = up(d.run)
	d.oks = 0
	if d.verdict == upkeep.Down {
		return
	}
	if d.fails == 0 {
		d.first = s.At.Add(-max(s.RTT, 0))
	}
	d.fails = up(d.fails)
	if int(d.fails) >= d.p.fall && s.At.Sub(d.first) >= d.p.minSpan {
		fails := d.fails
		d.turn(upkeep.Down, s.At, byCount)
		d.fails = fails
	}
}

// planCounters confirms a failure quickly, unless burst is off.
func (d *Detector) planCounters(s Sample) time.Duration {
	if !d.p.burst || s.OK || s.Void || d.verdict == upkeep.Down {
		return 0
	}
	gap := countersGap
	if left := d.p.minSpan - s.At.Sub(d.first); left > 0 {
		gap = max(gap, left/time.Duration(max(1, d.p.fall-int(d.fails))))
	}
	if gap >= d.p.interval {
		return 0
	}
	return gap
}
