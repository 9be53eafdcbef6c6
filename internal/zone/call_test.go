package zone

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/zone/answer"
	"upkeep/internal/zone/dnsserver"
)

// richServer serves richZone and, beside it, a zone whose transfers are signed.
func richServer(t testing.TB) *Server {
	t.Helper()
	s := startServer(t, ServerOptions{})
	p, err := s.Publisher(t.Context(), richZone(), upkeep.Publisher{Type: upkeep.PublishTransfer, AllowTransfer: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	mustPublish(t, p, Content{Zone: richZone()})
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(goodKey), 0o600); err != nil {
		t.Fatal(err)
	}
	signed := upkeep.Zone{Name: "signed.test"}.WithDefaults()
	p, err = s.Publisher(t.Context(), signed, upkeep.Publisher{Type: upkeep.PublishTransfer, TSIG: file, AllowTransfer: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	mustPublish(t, p, Content{Zone: signed})
	return s
}

// FuzzServe sends any octets down both ways of answering. Whatever comes: no
// panic, an answer to nothing but a query, of a size that the client takes and
// that forging it is not worth, readable, with the client's ID and question; and
// the quick way says the same as the slow one.
func FuzzServe(f *testing.F) {
	s := richServer(f)
	pack := func(edit func(m *dns.Msg)) {
		m := new(dns.Msg).SetQuestion("www.example.test.", dns.TypeA)
		edit(m)
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	for _, name := range []string{"@", "www", "a.wild", "sub", "x.sub", "toward", "q.alias", "large", "larger", "nothing", "deep.er", "gone"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeANY, dns.TypeDS, dns.TypeIXFR, dns.TypeAXFR} {
			pack(func(m *dns.Msg) {
				m.Question[0] = dns.Question{Name: strings.TrimPrefix(name+".example.test.", "@."), Qtype: qtype, Qclass: dns.ClassINET}
				if qtype == dns.TypeIXFR {
					m.Ns = []dns.RR{&dns.SOA{Hdr: header("example.test.", dns.TypeSOA, 0), Ns: ".", Mbox: "."}}
				}
			})
		}
	}
	pack(func(m *dns.Msg) { m.SetEdns0(4096, true) })
	pack(func(m *dns.Msg) { m.SetEdns0(100, false) })
	pack(func(m *dns.Msg) { m.SetTsig("transfer.example.", dns.HmacSHA256, 300, 1) })
	pack(func(m *dns.Msg) {
		m.SetQuestion("signed.test.", dns.TypeAXFR).SetTsig("transfer.example.", dns.HmacSHA256, 300, 1)
	})
	pack(func(m *dns.Msg) { m.SetUpdate("example.test.") })
	pack(func(m *dns.Msg) { m.SetNotify("example.test.") })
	from := netip.MustParseAddrPort("192.0.2.1:1234")
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > dnsserver.MaxPacket {
			return // the sockets take no longer ones
		}
		before := bytes.Clone(packet)
		quick := make([]byte, dnsserver.MaxPacket)
		n := (*listening)(s).Packet(quick, packet, from, 7)
		if !bytes.Equal(before, packet) {
			t.Fatalf("the query was changed from %x to %x", before, packet)
		}
		checkAnswer(t, s, packet, quick[:n])
		var messages [][]byte
		_ = (*listening)(s).Stream(packet, from, func(m []byte) error { // an error is no answer
			messages = append(messages, bytes.Clone(m))
			return nil
		})
		for i, m := range messages {
			if i == 0 {
				checkAnswered(t, packet, m)
			}
		}
		checkBothWays(t, s, packet)
	})
}

func checkAnswer(t *testing.T, s *Server, packet, got []byte) {
	t.Helper()
	if len(got) == 0 {
		if len(packet) >= 12 && packet[2]&0x80 == 0 {
			t.Fatalf("no answer to %x", packet)
		}
		return
	}
	limit := answer.MinPayload
	var q dns.Msg
	if err := q.Unpack(packet); err == nil && q.IsEdns0() != nil {
		limit = min(max(limit, int(q.IsEdns0().UDPSize())), answer.MaxPayload)
	}
	m := checkAnswered(t, packet, got)
	if len(got) > limit {
		t.Fatalf("the answer to %x has %d octets, the limit is %d", packet, len(got), limit)
	}
	// What is not served is not worth asking for under a forged address.
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError && len(got) > max(len(packet), 12)+11+64 {
		t.Fatalf("%s to %d octets has %d octets", dns.RcodeToString[m.Rcode], len(packet), len(got))
	}
	if m.Truncated && len(m.Answer)+len(m.Ns) > 0 {
		t.Fatalf("a truncated answer carries records: %v", m)
	}
}

func checkAnswered(t *testing.T, packet, got []byte) *dns.Msg {
	t.Helper()
	if len(packet) < 12 || packet[2]&0x80 != 0 {
		t.Fatalf("%x is answered", packet)
	}
	var m dns.Msg
	if err := m.Unpack(got); err != nil {
		t.Fatalf("the answer %x to %x cannot be read: %v", got, packet, err)
	}
	if !answer.WellFormed(got) || !m.Response || m.Id != binary.BigEndian.Uint16(packet) || m.RecursionAvailable {
		t.Fatalf("the answer to %x is %v", packet, m.MsgHdr)
	}
	if len(m.Question) == 1 {
		end := 12
		for got[end] != 0 {
			end += 1 + int(got[end])
		}
		if end += 5; !bytes.Equal(got[12:end], packet[12:min(end, len(packet))]) {
			t.Fatalf("the question of the answer %x is not the one asked: %x", got, packet)
		}
	}
	return &m
}

// checkBothWays holds an answer of the quick way, if there is one, to the slow
// way's.
func checkBothWays(t *testing.T, s *Server, packet []byte) {
	t.Helper()
	dst := make([]byte, dns.MaxMsgSize)
	n := s.zones.Quick(dst, packet, false, 7)
	if n == 0 {
		return
	}
	var q, quick dns.Msg
	if err := q.Unpack(packet); err != nil {
		t.Fatalf("the quick way answers %x, which cannot be read: %v", packet, err)
	}
	if err := quick.Unpack(dst[:n]); err != nil {
		t.Fatal(err)
	}
	packed, err := s.zones.Reply(&q).Pack()
	if err != nil {
		t.Fatal(err)
	}
	var slow dns.Msg
	if err := slow.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole(&slow), whole(&quick)); diff != "" {
		t.Fatalf("%v is answered differently (-slow +quick):\n%s", q.Question, diff)
	}
}

// whole renders everything of a message but the order of records.
func whole(m *dns.Msg) string {
	opt := "no EDNS"
	if o := m.IsEdns0(); o != nil {
		opt = o.String()
	}
	extra := &dns.Msg{}
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			extra.Answer = append(extra.Answer, rr)
		}
	}
	head := m.MsgHdr
	head.Zero = false
	return head.String() + opt + substance(m) + substance(extra)
}
