package failover

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"upkeep"
)

// AnchorInterval is the interval at which anchors ought to be pinged, so that
// their silence is noticed before any member of a pool is given up.
const AnchorInterval = 100 * time.Millisecond

const (
	// leastHosts is the number of living hosts below which failures of many
	// at once mean nothing: two of three hosts do die together.
	leastHosts = 4
	// A mass failure is one in which hosts begin to fail within this window,
	// or within two intervals of the slowest check of any pool.
	leastWindow, mostWindow = 5 * time.Second, 10 * time.Minute
	// massLapse ends a freeze by mass failure when there are no anchors to ask
	// and somebody answers: half of the network may be gone for good.
	massLapse = 5 * time.Minute
	// anchorDoubt is how long the silence of anchors that are not known to be
	// down is taken for a trifle.
	anchorDoubt = 3 * time.Second
	// leastStep is the least time by which a clock must go back to have been set.
	leastStep = 5 * time.Second
	// holdMost bounds how long a removal waits to see whether others fail too.
	holdMost = 2 * time.Second
	// holdShare is the part of the mass-failure fraction from which it waits.
	holdShare = 0.5
	// recoverShare is the part of the mass-failure fraction, below which failing
	// hosts must come for the freeze to end.
	recoverShare = 0.5
)

// Guard answers the question "am I the one cut off?" for all pools. It is fed
// with every distinct target and anchor that ever answered: the silence of one
// that never did, being new, mistyped or long dead, says nothing of the network.
// It is not safe for concurrent use.
//
// Two signs are taken for a yes. All anchors of a pool are silent; or more than
// the policy's fraction of all hosts that lived began to fail within one
// window, and no anchor of the pool has answered since. A freeze has these ends:
//
//	an anchor answers                        at once, then time to settle
//	failing hosts are down to half of
//	the fraction                             at once, then time to settle
//	an anchor answers although hosts fail    at once: the failure is real
//	no anchors, but some host answers        after five minutes
//	no anchors, and nothing answers at all   not by itself: there is no way to
//	                                         tell, and no set is better than the last
//	Release                                  at once, until the failure is over
//
// Time to settle is what the checks need to find those members up that are: at
// the moment at which the network returns, their verdicts are still down.
type Guard struct {
	targets   map[string]bool  // every target that ever answered: is it failing?
	hosts     map[string]*host // every host that they are on
	starts    []beginning      // failures that began within the window, oldest first
	recent    int              // of these, the ones that last
	old       int              // hosts that have failed for longer
	anchors   map[netip.Addr]anchor
	intervals map[string]time.Duration // of the pools' checks
	slowest   time.Duration            // of intervals
	window    time.Duration
	episodes  map[float64]*episode // by fraction
	latest    time.Time            // latest time heard of
	revision  int                  // of what [Guard.Snapshot] returns of episodes
}

// host is what is known of one host. It fails while all of its targets do: where
// one service of several is down, the network is not.
type host struct {
	targets, failing int
	since            time.Time // when it began to fail
	old              bool      // that was before the window
}

func (h *host) fails() bool { return h.failing > 0 && h.failing == h.targets }

type beginning struct {
	host  string
	since time.Time
}

type anchor struct {
	verdict  upkeep.Verdict
	failing  bool
	asked    time.Time // first time that a pool relied on it
	lastOK   time.Time
	cameBack time.Time // last turn from down to up
}

// episode is a mass failure, as one fraction sees it.
type episode struct {
	from     time.Time // first failure that belongs to it
	began    time.Time // when it was recognised
	size     int       // living hosts at that time
	failing  int       // hosts whose failures began since from, and last
	released bool      // by a person
	ended    time.Time // zero while it lasts
}

// NewGuard returns a guard that knows no target.
func NewGuard() *Guard {
	return &Guard{
		targets: map[string]bool{}, hosts: map[string]*host{}, anchors: map[netip.Addr]anchor{}, episodes: map[float64]*episode{},
		intervals: map[string]time.Duration{}, window: leastWindow,
	}
}

