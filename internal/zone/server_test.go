package zone

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
)

// startServer starts a server on a loopback address of its own.
func startServer(t testing.TB, o ServerOptions) *Server {
	t.Helper()
	if o.Listen == nil {
		o.Listen = []string{"127.0.0.1:0"}
	}
	if o.Journal == nil {
		o.Journal = &MemoryJournal{}
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the server: %v", err)
		}
	})
	return s
}

type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func exampleZone() upkeep.Zone {
	return upkeep.Zone{Name: "example.test", Records: []upkeep.Record{
		{Name: "@", Type: "NS", Value: "ns1"},
		{Name: "ns1", Type: "A", Value: "192.0.2.53"},
		{Name: "mail", Type: "MX", Value: "10 mail"},
	}}.WithDefaults()
}

func webContent(addresses ...string) Content {
	set := AddressSet{Owner: "www", TTL: time.Minute}
	for _, a := range addresses {
		set.Addresses = append(set.Addresses, netip.MustParseAddr(a))
	}
	return Content{Zone: exampleZone(), Sets: []AddressSet{set}}
}

func mustPublisher(t testing.TB, s *Server, p upkeep.Publisher) Publisher {
	t.Helper()
	p.Type = upkeep.PublishTransfer
	publisher, err := s.Publisher(context.Background(), exampleZone(), p)
	if err != nil {
		t.Fatal(err)
	}
	return publisher
}

func mustPublish(t testing.TB, p Publisher, c Content) uint32 {
	t.Helper()
	serial, err := p.Publish(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return serial
}

// ask asks the server and returns the answer.
func ask(t testing.TB, s *Server, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: 5 * time.Second}
	answer, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, qtype), s.Addr().String())
	if err != nil {
		t.Fatalf("asking for %s %s: %v", name, dns.TypeToString[qtype], err)
	}
	return answer
}

func TestPublishedContentIsAnswered(t *testing.T) {
	s := startServer(t, ServerOptions{})
	for _, network := range []string{"udp", "tcp"} {
		if got := ask(t, s, network, "www.example.test.", dns.TypeA); got.Rcode != dns.RcodeRefused {
			t.Errorf("%s: a zone that is not published is answered with %s", network, dns.RcodeToString[got.Rcode])
		}
	}
	p := mustPublisher(t, s, upkeep.Publisher{})
	serial := mustPublish(t, p, webContent("192.0.2.1", "192.0.2.2", "2001:db8::1"))
	for _, network := range []string{"udp", "tcp"} {
		if got := ask(t, s, network, "www.example.test.", dns.TypeA); len(got.Answer) != 2 || !got.Authoritative {
			t.Errorf("%s: A is answered with %v", network, got)
		}
		if got := ask(t, s, network, "www.example.test.", dns.TypeAAAA); len(got.Answer) != 1 {
			t.Errorf("%s: AAAA is answered with %v", network, got)
		}
		if got := ask(t, s, network, "example.test.", dns.TypeNS); len(got.Answer) != 1 {
			t.Errorf("%s: NS is answered with %v", network, got)
		}
		got := ask(t, s, network, "example.test.", dns.TypeSOA)
		if len(got.Answer) != 1 || got.Answer[0].(*dns.SOA).Serial != serial {
			t.Errorf("%s: SOA is answered with %v, want serial %d", network, got, serial)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, s, "udp", "www.example.test.", dns.TypeA); got.Rcode != dns.RcodeRefused {
		t.Errorf("a zone that was given up is answered with %s", dns.RcodeToString[got.Rcode])
	}
}

func TestSerialRisesOnChangeOnly(t *testing.T) {
	now := &testClock{now: time.Unix(1795465266, 0)}
	journal := &MemoryJournal{}
	s := startServer(t, ServerOptions{Journal: journal, Now: now.Now})
	p := mustPublisher(t, s, upkeep.Publisher{})
	first := mustPublish(t, p, webContent("192.0.2.1", "192.0.2.2"))
	if first != 1795465266 {
		t.Errorf("the first serial is %d, want the time", first)
	}
	now.Add(time.Hour)
	if again := mustPublish(t, p, webContent("192.0.2.2", "192.0.2.1", "192.0.2.1")); again != first {
		t.Errorf("the same content got serial %d after %d", again, first)
	}
	now.Add(-2 * time.Hour)
	if next := mustPublish(t, p, webContent("192.0.2.2")); next != first+1 {
		t.Errorf("under a clock that was stepped back the serial is %d, want %d", next, first+1)
	}
	// A restarted server goes on where the journal ends, and answers before
	// anything is published.
	restarted := startServer(t, ServerOptions{Journal: journal, Now: now.Now})
	p = mustPublisher(t, restarted, upkeep.Publisher{})
	if got := ask(t, restarted, "udp", "www.example.test.", dns.TypeA); len(got.Answer) != 1 {
		t.Errorf("after a restart the answer is %v", got)
	}
	if again := mustPublish(t, p, webContent("192.0.2.2")); again != first+1 {
		t.Errorf("after a restart the same content got serial %d, want %d", again, first+1)
	}
	if next := mustPublish(t, p, webContent("192.0.2.3")); next != first+2 {
		t.Errorf("after a restart the next serial is %d, want %d", next, first+2)
	}
}
