package answer

import (
	"strings"

	"github.com/miekg/dns"
)

// oracle answers from a plain list of records by reading RFC 1034 section
// 4.3.2 and RFC 4592 word for word: no index, no wire form, no template. It is
// what the real code is compared with.
type oracle struct {
	origin  string
	records []dns.RR
}

func (o oracle) at(name string, qtype uint16) []dns.RR {
	var found []dns.RR
	for _, rr := range o.records {
		if strings.EqualFold(rr.Header().Name, name) && rr.Header().Rrtype == qtype {
			found = append(found, rr)
		}
	}
	return found
}

// exists also for empty non-terminals.
func (o oracle) exists(name string) bool {
	for _, rr := range o.records {
		if dns.IsSubDomain(name, rr.Header().Name) {
			return true
		}
	}
	return false
}

// ancestors of name within the zone from the apex down to name itself.
func (o oracle) ancestors(name string) []string {
	var names []string
	for _, i := range dns.Split(name) {
		if sub := name[i:]; dns.IsSubDomain(o.origin, sub) {
			names = append([]string{sub}, names...)
		}
	}
	return names
}

func (o oracle) cut(name string, qtype uint16) string {
	for _, above := range o.ancestors(name)[1:] {
		if o.at(above, dns.TypeNS) != nil && !(above == name && qtype == dns.TypeDS) {
			return above
		}
	}
	return ""
}

// source is the name whose records answer for name: itself, a wildcard, or "".
func (o oracle) source(name string) string {
	if o.exists(name) {
		return name
	}
	encloser := ""
	for _, above := range o.ancestors(name) {
		if o.exists(above) {
			encloser = above
		}
	}
	if wild := "*." + encloser; o.exists(wild) {
		return wild
	}
	return ""
}

func (o oracle) negative() dns.RR {
	soa := dns.Copy(o.at(o.origin, dns.TypeSOA)[0]).(*dns.SOA)
	soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
	return soa
}

func (o oracle) answer(question dns.Question) *dns.Msg {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Authoritative: true}}
	name := strings.ToLower(question.Name)
	seen := map[string]bool{}
	for len(m.Answer) < maxChain && dns.IsSubDomain(o.origin, name) && !seen[name] {
		seen[name] = true
		if cut := o.cut(name, question.Qtype); cut != "" {
			o.refer(m, cut)
			return m
		}
		source := o.source(name)
		if source == "" {
			m.Rcode = dns.RcodeNameError
			m.Ns = []dns.RR{o.negative()}
			return m
		}
		alias := o.at(source, dns.TypeCNAME)
		if alias != nil && question.Qtype != dns.TypeCNAME {
			m.Answer = append(m.Answer, owned(alias, name)...)
			name = strings.ToLower(alias[0].(*dns.CNAME).Target)
			continue
		}
		found := o.at(source, question.Qtype)
		if found == nil {
			m.Ns = []dns.RR{o.negative()}
		}
		m.Answer = append(m.Answer, owned(found, name)...)
		return m
	}
	return m
}

func (o oracle) refer(m *dns.Msg, cut string) {
	m.Authoritative = len(m.Answer) > 0
	m.Ns = o.at(cut, dns.TypeNS)
	for _, rr := range m.Ns {
		host := rr.(*dns.NS).Ns
		m.Extra = append(m.Extra, o.at(host, dns.TypeA)...)
		m.Extra = append(m.Extra, o.at(host, dns.TypeAAAA)...)
	}
}

func owned(set []dns.RR, name string) []dns.RR {
	var copies []dns.RR
	for _, rr := range set {
		c := dns.Copy(rr)
		c.Header().Name = name
		copies = append(copies, c)
	}
	return copies
}
