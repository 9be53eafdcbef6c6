package failover

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"upkeep"
)

// guarded is a guard with targets t0, t1, ... and the clock that they share.
type guarded struct {
	*Guard
	t    *testing.T
	now  time.Time
	pool upkeep.Pool
}

func newGuarded(t *testing.T, targets int, policy upkeep.Policy) *guarded {
	g := &guarded{Guard: NewGuard(), t: t, now: epoch}
	g.pool = upkeep.Pool{Name: "web", Check: upkeep.Check{Type: upkeep.CheckTCP, Port: 80}, Policy: policy}.WithDefaults()
	for i := range targets {
		g.Observe(name(i), false, g.now)
	}
	return g
}

func name(i int) string { return fmt.Sprintf("t%d", i) }

func (g *guarded) pass(d time.Duration) { g.now = g.now.Add(d) }

func (g *guarded) fail(from, to int) {
	for i := from; i < to; i++ {
		g.Observe(name(i), true, g.now)
	}
}

func (g *guarded) mend(from, to int) {
	for i := from; i < to; i++ {
		g.Observe(name(i), false, g.now)
	}
}

// frozen demands a freeze with the given words in its reason; "" for none.
func (g *guarded) frozen(words string) Freeze {
	g.t.Helper()
	f := g.Guard.Freeze(g.pool, g.now)
	if words == "" && f.Reason != "" || !strings.Contains(f.Reason, words) {
		g.t.Fatalf("after %s: frozen for %q, want %q", g.now.Sub(epoch), f.Reason, words)
	}
	if f.Reason != "" && !f.Wake.After(g.now) {
		g.t.Fatalf("after %s: frozen for %q with wake %s: nobody would notice its end", g.now.Sub(epoch), f.Reason, f.Wake)
	}
	return f
}

func TestGuardMassFailure(t *testing.T) {
	g := newGuarded(t, 10, upkeep.Policy{})
	g.frozen("")
	first := g.now
	g.fail(0, 1)
	g.frozen("") // one of ten is no mass
	g.pass(100 * time.Millisecond)
	g.fail(1, 4)
	if f := g.frozen("waiting to see"); !f.Brief {
		t.Error("a hold that lasts a second is announced as a freeze")
	}
	g.pass(100 * time.Millisecond)
	g.fail(4, 7)
	f := g.frozen("more than 60 %")
	if !f.From.Equal(first) {
		t.Errorf("freeze from %s, want the first failure's time %s", f.From, first)
	}
	g.pass(time.Minute)
	g.frozen("more than 60 %")
	g.mend(0, 3)
	g.frozen("more than 60 %") // 4 of 10 still fail: hysteresis
	g.mend(3, 4)
	g.frozen("settling")
	g.pass(settleTime(g.pool.Check))
	g.frozen("")
}

func TestGuardHoldIsShort(t *testing.T) {
	g := newGuarded(t, 10, upkeep.Policy{})
	g.fail(0, 5)
	g.frozen("waiting to see")
	g.pass(1300 * time.Millisecond)
	g.frozen("") // an interval has passed and half of them still answer
}

func TestGuardFailuresApartAreNoMass(t *testing.T) {
	g := newGuarded(t, 10, upkeep.Policy{})
	for i := range 10 {
		g.fail(i, i+1)
		g.frozen("")
		g.pass(leastWindow + time.Second)
	}
}

func TestGuardFewTargets(t *testing.T) {
	g := newGuarded(t, 3, upkeep.Policy{})
	g.fail(0, 3)
	g.frozen("")

	g = newGuarded(t, 20, upkeep.Policy{}) // of which 17 died long ago
	for i := range 17 {
		g.fail(i, i+1)
		g.pass(time.Minute)
	}
	g.fail(17, 20)
	g.frozen("")
}

func TestGuardCountsLivingTargets(t *testing.T) {
	g := newGuarded(t, 10, upkeep.Policy{})
	g.fail(0, 1)
	g.pass(time.Hour)
	g.fail(1, 6) // 5 of 9, which is 56 %
	g.frozen("waiting to see")
	g.fail(6, 7) // 6 of 9
	g.frozen("more than 60 %")
}

