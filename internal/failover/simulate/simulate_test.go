package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"upkeep"
)

// The promises of adaptive detection, on a scale that a test run can bear;
// bench/falseremovals plays a thousand member-days of more kinds of path. All is
// simulated time: nothing here depends on the machine.

const (
	tenth  = upkeep.Duration(100 * time.Millisecond)
	second = time.Second
)

func source(seed, stream int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), uint64(stream))) }

func TestNoFalseRemovals(t *testing.T) {
	for _, test := range []struct {
		check upkeep.Check
		loss  float64
		days  int
	}{
		{upkeep.Check{Type: upkeep.CheckTCP, Port: 80}, 0.2, 20},
		{upkeep.Check{Type: upkeep.CheckTCP, Port: 80}, 0.01, 5},
		{upkeep.Check{Type: upkeep.CheckTCP, Port: 80, Interval: tenth}, 0.2, 2},
	} {
		t.Run(fmt.Sprintf("%s %s %v", test.check.Type, test.check.WithDefaults().Interval, test.loss), func(t *testing.T) {
			t.Parallel()
			for i := range test.days {
				random := source(i, 10)
				m := NewMember(test.check, Random{Loss: test.loss, Rand: random}, random)
				if m.Live(24 * time.Hour); m.Falls > 0 {
					t.Errorf("member %d was falsely removed %d times in a day", i, m.Falls)
				}
			}
		})
	}
}

func TestDetectionTimes(t *testing.T) {
	tcp := upkeep.Check{Type: upkeep.CheckTCP, Port: 80}
	fast := tcp
	fast.Interval = tenth
	for _, test := range []struct {
		name        string
		check       upkeep.Check
		loss        float64
		how         Death
		median, all time.Duration // below which they must stay
	}{
		{"1s, drops", tcp, 0, Drops, 900 * time.Millisecond, 1500 * time.Millisecond},
		{"1s, refuses", tcp, 0, Refuses, 900 * time.Millisecond, 1500 * time.Millisecond},
		{"100ms, drops", fast, 0, Drops, 350 * time.Millisecond, 400 * time.Millisecond},
		{"100ms, refuses", fast, 0, Refuses, 350 * time.Millisecond, 400 * time.Millisecond},
		{"20 % loss, drops", tcp, 0.2, Drops, 2200 * time.Millisecond, 3 * second},
		{"20 % loss, refuses", tcp, 0.2, Refuses, second, 2 * second},
		{"http hangs", upkeep.Check{Type: upkeep.CheckHTTP}, 0, Hangs, 1500 * time.Millisecond, 2 * second},
		{"http drops", upkeep.Check{Type: upkeep.CheckHTTP}, 0, Drops, 950 * time.Millisecond, 1500 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var times []time.Duration
			for i := range 200 {
				random := source(i, 20)
				m := NewMember(test.check, Random{Loss: test.loss, Rand: random}, random)
				at := 5*time.Minute + time.Duration(random.Int64N(int64(second)))
				took, down := m.Die(at, test.how, time.Minute)
				if !down || m.Falls != 1 {
					t.Fatalf("death %d: down %t, %d falls", i, down, m.Falls)
				}
				times = append(times, took)
			}
			slices.Sort(times)
			if median, most := times[len(times)/2], times[len(times)-1]; median > test.median || most > test.all {
				t.Errorf("median %s, most %s; want at most %s and %s", median, most, test.median, test.all)
			}
		})
	}
}

// TestBurstyIsLearned: a path that loses in bursts is given up less and less.
func TestBurstyIsLearned(t *testing.T) {
	early, late := 0, 0
	for i := range 20 {
		random := source(i, 30)
		path := &Bursty{Good: 9900 * time.Millisecond, Bad: 100 * time.Millisecond, BadLoss: 1, Rand: random}
		m := NewMember(upkeep.Check{Type: upkeep.CheckTCP, Port: 80, Interval: tenth}, path, random)
		m.Live(10 * time.Minute)
		early += m.Falls
		falls := m.Falls
		m.Live(130 * time.Minute)
		late += m.Falls - falls
	}
	if late > early/4+2 {
		t.Errorf("%d false removals in the first ten minutes, %d in the two hours after them", early, late)
	}
}

// TestPathsLoseWhatTheySay holds the models of paths themselves.
func TestPathsLoseWhatTheySay(t *testing.T) {
	random := source(1, 40)
	bursty := &Bursty{Good: 9 * second, Bad: second, BadLoss: 1, Rand: random}
	lost, runs, previous := 0, 0, false
	const samples = 2_000_000
	for i := range samples {
		now := bursty.Lost(time.Duration(i) * 10 * time.Millisecond)
		if now {
			lost++
			if !previous {
				runs++
			}
		}
		previous = now
	}
	if share := float64(lost) / samples; math.Abs(share-0.1) > 0.01 {
		t.Errorf("lost %.3f, want 0.1", share)
	}
	if mean := float64(lost) / float64(runs) / 100; math.Abs(mean-1) > 0.1 {
		t.Errorf("mean burst of %.2fs, want 1s", mean)
	}
}
