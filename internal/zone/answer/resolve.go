package answer

import (
	"cmp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// maxChain is how many CNAME records one answer follows; BIND follows 16.
const maxChain = 16

// Reply is the substance of an answer.
type Reply struct {
	Rcode         int
	Authoritative bool
	Answer        []dns.RR
	Authority     []dns.RR
	Additional    []dns.RR

	// synthesised means that a name behind the first one came from a wildcard,
	// so that the answer depends on more than the first match.
	synthesised bool
}

// Resolve answers for a name within the zone as RFC 1034 section 4.3.2
// describes it, with the wildcards of RFC 4592. The records of the reply are
// shared with the zone and must not be changed.
func (z *Zone) Resolve(name string, qtype uint16) (Reply, error) {
	key, err := wireName(name)
	if err != nil {
		return Reply{}, err
	}
	return z.resolve(name, key, qtype), nil
}

func (z *Zone) resolve(name, key string, qtype uint16) Reply {
	r := Reply{Authoritative: true}
	seen := map[string]bool{}
	for len(r.Answer) < maxChain {
		seen[key] = true
		n, how := z.find(key, qtype)
		if len(r.Answer) > 0 && how == wildcard {
			r.synthesised = true
		}
		switch how {
		case absent:
			r.Rcode = dns.RcodeNameError
			r.Authority = []dns.RR{z.negative}
			return r
		case referral:
			z.refer(&r, n)
			return r
		}
		alias := n.set(dns.TypeCNAME)
		if alias == nil || qtype == dns.TypeCNAME || qtype == dns.TypeANY {
			z.end(&r, n, name, qtype)
			return r
		}
		r.Answer = append(r.Answer, renamed(alias, name)...)
		name = alias[0].(*dns.CNAME).Target
		var err error
		if key, err = wireName(name); err != nil || !within(key, z.origin) {
			return r
		}
		if strings.HasPrefix(key, "\x01*") {
			r.synthesised = true
		}
		if seen[key] {
			return r
		}
	}
	return r
}

// end closes the reply with what n holds of the type.
func (z *Zone) end(r *Reply, n *node, name string, qtype uint16) {
	set := n.set(qtype)
	if qtype == dns.TypeANY {
		set = n.smallest()
	}
	if set == nil {
		r.Authority = []dns.RR{z.negative}
		return
	}
	r.Answer = append(r.Answer, renamed(set, name)...)
}

// smallest is what is answered for the type ANY: one set that exists, which RFC
// 8482 section 4.1 allows, and the smallest one, since the only use that ANY
// still has is amplification.
func (n *node) smallest() []dns.RR {
	if len(n.sets) == 0 {
		return nil
	}
	size := func(s recordSet) (octets int) {
		for _, rr := range s.records {
			octets += dns.Len(rr)
		}
		return octets
	}
	return slices.MinFunc(n.sets, func(a, b recordSet) int {
		return cmp.Or(cmp.Compare(size(a), size(b)), cmp.Compare(a.rtype, b.rtype))
	}).records
}

// refer closes the reply with a delegation and the addresses of its servers
// that this zone holds.
func (z *Zone) refer(r *Reply, cut *node) {
	r.Authoritative = len(r.Answer) > 0 // of the alias that led here
	r.Authority = cut.set(dns.TypeNS)
	for _, rr := range r.Authority {
		key, err := wireName(rr.(*dns.NS).Ns)
		if err != nil || !within(key, z.origin) {
			continue
		}
		if host, exists := z.nodes[key]; exists {
			r.Additional = append(r.Additional, host.set(dns.TypeA)...)
			r.Additional = append(r.Additional, host.set(dns.TypeAAAA)...)
		}
	}
}

// renamed returns the records with name as their owner: the name as it was
// asked where they come from a wildcard.
func renamed(set []dns.RR, name string) []dns.RR {
	if set[0].Header().Name == name {
		return set
	}
	copies := make([]dns.RR, len(set))
	for i, rr := range set {
		copies[i] = dns.Copy(rr)
		copies[i].Header().Name = name
	}
	return copies
}
