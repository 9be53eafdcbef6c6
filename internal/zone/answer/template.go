package answer

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// A template is an encoded answer without header and question. Its pointers
// into the question and into itself (RFC 1035 section 4.1.4) are right for a
// query name of length base; for a longer or shorter one those in moved are off
// by the difference, because what they point at is anchored at the end of the
// question. Pointers at offset 12, the query name itself, stay.
type template struct {
	base  int // octets of the query name that the pointers are made for
	flags uint16
	count [3]uint16 // answer, authority, additional
	tail  []byte
	moved []uint16 // offsets in tail
	// turn is a run of address records of one length, whose order is rotated.
	turn struct{ at, size, count int }
}

// made is a template with the normalised type that it answers.
type made struct {
	qtype    uint16
	template *template // nil: the answer must be resolved each time
}

// maxMade bounds the templates of one node. Only the types present at a node
// and one stand-in for all others have templates, except at an alias, whose
// target may differ for each type that clients think of.
const maxMade = 24

// Normalised types: none stands for every type that a node does not hold, and
// for a referral.
const none = 0

// template returns the encoded answer for a query that matched n, and false
// where there is none and the query must be resolved.
func (z *Zone) template(n *node, how match, qtype uint16) (*template, bool) {
	if how == absent {
		t := z.absent.Load()
		if t == nil {
			t, _ = encode(Reply{Rcode: dns.RcodeNameError, Authoritative: true, Authority: []dns.RR{z.negative}}, z.origin, how)
			z.absent.Store(t)
		}
		return t, t != nil
	}
	if how == exact && strings.HasPrefix(n.key, "\x01*") {
		how = wildcard // the wildcard's own name shares its templates
	}
	qtype = n.normal(how, qtype)
	list := n.made.Load()
	if list != nil {
		for i := range *list {
			if m := &(*list)[i]; m.qtype == qtype {
				return m.template, m.template != nil
			}
		}
		if len(*list) >= maxMade {
			return nil, false
		}
	}
	return z.make(n, how, qtype, list)
}

// normal maps types with the same answer to one.
func (n *node) normal(how match, qtype uint16) uint16 {
	if how == referral {
		return none
	}
	if n.cut != nil {
		return qtype // the DS set at a delegation, also where it is empty
	}
	for i := range n.sets {
		switch n.sets[i].rtype {
		case qtype, dns.TypeCNAME:
			return qtype
		}
	}
	if qtype == dns.TypeANY && len(n.sets) > 0 {
		return qtype
	}
	return none
}

// make resolves and encodes an answer and keeps it with its node. A template
// that another goroutine adds at the same moment may be lost; it is then made
// again.
func (z *Zone) make(n *node, how match, qtype uint16, list *[]made) (*template, bool) {
	var t *template
	var err error
	if reply := z.resolve(n.name, n.key, qtype); how != wildcard || !reply.synthesised {
		if t, err = encode(reply, n.key, how); err != nil {
			t = nil
		}
	}
	var longer []made
	if list != nil {
		longer = append(longer, *list...)
	}
	longer = append(longer, made{qtype, t})
	n.made.CompareAndSwap(list, &longer)
	return t, t != nil
}

// encoder writes the sections of an answer behind a question.
type encoder struct {
	buf    []byte
	start  int            // end of the question
	names  map[string]int // name suffixes that may be pointed at
	moved  []uint16
	source string // the wildcard whose records take on the query name, or ""
}

// encode makes the template of a reply for a query whose name is the key base.
func encode(r Reply, base string, how match) (*template, error) {
	e := &encoder{names: map[string]int{}, start: headerLen + len(base) + 4}
	e.buf = append(make([]byte, headerLen), base...)
	e.buf = append(e.buf, 0, 0, 0, 0)
	suffix := base
	if how == wildcard {
		// The name as a whole is not the query's; from its parent on they agree.
		e.source, suffix = base, parent(base)
	}
	for ; len(suffix) > 1; suffix = parent(suffix) {
		e.names[suffix] = headerLen + len(base) - len(suffix)
	}
	t := &template{base: len(base), flags: uint16(r.Rcode)}
	if r.Authoritative {
		t.flags |= flagAA
	}
	for i, section := range [][]dns.RR{r.Answer, r.Authority, r.Additional} {
		t.count[i] = uint16(len(section))
		at := make([]int, 0, len(section)+1)
		for _, rr := range section {
			at = append(at, len(e.buf)-e.start)
			if err := e.record(rr); err != nil {
				return nil, err
			}
		}
		if i == 0 {
			t.turning(section, append(at, len(e.buf)-e.start))
		}
	}
	t.tail, t.moved = e.buf[e.start:], e.moved
	return t, nil
}

