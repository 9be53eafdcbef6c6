package probe

import (
	"encoding/binary"
	"net/netip"
)

// ICMP and ICMPv6 message types (RFC 792, RFC 4443).
const (
	icmp4EchoReply    = 0
	icmp4Unreachable  = 3
	icmp4EchoRequest  = 8
	icmp4TimeExceeded = 11
	icmp6Unreachable  = 1
	icmp6TimeExceeded = 3
	icmp6EchoRequest  = 128
	icmp6EchoReply    = 129
)

const (
	icmpHeader = 8
	// echoData is what ping(8) sends: some paths drop what looks unusual.
	echoData = 56
	echoSize = icmpHeader + echoData
	ip4Least = 20
	ip6Size  = 40
)

// token is carried by each echo request and comes back in its reply. It names
// the member and the instant of sending, so that nothing need be remembered
// about pings that are over, and carries a seal that only this process can make:
// who does not see the request cannot make a reply to it. The identifier and
// sequence number are no help in that: 32 bits that can be guessed, the first of
// which ping sockets choose themselves.
type token struct {
	index int32
	stamp int64
	seal  uint64
}

const tokenSize = 4 + 8 + 8

func (t token) put(b []byte) {
	binary.BigEndian.PutUint32(b, uint32(t.index))
	binary.BigEndian.PutUint64(b[4:], uint64(t.stamp))
	binary.BigEndian.PutUint64(b[12:], t.seal)
}

func getToken(b []byte) token {
	return token{
		index: int32(binary.BigEndian.Uint32(b)),
		stamp: int64(binary.BigEndian.Uint64(b[4:])),
		seal:  binary.BigEndian.Uint64(b[12:]),
	}
}

// putEcho writes an echo request into b, of echoSize bytes. The checksum is
// left to the kernel for all but raw IPv4 sockets.
func putEcho(b []byte, kind byte, id, seq uint16, t token) {
	b[0], b[1], b[2], b[3] = kind, 0, 0, 0
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	t.put(b[icmpHeader:])
	if kind == icmp4EchoRequest {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
}

// checksum of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint64
	for len(b) >= 4 {
		sum += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	for i, c := range b { // at most three bytes
		sum += uint64(c) << (24 - 8*i)
	}
	sum = sum>>32 + sum&0xffffffff
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// answer is what a received ICMP message says about an echo request.
type answer struct {
	token token
	// to is whom the request went to: the sender of an echo reply, or the
	// destination in the request that an error message quotes.
	to netip.Addr
	// refused is the sentence of an error message, empty for a reply.
	refused string
}

// parseICMP4 reads a message as a raw IPv4 socket delivers it, from the IP
// header on. Error messages count only when they quote the request as far as its
// token; Linux quotes up to 576 bytes, RFC 1812 section 4.3.2.3 asks for that.
func parseICMP4(b []byte) (answer, bool) {
	from, b, ok := trimIP4(b)
	if !ok || len(b) < icmpHeader {
		return answer{}, false
	}
	switch b[0] {
	case icmp4EchoReply:
		return reply(b, from)
	case icmp4Unreachable, icmp4TimeExceeded:
		quoted := b[icmpHeader:]
		if len(quoted) < ip4Least || quoted[9] != 1 {
			return answer{}, false
		}
		header := int(quoted[0]&0x0f) * 4
		if header < ip4Least || len(quoted) < header+icmpHeader+tokenSize || quoted[header] != icmp4EchoRequest {
			return answer{}, false
		}
		return answer{
			token:   getToken(quoted[header+icmpHeader:]),
			to:      netip.AddrFrom4([4]byte(quoted[16:20])),
			refused: unreachable(b[0] == icmp4TimeExceeded, b[1] == 0, b[1] == 3 || b[1] == 2, from),
		}, true
	}
	return answer{}, false
}

// trimIP4 takes off the IPv4 header.
func trimIP4(b []byte) (from netip.Addr, rest []byte, ok bool) {
	if len(b) < ip4Least || b[0]>>4 != 4 {
		return netip.Addr{}, nil, false
	}
	header := int(b[0]&0x0f) * 4
	if header < ip4Least || len(b) < header {
		return netip.Addr{}, nil, false
	}
	return netip.AddrFrom4([4]byte(b[12:16])), b[header:], true
}

// parseICMP6 reads a message as an IPv6 raw socket delivers it, without the IP
// header.
func parseICMP6(b []byte, from netip.Addr) (answer, bool) {
	if len(b) < icmpHeader {
		return answer{}, false
	}
	switch b[0] {
	case icmp6EchoReply:
		return reply(b, from)
	case icmp6Unreachable, icmp6TimeExceeded:
		quoted := b[icmpHeader:]
		if len(quoted) < ip6Size+icmpHeader+tokenSize || quoted[6] != 58 || quoted[ip6Size] != icmp6EchoRequest {
			return answer{}, false
		}
		return answer{
			token:   getToken(quoted[ip6Size+icmpHeader:]),
			to:      netip.AddrFrom16([16]byte(quoted[24:40])),
			refused: unreachable(b[0] == icmp6TimeExceeded, b[1] == 0, false, from),
		}, true
	}
	return answer{}, false
}

// reply reads an echo reply from its ICMP header on.
func reply(b []byte, from netip.Addr) (answer, bool) {
	if len(b) < icmpHeader+tokenSize {
		return answer{}, false
	}
	return answer{token: getToken(b[icmpHeader:]), to: from}, true
}

func unreachable(exceeded, noRoute, noProtocol bool, by netip.Addr) string {
	what := "host unreachable"
	switch {
	case exceeded:
		what = "time to live exceeded"
	case noRoute:
		what = "network unreachable"
	case noProtocol:
		what = "ping refused"
	}
	return what + ", says " + by.String()
}
