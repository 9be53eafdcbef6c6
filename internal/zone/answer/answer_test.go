package answer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

const origin = "example.test."

// parseZone reads records in the syntax of zone files, relative to origin.
func parseZone(t testing.TB, text string) []dns.RR {
	t.Helper()
	var records []dns.RR
	p := dns.NewZoneParser(strings.NewReader("$TTL 60\n"+text), origin, "")
	for rr, more := p.Next(); more; rr, more = p.Next() {
		records = append(records, rr)
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}

func mustZone(t testing.TB, records []dns.RR) *Zone {
	t.Helper()
	z, err := NewZone(origin, records)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// plain renders the substance of a message for comparison: names in lower
// case, each section in order of its text, since rotation is no difference.
func plain(m *dns.Msg) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s aa=%v tc=%v\n", dns.RcodeToString[m.Rcode], m.Authoritative, m.Truncated)
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		var lines []string
		for _, rr := range section {
			if rr.Header().Rrtype != dns.TypeOPT {
				lines = append(lines, fmt.Sprintf("  %d %s", i, strings.ToLower(rr.String())))
			}
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(append(lines, ""), "\n"))
	}
	return b.String()
}

// ask packs a query, has it answered by both ways and returns the messages;
// quick is nil where the query took the slow way only.
func ask(t failer, zs *Zones, m *dns.Msg, udp bool) (quick, slow *dns.Msg) {
	packet, err := m.Pack()
	if err != nil {
		t.Fatalf("packing the query: %v", err)
	}
	dst := make([]byte, dns.MaxMsgSize)
	if n := zs.Quick(dst, packet, udp, 0x9e3779b9); n > 0 {
		quick = new(dns.Msg)
		if err := quick.Unpack(dst[:n]); err != nil {
			t.Fatalf("the quick answer to %s does not parse: %v\n%x", m.Question[0].String(), err, dst[:n])
		}
		if n > Limit(m, udp) {
			t.Fatalf("the answer has %d octets, more than %d", n, Limit(m, udp))
		}
	}
	return quick, zs.Reply(m)
}

type failer interface {
	Fatalf(format string, args ...any)
}

const sample = `
@       SOA   ns1 hostmaster 7 300 60 86400 30
@       NS    ns1
@       NS    ns.other.example.
ns1     A     192.0.2.53
@       A     192.0.2.1
@       A     192.0.2.2
@       A     192.0.2.3
@       AAAA  2001:db8::1
@       AAAA  2001:db8::2
@       MX    10 mail
@       TXT   "v=spf1 -all"
mail    A     192.0.2.25
www     CNAME @
ftp     CNAME www
away    CNAME www.other.example.
gone    CNAME nowhere
toward  CNAME host.sub
loop1   CNAME loop2
loop2   CNAME loop1
deep.er.name TXT "x"
*.wild  A     192.0.2.9
*.wild  A     192.0.2.10
*.wild  MX    5 mx.wild
exists.wild TXT "here"
*.alias CNAME www
*.self  CNAME a.self
sub     NS    ns.sub
sub     NS    ns1
sub     DS    1 13 2 0000000000000000000000000000000000000000000000000000000000000000
ns.sub  A     192.0.2.60
ns.sub  AAAA  2001:db8::60
_sip._tcp SRV 1 2 5060 mail
@       CAA   0 issue "ca.example"
`

