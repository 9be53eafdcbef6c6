package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep/internal/testkit/nameserver"
	"upkeep/internal/testkit/netlab"
	"upkeep/internal/zone"
)

// eye asks one name server all the time and notes whatever must never be seen.
type eye struct {
	server string
	names  []string // asked for, none of which may ever be empty
	valid  []netip.Addr

	mu     sync.Mutex
	serial uint32
	known  bool
	faults []string
	last   map[string][]netip.Addr
	left   map[netip.Addr]int       // how often an address went missing at any name
	with   map[netip.Addr]time.Time // when it was answered last
	stop   context.CancelFunc
	done   chan struct{}
}

// watchServer begins to ask a server from a host.
func watchServer(t testing.TB, from *netlab.Host, server string, valid []netip.Addr, names ...string) *eye {
	ctx, cancel := context.WithCancel(context.Background())
	e := &eye{
		server: server, names: names, valid: valid, last: map[string][]netip.Addr{}, left: map[netip.Addr]int{}, with: map[netip.Addr]time.Time{},
		stop: cancel, done: make(chan struct{}),
	}
	go e.run(ctx, from)
	t.Cleanup(func() { cancel(); <-e.done })
	return e
}

func (e *eye) run(ctx context.Context, from *netlab.Host) {
	defer close(e.done)
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	client := &dns.Client{Timeout: 500 * time.Millisecond}
	var conn *dns.Conn
	for turn := 0; ctx.Err() == nil; turn++ {
		if conn == nil {
			raw, err := from.Dial(ctx, "udp", e.server)
			if err != nil {
				continue
			}
			conn = &dns.Conn{Conn: raw}
		}
		question := new(dns.Msg).SetQuestion(zoneName+".", dns.TypeSOA)
		if turn%2 == 0 && len(e.names) > 0 {
			question.SetQuestion(e.names[turn/2%len(e.names)]+".", dns.TypeA)
		}
		answer, _, err := client.ExchangeWithConn(question, conn)
		if err != nil { // a late answer must not be taken for the next one
			_ = conn.Close()
			conn = nil
		} else {
			e.note(answer)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if conn != nil {
		_ = conn.Close()
	}
}

// note looks at an answer. A server that is starting or has no zone yet says
// SERVFAIL or REFUSED, and that is no answer.
func (e *eye) note(answer *dns.Msg) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
		return
	}
	if answer.Question[0].Qtype == dns.TypeSOA {
		for _, record := range answer.Answer {
			if soa, is := record.(*dns.SOA); is {
				if e.known && zone.SerialLess(soa.Serial, e.serial) {
					e.fault("serial %d after %d", soa.Serial, e.serial)
				}
				e.serial, e.known = soa.Serial, true
			}
		}
		return
	}
	name := answer.Question[0].Name
	found := nameserver.AddressesOf(answer)
	if len(found) == 0 {
		e.fault("no address at %s (%s)", name, dns.RcodeToString[answer.Rcode])
	}
	for _, addr := range found {
		if !slices.Contains(e.valid, addr) {
			e.fault("%s at %s is nobody's address", addr, name)
		}
	}
	for _, before := range e.last[name] {
		if !slices.Contains(found, before) {
			e.left[before]++
		}
	}
	e.last[name] = found
	for _, addr := range found {
		e.with[addr] = time.Now()
	}
}

func (e *eye) fault(format string, args ...any) {
	if len(e.faults) < 20 {
		e.faults = append(e.faults, e.server+": "+time.Now().Format("15:04:05.000")+": "+fmt.Sprintf(format, args...))
	}
}

// removals is how often any address has gone missing from an answer so far.
func (e *eye) removals() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, times := range e.left {
		n += times
	}
	return n
}

// lastWith is when the server last answered with a member.
func (e *eye) lastWith(m *member) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.with[m.Addr]
}

func (e *eye) seen() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.faults)
}