// Observe tells whether a target is failing (see [Step.Suspect]). It must be
// called when that changes, and when a target answers for the first time; it is
// known from then on, and its failures before that are left out of account.
// Targets are named by their host and, after a space, whatever tells several on
// one host apart.
func (g *Guard) Observe(target string, failing bool, at time.Time) {
	before, known := g.targets[target]
	if !known && failing || known && before == failing {
		return
	}
	g.rebase(at)
	g.targets[target] = failing
	added, turned := 0, 0
	if !known {
		added = 1
	}
	if failing {
		turned = 1
	} else if before {
		turned = -1
	}
	g.change(target, added, turned, at)
}

// Forget drops a target that is checked no more.
func (g *Guard) Forget(target string) {
	failing, known := g.targets[target]
	if !known {
		return
	}
	delete(g.targets, target)
	turned := 0
	if failing {
		turned = -1
	}
	// A host that fails by what is left of it has done so for an unknown time:
	// it is not taken for a new failure.
	g.change(target, -1, turned, time.Time{})
}

func hostOf(target string) string {
	name, _, _ := strings.Cut(target, " ")
	return name
}

// change changes the number of a host's targets, and of those that fail.
func (g *Guard) change(target string, targets, failing int, at time.Time) {
	name := hostOf(target)
	h := g.hosts[name]
	if h == nil {
		h = &host{}
		g.hosts[name] = h
	}
	before := h.fails()
	h.targets, h.failing = h.targets+targets, h.failing+failing
	switch now := h.fails(); {
	case before && !now:
		g.ended(h)
	case !before && now:
		g.began(name, h, at)
	}
	if h.targets == 0 {
		delete(g.hosts, name)
	}
	for share, e := range g.episodes {
		g.follow(share, e, at)
	}
	if !at.IsZero() {
		g.expire(at)
	}
}

// began puts a host's row of failures into all counts. at is zero for one that
// began at an unknown time, before the window.
func (g *Guard) began(name string, h *host, at time.Time) {
	h.since, h.old = at, at.IsZero()
	if h.old {
		g.old++
		return
	}
	g.starts = append(g.starts, beginning{name, at})
	g.recent++
	for _, e := range g.episodes {
		if !at.Before(e.from) {
			e.failing++
		}
	}
}

// ended takes a host's row of failures out of all counts.
func (g *Guard) ended(h *host) {
	if h.old {
		g.old--
	} else {
		g.recent--
	}
	for _, e := range g.episodes {
		if !h.since.Before(e.from) {
			e.failing--
		}
	}
}

// ForgetPool drops a pool that is declared no more.
func (g *Guard) ForgetPool(name string) {
	delete(g.intervals, name)
	g.fitWindow()
}

// lasts reports whether a failure that once began still lasts, within the window.
func (g *Guard) lasts(s beginning) bool {
	h := g.hosts[s.host]
	return h != nil && h.fails() && !h.old && h.since.Equal(s.since)
}

// expire lets failures grow old that began before the window.
func (g *Guard) expire(now time.Time) {
	keep := 0
	for keep < len(g.starts) && now.Sub(g.starts[keep].since) > g.window {
		if s := g.starts[keep]; g.lasts(s) {
			g.hosts[s.host].old = true
			g.recent--
			g.old++
		}
		keep++
	}
	g.starts = g.starts[keep:]
	if len(g.starts) > 2*g.recent+64 {
		// Failures that were over soon: on lossy paths they are the most.
		g.starts = slices.DeleteFunc(slices.Clone(g.starts), func(s beginning) bool { return !g.lasts(s) })
	}
}

// living is the number of hosts that answer or did so within the window.
func (g *Guard) living() int { return len(g.hosts) - g.old }

// follow ends an episode that is over.
func (g *Guard) follow(share float64, e *episode, now time.Time) {
	if e.ended.IsZero() && float64(e.failing) <= recoverShare*share*float64(e.size) {
		e.ended = later(now, e.began)
		g.revision++
	}
}

