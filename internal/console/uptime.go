package console

import (
	"fmt"
	"math"
	"slices"
	"time"

	"upkeep"
)

// How a pool fares, in the words of a status page.
const (
	fareUp       = "up"       // every member whose state is known answers
	fareDegraded = "degraded" // some do not
	fareDown     = "down"     // none does
	fareUnknown  = "unknown"  // nothing is known of any
	fareOut      = "out"      // all are out of service on purpose
)

// fare is what becomes of a number of members of which so many are up and down.
func fare(up, down int) string {
	switch {
	case up > 0 && down > 0:
		return fareDegraded
	case down > 0:
		return fareDown
	case up > 0:
		return fareUp
	}
	return fareUnknown
}

// stretch is a time through which a pool fared the same way.
type stretch struct {
	From, To time.Time
	Fare     string
	Down     int // members that were down, at the most
}

// stretches lays the verdicts of all members over each other.
func stretches(members [][]span, from, now time.Time) []stretch {
	type turn struct {
		at       time.Time
		up, down int // how many more there are from then on
	}
	var turns []turn
	for _, all := range members {
		for _, s := range all {
			one := turn{at: s.From}
			switch s.Verdict {
			case upkeep.Up:
				one.up = 1
			case upkeep.Down:
				one.down = 1
			default:
				continue
			}
			turns = append(turns, one, turn{s.To, -one.up, -one.down})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return a.at.Compare(b.at) })
	var found []stretch
	up, down, since := 0, 0, from
	until := func(at time.Time) {
		if !at.After(since) {
			return
		}
		if n := len(found); n > 0 && found[n-1].Fare == fare(up, down) {
			found[n-1].To, found[n-1].Down = at, max(found[n-1].Down, down)
		} else {
			found = append(found, stretch{since, at, fare(up, down), down})
		}
		since = at
	}
	for _, t := range turns {
		until(t.at)
		up, down = up+t.up, down+t.down
	}
	until(now)
	return found
}

// incident is a time through which not all members answered.
type incident struct {
	From, To time.Time // To is zero while it goes on
	Down     int       // members, at the most
	Outage   time.Duration
}

// incidents are the latest of them, the newest first, at most so many.
func incidents(all []stretch, now time.Time, most int) []incident {
	var found []incident
	joined := false
	for _, s := range all {
		if s.Fare != fareDegraded && s.Fare != fareDown {
			joined = false
			continue
		}
		if !joined {
			found = append(found, incident{From: s.From})
		}
		joined = true
		last := &found[len(found)-1]
		last.To, last.Down = s.To, max(last.Down, s.Down)
		if s.Fare == fareDown {
			last.Outage += s.To.Sub(s.From)
		}
	}
	if joined && !found[len(found)-1].To.Before(now) {
		found[len(found)-1].To = time.Time{}
	}
	slices.Reverse(found)
	return found[:min(len(found), most)]
}

// tally is how long a pool fared how.
type tally struct{ Up, Degraded, Down time.Duration }

func (t tally) known() time.Duration { return t.Up + t.Degraded + t.Down }

func count(all []stretch, from, to time.Time) tally {
	var t tally
	for _, s := range all {
		d := earliest(s.To, to).Sub(latest(s.From, from))
		if d <= 0 {
			continue
		}
		switch s.Fare {
		case fareUp:
			t.Up += d
		case fareDegraded:
			t.Degraded += d
		case fareDown:
			t.Down += d
		}
	}
	return t
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// share is the part of the known time in which somebody answered, cut rather than
// rounded: 100 % is when it was always so.
func (t tally) share() string {
	known := t.known()
	if known == 0 {
		return ""
	}
	permyriad := math.Floor(1e5 * float64(known-t.Down) / float64(known))
	if permyriad == 1e5 {
		return "100 %"
	}
	return fmt.Sprintf("%.3f %%", permyriad/1e3)
}

// statusDays is how many days a status page looks back, today among them.
const statusDays = 30

// firstDay is when the first of those days began.
func firstDay(now time.Time) time.Time {
	y, m, d := now.Local().Date()
	return time.Date(y, m, d-statusDays+1, 0, 0, 0, 0, time.Local)
}

// drawDays makes a strip with a bar a day: low for one without trouble, half for
// one with some, full height where for a time nobody answered, a line where nothing
// is known.
func drawDays(all []stretch, now time.Time) strip {
	const wide, gap, height = 10, 2, 40
	s := strip{Width: statusDays*(wide+gap) - gap, Height: height}
	outages, troubled, known := 0, 0, 0
	y, m, d := firstDay(now).Date()
	for i := range statusDays {
		from, to := time.Date(y, m, d+i, 0, 0, 0, 0, time.Local), time.Date(y, m, d+i+1, 0, 0, 0, 0, time.Local)
		t := count(all, from, to)
		b := bar{X: i * (wide + gap), W: wide, H: 2, Class: fareUnknown}
		text := "no record"
		switch {
		case t.Down > 0:
			b.H, b.Class, text = height, fareDown, "nobody answered for "+length(t.Down)
			outages++
		case t.Degraded > 0:
			b.H, b.Class, text = height/2, fareDegraded, "not all answered for "+length(t.Degraded)
			troubled++
		case t.Up > 0:
			b.H, b.Class, text = height/4, fareUp, "all answered"
		}
		if t.known() > 0 {
			known++
		}
		b.Y, b.Title = height-b.H, from.Format("2 Jan")+": "+text
		s.Bars = append(s.Bars, b)
	}
	s.Label = fmt.Sprintf("of the last %d days %d are known: nobody answered for a time on %d, not all did on %d", statusDays, known, outages, troubled)
	return s
}
