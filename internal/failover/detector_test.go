package failover

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"

	"upkeep"
)

// epoch is when tests begin.
var epoch = time.Unix(1_700_000_000, 0)

func TestDetectorIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Detector{}); size > 256 {
		t.Errorf("a detector takes %d bytes; there may be 100,000 of them, so at most 256 are allowed", size)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	for _, c := range []upkeep.Check{{Type: upkeep.CheckPing}, {Type: upkeep.CheckPing, Fall: 3}, {Type: upkeep.CheckHeartbeat}} {
		d := NewDetector(NewParams(c.WithDefaults()))
		at, i := epoch, 0
		allocated := testing.AllocsPerRun(1000, func() {
			i++
			at = at.Add(time.Second)
			d.Observe(Sample{At: at, OK: i%5 != 0 && i%500 < 400, RTT: time.Millisecond, Refused: i%7 == 0, Reason: "no answer"})
		})
		if allocated != 0 {
			t.Errorf("%s: Observe allocates %v times per sample", c.Type, allocated)
		}
	}
}

// patient is a detector under test with its clock.
type patient struct {
	*Detector
	t     *testing.T
	check upkeep.Check
	now   time.Time
	step  Step
}

func newPatient(t *testing.T, c upkeep.Check) *patient {
	if c.Type == "" {
		c.Type, c.Port = upkeep.CheckTCP, 80
	}
	c = c.WithDefaults()
	return &patient{Detector: NewDetector(NewParams(c)), t: t, check: c, now: epoch}
}

func (p *patient) observe(s Sample) Step {
	p.t.Helper()
	s.At = p.now
	before := p.Verdict()
	p.step = p.Observe(s)
	checkStep(p.t, p.check, before, p.step)
	return p.step
}

// checkStep holds a step against what every step promises.
func checkStep(t interface {
	Helper()
	Fatalf(string, ...any)
}, c upkeep.Check, before upkeep.Verdict, step Step) {
	t.Helper()
	switch {
	case step.Timeout <= 0 || step.Timeout > time.Duration(c.Timeout):
		t.Fatalf("timeout %s is not above zero and up to the configured %s", step.Timeout, c.Timeout)
	case step.Again < 0 || step.Again >= time.Duration(c.Interval):
		t.Fatalf("again in %s, at an interval of %s", step.Again, c.Interval)
	case step.Again > 0 && (c.Type == upkeep.CheckHeartbeat || !c.BurstOn()):
		t.Fatalf("an extra probe is asked for where none may be")
	case step.Changed != (step.Verdict != before):
		t.Fatalf("changed is %t, from %s to %s", step.Changed, before, step.Verdict)
	case step.Verdict == upkeep.Down && !step.Suspect:
		t.Fatalf("down and not suspected")
	}
}

// answer gives n good answers at regular intervals, each in the given time.
func (p *patient) answer(n int, rtt time.Duration) *patient {
	for range n {
		p.now = p.now.Add(time.Duration(p.check.Interval))
		p.observe(Sample{OK: true, RTT: rtt})
	}
	return p
}

// next moves the clock to where the next probe's failure is known: after the
// pause that was asked for, or at the next interval, and the whole timeout.
func (p *patient) next(silent bool) {
	pause := p.step.Again
	if pause == 0 {
		pause = time.Duration(p.check.Interval)
	}
	p.now = p.now.Add(pause)
	if silent {
		p.now = p.now.Add(p.step.Timeout)
	}
}

// kill lets the target fail with s until it is down, and returns the number of
// failures and the time from the first probe's start.
func (p *patient) kill(s Sample) (failures int, took time.Duration) {
	p.t.Helper()
	began := p.now.Add(time.Duration(p.check.Interval))
	p.now = began
	if !s.Refused {
		p.now = p.now.Add(p.step.Timeout)
	}
	for p.Verdict() != upkeep.Down {
		if failures++; failures > 1000 {
			p.t.Fatal("still not down after 1000 failures")
		}
		if p.observe(s); p.Verdict() != upkeep.Down {
			p.next(!s.Refused)
		}
	}
	return failures, p.now.Sub(began)
}

func TestFirstAnswerIsUp(t *testing.T) {
	p := newPatient(t, upkeep.Check{})
	if p.Verdict() != upkeep.Unknown || !p.Since().IsZero() || p.Failing() {
		t.Fatalf("a new detector says %s since %s", p.Verdict(), p.Since())
	}
	if step := p.observe(Sample{OK: true, RTT: time.Millisecond}); step.Verdict != upkeep.Up || !step.Changed {
		t.Fatalf("after a good answer: %+v", step)
	}
}

