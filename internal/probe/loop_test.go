package probe

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"upkeep"
)

// A bench drives a loop by hand, in the made-up time of synctest, with targets
// that answer as the test says.
type bench struct {
	l     *loop
	began time.Time
	asked map[string][]time.Duration // when each target was asked
	// answers says how long a target takes; none at all when negative.
	answers map[string]time.Duration
	pending map[*member]time.Duration // when the answer comes
}

func newBench() *bench {
	b := &bench{
		l: &loop{
			log: slog.New(slog.NewTextHandler(io.Discard, nil)), load: &load{limit: 100},
			clock: newClock(), wakeAt: forever, wakeup: -1,
		},
		began: time.Now(), asked: map[string][]time.Duration{}, answers: map[string]time.Duration{},
		pending: map[*member]time.Duration{},
	}
	return b
}

// start implements starter.
func (b *bench) start(l *loop, m *member) {
	b.asked[m.host] = append(b.asked[m.host], time.Since(b.began))
	if answer := b.answers[m.host]; answer >= 0 {
		b.pending[m] = l.clock.now() + answer
	}
}

func (b *bench) expire(_ *loop, m *member) Result {
	delete(b.pending, m)
	return Result{Reason: reasonSilent(m.timeout)}
}

func (b *bench) cancel(_ *loop, m *member) { delete(b.pending, m) }

func (b *bench) add(host string, share float64, interval, timeout time.Duration, observe func(Result) Next) *member {
	c := upkeep.Check{Interval: every(interval), Timeout: every(timeout)}
	if observe == nil {
		observe = func(Result) Next { return Next{} }
	}
	m := &member{def: &definition{check: c, asker: starter(b)}, observe: observe, host: host, addr: netip.MustParseAddr("127.0.0.1"), fd: -1}
	b.l.add(m, share)
	return m
}

// run lets the loop work for a while, waking as it would.
func (b *bench) run(d time.Duration) {
	for end := b.l.clock.now() + d; ; {
		next, any := b.l.wheel.next()
		if !any || next > end {
			next = end
		}
		for _, at := range b.pending {
			next = min(next, at)
		}
		now := b.l.clock.now()
		b.l.clock.expect(max(now, next))
		time.Sleep(max(0, next-now))
		now = b.l.clock.arrive()
		b.answer(now)
		b.l.expire(now)
		if now >= end {
			return
		}
	}
}

func (b *bench) answer(now time.Duration) {
	for m, at := range b.pending {
		if at <= now {
			delete(b.pending, m)
			b.l.finish(m, Result{OK: true, RTT: now - m.sent})
		}
	}
}

func atMS(n ...int) (all []time.Duration) {
	for _, n := range n {
		all = append(all, time.Duration(n)*time.Millisecond)
	}
	return all
}

// TestFixedRate has targets of all tempers side by side: each is asked on its own
// grid, whatever the others do.
func TestFixedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.answers = map[string]time.Duration{"quick": time.Millisecond, "slow": 40 * time.Millisecond, "dead": -1}
		for host := range b.answers {
			b.add(host, 0.5, 100*time.Millisecond, 60*time.Millisecond, nil)
		}
		b.run(500 * time.Millisecond)
		for host := range b.answers {
			if got, want := b.asked[host], atMS(50, 150, 250, 350, 450); !slices.Equal(got, want) {
				t.Errorf("%s was asked at %v, want %v", host, got, want)
			}
		}
	})
}

// TestFirstProbe sees that a rare check is tried soon after it was set.
func TestFirstProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.add("rare", 0.25, time.Hour, time.Second, nil)
		b.run(3 * time.Hour)
		want := []time.Duration{warmUp / 4, 15 * time.Minute, 75 * time.Minute, 135 * time.Minute}
		if got := b.asked["rare"]; !slices.Equal(got, want) {
			t.Errorf("asked at %v, want %v", got, want)
		}
	})
}

// TestBurst has an observer that asks for quick and impatient confirmations.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.answers["dead"] = -1
		var reasons []string
		b.add("dead", 0, time.Second, 500*time.Millisecond, func(r Result) Next {
			reasons = append(reasons, r.Reason)
			if len(reasons)%4 == 0 { // enough for this slot
				return Next{}
			}
			return Next{After: 20 * time.Millisecond, Timeout: 100 * time.Millisecond}
		})
		b.run(1900 * time.Millisecond)
		// 500 + 20 after the patient one, then each 100 + 20 after the last.
		if want := atMS(1, 521, 641, 761, 1000, 1520, 1640, 1760); !slices.Equal(b.asked["dead"], want) {
			t.Errorf("asked at %v, want %v", b.asked["dead"], want)
		}
		if reasons[0] != "no answer within 500ms" || reasons[1] != "no answer within 100ms" {
			t.Errorf("reasons %q", reasons)
		}
	})
}

// TestOverrun has a burst that is in flight when its regular slot comes: the slot
// is left out, the grid stays.
func TestOverrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.answers["dead"] = -1
		n := 0
		b.add("dead", 0, 100*time.Millisecond, 80*time.Millisecond, func(Result) Next {
			n++
			return Next{After: time.Duration(n%2) * 10 * time.Millisecond}
		})
		b.run(450 * time.Millisecond)
		// Times out at 81, is asked again at 91 until 171: the slot at 100 is lost.
		if want := atMS(1, 91, 200, 290, 400); !slices.Equal(b.asked["dead"], want) {
			t.Errorf("asked at %v, want %v", b.asked["dead"], want)
		}
	})
}

