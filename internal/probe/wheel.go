package probe

import (
	"math/bits"
	"time"
)

// A wheel is a hierarchical timer wheel (Varghese and Lauck, 1987, scheme 7)
// over members: setting and clearing a timer is O(1) and allocates nothing. A
// heap was turned down because at 100,000 probes a second most timers are
// timeouts that are cleared before they are due, each at log n cache misses.
//
// A member is its own timer and has only one, since it either waits for its next
// probe or for the end of the one in flight.
const (
	wheelTick   = time.Millisecond
	wheelBits   = 8
	wheelSize   = 1 << wheelBits
	wheelLevels = 4 // 2^32 ticks: 49 days, far above MaxInterval
)

type wheel struct {
	now    int64 // the tick up to which everything was taken out
	levels [wheelLevels]wheelLevel
}

type wheelLevel struct {
	slots [wheelSize]*member // heads of doubly linked lists
	used  [wheelSize / 64]uint64
}

// tickOf rounds up: a timer never fires before its time.
func tickOf(t time.Duration) int64 { return int64((t + wheelTick - 1) / wheelTick) }

// set sets m's only timer to t, replacing an earlier setting.
func (w *wheel) set(m *member, t time.Duration) {
	w.clear(m)
	m.due = t
	w.place(m)
}

// place links m into the slot that its due time belongs to. What is due already
// goes to the next tick.
func (w *wheel) place(m *member) {
	tick := max(tickOf(m.due), w.now+1)
	// The level is that of the highest digit in which tick differs from now, so
	// that a slot holds ticks of one revolution only.
	level := (bits.Len64(uint64(tick^w.now)) - 1) / wheelBits
	if level >= wheelLevels {
		// Behind the end of a revolution of the highest level, which may be a moment
		// away: its slots are taken round, all but the one that is now.
		level = wheelLevels - 1
		tick = min(tick, (w.now>>(wheelBits*level)+wheelSize-1)<<(wheelBits*level))
	}
	slot := int(tick>>(wheelBits*level)) & (wheelSize - 1)
	l := &w.levels[level]
	m.level, m.slot = uint8(level), uint8(slot)
	m.next = l.slots[slot]
	if m.next != nil {
		m.next.prev = m
	}
	l.slots[slot] = m
	l.used[slot/64] |= 1 << (slot % 64)
	m.timed = true
}

// clear takes m's timer out; without one it does nothing.
func (w *wheel) clear(m *member) {
	if !m.timed {
		return
	}
	l := &w.levels[m.level]
	if m.prev != nil {
		m.prev.next = m.next
	} else {
		l.slots[m.slot] = m.next
		if m.next == nil {
			l.used[m.slot/64] &^= 1 << (m.slot % 64)
		}
	}
	if m.next != nil {
		m.next.prev = m.prev
	}
	m.next, m.prev, m.timed = nil, nil, false
}

// advance takes out one member that is due at t, or returns nil when there is
// none. The caller may set timers between calls; one that is due already comes
// out at the tick after this one.
func (w *wheel) advance(t time.Duration) *member {
	for end := int64(t / wheelTick); ; {
		if m := w.levels[0].slots[w.now&(wheelSize-1)]; m != nil {
			w.clear(m)
			return m
		}
		next := w.nextTick()
		if next > end {
			// Nothing until then; but the lower levels may only be skipped
			// over when no upper slot begins on the way.
			w.now = max(w.now, end)
			return nil
		}
		w.now = next
		w.cascade()
	}
}

// cascade moves what an upper slot that begins now holds into the levels below.
func (w *wheel) cascade() {
	for level := 1; level < wheelLevels && w.now&(1<<(wheelBits*level)-1) == 0; level++ {
		l := &w.levels[level]
		slot := int(w.now>>(wheelBits*level)) & (wheelSize - 1)
		m := l.slots[slot]
		l.slots[slot] = nil
		l.used[slot/64] &^= 1 << (slot % 64)
		for m != nil {
			next := m.next
			m.next, m.prev, m.timed = nil, nil, false
			w.settle(m)
			m = next
		}
	}
}

// settle places m like place, but lets the present tick be.
func (w *wheel) settle(m *member) {
	if tickOf(m.due) > w.now {
		w.place(m)
		return
	}
	l := &w.levels[0]
	slot := int(w.now) & (wheelSize - 1)
	m.level, m.slot = 0, uint8(slot)
	m.next = l.slots[slot]
	if m.next != nil {
		m.next.prev = m
	}
	l.slots[slot] = m
	l.used[slot/64] |= 1 << (slot % 64)
	m.timed = true
}

// nextTick is the first tick after now at which a timer is due or an upper slot
// that is in use begins; a very late one when there is none.
func (w *wheel) nextTick() int64 {
	const never = 1 << 62
	first := int64(never)
	for level := range wheelLevels {
		shift := wheelBits * level
		digit := w.now >> shift
		if slot, ok := w.levels[level].after(int(digit) & (wheelSize - 1)); ok {
			base := digit &^ (wheelSize - 1)
			if slot <= int(digit)&(wheelSize-1) {
				base += wheelSize
			}
			first = min(first, (base+int64(slot))<<shift)
		}
	}
	return first
}

// after is the first used slot after the given one, round the wheel.
func (l *wheelLevel) after(slot int) (int, bool) {
	for i := range wheelSize/64 + 1 {
		word := (slot/64 + i) % (wheelSize / 64)
		set := l.used[word]
		switch {
		case i == 0:
			set &= ^uint64(0) << (slot % 64) << 1
		case i == wheelSize/64:
			set &= 1<<(slot%64)<<1 - 1
		}
		if set != 0 {
			return word*64 + bits.TrailingZeros64(set), true
		}
	}
	return 0, false
}

// next is when advance will have something to do, rounded to the tick; ok is
// false when no timer is set. It may be early by what a cascade needs.
func (w *wheel) next() (t time.Duration, ok bool) {
	if w.levels[0].slots[w.now&(wheelSize-1)] != nil {
		return time.Duration(w.now) * wheelTick, true
	}
	tick := w.nextTick()
	return time.Duration(tick) * wheelTick, tick < 1<<62
}
