package failover

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"upkeep"
)

// gdnsd is gdnsd_mon_state_updater (src/plugins/mon.c of gdnsd 3.8.2), after the
// initial round.
type gdnsd struct {
	fall, okReset, rise   int
	down                  bool
	nFailures, nSuccesses int
}

func (g *gdnsd) update(latest bool) {
	switch {
	case g.down && latest:
		if g.nSuccesses++; g.nSuccesses == g.rise {
			g.nSuccesses, g.nFailures, g.down = 0, 0, false
		}
	case g.down:
		g.nSuccesses = 0
	case latest:
		if g.nFailures > 0 {
			if g.nSuccesses++; g.nSuccesses == g.okReset {
				g.nFailures, g.nSuccesses = 0, 0
			}
		}
	default:
		g.nSuccesses = 0
		if g.nFailures++; g.nFailures == g.fall {
			g.nFailures, g.down = 0, true
		}
	}
}

func TestCountersAreThoseOfGdnsd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := gdnsd{
			fall:    rapid.IntRange(1, 12).Draw(t, "fall"),
			okReset: rapid.IntRange(1, 12).Draw(t, "ok_reset"),
			rise:    rapid.IntRange(1, 12).Draw(t, "rise"),
		}
		c := upkeep.Check{Type: upkeep.CheckTCP, Port: 80, Fall: g.fall, OKReset: g.okReset, Rise: g.rise}.WithDefaults()
		d := NewDetector(NewParams(c))
		at := epoch
		d.Observe(Sample{At: at, OK: true})
		for _, ok := range rapid.SliceOf(rapid.Bool()).Draw(t, "outcomes") {
			at = at.Add(time.Second)
			g.update(ok)
			before := d.Verdict()
			step := d.Observe(Sample{At: at, OK: ok})
			checkStep(t, c, before, step)
			if (step.Verdict == upkeep.Down) != g.down {
				t.Fatalf("%s, gdnsd says down: %t", step.Verdict, g.down)
			}
		}
	})
}

func TestCounters(t *testing.T) {
	off := false
	for name, test := range map[string]struct {
		check    upkeep.Check
		outcomes string // . good, x failure
		want     upkeep.Verdict
	}{
		"fall in a row":               {upkeep.Check{Fall: 3}, ".xxx", upkeep.Down},
		"one short":                   {upkeep.Check{Fall: 3}, ".xx", upkeep.Up},
		"successes between":           {upkeep.Check{Fall: 3}, ".x.x.x", upkeep.Down},
		"ok_reset in a row clear":     {upkeep.Check{Fall: 3, OKReset: 2}, ".x..x..x", upkeep.Up},
		"rise in a row":               {upkeep.Check{Fall: 1, Rise: 3}, ".x...", upkeep.Up},
		"rise interrupted":            {upkeep.Check{Fall: 1, Rise: 3}, ".x..x..", upkeep.Down},
		"unknown needs fall":          {upkeep.Check{Fall: 3}, "xx", upkeep.Unknown},
		"unknown, fall":               {upkeep.Check{Fall: 3}, "xxx", upkeep.Down},
		"unknown, one good answer":    {upkeep.Check{Fall: 3}, "xx.", upkeep.Up},
		"min_span is not spanned yet": {upkeep.Check{Fall: 3, Burst: &off, MinSpan: upkeep.Duration(10 * time.Second)}, ".xxxx", upkeep.Up},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, test.check)
			for _, outcome := range test.outcomes {
				p.now = p.now.Add(time.Second)
				p.observe(Sample{OK: outcome == '.', RTT: time.Millisecond})
			}
			if p.Verdict() != test.want {
				t.Errorf("%s after %s, want %s", p.Verdict(), test.outcomes, test.want)
			}
		})
	}
}

// TestCountersConfirmQuickly: with burst on, the default, a dead host is out in
// little more than fall timeouts, whatever the interval.
func TestCountersConfirmQuickly(t *testing.T) {
	p := newPatient(t, upkeep.Check{Fall: 3, Interval: upkeep.Duration(time.Minute), Timeout: upkeep.Duration(500 * time.Millisecond)}).answer(5, time.Millisecond)
	if n, took := p.kill(Sample{}); n != 3 || took > 2*time.Second {
		t.Errorf("down after %d failures in %s", n, took)
	}
	off := false
	p = newPatient(t, upkeep.Check{Fall: 3, Interval: upkeep.Duration(time.Minute), Burst: &off}).answer(5, time.Millisecond)
	if n, took := p.kill(Sample{}); n != 3 || took < 2*time.Minute {
		t.Errorf("without burst, down after %d failures in %s", n, took)
	}
}
