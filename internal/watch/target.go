package watch

import (
	"encoding/json"
	"math"
	"net/netip"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/failover"
	"upkeep/internal/probe"
)

// target is one measurement, shared by every member of every pool that asks the
// same of the same address.
type target struct {
	key   probe.Key
	spec  probe.Spec
	users []member  // guarded by Watch.mu
	saved time.Time // used by housekeeping only

	mu       sync.Mutex
	detector *failover.Detector
	last     probe.Result
	suspect  bool
	heard    bool       // the guard was told that it answers
	void     string     // why nothing could be learned lately
	voidFrom time.Time  // since when, of the targets' results
	blind    bool       // for so long that people are to know
	addr     netip.Addr // where it was asked last, if it is a name
	trips    *latency   // nil before the first answer
}

// member is a place in a pool.
type member struct {
	pool  string
	index int
}

// verdictChange is a change that the loop has yet to act on.
type verdictChange struct {
	key     probe.Key
	verdict upkeep.Verdict
	at      time.Time
	why     string
}

// turn is a target that began to fail, or ceased to.
type turn struct {
	key     probe.Key
	failing bool
	at      time.Time
}

// pending collects news from the engine's goroutines for the loop.
type pending struct {
	mu      sync.Mutex
	changes []verdictChange
	turns   []turn
	blind   []probe.Key // targets that became blind spots, or ceased to be
	wake    chan struct{}
}

func (p *pending) signal() {
	select {
	case p.wake <- struct{}{}:
	default: // a wake-up is under way already
	}
}

func (p *pending) changed(c verdictChange) {
	p.mu.Lock()
	p.changes = append(p.changes, c)
	p.mu.Unlock()
	p.signal()
}

func (p *pending) turned(t turn) {
	p.mu.Lock()
	p.turns = append(p.turns, t)
	p.mu.Unlock()
	p.signal()
}

func (p *pending) blinded(key probe.Key) {
	p.mu.Lock()
	p.blind = append(p.blind, key)
	p.mu.Unlock()
	p.signal()
}

func (p *pending) take() (changes []verdictChange, turns []turn, blind []probe.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changes, turns, blind = p.changes, p.turns, p.blind
	p.changes, p.turns, p.blind = nil, nil, nil
	return changes, turns, blind
}

// observe is called by the engine once per finished probe and must be quick.
func (t *target) observe(r probe.Result, p *pending) probe.Next {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.see(r) {
		p.blinded(t.key)
	}
	if r.Addr.IsValid() {
		t.addr = r.Addr
	}
	if !r.Void {
		t.last = r
	}
	if r.OK && r.RTT > 0 { // heartbeats have none
		if t.trips == nil {
			t.trips = &latency{number: slotOf(r.At)}
		}
		t.trips.add(r.At, r.RTT)
	}
	var step failover.Step
	if r.Goodbye {
		step = t.detector.Goodbye(r.At, r.Reason)
	} else {
		step = t.detector.Observe(failover.Sample{
			At: r.At, OK: r.OK, RTT: r.RTT, Refused: r.Refused, Slow: r.Slow, Late: r.Late, Void: r.Void, Reason: r.Reason,
		})
	}
	first := r.OK && !t.heard && !step.Suspect
	if step.Suspect != t.suspect || first {
		t.suspect, t.heard = step.Suspect, t.heard || first
		p.turned(turn{t.key, step.Suspect, r.At})
	}
	if step.Changed {
		reason, _ := t.detector.Explain(r.At)
		p.changed(verdictChange{t.key, step.Verdict, r.At, reason})
	}
	return probe.Next{After: step.Again, Timeout: step.Timeout}
}

// blindAfter is how long nothing may be learned of a target before people are
// told: a machine that stood still for a moment is no news.
const blindAfter = 3 * time.Second

// see notes whether anything could be learned, and reports whether that is news.
// A target of which nothing was ever learned is news at once: some report that
// they cannot be asked only once. t.mu is held.
func (t *target) see(r probe.Result) (news bool) {
	before := t.blind
	switch {
	case !r.Void:
		t.void, t.blind = "", false
	case t.void == "":
		t.void, t.voidFrom, t.blind = r.Reason, r.At, t.last.At.IsZero()
	default:
		t.void, t.blind = r.Reason, t.blind || r.At.Sub(t.voidFrom) >= blindAfter
	}
	return t.blind != before
}

// view is a consistent copy of what a target knows.
type view struct {
	verdict      upkeep.Verdict
	reason, next string
	since        time.Time
	lastOK       time.Time
	rtt          time.Duration
	loss         float64
	void         string
	blind        bool
	last         probe.Result
}

func (t *target) view(now time.Time) view {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := view{
		verdict: t.detector.Verdict(), since: t.detector.Since(), lastOK: t.detector.LastOK(),
		void: t.void, blind: t.blind, last: t.last,
	}
	v.reason, v.next = t.detector.Explain(now)
	v.rtt, v.loss = t.detector.Learned()
	v.loss = math.Round(v.loss*1e6) / 1e6 // below one in a million it is what was assumed, not learned
	return v
}

// snapshot returns the detector's state as it is stored.
func (t *target) snapshot() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return json.Marshal(targetState{t.detector.Snapshot(), t.addr})
}

// targetState is what of a target survives a restart.
type targetState struct {
	failover.State
	// Address is where a target that is a name was found last.
	Address netip.Addr `json:"address,omitzero"`
}

// memberCheck is the check that is run for m: the pool's, at the member's port.
func memberCheck(c upkeep.Check, m upkeep.Member) upkeep.Check {
	if m.CheckPort != 0 {
		c.Port = m.CheckPort
	}
	return c
}

// anchorCheck is how anchors are asked: they only have to be there.
func anchorCheck() upkeep.Check {
	return upkeep.Check{
		Type: upkeep.CheckPing, Interval: upkeep.Duration(failover.AnchorInterval), MaxFalse: upkeep.Rate{Count: 1, Per: 30 * upkeep.Day},
	}.WithDefaults()
}