func TestDeadFromTheStart(t *testing.T) {
	p := newPatient(t, upkeep.Check{})
	if n, took := p.kill(Sample{Reason: "no answer"}); n < 3 || took > 5*time.Second {
		t.Errorf("a target that never answered is down after %d failures in %s", n, took)
	}
}

func TestCleanPath(t *testing.T) {
	for name, test := range map[string]struct {
		check    upkeep.Check
		sample   Sample
		from, to int // failures
		within   time.Duration
	}{
		"silence":          {upkeep.Check{}, Sample{}, 3, 4, 300 * time.Millisecond},
		"refusal":          {upkeep.Check{}, Sample{Refused: true}, 3, 4, 300 * time.Millisecond},
		"silence, 100ms":   {upkeep.Check{Interval: upkeep.Duration(100 * time.Millisecond)}, Sample{}, 3, 5, 300 * time.Millisecond},
		"refusal, 100ms":   {upkeep.Check{Interval: upkeep.Duration(100 * time.Millisecond)}, Sample{Refused: true}, 3, 5, 300 * time.Millisecond},
		"http hangs":       {upkeep.Check{Type: upkeep.CheckHTTP}, Sample{Slow: true}, 3, 4, 900 * time.Millisecond},
		"http unreachable": {upkeep.Check{Type: upkeep.CheckHTTP}, Sample{}, 3, 4, 400 * time.Millisecond},
		"dns":              {upkeep.Check{Type: upkeep.CheckDNS, Query: "a.test"}, Sample{}, 3, 4, 900 * time.Millisecond},
		"interval 1m":      {upkeep.Check{Interval: upkeep.Duration(time.Minute)}, Sample{}, 2, 4, 300 * time.Millisecond},
		"one an hour":      {upkeep.Check{MaxFalse: upkeep.Rate{Count: 1, Per: time.Hour}}, Sample{}, 2, 4, 300 * time.Millisecond},
		"min_span 5s":      {upkeep.Check{MinSpan: upkeep.Duration(5 * time.Second)}, Sample{}, 4, 9, 7 * time.Second},
		"no burst":         {upkeep.Check{Burst: new(bool)}, Sample{}, 3, 4, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, test.check).answer(3000, 500*time.Microsecond)
			n, took := p.kill(test.sample)
			if n < test.from || n > test.to || took > test.within {
				t.Errorf("down after %d failures in %s, want %d to %d within %s", n, took, test.from, test.to, test.within)
			}
			if span := time.Duration(test.check.MinSpan); took < max(span, evidenceSpan) {
				t.Errorf("down after %s, before the evidence spans %s", took, max(span, evidenceSpan))
			}
		})
	}
}

func TestHeartbeat(t *testing.T) {
	p := newPatient(t, upkeep.Check{Type: upkeep.CheckHeartbeat, Interval: upkeep.Duration(100 * time.Millisecond)}).answer(1000, 0)
	missed := 0
	for p.Verdict() == upkeep.Up {
		missed++
		p.now = p.now.Add(100 * time.Millisecond)
		p.observe(Sample{Reason: "no heartbeat"})
	}
	if missed != 3 {
		t.Errorf("down after %d missed beats, want 3", missed)
	}
	p.answer(10, 0)
	if p.Verdict() != upkeep.Up {
		t.Error("beats came back and it is still down")
	}
	if step := p.Goodbye(p.now, "shutting down"); step.Verdict != upkeep.Down || !step.Changed {
		t.Errorf("after a goodbye: %+v", step)
	}
	if reason, _ := p.Explain(p.now); reason != "said goodbye: shutting down" {
		t.Errorf("explained as %q", reason)
	}
	p.observe(Sample{Reason: "said goodbye 2s ago and has not beaten since"})
	if reason, _ := p.Explain(p.now); reason != "said goodbye 2s ago and has not beaten since" {
		t.Errorf("explained later as %q", reason)
	}
	if step := p.Goodbye(p.now, "again"); step.Changed {
		t.Error("a second goodbye changes something")
	}
	if p.answer(1, 0); p.Verdict() != upkeep.Down {
		t.Error("a single beat after a goodbye brings it up")
	}
}

