package beat

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"syscall"
	"time"
)

// Size of every datagram in bytes.
const Size = 80

const (
	magic     = "UKB1"
	tagOffset = 64
	tagSize   = Size - tagOffset
)

// Kind says what a datagram is for.
type Kind uint8

const (
	KindBeat      Kind = 1 // sender to receiver
	KindChallenge Kind = 2 // receiver to sender: use this nonce
	KindFarewell  Kind = 3 // receiver to sender: the goodbye was heard
)

// State is how the member is.
type State uint8

const (
	Well    State = 0
	NotWell State = 1 // the member's own command says so
	Goodbye State = 2 // the sender stops in good order
)

// Cause says why a member is not well; Value of [Health] goes with it.
type Cause uint8

const (
	CauseNone       Cause = 0
	CauseExit       Cause = 1 // Value is the exit status, 255 at most
	CauseSignal     Cause = 2 // Value is the signal
	CauseTimeout    Cause = 3
	CauseNotStarted Cause = 4 // the command could not be run at all
)

// Health is a member's state as it beats it.
type Health struct {
	State State
	Cause Cause
	Value uint8
}

// Reason says in a few words why the member is not well, empty if it is.
func (h Health) Reason() string {
	if h.State != NotWell {
		return ""
	}
	switch h.Cause {
	case CauseExit:
		return fmt.Sprintf("its own command exited with status %d", h.Value)
	case CauseSignal:
		return fmt.Sprintf("its own command was ended by signal %d (%s)", h.Value, syscall.Signal(h.Value))
	case CauseTimeout:
		return "its own command did not end in time"
	case CauseNotStarted:
		return "its own command could not be started"
	}
	return "it says so"
}

// Nonce is a challenge of the receiver's; the zero Nonce means that the sender
// knows none yet.
type Nonce [16]byte

// Packet is the content of a datagram.
type Packet struct {
	Kind     Kind
	Health   Health
	Member   uint64 // of [MemberHash]
	Session  uint64
	Counter  uint64
	Sent     time.Duration // on the sender's steady clock, since its session began
	Interval time.Duration // between beats, in whole microseconds
	Nonce    Nonce
}

// Errors of [Decode] and [Key.Open].
var (
	ErrMalformed = errors.New("malformed datagram")
	ErrForged    = errors.New("datagram does not match the key")
)

// MemberHash is the number that stands for a member's identity in a datagram.
func MemberHash(id string) uint64 {
	sum := sha256.Sum256([]byte("upkeep beat\x00" + id))
	return binary.BigEndian.Uint64(sum[:8])
}

// maxInterval is what the interval field can hold, above the longest interval
// of a check.
const maxInterval = time.Duration(1<<32-1) * time.Microsecond

// encode writes the packet without its tag; b has [Size] bytes.
func (p Packet) encode(b []byte) {
	clear(b)
	copy(b, magic)
	b[4], b[5], b[6], b[7] = byte(p.Kind), byte(p.Health.State), byte(p.Health.Cause), p.Health.Value
	binary.BigEndian.PutUint64(b[8:], p.Member)
	binary.BigEndian.PutUint64(b[16:], p.Session)
	binary.BigEndian.PutUint64(b[24:], p.Counter)
	binary.BigEndian.PutUint64(b[32:], uint64(p.Sent))
	binary.BigEndian.PutUint32(b[40:], uint32(min(p.Interval, maxInterval)/time.Microsecond))
	copy(b[48:], p.Nonce[:])
}

// Decode reads a datagram without looking at its tag: what it returns is what
// somebody claims, until [Key.Open] has confirmed it. What Decode accepts has
// one form only: encoding the packet gives the same bytes again.
func Decode(b []byte) (Packet, error) {
	if len(b) != Size || string(b[:4]) != magic {
		return Packet{}, ErrMalformed
	}
	p := Packet{
		Kind:     Kind(b[4]),
		Health:   Health{State(b[5]), Cause(b[6]), b[7]},
		Member:   binary.BigEndian.Uint64(b[8:]),
		Session:  binary.BigEndian.Uint64(b[16:]),
		Counter:  binary.BigEndian.Uint64(b[24:]),
		Sent:     time.Duration(binary.BigEndian.Uint64(b[32:])),
		Interval: time.Duration(binary.BigEndian.Uint32(b[40:])) * time.Microsecond,
		Nonce:    Nonce(b[48:64]),
	}
	known := p.Kind >= KindBeat && p.Kind <= KindFarewell && p.Health.State <= Goodbye && p.Health.Cause <= CauseNotStarted
	if !known || p.Sent < 0 || binary.BigEndian.Uint32(b[44:]) != 0 {
		return Packet{}, ErrMalformed
	}
	if p.Health.State != NotWell && (p.Health.Cause != CauseNone || p.Health.Value != 0) {
		return Packet{}, ErrMalformed
	}
	return p, nil
}

// Key seals and opens the datagrams of one member. It is not safe for use by
// several goroutines at once.
type Key struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

// NewKey makes the key of a secret.
func NewKey(s Secret) *Key { return &Key{mac: hmac.New(sha256.New, s[:])} }

func (k *Key) tag(b []byte) []byte {
	k.mac.Reset()
	k.mac.Write(b[:tagOffset]) // never fails
	return k.mac.Sum(k.sum[:0])[:tagSize]
}

// Seal returns the datagram of a packet.
func (k *Key) Seal(p Packet) []byte {
	b := make([]byte, Size)
	p.encode(b)
	copy(b[tagOffset:], k.tag(b))
	return b
}

// Open reads a datagram and confirms that the holder of the key made it.
func (k *Key) Open(b []byte) (Packet, error) {
	p, err := Decode(b)
	if err != nil {
		return Packet{}, err
	}
	if !hmac.Equal(k.tag(b), b[tagOffset:]) {
		return Packet{}, ErrForged
	}
	return p, nil
}
