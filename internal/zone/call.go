package zone

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"

	"github.com/miekg/dns"

	"upkeep/internal/zone/answer"
)

// listening is the [Server] as the sockets see it. Queries of the common form
// are answered by copying; the rest is unpacked and dealt with by [call].
type listening Server

// Packet implements [dnsserver.Handler].
func (e *listening) Packet(dst, query []byte, from netip.AddrPort, turn uint32) int {
	s := (*Server)(e)
	if n := s.zones.Quick(dst, query, true, turn); n > 0 {
		return n
	}
	n := 0
	c := call{server: s, packet: query, from: from, udp: true, turn: turn, send: func(message []byte) error {
		n = copy(dst, message)
		return nil
	}}
	// An answer that cannot be made is one the client does not get.
	_ = c.serve()
	return n
}

// messages holds buffers for answers over TCP, so that an idle connection holds
// none.
var messages = sync.Pool{New: func() any { return new([dns.MaxMsgSize]byte) }}

// Stream implements [dnsserver.Handler].
func (e *listening) Stream(query []byte, from netip.AddrPort, send func([]byte) error) error {
	s := (*Server)(e)
	turn := uint32(0)
	if len(query) >= 2 {
		turn = uint32(binary.BigEndian.Uint16(query)) << 16 // the client's own random number serves
	}
	buffer := messages.Get().(*[dns.MaxMsgSize]byte)
	defer messages.Put(buffer)
	if n := s.zones.Quick(buffer[:], query, false, turn); n > 0 {
		return send(buffer[:n])
	}
	c := call{server: s, packet: query, from: from, turn: turn, send: send}
	return c.serve()
}

// call is one query on the slow path.
type call struct {
	server *Server
	packet []byte
	from   netip.AddrPort
	udp    bool
	turn   uint32
	send   func(message []byte) error

	query  dns.Msg
	zone   *primary // that the question lies in, nil for none of ours
	signed *signer  // of the answers, nil for an unsigned query
}

var errNoAnswer = errors.New("not to be answered")

func (c *call) serve() error {
	if len(c.packet) < 12 || c.packet[2]&0x80 != 0 {
		return errNoAnswer // shorter than a header, or itself an answer: a loop
	}
	if !answer.WellFormed(c.packet) || c.query.Unpack(c.packet) != nil {
		return c.send(answer.FormatError(c.packet))
	}
	if len(c.query.Question) == 1 && c.query.Opcode == dns.OpcodeQuery {
		c.zone = c.server.primary(c.query.Question[0].Name)
		if refusal := c.checkSignature(); refusal != nil {
			if c.zone != nil && isTransfer(c.query.Question[0]) {
				c.refused("the signature of the request is not good: another key, another secret, or a clock that is wrong")
			}
			return c.reply(refusal)
		}
		if isTransfer(c.query.Question[0]) {
			return c.transfer()
		}
	}
	m := c.server.zones.Reply(&c.query)
	if m == nil {
		return errNoAnswer
	}
	m.Answer = rotated(m.Answer, c.turn)
	return c.reply(m)
}

// reply fits a message to the transport, signs it and sends it.
func (c *call) reply(m *dns.Msg) error {
	limit := answer.Limit(&c.query, c.udp) - c.signed.octets()
	if packed, err := m.Pack(); err != nil || len(packed) > limit {
		m.Truncated = m.Truncated || err == nil
		if err != nil {
			m.Rcode = dns.RcodeServerFailure
		}
		m.Answer, m.Ns, m.Extra = nil, nil, onlyOPT(m)
	}
	packed, err := c.signed.pack(m)
	if err != nil {
		return err
	}
	return c.send(packed)
}

func onlyOPT(m *dns.Msg) []dns.RR {
	if opt := m.IsEdns0(); opt != nil {
		return []dns.RR{opt}
	}
	return nil
}

// rotated returns the records with the run of addresses at their end turned.
func rotated(records []dns.RR, turn uint32) []dns.RR {
	first := len(records)
	for first > 0 {
		rtype := records[first-1].Header().Rrtype
		if rtype != dns.TypeA && rtype != dns.TypeAAAA {
			break
		}
		first--
	}
	run := records[first:]
	if len(run) < 2 {
		return records
	}
	at := int(uint64(turn) * uint64(len(run)) >> 32)
	turned := append([]dns.RR{}, records[:first]...)
	turned = append(turned, run[at:]...)
	return append(turned, run[:at]...)
}