// TestLateBeats: a late beat takes back its own miss, and no more than that.
func TestLateBeats(t *testing.T) {
	p := newPatient(t, upkeep.Check{Type: upkeep.CheckHeartbeat, Interval: upkeep.Duration(100 * time.Millisecond)}).answer(1000, 0)
	missed := func(n int) int {
		taken := 0
		for p.Verdict() == upkeep.Up && taken < n {
			taken++
			p.now = p.now.Add(100 * time.Millisecond)
			p.observe(Sample{Reason: "no heartbeat"})
		}
		return taken
	}
	late := func() {
		p.now = p.now.Add(20 * time.Millisecond)
		p.observe(Sample{OK: true, Late: true})
	}
	for range 20 {
		if missed(1); !p.step.Suspect {
			t.Fatal("a missed beat is no suspicion")
		}
		late()
		p.answer(10, 0)
	}
	if _, loss := p.Learned(); loss != 0 || p.Failing() || p.silent != 0 {
		t.Errorf("after late beats: a loss of %v, failing %t, evidence %v", loss, p.Failing(), p.silent)
	}
	if missed(2); p.Verdict() != upkeep.Up {
		t.Fatal("down after two missed beats")
	}
	if late(); p.run != 0 {
		t.Error("a beat ends the run of missed ones")
	}
	if _, loss := p.Learned(); loss == 0 {
		t.Error("the first of two missed beats was lost, and that was not learned")
	}
	p.answer(5000, 0)
	if n := missed(10); n != 3 && n != 4 {
		t.Errorf("down after %d missed beats", n)
	}
	if late(); p.Verdict() != upkeep.Down {
		t.Error("one beat at the right moment brings a dead member up")
	}
}

// TestEvidenceIsAskedForByLoss: the more a path loses, the more failures it takes.
func TestEvidenceIsAskedForByLoss(t *testing.T) {
	before := 0
	for _, loss := range []float64{0, 0.01, 0.05, 0.2, 0.3} {
		random := rand.New(rand.NewPCG(1, uint64(loss*1000)))
		p := newPatient(t, upkeep.Check{}).answer(10, time.Millisecond)
		for range 5000 {
			p.next(false)
			p.observe(Sample{OK: random.Float64() >= loss, RTT: time.Millisecond})
		}
		if _, learned := p.Learned(); math.Abs(learned-loss) > 0.02+loss/4 {
			t.Errorf("learned a loss of %.3f on a path of %.3f", learned, loss)
		}
		p.answer(1, time.Millisecond)
		n, took := p.kill(Sample{})
		if n <= before {
			t.Errorf("at a loss of %v it takes %d failures, no more than at less", loss, n)
		}
		if took > 3*time.Second {
			t.Errorf("at a loss of %v it takes %s", loss, took)
		}
		before = n
	}
}

// TestRefusalIsKnownOnALossyPath: loss says nothing about a closed port.
func TestRefusalIsKnownOnALossyPath(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	p := newPatient(t, upkeep.Check{})
	for range 5000 {
		p.next(false)
		p.observe(Sample{OK: random.Float64() >= 0.2, RTT: time.Millisecond})
	}
	p.answer(1, time.Millisecond)
	if n, _ := p.kill(Sample{Refused: true}); n > 4 {
		t.Errorf("down after %d refusals on a path that loses a fifth, want at most 4", n)
	}
}

func TestTimeoutIsLearned(t *testing.T) {
	p := newPatient(t, upkeep.Check{})
	if p.observe(Sample{OK: true, RTT: time.Millisecond}); p.step.Timeout != 500*time.Millisecond {
		t.Errorf("timeout %s before anything is known", p.step.Timeout)
	}
	if p.answer(50, time.Millisecond); p.step.Timeout < 20*time.Millisecond || p.step.Timeout > 25*time.Millisecond {
		t.Errorf("timeout %s on a path of 1 ms", p.step.Timeout)
	}
	if p.answer(50, 80*time.Millisecond); p.step.Timeout < 100*time.Millisecond || p.step.Timeout > 250*time.Millisecond {
		t.Errorf("timeout %s on a path of 80 ms", p.step.Timeout)
	}
	if p.answer(50, 450*time.Millisecond); p.step.Timeout != 500*time.Millisecond {
		t.Errorf("timeout %s on a path of 450 ms", p.step.Timeout)
	}
}

