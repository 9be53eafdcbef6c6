package failover

import (
	"math"
	"time"

	"upkeep"
)

// Sample is the outcome of one probe.
type Sample struct {
	// At is when the outcome was known.
	At time.Time
	OK bool
	// RTT is the time that the answer took. Of a failure it is the time that was
	// waited; when zero, the timeout that was asked for is taken. Of a missed
	// heartbeat it is the time since it should have come.
	RTT time.Duration
	// Refused is a definite bad answer (a reset, a wrong status), as opposed to
	// silence.
	Refused bool
	// Slow is silence after contact was made: a connection stood, yet the
	// answer did not come in time. Such a target may be working hard, so it is
	// given the whole configured timeout before it is held to be dead.
	Slow bool
	// Void says that nothing was learned of the target: the monitor could not
	// ask. Nothing but Again and Timeout is made of it.
	Void bool
	// Late is a good answer that came after its probe had been reported as a
	// failure, within the configured timeout: the failure was none. Of a heartbeat
	// it is the beat that was called missing last.
	Late   bool
	Reason string
}

// Step is what a sample led to.
type Step struct {
	Verdict upkeep.Verdict
	Changed bool
	// Suspect means that the target is down, or failing and not decided upon.
	Suspect bool
	// Again asks for an extra probe this long after the present one ended; zero
	// means that the next regular slot will do.
	Again time.Duration
	// Timeout is for the next probe, never above the configured one.
	Timeout time.Duration
}

// Detector holds the history of one target under one check and makes a verdict
// of it. It is small, and takes in a sample without allocating, because there may
// be 100,000 of them. It is not safe for concurrent use.
//
// Three cumulative log-likelihood ratio tests (Page 1954) run side by side; each
// stands at zero while all is well, rises with failures, falls with successes,
// and takes the target down at [Params] threshold:
//
//	silence  dead against the learned loss; every failure counts
//	refusal  dead against the learned refusals; silence says nothing here, so
//	         that a closed port is recognised on a path of any loss
//	sickness more than half of the regular probes failing, whatever was learned
type Detector struct {
	p      *Params
	since  time.Time // of the verdict
	lastOK time.Time
	last   time.Time // last sample
	first  time.Time // start of the first probe of the present evidence
	sickAt time.Time // last sample that the test for sickness counted
	reason string    // of the last failure
	span   time.Duration
	given  time.Duration // timeout of the probe under way
	waited time.Duration // longest wait among the failures of the present evidence

	rtt                    roundTrip
	loss, refusal          chain
	silent, refused, alive float32 // heights of the tests
	run                    uint16  // failures in a row
	runRefused, runSlow    uint16  // refusals among them, and those after contact was made
	fails, oks             uint16  // plain counters; of a decision, the failures behind it
	sick                   uint8   // failures above successes at regular slots
	cause                  cause
	verdict                upkeep.Verdict
	slow                   bool // contact was made in the present evidence
	fresh                  bool // no sample has come since the target was taken down
}

// cause is what took a target down.
type cause uint8

const (
	bySilence cause = iota
	byRefusal
	bySickness
	byCount
	byGoodbye
)

// NewDetector returns a detector that knows nothing yet.
func NewDetector(p *Params) *Detector {
	return &Detector{p: p, loss: newChain(p.lossModel), refusal: newChain(p.refusal)}
}

// Observe takes in one sample and says what it led to.
func (d *Detector) Observe(s Sample) Step {
	before := d.verdict
	if !s.Void {
		d.forgetStale(s.At)
		switch {
		case s.OK && d.p.fall > 0:
			d.countGood(s)
		case s.OK:
			d.good(s)
		case d.p.fall > 0:
			d.countBad(s)
		default:
			d.bad(s)
		}
		d.last = s.At
	}
	var step Step
	step.Again, step.Timeout = d.plan(s)
	step.Verdict, step.Changed, step.Suspect = d.verdict, d.verdict != before, d.Failing()
	d.given = step.Timeout
	return step
}

// forgetStale drops evidence that a pause or a step of the clock has cut in
// two: nothing is known of the time between, and an hour that the clock jumped
// is no hour of silence.
func (d *Detector) forgetStale(at time.Time) {
	gap := at.Sub(d.last)
	if d.run == 0 && d.silent == 0 && d.refused == 0 || d.verdict == upkeep.Down {
		return
	}
	if gap < 0 || gap > max(5*d.p.interval, 10*time.Second) {
		d.clear()
		d.fails = 0 // of the plain counters
	}
}

// clear drops the evidence against the target.
func (d *Detector) clear() {
	d.silent, d.refused, d.slow, d.waited = 0, 0, false, 0
	d.run, d.runRefused, d.runSlow = 0, 0, 0
}

