package probe

import (
	"context"
	"net/netip"
	"time"

	"upkeep"
)

// checkType is one way to ask a target. Exactly one of its asker forms results
// from prepare.
type checkType struct {
	// prepare makes what all targets of one definition share: compiled
	// expressions, TLS settings. An error makes every probe of the definition
	// void, with the error as its reason.
	prepare func(e *Engine, c upkeep.Check) (asker, error)
	// preflight says what this machine lacks for the check; nil when nothing can
	// be missing. It may open sockets and files but leaves nothing behind.
	preflight func(e *Engine, c upkeep.Check) error
}

// checkTypes is the registry: a check type is a file of its own and a line here.
var checkTypes = map[string]checkType{
	upkeep.CheckPing:      {prepare: preparePing, preflight: preflightPing},
	upkeep.CheckTCP:       {prepare: prepareTCP},
	upkeep.CheckHTTP:      {prepare: prepareHTTP},
	upkeep.CheckHTTPS:     {prepare: prepareHTTP, preflight: preflightHTTPS},
	upkeep.CheckHeartbeat: {prepare: prepareHeartbeat, preflight: preflightHeartbeat},
	upkeep.CheckDNS:       {prepare: prepareDNS, preflight: preflightDNS},
	upkeep.CheckExec:      {prepare: prepareExec, preflight: preflightExec},
}

// asker is a prepared check definition: a runner, a starter or a watcher.
type asker any

// runner asks by blocking calls, in a goroutine of its own for each probe.
type runner interface {
	// run asks once. ctx ends when the timeout is over; t.timeout says how long
	// that is, for the reason. An error of which isLack is true puts the probe off;
	// any other makes it void.
	run(ctx context.Context, t target) (Result, error)
}

// target is whom a runner asks.
type target struct {
	addr    netip.Addr // resolved and pinned
	host    string     // as declared: an address or a host name
	name    string     // what the member is published under
	timeout time.Duration
}

// starter asks without blocking, inside the event loop, with its lock held.
type starter interface {
	// start sends the question; the type's own code calls loop.finish when the
	// answer is there.
	start(l *loop, m *member)
	// expire gives up when the timeout is over and says why.
	expire(l *loop, m *member) Result
	// cancel drops a question without a result.
	cancel(l *loop, m *member)
}

// watcher takes what members report by themselves.
type watcher interface {
	// watch begins to listen for the member. It must return at once. stop ends
	// it; after stop has returned w.report has no effect.
	watch(w watched) (stop func(), err error)
}

// watched is a member that reports by itself.
type watched struct {
	target string // address or host name
	name   string // what the member is published under
	check  upkeep.Check
	// report hands over a result, filling in At when it is zero, and returns what
	// the observer asks for. It may be called from any goroutine; calls for one
	// member are serialised. It does nothing once the member is gone.
	report func(Result) Next
}
