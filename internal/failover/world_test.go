package failover

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
)

// world is a monitor with pools, the hosts that they are made of, and all that
// can happen to them. It plays what package watch does, faster than life.
type world struct {
	t       *testing.T
	rand    *rand.Rand
	now     time.Time     // true time
	wrong   time.Duration // what the monitor's clock is off
	hosts   []*machine
	anchors []*machine
	all     []*machine // both
	pools   []*worldPool
	guard   *Guard
	cut     bool // the monitor's own uplink
	log     []string

	// seen counts what was decided, so that a world in which nothing happens
	// does not pass for a test.
	seen map[string]int
	// calm is since when neither the uplink nor the clock was touched.
	calm time.Time
}

// machine is a host and the detector that watches it.
type machine struct {
	addr     netip.Addr
	anchor   bool
	alive    bool
	refuses  bool // when dead
	loss     float64
	detector *Detector
	params   *Params
	check    upkeep.Check
	slot     time.Time
	extra    time.Time
	wait     time.Duration
	suspect  bool
	heard    bool
}

type worldPool struct {
	in   PoolInput
	wake time.Time // in the monitor's time
	// kept is what was published when the uplink was cut.
	kept []netip.Addr
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 0)), now: epoch, calm: epoch, guard: NewGuard(), seen: map[string]int{}}
	ping := upkeep.Check{Type: upkeep.CheckPing, Interval: upkeep.Duration(AnchorInterval), MaxFalse: upkeep.Rate{Count: 1, Per: 30 * upkeep.Day}}.WithDefaults()
	w.anchors = []*machine{w.newHost("200", ping), w.newHost("201", ping)}
	tcp := upkeep.Check{Type: upkeep.CheckTCP, Port: 80}.WithDefaults()
	counted := upkeep.Check{Type: upkeep.CheckTCP, Port: 81, Fall: 3}.WithDefaults()
	w.pools = []*worldPool{
		w.newPool("anchored", tcp, upkeep.Policy{Anchors: []netip.Addr{addr("200"), addr("201")}}, "1 2 3 4 5"),
		w.newPool("free", tcp, upkeep.Policy{FailOpen: upkeep.FailOpenLast, HealthyFraction: 0.5}, "6 7 b8 b9 v6:1 v6:2"),
		w.newPool("counted", counted, upkeep.Policy{FailOpen: upkeep.FailOpenFixed, Fixed: []netip.Addr{addr("99")}}, "1 2 10"),
		w.newPool("pair", tcp, upkeep.Policy{}, "11 v6:3"),
		w.newPool("none", tcp, upkeep.Policy{FailOpen: upkeep.FailOpenNone}, "3 6"),
	}
	w.all = slices.Concat(w.hosts, w.anchors)
	return w
}

func (w *world) newHost(name string, c upkeep.Check) *machine {
	h := &machine{addr: addr(name), alive: true, check: c, params: NewParams(c), slot: w.now.Add(time.Duration(w.rand.Int64N(int64(c.Interval))))}
	h.detector = NewDetector(h.params)
	h.anchor = c.Type == upkeep.CheckPing
	if !h.anchor {
		w.hosts = append(w.hosts, h)
	}
	return h
}

// key is the target together with its check, as the measurement is shared.
func (h *machine) key() string { return fmt.Sprintf("%s %d", h.addr, h.check.Port) }

func (w *world) newPool(name string, c upkeep.Check, policy upkeep.Policy, members string) *worldPool {
	s := newScene(w.t, members, policy)
	s.in.Pool.Name, s.in.Pool.Check = name, c
	for _, m := range s.in.Pool.Members {
		if w.host(m.Address, c.Port) == nil {
			w.newHost(memberName(m.Address), c)
		}
	}
	return &worldPool{in: s.in}
}

func memberName(a netip.Addr) string {
	bytes := a.AsSlice()
	if a.Is6() {
		return fmt.Sprintf("v6:%d", bytes[15])
	}
	return fmt.Sprint(bytes[3])
}

func (w *world) host(a netip.Addr, port int) *machine {
	i := slices.IndexFunc(w.hosts, func(h *machine) bool { return h.addr == a && h.check.Port == port })
	if i < 0 {
		return nil
	}
	return w.hosts[i]
}

