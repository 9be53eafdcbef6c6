package probe

import (
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	var a, sum Tally
	for _, r := range []Result{
		{OK: true, RTT: time.Millisecond}, {OK: true, RTT: time.Millisecond + 1}, {OK: true, RTT: time.Minute}, {OK: true},
		{Refused: true}, {Void: true}, {Void: true, Refused: true}, {Goodbye: true}, {},
	} {
		a.note(r)
	}
	sum.add(a)
	sum.add(a)
	want := Tally{OK: 8, Silent: 2, Refused: 2, Goodbye: 2, Void: 4, TookSum: 2 * (2*time.Millisecond + 1 + time.Minute)}
	want.Took[1], want.Took[2], want.Took[len(TookBounds)] = 2, 2, 2
	if sum != want {
		t.Errorf("got %+v\nwant %+v", sum, want)
	}
}
