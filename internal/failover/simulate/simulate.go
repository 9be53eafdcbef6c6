// Package simulate plays a probing engine, a lossy path and a mortal target
// against a detector, thousands of times faster than life. Tests and benchmarks
// use it; nothing else does.
package simulate

import (
	"math"
	"math/rand/v2"
	"time"

	"upkeep"
	"upkeep/internal/failover"
)

// Path decides which probes are lost. It is asked with times that only rise.
type Path interface {
	Lost(at time.Duration) bool
}

// Random loses each probe with the same probability, whatever became of the others.
type Random struct {
	Loss float64
	Rand *rand.Rand
}

// Lost implements [Path].
func (r Random) Lost(time.Duration) bool { return r.Loss > 0 && r.Rand.Float64() < r.Loss }

// Bursty is the model of Gilbert (1960) and Elliott (1963) in continuous time:
// good and bad periods of exponentially distributed length follow each other.
type Bursty struct {
	Good, Bad         time.Duration // mean lengths
	GoodLoss, BadLoss float64       // loss within them
	Rand              *rand.Rand

	bad  bool
	ends time.Duration // of the present period
}

// Lost implements [Path].
func (b *Bursty) Lost(at time.Duration) bool {
	if b.ends == 0 {
		b.ends = b.length(b.Good)
	}
	for at >= b.ends {
		b.bad = !b.bad
		mean := b.Good
		if b.bad {
			mean = b.Bad
		}
		b.ends += b.length(mean)
	}
	loss := b.GoodLoss
	if b.bad {
		loss = b.BadLoss
	}
	return b.Rand.Float64() < loss
}

func (b *Bursty) length(mean time.Duration) time.Duration {
	return time.Duration(b.Rand.ExpFloat64()*float64(mean)) + 1
}

// Death is the way in which a target dies.
type Death uint8

const (
	Drops   Death = iota // nothing comes back any more
	Refuses              // a refusal comes back at once
	Hangs                // a connection stands, the answer never comes
)

// Member is one simulated target with its detector.
type Member struct {
	Detector *failover.Detector
	Check    upkeep.Check // with defaults applied
	Path     Path
	Rand     *rand.Rand
	// RTT is the median round-trip time, 0.3 ms when zero. Times are log-normal
	// with a sigma of Jitter.
	RTT    time.Duration
	Jitter float64

	// Samples, Falls and Rises count probes, and changes of the verdict, so far.
	Samples, Falls, Rises int

	start time.Time
	now   time.Duration // end of the last probe
	slot  time.Duration // next regular probe
	extra time.Duration // next extra probe; zero for none
	wait  time.Duration // timeout of the next probe
}

// NewMember returns a member whose first probe is sent at a random moment of the
// first interval.
func NewMember(c upkeep.Check, path Path, random *rand.Rand) *Member {
	c = c.WithDefaults()
	return &Member{
		Detector: failover.NewDetector(failover.NewParams(c)), Check: c, Path: path, Rand: random,
		RTT: 300 * time.Microsecond, Jitter: 0.3,
		start: time.Unix(1_700_000_000, 0),
		slot:  time.Duration(random.Int64N(int64(c.Interval))),
	}
}

// Live lets the target live, and its path lose probes, until the given time.
func (m *Member) Live(until time.Duration) {
	for m.next() <= until {
		sent := m.send()
		if m.Path.Lost(sent) {
			m.fail(sent, false, false)
			continue
		}
		rtt := time.Duration(float64(m.RTT) * math.Exp(m.Jitter*m.Rand.NormFloat64()))
		if rtt <= m.timeout() {
			m.observe(failover.Sample{At: m.at(sent + rtt), OK: true, RTT: rtt}, sent+rtt)
			continue
		}
		m.fail(sent, false, false)
		if late := sent + rtt; rtt <= time.Duration(m.Check.Timeout) && late < m.next() {
			m.observe(failover.Sample{At: m.at(late), OK: true, RTT: rtt, Late: true}, late)
		}
	}
}

// Die kills the target at the given time, not before the last probe's end, and
// returns how long it took until it was down. It gives up after the given limit.
func (m *Member) Die(at time.Duration, how Death, limit time.Duration) (took time.Duration, down bool) {
	m.Live(at)
	for m.Detector.Verdict() != upkeep.Down {
		if m.next() > at+limit {
			return limit, false
		}
		sent := m.send()
		lost := how != Drops && m.Path.Lost(sent)
		m.fail(sent, how == Refuses && !lost, how == Hangs && !lost)
	}
	return m.now - at, true
}

// next is when the next probe is sent.
func (m *Member) next() time.Duration {
	if m.extra > 0 && m.extra < m.slot {
		return m.extra
	}
	return m.slot
}

func (m *Member) send() time.Duration {
	sent := m.next()
	if sent == m.slot {
		m.slot += time.Duration(m.Check.Interval)
	}
	m.extra = 0
	return sent
}

func (m *Member) timeout() time.Duration {
	limit := time.Duration(m.Check.Timeout)
	if m.wait == 0 {
		return limit
	}
	return min(m.wait, limit)
}

func (m *Member) fail(sent time.Duration, refused, slow bool) {
	end := sent + m.timeout()
	reason := "no answer"
	if refused {
		end = sent + m.RTT
		reason = "connection refused"
	}
	m.observe(failover.Sample{At: m.at(end), Refused: refused, Slow: slow, Reason: reason}, end)
}

func (m *Member) observe(s failover.Sample, end time.Duration) {
	m.now = end
	m.Samples++
	step := m.Detector.Observe(s)
	m.wait, m.extra = step.Timeout, 0
	if step.Again > 0 {
		m.extra = end + step.Again
	}
	for m.slot < end { // a slot that passed while a probe was in flight is skipped
		m.slot += time.Duration(m.Check.Interval)
	}
	switch {
	case step.Changed && step.Verdict == upkeep.Down:
		m.Falls++
	case step.Changed && step.Verdict == upkeep.Up:
		m.Rises++
	}
}

func (m *Member) at(d time.Duration) time.Time { return m.start.Add(d) }