// TestSuddenlySlowerIsNotDead: round trips that become ten or a hundred times
// longer from one moment to the next are found to be just that.
func TestSuddenlySlowerIsNotDead(t *testing.T) {
	for _, rtt := range []time.Duration{30, 60, 90} {
		rtt *= time.Millisecond
		p := newPatient(t, upkeep.Check{}).answer(3000, 500*time.Microsecond)
		p.now = p.now.Add(time.Second)
		for range 30 {
			if rtt <= p.step.Timeout {
				p.now = p.now.Add(rtt)
				p.observe(Sample{OK: true, RTT: rtt})
			} else {
				p.now = p.now.Add(p.step.Timeout)
				p.observe(Sample{})
			}
			p.next(false)
			if p.Verdict() == upkeep.Down {
				t.Fatalf("a round trip that grew to %s is taken for death", rtt)
			}
		}
		if _, loss := p.Learned(); p.step.Timeout < rtt || loss > 0.02 {
			t.Errorf("timeout %s, loss %v after the round trip grew to %s", p.step.Timeout, loss, rtt)
		}
	}
}

func TestLateAnswerRefutesSilence(t *testing.T) {
	p := newPatient(t, upkeep.Check{}).answer(3000, 500*time.Microsecond)
	for range 3 {
		p.next(true)
		p.observe(Sample{})
	}
	if p.Verdict() != upkeep.Up || !p.Failing() {
		t.Fatalf("verdict %s, failing %t after three failures", p.Verdict(), p.Failing())
	}
	p.observe(Sample{OK: true, Late: true, RTT: 300 * time.Millisecond})
	if p.Failing() || p.silent != 0 || p.run != 0 {
		t.Error("a late answer leaves the suspicion")
	}
	_, loss := p.Learned()
	if loss > 0.0005 {
		t.Errorf("late answers are counted as lost: %v", loss)
	}
	p.answer(20, time.Millisecond)
	p.kill(Sample{})
	p.now = p.now.Add(10 * time.Millisecond)
	if p.observe(Sample{OK: true, Late: true, RTT: 400 * time.Millisecond}); p.Verdict() != upkeep.Up {
		t.Error("the answer to one of the probes that took it down does not bring it up")
	}
}

func TestVoidTellsNothing(t *testing.T) {
	p := newPatient(t, upkeep.Check{}).answer(100, time.Millisecond)
	before := p.Snapshot()
	for range 100 {
		p.now = p.now.Add(time.Second)
		p.observe(Sample{Void: true, Reason: "no descriptor left"})
	}
	if p.Snapshot() != before {
		t.Errorf("learned from nothing: %+v, before %+v", p.Snapshot(), before)
	}
}

// TestEvidenceIsNotOldOrTorn: failures before and after a pause of the monitor,
// or a step of its clock, are not put together.
func TestEvidenceIsNotOldOrTorn(t *testing.T) {
	for name, gap := range map[string]time.Duration{"pause": time.Hour, "clock set back": -time.Hour} {
		for _, c := range []upkeep.Check{{}, {Fall: 4}} {
			p := newPatient(t, c).answer(3000, time.Millisecond)
			for range 3 {
				p.next(true)
				p.observe(Sample{})
			}
			p.now = p.now.Add(gap)
			if p.observe(Sample{}); p.Verdict() == upkeep.Down {
				t.Errorf("%s: down by one failure and three of another time", name)
			}
			if p.kill(Sample{}); p.Verdict() != upkeep.Down {
				t.Errorf("%s: never down", name)
			}
		}
	}
}

// TestSickness: a host that fails more often than not is out within minutes,
// although single answers refute its death each time.
func TestSickness(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	p := newPatient(t, upkeep.Check{}).answer(1000, time.Millisecond)
	began := p.now
	for p.Verdict() == upkeep.Up && p.now.Sub(began) < time.Hour {
		p.next(false)
		p.observe(Sample{OK: random.Float64() < 0.25, RTT: time.Millisecond})
	}
	if took := p.now.Sub(began); took > 5*time.Minute {
		t.Errorf("a host that fails three times in four is out after %s", took)
	}
}

