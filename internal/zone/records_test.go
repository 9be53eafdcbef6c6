package zone

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"upkeep"
)

func TestValidateRecordsAcceptsEveryType(t *testing.T) {
	z := upkeep.Zone{Name: "example.test", Records: []upkeep.Record{
		{Name: "@", Type: "NS", Value: "ns1"},
		{Name: "@", Type: "NS", Value: "ns2.example.net."},
		{Name: "ns1", Type: "A", Value: "192.0.2.53"},
		{Name: "ns1", Type: "AAAA", Value: "2001:db8::53"},
		{Name: "www", Type: "CNAME", Value: "ns1"},
		{Name: "@", Type: "MX", Value: "10 mail.example.net."},
		{Name: "none", Type: "MX", Value: "0 ."},
		{Name: "@", Type: "TXT", Value: `"v=spf1 -all; (really)" "second \" quote"`},
		{Name: "k._domainkey", Type: "TXT", Value: `"v=DKIM1; p=` + strings.Repeat("A", 600) + `"`},
		{Name: "_sip._tcp", Type: "SRV", Value: "1 2 5060 sip"},
		{Name: "@", Type: "CAA", Value: `0 issue "ca.example; x=1"`},
		{Name: "ptr", Type: "PTR", Value: "host.example.net."},
		{Name: "sub", Type: "NS", Value: "ns.sub"},
		{Name: "ns.sub", Type: "A", Value: "192.0.2.54"},
		{Name: "sub", Type: "DS", Value: "1 13 2 " + strings.Repeat("00", 32)},
		{Name: "_443._tcp", Type: "TLSA", Value: "3 1 1 " + strings.Repeat("ab", 32)},
		{Name: "ns1", Type: "SSHFP", Value: "4 2 " + strings.Repeat("cd", 32)},
		{Name: "*", Type: "TXT", Value: "plain"},
	}}
	if problems := ValidateRecords(z); len(problems) > 0 {
		t.Errorf("refused: %v", problems)
	}
	records, err := Content{Zone: z}.records(7)
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != len(z.Records)+1 {
		t.Errorf("%d records of %d", len(records), len(z.Records))
	}
}

