// Package nameserver runs real name servers (BIND, NSD, Knot DNS) on the hosts
// of a netlab network, for tests and benchmarks.
package nameserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/miekg/dns"

	"upkeep/internal/testkit"
	"upkeep/internal/testkit/netlab"
)

// Zone is a zone that a server answers for. Text makes the server its primary;
// Primary makes it a secondary.
type Zone struct {
	Name    string
	Text    string       // of the zone file, written as db.NAME
	Primary *netlab.Host // transfers come from here
	Notify  []*netlab.Host
	// Key signs transfers and notifies of a secondary; on a primary it allows
	// updates.
	Key *Key
}

// Key is a TSIG key.
type Key struct{ Name, Secret string }

// Text is the key as tsig-keygen writes it.
func (k Key) Text() string {
	return fmt.Sprintf("key \"%s\" {\n\talgorithm hmac-sha256;\n\tsecret \"%s\";\n};\n", k.Name, k.Secret)
}

// Kinds of server.
const (
	BIND = "named"
	NSD  = "nsd"
	Knot = "knotd"
)

// Server is a name server on port 53 of a host.
type Server struct {
	Kind  string
	Host  *netlab.Host
	Dir   string // holds configuration and zones
	argv  []string
	zones []Zone
	proc  *testkit.Process
}

// configure is what writes a kind's files into a folder and returns the command
// that runs it in the foreground.
var configure = map[string]func(host *netlab.Host, dir string, zones []Zone) ([]string, error){
	BIND: configureBIND, NSD: configureNSD, Knot: configureKnot,
}

// New writes the configuration of a server into dir and starts it. It returns
// once the server answers for the zones that it is primary for, and otherwise
// once it answers at all.
func New(kind string, host *netlab.Host, dir string, zones ...Zone) (*Server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for _, zone := range zones {
		if zone.Text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "db."+zone.Name), []byte(zone.Text), 0o644); err != nil {
			return nil, err
		}
	}
	argv, err := configure[kind](host, dir, zones)
	if err != nil {
		return nil, fmt.Errorf("configuring %s on %s: %w", kind, host.Name, err)
	}
	s := &Server{Kind: kind, Host: host, Dir: dir, argv: argv, zones: zones}
	return s, s.Start()
}

// Addr is where the server answers, as "10.53.0.N:53".
func (s *Server) Addr() string { return netip.AddrPortFrom(s.Host.Addr, 53).String() }

// Process is the running server.
func (s *Server) Process() *testkit.Process { return s.proc }

// Start starts the server again after Stop or Kill.
func (s *Server) Start() error {
	var err error
	if s.proc, err = (testkit.Command{Argv: s.Host.Argv(s.argv...), Dir: s.Dir}).Launch(); err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		err := s.ready()
		if err == nil {
			return nil
		}
		if !s.proc.Running() || time.Now().After(end) {
			return fmt.Errorf("starting %s on %s: %w\n%s", s.Kind, s.Host.Name, err, s.proc.Log())
		}
	}
}

func (s *Server) ready() error {
	for _, zone := range s.zones {
		answer, err := Ask(s.Host, s.Addr(), zone.Name, dns.TypeSOA)
		if err != nil {
			return err
		}
		if zone.Text != "" && answer.Rcode != dns.RcodeSuccess {
			return fmt.Errorf("answers %s for %s", dns.RcodeToString[answer.Rcode], zone.Name)
		}
	}
	return nil
}

// Stop ends the server in good order.
func (s *Server) Stop() { s.proc.Stop(10 * time.Second) }

// Kill ends the server at once.
func (s *Server) Kill() { s.proc.Kill() }

// RNDC is the command that controls a BIND server from any host of the network,
// program first.
func (s *Server) RNDC() []string { return []string{"rndc", "-c", filepath.Join(s.Dir, "rndc.conf")} }

// Ask sends one question over UDP from a host and returns the answer. A
// truncated answer is asked for again over TCP.
func Ask(from *netlab.Host, server, name string, qtype uint16) (*dns.Msg, error) {
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	question.RecursionDesired = false
	question.SetEdns0(1232, false)
	answer, err := exchange(from, "udp", server, question)
	if err == nil && answer.Truncated {
		return exchange(from, "tcp", server, question)
	}
	return answer, err
}

func exchange(from *netlab.Host, network, server string, question *dns.Msg) (*dns.Msg, error) {
	var conn net.Conn
	conn, err := from.Dial(context.Background(), network, server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	client := &dns.Client{Net: network, Timeout: time.Second, UDPSize: 1232}
	answer, _, err := client.ExchangeWithConn(question, &dns.Conn{Conn: conn, UDPSize: 1232})
	return answer, err
}

// Addresses asks for A and AAAA of a name and returns what is answered, sorted.
// A name that does not exist has no addresses; any other refusal is an error.
func Addresses(from *netlab.Host, server, name string) ([]netip.Addr, error) {
	var found []netip.Addr
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := Ask(from, server, name, qtype)
		if err != nil {
			return nil, err
		}
		if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
			return nil, fmt.Errorf("%s answers %s for %s", server, dns.RcodeToString[answer.Rcode], name)
		}
		found = append(found, AddressesOf(answer)...)
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return found, nil
}

// AddressesOf returns the addresses in an answer.
func AddressesOf(answer *dns.Msg) []netip.Addr {
	var found []netip.Addr
	for _, record := range answer.Answer {
		var ip net.IP
		switch record := record.(type) {
		case *dns.A:
			ip = record.A
		case *dns.AAAA:
			ip = record.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			found = append(found, addr.Unmap())
		}
	}
	return found
}

// Serial asks for the serial that a server has of a zone.
func Serial(from *netlab.Host, server, zone string) (uint32, error) {
	answer, err := Ask(from, server, zone, dns.TypeSOA)
	if err != nil {
		return 0, err
	}
	for _, record := range answer.Answer {
		if soa, is := record.(*dns.SOA); is {
			return soa.Serial, nil
		}
	}
	return 0, fmt.Errorf("%s answers no SOA of %s: %s", server, zone, dns.RcodeToString[answer.Rcode])
}
