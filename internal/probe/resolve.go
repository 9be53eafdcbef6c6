package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// names resolves targets that are names, beside the checks: a probe takes the
// address that was found last and never waits for a name server.
type names struct {
	resolver Resolver
	ctx      context.Context
	cancel   context.CancelFunc
	slots    chan struct{} // bounds the lookups at any one time
	running  sync.WaitGroup

	mu  sync.Mutex
	all map[string]*resolution
}

const (
	lookupTimeout = 5 * time.Second
	lookupEvery   = 30 * time.Second // about as long as the TTLs in use with failover
	lookupRetry   = 5 * time.Second
	lookupsAtOnce = 16
)

// resolution is what is known of one name.
type resolution struct {
	name   string
	users  int // guarded by names.mu
	cancel context.CancelFunc

	mu     sync.Mutex
	addr   netip.Addr // the pinned one; kept when a lookup fails
	reason string     // why there is none
	asked  bool
}

func newNames(r Resolver) *names {
	ctx, cancel := context.WithCancel(context.Background())
	return &names{
		resolver: r, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, lookupsAtOnce),
		all:   make(map[string]*resolution),
	}
}

// watch keeps a name resolved until leave is called as often. known is the
// address that was found in an earlier life, zero for none; it stands in if the
// first lookup fails.
func (n *names) watch(name string, known netip.Addr) *resolution {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.all[name]; r != nil {
		r.users++
		return r
	}
	ctx, cancel := context.WithCancel(n.ctx)
	r := &resolution{name: name, users: 1, cancel: cancel, addr: known.Unmap()}
	n.all[name] = r
	n.running.Go(func() { n.keep(ctx, r) })
	return r
}

func (n *names) leave(r *resolution) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.users--; r.users == 0 {
		r.cancel()
		delete(n.all, r.name)
	}
}

func (n *names) close() {
	n.cancel()
	n.running.Wait()
}

// keep looks the name up again and again.
func (n *names) keep(ctx context.Context, r *resolution) {
	for ctx.Err() == nil {
		select {
		case n.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		found := n.lookup(ctx, r)
		<-n.slots
		wait := lookupRetry
		if found {
			wait = lookupEvery
		}
		// Some jitter, so that names that were added together part.
		wait += time.Duration(rand.Int64N(int64(wait / 4)))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (n *names) lookup(ctx context.Context, r *resolution) (found bool) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := n.resolver.LookupNetIP(ctx, "ip", r.name)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = true
	switch {
	case err == nil && len(addrs) > 0:
		// An address that is still among the answers stays: servers rotate them,
		// and a measurement should be of one host.
		if !slices.Contains(addrs, r.addr) {
			r.addr = addrs[0]
		}
		r.reason = ""
		return true
	case r.addr.IsValid(): // the last good answer stands
	case err != nil:
		r.reason = clean("no address for " + r.name + ": " + lookupReason(err))
	default:
		r.reason = clean("no address for " + r.name)
	}
	return false
}

// lookupReason shortens what the resolver says, which names the resolver's own
// sockets.
func lookupReason(err error) string {
	var dnsError *net.DNSError
	switch {
	case !errors.As(err, &dnsError):
		return err.Error()
	case dnsError.IsNotFound:
		return "no such host"
	case dnsError.IsTimeout:
		return "name servers do not answer"
	}
	return dnsError.Err
}

// current is the address to ask, or the reason why there is none. known is false
// until the first lookup has ended.
func (r *resolution) current() (addr netip.Addr, reason string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addr, r.reason, r.asked
}
