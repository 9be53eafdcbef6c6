package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/failover"
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

// asks is the number of missed beats in a row that would take the member down now.
func (b *Beater) asks() int {
	d, at := *b.Detector, b.start.Add(b.now)
	for n := 1; ; n++ {
		at = at.Add(time.Duration(b.Check.Interval))
		if step := d.Observe(failover.Sample{At: at, RTT: 10 * time.Millisecond}); step.Verdict == upkeep.Down {
			return n
		}
	}
}

// TestBeatsKeepThePromise holds max_false where no simulation lives long enough to
// see it broken: what a member on a path of random loss asks for is looked at again
// and again, and how often that many are lost in a row is then known.
func TestBeatsKeepThePromise(t *testing.T) {
	for _, loss := range []float64{0.0001, 0.0003, 0.0007, 0.002, 0.01, 0.1, 0.3} {
		t.Run(fmt.Sprint(loss), func(t *testing.T) {
			t.Parallel()
			random := source(1, 60)
			b := NewBeater(beats, Random{Loss: loss, Rand: random}, random)
			b.Live(time.Minute)
			chance, looks := 0.0, 0
			least, most := 1000, 0
			for at := time.Minute; at < 18*time.Hour; at += 3700 * time.Millisecond {
				if b.Live(at); b.Detector.Failing() {
					continue // a run of losses that began earlier
				}
				n := b.asks()
				least, most = min(least, n), max(most, n)
				chance += math.Pow(loss, float64(n)) * (1 - loss)
				looks++
			}
			decade := chance / float64(looks) * float64(10*upkeep.Year) / float64(beats.Interval)
			t.Logf("%.2g false removals in ten years; %d to %d beats asked for", decade, least, most)
			if decade > 0.3 {
				t.Errorf("%.2g false removals in ten years, where one is accepted by three tests together", decade)
			}
		})
	}
}

// TestOneLostBeatIsForgiven: a beat that is lost alone makes the member ask for more
// of them for half a minute, however many such there were before.
func TestOneLostBeatIsForgiven(t *testing.T) {
	path := &lossesAt{}
	b := NewBeater(beats, path, source(1, 70))
	b.Live(30 * time.Minute)
	for at := 30 * time.Minute; at < 15*time.Hour; at += time.Hour {
		path.next = at
		if b.Live(at + 2*time.Second); b.asks() < 5 {
			t.Errorf("%s: %d beats are asked for 2s after one was lost", at, b.asks())
		}
		if b.Live(at + 30*time.Second); b.asks() != 3 {
			t.Errorf("%s: %d beats are asked for 30s after one was lost", at, b.asks())
		}
	}
	if b.Misses != 15 || b.Falls != 0 {
		t.Errorf("%d misses and %d falls", b.Misses, b.Falls)
	}
}

// lossesAt loses the first sample after the given time.
type lossesAt struct{ next time.Duration }

func (l *lossesAt) Lost(at time.Duration) bool {
	if l.next == 0 || at < l.next {
		return false
	}
	l.next = 0
	return true
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
