package watch

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"upkeep"
	"upkeep/internal/probe"
)

// What is kept of a round trip keeps its order, and all of it but a thousandth.
func TestShrunkRoundTrips(t *testing.T) {
	last, before := uint16(0), time.Duration(0)
	for d := time.Duration(1); d < 10*time.Minute; d += d/700 + 1 {
		code := shrink(d)
		if code < last || code == 0 {
			t.Fatalf("%s is kept as %d, after %s as %d", d, code, before, last)
		}
		if got := grow(code); d >= 100 && d < 7*time.Minute && (got > d || d-got > 100+d/1000) {
			t.Fatalf("%s comes back as %s", d, got)
		}
		last, before = code, d
	}
	if got := grow(shrink(time.Hour)); got < 7*time.Minute {
		t.Errorf("an hour comes back as %s", got)
	}
}

// A member costs so much, and no more however often it answers.
func TestLatencyIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(latency{}); size > 256 {
		t.Errorf("it takes %d bytes", size)
	}
}

// The last hour is kept, in slots in their order; what clocks do loses no more than it
// must.
func TestLatencyOfAnHour(t *testing.T) {
	begin := time.Unix(1_800_000_000, 0) // where a slot begins
	l := &latency{number: slotOf(begin)}
	for second := range 2 * 3600 { // slower by a millisecond each minute
		minute := time.Duration(second / 60)
		l.add(begin.Add(time.Duration(second)*time.Second), time.Millisecond*(minute+1))
	}
	end := begin.Add(2*time.Hour - time.Second)
	got := l.read(end)
	if len(got.Slots) != latencySlots || time.Duration(got.Min).Round(time.Millisecond) != 61*time.Millisecond || time.Duration(got.Max).Round(time.Millisecond) != 120*time.Millisecond {
		t.Fatalf("%d slots, %s to %s", len(got.Slots), got.Min, got.Max)
	}
	if m := time.Duration(got.Median); m < 85*time.Millisecond || m > 95*time.Millisecond {
		t.Errorf("the median is %s", m)
	}
	for i, slot := range got.Slots {
		if want := begin.Add(time.Hour + time.Duration(i)*latencySlot); !slot.At.Equal(want) || slot.Min > slot.Median || slot.Median > slot.Max || slot.Min == 0 {
			t.Errorf("slot %d is %+v, and begins at %s", i, slot, want)
		}
	}
	if left := l.read(end.Add(20 * time.Minute)); len(left.Slots) != 20 || left.Slots[0].At != got.Slots[10].At {
		t.Errorf("after twenty minutes without an answer %d slots are left", len(left.Slots))
	}
	if left := l.read(end.Add(2 * time.Hour)); len(left.Slots) > 0 || left.Max != 0 {
		t.Errorf("after two hours there are %d slots", len(left.Slots))
	}
	l.add(end.Add(-10*time.Minute), time.Second) // the clock was set back
	if kept := l.read(end); len(kept.Slots) != latencySlots || time.Duration(kept.Max) < 999*time.Millisecond {
		t.Errorf("a clock that was set back leaves %d slots, up to %s", len(kept.Slots), kept.Max)
	}
	for _, far := range []time.Duration{-1000 * time.Hour, 1000 * time.Hour} {
		again := *l
		again.add(end.Add(far), time.Second)
		if kept := again.read(end.Add(far)); len(kept.Slots) != 1 {
			t.Errorf("a clock that is set by %s leaves %d slots", far, len(kept.Slots))
		}
	}
	var none *latency
	if got := none.read(end); got.Slots == nil || len(got.Slots) > 0 {
		t.Errorf("without an answer there is %+v", got)
	}
}

// The median of a slot is right with few, and near with more than are kept.
func TestMedianOfASlot(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	for n, slack := range map[int]time.Duration{1: time.Millisecond, 5: time.Millisecond, latencySamples: time.Millisecond, 5000: 400 * time.Millisecond} {
		l := &latency{number: slotOf(at)}
		for _, i := range rand.Perm(n) {
			l.add(at, time.Second*time.Duration(i+1)/time.Duration(n))
		}
		want := time.Second * time.Duration(n/2+1) / time.Duration(n)
		if got := time.Duration(l.read(at).Median); (got - want).Abs() > slack {
			t.Errorf("of %d the median is %s, want %s", n, got, want)
		}
	}
}

// What probes found is told of the members that are asked for; a failure has no round
// trip.
func TestLatencyOfMembers(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2"))
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	r.prober.find("192.0.2.1", 5, probe.Result{OK: true, RTT: 3 * time.Millisecond})
	r.prober.find("192.0.2.1", 1, probe.Result{RTT: time.Second, Reason: "no answer"})
	r.prober.find("192.0.2.1", 1, probe.Result{Void: true, RTT: time.Second})
	got, err := r.Watch.Latency(t.Context(), "web", []netip.Addr{second, first})
	if err != nil || len(got) != 2 || got[0].Address != second || len(got[0].Slots) != 0 || got[1].Address != first || got[1].Min != got[1].Max || time.Duration(got[1].Median).Round(time.Microsecond) != 3*time.Millisecond {
		t.Errorf("%+v, %v", got, err)
	}
	for pool, member := range map[string]string{"web": "192.0.2.3", "none": "192.0.2.1"} {
		if _, err := r.Watch.Latency(t.Context(), pool, []netip.Addr{netip.MustParseAddr(member)}); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("%s of %s: %v", member, pool, err)
		}
	}
}
