package zone

import (
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/testkit"
)

// deafSecondary acknowledges every NOTIFY, and acts on none before the second.
type deafSecondary struct {
	mu       sync.Mutex
	serial   uint32 // of the latest NOTIFY
	notifies int
}

func (d *deafSecondary) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := new(dns.Msg).SetReply(m)
	switch {
	case m.Opcode == dns.OpcodeNotify:
		d.notifies++
		for _, record := range m.Answer {
			if soa, is := record.(*dns.SOA); is {
				d.serial = soa.Serial
			}
		}
	case d.notifies < 2:
		answer.Rcode = dns.RcodeServerFailure // the zone is not loaded
	default:
		answer.Answer = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 60},
			Ns:  "ns1.", Mbox: "hostmaster.", Serial: d.serial,
		}}
	}
	_ = w.WriteMsg(answer)
}

func (d *deafSecondary) heard() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.notifies
}

// A secondary that acknowledges NOTIFY and stays without the zone is told again,
// and no more once it has it.
func TestNotifyIsRepeatedUntilItHelps(t *testing.T) {
	deaf := &deafSecondary{}
	started := make(chan struct{})
	secondary := &dns.Server{Net: "udp", Addr: "127.0.0.1:0", Handler: deaf, NotifyStartedFunc: func() { close(started) }}
	go func() { _ = secondary.ListenAndServe() }()
	<-started
	t.Cleanup(func() { _ = secondary.Shutdown() })

	s := startServer(t, ServerOptions{})
	p := mustPublisher(t, s, upkeep.Publisher{Secondaries: []string{secondary.PacketConn.LocalAddr().String()}})
	mustPublish(t, p, webContent("192.0.2.1"))
	testkit.Eventually(t, 30*time.Second, func() (bool, string) { return deaf.heard() == 2, "not told again" })
	// The next change is told at once, although the secondary is being asked
	// whether it has this one.
	mustPublish(t, p, webContent("192.0.2.2"))
	testkit.Eventually(t, 30*time.Second, func() (bool, string) { return deaf.heard() == 3, "not told of the next change" })
	<-time.After(2 * notifySettle)
	if n := deaf.heard(); n != 3 {
		t.Errorf("told %d times, although it is in step", n)
	}
}
