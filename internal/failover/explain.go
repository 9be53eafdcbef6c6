package failover

import (
	"fmt"
	"math"
	"strings"
	"time"

	"upkeep"
)

// Explain says in one sentence each why the verdict is what it is, and what
// would change it.
func (d *Detector) Explain(now time.Time) (reason, next string) {
	switch d.verdict {
	case upkeep.Up:
		return d.explainUp(now)
	case upkeep.Down:
		return d.explainDown(), d.nextUp()
	}
	if d.run > 0 {
		return fmt.Sprintf("not decided yet: %s%s", upkeep.Plural(int(d.run), "probe has", "probes have"), " failed"+d.because()),
			"one good answer brings it up; " + d.nextDown(now)
	}
	if d.last.IsZero() {
		return "not asked yet", "the first answer brings it up"
	}
	return "not decided yet", "one good answer brings it up"
}

func (d *Detector) explainUp(now time.Time) (reason, next string) {
	if d.run > 0 {
		return fmt.Sprintf("last answered %s ago, then failed %s%s", short(now.Sub(d.lastOK)), times(int(d.run)), d.because()), d.nextDown(now)
	}
	var b strings.Builder
	b.WriteString("answers")
	if rtt, loss := d.Learned(); rtt > 0 {
		fmt.Fprintf(&b, " in %s", short(rtt))
		if loss >= 0.0005 {
			fmt.Fprintf(&b, ", loses %.2g %% of probes", loss*100)
		}
	}
	return b.String(), d.nextDown(now)
}

func (d *Detector) nextDown(now time.Time) string {
	span := ""
	if d.p.minSpan > 0 {
		span = fmt.Sprintf(" over at least %s", short(d.p.minSpan))
	}
	if d.p.fall > 0 {
		return fmt.Sprintf("%s would take it down%s", upkeep.Plural(max(1, d.p.fall-int(d.fails)), "more failure", "more failures"), span)
	}
	return fmt.Sprintf("%s in a row would take it down%s", upkeep.Plural(d.remaining(now), "more failure", "more failures"), span)
}

// saidGoodbye begins the reasons that probes give afterwards, too.
const saidGoodbye = "said goodbye"

func (d *Detector) explainDown() string {
	switch d.cause {
	case byGoodbye:
		if strings.HasPrefix(d.reason, saidGoodbye) {
			return d.reason
		}
		return saidGoodbye + d.because()
	case bySickness:
		return "most probes failed for a long while" + d.because()
	}
	return fmt.Sprintf("%s failed within %s%s", upkeep.Plural(int(max(1, d.fails)), "probe", "probes"), short(d.span), d.because())
}

func (d *Detector) nextUp() string {
	if d.p.fall > 0 {
		return fmt.Sprintf("%s in a row would bring it up", upkeep.Plural(max(1, d.p.rise-int(d.oks)), "good answer", "good answers"))
	}
	loss := d.loss.bound(d.p.lossModel, 0)
	missing := (riseEvidence - float64(d.alive)) / math.Log((1-loss)/aliveIfDead)
	return fmt.Sprintf("%s in a row would bring it up", upkeep.Plural(max(1, int(math.Ceil(missing))), "good answer", "good answers"))
}

func (d *Detector) because() string {
	if d.reason == "" {
		return ""
	}
	return ": " + d.reason
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// short writes a duration with two or three digits, as a person would.
func short(d time.Duration) string {
	if d < 0 {
		d = 0 // the clock was set back
	}
	for _, unit := range []time.Duration{time.Hour, time.Minute, time.Second, time.Millisecond, time.Microsecond} {
		if d >= 10*unit {
			return upkeep.Duration(d.Round(unit)).String()
		}
		if d >= unit {
			return upkeep.Duration(d.Round(unit / 10)).String()
		}
	}
	return d.String()
}
