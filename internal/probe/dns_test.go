package probe

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
)

// nameServer answers queries by f, which is given the packet and may send any
// number of packets, over UDP and TCP on one port.
func nameServer(t *testing.T, f dns.HandlerFunc) int {
	t.Helper()
	for range 20 {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", packets.LocalAddr().String())
		if err != nil { // taken by somebody else
			_ = packets.Close()
			continue
		}
		for _, s := range []*dns.Server{{PacketConn: packets, Handler: f}, {Listener: listener, Handler: f}} {
			started := make(chan struct{})
			s.NotifyStartedFunc = func() { close(started) }
			go func() { _ = s.ActivateAndServe() }()
			<-started
			t.Cleanup(func() { _ = s.Shutdown() })
		}
		return port(t, packets.LocalAddr())
	}
	t.Fatal("no port is free for both UDP and TCP")
	return 0
}

func rr(t *testing.T, text string) dns.RR {
	t.Helper()
	record, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func asking(port int, edit func(*upkeep.Check)) upkeep.Check {
	c := upkeep.Check{Type: upkeep.CheckDNS, Port: port, Query: "www.example.test",
		Interval: every(30 * time.Second), Timeout: every(15 * time.Second)}
	if edit != nil {
		edit(&c)
	}
	return c
}

func TestDNS(t *testing.T) {
	refused := func(reason string) Result { return Result{Refused: true, Reason: reason} }
	udp := func(w dns.ResponseWriter) bool { return w.LocalAddr().Network() == "udp" }
	records := func(m *dns.Msg, texts ...string) *dns.Msg {
		for _, text := range texts {
			m.Answer = append(m.Answer, rr(t, text))
		}
		return m
	}
	reply := func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetReply(q) }
	short := func(c *upkeep.Check) { c.Timeout = every(time.Second) }
	for _, c := range []struct {
		name   string
		server dns.HandlerFunc
		edit   func(*upkeep.Check)
		want   Result
	}{
		{"answer", func(w dns.ResponseWriter, q *dns.Msg) {
			_ = w.WriteMsg(records(reply(q), "www.example.test. 1 A 192.0.2.1"))
		},
			nil, Result{OK: true}},
		{"no records wanted", func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(reply(q)) }, nil, Result{OK: true}},
		{"rcode", func(w dns.ResponseWriter, q *dns.Msg) {
			_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
		},
			nil, refused("answer SERVFAIL, wanted NOERROR")},
		{"wanted rcode", func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError)) },
			func(c *upkeep.Check) { c.RCode = "nxdomain" }, Result{OK: true}},
		{"wanted record", func(w dns.ResponseWriter, q *dns.Msg) {
			_ = w.WriteMsg(records(reply(q), "www.example.test. 1 CNAME a.test.", "a.test. 1 A 192.0.2.1", "a.test. 1 A 192.0.2.2"))
		}, func(c *upkeep.Check) { c.Answer = []string{"192.0.2.9", "192.0.2.2"} }, Result{OK: true}},
		{"other record", func(w dns.ResponseWriter, q *dns.Msg) {
			_ = w.WriteMsg(records(reply(q), "www.example.test. 1 A 192.0.2.1"))
		},
			func(c *upkeep.Check) { c.Answer = []string{"192.0.2.9"} }, refused("answered 192.0.2.1, wanted 192.0.2.9")},
		{"no record", func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(reply(q)) },
			func(c *upkeep.Check) { c.QType, c.Answer = "MX", []string{"10 mail.example.test"} },
			refused("answered no MX record, wanted 10 mail.example.test.")},
		{"spelling", func(w dns.ResponseWriter, q *dns.Msg) {
			_ = w.WriteMsg(records(reply(q), "www.example.test. 1 MX 10 MAIL.Example.Test."))
		}, func(c *upkeep.Check) { c.QType, c.Answer = "mx", []string{"10 mail.example.test"} }, Result{OK: true}},
		{"truncated, then TCP", func(w dns.ResponseWriter, q *dns.Msg) {
			m := reply(q)
			if m.Truncated = udp(w); !m.Truncated {
				records(m, "www.example.test. 1 A 192.0.2.1")
			}
			_ = w.WriteMsg(m)
		}, func(c *upkeep.Check) { c.Answer = []string{"192.0.2.1"} }, Result{OK: true}},
		{"silent", func(dns.ResponseWriter, *dns.Msg) {}, short, Result{Reason: "no DNS answer within 1s"}},
		{"truncated, then silent", func(w dns.ResponseWriter, q *dns.Msg) {
			if m := reply(q); udp(w) {
				m.Truncated = true
				_ = w.WriteMsg(m)
			}
		}, short, Result{Slow: true, Reason: "truncated DNS answer, and no whole one over TCP within 1s"}},
		{"forged, then true", func(w dns.ResponseWriter, q *dns.Msg) {
			forged := reply(q) // a guessed number
			forged.Id++
			_ = w.WriteMsg(forged.SetRcode(forged, dns.RcodeRefused))
			other := reply(q) // another question
			other.Question = []dns.Question{{Name: "mail.example.test.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
			other.Rcode = dns.RcodeRefused
			_ = w.WriteMsg(other)
			_ = w.WriteMsg(q) // the query itself, as a reflector would
			_, _ = w.Write([]byte("\x00\x01nonsense"))
			_ = w.WriteMsg(reply(q))
		}, nil, Result{OK: true}},
		{"refuses to understand", func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
			m.Question = nil
			_ = w.WriteMsg(m)
		}, nil, refused("answer FORMERR, wanted NOERROR")},
		{"control characters", func(w dns.ResponseWriter, q *dns.Msg) {
			_ = w.WriteMsg(records(reply(q), `www.example.test. 1 TXT "\027[31m"`))
		}, func(c *upkeep.Check) { c.QType, c.Answer = "TXT", []string{`"x"`} }, refused(`answered "\027[31m", wanted "x"`)},
	} {
		same(t, c.name, once(t, "127.0.0.1", asking(nameServer(t, c.server), c.edit)), c.want)
	}
}

