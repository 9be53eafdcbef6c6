package simulate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"upkeep"
)

var beats = upkeep.Check{Type: upkeep.CheckHeartbeat, Interval: tenth}

// busier is lateness that often exceeds the patience of 90 ms.
func busier(r *rand.Rand) time.Duration {
	late := r.ExpFloat64() * float64(3*time.Millisecond)
	if r.Float64() < 0.02 {
		late += r.Float64() * 150 * float64(time.Millisecond)
	}
	return time.Duration(late)
}

var punctuality = map[string]func(*rand.Rand) time.Duration{"punctual": nil, "busy": Busy, "busier": busier}

func TestNoFalseRemovalsByBeats(t *testing.T) {
	for name, late := range punctuality {
		for _, loss := range []float64{0, 0.001, 0.01, 0.2} {
			t.Run(fmt.Sprintf("%s %v", name, loss), func(t *testing.T) {
				t.Parallel()
				random := source(1, 10)
				b := NewBeater(beats, Random{Loss: loss, Rand: random}, random)
				b.Late = late
				if b.Live(24 * time.Hour); b.Falls > 0 {
					t.Errorf("falsely removed %d times in a day", b.Falls)
				}
			})
		}
	}
}

// TestBeatsAreCountedEvenly: a member that loses a third is not sick, however late
// a beat is called missing.
func TestBeatsAreCountedEvenly(t *testing.T) {
	for _, late := range []time.Duration{0, 30, 55, 80} {
		random := source(1, 50)
		b := NewBeater(beats, Random{Loss: 0.33, Rand: random}, random)
		b.Late = func(r *rand.Rand) time.Duration {
			if r.Float64() < 0.002 {
				return late * time.Millisecond
			}
			return 0
		}
		if b.Live(12 * time.Hour); b.Falls > 0 {
			t.Errorf("beats late by up to %s: removed %d times", late*time.Millisecond, b.Falls)
		}
	}
}

// TestDetectionTimesByBeats: a member that has beaten for a minute is down within
// a third of a second, also where machines are busy and beats come late.
func TestDetectionTimesByBeats(t *testing.T) {
	for _, test := range []struct {
		name        string
		lived       time.Duration
		median, all time.Duration // below which they must stay
	}{
		{"punctual", time.Minute, 270 * time.Millisecond, 320 * time.Millisecond},
		{"punctual", 5 * time.Second, 500 * time.Millisecond, 650 * time.Millisecond}, // not known well yet
		{"busy", 10 * time.Minute, 310 * time.Millisecond, 800 * time.Millisecond},
		{"busier", 10 * time.Minute, 700 * time.Millisecond, time.Second},
	} {
		t.Run(fmt.Sprintf("%s for %s", test.name, test.lived), func(t *testing.T) {
			t.Parallel()
			var times []time.Duration
			for i := range 200 {
				random := source(i, 20)
				b := NewBeater(beats, Random{}, random)
				b.Late = punctuality[test.name]
				at := test.lived + time.Duration(random.Int64N(int64(time.Second)))
				took, down := b.Die(at, time.Minute)
				if !down || b.Falls != 1 {
					t.Fatalf("death %d: down %t, %d falls", i, down, b.Falls)
				}
				times = append(times, took)
			}
			slices.Sort(times)
			median, most := times[len(times)/2], times[len(times)-1]
			t.Logf("median %s, most %s", median, most)
			if median > test.median || most > test.all {
				t.Errorf("median %s, most %s; want at most %s and %s", median, most, test.median, test.all)
			}
		})
	}
}