func TestGuardLapses(t *testing.T) {
	g := newGuarded(t, 10, upkeep.Policy{})
	g.fail(0, 7)
	g.frozen("more than 60 %")
	g.pass(massLapse + time.Second)
	g.frozen("") // three answer: a part of the network is gone

	g = newGuarded(t, 10, upkeep.Policy{})
	g.fail(0, 10)
	g.frozen("more than 60 %")
	g.pass(100 * massLapse)
	g.frozen("more than 60 %") // nothing answers at all
	g.Release(g.now)
	g.frozen("")
	g.mend(0, 10)
	g.pass(time.Hour)
	g.frozen("")
	g.fail(0, 10)
	g.frozen("more than 60 %") // a release is for one failure only
}

func TestGuardTurnedOff(t *testing.T) {
	g := newGuarded(t, 10, upkeep.Policy{MassFailure: 1})
	g.fail(0, 10)
	g.frozen("")
}

func TestGuardForget(t *testing.T) {
	g := newGuarded(t, 10, upkeep.Policy{})
	g.fail(0, 7)
	g.frozen("more than 60 %")
	for i := range 7 {
		g.Forget(name(i))
	}
	g.Forget("never heard of")
	g.fail(9, 10)
	g.frozen("settling")
	if len(g.targets) != 3 || len(g.hosts) != 3 || g.recent != 1 || g.old != 0 {
		t.Errorf("%d targets, %d hosts, %d recent, %d old after forgetting seven", len(g.targets), len(g.hosts), g.recent, g.old)
	}
}

// anchorState is a detector that says what a test wants it to say.
func anchorState(v upkeep.Verdict, failing bool, lastOK, since time.Time) *Detector {
	d := NewDetector(NewParams(upkeep.Check{Type: upkeep.CheckPing}.WithDefaults()))
	d.verdict, d.lastOK, d.since = v, lastOK, since
	if failing {
		d.run = 1
	}
	return d
}

func TestGuardAnchors(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	g := newGuarded(t, 1, upkeep.Policy{Anchors: []netip.Addr{a, b}})
	up := func() *Detector { return anchorState(upkeep.Up, false, g.now, epoch) }
	if f := g.frozen("no anchor answers"); !f.Brief {
		t.Error("not a second after the start, anchors are declared dead")
	}
	g.Anchor(a, up())
	g.frozen("")
	g.Anchor(b, up())
	lastOK := g.now

	g.pass(time.Second)
	g.Anchor(a, anchorState(upkeep.Down, true, lastOK, g.now))
	g.frozen("") // the other answers
	g.Anchor(b, anchorState(upkeep.Up, true, lastOK, epoch))
	if f := g.frozen("no anchor answers (192.0.2.1, 192.0.2.2)"); !f.Brief || !f.From.Equal(lastOK) {
		t.Errorf("brief %t from %s, want a brief one from %s", f.Brief, f.From, lastOK)
	}
	g.Anchor(b, anchorState(upkeep.Down, true, lastOK, g.now))
	if f := g.frozen("no anchor answers"); f.Brief {
		t.Error("all anchors are down and nobody is told")
	}
	g.pass(time.Hour)
	g.frozen("no anchor answers")
	g.Anchor(b, anchorState(upkeep.Up, false, g.now, g.now))
	g.frozen("settling")
	g.pass(settleTime(g.pool.Check))
	g.frozen("")
}

// TestGuardAnchorsRefuteMassFailure: with an anchor that answers, the failure of
// all targets is real, and fail-open rules apply instead of a freeze.
func TestGuardAnchorsRefuteMassFailure(t *testing.T) {
	a := netip.MustParseAddr("192.0.2.1")
	g := newGuarded(t, 10, upkeep.Policy{Anchors: []netip.Addr{a}})
	g.Anchor(a, anchorState(upkeep.Up, false, g.now, epoch))
	g.pass(10 * time.Millisecond)
	g.fail(0, 10)
	g.frozen("more than 60 %") // the anchor has not been heard of since
	g.pass(AnchorInterval)
	g.Anchor(a, anchorState(upkeep.Up, false, g.now, epoch))
	g.frozen("")

	other := g.pool
	other.Name, other.Policy.Anchors = "other", nil
	if f := g.Freeze(other, g.now); f.Reason == "" {
		t.Error("a pool without anchors is not frozen by the same failure")
	}
}