// Anchor tells the state of an anchor's detector.
func (g *Guard) Anchor(addr netip.Addr, d *Detector) {
	a := g.anchors[addr]
	if a.verdict == upkeep.Down && d.Verdict() == upkeep.Up {
		a.cameBack = d.Since()
	}
	a.verdict, a.failing, a.lastOK = d.Verdict(), d.Failing(), d.LastOK()
	g.anchors[addr] = a
}

// Release ends the mass failures of the moment on a person's word: they freeze
// nothing any more. The next one does again.
func (g *Guard) Release(now time.Time) {
	for _, e := range g.episodes {
		e.released = true
		g.revision++
	}
}

// Freeze is the reason for which nothing may be removed from a pool at present.
type Freeze struct {
	Reason string // empty: not frozen
	// From is when the cause began: removals made since are to be taken back.
	From time.Time
	// Brief means that this may well be over in a second or two: there is no need
	// to tell anybody yet.
	Brief bool
	// Wake is when to ask again although nothing was heard; zero for never.
	Wake time.Time
}

// Freeze says whether the pool, which has its defaults applied, is frozen.
func (g *Guard) Freeze(pool upkeep.Pool, now time.Time) Freeze {
	g.adapt(pool)
	g.rebase(now)
	g.expire(now)
	answered, freeze := g.askAnchors(pool, now)
	if freeze.Reason == "" {
		freeze = g.askMass(pool, answered, now)
	}
	// Other pools' hosts may have a say: come back while many are failing.
	if freeze.Wake.IsZero() && (freeze.Reason != "" || g.recent > 1 && g.recent > g.living()/50) {
		freeze.Wake = now.Add(time.Second / 2)
	}
	return freeze
}

// rebase follows a clock that was set back: all that is remembered moves with
// it, lest a freeze last until the clock has come round again. News from several
// goroutines may be a little out of order; that is no step.
func (g *Guard) rebase(now time.Time) {
	step := now.Sub(g.latest)
	if step >= -leastStep {
		g.latest = later(g.latest, now)
		return
	}
	g.latest = now
	for _, h := range g.hosts {
		if !h.since.IsZero() { // known
			h.since = h.since.Add(step)
		}
	}
	for i := range g.starts {
		g.starts[i].since = g.starts[i].since.Add(step)
	}
	for addr, a := range g.anchors {
		if a.asked, a.lastOK = a.asked.Add(step), a.lastOK.Add(step); !a.cameBack.IsZero() {
			a.cameBack = a.cameBack.Add(step)
		}
		g.anchors[addr] = a
	}
	for _, e := range g.episodes {
		if e.from, e.began = e.from.Add(step), e.began.Add(step); !e.ended.IsZero() {
			e.ended = e.ended.Add(step)
		}
	}
}

// adapt takes in the interval of a pool's check.
func (g *Guard) adapt(pool upkeep.Pool) {
	interval := time.Duration(pool.Check.Interval)
	if before := g.intervals[pool.Name]; before == interval {
		return
	}
	g.intervals[pool.Name] = interval
	g.fitWindow()
}

// fitWindow makes the window as wide as the slowest check needs, and no wider.
func (g *Guard) fitWindow() {
	g.slowest = 0
	for _, i := range g.intervals {
		g.slowest = max(g.slowest, i)
	}
	g.window = min(mostWindow, max(leastWindow, 2*g.slowest))
}

