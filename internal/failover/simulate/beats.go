package simulate

import (
	"math/rand/v2"
	"time"

	"upkeep"
	"upkeep/internal/beat"
	"upkeep/internal/failover"
)

// Beater is a simulated member that beats, with its detector and the rhythm by
// which the receiver calls beats missing.
type Beater struct {
	Detector *failover.Detector
	Check    upkeep.Check // with defaults applied
	Path     Path
	Rand     *rand.Rand
	// Late is how late the next beat comes beyond the path's constant delay; nil
	// for beats that are always in time. Beats do not overtake each other.
	Late func(*rand.Rand) time.Duration

	// Samples, Falls and Misses count samples, removals, and beats that were
	// called missing, so far.
	Samples, Falls, Misses int

	rhythm  beat.Rhythm
	start   time.Time
	now     time.Duration
	slot    time.Duration // when the beat on its way was due to be sent
	arrives time.Duration // when it comes
}

// NewBeater returns a member whose first beat comes at a random moment of the
// first interval.
func NewBeater(c upkeep.Check, path Path, random *rand.Rand) *Beater {
	c = c.WithDefaults()
	b := &Beater{
		Detector: failover.NewDetector(failover.NewParams(c)), Check: c, Path: path, Rand: random,
		rhythm: beat.NewRhythm(time.Duration(c.Interval), time.Duration(c.Timeout), 0),
		start:  time.Unix(1_700_000_000, 0),
	}
	b.slot = time.Duration(random.Int64N(int64(c.Interval)))
	b.arrives = b.slot
	return b
}

// Live lets the member beat until the given time.
func (b *Beater) Live(until time.Duration) {
	for min(b.arrives, b.rhythm.Due()) <= until {
		if b.rhythm.Due() < b.arrives {
			b.miss()
			continue
		}
		b.now = b.arrives
		late := b.rhythm.Heard(b.now, false)
		b.observe(failover.Sample{At: b.start.Add(b.now), OK: true, Late: late})
		b.send()
	}
}

// send sends beats until one is on its way that is not lost.
func (b *Beater) send() {
	for {
		b.slot += time.Duration(b.Check.Interval)
		if b.Path.Lost(b.slot) {
			continue
		}
		late := time.Duration(0)
		if b.Late != nil {
			late = b.Late(b.Rand)
		}
		b.arrives = max(b.arrives, b.slot+late)
		return
	}
}

// Die stops the member at the given time and returns how long it took until it was
// down. It gives up after the given limit. Beats on their way are lost.
func (b *Beater) Die(at, limit time.Duration) (took time.Duration, down bool) {
	b.Live(at)
	for b.Detector.Verdict() != upkeep.Down {
		if b.rhythm.Due() > at+limit {
			return limit, false
		}
		b.miss()
	}
	return b.now - at, true
}

func (b *Beater) miss() {
	b.Misses++
	b.now = b.rhythm.Due()
	overdue := b.rhythm.Missed(b.now, false)
	b.observe(failover.Sample{At: b.start.Add(b.now), RTT: overdue, Reason: "no heartbeat"})
}

func (b *Beater) observe(s failover.Sample) {
	b.Samples++
	if step := b.Detector.Observe(s); step.Changed && step.Verdict == upkeep.Down {
		b.Falls++
	}
}

// Busy is the lateness of beats between machines that have other things to do: a
// millisecond as a rule, and one in five hundred some tens of them.
func Busy(r *rand.Rand) time.Duration {
	late := r.ExpFloat64() * float64(time.Millisecond)
	if r.Float64() < 0.002 {
		late += r.ExpFloat64() * 12 * float64(time.Millisecond)
	}
	return time.Duration(late)
}
