package answer

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Bits of the second 16 bits of a header, RFC 1035 section 4.1.1 and RFC 4035.
const (
	flagQR     = 1 << 15
	maskOpcode = 0xf << 11
	flagAA     = 1 << 10
	flagTC     = 1 << 9
	flagRD     = 1 << 8
	flagCD     = 1 << 4
	flagDO     = 1 << 15 // in the TTL of an OPT record, RFC 3225
)

// optLen is the length of an OPT record without options (RFC 6891).
const optLen = 11

// Sizes of UDP answers: what every client takes, and what is sent at most, which
// passes IPv6's least MTU unfragmented (DNS flag day 2020, BIND's default).
const (
	MinPayload = dns.MinMsgSize
	MaxPayload = 1232
)

// query is a query of the common form: one question of class IN and at most an
// OPT record of version 0 behind it.
type query struct {
	packet  []byte
	key     [maxName]byte // the name in lower case
	keyLen  int
	label   [maxLabels]uint8 // offsets of the labels in key
	labels  int              // without the root
	qtype   uint16
	end     int // of the question
	edns    bool
	do      bool
	payload int
}

// parse reads a packet and reports whether it has the common form. Whatever is
// not, down to the malformed, is for the slow path to judge.
func (q *query) parse(p []byte) bool {
	const counts = 1 << 32 // one question, no answer, no authority
	if len(p) < headerLen+5 || binary.BigEndian.Uint16(p[2:])&(flagQR|maskOpcode) != 0 ||
		binary.BigEndian.Uint64(p[4:])>>16 != counts || p[10] != 0 || p[11] > 1 {
		return false
	}
	q.packet = p
	if !q.name(p[headerLen:]) {
		return false
	}
	rest := p[headerLen+q.keyLen:]
	if len(rest) < 4 || rest[2] != 0 || rest[3] != dns.ClassINET {
		return false
	}
	q.qtype = binary.BigEndian.Uint16(rest)
	q.end = headerLen + q.keyLen + 4
	if q.edns = p[11] == 1; q.edns {
		return q.opt(rest[4:])
	}
	return len(rest) == 4
}

// name reads the name of the question, which no pointer can stand in.
func (q *query) name(p []byte) bool {
	q.labels = 0
	for i := 0; i < len(p) && i < maxName; {
		length := int(p[i])
		if length == 0 {
			q.key[i] = 0
			q.keyLen = i + 1
			return true
		}
		next := i + 1 + length
		if length > 63 || next >= len(p) || next >= maxName {
			return false
		}
		q.label[q.labels] = uint8(i)
		q.labels++
		q.key[i] = p[i]
		for i++; i < next; i++ {
			q.key[i] = lower(p[i])
		}
	}
	return false
}

// opt reads an OPT record that must fill the rest of the packet. Options are
// checked for form and passed over: none changes the answer.
func (q *query) opt(p []byte) bool {
	if len(p) < optLen || p[0] != 0 || p[1] != 0 || p[2] != byte(dns.TypeOPT) || p[6] != 0 {
		return false
	}
	q.payload = int(binary.BigEndian.Uint16(p[3:]))
	q.do = binary.BigEndian.Uint16(p[7:])&flagDO != 0
	options := p[optLen:]
	if int(binary.BigEndian.Uint16(p[9:])) != len(options) {
		return false
	}
	for len(options) > 0 {
		if len(options) < 4 {
			return false
		}
		length := 4 + int(binary.BigEndian.Uint16(options[2:]))
		if length > len(options) {
			return false
		}
		options = options[length:]
	}
	return true
}

