package probe

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"upkeep"
)

// Resolver finds the addresses of targets that are names. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options of an engine; the zero value will do.
type Options struct {
	Logger   *slog.Logger // discarded when nil
	Resolver Resolver     // net.DefaultResolver when nil
	// HeartbeatListen is the UDP address that beats arrive at, such as ":5353".
	// It is opened when the first heartbeat check is set.
	HeartbeatListen string
	// MaxExec is the number of plugins that may run at once, 64 when zero. A
	// check that finds no place is put off by 100 ms and keeps its new place in
	// the schedule, so that the load spreads itself.
	MaxExec int
	// MaxInFlight is the same for all checks that take a goroutine; 10,000 when zero.
	MaxInFlight int
}

// Engine runs checks. All its methods may be called from any goroutine, except
// from within Observe.
type Engine struct {
	options Options
	log     *slog.Logger
	names   *names
	load    load
	plugins execSlots

	set     sync.Mutex // serialises Set and Close; guards what follows
	closed  bool
	loops   []*loop
	members map[Key]*member
	defs    map[string]*definition
	shares  map[time.Duration]*share
	closers []func()

	beats atomic.Pointer[receiver] // nil until the first heartbeat check
}

// definition is what all members with the same check share.
type definition struct {
	check   upkeep.Check
	asker   asker
	err     error // of prepare
	members int
}

// Stats counts what an engine did since it began.
type Stats struct {
	Probes     uint64 // ended, whatever the result
	Results    Tally  // of probes and of heartbeats
	Timeouts   uint64
	Skipped    uint64 // regular slots left out because the engine did not keep up
	PutOff     uint64 // put off because this machine had no room for them
	Late       uint64 // answers to pings after their timeout
	Duplicates uint64 // second answers to a ping
	Strays     uint64 // answers to pings that were never sent, or from a wrong host
	Overflow   uint64 // ICMP messages that the socket's queue had no room for
	// Paused is how long the engine was kept from running: a suspended machine,
	// or one without processor time to give. No target is blamed for it.
	Paused time.Duration
	Beats  BeatStats
}

// New makes an engine that asks nobody yet.
func New(o Options) (*Engine, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.MaxExec == 0 {
		o.MaxExec = 64
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 10_000
	}
	e := &Engine{
		options: o,
		log:     o.Logger,
		load:    load{limit: int64(o.MaxInFlight)},
		plugins: execSlots{limit: int64(o.MaxExec)},
		members: make(map[Key]*member),
		defs:    make(map[string]*definition),
		shares:  make(map[time.Duration]*share),
	}
	l, err := newLoop(e.log, &e.load)
	if err != nil {
		return nil, fmt.Errorf("starting the probe engine: %w", err)
	}
	e.loops = []*loop{l}
	e.names = newNames(o.Resolver)
	return e, nil
}

// Set makes specs the whole of what is asked. Keys that were there already keep
// their place in the schedule and take over the new observer; those that are
// missing stop: their Observe is not called again once Set has returned.
func (e *Engine) Set(specs map[Key]Spec) {
	e.set.Lock()
	defer e.set.Unlock()
	if e.closed {
		return
	}
	e.reconcile(specs)
}

func (e *Engine) reconcile(specs map[Key]Spec) {
	var gone, fresh []*member
	for key, m := range e.members {
		if _, kept := specs[key]; !kept {
			gone = append(gone, m)
		}
	}
	for key, spec := range specs {
		if e.members[key] == nil {
			fresh = append(fresh, e.newMember(key, spec))
		}
	}
	e.remove(gone)
	e.replace(specs)
	e.add(fresh)
}

// chunk is how many members are changed in one go while their loop waits.
const chunk = 512

// locked does f to all members, leaving their loops room to work in between.
func (e *Engine) locked(members []*member, f func(*loop, *member)) {
	byLoop := make(map[*loop][]*member)
	for _, m := range members {
		byLoop[m.loop] = append(byLoop[m.loop], m)
	}
	for l, mine := range byLoop {
		for some := range slices.Chunk(mine, chunk) {
			l.mu.Lock()
			for _, m := range some {
				f(l, m)
			}
			l.mu.Unlock()
		}
	}
}

// loopFull is the share of a processor at which one more loop is begun, as far as
// there are processors. One is enough for nearly everybody, and two cost more
// than one for the same work.
const loopFull = 0.6

// workOf estimates the share of a processor that a check takes in its loop, from
// what was measured on loopback (docs/benchmarks.md); a runner's work is elsewhere.
func workOf(d *definition) float64 {
	each := 10 * time.Microsecond
	if d.check.Type == upkeep.CheckTCP {
		each = 60 * time.Microsecond
	}
	return float64(each) / float64(d.check.Interval)
}

// place is the loop for the next member.
func (e *Engine) place(d *definition) *loop {
	least := slices.MinFunc(e.loops, func(a, b *loop) int { return cmp.Compare(a.work, b.work) })
	if least.work >= loopFull && len(e.loops) < runtime.GOMAXPROCS(0) {
		if l, err := newLoop(e.log, &e.load); err == nil {
			e.loops = append(e.loops, l)
			least = l
		} else {
			e.log.Warn("the probe engine stays on fewer processors", "error", err)
		}
	}
	least.work += workOf(d)
	return least
}

func (e *Engine) newMember(key Key, spec Spec) *member {
	m := &member{
		key: key, def: e.define(spec.Check), observe: spec.Observe,
		host: spec.Target, name: spec.Name, fd: -1,
	}
	if addr, err := netip.ParseAddr(spec.Target); err == nil {
		m.addr = addr.Unmap()
	} else if _, watches := m.def.asker.(watcher); !watches {
		m.names = e.names.watch(spec.Target, spec.Known)
	}
	return m
}

