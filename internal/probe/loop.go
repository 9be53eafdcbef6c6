package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// A loop runs the probes of any number of members from one goroutine: a timer
// wheel says what is due, one epoll descriptor says what was answered. A
// goroutine per probe, the usual way in Go, was turned down: it costs two to
// three times the processor time and ten times the memory at 100,000 members.
//
// Everything here is guarded by mu, which the loop holds while it works and lets
// go while it waits. Whoever holds mu sees no probe half done.
type loop struct {
	log  *slog.Logger
	load *load
	work float64 // share of a processor, as estimated; kept by the engine

	mu         sync.Mutex
	wheel      wheel
	clock      clock
	table      []*member // by member.index, for what comes back from the kernel
	free       []int32   // indices of table that are not in use
	ping       pinger
	stats      Stats
	complained time.Time
	wakeAt     time.Duration // when the loop wakes by itself; forever if it doesn't
	closed     bool

	to      unix.RawSockaddrInet6 // scratch
	begun   []begun
	epoll   int
	wakeup  int // eventfd that ends a wait
	done    chan struct{}
	runners sync.WaitGroup
}

const (
	forever = time.Duration(1<<63 - 1)
	// spacing is the least time between two rounds of the loop. It gathers work
	// into batches: at some thousand probes a second waking up costs as much as
	// all else that is not the kernel's. It does not spoil the round trip times:
	// ping takes the kernel's arrival time, tcp the kernel's own measure.
	spacing = 4 * time.Millisecond
	// yieldEvery keeps the goroutine from looking like one that hogs its
	// processor, which the runtime's monitor thread wakes 5,000 times a second to
	// watch (8 % of the cost of all); the runtime's limit is 10 ms.
	yieldEvery = 6 * time.Millisecond
	// retry is how long a probe is put off that this machine had no room for.
	retry = 100 * time.Millisecond
)

// phase of a member's life.
type phase uint8

const (
	idle   phase = iota // waits for its next probe
	flying              // waits for an answer
	gone                // removed; whatever still comes back is dropped
)

// member is one target with one check.
type member struct {
	key     Key
	def     *definition
	loop    *loop // nil of a watcher's
	observe func(Result) Next
	host    string // target as declared
	name    string // what the member is published under
	addr    netip.Addr
	names   *resolution // where addr comes from, when host is a name

	// Schedule; times are of the loop's clock.
	next, prev  *member // in the wheel's slot
	due         time.Duration
	level, slot uint8
	timed       bool
	phase       phase
	slotAt      time.Duration // next regular slot
	timeout     time.Duration // of the next probe, or of the one in flight
	sent        time.Duration // when the probe in flight was sent

	index    int32 // in loop.table
	fd       int32 // of a tcp probe in flight
	stamp    int64 // marks the last ping sent
	answered int64 // stamp of the last ping that was answered
	cancel   context.CancelFunc

	gate *gate  // of a watcher
	stop func() // of a watcher
}

// load counts the goroutines of runners, over all loops.
type load struct {
	now   atomic.Int64
	limit int64
}

func newLoop(log *slog.Logger, shared *load) (*loop, error) {
	l := &loop{log: log, load: shared, clock: newClock(), wakeAt: forever, done: make(chan struct{})}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("opening an epoll descriptor: %w", err)
	}
	if l.wakeup, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.epoll)
		return nil, fmt.Errorf("opening an event descriptor: %w", err)
	}
	if err := l.poll(l.wakeup, unix.EPOLLIN, eventWakeup, 0); err != nil {
		unix.Close(l.epoll)
		unix.Close(l.wakeup)
		return nil, err
	}
	l.ping.init()
	go l.run()
	return l, nil
}

// What an epoll event is about: a member's index, or one of these.
const (
	eventWakeup = -1 - iota
	eventPing4
	eventPing6
)

// poll has the loop woken by events on fd. tag comes back with them.
func (l *loop) poll(fd int, events uint32, index int32, tag int32) error {
	event := unix.EpollEvent{Events: events, Fd: index, Pad: tag}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("adding a descriptor to epoll: %w", err)
	}
	return nil
}

func (l *loop) run() {
	defer close(l.done)
	events := make([]unix.EpollEvent, 1024)
	for wait, yielded := time.Duration(0), time.Duration(0); ; {
		n := l.wait(events, wait)
		l.mu.Lock()
		now := l.clock.arrive()
		if now-yielded > yieldEvery {
			yielded = now
			l.mu.Unlock()
			runtime.Gosched()
			l.mu.Lock()
		}
		// Not before the lock is held for good: what close wrote to wakeup would
		// be read below together with an earlier wake, and never be acted upon.
		if l.closed {
			l.mu.Unlock()
			return
		}
		for {
			for i := range events[:n] {
				l.handle(&events[i])
			}
			if n < len(events) {
				break
			}
			n = l.wait(events, 0)
		}
		l.lookAtBegun()
		// All that the kernel holds is taken in before any timeout is declared.
		l.ping.receive(l)
		l.expire(now)
		l.ping.flush(l)
		wait = l.plan()
		l.mu.Unlock()
		l.doze(spacing)
	}
}