func TestQuickEqualsSlowEqualsOracle(t *testing.T) {
	records := parseZone(t, sample)
	zs := &Zones{}
	zs.Put(mustZone(t, records))
	o := oracle{origin, records}
	names := []string{"@", "ns1", "mail", "www", "ftp", "away", "gone", "toward", "loop1", "deep.er.name", "er.name", "name", "x.name",
		"wild", "a.wild", "b.a.wild", "*.wild", "a.*.wild", "exists.wild", "a.exists.wild", "q.alias", "b.self", "a.self", "sub", "host.sub",
		"ns.sub", "x.ns.sub", "_sip._tcp", "_tcp", "nothing", "WwW", "A.WILD", strings.Repeat("a", 63) + ".wild"}
	for _, name := range names {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeTXT, dns.TypeCNAME, dns.TypeDS, dns.TypeSRV, dns.TypeCAA, dns.TypeHTTPS} {
			m := new(dns.Msg).SetQuestion(absolute(name), qtype)
			quick, slow := ask(t, zs, m, false)
			want := plain(o.answer(m.Question[0]))
			if diff := cmp.Diff(want, plain(slow)); diff != "" {
				t.Errorf("%s %s: oracle and slow answer (-want +got):\n%s", name, dns.TypeToString[qtype], diff)
			}
			if quick == nil {
				if !strings.HasSuffix(name, "self") {
					t.Errorf("%s %s: not answered quickly", name, dns.TypeToString[qtype])
				}
				continue
			}
			if diff := cmp.Diff(want, plain(quick)); diff != "" {
				t.Errorf("%s %s: oracle and quick answer (-want +got):\n%s", name, dns.TypeToString[qtype], diff)
			}
		}
	}
}

func absolute(name string) string {
	if name == "@" {
		return origin
	}
	return name + "." + origin
}

// randomZone draws a zone over few labels, so that names meet.
func randomZone(t *rapid.T) []dns.RR {
	label := rapid.SampledFrom([]string{"a", "b", "*", "c"})
	name := rapid.Custom(func(t *rapid.T) string {
		labels := rapid.SliceOfN(label, 0, 4).Draw(t, "labels")
		return strings.Join(append(labels, origin), ".")
	})
	lines := []string{"example.test. SOA b hostmaster 7 300 60 86400 30", "example.test. NS b"}
	alias, other := map[string]bool{}, map[string]bool{origin: true}
	for i := range rapid.IntRange(0, 14).Draw(t, "records") {
		owner, target := name.Draw(t, "owner"), name.Draw(t, "target")
		kind := rapid.SampledFrom([]string{"A", "A", "AAAA", "CNAME", "NS", "MX", "DS"}).Draw(t, "type")
		if alias[owner] || kind == "CNAME" && other[owner] || kind == "NS" && strings.HasPrefix(owner, "*") {
			continue
		}
		alias[owner], other[owner] = kind == "CNAME", true
		data := map[string]string{
			"A": fmt.Sprintf("192.0.2.%d", i+1), "AAAA": fmt.Sprintf("2001:db8::%d", i+1), "CNAME": target, "NS": target,
			"MX": fmt.Sprintf("%d %s", i, target), "DS": fmt.Sprintf("%d 13 2 00", i),
		}[kind]
		lines = append(lines, fmt.Sprintf("%s %s %s", owner, kind, data))
	}
	var records []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR("$ORIGIN " + origin + "\n$TTL 60\n" + line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if !slices.ContainsFunc(records, func(other dns.RR) bool { return dns.IsDuplicate(rr, other) }) {
			records = append(records, rr)
		}
	}
	return records
}

func TestRandomZones(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := randomZone(t)
		z, err := NewZone(origin, records)
		if err != nil {
			t.Fatalf("%v", err)
		}
		zs := &Zones{}
		zs.Put(z)
		o := oracle{origin, records}
		label := rapid.SampledFrom([]string{"a", "b", "*", "c", "x", "longer-label"})
		for range 20 {
			name := strings.Join(append(rapid.SliceOfN(label, 0, 5).Draw(t, "labels"), origin), ".")
			qtype := rapid.SampledFrom([]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeNS, dns.TypeCNAME, dns.TypeDS, dns.TypeTXT}).Draw(t, "qtype")
			m := new(dns.Msg).SetQuestion(name, qtype)
			quick, slow := ask(t, zs, m, false)
			want := plain(o.answer(m.Question[0]))
			if diff := cmp.Diff(want, plain(slow)); diff != "" {
				t.Fatalf("%s: oracle and slow answer (-want +got):\n%s", m.Question[0].String(), diff)
			}
			if quick != nil {
				if diff := cmp.Diff(want, plain(quick)); diff != "" {
					t.Fatalf("%s: oracle and quick answer (-want +got):\n%s", m.Question[0].String(), diff)
				}
			}
		}
	})
}