// askAnchors returns when an anchor of the pool last answered, zero when there
// is none that answers now.
func (g *Guard) askAnchors(pool upkeep.Pool, now time.Time) (answered time.Time, freeze Freeze) {
	if len(pool.Policy.Anchors) == 0 {
		return time.Time{}, Freeze{}
	}
	var lastOK, asked, back time.Time
	down, steady := 0, false
	names := make([]string, 0, len(pool.Policy.Anchors))
	for _, addr := range pool.Policy.Anchors {
		a := g.anchors[addr]
		if a.asked.IsZero() {
			a.asked = now
			g.anchors[addr] = a
		}
		names = append(names, addr.String())
		lastOK, asked = later(lastOK, a.lastOK), later(asked, a.asked)
		switch {
		case a.verdict == upkeep.Up && !a.failing:
			answered = later(answered, a.lastOK)
			settled := a.cameBack.IsZero() || !now.Before(a.cameBack.Add(settleTime(pool.Check)))
			steady = steady || settled
			if !settled && (back.IsZero() || a.cameBack.Before(back)) {
				back = a.cameBack
			}
		case a.verdict == upkeep.Down:
			down++
		}
	}
	switch {
	case steady:
		return answered, Freeze{}
	case !answered.IsZero():
		return answered, Freeze{
			Reason: "anchors answer again after the monitor was cut off: checks are settling",
			From:   back, Wake: back.Add(settleTime(pool.Check)),
		}
	}
	freeze = Freeze{Reason: "no anchor answers (" + list(names) + "): the monitor itself looks cut off", From: later(lastOK, asked)}
	if down < len(names) && now.Sub(later(lastOK, asked)) < anchorDoubt {
		freeze.Brief, freeze.Wake = true, now.Add(AnchorInterval/2)
	}
	return answered, freeze
}

// settleTime is how long checks may need to find a member up again.
func settleTime(c upkeep.Check) time.Duration {
	interval := time.Duration(c.Interval)
	switch {
	case !c.Adaptive():
		return time.Duration(c.Rise+1)*interval + time.Second
	case c.BurstOn() && interval > recoveryGap:
		return interval + 7*recoveryGap
	}
	return 7*interval + time.Second
}

// askMass looks for a mass failure. answered is when an anchor of the pool last
// answered.
func (g *Guard) askMass(pool upkeep.Pool, answered, now time.Time) Freeze {
	share := pool.Policy.MassFailure
	if share <= 0 || share >= 1 {
		return Freeze{} // turned off
	}
	e := g.episode(share, now)
	switch {
	case e == nil || !e.ended.IsZero() && !now.Before(e.ended.Add(settleTime(pool.Check))):
		return g.hold(share, answered, now)
	case e.released, answered.After(e.from):
		return Freeze{}
	case !e.ended.IsZero():
		return Freeze{
			Reason: "hosts answer again after most of them failed at once: checks are settling",
			From:   e.from, Wake: e.ended.Add(settleTime(pool.Check)),
		}
	case len(pool.Policy.Anchors) == 0 && now.Sub(e.began) > massLapse && g.anybodyAnswers():
		return Freeze{}
	}
	return Freeze{
		Reason: fmt.Sprintf("more than %.0f %% of all hosts began to fail at once: the monitor itself may be cut off", share*100),
		From:   e.from,
	}
}

// anybodyAnswers reports whether a host is known not to be failing.
func (g *Guard) anybodyAnswers() bool { return len(g.hosts) > g.old+g.recent }

// episode returns the last mass failure by the given fraction, ended or not;
// nil when there was none.
func (g *Guard) episode(share float64, now time.Time) *episode {
	e := g.episodes[share]
	living := g.living()
	mass := living >= leastHosts && float64(g.recent) > share*float64(living)
	if mass && (e == nil || !e.ended.IsZero()) {
		e = &episode{from: now, began: now, size: living, failing: g.recent}
		if first, any := g.firstStart(); any {
			e.from = first
		}
		g.episodes[share] = e
		g.revision++
	}
	return e
}

// firstStart is the beginning of the oldest failure of the window that lasts.
func (g *Guard) firstStart() (time.Time, bool) {
	for _, s := range g.starts {
		if g.lasts(s) {
			return s.since, true
		}
	}
	return time.Time{}, false
}

// hold delays a removal while so many hosts are failing that it may turn out
// to be all of them: until each has been asked since the first began to fail.
func (g *Guard) hold(share float64, answered, now time.Time) Freeze {
	if living := g.living(); living < leastHosts || g.recent < 2 || float64(g.recent) <= holdShare*share*float64(living) {
		return Freeze{}
	}
	first, _ := g.firstStart()
	until := first.Add(min(holdMost, g.slowest+300*time.Millisecond))
	if answered.After(first) || !now.Before(until) {
		return Freeze{}
	}
	return Freeze{Reason: "many hosts began to fail at once: waiting to see whether all do", From: first, Brief: true, Wake: until}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
