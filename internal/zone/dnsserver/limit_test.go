package dnsserver

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

func answerOf(t failer, addresses int, edns bool) []byte {
	m := new(dns.Msg).SetQuestion("www.example.test.", dns.TypeA)
	m.Response = true
	for range addresses {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: "www.example.test.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{1, 2, 3, 4}})
	}
	if edns {
		m.SetEdns0(1232, true)
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return packed
}

type failer interface{ Fatalf(string, ...any) }

// TestNetworksGetNoMoreThanTheRate draws floods from a few networks and holds
// what each is sent beyond its queries to the rate and one burst.
func TestNetworksGetNoMoreThanTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const rate = 10_000
		l := newLimiter(rate, 1)
		began := time.Unix(1_700_000_000, 0)
		now, span := began, time.Duration(0)
		gained := map[uint64]int{}
		full := answerOf(t, 10, true)
		for range 300 {
			// A clock that is stepped back must not give anything.
			step := time.Duration(rapid.IntRange(-20, 50).Draw(t, "step")) * time.Millisecond
			now = now.Add(step)
			if step > 0 {
				span += step
			}
			l.at(now)
			client := netip.AddrFrom4([4]byte{192, 0, byte(rapid.IntRange(0, 1).Draw(t, "network")), byte(rapid.IntRange(0, 255).Draw(t, "host"))})
			message := append([]byte{}, full...)
			n := l.fit(message, 45, client)
			if n != len(full) && n != 45 {
				t.Fatalf("an answer of %d octets became %d", len(full), n)
			}
			gained[networkOf(client)] += n - 45
		}
		most := rate + int(span.Seconds()*rate) + 1
		for network, got := range gained {
			if got > most {
				t.Fatalf("network %x got %d octets beyond its queries in %s, more than %d", network, got, span, most)
			}
		}
	})
}

func TestLimitRecoversAndSpares(t *testing.T) {
	l := newLimiter(1000, 1)
	client, local := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1")
	now := time.Unix(1_700_000_000, 0)
	l.at(now)
	full := func(client netip.Addr) bool {
		m := answerOf(t, 10, false)
		return l.fit(m, 34, client) == len(m)
	}
	for full(client) {
	}
	if !full(local) {
		t.Error("a loopback address is limited")
	}
	if !full(netip.MustParseAddr("192.0.3.1")) {
		t.Error("another network is limited")
	}
	if full(netip.MustParseAddr("192.0.2.200")) {
		t.Error("the neighbour of a limited address is not limited")
	}
	l.at(now.Add(time.Second))
	if !full(client) {
		t.Error("the limit does not pass")
	}
	unlimited := newLimiter(-1, 1)
	for range 1000 {
		if m := answerOf(t, 10, false); unlimited.fit(m, 34, client) != len(m) {
			t.Fatal("a bound is kept where there is none")
		}
	}
}

func TestTruncated(t *testing.T) {
	for _, edns := range []bool{false, true} {
		m := answerOf(t, 10, edns)
		var got dns.Msg
		if err := got.Unpack(m[:truncate(m)]); err != nil {
			t.Fatal(err)
		}
		if !got.Truncated || len(got.Question) != 1 || len(got.Answer) > 0 || (got.IsEdns0() != nil) != edns {
			t.Errorf("edns %v: %v", edns, &got)
		}
	}
}

func FuzzTruncate(f *testing.F) {
	f.Add(answerOf(f, 3, true))
	f.Add(answerOf(f, 0, false))
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) < headerLen {
			return // answers have a header
		}
		before := len(message)
		n := truncate(message)
		if n < headerLen || n > max(before, headerLen) || message[2]&2 == 0 {
			t.Fatalf("%d octets became %d: %x", before, n, message)
		}
	})
}
