package beat

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// Session is the sender's side of the protocol towards one receiver, from one
// start of the sender to its end. It does no I/O and is not safe for use by
// several goroutines at once.
type Session struct {
	key      *Key
	member   uint64
	id       uint64
	interval time.Duration

	counter uint64
	echoed  uint64 // counter that the latest answer named
	nonce   Nonce
	goodbye uint64 // counter of the first goodbye, 0 if none was said
}

// NewSession begins a session that beats at the interval.
func NewSession(c Credential, interval time.Duration) *Session {
	s := &Session{key: NewKey(c.Secret), member: MemberHash(c.ID), interval: interval}
	var id [8]byte
	for s.id == 0 { // the receiver takes 0 for no session
		_, _ = rand.Read(id[:]) // never fails, see crypto/rand
		s.id = binary.BigEndian.Uint64(id[:])
	}
	return s
}

// Beat makes the next datagram. sent is the sender's steady clock, counted from
// the same moment throughout the session.
func (s *Session) Beat(sent time.Duration, health Health) []byte {
	s.counter++
	if health.State == Goodbye && s.goodbye == 0 {
		s.goodbye = s.counter
	}
	return s.key.Seal(Packet{
		Kind: KindBeat, Health: health, Member: s.member, Session: s.id,
		Counter: s.counter, Sent: sent, Interval: s.interval, Nonce: s.nonce,
	})
}

// Answer is what a datagram from the receiver means to the sender.
type Answer uint8

const (
	Ignored   Answer = iota // not ours, or not new
	Contact                 // the receiver is there; nothing to do
	BeatNow                 // a new nonce: beat with it at once
	Dismissed               // the goodbye was heard
)

// Hear takes a datagram from the receiver. An answer must be sealed with the
// member's key and name a beat of this session that is later than those named
// before, so answers that are sent again have no effect.
func (s *Session) Hear(datagram []byte) Answer {
	p, err := s.key.Open(datagram)
	if err != nil || p.Kind == KindBeat || p.Member != s.member || p.Session != s.id ||
		p.Counter <= s.echoed || p.Counter > s.counter {
		return Ignored
	}
	s.echoed = p.Counter
	if p.Kind == KindFarewell {
		if s.goodbye == 0 || p.Counter < s.goodbye {
			return Ignored
		}
		return Dismissed
	}
	if p.Nonce == s.nonce || p.Nonce == (Nonce{}) {
		return Contact
	}
	s.nonce = p.Nonce
	return BeatNow
}
