// Package dnsserver carries DNS messages between sockets and a [Handler]. It
// knows nothing of their meaning beyond the length prefix of TCP.
//
// UDP is read and written in batches on one socket per processor; the kernel
// spreads clients over them. TCP is bounded in connections, in time and in
// memory per connection, whatever a client does.
package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// Handler answers messages. Its methods are called by several goroutines.
type Handler interface {
	// Packet answers a datagram into dst, which holds [MaxPacket] octets, and
	// returns the length of the answer, or 0 for none. Turn is a random number
	// for whatever choice the answer leaves.
	Packet(dst, query []byte, from netip.AddrPort, turn uint32) int
	// Stream answers a message that came over TCP, by one or more calls of
	// send. An error ends the connection.
	Stream(query []byte, from netip.AddrPort, send func(message []byte) error) error
}

const (
	// MaxPacket is the longest datagram that is sent, in octets.
	MaxPacket = 1232
	// maxQuery and maxPacketQuery are the longest queries that are read over TCP
	// and UDP. A question takes at most 259 octets, an OPT record with a cookie
	// and a TSIG record with the longest names less than 800; who pads a query
	// pads it to multiples of 128 (RFC 8467).
	maxQuery       = 4096
	maxPacketQuery = MaxPacket
)

// Options are the settings of a [Server]. Zero values mean the defaults.
type Options struct {
	// Listen holds the addresses to listen on, UDP and TCP, such as
	// "127.0.0.1:53" or ":53". With port 0 the kernel chooses one port for both.
	Listen  []string
	Handler Handler
	Logger  *slog.Logger
	// Sockets is the number of UDP sockets for each address. When 0 it is one less
	// than GOMAXPROCS, so that however dense the queries are, one processor is
	// left to everything else.
	Sockets int
	// Amplification is how many octets a second one client network (IPv4 /24,
	// IPv6 /56) is sent over UDP beyond what came in its name; answers above
	// that are cut down to TC. 0 means 100,000; below 0 there is no bound.
	// Loopback addresses, which nobody can forge from outside, have none.
	Amplification int
	// MaxConns bounds the TCP connections, 512 when 0; MaxConnsPerHost those of
	// one address, 64 when 0.
	MaxConns        int
	MaxConnsPerHost int
	// Idle is how long a TCP connection may wait for its next query, 10s when 0
	// (RFC 7766 section 6.2.3); Patience is how long a single query may take to
	// arrive and an answer to be taken, 5s when 0.
	Idle     time.Duration
	Patience time.Duration
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	set := func(v *int, otherwise int) {
		if *v == 0 {
			*v = otherwise
		}
	}
	set(&o.Sockets, max(1, runtime.GOMAXPROCS(0)-1))
	set(&o.Amplification, 100_000)
	set(&o.MaxConns, 512)
	set(&o.MaxConnsPerHost, 64)
	if o.Idle == 0 {
		o.Idle = 10 * time.Second
	}
	if o.Patience == 0 {
		o.Patience = 5 * time.Second
	}
	return o
}

// Server listens and answers until it is closed.
type Server struct {
	o       Options
	addrs   []netip.AddrPort
	packets []*packetSocket
	streams []net.Listener
	conns   *connections
	running sync.WaitGroup
}

// New listens on every address and starts to answer.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	s := &Server{o: o, conns: newConnections(o.MaxConns, o.MaxConnsPerHost)}
	for _, address := range o.Listen {
		if err := s.listen(address); err != nil {
			for _, socket := range s.packets {
				socket.stop()
			}
			return nil, errors.Join(s.closeListeners(), fmt.Errorf("listening for DNS on %s: %w", address, err))
		}
	}
	for _, socket := range s.packets {
		s.running.Go(func() { s.servePackets(socket) })
	}
	for _, listener := range s.streams {
		s.running.Go(func() { s.acceptStreams(listener) })
	}
	return s, nil
}

// Addrs returns the addresses that the server listens on, in the order of
// Options.Listen. An address without a host has two, one for each family.
func (s *Server) Addrs() []netip.AddrPort { return s.addrs }

// Close stops answering and returns when nothing of the server runs any more.
func (s *Server) Close() error {
	for _, socket := range s.packets {
		socket.stop()
	}
	err := s.closeListeners()
	s.conns.closeAll()
	s.running.Wait()
	return err
}

func (s *Server) closeListeners() error {
	var errs []error
	for _, listener := range s.streams {
		errs = append(errs, listener.Close())
	}
	return errors.Join(errs...)
}

// listen opens the sockets of one address. Both families are opened apart where
// the host is left out: a socket for both would show IPv4 clients as IPv6.
func (s *Server) listen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host != "" {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return fmt.Errorf("%q is not an address: %w", host, err)
		}
		_, err = s.listenFamily(addr, port)
		return err
	}
	chosen, err := s.listenFamily(netip.IPv4Unspecified(), port)
	if err != nil {
		return err
	}
	_, err = s.listenFamily(netip.IPv6Unspecified(), fmt.Sprint(chosen))
	if isNoFamily(err) {
		return nil // a machine without IPv6
	}
	return err
}

// portTries is how often another port is taken where the kernel's choice for
// TCP is not free for UDP.
const portTries = 20

func (s *Server) listenFamily(addr netip.Addr, port string) (chosen uint16, err error) {
	for try := 1; ; try++ {
		chosen, err = s.listenOnce(addr, port)
		if err == nil || port != "0" || try == portTries || !isInUse(err) {
			return chosen, err
		}
	}
}

func (s *Server) listenOnce(addr netip.Addr, port string) (uint16, error) {
	// TCP comes first, without port sharing: that refuses a second server on the
	// same port, which the shared UDP sockets would not.
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp"+family(addr), net.JoinHostPort(addr.String(), port))
	if err != nil {
		return 0, err
	}
	bound := listener.Addr().(*net.TCPAddr).AddrPort()
	bound = netip.AddrPortFrom(addr, bound.Port()) // with its zone
	sockets, err := listenPackets(bound, s.o.Sockets)
	if err != nil {
		return 0, errors.Join(err, listener.Close())
	}
	s.streams = append(s.streams, listener)
	s.packets = append(s.packets, sockets...)
	s.addrs = append(s.addrs, bound)
	return bound.Port(), nil
}

// family is what the net package puts behind "tcp" and "udp" for one family.
func family(addr netip.Addr) string {
	if addr.Is4() {
		return "4"
	}
	return "6"
}