func TestValidateRecordsRefuses(t *testing.T) {
	ns := upkeep.Record{Name: "@", Type: "NS", Value: "ns1"}
	tests := []struct {
		name    string
		records []upkeep.Record
		field   string
		rule    string
	}{
		{"no address", []upkeep.Record{{Name: "a", Type: "A", Value: "192.0.2"}}, "records[0].value", "not the data of a record of type A"},
		{"IPv6 in A", []upkeep.Record{{Name: "a", Type: "A", Value: "2001:db8::1"}}, "records[0].value", "not the data"},
		{"trailing data", []upkeep.Record{{Name: "a", Type: "A", Value: "192.0.2.1 192.0.2.2"}}, "records[0].value", "not the data"},
		{"unquoted semicolon", []upkeep.Record{{Name: "a", Type: "TXT", Value: "v=DKIM1; p=AAAA"}}, "records[0].value", "outside of quotes"},
		{"parenthesis", []upkeep.Record{{Name: "a", Type: "A", Value: "( 192.0.2.1"}}, "records[0].value", "outside of quotes"},
		{"newline", []upkeep.Record{{Name: "a", Type: "A", Value: "192.0.2.1\n$INCLUDE /etc/passwd"}}, "records[0].value", "on one line"},
		{"open quote", []upkeep.Record{{Name: "a", Type: "TXT", Value: `"open`}}, "records[0].value", "not closed"},
		{"final backslash", []upkeep.Record{{Name: "a", Type: "TXT", Value: `a\`}}, "records[0].value", "backslash"},
		{"generic form", []upkeep.Record{{Name: "a", Type: "A", Value: `\# 4 c0000201`}}, "records[0].value", "generic form"},
		{"CNAME twice", []upkeep.Record{{Name: "a", Type: "CNAME", Value: "b"}, {Name: "a", Type: "CNAME", Value: "c"}}, "records[1].type", "twice"},
		{"CNAME and other data", []upkeep.Record{{Name: "a", Type: "CNAME", Value: "b"}, {Name: "A", Type: "TXT", Value: "x"}}, "records[1].type", "beside the CNAME"},
		{"CNAME at the apex", []upkeep.Record{{Name: "@", Type: "CNAME", Value: "b"}}, "records[0].type", "top of a zone"},
		{"MX at CNAME", []upkeep.Record{{Name: "a", Type: "CNAME", Value: "b"}, {Name: "@", Type: "MX", Value: "10 A"}}, "records[1].value", "which is a CNAME"},
		{"NS at CNAME", []upkeep.Record{ns, {Name: "ns1", Type: "CNAME", Value: "b"}}, "records[0].value", "which is a CNAME"},
		{"CNAME at no name", []upkeep.Record{{Name: "a", Type: "CNAME", Value: `b\032c`}}, "records[0].value", "must point at"},
		{"CNAME to itself", []upkeep.Record{{Name: "a", Type: "CNAME", Value: "A"}}, "records[0].value", "leads back"},
		{"CNAME in a circle", []upkeep.Record{{Name: "a", Type: "CNAME", Value: "b"}, {Name: "b", Type: "CNAME", Value: "a"}}, "records[1].value", "leads back"},
		{"NS at root", []upkeep.Record{{Name: "@", Type: "NS", Value: "."}}, "records[0].value", "must point at"},
		{"NS at a wildcard", []upkeep.Record{{Name: "*.a", Type: "NS", Value: "ns1"}}, "records[0].type", "wildcard"},
		{"DS at the apex", []upkeep.Record{ns, {Name: "@", Type: "DS", Value: "1 13 2 00"}}, "records[1].type", "delegated name"},
		{"DS alone", []upkeep.Record{{Name: "a", Type: "DS", Value: "1 13 2 00"}}, "records[0].type", "delegated name"},
		{"below a delegation", []upkeep.Record{{Name: "a", Type: "NS", Value: "ns1"}, {Name: "b.a", Type: "TXT", Value: "x"}}, "records[1].name", "lies in a.example.test"},
		{"two TTLs", []upkeep.Record{{Name: "a", Type: "A", Value: "192.0.2.1"}, {Name: "a", Type: "A", Value: "192.0.2.2", TTL: upkeep.Duration(9e9)}}, "records[1].ttl", "must be 3600s"},
		{"same data", []upkeep.Record{{Name: "a", Type: "MX", Value: "10 b"}, {Name: "a", Type: "MX", Value: "10 b.example.test."}}, "records[1].value", "same data as records[0]"},
		{"name too long", []upkeep.Record{{Name: strings.Repeat("abcdefg.", 30) + "a", Type: "A", Value: "192.0.2.1"}}, "records[0].value", "253 octets"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			problems := ValidateRecords(upkeep.Zone{Name: "example.test", Records: tt.records})
			for _, p := range problems {
				if p.Field == tt.field && strings.Contains(p.Rule, tt.rule) {
					return
				}
			}
			t.Errorf("problems are %v, want %s with %q", problems, tt.field, tt.rule)
		})
	}
}

func TestTooManyRecordsAtOneName(t *testing.T) {
	z := upkeep.Zone{Name: "example.test"}
	for i := range upkeep.MaxAnswer + 1 {
		z.Records = append(z.Records, upkeep.Record{Name: "a", Type: "A", Value: fmt.Sprintf("192.0.2.%d", i)})
	}
	if problems := ValidateRecords(z); len(problems) != 1 || !strings.Contains(problems[0].Rule, "BIND refuses") {
		t.Errorf("problems are %v", problems)
	}
}

// FuzzRecordValue holds any value to giving one record of its own name and type,
// or none.
func FuzzRecordValue(f *testing.F) {
	for _, value := range []string{"192.0.2.1", "10 mail", `"text"`, "$INCLUDE /etc/passwd", "a\n$ORIGIN .", "( a )", "a ; b", `\# 1 00`, "1 2 3 .", `0 issue "x"`, "$GENERATE 1-9 a A 192.0.2.$"} {
		for i := range upkeep.RecordTypes {
			f.Add(i, value)
		}
	}
	f.Fuzz(func(t *testing.T, i int, value string) {
		rtype := upkeep.RecordTypes[uint(i)%uint(len(upkeep.RecordTypes))]
		record := upkeep.Record{Name: "a", Type: rtype, Value: value}
		z := upkeep.Zone{Name: "example.test", Records: []upkeep.Record{record}}.WithDefaults()
		parsed, problems := readRecords(z)
		if len(problems) > 0 {
			return
		}
		if len(parsed) != 1 || parsed[0].rr.Header().Name != "a.example.test." || parsed[0].rr.Header().Rrtype != dns.StringToType[rtype] {
			t.Fatalf("%s %q became %v", rtype, value, parsed)
		}
		again, err := dns.NewRR(parsed[0].rr.String())
		if err != nil || mustWire(t, again) != mustWire(t, parsed[0].rr) {
			t.Fatalf("%s %q became %s, which reads back as %v, %v", rtype, value, parsed[0].rr, again, err)
		}
	})
}

func mustWire(t testing.TB, rr dns.RR) string {
	t.Helper()
	packed, err := wire(rr)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}