// clock is the monitor's time.
func (w *world) clock() time.Time { return w.now.Add(w.wrong) }

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%10s  ", w.now.Sub(epoch))+fmt.Sprintf(format, args...))
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nThe last of what happened:\n%s", fmt.Sprintf(format, args...), joinLast(w.log, 60))
}

func joinLast(lines []string, n int) string {
	text := ""
	for _, line := range lines[max(0, len(lines)-n):] {
		text += line + "\n"
	}
	return text
}

// run lets time pass; something happens about every given time, nothing if zero.
func (w *world) run(d, every time.Duration) {
	until := w.now.Add(d)
	disturbance := until.Add(1)
	next := func() {
		if every > 0 {
			disturbance = w.now.Add(time.Duration(w.rand.ExpFloat64() * float64(every)))
		}
	}
	next()
	for {
		h, at := w.nextProbe()
		for _, p := range w.pools {
			if !p.wake.IsZero() && p.wake.Add(-w.wrong).Before(at) {
				h, at = nil, later(w.now, p.wake.Add(-w.wrong))
			}
		}
		if disturbance.Before(at) {
			h, at = nil, disturbance
		}
		if at.After(until) {
			w.now = until
			return
		}
		w.now = at
		switch {
		case at.Equal(disturbance):
			w.disturb()
			next()
			w.decide()
		case h == nil:
			w.decide()
		default:
			w.probe(h)
		}
	}
}

func (w *world) nextProbe() (*machine, time.Time) {
	var first *machine
	for _, h := range w.all {
		if first == nil || h.due().Before(first.due()) {
			first = h
		}
	}
	return first, first.due()
}

func (h *machine) due() time.Time {
	if !h.extra.IsZero() && h.extra.Before(h.slot) {
		return h.extra
	}
	return h.slot
}

// probe sends the probe that is due. Its outcome is taken in at once, as if the
// wait had passed: with other hosts' probes in between, At may then be ahead
// of the clock by a timeout, as it is on a machine that runs several threads.
func (w *world) probe(h *machine) {
	if h.slot.Equal(h.due()) {
		h.slot = h.slot.Add(time.Duration(h.check.Interval))
	}
	h.extra = time.Time{}
	s := Sample{Reason: "no answer"}
	took := min(h.wait, time.Duration(h.check.Timeout))
	if h.wait == 0 {
		took = time.Duration(h.check.Timeout)
	}
	reached := !w.cut && w.rand.Float64() >= h.loss
	switch {
	case reached && h.alive:
		s.OK, s.RTT, s.Reason = true, time.Duration(200+w.rand.IntN(300))*time.Microsecond, ""
		took = s.RTT
	case reached && h.refuses:
		s.Refused, s.Reason = true, "connection refused"
		took = 300 * time.Microsecond
	}
	s.At = w.clock().Add(took)
	step := h.detector.Observe(s)
	h.wait = step.Timeout
	if step.Again > 0 {
		h.extra = w.now.Add(took + step.Again)
	}
	first := s.OK && !h.heard && !step.Suspect
	turned := step.Suspect != h.suspect || first
	if turned {
		h.suspect, h.heard = step.Suspect, h.heard || first
		w.guard.Observe(h.key(), step.Suspect, s.At)
	}
	if step.Changed {
		w.note("%s is %s", h.addr, step.Verdict)
	}
	if step.Changed || turned {
		w.decide()
	}
}

