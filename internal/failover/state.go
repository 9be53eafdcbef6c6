package failover

import (
	"time"

	"upkeep"
)

// State is a detector's memory, for keeping across restarts.
type State struct {
	Verdict upkeep.Verdict `json:"verdict"`
	Since   time.Time      `json:"since,omitzero"`
	LastOK  time.Time      `json:"last_ok,omitzero"`
	At      time.Time      `json:"at,omitzero"` // of the last sample
	Reason  string         `json:"reason,omitempty"`
	Cause   uint8          `json:"cause,omitempty"`
	Span    time.Duration  `json:"span,omitempty"` // of the evidence, in ns
	// Fails and Oks are the plain counters; of a target that is down, Fails is
	// the number of failures that took it down.
	Fails uint16 `json:"fails,omitempty"`
	Oks   uint16 `json:"oks,omitempty"`
	Sick  uint8  `json:"sick,omitempty"`

	RTT       float32 `json:"rtt,omitempty"` // seconds
	Variation float32 `json:"variation,omitempty"`
	RTTKnown  uint8   `json:"rtt_known,omitempty"`
	Loss      Learned `json:"loss,omitzero"`
	Refusal   Learned `json:"refusal,omitzero"`
}

// Learned is what is kept of a learned loss process.
type Learned struct {
	P     float32 `json:"p"`
	Fast  float32 `json:"fast"`
	Again float32 `json:"again"`
	N     uint16  `json:"n"`
	M     uint16  `json:"m"`
}

// Snapshot returns what [Restore] needs. The evidence of a suspicion that is
// under way is not in it: a restart cuts evidence in two.
func (d *Detector) Snapshot() State {
	return State{
		Verdict: d.verdict, Since: d.since, LastOK: d.lastOK, At: d.last,
		Reason: d.reason, Cause: uint8(d.cause), Span: d.span,
		Fails: d.fails, Oks: d.oks, Sick: d.sick,
		RTT: d.rtt.mean, Variation: d.rtt.variation, RTTKnown: d.rtt.known,
		Loss: d.loss.snapshot(), Refusal: d.refusal.snapshot(),
	}
}

func (c *chain) snapshot() Learned {
	return Learned{P: c.p, Fast: c.fast, Again: c.again, N: c.n, M: c.m}
}

// Restore returns a detector with the memory of s. When s is older than ten
// intervals (and ten seconds), or comes from the future because the clock was
// set back, its verdict says nothing of today and is unknown again; what was
// learned stays. A state that no detector can have written does no harm.
func Restore(p *Params, s State, now time.Time) *Detector {
	d := NewDetector(p)
	d.lastOK = s.LastOK
	if s.RTTKnown > 0 && s.RTT > 0 && s.RTT < float32(upkeep.MaxInterval.Seconds()) {
		d.rtt = roundTrip{mean: s.RTT, variation: float32(clamp(float64(s.Variation), 0, float64(s.RTT)*100)), known: min(s.RTTKnown, sure)}
	}
	d.loss.restore(s.Loss)
	d.refusal.restore(s.Refusal)
	age := now.Sub(s.At)
	if age < 0 || age > max(staleIntervals*p.interval, 10*time.Second) || s.Verdict > upkeep.Down {
		return d
	}
	d.verdict, d.since, d.last = s.Verdict, s.Since, s.At
	d.reason, d.cause, d.span = s.Reason, min(cause(s.Cause), byGoodbye), max(0, s.Span)
	d.fails, d.oks, d.sick = s.Fails, s.Oks, s.Sick
	if d.verdict == upkeep.Down {
		d.run = 1 // so that Failing and the first good answer see a failure before it
	}
	return d
}

func (c *chain) restore(s Learned) {
	if s == (Learned{}) {
		return
	}
	c.p = float32(clamp(float64(s.P), 0, 1))
	c.fast = float32(clamp(float64(s.Fast), 0, 1))
	c.again = float32(clamp(float64(s.Again), 0, 1))
	c.n, c.m = s.N, s.M
}