// turning notes the run of address records at the end of the answer section.
// The offsets at are those of the records and of the section's end.
func (t *template) turning(section []dns.RR, at []int) {
	last := len(section) - 1
	if last < 1 {
		return
	}
	rtype, size := section[last].Header().Rrtype, at[last+1]-at[last]
	if rtype != dns.TypeA && rtype != dns.TypeAAAA {
		return
	}
	first := last
	for first > 0 && section[first-1].Header().Rrtype == rtype && at[first]-at[first-1] == size {
		first--
	}
	if n := last - first + 1; n > 1 {
		t.turn.at, t.turn.size, t.turn.count = at[first], size, n
	}
}

func (e *encoder) record(rr dns.RR) error {
	h := rr.Header()
	if err := e.name(h.Name, true); err != nil {
		return err
	}
	e.buf = binary.BigEndian.AppendUint16(e.buf, h.Rrtype)
	e.buf = binary.BigEndian.AppendUint16(e.buf, h.Class)
	e.buf = binary.BigEndian.AppendUint32(e.buf, h.Ttl)
	length := len(e.buf)
	e.buf = append(e.buf, 0, 0)
	if err := e.data(rr); err != nil {
		return err
	}
	octets := len(e.buf) - length - 2
	if octets > 0xffff || len(e.buf) > dns.MaxMsgSize {
		return fmt.Errorf("answer for %s is longer than %d octets", h.Name, dns.MaxMsgSize)
	}
	binary.BigEndian.PutUint16(e.buf[length:], uint16(octets))
	return nil
}

// data writes record data. Names in it are compressed in the types of RFC 1035
// alone (RFC 3597 section 4).
func (e *encoder) data(rr dns.RR) error {
	switch rr := rr.(type) {
	case *dns.NS:
		return e.name(rr.Ns, false)
	case *dns.CNAME:
		return e.name(rr.Target, false)
	case *dns.PTR:
		return e.name(rr.Ptr, false)
	case *dns.MX:
		e.buf = binary.BigEndian.AppendUint16(e.buf, rr.Preference)
		return e.name(rr.Mx, false)
	case *dns.SOA:
		if err := e.name(rr.Ns, false); err != nil {
			return err
		}
		if err := e.name(rr.Mbox, false); err != nil {
			return err
		}
		for _, v := range []uint32{rr.Serial, rr.Refresh, rr.Retry, rr.Expire, rr.Minttl} {
			e.buf = binary.BigEndian.AppendUint32(e.buf, v)
		}
		return nil
	}
	whole := make([]byte, dns.Len(rr)+maxName)
	end, err := dns.PackRR(dns.Copy(rr), whole, 0, nil, false) // packing writes into the header
	if err != nil {
		return fmt.Errorf("packing %s: %w", rr, err)
	}
	owner := skipName(whole[:end], 0)
	e.buf = append(e.buf, whole[owner+10:end]...)
	return nil
}

// name writes a name, with a pointer for the longest suffix that stands already
// in the packet.
func (e *encoder) name(name string, owner bool) error {
	key, err := wireName(name)
	if err != nil {
		return err
	}
	if owner && key == e.source {
		e.buf = binary.BigEndian.AppendUint16(e.buf, 0xc000|headerLen)
		return nil
	}
	cased := make([]byte, maxName+1)
	if _, err := dns.PackDomainName(dns.Fqdn(name), cased, 0, nil, false); err != nil {
		return err
	}
	for suffix := key; len(suffix) > 1; suffix = parent(suffix) {
		if at, stands := e.names[suffix]; stands {
			e.moved = append(e.moved, uint16(len(e.buf)-e.start))
			e.buf = binary.BigEndian.AppendUint16(e.buf, 0xc000|uint16(at))
			return nil
		}
		// What is pointed at must stay in reach behind a longer question.
		if at := len(e.buf); at+maxName < 0x4000 {
			e.names[suffix] = at
		}
		label := len(key) - len(suffix)
		e.buf = append(e.buf, cased[label:label+1+int(suffix[0])]...)
	}
	e.buf = append(e.buf, 0)
	return nil
}
