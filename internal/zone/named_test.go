package zone

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/testkit"
)

// richZone has one of everything whose answer is easily got wrong.
func richZone() upkeep.Zone {
	z := upkeep.Zone{Name: "example.test"}
	for line := range strings.Lines(`@ NS ns1
@ NS ns.other.example.
ns1 A 192.0.2.53
@ A 192.0.2.1
@ A 192.0.2.2
@ AAAA 2001:db8::1
@ MX 10 mail
@ TXT "v=spf1 -all"
mail A 192.0.2.25
www CNAME @
ftp CNAME www
away CNAME www.other.example.
gone CNAME nowhere
toward CNAME host.sub
atcut CNAME sub
deep.er.name TXT "x"
*.wild A 192.0.2.9
*.wild A 192.0.2.10
*.wild MX 5 mx.wild
exists.wild TXT "here"
*.alias CNAME www
*.lost CNAME nowhere
sub NS ns.sub
sub NS ns1
sub DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000
ns.sub A 192.0.2.60
ns.sub AAAA 2001:db8::60
plain NS ns.other.example.
_sip._tcp SRV 1 2 5060 mail
@ CAA 0 issue "ca.example"
`) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		z.Records = append(z.Records, upkeep.Record{Name: fields[0], Type: fields[1], Value: fields[2]})
	}
	for i := range 60 {
		z.Records = append(z.Records, upkeep.Record{Name: "large", Type: "A", Value: fmt.Sprintf("198.51.100.%d", i)})
		z.Records = append(z.Records, upkeep.Record{Name: "larger", Type: "TXT", Value: fmt.Sprintf(`"%s%d"`, strings.Repeat("x", 200), i)})
	}
	return z.WithDefaults()
}

// twins starts upkeep's server and a BIND that is its secondary, so that both
// answer the same zone.
func twins(t *testing.T, z upkeep.Zone) (ours *Server, named *testkit.Secondary) {
	ours = startServer(t, ServerOptions{})
	named = testkit.StartSecondary(t, testkit.SecondaryConfig{
		Kind: "named", Zone: z.Name, Primary: ours.Addr(), Options: "minimal-responses yes; zero-no-soa-ttl no; minimal-any yes; max-records-per-type 0;",
	})
	p, err := ours.Publisher(t.Context(), z, upkeep.Publisher{Type: upkeep.PublishTransfer, Secondaries: []string{named.Addr.String()}})
	if err != nil {
		t.Fatal(err)
	}
	serial := mustPublish(t, p, Content{Zone: z})
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		got, _, err := followed(named.Addr)
		return err == nil && got == serial, fmt.Sprint(got, err)
	})
	return ours, named
}

// substance is what two servers must agree on: response code, AA, TC, the
// answer and authority sections in any order.
func substance(m *dns.Msg) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s aa=%v tc=%v\n", dns.RcodeToString[m.Rcode], m.Authoritative, m.Truncated)
	sections := [][]dns.RR{m.Answer, m.Ns}
	if m.Truncated {
		sections = nil // how much of it is sent is each server's own choice
	}
	for i, section := range sections {
		var lines []string
		for _, rr := range section {
			lines = append(lines, fmt.Sprintf("  %d %s", i, strings.ToLower(rr.String())))
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(append(lines, ""), "\n"))
	}
	return b.String()
}

func TestAnswersAsNamedDoes(t *testing.T) {
	ours, named := twins(t, richZone())
	names := []string{"@", "ns1", "mail", "www", "ftp", "away", "gone", "toward", "atcut", "deep.er.name", "er.name", "name", "x.name",
		"wild", "a.wild", "b.a.wild", "*.wild", "a.*.wild", "exists.wild", "a.exists.wild", "q.alias", "alias", "q.lost", "sub", "host.sub",
		"ns.sub", "x.ns.sub", "plain", "x.plain", "_sip._tcp", "_tcp", "nothing", "wWw", "A.WILD", "large", "larger", "a.b.c.d.e.f.g.nothing",
		strings.Repeat("a", 63) + ".wild"}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeTXT, dns.TypeCNAME, dns.TypeDS, dns.TypeSRV,
		dns.TypeCAA, dns.TypeHTTPS, dns.TypeDNSKEY, dns.TypePTR}
	for _, name := range names {
		owner := "example.test."
		if name != "@" {
			owner = name + "." + owner
		}
		for _, qtype := range types {
			m := new(dns.Msg).SetQuestion(owner, qtype)
			m.RecursionDesired = rand.IntN(2) == 0
			if rand.IntN(2) == 0 {
				m.SetEdns0(1232, false)
			}
			compare(t, ours, named, m, "udp")
			compare(t, ours, named, m, "tcp")
		}
	}
}

