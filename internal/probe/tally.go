package probe

import "time"

// Tally counts results by what they say.
type Tally struct {
	OK      uint64
	Silent  uint64 // no answer in time, or none that says anything
	Refused uint64 // a definite bad answer
	Goodbye uint64 // the member said that it leaves
	Void    uint64 // nothing was learned: the fault is this machine's
	// Took counts good answers by how long they took: the i-th number is of those
	// that took at most TookBounds[i] and longer than the bound before; the last
	// is of all that took longer.
	Took    [len(TookBounds) + 1]uint64
	TookSum time.Duration
}

// TookBounds are the upper bounds by which round trips are counted.
var TookBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

func (t *Tally) note(r Result) {
	switch {
	case r.OK:
		t.OK++
		if r.RTT > 0 {
			t.took(r.RTT)
		}
	case r.Void:
		t.Void++
	case r.Goodbye:
		t.Goodbye++
	case r.Refused:
		t.Refused++
	default:
		t.Silent++
	}
}

func (t *Tally) took(d time.Duration) {
	t.TookSum += d
	for i, bound := range TookBounds {
		if d <= bound {
			t.Took[i]++
			return
		}
	}
	t.Took[len(TookBounds)]++
}

func (t *Tally) add(o Tally) {
	t.OK += o.OK
	t.Silent += o.Silent
	t.Refused += o.Refused
	t.Goodbye += o.Goodbye
	t.Void += o.Void
	for i, n := range o.Took {
		t.Took[i] += n
	}
	t.TookSum += o.TookSum
}
