package probe

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWheel compares the wheel with a plain map under random settings, clearings
// and leaps of time.
func TestWheel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w wheel
		members := make([]*member, 50)
		for i := range members {
			members[i] = &member{index: int32(i)}
		}
		due := map[*member]time.Duration{}   // what is set
		setAt := map[*member]time.Duration{} // when
		now := time.Duration(rapid.Int64Range(0, int64(3*time.Hour)).Draw(t, "start"))
		for w.advance(now) != nil {
			t.Fatal("an empty wheel has something due")
		}
		span := rapid.OneOf(rapid.Int64Range(0, int64(300*time.Millisecond)), rapid.Int64Range(0, int64(2*time.Hour)),
			rapid.Int64Range(0, int64(60*24*time.Hour)))
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				m := rapid.SampledFrom(members).Draw(t, "member")
				due[m] = now + time.Duration(span.Draw(t, "span")) - 10*time.Millisecond
				setAt[m] = now
				w.set(m, due[m])
			},
			"clear": func(t *rapid.T) {
				m := rapid.SampledFrom(members).Draw(t, "member")
				delete(due, m)
				w.clear(m)
			},
			"advance": func(t *rapid.T) {
				now += time.Duration(span.Draw(t, "span"))
				for m := w.advance(now); m != nil; m = w.advance(now) {
					at, set := due[m]
					if !set {
						t.Fatalf("member %d came out without a timer", m.index)
					}
					if at > now {
						t.Fatalf("member %d, due at %v, came out at %v", m.index, at, now)
					}
					delete(due, m)
				}
				for m, at := range due {
					// What was due already when it was set waits for the next tick.
					if max(at, setAt[m])+2*wheelTick <= now {
						t.Fatalf("member %d, due at %v, did not come out at %v", m.index, at, now)
					}
				}
			},
			"": func(t *rapid.T) {
				next, any := w.next()
				if any != (len(due) > 0) {
					t.Fatalf("next says %v with %d timers", any, len(due))
				}
				for m, at := range due {
					if next > max(at, now)+2*wheelTick {
						t.Fatalf("next is %v, but member %d is due at %v", next, m.index, at)
					}
				}
			},
		})
	})
}

// TestWheelBeyondARevolution sets timers across the end of a revolution of the
// highest level: each process comes to it, 49 days after its start.
func TestWheelBeyondARevolution(t *testing.T) {
	const end = time.Duration(1<<(wheelBits*wheelLevels)) * wheelTick
	for _, wait := range []time.Duration{wheelTick, 10 * time.Millisecond, time.Second, time.Hour, 30 * 24 * time.Hour, end - time.Second, end + time.Hour} {
		for _, before := range []time.Duration{wheelTick, 5 * time.Millisecond, time.Minute} {
			var w wheel
			now := end - before
			if m := w.advance(now); m != nil {
				t.Fatal("an empty wheel has something due")
			}
			m := &member{}
			w.set(m, now+wait)
			if got := w.advance(now + wait - 2*wheelTick); got != nil && wait > 2*wheelTick {
				t.Errorf("set %v before the end, it came out before its %v", before, wait)
			}
			if got := w.advance(now + wait + 2*wheelTick); got != m {
				t.Errorf("set %v before the end for %v later, it did not come out", before, wait)
			}
		}
	}
}

// TestWheelWaits sees that the waits that next asks for are few: an idle engine
// must not wake for each turn of a wheel.
func TestWheelWaits(t *testing.T) {
	var w wheel
	m := &member{}
	w.set(m, time.Hour)
	for wakes := 1; ; wakes++ {
		next, _ := w.next()
		if got := w.advance(next); got == m {
			if next != time.Hour {
				t.Errorf("came out at %v", next)
			}
			if wakes > wheelLevels {
				t.Errorf("woke %d times", wakes)
			}
			return
		}
		if wakes == 100 {
			t.Fatal("never came out")
		}
	}
}

func TestSlotAfter(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ slot, interval, now, want time.Duration }{
		{100 * ms, 50 * ms, 0, 100 * ms},
		{100 * ms, 50 * ms, 99 * ms, 100 * ms},
		{100 * ms, 50 * ms, 100 * ms, 150 * ms},
		{100 * ms, 50 * ms, 149 * ms, 150 * ms},
		{100 * ms, 50 * ms, 1042 * ms, 1050 * ms},
		{-30 * ms, 50 * ms, 0, 20 * ms},
	} {
		if got := slotAfter(c.slot, c.interval, c.now); got != c.want {
			t.Errorf("slotAfter(%v, %v, %v) = %v, want %v", c.slot, c.interval, c.now, got, c.want)
		}
	}
}
