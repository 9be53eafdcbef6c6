package zone

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"upkeep"
)

// records turns content into the records of a zone, each once, the SOA first
// with the serial given.
func (c Content) records(serial uint32) ([]dns.RR, error) {
	z := c.Zone.WithDefaults()
	static, problems := readRecords(z)
	if len(problems) > 0 {
		return nil, &upkeep.InvalidError{Fields: problems}
	}
	origin := dns.CanonicalName(z.Name)
	records := []dns.RR{soaRecord(z, serial)}
	for _, p := range static {
		records = append(records, p.rr)
	}
	if !slices.ContainsFunc(static, func(p parsedRecord) bool { return p.rr.Header().Rrtype == dns.TypeNS && p.rr.Header().Name == origin }) {
		// A zone without a name server is refused by every secondary.
		records = append(records, &dns.NS{Hdr: header(origin, dns.TypeNS, time.Duration(z.TTL)), Ns: dns.CanonicalName(z.SOA.MName)})
	}
	for _, set := range c.Sets {
		owner := dns.CanonicalName(upkeep.Absolute(set.Owner, z.Name))
		for _, addr := range set.Addresses {
			if addr.Is4() {
				records = append(records, &dns.A{Hdr: header(owner, dns.TypeA, set.TTL), A: net.IP(addr.AsSlice())})
			} else {
				records = append(records, &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, set.TTL), AAAA: net.IP(addr.AsSlice())})
			}
		}
	}
	return uniform(records)
}

func header(owner string, rtype uint16, ttl time.Duration) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: rtype, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
}

func soaRecord(z upkeep.Zone, serial uint32) *dns.SOA {
	seconds := func(d upkeep.Duration) uint32 { return uint32(time.Duration(d) / time.Second) }
	return &dns.SOA{
		Hdr: header(dns.CanonicalName(z.Name), dns.TypeSOA, time.Duration(z.TTL)),
		Ns:  dns.CanonicalName(z.SOA.MName), Mbox: dns.CanonicalName(z.SOA.RName), Serial: serial,
		Refresh: seconds(z.SOA.Refresh), Retry: seconds(z.SOA.Retry), Expire: seconds(z.SOA.Expire), Minttl: seconds(z.SOA.Minimum),
	}
}

// uniform leaves each record once and gives the records of one set one TTL, the
// lowest of theirs (RFC 2181 section 5.2): a pool and a static record may meet
// at a name.
func uniform(records []dns.RR) ([]dns.RR, error) {
	type set struct {
		owner string
		rtype uint16
	}
	ttl := map[set]uint32{}
	of := func(rr dns.RR) set { return set{rr.Header().Name, rr.Header().Rrtype} }
	seen := map[string]bool{}
	var unique []dns.RR
	for _, rr := range records {
		data, err := wireWithoutTTL(rr)
		if err != nil {
			return nil, err
		}
		if seen[data] {
			continue
		}
		seen[data] = true
		unique = append(unique, rr)
		if lowest, exists := ttl[of(rr)]; !exists || rr.Header().Ttl < lowest {
			ttl[of(rr)] = rr.Header().Ttl
		}
	}
	for _, rr := range unique {
		rr.Header().Ttl = ttl[of(rr)]
	}
	return unique, nil
}

// wireWithoutTTL is what tells records apart: owner, type and data. Owners are
// already in lower case; names in the data are compared as they are written.
func wireWithoutTTL(rr dns.RR) (string, error) {
	c := dns.Copy(rr)
	c.Header().Ttl = 0
	return wire(c)
}

func wire(rr dns.RR) (string, error) {
	buf := make([]byte, dns.Len(rr)+256)
	n, err := dns.PackRR(dns.Copy(rr), buf, 0, nil, false) // packing writes into the header
	if err != nil {
		return "", fmt.Errorf("packing %s: %w", rr, err)
	}
	return string(buf[:n]), nil
}

// parsedRecord is a static record and its place in the document.
type parsedRecord struct {
	rr    dns.RR
	index int
}

func (p parsedRecord) field(part string) string { return fmt.Sprintf("records[%d].%s", p.index, part) }