func TestRecovery(t *testing.T) {
	p := newPatient(t, upkeep.Check{}).answer(3000, time.Millisecond)
	failures, _ := p.kill(Sample{})
	for range 10 {
		p.next(true)
		p.observe(Sample{})
	}
	answers := 0
	for p.Verdict() != upkeep.Up {
		answers++
		p.answer(1, time.Millisecond)
	}
	if answers <= failures || answers > 8 {
		t.Errorf("up after %d answers, down after %d failures: recovery must be the slower", answers, failures)
	}
	if _, loss := p.Learned(); loss > 0.001 {
		t.Errorf("death is learned as a loss of %v", loss)
	}
	// With a long interval, recovery does not wait for it.
	p = newPatient(t, upkeep.Check{Interval: upkeep.Duration(time.Minute)}).answer(100, time.Millisecond)
	p.kill(Sample{})
	began := p.now
	for p.Verdict() != upkeep.Up {
		p.next(false)
		p.observe(Sample{OK: true, RTT: time.Millisecond})
	}
	if took := p.now.Sub(began); took > 70*time.Second {
		t.Errorf("up after %s", took)
	}
}

// TestContradictedRemovalIsALesson: a removal that the very next probe
// contradicts is learned from; one that others confirm is not.
func TestContradictedRemovalIsALesson(t *testing.T) {
	p := newPatient(t, upkeep.Check{}).answer(3000, time.Millisecond)
	first, _ := p.kill(Sample{})
	p.next(false) // soon, to see whether it was a mistake
	p.observe(Sample{OK: true, RTT: time.Millisecond})
	p.answer(20, time.Millisecond)
	if second, _ := p.kill(Sample{}); second <= first {
		t.Errorf("down after %d failures, and after %d once it had been wrong", first, second)
	}
	third := newPatient(t, upkeep.Check{}).answer(3000, time.Millisecond)
	third.kill(Sample{})
	third.next(true)
	third.observe(Sample{})
	third.answer(20, time.Millisecond)
	if again, _ := third.kill(Sample{}); again > first {
		t.Errorf("down after %d failures, and after %d although the first time was right", first, again)
	}
}

// TestStoppedProgramIsNoLesson: a program that takes connections and answers none
// until it was removed did stop. Were it learned as loss, each stop would be seen
// later than the one before: after 2 s, 3 s, 8 s, 22 s.
func TestStoppedProgramIsNoLesson(t *testing.T) {
	for _, c := range []upkeep.Check{{Type: upkeep.CheckHTTP}, {Type: upkeep.CheckHTTPS, Interval: upkeep.Duration(100 * time.Millisecond)}} {
		p := newPatient(t, c).answer(3000, time.Millisecond)
		var first time.Duration
		for i := range 5 {
			_, took := p.kill(Sample{Slow: true})
			if i == 0 {
				first = took
			} else if took > first {
				t.Errorf("%s: seen after %s, and after %s when it had stopped %d times", c.Type, first, took, i)
			}
			p.next(false)
			p.observe(Sample{OK: true, RTT: time.Millisecond})
			p.answer(20, time.Millisecond)
			if p.Verdict() != upkeep.Up {
				t.Fatalf("%s: %s after 20 answers", c.Type, p.Verdict())
			}
		}
	}
}

// TestNeighboursMakeCareful: when others of the same check lose packets that
// they did not use to lose, each suspicion asks for more; when they die, not.
func TestNeighboursMakeCareful(t *testing.T) {
	c := upkeep.Check{Type: upkeep.CheckTCP, Port: 80}.WithDefaults()
	needed := func(others func(d *Detector, at time.Time, i int)) int {
		params := NewParams(c)
		p := newPatient(t, c)
		p.Detector = NewDetector(params)
		all := make([]*Detector, 20)
		for i := range all {
			all[i] = NewDetector(params)
		}
		for range 3000 {
			p.answer(1, time.Millisecond)
			for _, d := range all {
				d.Observe(Sample{At: p.now, OK: true, RTT: time.Millisecond})
			}
		}
		for i, d := range all {
			others(d, p.now, i)
		}
		n, _ := p.kill(Sample{})
		return n
	}
	calm := needed(func(*Detector, time.Time, int) {})
	lossy := needed(func(d *Detector, at time.Time, i int) {
		at = at.Add(time.Duration(i) * 40 * time.Millisecond)
		d.Observe(Sample{At: at, OK: i%4 != 0})
		d.Observe(Sample{At: at.Add(30 * time.Millisecond), OK: true, RTT: time.Millisecond})
	})
	dying := needed(func(d *Detector, at time.Time, i int) {
		for j := range 3 {
			d.Observe(Sample{At: at.Add(time.Duration(j) * 30 * time.Millisecond)})
		}
	})
	if lossy <= calm {
		t.Errorf("down after %d failures when neighbours lose a quarter, after %d when they lose nothing", lossy, calm)
	}
	if dying != calm {
		t.Errorf("down after %d failures when neighbours die, after %d when they do not", dying, calm)
	}
}

