package zone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/zone/answer"
	"upkeep/internal/zone/dnsserver"
)

// ServerOptions are the settings of a [Server]. Journal is required.
type ServerOptions struct {
	// Spare is a folder on this machine, made when it is needed, that keeps zones
	// for as long as the journal takes no writes. Without it such a zone is
	// answered after a while under a serial that a restart forgets.
	Spare string
	// Listen holds addresses such as "127.0.0.1:53" or ":53", for UDP and TCP.
	// With port 0 the kernel chooses one port for both.
	Listen  []string
	Journal Journal
	Logger  *slog.Logger
	Now     func() time.Time
	// Notice is told of things that an operator should know and that are no
	// failure, such as a secondary that is refused. It must not block.
	Notice func(zone, what, why string)
	// Amplification bounds, in octets a second, what one client network is sent
	// over UDP beyond what came in its name; see [dnsserver.Options].
	Amplification int
	// MaxConns bounds the TCP connections, 512 when 0.
	MaxConns int
}

// Server answers for all zones that have a transfer publisher, over UDP and
// TCP, and is the primary of their secondaries.
type Server struct {
	o     ServerOptions
	dns   *dnsserver.Server
	zones answer.Zones
	// transfers holds a token for each transfer under way.
	transfers chan struct{}

	mu        sync.RWMutex
	primaries map[string]*primary // by origin
	closed    bool
}

// maxTransfers is how many zone transfers run at one time.
const maxTransfers = 32

// NewServer listens and answers; until a zone is published every query is
// refused.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{o: o, transfers: make(chan struct{}, maxTransfers), primaries: map[string]*primary{}}
	sockets, err := dnsserver.New(dnsserver.Options{
		Listen: o.Listen, Handler: (*listening)(s), Logger: o.Logger,
		Amplification: o.Amplification, MaxConns: o.MaxConns,
	})
	if err != nil {
		return nil, err
	}
	s.dns = sockets
	return s, nil
}

// Addrs returns the addresses that the server listens on.
func (s *Server) Addrs() []netip.AddrPort { return s.dns.Addrs() }

// Addr returns the first address that the server listens on.
func (s *Server) Addr() netip.AddrPort { return s.dns.Addrs()[0] }

// Publisher returns the publisher of a zone. The zone is answered from now on
// with what its journal holds, if anything. Asking again for the same zone takes
// up changed settings and leaves the earlier publisher without effect on Close.
func (s *Server) Publisher(ctx context.Context, z upkeep.Zone, p upkeep.Publisher) (Publisher, error) {
	set, err := readSettings(p)
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", z.Name, err)
	}
	origin := originOf(z.Name)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, fmt.Errorf("zone %s: the DNS server is closed", z.Name)
	}
	zone, exists := s.primaries[origin]
	if !exists {
		zone = &primary{server: s, name: z.Name, origin: origin}
		zone.notify, zone.keeper = newNotifier(zone), newKeeper(zone)
		zone.refusals = newNotices(z.Name, s.o.Logger, s.o.Notice)
		s.primaries[origin] = zone
	}
	h := &handle{p: zone}
	zone.mu.Lock()
	zone.settings, zone.latest = set, h
	zone.mu.Unlock()
	s.mu.Unlock()
	if !exists {
		if err := zone.load(ctx); err != nil {
			return nil, errors.Join(err, s.drop(h))
		}
	}
	zone.notify.configure(set)
	return h, nil
}

// serve puts a version of a zone into service and tells the secondaries.
func (s *Server) serve(p *primary, v *version) {
	s.mu.RLock()
	known := s.primaries[p.origin] == p
	if known {
		s.zones.Put(v.zone)
	}
	s.mu.RUnlock()
	if known {
		p.notify.changed(v.serial)
	}
}

// drop ceases to answer for the zone of h, if h is its latest publisher.
func (s *Server) drop(h *handle) error {
	p := h.p
	s.mu.Lock()
	p.mu.RLock()
	latest := p.latest == h
	p.mu.RUnlock()
	if latest && s.primaries[p.origin] == p {
		delete(s.primaries, p.origin)
		s.zones.Remove(p.origin)
	}
	s.mu.Unlock()
	if latest {
		p.notify.close()
		p.keeper.close()
	}
	return nil
}

func (s *Server) spares() spares { return spares(s.o.Spare) }

// primary returns the zone that answers for name, or nil.
func (s *Server) primary(name string) *primary {
	z := s.zones.Find(name)
	if z == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.primaries[z.Origin()]
}

// Stats returns what was transferred of a zone since the start.
func (s *Server) Stats(zone string) TransferStats {
	s.mu.RLock()
	p := s.primaries[originOf(zone)]
	s.mu.RUnlock()
	if p == nil {
		return TransferStats{}
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.stats
}

// Secondaries returns what is known of the secondaries of a zone.
func (s *Server) Secondaries(zone string) []SecondaryStatus {
	s.mu.RLock()
	p := s.primaries[originOf(zone)]
	s.mu.RUnlock()
	if p == nil {
		return nil
	}
	return p.notify.statuses()
}

// Close stops answering and returns when nothing of the server runs any more.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	all := s.primaries
	s.primaries = map[string]*primary{}
	s.mu.Unlock()
	for _, p := range all {
		p.notify.close()
		p.keeper.close()
	}
	return s.dns.Close()
}