func compare(t *testing.T, ours *Server, named *testkit.Secondary, m *dns.Msg, network string) {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: 4096}
	want, _, errWant := client.Exchange(m, named.Addr.String())
	got, _, errGot := client.Exchange(m, ours.Addr().String())
	if errWant != nil || errGot != nil {
		t.Errorf("%s over %s: named: %v; upkeep: %v", question(m), network, errWant, errGot)
		return
	}
	if diff := cmp.Diff(substance(want), substance(got)); diff != "" {
		t.Errorf("%s over %s (-named +upkeep):\n%s", question(m), network, diff)
	}
	if got.RecursionDesired != m.RecursionDesired || got.RecursionAvailable || got.AuthenticatedData {
		t.Errorf("%s over %s: the header is %v", question(m), network, got.MsgHdr)
	}
}

func question(m *dns.Msg) string {
	if len(m.Question) == 0 {
		return "no question"
	}
	return strings.TrimPrefix(m.Question[0].String(), ";")
}

// exchangeRaw sends octets over UDP and returns the answer, nil for none.
func exchangeRaw(t *testing.T, server string, packet []byte) []byte {
	t.Helper()
	conn, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A harmless query behind it shows that no answer is coming.
	if _, err := conn.Write(packet); err != nil {
		t.Fatal(err)
	}
	last := new(dns.Msg).SetQuestion("example.test.", dns.TypeSOA)
	last.Id = 0xbeef
	marker, err := last.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(marker); err != nil {
		t.Fatal(err)
	}
	var found []byte
	for {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 65535)
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		if buffer[0] == 0xbe && buffer[1] == 0xef {
			return found
		}
		found = buffer[:n]
	}
}

