package zone

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"upkeep"
)

// ValidateRecords returns every rule that the static records of a zone break
// once they are read as DNS data: what [upkeep.Zone.Validate] cannot see. Fields
// are named "records[i].value" and so on.
func ValidateRecords(z upkeep.Zone) []upkeep.FieldError {
	_, problems := readRecords(z.WithDefaults())
	return problems
}

// readRecords parses and checks the static records of a zone.
func readRecords(z upkeep.Zone) ([]parsedRecord, []upkeep.FieldError) {
	parsed, problems := parseRecords(z)
	v := &recordRules{zone: z, origin: dns.CanonicalName(z.Name), sets: map[setOf][]parsedRecord{}, problems: problems}
	for _, p := range parsed {
		key := setOf{p.rr.Header().Name, p.rr.Header().Rrtype}
		v.sets[key] = append(v.sets[key], p)
	}
	for _, p := range parsed {
		v.target(p)
		v.place(p)
		v.set(p)
	}
	slices.SortStableFunc(v.problems, func(a, b upkeep.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return parsed, v.problems
}

type setOf struct {
	owner string
	rtype uint16
}

type recordRules struct {
	zone     upkeep.Zone
	origin   string
	sets     map[setOf][]parsedRecord
	problems []upkeep.FieldError
}

func (v *recordRules) add(p parsedRecord, part, rule string, args ...any) {
	record := v.zone.Records[p.index]
	value := map[string]string{"name": record.Name, "type": record.Type, "value": record.Value, "ttl": record.TTL.String()}[part]
	v.problems = append(v.problems, problem(p.field(part), value, rule, args...))
}

func (v *recordRules) has(owner string, rtype uint16) bool {
	return len(v.sets[setOf{owner, rtype}]) > 0
}

// target checks the name that a record points at.
func (v *recordRules) target(p parsedRecord) {
	var target string
	direct := false // must not be an alias
	switch rr := p.rr.(type) {
	case *dns.NS:
		target, direct = rr.Ns, true
	case *dns.MX:
		target, direct = rr.Mx, true
	case *dns.SRV:
		target, direct = rr.Target, true
	case *dns.CNAME:
		target = rr.Target
	case *dns.PTR:
		target = rr.Ptr
	default:
		return
	}
	rtype := p.rr.Header().Rrtype
	if target == "." && (rtype == dns.TypeMX || rtype == dns.TypeSRV) {
		return // "no such service", RFC 7505 and RFC 2782
	}
	if !upkeep.ValidName(strings.TrimSuffix(target, ".")) {
		v.add(p, "value", "must point at a host or domain name, and %q is not one", target)
		return
	}
	// RFC 2181 section 10.3, RFC 2782.
	if alias := dns.CanonicalName(target); direct && v.has(alias, dns.TypeCNAME) {
		v.add(p, "value", "must not point at %s, which is a CNAME record", target)
	}
}

// place checks that a record may stand where it does.
func (v *recordRules) place(p parsedRecord) {
	h := p.rr.Header()
	switch {
	case h.Rrtype == dns.TypeCNAME && h.Name == v.origin:
		v.add(p, "type", "cannot stand at the top of a zone, beside SOA and NS; list addresses or use a pool")
	case h.Rrtype == dns.TypeNS && strings.HasPrefix(h.Name, "*."):
		v.add(p, "type", "cannot stand at a wildcard (RFC 4592 section 4.2)")
	case h.Rrtype == dns.TypeDS && !(h.Name != v.origin && v.has(h.Name, dns.TypeNS)):
		v.add(p, "type", "belongs beside the NS records of a delegated name")
	}
	if h.Rrtype == dns.TypeCNAME && v.circular(h.Name) {
		v.add(p, "value", "leads back to %s: the name would have no address", strings.TrimSuffix(h.Name, "."))
	}
	cut := v.delegation(h.Name)
	glue := h.Rrtype == dns.TypeA || h.Rrtype == dns.TypeAAAA
	atCut := cut == h.Name && (h.Rrtype == dns.TypeNS || h.Rrtype == dns.TypeDS)
	if cut != "" && !glue && !atCut {
		v.add(p, "name", "lies in %s, which NS records give away to other servers: it would never be answered", strings.TrimSuffix(cut, "."))
	}
}

// circular reports whether the aliases from owner on come back to it.
func (v *recordRules) circular(owner string) bool {
	name := owner
	for range v.zone.Records {
		next := v.sets[setOf{name, dns.TypeCNAME}]
		if len(next) == 0 {
			return false
		}
		if name = dns.CanonicalName(next[0].rr.(*dns.CNAME).Target); name == owner {
			return true
		}
	}
	return false
}

// delegation returns the topmost name at or above owner with NS records, short
// of the apex.
func (v *recordRules) delegation(owner string) (cut string) {
	for name := owner; name != v.origin; {
		if v.has(name, dns.TypeNS) {
			cut = name
		}
		_, above, found := strings.Cut(name, ".")
		if !found || above == "" {
			return cut
		}
		name = above
	}
	return cut
}

// set checks a record against the others at its name.
func (v *recordRules) set(p parsedRecord) {
	h := p.rr.Header()
	set := v.sets[setOf{h.Name, h.Rrtype}]
	first := set[0]
	if h.Rrtype == dns.TypeCNAME && len(set) > 1 && p.index != first.index {
		v.add(p, "type", "cannot stand twice at one name (RFC 2181 section 10.1)")
		return
	}
	if h.Rrtype != dns.TypeCNAME && v.has(h.Name, dns.TypeCNAME) {
		v.add(p, "type", "cannot stand beside the CNAME record of the same name (RFC 1034 section 3.6.2)")
	}
	if h.Ttl != first.rr.Header().Ttl {
		v.add(p, "ttl", "must be %s as in %s: all records of a name and type share one TTL (RFC 2181 section 5.2)",
			fmt.Sprintf("%ds", first.rr.Header().Ttl), fmt.Sprintf("records[%d]", first.index))
	}
	for _, other := range set {
		if other.index >= p.index {
			break
		}
		if dns.IsDuplicate(other.rr, p.rr) {
			v.add(p, "value", "is the same data as records[%d]", other.index)
			break
		}
	}
	if p.index == set[len(set)-1].index && len(set) > upkeep.MaxAnswer {
		v.add(p, "value", "is one of %d records of one name and type; BIND refuses a zone with more than %d", len(set), upkeep.MaxAnswer)
	}
}
