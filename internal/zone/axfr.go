package zone

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"upkeep/internal/zone/answer"
)

func isTransfer(q dns.Question) bool {
	return q.Qclass == dns.ClassINET && (q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR)
}

// transfer answers a request for the zone: whole (AXFR, RFC 5936) or as the
// steps since the version that the client has (IXFR, RFC 1995).
func (c *call) transfer() error {
	question := c.query.Question[0]
	if c.zone == nil {
		return c.reply(c.refusal(dns.RcodeRefused))
	}
	if dns.CanonicalName(question.Name) != c.zone.origin {
		return c.reply(c.refusal(dns.RcodeNotAuth))
	}
	current, deltas, set := c.zone.snapshot()
	if why := set.refuses(c); why != "" {
		c.refused(why)
		return c.reply(c.refusal(dns.RcodeRefused))
	}
	if question.Qtype == dns.TypeAXFR {
		if c.udp {
			return c.reply(c.refusal(dns.RcodeFormatError)) // RFC 5936 section 4.2
		}
		return c.whole(current)
	}
	if len(c.query.Ns) == 0 {
		return c.reply(c.refusal(dns.RcodeFormatError))
	}
	has, is := c.query.Ns[0].(*dns.SOA)
	if !is {
		return c.reply(c.refusal(dns.RcodeFormatError))
	}
	return c.steps(current, deltas, has.Serial)
}

// maxRefusedTold is of how many refusals an operator is told for each zone: a
// secondary that was forgotten is among the first, a scanner does not fill the
// events.
const maxRefusedTold = 20

// refused counts and logs a transfer that is refused. Over TCP, where the
// address cannot be forged, an operator is told once for each address.
func (c *call) refused(why string) {
	c.zone.count(func(s *TransferStats) { s.Refused++ })
	c.zone.log().Info("refused a zone transfer", "from", c.from, "reason", why)
	if !c.udp {
		c.zone.refusals.addSome(maxRefusedTold, "refused a zone transfer to "+c.from.Addr().Unmap().String(), why)
	}
}

// refuses says why a transfer is refused, or nothing.
func (s settings) refuses(c *call) string {
	addr := c.from.Addr()
	listed := slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return p.Contains(addr) }) ||
		c.zone.notify.isSecondary(addr)
	switch {
	case !listed:
		return "the address is neither among the publisher's secondaries nor in its allow_transfer"
	case !s.key.IsZero() && c.signed == nil:
		return "the request is not signed with the publisher's key"
	}
	return ""
}

func (c *call) whole(v *version) error {
	c.zone.count(func(s *TransferStats) { s.Full++ })
	c.zone.log().Info("sending the zone whole", "to", c.from, "serial", v.serial)
	return c.stream(slices.Concat(v.zone.Records(), []dns.RR{v.zone.SOA()}))
}

// steps answers an incremental request of a client that has the serial given.
// Over UDP nothing but the current SOA is sent, which sends a client that is
// behind to TCP (RFC 1995 section 2).
func (c *call) steps(v *version, deltas []delta, has uint32) error {
	soa := v.zone.SOA()
	if !SerialLess(has, v.serial) {
		c.zone.count(func(s *TransferStats) { s.Current++ })
		return c.stream([]dns.RR{soa})
	}
	if c.udp {
		return c.stream([]dns.RR{soa})
	}
	first := slices.IndexFunc(deltas, func(d delta) bool { return d.from == has })
	if first < 0 {
		return c.whole(v)
	}
	records := []dns.RR{soa}
	for _, d := range deltas[first:] {
		records = append(records, d.records...)
	}
	// More steps than the zone is long are no gain; a few are sent in any case,
	// since they spare the secondary the comparison.
	if most := max(2*len(v.records), 100); len(records) > most {
		return c.whole(v)
	}
	c.zone.count(func(s *TransferStats) { s.Incremental++ })
	c.zone.log().Info("sending the changes of the zone", "to", c.from, "from", has, "serial", v.serial)
	return c.stream(append(records, soa))
}

// frameOctets is how much uncompressed data one message of a transfer takes; the
// longest record, one of 4096 octets of text, fits beside it into any message.
const frameOctets = 16 << 10

// stream sends records in as many messages as they take, each signed where the
// request was.
func (c *call) stream(records []dns.RR) error {
	select {
	case c.server.transfers <- struct{}{}:
		defer func() { <-c.server.transfers }()
	default:
		return c.reply(c.refusal(dns.RcodeServerFailure))
	}
	for first := true; first || len(records) > 0; first = false {
		m := new(dns.Msg)
		m.SetReply(&c.query)
		m.Authoritative, m.Compress = true, true
		if !first {
			m.Question = nil
		} else if opt := c.query.IsEdns0(); opt != nil {
			m.SetEdns0(answer.MaxPayload, opt.Do())
		}
		n, size := 0, 0
		for n < len(records) && (n == 0 || size+dns.Len(records[n]) <= frameOctets) {
			size += dns.Len(records[n])
			n++
		}
		m.Answer, records = answer.Copies(records[:n]), records[n:]
		packed, err := c.signed.pack(m)
		if err != nil {
			return err
		}
		if err := c.send(packed); err != nil {
			return err
		}
	}
	return nil
}
