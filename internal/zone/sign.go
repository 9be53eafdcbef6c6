package zone

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"github.com/miekg/dns"

	"upkeep/internal/zone/answer"
)

// fudge is by how many seconds the clocks of two signing parties may differ,
// the value that RFC 8945 section 10 recommends.
const fudge = 300

// signer signs the messages that answer one signed query; the nil signer leaves
// them unsigned.
type signer struct {
	key Key
	mac string // of the message before, the query at first
	// later is set once a message of the stream went out: from the second on
	// the digest covers the timers alone (RFC 8945 section 5.3.1).
	later bool
	now   func() time.Time
	stub  *dns.TSIG // of the error that the record carries, if any
}

// octets is by how much signing makes a message longer at most.
func (s *signer) octets() int {
	if s == nil {
		return 0
	}
	return dns.Len(s.record()) + 64 + 6 // MAC, and the clock of a time error
}

func (s *signer) record() *dns.TSIG {
	if s.stub != nil {
		t := *s.stub
		return &t
	}
	return &dns.TSIG{
		Hdr:       dns.RR_Header{Name: s.key.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: s.key.Algorithm, Fudge: fudge, TimeSigned: uint64(s.now().Unix()),
	}
}

func (s *signer) pack(m *dns.Msg) ([]byte, error) {
	if s == nil {
		return m.Pack()
	}
	t := s.record()
	t.OrigId = m.Id
	m.Extra = append(m.Extra[:len(m.Extra):len(m.Extra)], t)
	packed, mac, err := dns.TsigGenerate(m, s.key.Secret(), s.mac, s.later)
	if err != nil {
		return nil, err
	}
	s.mac, s.later = mac, true
	return packed, nil
}

// checkSignature verifies the query's TSIG record, if it has one, and readies
// the signing of the answers. It returns the answer to a query that it refuses
// (RFC 8945 section 5.2).
func (c *call) checkSignature() *dns.Msg {
	t := c.query.IsTsig()
	if t == nil {
		for _, rr := range c.query.Extra {
			if rr.Header().Rrtype == dns.TypeTSIG { // not the last one
				return c.refusal(dns.RcodeFormatError)
			}
		}
		return nil
	}
	if t.Algorithm == "" {
		return c.refusal(dns.RcodeFormatError) // a record without data
	}
	for _, rr := range c.query.Extra[:len(c.query.Extra)-1] {
		if rr.Header().Rrtype == dns.TypeTSIG {
			return c.refusal(dns.RcodeFormatError)
		}
	}
	var key Key
	if c.zone != nil {
		_, _, set := c.zone.snapshot()
		key = set.key
	}
	c.signed = &signer{key: key, mac: t.MAC, now: c.server.o.Now}
	if key.IsZero() || dns.CanonicalName(t.Hdr.Name) != key.Name || dns.CanonicalName(t.Algorithm) != key.Algorithm {
		return c.unverified(t, dns.RcodeBadKey)
	}
	// The library changes the octets that it verifies.
	err := dns.TsigVerify(bytes.Clone(c.packet), key.Secret(), "", false)
	switch {
	case errors.Is(err, dns.ErrTime):
		return c.unverified(t, dns.RcodeBadTime)
	case err != nil:
		return c.unverified(t, dns.RcodeBadSig)
	}
	return nil
}

func (c *call) refusal(rcode int) *dns.Msg {
	m := new(dns.Msg).SetRcode(&c.query, rcode)
	if opt := c.query.IsEdns0(); opt != nil {
		m.SetEdns0(answer.MaxPayload, opt.Do())
	}
	return m
}

// unverified answers a query whose signature is not good: unsigned where there
// is no key to sign with or the asker does not hold it, signed and with our
// clock where only the time is wrong.
func (c *call) unverified(t *dns.TSIG, failure uint16) *dns.Msg {
	stub := &dns.TSIG{
		Hdr:       dns.RR_Header{Name: t.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: t.Algorithm, Fudge: fudge, TimeSigned: t.TimeSigned, Error: failure,
	}
	if failure == dns.RcodeBadTime {
		clock := binary.BigEndian.AppendUint64(nil, uint64(c.server.o.Now().Unix()))[2:]
		stub.OtherLen, stub.OtherData = uint16(len(clock)), hex.EncodeToString(clock)
	}
	c.signed.stub = stub
	return c.refusal(dns.RcodeNotAuth)
}