// wait waits for events.
func (l *loop) wait(events []unix.EpollEvent, wait time.Duration) int {
	ms := -1
	if wait != forever {
		ms = int((wait + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(l.epoll, events, ms)
	if err != nil && !errors.Is(err, unix.EINTR) {
		// Only a programming error leads here; without a pause it would spin.
		l.log.Error("waiting for probes", "error", err)
		l.doze(retry)
	}
	return max(n, 0)
}

func (l *loop) doze(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // cut short by a signal is as good
}

// plan says how long the loop may wait.
func (l *loop) plan() time.Duration {
	next, any := l.wheel.next()
	if len(l.begun) > 0 {
		next, any = 0, true
	}
	if !any {
		l.wakeAt = forever
		l.clock.expect(forever)
		return forever
	}
	now := l.clock.now()
	wait := max(0, next-now-spacing)
	l.wakeAt = now + spacing + wait
	l.clock.expect(now + spacing + wait)
	return wait
}

// wake ends a wait that would last beyond t. mu is held.
func (l *loop) wake(t time.Duration) {
	if t >= l.wakeAt {
		return
	}
	l.wakeAt = t
	one := [8]byte{1}
	_, _ = unix.Write(l.wakeup, one[:]) // fails only when it is set already
}

func (l *loop) handle(event *unix.EpollEvent) {
	switch event.Fd {
	case eventWakeup:
		var count [8]byte
		_, _ = unix.Read(l.wakeup, count[:])
	case eventPing4, eventPing6: // received in each round anyway
	default:
		m := l.table[event.Fd]
		if m == nil || m.phase != flying || m.fd != event.Pad {
			return // left over from a probe that ended in this very round
		}
		tcpReady(l, m)
	}
}

// expire starts the probes that are due and ends those whose time is over.
func (l *loop) expire(now time.Duration) {
	for m := l.wheel.advance(now); m != nil; m = l.wheel.advance(now) {
		if m.phase == flying {
			l.timeOut(m)
		} else {
			l.start(m, now)
		}
	}
}

func (l *loop) start(m *member, now time.Duration) {
	interval := time.Duration(m.def.check.Interval)
	if late := now - m.slotAt; late >= interval {
		l.stats.Skipped += uint64(late / interval)
		l.complain("the probe engine does not keep up: regular slots are left out", "skipped", l.stats.Skipped)
	}
	m.slotAt = slotAfter(m.slotAt, interval, now)
	m.sent = now
	if m.def.err != nil {
		l.finish(m, Result{Void: true, Reason: clean(m.def.err.Error())})
		return
	}
	if m.names != nil {
		addr, reason, known := m.names.current()
		if !known { // still asking for the first time
			l.putOff(m, retry)
			return
		}
		if reason != "" {
			// Nobody was asked: name servers that fail are no sick member.
			l.finish(m, Result{Void: true, Reason: reason})
			return
		}
		m.addr = addr
	}
	m.phase = flying
	switch a := m.def.asker.(type) {
	case starter:
		l.wheel.set(m, now+m.timeout)
		a.start(l, m)
	case runner:
		l.startRunner(m, a)
	}
}

// putOff tries a probe again shortly, because this machine had no room for it,
// and moves its schedule along, so that load that comes in heaps spreads itself.
func (l *loop) putOff(m *member, by time.Duration) {
	m.phase = idle
	l.wheel.set(m, l.clock.now()+by)
	m.slotAt += by
}

// lack puts a probe off that this machine had no room for.
func (l *loop) lack(m *member, err error) {
	l.stats.PutOff++
	l.complain("probes are put off: this machine has no room for them", "error", err, "put_off", l.stats.PutOff)
	l.putOff(m, retry)
}

// complain logs a warning, at most one in ten seconds.
func (l *loop) complain(what string, details ...any) {
	if time.Since(l.complained) > 10*time.Second {
		l.complained = time.Now()
		l.log.Warn(what, details...)
	}
}

func (l *loop) startRunner(m *member, a runner) {
	if l.load.now.Add(1) > l.load.limit {
		l.load.now.Add(-1)
		l.lack(m, errNoRoom)
		return
	}
	l.wheel.set(m, m.sent+m.timeout)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	t := target{addr: m.addr, host: m.host, name: m.name, timeout: m.timeout}
	l.runners.Go(func() {
		r, err := a.run(ctx, t)
		cancel()
		l.load.now.Add(-1)
		l.mu.Lock()
		defer l.mu.Unlock()
		if m.phase == gone {
			return
		}
		m.cancel = nil
		switch {
		case isLack(err):
			l.lack(m, err)
		case err != nil:
			l.finish(m, Result{Void: true, Reason: clean(err.Error())})
		default:
			l.finish(m, r)
		}
		l.wake(m.due)
	})
}

// timeOut ends the probe in flight. A runner says itself how far it got.
func (l *loop) timeOut(m *member) {
	switch a := m.def.asker.(type) {
	case starter:
		l.stats.Timeouts++
		l.finish(m, a.expire(l, m))
	case runner:
		l.stats.Timeouts++
		m.cancel()
	}
}

// finish hands a result to the observer and makes the member wait for its next
// probe.
func (l *loop) finish(m *member, r Result) {
	if r.At.IsZero() {
		r.At = time.Now()
	}
	if silent := !r.OK && !r.Refused && !r.Void; silent && m.sent < l.clock.paused {
		r = Result{At: r.At, Void: true, Reason: "no answer, but the monitor itself stood still meanwhile"}
	}
	if m.names != nil {
		r.Addr = m.addr
	}
	m.phase = idle
	l.stats.Probes++
	l.stats.Results.note(r)
	l.follow(m, m.observe(r))
}

// fail ends a probe by the error of a system call.
func (l *loop) fail(m *member, err error) {
	if isLack(err) {
		l.lack(m, err)
		return
	}
	reason, refused := explain(err)
	l.finish(m, Result{Reason: reason, Refused: refused})
}

// follow does what the observer asks for.
func (l *loop) follow(m *member, next Next) {
	limit := time.Duration(m.def.check.Timeout)
	m.timeout = limit
	if 0 < next.Timeout && next.Timeout < limit {
		m.timeout = max(next.Timeout, minTimeout)
	}
	now := l.clock.now()
	m.slotAt = slotAfter(m.slotAt, time.Duration(m.def.check.Interval), now)
	due := m.slotAt
	if next.After > 0 {
		due = min(due, now+next.After)
	}
	l.wheel.set(m, due)
}

// minTimeout is below what any network needs; it keeps a mistaken observer from
// asking for probes that cannot be answered.
const minTimeout = 2 * time.Millisecond

// slotAfter is the first time after now on the grid that slot lies on. A probe
// that overran its slot has that slot left out; the grid never shifts.
func slotAfter(slot, interval, now time.Duration) time.Duration {
	if slot > now {
		return slot
	}
	return slot + ((now-slot)/interval+1)*interval
}

// add lets m be probed: for the first time within warmUp, then on its own place
// in the interval, both at the same share of the way.
func (l *loop) add(m *member, share float64) {
	interval := time.Duration(m.def.check.Interval)
	if n := len(l.free); n > 0 {
		m.index, l.free = l.free[n-1], l.free[:n-1]
		l.table[m.index] = m
	} else {
		m.index = int32(len(l.table))
		l.table = append(l.table, m)
	}
	m.timeout = time.Duration(m.def.check.Timeout)
	now := l.clock.now()
	first := now + time.Duration(share*float64(min(interval, warmUp)))
	m.slotAt = slotAfter(now+time.Duration(share*float64(interval))-interval, interval, first)
	l.wheel.set(m, first)
	l.wake(m.due)
}

// warmUp is the time within which new members are probed for the first time: a
// check each hour should not stay unknown for an hour.
const warmUp = time.Second

// remove ends m at once.
func (l *loop) remove(m *member) {
	if m.phase == flying {
		switch a := m.def.asker.(type) {
		case starter:
			a.cancel(l, m)
		case runner:
			m.cancel()
		}
	}
	m.phase = gone
	l.wheel.clear(m)
	l.table[m.index] = nil
	l.free = append(l.free, m.index)
}

func (l *loop) close() {
	l.mu.Lock()
	l.closed = true
	l.wakeAt = forever
	l.wake(0)
	l.mu.Unlock()
	<-l.done
	l.runners.Wait()
	l.ping.close()
	unix.Close(l.epoll)
	unix.Close(l.wakeup)
}

// reasonSilent is what is said of a target that did not answer in time.
func reasonSilent(timeout time.Duration) string {
	return "no answer within " + upkeep.Duration(timeout.Round(time.Millisecond)).String()
}
