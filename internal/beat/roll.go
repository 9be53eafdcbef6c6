package beat

import (
	"crypto/rand"
	"time"
)

// Bounds of the receiver's side; the package comment says what they are for.
const (
	// MaxAge is the greatest possible age of a beat that still counts, and so
	// the longest that a replay can keep a dead member alive. It must exceed
	// the round-trip time of any usable path.
	MaxAge = 2 * time.Second
	// renewAfter is the age at which a nonce is renewed while beats come in.
	renewAfter = time.Minute
	// nonceLife is the age beyond which a nonce counts no more. It leaves time
	// for lost renewals, and keeps what two clocks drift apart well below MaxAge.
	nonceLife = 10 * time.Minute
	// offerFor is how long one nonce is offered before a new one is made.
	offerFor = MaxAge / 2
	// aheadBy is how far below zero the age may fall by drift of the clocks.
	aheadBy = MaxAge / 4
)

// Outcome is what the receiver makes of a datagram.
type Outcome uint8

const (
	Accepted   Outcome = iota
	Challenged         // authentic, but not provably fresh; answered with a nonce
	Replayed           // its counter was used, or its session said goodbye
	Malformed
	Stranger // nobody of that identity beats here
	Forged   // made without the member's key
	outcomes
)

// Outcomes is the number of outcomes.
const Outcomes = int(outcomes)

var outcomeNames = [Outcomes]string{"accepted", "challenged", "replayed", "malformed", "stranger", "forged"}

func (o Outcome) String() string { return outcomeNames[o] }

// Heard is what [Roll.Receive] makes of one datagram.
type Heard struct {
	Outcome Outcome
	// From, Health and Interval are what the member says of itself; they are set
	// when the outcome is Accepted.
	From     Credential
	Health   Health
	Interval time.Duration
	// Rivals means that two senders use this member's key at the same time.
	Rivals bool
	// Reply is to be sent back to where the datagram came from, if not nil. It
	// is as long as the datagram was.
	Reply []byte
}

// Roll is the receiver's side of the protocol for any number of members. It
// keeps a fixed amount of memory for each member and none for anybody else. It
// does no I/O and is not safe for use by several goroutines at once.
type Roll struct {
	peers  map[Credential]*peer
	byHash map[uint64][]*peer
}

// NewRoll returns a Roll without members.
func NewRoll() *Roll { return &Roll{} }

// SetKeys replaces the members. Those that stay, with the same secret, keep
// their sessions. Two credentials of one identity, from two key files, are two
// members.
func (r *Roll) SetKeys(credentials []Credential) {
	peers := make(map[Credential]*peer, len(credentials))
	byHash := make(map[uint64][]*peer, len(credentials))
	for _, c := range credentials {
		if peers[c] != nil {
			continue
		}
		p := r.peers[c]
		if p == nil {
			p = &peer{credential: c, hash: MemberHash(c.ID), key: NewKey(c.Secret)}
		}
		peers[c] = p
		byHash[p.hash] = append(byHash[p.hash], p)
	}
	r.peers, r.byHash = peers, byHash
}

// Receive judges a datagram. now is the receiver's steady clock.
func (r *Roll) Receive(now time.Duration, datagram []byte) Heard {
	claim, err := Decode(datagram)
	if err != nil || claim.Kind != KindBeat {
		return Heard{Outcome: Malformed}
	}
	peers := r.byHash[claim.Member]
	if len(peers) == 0 {
		return Heard{Outcome: Stranger}
	}
	for _, peer := range peers {
		if beat, err := peer.key.Open(datagram); err == nil {
			return peer.receive(now, beat)
		}
	}
	return Heard{Outcome: Forged}
}

// offer is a nonce that a sender may use from now on.
type offer struct {
	nonce  Nonce
	issued time.Duration
}

// peer is what the receiver remembers of a member.
type peer struct {
	credential Credential
	hash       uint64
	key        *Key

	session   uint64
	before    uint64 // the session before this one
	nonce     Nonce  // zero until a beat was accepted
	issued    time.Duration
	firstSent time.Duration // of the first beat with this nonce
	counter   uint64        // of the last beat accepted
	over      bool          // the session said goodbye

	offers [2]offer // the latest first; zero nonce: none
}

func (p *peer) receive(now time.Duration, beat Packet) Heard {
	var zero Nonce
	current := beat.Session == p.session && p.nonce != zero
	if current && (beat.Counter <= p.counter || p.over && beat.Health.State != Goodbye) {
		return Heard{Outcome: Replayed}
	}
	switch {
	case beat.Nonce == zero:
		return p.challenge(now, beat, Challenged)
	case current && beat.Nonce == p.nonce:
		age := (now - p.issued) - (beat.Sent - p.firstSent)
		if age > MaxAge || age < -aheadBy || now-p.issued > nonceLife {
			return p.challenge(now, beat, Challenged)
		}
		p.counter = beat.Counter
		return p.accept(now, beat)
	}
	for _, o := range p.offers {
		if beat.Nonce == o.nonce && now-o.issued <= MaxAge {
			return p.adopt(now, beat, o)
		}
	}
	return p.challenge(now, beat, Challenged)
}

// adopt begins a session, or renews the nonce of the current one.
func (p *peer) adopt(now time.Duration, beat Packet, o offer) Heard {
	rivals := false
	if beat.Session != p.session {
		// A session that was superseded cannot come back unless its sender
		// lives on beside the new one.
		rivals = beat.Session == p.before && p.before != 0
		p.before, p.session = p.session, beat.Session
	}
	p.nonce, p.issued, p.firstSent, p.counter, p.over = o.nonce, o.issued, beat.Sent, beat.Counter, false
	p.offers = [2]offer{}
	heard := p.accept(now, beat)
	heard.Rivals = rivals
	return heard
}

func (p *peer) accept(now time.Duration, beat Packet) Heard {
	heard := Heard{Outcome: Accepted, From: p.credential, Health: beat.Health, Interval: beat.Interval}
	switch {
	case beat.Health.State == Goodbye:
		p.over = true
		heard.Reply = p.key.Seal(Packet{Kind: KindFarewell, Member: p.hash, Session: beat.Session, Counter: beat.Counter})
	case now-p.issued > renewAfter:
		heard.Reply = p.challenge(now, beat, Accepted).Reply
	}
	return heard
}

// challenge answers a beat with a nonce. Nothing else changes, so that a
// datagram sent again by somebody else does no harm to a session.
func (p *peer) challenge(now time.Duration, beat Packet, outcome Outcome) Heard {
	var zero Nonce
	if p.offers[0].nonce == zero || now-p.offers[0].issued > offerFor {
		// The one before stays good for the beat that is on its way with it.
		p.offers[1] = p.offers[0]
		p.offers[0].issued = now
		_, _ = rand.Read(p.offers[0].nonce[:]) // never fails, see crypto/rand
	}
	return Heard{Outcome: outcome, Reply: p.key.Seal(Packet{
		Kind: KindChallenge, Member: p.hash, Session: beat.Session, Counter: beat.Counter, Nonce: p.offers[0].nonce,
	})}
}