func (d *Detector) turn(v upkeep.Verdict, at time.Time, why cause) {
	d.verdict, d.since, d.cause = v, at, why
	d.alive, d.sick = 0, 0
	if v == upkeep.Up {
		d.clear()
		d.oks = 0
		return
	}
	d.fresh = true
	d.span = max(0, at.Sub(d.first))
	d.fails, d.oks = d.run, 0
}

// good takes in a good answer.
func (d *Detector) good(s Sample) {
	d.lastOK = s.At
	d.rtt.learn(s.RTT)
	switch {
	case s.Late && d.p.passive:
		d.takeBack(s.At)
	case s.Late:
		// The failures before it were late answers too, as far as is known.
		d.clear()
	}
	// The loss as it was believed before this sample: the tests must not use
	// what the sample itself taught.
	var loss, refusal float64
	weigh := d.verdict == upkeep.Down || d.silent > 0 || d.refused > 0
	if weigh {
		loss, refusal = d.bounds(s.At)
	}
	d.learn(s.At)
	if d.verdict == upkeep.Unknown || d.verdict == upkeep.Down && s.Late && d.cause == bySilence && !d.p.passive {
		// One good answer tells enough of a target of which nothing is known. A
		// late one refutes the silence that it interrupts.
		d.turn(upkeep.Up, s.At, bySilence)
		return
	}
	if weigh {
		d.silent = fall(d.silent, loss)
		d.refused = fall(d.refused, refusal)
	}
	if d.silent == 0 && d.refused == 0 {
		d.slow, d.waited = false, 0
	}
	d.countSick(s.At, false)
	if d.verdict == upkeep.Down {
		d.alive += float32(math.Log((1 - loss) / aliveIfDead))
		d.oks = up(d.oks)
		if d.alive >= riseEvidence {
			d.turn(upkeep.Up, s.At, d.cause)
		}
	}
}

// takeBack undoes the last failure: that beat was on its way. Those before it
// were losses, for beats do not overtake each other.
func (d *Detector) takeBack(at time.Time) {
	if d.run == 0 || d.verdict == upkeep.Down {
		return
	}
	d.run--
	d.runRefused, d.runSlow = min(d.runRefused, d.run), min(d.runSlow, d.run)
	if d.run == 0 {
		d.clear()
		return
	}
	loss, _ := d.bounds(at) // as when the failure was weighed
	d.silent = max(0, d.silent-float32(math.Log((1-aliveIfDead)/loss)))
}

// fall lowers a test by a good answer that has probability 1-p of a living
// target.
func fall(height float32, p float64) float32 {
	return max(0, height+float32(math.Log(aliveIfDead/(1-p))))
}

// learn ends the present run of failures. They were losses, for the target
// lives; unless nobody knew it to be up, or they took it down and others
// followed, when it may have been dead indeed. A removal that the very next probe
// contradicts, sent right after it for that end, is a mistake to learn from; but
// where contact was made most of the times the path lost nothing: a program had
// stopped, for as long as it was given, and was rightly removed.
func (d *Detector) learn(at time.Time) {
	run, refused := int(d.run), int(d.runRefused)
	stopped := 2*d.runSlow > d.run
	d.run, d.runRefused, d.runSlow = 0, 0, 0
	mistake := d.fresh && !d.p.passive && !stopped && at.Sub(d.since) < contradiction
	if run > 0 && (d.verdict == upkeep.Unknown || d.verdict == upkeep.Down && d.oks == 0 && !mistake) {
		return
	}
	expected := float64(d.loss.p) + float64(run)*float64(d.loss.again)
	if run == 0 {
		d.loss.good(d.p.lossModel)
	} else {
		d.loss.lost(d.p.lossModel, run)
	}
	if refused == 0 {
		d.refusal.good(d.p.refusal)
	} else {
		d.refusal.lost(d.p.refusal, refused)
	}
	d.p.neighbours.report(at, run+1, run, expected)
}

// bounds are the probabilities that the next sample fails, and is refused,
// although the target lives.
func (d *Detector) bounds(at time.Time) (loss, refusal float64) {
	if d.run > 0 {
		loss = d.loss.boundAgain(d.p.lossModel, d.p.neighbours.rate(at))
	} else {
		loss = d.loss.bound(d.p.lossModel, d.p.neighbours.rate(at))
	}
	if d.runRefused > 0 {
		return loss, d.refusal.boundAgain(d.p.refusal, 0)
	}
	return loss, d.refusal.bound(d.p.refusal, 0)
}