func TestGuardAnchorNeverAsked(t *testing.T) {
	g := newGuarded(t, 1, upkeep.Policy{Anchors: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	g.frozen("no anchor answers")
	g.pass(time.Minute)
	if f := g.frozen("no anchor answers"); f.Brief {
		t.Error("an anchor that cannot be asked is a secret for ever")
	}
}

// TestGuardBounded: on a lossy path with many targets, memory of failures that
// were over at once does not grow.
func TestGuardBounded(t *testing.T) {
	g := newGuarded(t, 1000, upkeep.Policy{})
	g.pool.Check.Interval = upkeep.Duration(time.Hour)
	g.frozen("")
	for i := range 100_000 {
		g.pass(time.Millisecond)
		g.fail(i%1000, i%1000+1)
		g.mend(i%1000, i%1000+1)
	}
	if len(g.starts) > 1000 || g.recent != 0 {
		t.Errorf("%d starts, %d recent after failures that are over", len(g.starts), g.recent)
	}
	g.frozen("")
}

// TestGuardCountsHosts: several checks of one host are one witness, and a host
// of which one service still answers is no witness at all.
func TestGuardCountsHosts(t *testing.T) {
	g := newGuarded(t, 0, upkeep.Policy{})
	check := func(host, port int) string { return fmt.Sprintf("192.0.2.%d %d", host, port) }
	for host := range 3 {
		for port := range 4 {
			g.Observe(check(host, port), false, g.now)
		}
	}
	for host := range 3 {
		for port := range 4 {
			g.Observe(check(host, port), true, g.now)
		}
	}
	g.frozen("") // twelve targets fail, on three hosts

	for host := 10; host < 20; host++ {
		g.Observe(check(host, 80), false, g.now)
		g.Observe(check(host, 443), false, g.now)
	}
	for host := 10; host < 20; host++ {
		g.Observe(check(host, 80), true, g.now)
	}
	g.pass(time.Minute)
	g.frozen("") // port 80 is blocked everywhere, but all hosts answer
	for host := 10; host < 20; host++ {
		g.Observe(check(host, 443), true, g.now)
	}
	g.frozen("more than 60 %")
	for host := 10; host < 20; host++ {
		g.Forget(check(host, 443)) // what is left has failed for long
	}
	g.frozen("more than 60 %")
	for host := 10; host < 20; host++ {
		g.Observe(check(host, 80), false, g.now)
	}
	g.frozen("settling")
}

// TestGuardClockSetBack: a freeze does not wait for the clock to come round.
func TestGuardClockSetBack(t *testing.T) {
	a := netip.MustParseAddr("192.0.2.1")
	g := newGuarded(t, 10, upkeep.Policy{Anchors: []netip.Addr{a}})
	g.fail(0, 10)
	g.Anchor(a, anchorState(upkeep.Down, true, g.now, g.now))
	g.frozen("no anchor answers")
	g.pass(-time.Hour)
	g.frozen("no anchor answers")
	g.mend(0, 10)
	g.Anchor(a, anchorState(upkeep.Up, false, g.now, g.now))
	g.frozen("settling")
	g.pass(-time.Hour)
	g.frozen("settling")
	g.pass(settleTime(g.pool.Check))
	g.frozen("")
}

// TestGuardClockFarAhead: a clock that was years ahead and is set right moves no time
// that is not known, which JSON could not write down.
func TestGuardClockFarAhead(t *testing.T) {
	g := newGuarded(t, 4, upkeep.Policy{})
	g.Introduce("long-dead", State{Verdict: upkeep.Down, LastOK: g.now}, g.now)
	g.pass(-2 * upkeep.Year)
	g.frozen("")
	text, err := json.Marshal(g.Snapshot())
	if err != nil {
		t.Fatalf("what the guard knows cannot be kept: %v", err)
	}
	if since := g.Snapshot().Failing["long-dead"]; !since.IsZero() {
		t.Errorf("it is said to have failed since %s, in %s", since, text)
	}
}

// TestGuardForgetsSlowPool: a pool that is gone widens the window no more.
func TestGuardForgetsSlowPool(t *testing.T) {
	g := newGuarded(t, 10, upkeep.Policy{})
	slow := g.pool
	slow.Name, slow.Check.Interval = "slow", upkeep.Duration(5*time.Minute)
	g.frozen("")
	g.Freeze(slow, g.now)
	g.ForgetPool("slow")
	for i := range 9 { // one a minute is no mass failure for checks of a second
		g.fail(i, i+1)
		g.pass(time.Minute)
		g.frozen("")
	}
}

// TestGuardNeverAnswered: hosts that never answered, being new, mistyped or long
// dead, neither freeze anything nor hold it up.
func TestGuardNeverAnswered(t *testing.T) {
	g := newGuarded(t, 2, upkeep.Policy{})
	g.frozen("")
	g.fail(2, 30)
	g.frozen("")
	g.fail(0, 1) // one of two that live
	g.frozen("")
	if g.living() != 2 {
		t.Errorf("%d living hosts, want the two that answered", g.living())
	}
	g.mend(0, 10) // eight of the new ones answer after all
	g.fail(0, 10)
	g.frozen("more than 60 %")
}

// restart goes on with what the guard wrote down, and what detectors did.
func (g *guarded) restart(targets map[int]State) {
	blob, err := json.Marshal(g.Snapshot())
	if err != nil {
		g.t.Fatal(err)
	}
	var state GuardState
	if err := json.Unmarshal(blob, &state); err != nil {
		g.t.Fatal(err)
	}
	g.Guard = RestoreGuard(state, g.now)
	for i, s := range targets {
		g.Introduce(name(i), s, g.now)
	}
}

func states(from, to int, s State) map[int]State {
	all := map[int]State{}
	for i := from; i < to; i++ {
		all[i] = s
	}
	return all
}

// TestGuardRestart: long-dead hosts do not begin to fail anew, and a monitor that
// is restarted while it is cut off knows so.
func TestGuardRestart(t *testing.T) {
	up, down := State{Verdict: upkeep.Up, LastOK: epoch}, State{Verdict: upkeep.Down, LastOK: epoch}
	g := newGuarded(t, 2, upkeep.Policy{})
	g.restart(nil) // of an upkeep that kept no state of its guard
	dead := states(2, 30, down)
	dead[0], dead[1] = up, up
	g.restart(dead)
	g.fail(2, 30) // the first probes after the start
	g.frozen("")

	g = newGuarded(t, 10, upkeep.Policy{})
	g.fail(0, 7)
	from := g.frozen("more than 60 %").From
	g.pass(time.Minute)
	g.restart(states(0, 10, down))
	if f := g.frozen("more than 60 %"); !f.From.Equal(from) {
		t.Errorf("frozen from %s after a restart, from %s before", f.From, from)
	}
	g.mend(0, 4)
	g.frozen("settling")

	g = newGuarded(t, 10, upkeep.Policy{})
	g.fail(0, 10)
	g.frozen("more than 60 %")
	g.Release(g.now)
	g.pass(time.Hour)
	g.restart(states(0, 10, down))
	g.fail(0, 10)
	g.frozen("") // a person's word outlives a restart

	g = newGuarded(t, 10, upkeep.Policy{})
	g.restart(states(0, 10, up)) // cut off while it was away
	g.fail(0, 10)
	g.frozen("more than 60 %")
	g.pass(-time.Hour)
	g.restart(states(0, 10, down))
	if f := g.frozen("more than 60 %"); f.From.After(g.now) {
		t.Errorf("frozen from %s, which is to come", f.From)
	}
}
