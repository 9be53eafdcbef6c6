package beat

import "time"

// Rhythm is the receiver's idea of when a member's next beat is due. Deciding
// takes a fixed number of missed beats, so what a beat is allowed to be late is
// paid once in every failover; and a beat that is called missing and comes after
// all costs more, for it makes the next suspicion ask for more of them. So a beat
// is allowed the greatest lateness of some thousand beats before it. If one is
// as likely as another to be the latest of them, that of a new beat exceeds it
// with a probability of one in [rhythmWindow], whatever its distribution.
//
// A beat that is later than the patience is lost for good, even if it comes. All
// times are on the receiver's steady clock.
type Rhythm struct {
	interval, patience time.Duration

	awaited time.Duration // when the next beat comes if it is not late
	missed  int           // in a row
	excuse  time.Duration // until when a beat is the one called missing last; zero for none
	worst   time.Duration // greatest lateness in the present window
	before  time.Duration // the same in the window before
	ends    time.Duration // of the present window; zero before the first beat
}

const (
	// rhythmWindow is the number of intervals in a window. The greatest lateness
	// of the present window and the one before it counts.
	rhythmWindow = 2048
	// rhythmFirst is the number in the first window, during which a beat is
	// allowed the whole patience.
	rhythmFirst = 512
	// leastGrace is ordinary scheduling on a busy machine.
	leastGrace = 10 * time.Millisecond
)

// NewRhythm awaits beats at the interval, each late by less than the patience,
// which is below the interval. The first is due an interval after now.
func NewRhythm(interval, patience, now time.Duration) Rhythm {
	return Rhythm{interval: interval, patience: patience, before: patience, awaited: now + interval}
}

// Grace is how late a beat may be before it counts as missed.
func (r *Rhythm) Grace() time.Duration {
	return min(max(r.worst, r.before, r.interval/10, leastGrace), r.patience)
}

// Due is when the awaited beat counts as missed.
func (r *Rhythm) Due() time.Duration { return r.awaited + r.Grace() }

// Heard takes a beat. It reports whether the beat is the one that was called
// missing last, so that none was missed. Unsteady means that its time says nothing
// of its lateness: the receiver was kept from reading, or the member had left.
func (r *Rhythm) Heard(now time.Duration, unsteady bool) (late bool) {
	late = now <= r.excuse
	by := now - r.awaited
	if late {
		by += r.interval // what is awaited by now is the beat after it
	}
	// Who comes back after an outage beats at other times than before.
	if !unsteady && r.ends != 0 && r.missed <= 2 {
		r.worst = max(r.worst, by)
	}
	if r.ends == 0 {
		r.ends = now + rhythmFirst*r.interval
	} else if now >= r.ends {
		r.before, r.worst = r.worst, 0
		r.ends = now + rhythmWindow*r.interval
	}
	r.awaited, r.excuse, r.missed = now+r.interval, 0, 0
	return late
}

// Missed goes on to the beat after the one that did not come in time, and returns
// how long that is overdue. Blameless means that it may have come, and was lost
// here.
func (r *Rhythm) Missed(now time.Duration, blameless bool) (overdue time.Duration) {
	overdue = now - r.awaited
	r.missed++
	r.excuse = r.awaited + r.patience
	if blameless {
		r.excuse = 0
	}
	if r.awaited += r.interval; r.Due() <= now { // the receiver was kept from looking
		r.awaited = now + r.interval - r.Grace()
	}
	return overdue
}