func TestDNSRefusedPort(t *testing.T) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := port(t, packets.LocalAddr())
	_ = packets.Close()
	same(t, "closed port", once(t, "127.0.0.1", asking(p, nil)), Result{Refused: true, Reason: "connection refused"})
}

// TestDNSNumbers sees that queries cannot be predicted.
func TestDNSNumbers(t *testing.T) {
	d, err := prepareDNS(nil, asking(53, nil).WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint16]bool{}
	for range 100 {
		q, _, err := d.(*dnsCheck).question()
		if err != nil {
			t.Fatal(err)
		}
		seen[q.Id] = true
	}
	if len(seen) < 90 {
		t.Errorf("%d different numbers in 100 queries", len(seen))
	}
}

func TestDNSPreflight(t *testing.T) {
	e := newEngine(t, Options{})
	for field, edit := range map[string]func(*upkeep.Check){
		"NONSENSE": func(c *upkeep.Check) { c.QType = "NONSENSE" },
		"WRONG":    func(c *upkeep.Check) { c.RCode = "WRONG" },
		"192.0.2":  func(c *upkeep.Check) { c.Answer = []string{"192.0.2"} },
		"$INCLUDE": func(c *upkeep.Check) { c.Answer = []string{"192.0.2.1\n$INCLUDE /etc/passwd"} },
	} {
		c := asking(53, edit)
		if err := e.Preflight(c); err == nil || !strings.Contains(fmt.Sprint(err), field) {
			t.Errorf("%s: Preflight says %v", field, err)
		}
		if r := once(t, "127.0.0.1", c); !r.Void || !strings.Contains(r.Reason, field) {
			t.Errorf("%s: %+v", field, r)
		}
	}
}
