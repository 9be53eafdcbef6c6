package zone

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep/internal/testkit"
)

// fakeServer answers with what handle makes of each question, over UDP and TCP.
func fakeServer(t *testing.T, handle dns.HandlerFunc) string {
	t.Helper()
	return fakeSignedServer(t, Key{}, handle)
}

// fakeSignedServer signs what the handler marks to be signed.
func fakeSignedServer(t *testing.T, key Key, handle dns.HandlerFunc) string {
	t.Helper()
	tcp, udp := listenBoth(t)
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handle}, {Listener: tcp, Handler: handle}} {
		// The library answers updates with NOTIMP by itself otherwise.
		s.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		if !key.IsZero() {
			s.TsigSecret = key.Secrets()
		}
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }() // ends at the shutdown below
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return tcp.Addr().String()
}

// listenBoth listens on one free port for TCP and UDP.
func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	tcp, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	return tcp, udp
}

// zoneServer answers with authority from records in presentation form.
func zoneServer(t *testing.T, change func(answer *dns.Msg, w dns.ResponseWriter), records ...string) string {
	t.Helper()
	var rrs []dns.RR
	for _, text := range records {
		rrs = append(rrs, rr(t, text)...)
	}
	return fakeServer(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Authoritative = true
		q := r.Question[0]
		for _, record := range rrs {
			h := record.Header()
			wild, is := strings.CutPrefix(h.Name, "*.")
			match := strings.EqualFold(h.Name, q.Name) || is && strings.HasSuffix(q.Name, "."+wild) && strings.HasPrefix(q.Name, "upkeep-")
			if match && (h.Rrtype == q.Qtype || h.Rrtype == dns.TypeCNAME) {
				record = dns.Copy(record)
				record.Header().Name = q.Name
				m.Answer = append(m.Answer, record)
			}
		}
		if change != nil {
			change(m, w)
		}
		_ = w.WriteMsg(m) // the client may have gone
	})
}

func isUDP(w dns.ResponseWriter) bool { return w.LocalAddr().Network() == "udp" }

func TestProve(t *testing.T) {
	const soa = "example.test. 60 SOA ns1 host 100 1 1 1 1"
	apex := []string{soa, "example.test. 60 A 192.0.2.1", "example.test. 60 A 192.0.2.2", "*.example.test. 60 A 192.0.2.1", "*.example.test. 60 A 192.0.2.2"}
	for name, c := range map[string]struct {
		records []string
		change  func(*dns.Msg, dns.ResponseWriter)
		serial  uint32
		sets    []AddressSet
		want    string // part of the error, "" for in sync
	}{
		"in sync":                {records: apex},
		"newer serial":           {records: apex, serial: 99},
		"newer beyond the wrap":  {records: apex, serial: 1<<32 - 5},
		"older serial":           {records: apex, serial: 101, want: "answers serial 100, older than 101"},
		"opposite serial":        {records: apex, serial: 100 + 1<<31, want: "older"},
		"one too many":           {records: append(apex, "example.test. 60 A 192.0.2.3"), want: "example.test A: still has 192.0.2.3"},
		"one missing":            {records: apex[:4], want: "*.example.test A: lacks 192.0.2.2"},
		"IPv6 not published":     {records: append(apex, "example.test. 60 AAAA 2001:db8::1"), want: "example.test AAAA: still has 2001:db8::1"},
		"listed twice":           {records: append(apex, "example.test. 60 A 192.0.2.1"), want: "lists an address twice"},
		"higher TTL":             {records: []string{soa, "example.test. 61 A 192.0.2.1", "example.test. 61 A 192.0.2.2", apex[3], apex[4]}, want: "has TTL 1m1s in place of 1m"},
		"lower TTL":              {records: []string{soa, "example.test. 9 A 192.0.2.1", "example.test. 9 A 192.0.2.2", apex[3], apex[4]}},
		"alias":                  {records: append(apex[:3:3], "*.example.test. 60 CNAME other."), want: "*.example.test A: is an alias (CNAME) of other"},
		"no SOA":                 {records: apex[1:], want: "the answer holds none"},
		"SERVFAIL":               {records: apex, change: func(m *dns.Msg, _ dns.ResponseWriter) { m.Rcode = dns.RcodeServerFailure }, want: "SERVFAIL"},
		"REFUSED":                {records: apex, change: func(m *dns.Msg, _ dns.ResponseWriter) { m.Rcode = dns.RcodeRefused }, want: "REFUSED"},
		"a resolver":             {records: apex, change: func(m *dns.Msg, _ dns.ResponseWriter) { m.Authoritative = false }, want: "no authority"},
		"another question":       {records: apex, change: func(m *dns.Msg, _ dns.ResponseWriter) { m.Question[0].Name = "other.test." }, want: "another question"},
		"not an answer":          {records: apex, change: func(m *dns.Msg, _ dns.ResponseWriter) { m.Response = false }, want: "another question"},
		"truncated over UDP":     {records: apex, change: func(m *dns.Msg, w dns.ResponseWriter) { truncate(m, w, true) }},
		"truncated over both":    {records: apex, change: func(m *dns.Msg, w dns.ResponseWriter) { truncate(m, w, false) }, want: "truncated"},
		"nothing, as published":  {records: []string{soa}, sets: poolSets()},
		"something left":         {records: apex, sets: poolSets(), want: "example.test A: still has 192.0.2.1, 192.0.2.2"},
		"left to the wildcard":   {records: append(apex[:5:5], "www.example.test. 60 A 192.0.2.1", "www.example.test. 60 A 192.0.2.2"), sets: append(poolSets("192.0.2.1", "192.0.2.2"), AddressSet{Owner: "www", TTL: time.Minute})},
		"another owner's answer": {records: append(apex[:3:3], "other.example.test. 60 A 192.0.2.1"), want: "*.example.test A: lacks 192.0.2.1, 192.0.2.2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.serial == 0 {
				c.serial = 100
			}
			if c.sets == nil {
				c.sets = poolSets("192.0.2.2", "192.0.2.1")
			}
			status := Prove(t.Context(), zoneServer(t, c.change, c.records...), "example.test", c.serial, c.sets)
			if status.InSync != (c.want == "") || !strings.Contains(status.Error, c.want) || status.InSync && status.Serial != 100 {
				t.Errorf("want an error with %q, got %+v", c.want, status)
			}
		})
	}
}