// decide decides on every pool and checks every promise.
func (w *world) decide() {
	w.t.Helper()
	for _, p := range w.pools {
		p.in.Now = w.clock()
		for i, m := range p.in.Pool.Members {
			d := w.host(m.Address, p.in.Pool.Check.Port).detector
			in := &p.in.Members[i]
			in.Verdict, in.Since = d.Verdict(), d.Since()
			in.Reason, in.Next = d.Explain(p.in.Now)
		}
		for _, a := range w.anchors {
			w.guard.Anchor(a.addr, a.detector)
		}
		freeze := w.guard.Freeze(p.in.Pool, p.in.Now)
		if freeze.Reason != p.in.Freeze {
			w.note("%s: freeze %q", p.in.Pool.Name, freeze.Reason)
		}
		p.in.Freeze, p.in.FreezeFrom = freeze.Reason, freeze.From
		d := Decide(p.in)
		if d.Changed {
			w.note("%s: %s", p.in.Pool.Name, d.Change)
		}
		if err := checkDecision(p.in, d); err != nil {
			w.fatalf("%s: %v", p.in.Pool.Name, err)
		}
		w.checkCut(p, d)
		w.see(p, d)
		p.in.State, p.wake = d.State, d.Wake
		if p.wake.IsZero() || !freeze.Wake.IsZero() && freeze.Wake.Before(p.wake) {
			p.wake = freeze.Wake
		}
	}
}

func (w *world) see(p *worldPool, d Decision) {
	mark := func(what string, is bool) {
		if is {
			w.seen[what]++
		}
	}
	mark("a freeze", p.in.Freeze != "")
	mark("a freeze by anchors", strings.HasPrefix(p.in.Freeze, "no anchor answers"))
	mark("a freeze by mass failure", strings.HasPrefix(p.in.Freeze, "more than 60 %"))
	mark("a removal while cut off", w.cut && d.Changed && strings.Contains(d.Change, "removed"))
	mark("something taken back", strings.Contains(d.Change, "published again because the pool is frozen"))
	for _, words := range []string{"failing open to all", "failing open to the last good set", "failing open to the fixed set",
		"nothing is published, as the policy says", "backups are published", "waived", "by hand", "first round", "members are up"} {
		mark(words, strings.Contains(d.Reason, words))
	}
}

// checkCut: a monitor that is cut off removes nobody from a pool with anchors,
// and puts those back that it removed from another one.
func (w *world) checkCut(p *worldPool, d Decision) {
	w.t.Helper()
	if !w.cut || p.kept == nil || p.in.Pool.Name != "anchored" {
		return
	}
	for i, m := range p.in.Pool.Members {
		admin := p.in.Members[i].Admin
		byHand := admin == upkeep.AdminDown || admin == upkeep.AdminDrain
		h := w.host(m.Address, p.in.Pool.Check.Port)
		if slices.Contains(p.kept, m.Address) && !d.Members[i].Published && !byHand && h.alive {
			w.fatalf("%s: %s was removed while the monitor was cut off", p.in.Pool.Name, m.Address)
		}
	}
}

// disturb lets something happen.
func (w *world) disturb() {
	h := w.hosts[w.rand.IntN(len(w.hosts))]
	p := w.pools[w.rand.IntN(len(w.pools))]
	switch w.rand.IntN(13) {
	case 0, 1, 2:
		h.alive, h.refuses = false, w.rand.IntN(2) == 0
		w.note("%s dies (refuses %t)", h.addr, h.refuses)
	case 3, 4, 5, 6:
		for _, other := range w.hosts {
			if other == h || w.rand.IntN(3) == 0 {
				other.alive = true
			}
		}
		w.note("%s and others come back", h.addr)
	case 7:
		h.loss = []float64{0, 0, 0.05, 0.2}[w.rand.IntN(4)]
		w.note("%s loses %v", h.addr, h.loss)
	case 8:
		w.setCut(!w.cut)
	case 9:
		m := &p.in.Members[w.rand.IntN(len(p.in.Members))]
		m.Admin = append([]string{"", "", ""}, upkeep.AdminStates...)[w.rand.IntN(7)]
		w.note("%s: somebody is %q by hand", p.in.Pool.Name, m.Admin)
	case 10:
		w.restart(time.Duration(w.rand.IntN(60)) * time.Second)
	case 12:
		state := []string{upkeep.AdminDrain, upkeep.AdminAuto}[w.rand.IntN(2)]
		for i := range p.in.Members {
			p.in.Members[i].Admin = state
		}
		w.note("%s: all are %q by hand", p.in.Pool.Name, state)
	case 11:
		w.step([]time.Duration{-time.Hour, -time.Second, time.Second, time.Hour}[w.rand.IntN(4)])
	}
}

