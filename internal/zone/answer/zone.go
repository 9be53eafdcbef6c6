// Package answer turns DNS queries into answers from immutable zones. It does
// no I/O: packets come in and go out as octets.
//
// A query of the common form is answered from a template: an answer that was
// resolved and encoded once for its name and type, and that is copied behind
// the question with the pointers of compressed names moved by as many octets as
// the question differs in length. Everything else goes through [Zone.Resolve]
// and the message type of the DNS library. Both ways give equal answers, which
// the tests of this package hold them to.
package answer

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/miekg/dns"
)

// Zone is an immutable zone, indexed for answering. It is safe for concurrent
// use.
type Zone struct {
	origin string // key
	soa    *dns.SOA
	// negative is soa with the TTL of negative answers, RFC 2308 section 3.
	negative *dns.SOA
	records  []dns.RR // in canonical order behind the SOA
	nodes    map[string]*node
	absent   atomic.Pointer[template] // NXDOMAIN for every name
}

// node is a name that exists: it has records or lies above one that has (an
// empty non-terminal, RFC 4592 section 2.2.2).
type node struct {
	key  string
	name string
	sets []recordSet // by type
	// cut is the topmost delegation at or above this name, nil where the zone is
	// authoritative.
	cut *node
	// wild is the wildcard child, the source of synthesis for names that do not
	// exist below this one.
	wild *node
	// made holds the templates made so far, by normalised type.
	made atomic.Pointer[[]made]
}

type recordSet struct {
	rtype   uint16
	records []dns.RR
}

func (n *node) set(rtype uint16) []dns.RR {
	for _, set := range n.sets {
		if set.rtype == rtype {
			return set.records
		}
	}
	return nil
}

// NewZone indexes the records of a zone: exactly one SOA, at the apex, and
// whatever else lies in it. The records must not be changed afterwards.
func NewZone(origin string, records []dns.RR) (*Zone, error) {
	key, err := wireName(origin)
	if err != nil {
		return nil, fmt.Errorf("indexing zone: %w", err)
	}
	z := &Zone{origin: key, nodes: map[string]*node{}}
	z.nodes[key] = &node{key: key, name: dns.CanonicalName(origin)}
	for _, rr := range records {
		if err := z.add(rr); err != nil {
			return nil, fmt.Errorf("indexing zone %s: %w", origin, err)
		}
	}
	if z.soa == nil {
		return nil, fmt.Errorf("indexing zone %s: no SOA record", origin)
	}
	negative := *z.soa
	negative.Hdr.Ttl = min(z.soa.Hdr.Ttl, z.soa.Minttl)
	z.negative = &negative
	z.link()
	z.records = z.ordered()
	return z, nil
}

func (z *Zone) add(rr dns.RR) error {
	h := rr.Header()
	key, err := wireName(h.Name)
	if err != nil {
		return err
	}
	if h.Class != dns.ClassINET || !within(key, z.origin) {
		return fmt.Errorf("record %s lies outside of the zone", rr)
	}
	if soa, is := rr.(*dns.SOA); is {
		if z.soa != nil || key != z.origin {
			return fmt.Errorf("%s: one SOA record is expected, at the apex", rr)
		}
		z.soa = soa
	}
	n := z.node(key)
	i := slices.IndexFunc(n.sets, func(s recordSet) bool { return s.rtype == h.Rrtype })
	if i < 0 {
		n.sets = append(n.sets, recordSet{rtype: h.Rrtype, records: []dns.RR{rr}})
		return nil
	}
	if h.Rrtype == dns.TypeCNAME {
		return fmt.Errorf("two CNAME records at %s", h.Name)
	}
	n.sets[i].records = append(n.sets[i].records, rr)
	return nil
}

// node returns the node at key, made together with the empty non-terminals
// between it and the apex.
func (z *Zone) node(key string) *node {
	n, exists := z.nodes[key]
	if !exists {
		n = &node{key: key, name: presentName(key)}
		z.nodes[key] = n
		z.node(parent(key))
	}
	return n
}

// link finds for every node its delegation and its wildcard child.
func (z *Zone) link() {
	for _, n := range z.nodes {
		slices.SortFunc(n.sets, func(a, b recordSet) int { return cmp.Compare(a.rtype, b.rtype) })
		n.wild = z.nodes["\x01*"+n.key]
		for key := n.key; key != z.origin; key = parent(key) {
			if above := z.nodes[key]; above.set(dns.TypeNS) != nil {
				n.cut = above // goes on: the topmost one hides those below it
			}
		}
	}
}

func (z *Zone) ordered() []dns.RR {
	names := make([]string, 0, len(z.nodes))
	for key := range z.nodes {
		names = append(names, key)
	}
	slices.SortFunc(names, compareCanonical)
	records := []dns.RR{z.soa}
	for _, key := range names {
		for _, set := range z.nodes[key].sets {
			if set.rtype != dns.TypeSOA {
				records = append(records, set.records...)
			}
		}
	}
	return records
}

// compareCanonical orders keys by their labels from the root on, RFC 4034
// section 6.1.
func compareCanonical(a, b string) int {
	return slices.Compare(reversedLabels(a), reversedLabels(b))
}

func reversedLabels(key string) []string {
	var labels []string
	for ; key != "\x00"; key = parent(key) {
		labels = append(labels, key[1:1+int(key[0])])
	}
	slices.Reverse(labels)
	return labels
}

// Origin returns the zone's name with a final dot.
func (z *Zone) Origin() string { return z.nodes[z.origin].name }

// SOA returns the zone's start of authority. It must not be changed, nor packed
// otherwise than as a copy; see [Copies].
func (z *Zone) SOA() *dns.SOA { return z.soa }

// Records returns all records, the SOA first and the rest in canonical order.
// They must not be changed, nor packed otherwise than as copies; see [Copies].
func (z *Zone) Records() []dns.RR { return z.records }

// match says how a name was found.
type match uint8

const (
	exact    match = iota // the name exists
	wildcard              // synthesised from a wildcard
	referral              // delegated away
	absent                // does not exist
)

// find looks a key within the zone up. The node is the one that the answer is
// made of: the name's own, the wildcard's, the delegation's; nil for absent.
// At a delegation itself the parent answers for the DS set alone (RFC 4035
// section 3.1.4.1).
func (z *Zone) find(key string, qtype uint16) (*node, match) {
	if n, exists := z.nodes[key]; exists {
		if n.cut != nil && !(n.cut == n && qtype == dns.TypeDS) {
			return n.cut, referral
		}
		return n, exact
	}
	for {
		key = parent(key)
		encloser, exists := z.nodes[key]
		switch {
		case !exists:
			continue
		case encloser.cut != nil:
			return encloser.cut, referral
		case encloser.wild != nil:
			return encloser.wild, wildcard
		}
		return nil, absent
	}
}
