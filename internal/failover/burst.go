package failover

import (
	"math"
	"time"

	"upkeep"
)

// plan says when to probe again, after the sample s, and how patiently.
//
// While nothing is wrong the regular slots do, with the learned timeout. After
// a failure probes follow each other quickly, each more patient than the one
// before, until the tests have decided: three or four on a clean path, a dozen
// on one that loses a fifth.
func (d *Detector) plan(s Sample) (again, timeout time.Duration) {
	p := d.p
	switch {
	case p.fall > 0:
		return d.planCounters(s), p.timeout
	case d.verdict == upkeep.Down && d.fresh && p.burst:
		return within(p, verifyGap), d.patience() // was it a mistake? see learn
	case d.verdict == upkeep.Down:
		if s.OK && p.burst && p.interval > recoveryGap {
			again = recoveryGap
		}
		return again, p.timeout
	case s.Void || p.passive || d.silent == 0 && d.refused == 0:
		return 0, d.rtt.timeout(p)
	case !p.burst:
		return 0, d.burstTimeout(s.At)
	}
	timeout = d.burstTimeout(s.At)
	return within(p, d.burstGap(s, timeout)), timeout
}

// within is the pause, or none when the next regular slot comes first.
func within(p *Params, pause time.Duration) time.Duration {
	if pause >= p.interval {
		return 0
	}
	return pause
}

// burstTimeout grows by half with each failure in a row, so that a round trip
// that has suddenly become longer is found to be just that. The probe that can
// decide is given the whole patience.
func (d *Detector) burstTimeout(at time.Time) time.Duration {
	base, most := d.rtt.timeout(d.p), d.patience()
	if d.waited < most && (d.p.application || d.slow || d.remaining(at) <= 1) {
		return most
	}
	grown := float64(base) * math.Pow(1.5, float64(min(d.run, 32)))
	return time.Duration(min(grown, float64(min(most, max(patience, 3*base)))))
}

// burstGap is the pause before the next probe of a burst.
func (d *Detector) burstGap(s Sample, timeout time.Duration) time.Duration {
	gap := float64(burstGap)
	if s.OK || s.Refused {
		gap = float64(refusedGap)
	}
	// Where losses come in bursts, probes close together say little more than
	// one: spread them until half of them would be expected to get through.
	if again := float64(d.loss.again); again > 0.6 {
		gap += float64(timeout) * (0.4/(1-min(again, maxAgain)) - 1)
	}
	if d.run > burstWidenAt {
		gap *= math.Pow(1.25, float64(min(d.run-burstWidenAt, 64)))
	}
	if left := d.p.minSpan - s.At.Sub(d.first); left > 0 {
		gap = max(gap, float64(left)/float64(d.remaining(s.At))-float64(timeout))
	}
	return time.Duration(min(gap, float64(d.p.interval)))
}

// remaining is the number of further failures, of the kind seen so far, that
// would take the target down; at least 1.
func (d *Detector) remaining(at time.Time) int {
	loss, refusal := d.bounds(at)
	missing := (d.p.threshold - float64(d.silent)) / math.Log((1-aliveIfDead)/loss)
	if d.refused > 0 {
		missing = min(missing, (d.p.threshold-float64(d.refused))/math.Log((1-aliveIfDead)/refusal))
	}
	return max(1, int(math.Ceil(missing)))
}