func (w *world) setCut(cut bool) {
	w.cut = cut
	w.note("uplink cut: %t", cut)
	for _, p := range w.pools {
		p.kept = nil
		// Only of a monitor that was calm is anything promised: a restart while cut
		// off, or a clock that jumps, leaves it nothing to compare with.
		if cut && w.now.Sub(w.calm) > time.Minute {
			p.kept = p.in.State.Published
		}
	}
	w.calm = w.now
}

// step sets the monitor's clock.
func (w *world) step(d time.Duration) {
	w.wrong += d
	w.note("the clock jumps by %s", d)
	w.calm = w.now
	for _, p := range w.pools {
		p.kept = nil
		p.wake = w.clock() // timers run on, by the monotonic clock
	}
}

// restart stops the monitor and starts it again some time later with nothing
// but what it wrote down.
func (w *world) restart(after time.Duration) {
	w.note("restart, away for %s", after)
	w.now = w.now.Add(after)
	w.calm = w.now
	var known GuardState
	w.throughJSON(w.guard.Snapshot(), &known)
	w.guard = RestoreGuard(known, w.clock())
	for _, h := range w.all {
		var state State
		w.throughJSON(h.detector.Snapshot(), &state)
		h.params = NewParams(h.check)
		h.detector = Restore(h.params, state, w.clock())
		h.suspect, h.heard, h.wait, h.extra = false, false, 0, time.Time{}
		h.slot = w.now.Add(time.Duration(w.rand.Int64N(int64(h.check.Interval))))
		w.guard.Introduce(h.key(), state, w.clock())
	}
	for _, p := range w.pools {
		var state PoolState
		w.throughJSON(p.in.State, &state)
		p.in.State, p.kept = state, nil
	}
}

func (w *world) throughJSON(from, to any) {
	w.t.Helper()
	blob, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(blob, to)
	}
	if err != nil {
		w.fatalf("a state does not survive: %v", err)
	}
}

// settled demands that every pool publishes those of its members that live,
// unless none does.
func (w *world) settled() {
	w.t.Helper()
	for _, p := range w.pools {
		for _, four := range []bool{true, false} {
			var alive, got []string
			normal := false
			for _, m := range p.in.Pool.Members {
				h := w.host(m.Address, p.in.Pool.Check.Port)
				if m.Address.Is4() == four && h.alive && !m.Backup {
					alive = append(alive, m.Address.String())
					normal = true
				}
			}
			for _, a := range p.in.State.Published {
				if a.Is4() == four {
					got = append(got, a.String())
				}
			}
			slices.Sort(alive)
			slices.Sort(got)
			if normal && !p.in.State.Open4 && !p.in.State.Open6 && !slices.Equal(alive, got) {
				w.fatalf("%s: long after the last disturbance %v are published, %v are alive", p.in.Pool.Name, got, alive)
			}
		}
	}
}

// TestWorlds plays whole monitors through random lives: hosts that die, flap
// and lose packets, an uplink that is cut, restarts, clocks that jump, people
// that interfere. Each decision is held against every promise; in the end, when
// everything is calm, what is published must be what lives.
func TestWorlds(t *testing.T) {
	const worlds = 8
	seen := map[string]int{}
	for seed := range worlds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, uint64(seed))
			w.run(15*time.Minute, 5*time.Second)
			for what, times := range w.seen {
				seen[what] += times
			}
			// Calm: the hands let go, the uplink holds, and one host stays dead.
			w.setCut(false)
			for _, p := range w.pools {
				for i := range p.in.Members {
					p.in.Members[i].Admin = ""
				}
			}
			for i, h := range w.hosts {
				h.alive, h.loss, h.refuses = i != seed%len(w.hosts), 0, false
			}
			w.note("calm")
			w.run(20*time.Minute, 0)
			w.settled()
		})
	}
	t.Logf("decisions seen: %v", seen)
	for _, what := range []string{"a freeze by anchors", "a freeze by mass failure", "something taken back", "failing open to all",
		"failing open to the last good set", "failing open to the fixed set", "nothing is published, as the policy says",
		"backups are published", "waived", "by hand", "first round", "members are up"} {
		if seen[what] == 0 {
			t.Errorf("in %d worlds there was never %q: the simulation shows less than it should", worlds, what)
		}
	}
}
