package probe

import "time"

// A clock is the time that probes are scheduled and timed out by. It runs with
// the system's monotonic clock, but stands still while the loop was kept from
// running: by a suspended machine, a stopped process, a host without processor
// time to give. A target is then not blamed for an answer that nobody could take
// in; every probe in flight gets the rest of its timeout after the pause, and
// missed slots are not made up for in a heap.
type clock struct {
	base     time.Time
	skew     time.Duration // how long the clock has stood still
	expected time.Duration // when the waiting loop should run again, by this clock
	paused   time.Duration // when, by this clock, it last stood still for long
}

// longPause is a pause after which answers may be lost that were on their way: a
// machine that sleeps takes in nothing, and queues are finite.
const longPause = time.Second

// slack is how late the loop may come without the clock being stopped for it:
// ordinary scheduling, shorter than any sensible timeout.
const slack = 20 * time.Millisecond

func newClock() clock { return clock{base: time.Now(), expected: forever} }

// raw is the time since the loop began in nanoseconds, pauses and all.
func (c *clock) raw() int64 { return int64(time.Since(c.base)) }

// now is the time since the loop began, without the pauses. Whoever calls it
// while the loop should be running, but is not, finds the pause out.
func (c *clock) now() time.Duration {
	now := time.Duration(c.raw()) - c.skew
	if late := now - c.expected; late > slack {
		c.skew += late
		now -= late
		if late >= longPause {
			c.paused = now
		}
	}
	return now
}

// expect says when the loop, which is about to wait, means to run again.
func (c *clock) expect(t time.Duration) { c.expected = t }

// arrive is now for the loop when it runs again.
func (c *clock) arrive() time.Duration {
	now := c.now()
	c.expected = forever
	return now
}