// bad takes in a failure.
func (d *Detector) bad(s Sample) {
	d.reason = s.Reason
	wait := s.RTT
	if wait <= 0 {
		wait = d.given
	}
	loss, refusal := d.bounds(s.At)
	if d.verdict == upkeep.Down {
		d.fresh = false
		d.alive = max(0, d.alive+float32(math.Log(loss/(1-aliveIfDead))))
		if d.alive == 0 {
			d.oks = 0
		}
		d.run = up(d.run)
		return
	}
	if d.silent == 0 && d.refused == 0 {
		d.first = s.At.Add(-wait)
		d.waited, d.slow = 0, false
	}
	height := float32(d.p.threshold)
	// Held at the threshold: while the evidence waits for its time to pass, a
	// good answer must be able to refute it.
	d.silent = min(height, d.silent+float32(math.Log((1-aliveIfDead)/loss)))
	if s.Refused {
		d.refused = min(height, d.refused+float32(math.Log((1-aliveIfDead)/refusal)))
		d.runRefused = up(d.runRefused)
	} else {
		d.waited = max(d.waited, wait)
	}
	if s.Slow {
		d.slow, d.runSlow = true, up(d.runSlow)
	}
	d.run = up(d.run)
	counted := s.At
	if d.p.passive {
		// When the beat should have come. Counted by when it is called missing, a
		// beat that comes would fall short of the least gap where one that does not
		// come exceeds it, and failures would be counted more often than they are.
		counted = s.At.Add(-wait)
	}
	d.countSick(counted, true)
	d.decide(s)
}

func (d *Detector) decide(s Sample) {
	height := float32(d.p.threshold)
	spanned := s.At.Sub(d.first) >= d.p.leastSpan()
	switch {
	case !spanned:
	case d.refused >= height:
		d.turn(upkeep.Down, s.At, byRefusal)
	case d.silent >= height && (s.Refused || d.waited >= d.patience()):
		d.turn(upkeep.Down, s.At, bySilence)
	case d.sick >= sickScore:
		d.turn(upkeep.Down, s.At, bySickness)
	}
}

// countSick counts about one sample per interval and second, so that a burst of
// probes, or of losses, does not count as many.
func (d *Detector) countSick(at time.Time, failed bool) {
	if gap := at.Sub(d.sickAt); gap >= 0 && gap < max(d.p.interval, sickInterval)*3/4 {
		return
	}
	d.sickAt = at
	switch {
	case failed && d.sick < math.MaxUint8:
		d.sick++
	case !failed && d.sick > 0:
		d.sick--
	}
}

// leastSpan is the time that evidence must span.
func (p *Params) leastSpan() time.Duration {
	if p.passive {
		return p.minSpan
	}
	return max(p.minSpan, evidenceSpan)
}

// patience is how long one of the silent probes must have been waited for: many
// times what the path usually takes, and all that the operator allows where the
// answer may be slow for reasons of its own.
func (d *Detector) patience() time.Duration {
	switch {
	case d.p.passive:
		return 0
	case d.p.application || d.slow || d.rtt.known < sure:
		return d.p.timeout
	}
	return min(d.p.timeout, max(patience, 3*d.rtt.timeout(d.p), 10*d.rtt.smoothed()))
}

// Goodbye takes the target down at once: its own agent said that it is leaving.
func (d *Detector) Goodbye(at time.Time, reason string) Step {
	changed := d.verdict != upkeep.Down
	d.reason, d.first, d.last = reason, at, at
	d.clear()
	if changed {
		d.turn(upkeep.Down, at, byGoodbye)
	}
	d.alive, d.oks, d.cause = 0, 0, byGoodbye
	return Step{Verdict: upkeep.Down, Changed: changed, Suspect: true, Timeout: d.p.timeout}
}

// Verdict is the present verdict.
func (d *Detector) Verdict() upkeep.Verdict { return d.verdict }

// Failing reports whether the target is down, or under suspicion of it.
func (d *Detector) Failing() bool { return d.verdict == upkeep.Down || d.run > 0 }

// Since is when the verdict last changed; zero while it never did.
func (d *Detector) Since() time.Time { return d.since }

// LastOK is the time of the last good sample; zero when there was none.
func (d *Detector) LastOK() time.Time { return d.lastOK }

// LastProbe is the time of the last sample; zero when there was none.
func (d *Detector) LastProbe() time.Time { return d.last }

// Learned is the smoothed round-trip time and the share of samples that are
// lost while the target lives.
func (d *Detector) Learned() (rtt time.Duration, loss float64) {
	return d.rtt.smoothed(), d.loss.share(d.p.lossModel)
}
