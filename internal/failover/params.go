package failover

import (
	"math"
	"time"

	"upkeep"
)

// Constants of adaptive detection. docs/detection.md derives them and says what
// happens when they are wrong.
const (
	// aliveIfDead is the probability that a dead target passes for alive in one
	// probe: a reply that was under way, an address taken over for a moment.
	aliveIfDead = 0.01

	// tests is the number of sequential tests that run side by side (silence,
	// refusal, sickness); each gets an equal part of the accepted error.
	tests = 3
	// burstShare bounds the mean number of samples per interval, burst included.
	burstShare = 2

	// riseEvidence is the natural logarithm of the odds that are asked for
	// before a dead target is called alive again.
	riseEvidence = 20.7 // one in 10^9

	// evidenceSpan is the least time that evidence by active probes spans even
	// when min_span is not set: a stop of the scheduler, of a garbage collector
	// or of a container that used up its quota (100 ms periods) is shorter.
	evidenceSpan = 200 * time.Millisecond

	// patience is the least wait, on a fast path, that one of the failed probes
	// must have been granted before silence counts as proven.
	patience = 100 * time.Millisecond

	burstGap       = 10 * time.Millisecond  // from a silent probe's end to the next
	refusedGap     = 70 * time.Millisecond  // the same after a refusal, which costs no wait
	verifyGap      = 30 * time.Millisecond  // from a removal to the probe that may contradict it
	contradiction  = 200 * time.Millisecond // time for that
	countersGap    = 100 * time.Millisecond // the same with plain counters
	burstWidenAt   = 64                     // failures in a row after which gaps widen
	recoveryGap    = time.Second            // between probes of a target that came back
	sickInterval   = time.Second
	sickScore      = 25 // failures above successes, one counted per interval
	staleIntervals = 10 // intervals after which a restored verdict is unknown
)

// Params is a check's options in the form that detectors use, shared by all
// targets of one check definition. It never changes, but for the loss that its
// targets have in common, which has a lock of its own: a Params may be used by
// several goroutines.
type Params struct {
	interval, timeout, minSpan time.Duration
	fall, okReset, rise        int // plain counters, when fall is above zero
	burst                      bool
	passive                    bool // beats arrive by themselves: nothing can be asked sooner
	application                bool // the answer is a program's, not a kernel's

	// Adaptive detection.
	threshold  float64 // evidence, in nats, at which a target is down
	lossModel  model
	refusal    model
	rttMargin  time.Duration // least margin above the smoothed round-trip time
	neighbours *neighbours
}

// NewParams derives the parameters of c, which has its defaults applied.
func NewParams(c upkeep.Check) *Params {
	p := &Params{
		interval: time.Duration(c.Interval), timeout: time.Duration(c.Timeout), minSpan: time.Duration(c.MinSpan),
		fall: c.Fall, okReset: c.OKReset, rise: c.Rise,
		passive:    c.Type == upkeep.CheckHeartbeat,
		lossModel:  activeLoss,
		refusal:    refusals,
		rttMargin:  20 * time.Millisecond,
		neighbours: &neighbours{},
	}
	switch c.Type {
	case upkeep.CheckHTTP, upkeep.CheckHTTPS:
		p.rttMargin = 30 * time.Millisecond
	case upkeep.CheckDNS, upkeep.CheckExec:
		p.application = true
		p.rttMargin = 30 * time.Millisecond
	case upkeep.CheckHeartbeat:
		p.lossModel = passiveLoss
	}
	p.burst = c.BurstOn() && !p.passive
	p.threshold = threshold(c.MaxFalse, p.interval, p.burst)
	return p
}

// threshold turns the accepted rate of false removals into the height, in nats,
// that a cumulative log-likelihood ratio must reach.
//
// Let the ratio's factors use loss probabilities that are at least the true
// ones. Then the mean number of samples up to a false alarm of one cumulative
// test is at least exp(height) (Lorden 1971; for dependent samples Lai 1998).
// The operator accepts one false removal in Every; that time holds
// Every/interval*share samples, and there are several tests.
func threshold(accepted upkeep.Rate, interval time.Duration, burst bool) float64 {
	every := accepted.Every()
	if every <= 0 {
		every = 10 * upkeep.Year
	}
	samples := float64(every) / float64(max(interval, upkeep.MinInterval))
	if burst {
		samples *= burstShare
	}
	return math.Log(max(samples, 1) * tests)
}

// model is what is believed of a loss process before and while it is learned:
// a two-state Markov chain, with the probability that a sample fails after a
// good one, and after a failed one.
type model struct {
	first     float64 // before anything is known
	weight    float64 // of first, in samples
	memory    float64 // samples that the learned loss goes back
	floor     float64 // a path is never trusted more than this
	again     float64 // floor and first value of a failure after a failure
	againSure float64 // weight of again, in samples
}

// Values of the models. Heartbeats start from a better opinion, because three
// missed beats must be enough for a decision within a third of a second; they
// come ten times as often, so that the opinion is soon corrected. For the same
// reason their memory holds ten times as many: as much time, and a single beat that
// was lost is not taken for a habit.
var (
	activeLoss  = model{first: 0.002, weight: 500, memory: 2048, floor: 0.001, again: 0.0075, againSure: 20}
	passiveLoss = model{first: 0.00001, weight: 2000, memory: 20480, floor: 0.0002, again: 0.0005, againSure: 20}
	refusals    = model{first: 0.0005, weight: 1000, memory: 2048, floor: 0.0005, again: 0.0005, againSure: 20}
)

const (
	maxLoss      = 0.4 // more is not a path to publish: see sickScore
	maxAgain     = 0.9
	againMemory  = 256   // failures that the learned persistence goes back
	fastMemory   = 64    // samples of the estimate that follows a sudden rise
	fastWeight   = 8     // samples without loss that it begins with
	againForgets = 32768 // good samples in which learned persistence fades
)