func TestThreshold(t *testing.T) {
	// 10 years of probes each second, doubled for bursts, and three tests.
	want := math.Log(10 * 365 * 86400 * 2 * 3)
	if got := threshold(upkeep.Rate{Count: 1, Per: 10 * upkeep.Year}, time.Second, true); math.Abs(got-want) > 1e-9 {
		t.Errorf("threshold %v, want %v", got, want)
	}
	if threshold(upkeep.Rate{}, time.Second, true) != want {
		t.Error("a rate that was left out is not the default one")
	}
	careful := threshold(upkeep.Rate{Count: 1, Per: 100 * upkeep.Year}, time.Second, true)
	if careless := threshold(upkeep.Rate{Count: 1, Per: time.Hour}, time.Second, true); careless >= want || careful <= want {
		t.Errorf("thresholds %v for one an hour, %v for one in ten years, %v for one in a hundred", careless, want, careful)
	}
}

func TestExplain(t *testing.T) {
	p := newPatient(t, upkeep.Check{})
	says := func(reason, next string) {
		t.Helper()
		r, n := p.Explain(p.now)
		if !strings.Contains(r, reason) || !strings.Contains(n, next) {
			t.Errorf("explained as %q, %q; want %q, %q", r, n, reason, next)
		}
	}
	says("not asked yet", "first answer brings it up")
	p.observe(Sample{Reason: "no answer"})
	says("not decided yet: 1 probe has failed: no answer", "one good answer brings it up")
	p.answer(3000, 1500*time.Microsecond)
	says("answers in 1.5ms", "4 more failures in a row would take it down")
	p.next(true)
	p.observe(Sample{Reason: "no answer"})
	says("then failed once: no answer", "3 more failures")
	p.kill(Sample{Refused: true, Reason: "connection refused"})
	says("probes failed within", "5 good answers in a row would bring it up")
	says("connection refused", "")

	p = newPatient(t, upkeep.Check{Fall: 3, MinSpan: upkeep.Duration(2 * time.Second)}).answer(10, time.Millisecond)
	says("answers in 1ms", "3 more failures would take it down over at least 2s")
	p.kill(Sample{Reason: "no answer"})
	says("probes failed within", "5 good answers in a row")
}

func TestRestore(t *testing.T) {
	p := newPatient(t, upkeep.Check{}).answer(3000, 3*time.Millisecond)
	blob, err := json.Marshal(p.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var state State
	if err := json.Unmarshal(blob, &state); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		after time.Duration
		want  upkeep.Verdict
	}{
		"at once":        {time.Second, upkeep.Up},
		"late":           {time.Minute, upkeep.Unknown},
		"clock set back": {-time.Minute, upkeep.Unknown},
	} {
		d := Restore(p.p, state, p.now.Add(test.after))
		if d.Verdict() != test.want {
			t.Errorf("%s: verdict %s, want %s", name, d.Verdict(), test.want)
		}
		if rtt, _ := d.Learned(); rtt.Round(time.Millisecond) != 3*time.Millisecond {
			t.Errorf("%s: learned round trip %s", name, rtt)
		}
		if d.Failing() {
			t.Errorf("%s: failing", name)
		}
	}
	p.kill(Sample{Reason: "no answer"})
	d := Restore(p.p, p.Snapshot(), p.now.Add(time.Second))
	if d.Verdict() != upkeep.Down || !d.Failing() || !d.Since().Equal(p.Since()) {
		t.Errorf("restored as %s, failing %t, since %s", d.Verdict(), d.Failing(), d.Since())
	}
	if was, _ := p.Explain(p.now); was == "" {
		t.Error("no reason")
	} else if is, _ := d.Explain(p.now); is != was {
		t.Errorf("explained as %q, before the restart as %q", is, was)
	}
}

// TestCountersSurviveRestart: plain counters go on where they stood.
func TestCountersSurviveRestart(t *testing.T) {
	off := false
	p := newPatient(t, upkeep.Check{Fall: 3, Burst: &off}).answer(5, time.Millisecond)
	for range 2 {
		p.next(true)
		p.observe(Sample{})
	}
	p.Detector = Restore(p.p, p.Snapshot(), p.now)
	p.next(true)
	if p.observe(Sample{}); p.Verdict() != upkeep.Down {
		t.Error("two failures before a restart and one after do not make three")
	}
}
