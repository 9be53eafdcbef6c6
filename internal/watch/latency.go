package watch

import (
	"context"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"upkeep"
)

// How much is kept of the round trips to a target: the last hour, in slots.
const (
	latencySlots   = 30
	latencySlot    = 2 * time.Minute
	latencySamples = 31 // of the present slot, from which its median is taken
)

// latency is what is kept of the round trips to one target: 256 bytes, made at the
// first answer and not stored. Each round trip itself, an hour of one a second, would
// take fifty times as much, and a histogram says nothing of when.
type latency struct {
	slots   [latencySlots]roundTrips // by number, modulo; of the present one but its median
	samples [latencySamples]uint16
	number  int32  // of the present slot: so many have passed since 1970
	seen    uint32 // round trips in the present slot
}

// roundTrips are the least, the middle and the greatest of a slot, as [shrink] makes
// them; all zero without any.
type roundTrips struct{ min, median, max uint16 }

// shrink keeps a round trip to a tenth of a microsecond, and longer ones to one in a
// thousand: 11 bits and an exponent of 5. Their order is that of what they stand for,
// and 0 is kept for none.
func shrink(d time.Duration) uint16 {
	n := uint32(min(max(d/100, 1), 1<<32-1))
	e := max(0, bits.Len32(n)-11)
	return uint16(e<<11) | uint16(n>>e)
}

func grow(code uint16) time.Duration {
	return time.Duration(uint64(code&(1<<11-1))<<(code>>11)) * 100
}

func slotOf(at time.Time) int32 { return int32(at.Unix() / int64(latencySlot/time.Second)) }

// turn goes on to a slot. A clock that was set back goes on with the present one, and
// one that is far off begins anew.
func (l *latency) turn(number int32) {
	ahead := number - l.number
	switch {
	case ahead <= 0 && ahead > -latencySlots:
	case ahead < 0 || ahead >= latencySlots:
		*l = latency{number: number}
	default:
		l.slots[l.number%latencySlots].median = l.median()
		for l.number < number {
			l.number++
			l.slots[l.number%latencySlots] = roundTrips{}
		}
		l.seen = 0
	}
}

// median is that of the present slot, 0 without any round trip in it.
func (l *latency) median() uint16 {
	sorted := l.samples
	some := sorted[:min(l.seen, latencySamples)]
	if len(some) == 0 {
		return 0
	}
	slices.Sort(some)
	return some[len(some)/2]
}

func (l *latency) add(at time.Time, rtt time.Duration) {
	l.turn(slotOf(at))
	code := shrink(rtt)
	s := &l.slots[l.number%latencySlots]
	if l.seen == 0 {
		s.min = code
	}
	s.min, s.max = min(s.min, code), max(s.max, code)
	// Each of a slot is as likely among the samples as any other.
	place := l.seen
	if place >= latencySamples {
		place = rand.Uint32N(l.seen + 1)
	}
	if place < latencySamples {
		l.samples[place] = code
	}
	l.seen++
}

// read returns what is known at a time.
func (l *latency) read(now time.Time) upkeep.Latency {
	told := upkeep.Latency{Slot: upkeep.Duration(latencySlot), Slots: []upkeep.LatencySlot{}}
	if l == nil {
		return told
	}
	as := *l
	as.turn(slotOf(now))
	as.slots[as.number%latencySlots].median = as.median()
	var least, most uint16
	var medians []uint16
	for number := as.number - latencySlots + 1; number <= as.number; number++ {
		s := as.slots[number%latencySlots]
		if s.max == 0 {
			continue
		}
		if len(medians) == 0 {
			least = s.min
		}
		least, most, medians = min(least, s.min), max(most, s.max), append(medians, s.median)
		told.Slots = append(told.Slots, upkeep.LatencySlot{At: time.Unix(int64(number)*int64(latencySlot/time.Second), 0).UTC(),
			Min: upkeep.Duration(grow(s.min)), Median: upkeep.Duration(grow(s.median)), Max: upkeep.Duration(grow(s.max))})
	}
	if len(medians) > 0 {
		slices.Sort(medians)
		told.Min, told.Median, told.Max = upkeep.Duration(grow(least)), upkeep.Duration(grow(medians[len(medians)/2])), upkeep.Duration(grow(most))
	}
	return told
}

// Latency returns the round trips of the last hour to members of a pool, in the order
// that they are asked for, or [upkeep.ErrNotFound].
func (w *Watch) Latency(_ context.Context, pool string, members []netip.Addr) ([]upkeep.Latency, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pools[pool]
	if p == nil {
		return nil, fmt.Errorf("pool %s: %w", pool, upkeep.ErrNotFound)
	}
	at := make(map[netip.Addr]int, len(p.spec.Members))
	for i, m := range p.spec.Members {
		at[m.Address] = i
	}
	now := w.cfg.Now()
	all := make([]upkeep.Latency, len(members))
	for i, address := range members {
		index, is := at[address]
		if !is {
			return nil, fmt.Errorf("member %s of pool %s: %w", address, pool, upkeep.ErrNotFound)
		}
		all[i] = w.targets[p.keys[index]].latency(now)
		all[i].Address = address
	}
	return all, nil
}

func (t *target) latency(now time.Time) upkeep.Latency {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trips.read(now)
}
