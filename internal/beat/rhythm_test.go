package beat

import (
	"math/rand/v2"
	"testing"
	"time"
)

const tenth = 100 * ms

// drummer beats into a Rhythm.
type drummer struct {
	Rhythm
	now    time.Duration
	missed int
}

func newDrummer() *drummer { return &drummer{Rhythm: NewRhythm(tenth, 50*ms, 0)} }

// beat lets a beat arrive so long after the one before it.
func (d *drummer) beat(after time.Duration) (late bool) { return d.hear(after, false) }

func (d *drummer) hear(after time.Duration, unsteady bool) (late bool) {
	d.now += after
	for d.Due() < d.now && !unsteady {
		d.missed++
		d.Missed(d.Due(), false)
	}
	return d.Heard(d.now, unsteady)
}

func (d *drummer) steady(beats int) *drummer {
	for range beats {
		d.beat(tenth)
	}
	return d
}

func TestGraceFollowsLateness(t *testing.T) {
	d := newDrummer()
	want := func(what string, grace time.Duration) {
		t.Helper()
		if d.Grace() != grace {
			t.Errorf("%s: a grace of %s, want %s", what, d.Grace(), grace)
		}
		if d.Due() != d.now+tenth+grace {
			t.Errorf("%s: the next beat is due in %s", what, d.Due()-d.now)
		}
	}
	d.steady(rhythmFirst - 1)
	want("at first", 50*ms)
	d.steady(10)
	want("of a punctual member", leastGrace)
	d.beat(3 * tenth)
	want("after a loss", leastGrace)
	d.hear(5*tenth+17*ms, true)
	want("after a pause", leastGrace)
	d.beat(ms) // an extra beat, as after a challenge
	d.beat(99 * ms)
	want("after an extra beat", leastGrace)
	d.beat(20 * tenth)
	d.beat(20*tenth + 44*ms)
	want("after outages", leastGrace)
	d.beat(124 * ms)
	want("after a late beat", 24*ms)
	d.beat(76 * ms)
	d.steady(rhythmWindow)
	want("a window later", 24*ms)
	d.steady(rhythmWindow)
	want("two windows later", leastGrace)
	d.beat(190 * ms)
	want("after a beat too late to count", leastGrace)
}

func TestLateIsNotMissed(t *testing.T) {
	d := newDrummer().steady(1000)
	for _, test := range []struct {
		after time.Duration
		late  bool
	}{
		{100 * ms, false},
		{130 * ms, true}, // called missing after 110 ms
		{100 * ms, false},
		{129 * ms, false}, // the grace has grown
		{100 * ms, false},
		{149 * ms, true},
		{151 * ms, false}, // later than the patience
		{200 * ms, false}, // one lost, the next in time
		{260 * ms, false},
	} {
		if late := d.beat(test.after); late != test.late {
			t.Errorf("after %s: late %t", test.after, late)
		}
	}
	d.Missed(d.Due(), true)
	if d.now = d.Due() - tenth; d.Heard(d.now, false) {
		t.Error("a beat that this machine may have lost itself is taken for the next one, late")
	}
}

// TestLatenessIsRare holds the bound that the package promises, with lateness of
// heavy tails.
func TestLatenessIsRare(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	d := newDrummer()
	const beats = 2_000_000
	late := 0
	behind := time.Duration(0)
	for range beats {
		// Each beat is late by itself; the schedule behind it keeps time.
		by := time.Duration(random.ExpFloat64() * float64(ms))
		if random.Float64() < 0.002 {
			by += time.Duration(random.ExpFloat64() * float64(12*ms))
		}
		if d.beat(tenth + by - behind); d.missed > 0 {
			late, d.missed = late+1, 0
		}
		behind = by
	}
	if most := 2 * beats / rhythmWindow; late > most {
		t.Errorf("%d of %d beats were called missing though they came, more than %d", late, beats, most)
	}
}
