package probe

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
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

	set     sync.Mutex // serialises Set and Close; guards what follows
	closed  bool
	members map[Key]*member
	defs    map[string]*definition
	closers []func()
}

// definition is what all members with the same check share.
type definition struct {
	check   upkeep.Check
	asker   asker
	err     error // of prepare
	members int
}

// member is one target with one check.
type member struct {
	key  Key
	def  *definition
	stop func() // of a watcher
	gate *gate
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
	return &Engine{
		options: o,
		log:     o.Logger,
		members: make(map[Key]*member),
		defs:    make(map[string]*definition),
	}, nil
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
	for key, m := range e.members {
		if _, kept := specs[key]; !kept {
			e.remove(m)
		}
	}
	for key, spec := range specs {
		if m, there := e.members[key]; there {
			m.gate.replace(spec.Observe)
			continue
		}
		e.add(key, spec)
	}
}

func (e *Engine) add(key Key, spec Spec) {
	m := &member{key: key, def: e.define(spec.Check), gate: &gate{observe: spec.Observe}}
	e.members[key] = m
	if w, ok := m.def.asker.(watcher); ok {
		stop, err := w.watch(watched{target: spec.Target, name: spec.Name, check: m.def.check, report: m.gate.report})
		if err != nil {
			e.log.Error("a check cannot be run", "target", spec.Target, "type", m.def.check.Type, "error", err)
			return
		}
		m.stop = stop
	}
}

func (e *Engine) remove(m *member) {
	m.gate.close()
	if m.stop != nil {
		m.stop()
	}
	delete(e.members, m.key)
	m.def.members--
	if m.def.members == 0 {
		delete(e.defs, digest(m.def.check))
	}
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
	e.Set(nil)
	e.set.Lock()
	defer e.set.Unlock()
	e.closed = true
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