// parseRecords reads the static records of a zone. A record that breaks a rule
// is reported and left out.
func parseRecords(z upkeep.Zone) ([]parsedRecord, []upkeep.FieldError) {
	var parsed []parsedRecord
	var problems []upkeep.FieldError
	for i, record := range z.Records {
		p := parsedRecord{index: i}
		ttl := cmp.Or(record.TTL, z.TTL)
		rr, err := parseRecord(record, z.Name, time.Duration(ttl))
		if err != nil {
			problems = append(problems, problem(p.field("value"), record.Value, "%v", err))
			continue
		}
		p.rr = rr
		parsed = append(parsed, p)
	}
	return parsed, problems
}

func problem(field, value, rule string, args ...any) upkeep.FieldError {
	if len(value) > 80 {
		value = value[:77] + "..."
	}
	return upkeep.FieldError{Field: field, Value: value, Rule: fmt.Sprintf(rule, args...)}
}

// parseRecord reads one record through the zone file parser of the DNS library,
// on terms that leave its value no way to be more than the data of one record.
func parseRecord(record upkeep.Record, zone string, ttl time.Duration) (dns.RR, error) {
	if !upkeep.ValidOwner(record.Name) || !slices.Contains(upkeep.RecordTypes, record.Type) {
		return nil, fmt.Errorf("belongs to a record without a valid name and type")
	}
	if err := plainValue(record.Value); err != nil {
		return nil, err
	}
	owner := dns.CanonicalName(upkeep.Absolute(record.Name, zone))
	if !fitsName(strings.TrimSuffix(owner, ".")) {
		return nil, fmt.Errorf("belongs to a name of more than 253 octets")
	}
	line := fmt.Sprintf("%s %d IN %s %s\n", owner, ttl/time.Second, record.Type, record.Value)
	parser := dns.NewZoneParser(strings.NewReader(line), dns.CanonicalName(zone), "")
	parser.SetIncludeAllowed(false)
	rr, ok := parser.Next()
	if !ok || parser.Err() != nil {
		return nil, fmt.Errorf("is not the data of a record of type %s%s", record.Type, parserReason(parser.Err()))
	}
	if more, ok := parser.Next(); ok || parser.Err() != nil {
		return nil, fmt.Errorf("must be the data of one record; %v follows", more)
	}
	if h := rr.Header(); h.Name != owner || h.Rrtype != dns.StringToType[record.Type] || h.Class != dns.ClassINET || h.Ttl != uint32(ttl/time.Second) {
		return nil, fmt.Errorf("changes the name, type, class or TTL of its record")
	}
	if err := survivesWire(rr); err != nil {
		return nil, fmt.Errorf("is not the data of a record of type %s: %w", record.Type, err)
	}
	return rr, nil
}

// parserReason shortens the parser's message to what is said of the value.
func parserReason(err error) string {
	if err == nil {
		return ""
	}
	reason := strings.TrimPrefix(err.Error(), "dns: ")
	reason, _, _ = strings.Cut(reason, " at line:")
	return ": " + reason
}

// plainValue refuses what has a meaning of its own in zone files outside of
// quotes: a comment would drop the rest of the value unseen, a parenthesis
// would join lines, and the generic form of RFC 3597 passes by the checks of
// the type.
func plainValue(value string) error {
	quoted := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c < 0x20 || c == 0x7f:
			return fmt.Errorf("must be on one line and free of control characters")
		case c == '\\':
			i++ // the next octet is itself, or the first of three digits
			if i == len(value) {
				return fmt.Errorf("ends in a backslash")
			}
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ';' || c == '(' || c == ')'):
			return fmt.Errorf("holds %q outside of quotes: put the text in double quotes", c)
		}
	}
	if quoted {
		return fmt.Errorf("has a double quote that is not closed")
	}
	if strings.HasPrefix(strings.TrimSpace(value), `\#`) {
		return fmt.Errorf("must be in the form of its type, not in the generic form of RFC 3597")
	}
	return nil
}

// survivesWire packs a record and reads it back: what does not come back the
// same would be another record at the client.
func survivesWire(rr dns.RR) error {
	packed, err := wire(rr)
	if err != nil {
		return err
	}
	back, n, err := dns.UnpackRR([]byte(packed), 0)
	if err != nil {
		return err
	}
	again, err := wire(back)
	if err != nil || n != len(packed) || !bytes.Equal([]byte(again), []byte(packed)) {
		return fmt.Errorf("it reads back as %s", back)
	}
	return nil
}
