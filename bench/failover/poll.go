package main

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"upkeep/internal/testkit/nameserver"
	"upkeep/internal/testkit/netlab"
)

// poller asks a name server for the pool's addresses again and again.
type poller struct {
	mu     sync.Mutex
	last   []netip.Addr // of the latest answer, sorted
	at     time.Time    // of the latest answer
	errs   int
	leave  map[netip.Addr]time.Time // when an answer first lacked an address after an answer that had it
	left   map[netip.Addr]int       // how often that happened
	cancel context.CancelFunc
	done   chan struct{}
}

// poll begins to ask. A question that gets no answer within a second counts as
// an error and the next one is asked.
func poll(from *netlab.Host, server string, every time.Duration) *poller {
	ctx, cancel := context.WithCancel(context.Background())
	p := &poller{leave: map[netip.Addr]time.Time{}, left: map[netip.Addr]int{}, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		var conn *dns.Conn
		client := &dns.Client{Timeout: time.Second}
		for ctx.Err() == nil {
			if conn == nil {
				raw, err := from.Dial(ctx, "udp", server)
				if err != nil {
					continue
				}
				conn = &dns.Conn{Conn: raw}
			}
			question := new(dns.Msg).SetQuestion(poolName+".", dns.TypeA)
			answer, _, err := client.ExchangeWithConn(question, conn)
			p.note(answer, err)
			if err != nil { // a late answer must not be taken for the next one
				_ = conn.Close()
				conn = nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		if conn != nil {
			_ = conn.Close()
		}
	}()
	return p
}

func (p *poller) note(answer *dns.Msg, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
		p.errs++
		return
	}
	now := time.Now()
	addrs := nameserver.AddressesOf(answer)
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, before := range p.last {
		if !slices.Contains(addrs, before) {
			p.leave[before] = now
			p.left[before]++
		}
	}
	p.last, p.at = addrs, now
}

func (p *poller) stop() {
	p.cancel()
	<-p.done
}

// answer is the latest answer.
func (p *poller) answer() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *poller) answers(addrs ...netip.Addr) bool {
	last := p.answer()
	for _, addr := range addrs {
		if !slices.Contains(last, addr) {
			return false
		}
	}
	return true
}

// leftAt is when the address was last seen to leave, zero if not since.
func (p *poller) leftAt(addr netip.Addr, since time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.leave[addr]; at.After(since) {
		return at
	}
	return time.Time{}
}

// removals counts how often an address left the answers.
func (p *poller) removals() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, times := range p.left {
		n += times
	}
	return n
}