// TestPause stops the whole process for a while. Answers that came meanwhile
// count, what was in flight gets the rest of its time and is not held against the
// target then, and no slot is made up for.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.answers = map[string]time.Duration{"alive": 200 * time.Millisecond, "dead": -1}
		results := map[string][]Result{}
		for host := range b.answers {
			b.add(host, 0, time.Second, 500*time.Millisecond, func(r Result) Next {
				results[host] = append(results[host], r)
				return Next{}
			})
		}
		b.run(100 * time.Millisecond)
		b.l.clock.expect(b.l.clock.now() + 10*time.Millisecond)
		time.Sleep(time.Hour)
		b.l.clock.arrive()
		if n := len(results["alive"]) + len(results["dead"]); n != 0 {
			t.Fatalf("%d results before anything could happen", n)
		}
		b.run(350 * time.Millisecond)
		if len(results["dead"]) != 0 {
			t.Errorf("a target was blamed for the pause: %+v", results["dead"])
		}
		if r := results["alive"]; len(r) != 1 || !r[0].OK || r[0].RTT > 200*time.Millisecond {
			t.Errorf("alive: %+v", r)
		}
		b.run(600 * time.Millisecond)
		if r := results["dead"]; len(r) != 1 || !r[0].Void {
			t.Errorf("dead: %+v", r)
		}
		if n := len(b.asked["alive"]); n != 2 {
			t.Errorf("asked %d times, want 2: nothing is made up for", n)
		}
		b.run(600 * time.Millisecond)
		if r := results["dead"]; len(r) != 2 || r[1].Void || r[1].OK {
			t.Errorf("dead, after the pause: %+v", r)
		}
	})
}

// TestOverflow loses answers in the queue of the machine itself.
func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.l.ping.lost[0] = -1
		m := b.add("127.0.0.1", 0, time.Second, 500*time.Millisecond, nil)
		m.sent, m.timeout = 100*time.Millisecond, 500*time.Millisecond
		if r := (pingCheck{}).expire(b.l, m); r.Void || r.OK {
			t.Errorf("nothing lost: %+v", r)
		}
		b.l.ping.lost[0] = 200 * time.Millisecond
		if r := (pingCheck{}).expire(b.l, m); !r.Void {
			t.Errorf("lost meanwhile: %+v", r)
		}
		m.sent = 300 * time.Millisecond
		if r := (pingCheck{}).expire(b.l, m); r.Void {
			t.Errorf("lost before: %+v", r)
		}
	})
}

func TestPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		m := b.add("poor", 0, time.Second, 500*time.Millisecond, nil)
		poor := 3
		m.def.asker = startFunc{b, func(l *loop, m *member) {
			if poor--; poor >= 0 {
				l.fail(m, fmt.Errorf("opening: %w", errNoRoom))
				return
			}
			b.start(l, m)
		}}
		b.run(2500 * time.Millisecond)
		// Three times 100 ms later, and on the new grid from then on.
		if want := atMS(301, 1300, 2300); !slices.Equal(b.asked["poor"], want) {
			t.Errorf("asked at %v, want %v", b.asked["poor"], want)
		}
		if b.l.stats.PutOff != 3 || b.l.stats.Probes != 3 {
			t.Errorf("stats %+v", b.l.stats)
		}
	})
}

// startFunc is a starter with a start of its own.
type startFunc struct {
	starter
	f func(*loop, *member)
}

func (s startFunc) start(l *loop, m *member) { s.f(l, m) }

// TestRemoveInFlight sees that nothing is heard of a member once it is removed.
func TestRemoveInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.answers["leaving"] = -1
		m := b.add("leaving", 0, time.Second, 500*time.Millisecond, func(r Result) Next {
			t.Errorf("observed %+v", r)
			return Next{}
		})
		b.run(100 * time.Millisecond)
		if m.phase != flying {
			t.Fatal("not asked yet")
		}
		b.l.remove(m)
		b.run(5 * time.Second)
		if n := len(b.asked["leaving"]); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if len(b.l.free) != 1 || b.l.table[0] != nil {
			t.Error("its place in the table is not free")
		}
	})
}

// TestSpread looks at the gaps between members that come and go.
func TestSpread(t *testing.T) {
	const n = 1000
	s := share{0.3}
	var at []float64
	for range 7 * n {
		at = append(at, s.next())
	}
	for _, window := range [][]float64{at[:n], at[3*n : 4*n], at} {
		sorted := slices.Sorted(slices.Values(window))
		widest := sorted[0] + 1 - sorted[len(sorted)-1]
		for i := range len(sorted) - 1 {
			widest = max(widest, sorted[i+1]-sorted[i])
		}
		if fair := 1 / float64(len(sorted)); widest > 3*fair {
			t.Errorf("%d members: a gap of %.1f fair shares", len(sorted), widest/fair)
		}
	}
}

// TestCloseWhileWoken closes a loop that was woken for another reason and is
// about to work: it must not take the one wake for the other.
func TestCloseWhileWoken(t *testing.T) {
	for range 20 {
		l, err := newLoop(slog.New(slog.DiscardHandler), &load{limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		spin := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); runtime.Gosched() {
			}
		}
		l.mu.Lock()
		spin(2 * yieldEvery) // so that the loop yields in its next round
		l.wakeAt = forever
		l.wake(0)
		spin(2 * time.Millisecond) // the loop now waits for the lock
		closed := make(chan struct{})
		go func() { l.close(); close(closed) }()
		spin(2 * time.Millisecond) // and so does close
		l.mu.Unlock()
		select {
		case <-closed:
		case <-time.After(10 * time.Second):
			t.Fatal("the loop does not end")
		}
	}
}