func TestOddMessagesAsNamedDoes(t *testing.T) {
	ours, named := twins(t, richZone())
	build := func(edit func(m *dns.Msg)) []byte {
		m := new(dns.Msg).SetQuestion("www.example.test.", dns.TypeA)
		m.Id = 0x1234
		edit(m)
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	opt := func(version uint8) *dns.OPT {
		o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		o.SetUDPSize(1232)
		o.SetVersion(version)
		return o
	}
	ordinary := build(func(*dns.Msg) {})
	tests := map[string][]byte{
		"ordinary":         ordinary,
		"opcode IQUERY":    build(func(m *dns.Msg) { m.Opcode = dns.OpcodeIQuery }),
		"opcode STATUS":    build(func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }),
		"opcode 3":         build(func(m *dns.Msg) { m.Opcode = 3 }),
		"opcode 15":        build(func(m *dns.Msg) { m.Opcode = 15 }),
		"NOTIFY":           build(func(m *dns.Msg) { m.SetNotify("example.test."); m.Id = 0x1234 }),
		"NOTIFY elsewhere": build(func(m *dns.Msg) { m.SetNotify("example.com."); m.Id = 0x1234 }),
		"UPDATE":           build(func(m *dns.Msg) { m.SetUpdate("example.test."); m.Id = 0x1234 }),
		"class CH": build(func(m *dns.Msg) {
			m.Question[0] = dns.Question{Name: "version.bind.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
		}),
		"class ANY":         build(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }),
		"class NONE":        build(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassNONE }),
		"class 0":           build(func(m *dns.Msg) { m.Question[0].Qclass = 0 }),
		"another zone":      build(func(m *dns.Msg) { m.Question[0].Name = "www.example.com." }),
		"the root":          build(func(m *dns.Msg) { m.Question[0].Name = "." }),
		"type 0":            build(func(m *dns.Msg) { m.Question[0].Qtype = 0 }),
		"type OPT":          build(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }),
		"type TKEY":         build(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTKEY }),
		"type TSIG":         build(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTSIG }),
		"type MAILB":        build(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMAILB }),
		"type MAILA":        build(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMAILA }),
		"type 128":          build(func(m *dns.Msg) { m.Question[0].Qtype = 128 }),
		"type 65280":        build(func(m *dns.Msg) { m.Question[0].Qtype = 65280 }),
		"AXFR over UDP":     build(func(m *dns.Msg) { m.Question[0] = dns.Question{Name: "example.test.", Qtype: dns.TypeAXFR, Qclass: 1} }),
		"IXFR without SOA":  build(func(m *dns.Msg) { m.Question[0] = dns.Question{Name: "example.test.", Qtype: dns.TypeIXFR, Qclass: 1} }),
		"no question":       build(func(m *dns.Msg) { m.Question = nil }),
		"two questions":     build(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }),
		"EDNS":              build(func(m *dns.Msg) { m.Extra = []dns.RR{opt(0)} }),
		"EDNS version 1":    build(func(m *dns.Msg) { m.Extra = []dns.RR{opt(1)} }),
		"EDNS twice":        build(func(m *dns.Msg) { m.Extra = []dns.RR{opt(0), opt(0)} }),
		"EDNS elsewhere":    build(func(m *dns.Msg) { m.Answer = []dns.RR{opt(0)} }),
		"EDNS at a name":    build(func(m *dns.Msg) { o := opt(0); o.Hdr.Name = "a."; m.Extra = []dns.RR{o} }),
		"DO":                build(func(m *dns.Msg) { o := opt(0); o.SetDo(); m.Extra = []dns.RR{o} }),
		"an answer":         build(func(m *dns.Msg) { m.Response = true }),
		"with an answer":    build(func(m *dns.Msg) { m.Answer = []dns.RR{&dns.A{Hdr: header("a.", dns.TypeA, 0), A: []byte{1, 2, 3, 4}}} }),
		"TC set":            build(func(m *dns.Msg) { m.Truncated = true }),
		"AA, RA, Z set":     build(func(m *dns.Msg) { m.Authoritative, m.RecursionAvailable, m.Zero = true, true, true }),
		"AD, CD set":        build(func(m *dns.Msg) { m.AuthenticatedData, m.CheckingDisabled = true, true }),
		"rcode set":         build(func(m *dns.Msg) { m.Rcode = 5 }),
		"trailing octets":   append(slices.Clone(ordinary), 1, 2, 3),
		"cut in the name":   ordinary[:20],
		"header alone":      ordinary[:12],
		"a short header":    ordinary[:11],
		"empty":             {},
		"counts too high":   append([]byte{0x12, 0x34, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ordinary[12:]...),
		"a pointer":         append(slices.Clone(ordinary[:12]), 0xc0, 12, 0, 1, 0, 1),
		"a forward pointer": append(slices.Clone(ordinary[:12]), 0xc0, 40, 0, 1, 0, 1),
		"a label type":      append(slices.Clone(ordinary[:12]), 0x41, 'a', 0, 0, 1, 0, 1),
		"a name too long":   append(append(slices.Clone(ordinary[:12]), bytes.Repeat([]byte("\x01a"), 128)...), 0, 0, 1, 0, 1),
	}
	// Where upkeep differs on purpose.
	other := map[string]string{
		"NOTIFY":           "NOTIMP", // this named is a secondary, upkeep is none
		"NOTIFY elsewhere": "NOTIMP",
		"UPDATE":           "NOTIMP",  // RFC 2136 section 3.1
		"class CH":         "REFUSED", // what runs here is nobody's business
		"type 0":           "FORMERR", // named shows all records but the SOA
		"trailing octets":  "FORMERR", // what cannot be understood is not guessed at
	}
	for name, packet := range tests {
		t.Run(name, func(t *testing.T) {
			describe := func(b []byte) string {
				if b == nil {
					return "no answer"
				}
				var m dns.Msg
				if err := m.Unpack(b); err != nil {
					return fmt.Sprintf("%x: %v", b, err)
				}
				rcode := m.Rcode
				edns := "no EDNS"
				if o := m.IsEdns0(); o != nil {
					edns = fmt.Sprintf("EDNS %d do=%v", o.Version(), o.Do())
				}
				return fmt.Sprintf("%s id=%x opcode=%d qr=%v aa=%v tc=%v rd=%v ra=%v ad=%v cd=%v q=%d an=%d ns=%d %s", dns.RcodeToString[rcode], m.Id, m.Opcode,
					m.Response, m.Authoritative, m.Truncated, m.RecursionDesired, m.RecursionAvailable, m.AuthenticatedData, m.CheckingDisabled, len(m.Question), len(m.Answer), len(m.Ns), edns)
			}
			want := describe(exchangeRaw(t, named.Addr.String(), packet))
			got := describe(exchangeRaw(t, ours.Addr().String(), packet))
			if rcode, differs := other[name]; differs {
				if !strings.HasPrefix(got, rcode+" ") {
					t.Errorf("%s, want %s", got, rcode)
				}
				return
			}
			if got != want {
				t.Errorf("named:  %s\nupkeep: %s", want, got)
			}
		})
	}
}