func (e *Engine) add(fresh []*member) {
	var looped []*member
	for _, m := range fresh {
		e.members[m.key] = m
		w, watches := m.def.asker.(watcher)
		if !watches {
			m.loop = e.place(m.def)
			looped = append(looped, m)
			continue
		}
		m.gate = &gate{observe: m.observe}
		stop, err := w.watch(watched{target: m.host, name: m.name, check: m.def.check, report: m.gate.report})
		if err != nil {
			e.log.Error("a check cannot be run", "target", m.host, "type", m.def.check.Type, "error", err)
			m.gate.report(Result{Void: true, Reason: clean(err.Error())})
			continue
		}
		m.stop = stop
	}
	e.locked(looped, func(l *loop, m *member) {
		l.add(m, e.share(time.Duration(m.def.check.Interval)))
	})
}

// share of the interval at which the next member takes its place. Steps by the
// golden ratio from a random start keep any number of members evenly spread,
// however many come and go, where i/n would ask to move those that are there.
func (e *Engine) share(interval time.Duration) float64 {
	s := e.shares[interval]
	if s == nil {
		s = &share{rand.Float64()}
		e.shares[interval] = s
	}
	return s.next()
}

type share struct{ at float64 }

func (s *share) next() float64 {
	s.at = math.Mod(s.at+math.Phi-1, 1)
	return s.at
}

// replace gives members that stay their new observers.
func (e *Engine) replace(specs map[Key]Spec) {
	kept := make([]*member, 0, len(e.members))
	for _, m := range e.members {
		if m.gate != nil {
			m.gate.replace(specs[m.key].Observe)
			continue
		}
		kept = append(kept, m)
	}
	e.locked(kept, func(_ *loop, m *member) { m.observe = specs[m.key].Observe })
}

func (e *Engine) remove(gone []*member) {
	var looped []*member
	for _, m := range gone {
		if m.gate != nil {
			m.gate.close()
			if m.stop != nil {
				m.stop()
			}
		} else {
			m.loop.work -= workOf(m.def)
			looped = append(looped, m)
		}
		if m.names != nil {
			e.names.leave(m.names)
		}
		delete(e.members, m.key)
		m.def.members--
		if m.def.members == 0 {
			delete(e.defs, digest(m.def.check))
		}
	}
	e.locked(looped, (*loop).remove)
}

// Kick asks keys now, beside their regular slots, which stay where they are.
// Keys that are being asked at this moment, and those that report by
// themselves, are left alone.
func (e *Engine) Kick(keys ...Key) {
	e.set.Lock()
	defer e.set.Unlock()
	members := make([]*member, 0, len(keys))
	for _, key := range keys {
		if m := e.members[key]; m != nil && m.gate == nil {
			members = append(members, m)
		}
	}
	e.locked(members, func(l *loop, m *member) {
		if m.phase == idle {
			l.wheel.set(m, l.clock.now())
			l.wake(m.due)
		}
	})
}

// Stats returns the counts so far.
func (e *Engine) Stats() Stats {
	e.set.Lock()
	defer e.set.Unlock()
	var sum Stats
	for _, l := range e.loops {
		l.mu.Lock()
		sum.add(l.stats)
		sum.Paused = max(sum.Paused, l.clock.skew)
		l.mu.Unlock()
	}
	if beats := e.beats.Load(); beats != nil {
		var results Tally
		sum.Beats, results = beats.snapshot()
		sum.Results.add(results)
	}
	return sum
}

func (s *Stats) add(o Stats) {
	s.Probes += o.Probes
	s.Results.add(o.Results)
	s.Timeouts += o.Timeouts
	s.Skipped += o.Skipped
	s.PutOff += o.PutOff
	s.Late += o.Late
	s.Duplicates += o.Duplicates
	s.Strays += o.Strays
	s.Overflow += o.Overflow
}

// define returns the shared definition of c, made anew when nobody has it.
func (e *Engine) define(c upkeep.Check) *definition {
	c = c.WithDefaults()
	id := digest(c)
	def := e.defs[id]
	if def == nil {
		def = &definition{check: c}
		if kind, known := checkTypes[c.Type]; known {
			def.asker, def.err = kind.prepare(e, c)
		} else {
			def.err = fmt.Errorf("check type %q is not known", c.Type)
		}
		e.defs[id] = def
	}
	def.members++
	return def
}

// Preflight says what this machine lacks for check c; nil when nothing.
func (e *Engine) Preflight(c upkeep.Check) error {
	kind, known := checkTypes[c.Type]
	if !known {
		return fmt.Errorf("check type %q is not known", c.Type)
	}
	if kind.preflight == nil {
		return nil
	}
	return kind.preflight(e, c.WithDefaults())
}

// onClose has f called when the engine closes. For use by prepare.
func (e *Engine) onClose(f func()) { e.closers = append(e.closers, f) }

// Close stops all checks and frees everything. No Observe is called after it
// has returned. Closing twice is harmless.
func (e *Engine) Close() error {
	e.set.Lock()
	defer e.set.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	e.reconcile(nil)
	e.names.close()
	for _, l := range e.loops {
		l.close()
	}
	for _, f := range e.closers {
		f()
	}
	e.closers = nil
	return nil
}

// gate stands between a watcher and an observer: it serialises reports and
// closes when the member is gone.
type gate struct {
	mu      sync.Mutex
	observe func(Result) Next // nil once closed
}

func (g *gate) report(r Result) Next {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.observe == nil {
		return Next{}
	}
	if r.At.IsZero() {
		r.At = time.Now()
	}
	return g.observe(r)
}

func (g *gate) replace(observe func(Result) Next) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.observe = observe
}

func (g *gate) close() { g.replace(nil) }
