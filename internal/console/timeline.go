package console

import (
	"fmt"
	"strings"
	"time"

	"upkeep"
)

// window is how far back timelines reach.
const window = 24 * time.Hour

// span is a stretch of time with one verdict.
type span struct {
	From, To time.Time
	Verdict  upkeep.Verdict
	Why      string
}

// spans turns a member's verdict events, oldest first, into the stretches from
// from to now. Before the first event nothing is known but for what it says
// itself; without any event the verdict has held since it was last changed.
func spans(events []upkeep.Event, from, now time.Time, current upkeep.Verdict, since time.Time) []span {
	var all []span
	begin := func(at time.Time, v upkeep.Verdict, why string) {
		if n := len(all); n > 0 {
			if all[n-1].Verdict == v {
				return
			}
			all[n-1].To = at
		}
		all = append(all, span{From: at, To: now, Verdict: v, Why: why})
	}
	begin(time.Time{}, upkeep.Unknown, "no record")
	for _, e := range events {
		var v upkeep.Verdict
		if e.Kind == upkeep.EventVerdict && v.UnmarshalText([]byte(e.What)) == nil {
			begin(e.At, v, e.Why)
		}
	}
	if last := all[len(all)-1]; last.Verdict != current && !since.IsZero() {
		begin(latest(since, last.From), current, "")
	}
	kept := all[:0]
	for _, s := range all {
		if s.From.Before(from) {
			s.From = from
		}
		if s.To.After(now) { // the clock was set back
			s.To = now
		}
		if s.To.After(s.From) {
			kept = append(kept, s)
		}
	}
	return kept
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Units of a drawn strip: width stands for the window, height for everything.
const (
	stripWidth  = 1000
	stripHeight = 20
	leastWidth  = 4 // an outage of a second must still be seen
)

// bar is a rectangle of a strip.
type bar struct {
	X, Y, W, H int
	Class      string
	Title      string
}

// strip is a drawn timeline with its description in words.
type strip struct {
	Width, Height int
	Bars          []bar
	Label         string
}

// draw makes a member's strip. What is up is low, what is down is full height,
// what is unknown is a line, so that it can be read without colours.
func draw(all []span, from, now time.Time) strip {
	s := strip{Width: stripWidth, Height: stripHeight}
	var words []string
	add := func(p span) {
		x, w := place(p.From, p.To, from, now)
		b := bar{X: x, W: w, Class: p.Verdict.String(), Title: fmt.Sprintf("%s from %s to %s", p.Verdict, clock(p.From, now), clock(p.To, now))}
		switch p.Verdict {
		case upkeep.Up:
			b.Y, b.H = 13, 7
		case upkeep.Down:
			b.W = max(b.W, leastWidth)
			b.X = min(b.X, stripWidth-b.W)
			b.H = stripHeight
			words = append(words, fmt.Sprintf("down for %s at %s", length(p.To.Sub(p.From)), clock(p.From, now)))
		default:
			b.Y, b.H = 18, 2
		}
		if p.Why != "" {
			b.Title += ": " + upkeep.Printable(p.Why)
		}
		s.Bars = append(s.Bars, b)
	}
	for _, pass := range []bool{false, true} { // outages last, over their neighbours
		for _, p := range all {
			if (p.Verdict == upkeep.Down) == pass {
				add(p)
			}
		}
	}
	s.Label = describe(all, words)
	return s
}

func describe(all []span, outages []string) string {
	const most = 5
	switch {
	case len(outages) > most:
		return fmt.Sprintf("down %d times in the last 24 hours, last %s", len(outages), outages[len(outages)-1])
	case len(outages) > 0:
		return "in the last 24 hours " + strings.Join(outages, ", ")
	case len(all) == 1 && all[0].Verdict == upkeep.Up:
		return "up for the last 24 hours"
	case len(all) > 0 && all[len(all)-1].Verdict == upkeep.Up:
		return "up as far as is known of the last 24 hours"
	}
	return "nothing is known of the last 24 hours"
}

// drawPool makes a pool's strip: the share of its members that was down.
func drawPool(members [][]span, from, now time.Time) strip {
	s := strip{Width: stripWidth, Height: stripHeight, Label: "no member was down in the last 24 hours"}
	const slots = 250
	down := make([]int, slots)
	worst := 0
	for _, all := range members {
		for _, p := range all {
			if p.Verdict != upkeep.Down {
				continue
			}
			x, w := place(p.From, p.To, from, now)
			first, last := x*slots/stripWidth, (x+max(w, 1)-1)*slots/stripWidth
			for i := first; i <= min(last, slots-1); i++ {
				down[i]++
				worst = max(worst, down[i])
			}
		}
	}
	s.Bars = append(s.Bars, bar{X: 0, Y: 18, W: stripWidth, H: 2, Class: "base"})
	const width = stripWidth / slots
	for i := 0; i < slots; {
		n := down[i]
		start := i
		for i < slots && down[i] == n {
			i++
		}
		if n > 0 {
			h := 5 + (stripHeight-5)*n/len(members)
			s.Bars = append(s.Bars, bar{X: start * width, Y: stripHeight - h, W: (i - start) * width, H: h, Class: "down"})
		}
	}
	if worst > 0 {
		s.Label = fmt.Sprintf("at most %d of %d members were down at once in the last 24 hours", worst, len(members))
	}
	return s
}

// place turns a stretch of time into x and width.
func place(a, b, from, now time.Time) (x, w int) {
	scale := func(t time.Time) int {
		return int(int64(stripWidth) * int64(t.Sub(from)) / int64(now.Sub(from)))
	}
	x = min(max(scale(a), 0), stripWidth)
	return x, min(max(scale(b), 0), stripWidth) - x
}

// clock is a time of day, with the date where it is not today's.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2 Jan 15:04:05")
}

// length prints how long something lasted, in the unit that matters.
func length(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
