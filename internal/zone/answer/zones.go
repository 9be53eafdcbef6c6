package answer

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// Zones is the set of zones that are answered for. Its zero value is empty. It
// is safe for concurrent use; answering takes no lock.
type Zones struct {
	mu      sync.Mutex // held by writers
	current atomic.Pointer[index]
}

type index struct {
	zones map[string]*Zone
	depth [maxLabels]bool // whether a zone with so many labels exists
}

// Put answers for the zone from now on, in place of an older one of its name.
func (zs *Zones) Put(z *Zone) {
	zs.change(func(zones map[string]*Zone) { zones[z.origin] = z })
}

// Remove ceases to answer for the zone of that name.
func (zs *Zones) Remove(origin string) {
	if key, err := wireName(origin); err == nil {
		zs.change(func(zones map[string]*Zone) { delete(zones, key) })
	}
}

func (zs *Zones) change(edit func(map[string]*Zone)) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	next := &index{zones: map[string]*Zone{}}
	if old := zs.current.Load(); old != nil {
		next.zones = maps.Clone(old.zones)
	}
	edit(next.zones)
	for key := range next.zones {
		next.depth[len(reversedLabels(key))] = true
	}
	zs.current.Store(next)
}

// Find returns the closest zone that holds name, or nil.
func (zs *Zones) Find(name string) *Zone {
	key, err := wireName(name)
	current := zs.current.Load()
	if err != nil || current == nil {
		return nil
	}
	for {
		if z := current.zones[key]; z != nil || key == "\x00" {
			return z
		}
		key = parent(key)
	}
}

// Quick answers a query of the common form into dst and returns the length of
// the answer. It returns 0 for every other packet, which then is for [Zones.Reply].
// Over UDP an answer is at most [MaxPayload] long, over TCP dns.MaxMsgSize, and
// dst must hold that. Turn chooses the rotation of address records: any even
// distribution over 32 bits does.
func (zs *Zones) Quick(dst, packet []byte, udp bool, turn uint32) int {
	var q query
	if !q.parse(packet) {
		return 0
	}
	limit := dns.MaxMsgSize
	if udp {
		limit = MinPayload
		if q.edns {
			limit = min(max(q.payload, MinPayload), MaxPayload)
		}
	}
	z := zs.zone(&q)
	if z == nil {
		return q.answer(dst, &refused, limit, turn)
	}
	if meta(q.qtype) {
		return 0
	}
	n, how := z.findQuery(&q)
	t, ok := z.template(n, how, q.qtype)
	if !ok {
		return 0
	}
	return q.answer(dst, t, limit, turn)
}

var refused = template{flags: dns.RcodeRefused}

// meta reports whether the type stands for something other than records of
// that type; ANY alone of them is answered in the common way.
func meta(qtype uint16) bool {
	return qtype == 0 || qtype == dns.TypeOPT || qtype >= 128 && qtype <= 255 && qtype != dns.TypeANY
}

// zone finds the closest zone that holds the name of the query.
func (zs *Zones) zone(q *query) *Zone {
	current := zs.current.Load()
	if current == nil {
		return nil
	}
	for i := range q.labels {
		if !current.depth[q.labels-i] {
			continue
		}
		if z := current.zones[string(q.key[q.label[i]:q.keyLen])]; z != nil {
			return z
		}
	}
	if current.depth[0] {
		return current.zones["\x00"]
	}
	return nil
}

// findQuery is [Zone.find] without strings to allocate.
func (z *Zone) findQuery(q *query) (*node, match) {
	if n, exists := z.nodes[string(q.key[:q.keyLen])]; exists {
		if n.cut != nil && !(n.cut == n && q.qtype == dns.TypeDS) {
			return n.cut, referral
		}
		return n, exact
	}
	for i := 1; i <= q.labels; i++ {
		at := q.keyLen - 1
		if i < q.labels {
			at = int(q.label[i])
		}
		encloser, exists := z.nodes[string(q.key[at:q.keyLen])]
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
	return nil, absent
}

// Reply answers a query that was read into a message, of whatever form. It
// returns nil where nothing may be answered. The caller fits the message to its
// transport and signs it.
func (zs *Zones) Reply(query *dns.Msg) *dns.Msg {
	if query.Response {
		return nil
	}
	m := new(dns.Msg)
	m.SetReply(query)
	if query.Opcode != dns.OpcodeQuery {
		m.Question = nil
		m.Rcode = dns.RcodeNotImplemented
		return m
	}
	if len(query.Question) != 1 {
		m.Question = nil
		m.Rcode = dns.RcodeFormatError // RFC 9619
		return m
	}
	if !negotiate(query, m) {
		return m
	}
	question := query.Question[0]
	z := zs.Find(question.Name)
	switch {
	case question.Qclass == 0 || question.Qclass == dns.ClassNONE || question.Qclass == dns.ClassANY:
		m.Rcode = dns.RcodeFormatError // no class that a question can be of, to BIND too
	case question.Qclass != dns.ClassINET || z == nil:
		m.Rcode = dns.RcodeRefused
	case question.Qtype == dns.TypeMAILA || question.Qtype == dns.TypeMAILB:
		m.Rcode = dns.RcodeNotImplemented
	case meta(question.Qtype):
		m.Rcode = dns.RcodeFormatError
	default:
		z.reply(m, question)
	}
	return m
}

func (z *Zone) reply(m *dns.Msg, question dns.Question) {
	r, err := z.Resolve(question.Name, question.Qtype)
	if err != nil {
		m.Rcode = dns.RcodeFormatError
		return
	}
	m.Rcode, m.Authoritative, m.Compress = r.Rcode, r.Authoritative, true
	m.Answer, m.Ns = Copies(r.Answer), Copies(r.Authority)
	m.Extra = append(Copies(r.Additional), m.Extra...)
}

// Copies returns records that may be packed: the library writes the length of
// the data into the header when it packs a record, which shared records do not
// bear.
func Copies(records []dns.RR) []dns.RR {
	if len(records) == 0 {
		return nil
	}
	copies := make([]dns.RR, len(records))
	for i, rr := range records {
		copies[i] = dns.Copy(rr)
	}
	return copies
}

// negotiate settles EDNS (RFC 6891): it adds the OPT record to the reply and
// reports whether the query may be answered further.
func negotiate(query, m *dns.Msg) bool {
	var opt *dns.OPT
	for i, section := range [][]dns.RR{query.Extra, query.Answer, query.Ns} {
		for _, rr := range section {
			o, is := rr.(*dns.OPT)
			if !is {
				continue
			}
			if opt != nil || i > 0 || o.Hdr.Name != "." {
				m.Rcode = dns.RcodeFormatError
				return false
			}
			opt = o
		}
	}
	if opt == nil {
		return true
	}
	m.SetEdns0(MaxPayload, opt.Do())
	if opt.Version() != 0 {
		m.Rcode = dns.RcodeBadVers
		return false
	}
	return true
}

// Limit returns how many octets a reply to the query may have.
func Limit(query *dns.Msg, udp bool) int {
	if !udp {
		return dns.MaxMsgSize
	}
	if opt := query.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), MinPayload), MaxPayload)
	}
	return MinPayload
}
