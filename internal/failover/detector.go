package failover

import (
	"fmt"
	"time"

	"upkeep"
)

// Params is a check's options in the form that detectors use, shared by all
// targets of one check definition. It never changes.
type Params struct {
	interval, timeout, minSpan time.Duration
	fall, okReset, rise        int
	burst, passive             bool
}

// NewParams derives the parameters of c, which has its defaults applied.
func NewParams(c upkeep.Check) *Params {
	p := &Params{
		interval: time.Duration(c.Interval), timeout: time.Duration(c.Timeout), minSpan: time.Duration(c.MinSpan),
		fall: c.Fall, okReset: c.OKReset, rise: c.Rise,
		passive: c.Type == upkeep.CheckHeartbeat,
	}
	p.burst = c.BurstOn() && !p.passive
	if c.Adaptive() {
		p.fall, p.okReset, p.rise = 4, 4, 5
	}
	return p
}

// Sample is the outcome of one probe.
type Sample struct {
	// At is when the outcome was known.
	At time.Time
	OK bool
	// RTT is the time that the answer took; of a failure, the time that was
	// waited (zero when not known).
	RTT time.Duration
	// Refused is a definite bad answer (a reset, a wrong status), as opposed to
	// silence.
	Refused bool
	// Slow is silence after contact was made: a connection stood, yet the
	// answer did not come in time.
	Slow   bool
	Reason string
}

// Step is what a sample led to.
type Step struct {
	Verdict upkeep.Verdict
	Changed bool
	// Suspect means that the target is failing but not decided upon, or down.
	Suspect bool
	// Again asks for an extra probe this long after the present one ended; zero
	// means that the next regular slot will do.
	Again time.Duration
	// Timeout is for the next probe, never above the configured one.
	Timeout time.Duration
}

// Detector holds the history of one target under one check.
type Detector struct {
	p       *Params
	since   time.Time
	lastOK  time.Time
	last    time.Time
	first   time.Time // start of the present evidence against the target
	reason  string
	verdict upkeep.Verdict
	fails   uint16
	oks     uint16
}

// NewDetector returns a detector that knows nothing yet.
func NewDetector(p *Params) *Detector { return &Detector{p: p} }

// Observe takes in one sample and says what it led to.
func (d *Detector) Observe(s Sample) Step {
	before := d.verdict
	d.last = s.At
	if s.OK {
		d.lastOK = s.At
		d.oks++
		switch {
		case d.verdict == upkeep.Unknown, d.verdict == upkeep.Down && int(d.oks) >= d.p.rise:
			d.turn(upkeep.Up, s.At, "")
		case d.verdict == upkeep.Up && int(d.oks) >= d.p.okReset:
			d.fails, d.oks = 0, 0
		}
	} else {
		d.oks = 0
		if d.fails++; d.fails == 1 {
			d.first = s.At.Add(-s.RTT)
		}
		if d.verdict != upkeep.Down && int(d.fails) >= d.p.fall && s.At.Sub(d.first) >= d.p.minSpan {
			d.turn(upkeep.Down, s.At, s.Reason)
		}
	}
	step := Step{Verdict: d.verdict, Changed: d.verdict != before, Suspect: d.Failing(), Timeout: d.p.timeout}
	if d.p.burst && d.fails > 0 && d.verdict != upkeep.Down {
		step.Again = min(50*time.Millisecond, d.p.interval)
	}
	return step
}

func (d *Detector) turn(v upkeep.Verdict, at time.Time, reason string) {
	d.verdict, d.since, d.reason, d.fails, d.oks = v, at, reason, 0, 0
}

// Goodbye takes the target down at once: its own agent said that it is leaving.
func (d *Detector) Goodbye(at time.Time, reason string) Step {
	before := d.verdict
	d.turn(upkeep.Down, at, reason)
	return Step{Verdict: upkeep.Down, Changed: before != upkeep.Down, Suspect: true, Timeout: d.p.timeout}
}

// Verdict is the present verdict.
func (d *Detector) Verdict() upkeep.Verdict { return d.verdict }

// Failing reports whether the target is down, or under suspicion of it.
func (d *Detector) Failing() bool { return d.verdict == upkeep.Down || d.fails > 0 }

// Since is when the verdict last changed.
func (d *Detector) Since() time.Time { return d.since }

// LastOK is the time of the last good sample, LastProbe that of the last sample.
func (d *Detector) LastOK() time.Time    { return d.lastOK }
func (d *Detector) LastProbe() time.Time { return d.last }

// Learned is the smoothed round-trip time and the base loss as a fraction.
func (d *Detector) Learned() (rtt time.Duration, loss float64) { return 0, 0 }

// Explain says in one sentence why the verdict is what it is, and what would
// change it.
func (d *Detector) Explain(now time.Time) (reason, next string) {
	switch d.verdict {
	case upkeep.Up:
		return "answers", fmt.Sprintf("%d failures would take it down", d.p.fall)
	case upkeep.Down:
		return "failed: " + d.reason, fmt.Sprintf("%d good answers in a row would bring it up", d.p.rise)
	}
	return "not decided yet", "one good answer brings it up"
}

// State is a detector's memory, for keeping across restarts.
type State struct {
	Verdict upkeep.Verdict `json:"verdict"`
	Since   time.Time      `json:"since,omitzero"`
	LastOK  time.Time      `json:"last_ok,omitzero"`
	At      time.Time      `json:"at,omitzero"` // of the last sample
	Reason  string         `json:"reason,omitempty"`
}

// Snapshot returns what [Restore] needs.
func (d *Detector) Snapshot() State {
	return State{Verdict: d.verdict, Since: d.since, LastOK: d.lastOK, At: d.last, Reason: d.reason}
}

// Restore returns a detector with the memory of s. A verdict that is too old
// is unknown again.
func Restore(p *Params, s State, now time.Time) *Detector {
	d := &Detector{p: p, verdict: s.Verdict, since: s.Since, lastOK: s.LastOK, last: s.At, reason: s.Reason}
	if age := now.Sub(s.At); age < 0 || age > max(10*p.interval, 10*time.Second) {
		d.verdict, d.reason = upkeep.Unknown, ""
	}
	return d
}
