package dnsserver

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"
)

// limiter bounds how much a client network is sent beyond what it sent itself:
// the one thing that makes a DNS server worth abusing for floods under forged
// addresses. Answers over the bound are cut down to the question with TC set,
// never dropped, so a real client comes back over TCP and is served.
//
// Networks share a fixed table by a keyed hash; two that meet in one slot take
// it from each other, which forgets a debt and never invents one. It belongs to
// one goroutine.
type limiter struct {
	rate  int64 // octets a second, 0 for no bound
	burst int64
	key   [2]uint64 // of the hash
	began time.Time
	now   int64 // milliseconds since began
	slots []allowance
}

type allowance struct {
	network uint64
	octets  int64 // left
	at      int64 // milliseconds, when octets was right
}

const (
	limiterBits  = 13
	limiterSlots = 1 << limiterBits
)

// newLimiter shares the rate among the sockets, over which the kernel spreads
// the clients of a network.
func newLimiter(rate, sockets int) *limiter {
	if rate < 0 {
		return &limiter{}
	}
	each := max(int64(rate/sockets), 1)
	return &limiter{began: time.Now(), rate: each, burst: each, key: [2]uint64{rand.Uint64(), rand.Uint64() | 1}, slots: make([]allowance, limiterSlots)}
}

// at sets the time for the answers that follow.
func (l *limiter) at(now time.Time) { l.now = now.Sub(l.began).Milliseconds() }

// fit takes an answer to a query of that length into account and returns the
// length of what may be sent of it, cutting it down in place where need be.
func (l *limiter) fit(message []byte, query int, client netip.Addr) int {
	gain := int64(len(message) - query)
	if l.rate == 0 || gain <= 0 || client.IsLoopback() {
		return len(message)
	}
	network := networkOf(client)
	slot := &l.slots[(network^l.key[0])*l.key[1]>>(64-limiterBits)]
	if slot.network != network {
		*slot = allowance{network: network, octets: l.burst, at: l.now}
	}
	if passed := l.now - slot.at; passed != 0 {
		slot.at = l.now
		// A clock that was stepped back gives nothing and takes nothing.
		slot.octets = min(l.burst, slot.octets+min(max(passed, 0), 1000)*l.rate/1000)
	}
	if slot.octets < gain {
		return truncate(message)
	}
	slot.octets -= gain
	return len(message)
}

// networkOf is the part of an address that stands for one client: what forging
// hosts vary freely inside of, and what BIND's response rate limiting takes.
func networkOf(client netip.Addr) uint64 {
	if client.Is4() {
		a := client.As4()
		return 1<<63 | uint64(binary.BigEndian.Uint32(a[:])>>8)
	}
	a := client.As16()
	return binary.BigEndian.Uint64(a[:8]) >> 8
}

const (
	headerLen = 12
	optLen    = 11
)

// truncate cuts an answer down to header, question and OPT record, with TC set,
// and returns its new length. An answer of another form becomes its header.
func truncate(message []byte) int {
	message[2] |= 2
	opt := [optLen]byte{}
	edns := len(message) >= headerLen+optLen && binary.BigEndian.Uint16(message[10:]) > 0 &&
		copy(opt[:], message[len(message)-optLen:]) == optLen && opt[0] == 0 && opt[1] == 0 && opt[2] == 41
	clear(message[6:headerLen])
	end := questionEnd(message)
	if end < 0 {
		clear(message[4:6])
		end = headerLen
	}
	if edns && end+optLen <= len(message) {
		message[11] = 1
		end += copy(message[end:], opt[:])
	}
	return end
}

func questionEnd(message []byte) int {
	if binary.BigEndian.Uint16(message[4:]) != 1 {
		return -1
	}
	off := headerLen
	for off < len(message) && message[off] != 0 && message[off] < 64 {
		off += 1 + int(message[off])
	}
	if off += 5; off > len(message) {
		return -1
	}
	return off
}
