package failover

import (
	"math"
	"sync"
	"time"
)

// chain learns a loss process: how often a sample fails after a good one, and
// how often after a failed one. Only failures that a later good sample proved
// to be losses are learned; those that end in death are not.
type chain struct {
	p     float32 // after a good sample, slow estimate
	fast  float32 // the same, over the last few samples
	again float32 // after a failed sample
	n     uint16  // samples behind p
	m     uint16  // samples behind again
}

func newChain(m model) chain { return chain{p: float32(m.first), again: float32(m.again)} }

// good takes in a good sample that followed a good one.
func (c *chain) good(m model) {
	c.step(m, 0)
	c.again += (float32(m.again) - c.again) / againForgets
}

// lost takes in a run of failures that a good sample has just ended.
func (c *chain) lost(m model, run int) {
	c.step(m, 1)
	for range run - 1 {
		c.stepAgain(m, 1)
	}
	c.stepAgain(m, 0)
}

func (c *chain) step(m model, x float32) {
	c.p += (x - c.p) * float32(gain(c.n, m.weight, m.memory))
	c.fast += (x - c.fast) * float32(gain(c.n, fastWeight, fastMemory))
	c.n = up(c.n)
}

func (c *chain) stepAgain(m model, x float32) {
	c.again += (x - c.again) * float32(gain(c.m, m.againSure, againMemory))
	c.m = up(c.m)
}

// gain is the weight of the next sample: that of a plain mean at first, then
// that of an exponentially fading one.
func gain(n uint16, weight, memory float64) float64 {
	return max(1/(float64(n)+weight+1), 1/memory)
}

func up(n uint16) uint16 {
	if n < math.MaxUint16 {
		n++
	}
	return n
}

// bound is an upper estimate of the probability that the next sample fails
// although the target lives: two standard deviations above the slow estimate,
// or the fast one, whichever is higher. excess is what the neighbours lose
// beyond their habit.
func (c *chain) bound(m model, excess float64) float64 {
	p := float64(c.p)
	p += 2*deviation(p, gain(c.n, m.weight, m.memory)) + caution(c.n)
	return clamp(max(p, float64(c.fast))+excess, m.floor, maxLoss)
}

// boundAgain is the same after a failure. Losses are never taken to repel each
// other. The first value is an upper one already, so that the margin grows with
// what was seen, and is for what goes beyond that value: failures that stood alone
// are no sign that the next ones will not.
func (c *chain) boundAgain(m model, excess float64) float64 {
	p := float64(c.again)
	p += 2 * deviation(max(0, p-m.again), gain(c.m, m.againSure, againMemory)) * min(1, float64(c.m)/32)
	return clamp(max(p, c.bound(m, excess)), m.again, maxAgain)
}

// caution is added to the bound for a target of which little is known: 1/15 at
// first, an eighth of that after 30 samples, next to nothing after 300.
func caution(n uint16) float64 {
	const first, samples = 1.0 / 15, 30
	x := samples / (samples + float64(n))
	return first * x * x * x
}

// deviation is the standard deviation of a fading mean of coin tosses.
func deviation(p, gain float64) float64 {
	return math.Sqrt(max(0, p*(1-p)) * gain / (2 - gain))
}

// share is the learned part of all samples that are lost, without the part
// that is still the first opinion: for people to read.
func (c *chain) share(m model) float64 {
	p := max(0, float64(c.p)-m.first*m.weight/(m.weight+float64(c.n)))
	if p < 1e-9 { // what rounding leaves
		return 0
	}
	return p / (p + 1 - min(float64(c.again), maxAgain))
}

func clamp(x, low, high float64) float64 {
	if !(x > low) { // also for a NaN
		return low
	}
	return min(x, high)
}

// roundTrip learns the distribution of round-trip times as RFC 6298 section 2
// does, in seconds, with one difference: the variation rises as fast as in TCP
// but falls eight times more slowly, because probes are rarer than segments and
// the times above the timeout are seldom seen.
type roundTrip struct {
	mean, variation float32
	known           uint8 // samples, saturating
}

// sure is the number of samples from which a round-trip time is relied on.
const sure = 4

func (r *roundTrip) learn(d time.Duration) {
	if d <= 0 {
		return
	}
	x := float32(d.Seconds())
	if r.known == 0 {
		r.mean, r.variation, r.known = x, x/2, 1
		return
	}
	away := x - r.mean
	if away < 0 {
		away = -away
	}
	if away > r.variation {
		r.variation += (away - r.variation) / 4
	} else {
		r.variation += (away - r.variation) / 32
	}
	r.mean += (x - r.mean) / 8
	if r.known < sure {
		r.known++
	}
}

// timeout is the wait after which an answer is late: RFC 6298's RTO with the
// margin in place of its clock granularity and no lower bound of one second.
func (r *roundTrip) timeout(p *Params) time.Duration {
	if r.known < sure || p.passive && r.mean == 0 {
		return p.timeout
	}
	margin := max(p.rttMargin, time.Duration(4*float64(r.variation)*float64(time.Second)))
	return min(p.timeout, r.smoothed()+margin)
}

func (r *roundTrip) smoothed() time.Duration {
	return time.Duration(float64(r.mean) * float64(time.Second))
}

// neighbours learns what the targets of one check lose together beyond what
// each has learned to lose by itself. A loss counts once it is proven by a good
// sample after it, so that hosts that die together do not hide each other, while
// a path that turns bad in front of all of them makes every suspicion more
// careful within the first second.
type neighbours struct {
	mu      sync.Mutex
	at      time.Time
	samples float64
	excess  float64
}

const (
	neighbourHalfLife = 2 * time.Second
	neighbourPrior    = 30 // samples without excess that are assumed
)

// report takes in samples of which the given number was lost, and the number
// that was to be expected.
func (n *neighbours) report(at time.Time, samples, lost int, expected float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fade(at)
	n.samples += float64(samples)
	n.excess += float64(lost) - expected
}

func (n *neighbours) rate(at time.Time) float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fade(at)
	return max(0, n.excess/(n.samples+neighbourPrior))
}

func (n *neighbours) fade(at time.Time) {
	gone := at.Sub(n.at)
	n.at = at
	if gone <= 0 { // at once, or the clock was set back: keep what there is
		return
	}
	keep := math.Exp2(-gone.Seconds() / neighbourHalfLife.Seconds())
	n.samples *= keep
	n.excess *= keep
}