func truncate(m *dns.Msg, w dns.ResponseWriter, onlyUDP bool) {
	if isUDP(w) || !onlyUDP {
		m.Truncated, m.Answer = true, nil
	}
}

// A lost packet is sent again; a server that says nothing is an error in good
// time.
func TestProveLossAndSilence(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	lossy := fakeServer(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if asked.Add(1)%2 == 1 {
			return
		}
		m := new(dns.Msg)
		m.SetReply(r)
		m.Authoritative = true
		if r.Question[0].Qtype == dns.TypeSOA {
			m.Answer = rr(t, "example.test. 60 SOA ns1 host 100 1 1 1 1")
		}
		_ = w.WriteMsg(m)
	})
	if status := Prove(t.Context(), lossy, "example.test", 100, nil); !status.InSync {
		t.Errorf("with a lost packet: %+v", status)
	}
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if status := Prove(t.Context(), silent.LocalAddr().String(), "example.test", 100, nil); status.InSync || !strings.Contains(status.Error, "no answer") {
		t.Errorf("a silent server: %+v", status)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if status := Prove(ctx, silent.LocalAddr().String(), "example.test", 100, nil); status.InSync {
		t.Errorf("after the end: %+v", status)
	}
}

// Many owners are asked without flooding, and what is wrong is summed up.
func TestProveManyOwners(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int32
	server := fakeServer(t, func(w dns.ResponseWriter, r *dns.Msg) {
		for n := now.Add(1); ; {
			old := most.Load()
			if n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		m := new(dns.Msg)
		m.SetReply(r)
		m.Authoritative = true
		if r.Question[0].Qtype == dns.TypeSOA {
			m.Answer = rr(t, "example.test. 60 SOA ns1 host 100 1 1 1 1")
		}
		now.Add(-1) // before the answer, which lets the next question come
		_ = w.WriteMsg(m)
	})
	var sets []AddressSet
	for i := range 200 {
		sets = append(sets, AddressSet{Owner: fmt.Sprintf("n%d", i), TTL: time.Minute, Addresses: addrs("192.0.2.1")})
	}
	status := Prove(t.Context(), server, "example.test", 100, sets)
	if status.InSync || !strings.Contains(status.Error, "and 196 more") {
		t.Errorf("got %+v", status)
	}
	if most.Load() > proveInFlight {
		t.Errorf("%d questions at once, at most %d are allowed", most.Load(), proveInFlight)
	}
}

func TestAskable(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		name := askable("*.example.test")
		if !strings.HasPrefix(name, "upkeep-") || !strings.HasSuffix(name, ".example.test") || seen[name] {
			t.Fatalf("asked by %q", name)
		}
		seen[name] = true
	}
	if got := askable("www.example.test"); got != "www.example.test" {
		t.Errorf("www is asked by %q", got)
	}
}