// answer writes the answer made of t: header, question as it was asked, the
// records with their order rotated by turn, OPT. An answer longer than limit is
// cut down to the question with TC set, which sends an honest client to TCP and
// gives a forged source nothing worth reflecting. Dst must hold limit octets.
func (q *query) answer(dst []byte, t *template, limit int, turn uint32) int {
	n := q.end + len(t.tail)
	if q.edns {
		n += optLen
	}
	if n > limit {
		q.header(dst, t.flags|flagTC, [3]uint16{})
		return q.finish(dst, q.end)
	}
	q.header(dst, t.flags, t.count)
	tail := dst[q.end : q.end+len(t.tail)]
	if run := t.turn; run.count > 1 {
		first := int(uint64(turn) * uint64(run.count) >> 32)
		from, to := run.at, run.at+run.size*run.count
		split := from + first*run.size
		copy(tail, t.tail[:from])
		copy(tail[from:], t.tail[split:to])
		copy(tail[from+to-split:], t.tail[from:split])
		copy(tail[to:], t.tail[to:])
	} else {
		copy(tail, t.tail)
	}
	if off := q.keyLen - t.base; off != 0 {
		for _, at := range t.moved {
			pointer := binary.BigEndian.Uint16(tail[at:])
			binary.BigEndian.PutUint16(tail[at:], uint16(int(pointer)+off))
		}
	}
	return q.finish(dst, q.end+len(t.tail))
}

// header writes header and question.
func (q *query) header(dst []byte, flags uint16, count [3]uint16) {
	copy(dst, q.packet[:q.end])
	asked := binary.BigEndian.Uint16(q.packet[2:])
	binary.BigEndian.PutUint16(dst[2:], flagQR|flags|asked&(flagRD|flagCD))
	if q.edns {
		count[2]++
	}
	for i, n := range count {
		binary.BigEndian.PutUint16(dst[6+2*i:], n)
	}
}

// finish writes the OPT record behind the first n octets of an answer.
func (q *query) finish(dst []byte, n int) int {
	if !q.edns {
		return n
	}
	opt := dst[n : n+optLen]
	clear(opt)
	opt[2] = byte(dns.TypeOPT)
	binary.BigEndian.PutUint16(opt[3:], MaxPayload)
	if q.do {
		opt[7] = flagDO >> 8
	}
	return n + optLen
}

// skipName returns the offset behind the name at off, or -1 where none ends
// within the packet.
func skipName(p []byte, off int) int {
	for off < len(p) {
		switch length := int(p[off]); {
		case length == 0:
			return off + 1
		case length&0xc0 == 0xc0:
			if off+2 > len(p) {
				return -1
			}
			return off + 2
		case length > 63:
			return -1
		default:
			off += 1 + length
		}
	}
	return -1
}

// FormatError answers a packet of at least a header that is not well formed:
// with its question where that can be read, with the header alone otherwise.
func FormatError(p []byte) []byte {
	end := headerLen
	if binary.BigEndian.Uint16(p[4:]) == 1 {
		if name := skipName(p, headerLen); name > 0 && name+4 <= len(p) && plainLabels(p[headerLen:name]) {
			end = name + 4
		}
	}
	m := make([]byte, end)
	copy(m, p[:end])
	clear(m[6:headerLen])
	if end == headerLen {
		clear(m[4:6])
	}
	asked := binary.BigEndian.Uint16(p[2:])
	binary.BigEndian.PutUint16(m[2:], flagQR|asked&(maskOpcode|flagRD)|dns.RcodeFormatError)
	return m
}

// plainLabels reports whether a name is of legal length and has no pointers.
func plainLabels(name []byte) bool {
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		if name[i] > 63 {
			return false
		}
	}
	return len(name) <= maxName
}

// WellFormed reports whether a packet holds as many questions and records as
// its header says, and nothing behind them. The DNS library reads past both.
func WellFormed(p []byte) bool {
	if len(p) < headerLen {
		return false
	}
	off := headerLen
	for range binary.BigEndian.Uint16(p[4:]) {
		if off = skipName(p, off); off < 0 || off+4 > len(p) {
			return false
		}
		off += 4
	}
	records := 0
	for i := 6; i < headerLen; i += 2 {
		records += int(binary.BigEndian.Uint16(p[i:]))
	}
	for range records {
		if off = skipName(p, off); off < 0 || off+10 > len(p) {
			return false
		}
		if off += 10 + int(binary.BigEndian.Uint16(p[off+8:])); off > len(p) {
			return false
		}
	}
	return off == len(p)
}
