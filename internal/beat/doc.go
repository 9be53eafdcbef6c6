// Package beat is the heartbeat protocol: what a member sends many times a
// second to say that it lives, and how the receiver tells such a beat from one
// that was forged, or recorded and sent again.
//
// # Datagrams
//
// Every datagram is [Size] bytes, in either direction, so that an answer is
// never larger than what it answers. All numbers are big-endian.
//
//	 0  4  "UKB1": protocol and version
//	 4  1  kind: 1 beat, 2 challenge, 3 farewell
//	 5  1  state: 0 well, 1 not well, 2 goodbye
//	 6  1  cause of "not well": 1 exit status, 2 signal, 3 timeout, 4 not started
//	 7  1  exit status or signal number
//	 8  8  member: start of SHA-256 of its identity, to find its key
//	16  8  session: random, chosen anew at each start of a sender
//	24  8  counter: rises with each beat of a session
//	32  8  sent: nanoseconds on the sender's steady clock since the session began
//	40  4  interval between beats in microseconds
//	44  4  zero
//	48 16  nonce: the receiver's latest challenge; zero when none is known
//	64 16  HMAC-SHA-256 over bytes 0-63 with the member's key, truncated (RFC 2104)
//
// An authenticated cipher was turned down: a beat holds no secret, and a nonce
// that must never repeat is a risk that HMAC does not have.
//
// # Freshness
//
// A beat counts only if it carries a nonce that the receiver made up. A sender
// starts without one. The receiver answers an authentic beat whose nonce is not
// the current one with a challenge: a new nonce, sealed with the member's key
// and naming the session and counter of the beat that it answers. The sender
// beats again at once with the new nonce, and from then on one way only. The
// receiver renews the nonce once a minute by answering one beat.
//
// What that gives:
//   - A beat recorded before the receiver started, or in an earlier session of
//     the sender, carries a nonce that is no longer current: refused.
//   - A beat recorded in this session has a counter that was used: refused.
//   - A beat that was held back on its way and never arrived before has an
//     unused counter. But its age has an upper bound without trust in any
//     clock: the first beat with a nonce was sent after the nonce was issued,
//     so a beat is at most (now - issued) - (sent - first sent) old, with both
//     differences taken on one machine's steady clock each. Beyond [MaxAge] it
//     is refused. Wall clocks appear nowhere; setting one changes nothing.
//
// So somebody who records, repeats, reorders or delays datagrams keeps a dead
// member alive for at most [MaxAge], and somebody without a member's key cannot
// beat for it, whatever other keys they hold. Who can drop datagrams can make
// any member look dead; no protocol fixes that.
//
// # Goodbye
//
// A sender that is stopped says goodbye with the same rules, again and again
// until the receiver acknowledges it (a farewell) or a second has passed. A
// session that said goodbye is over: no later beat of it counts.
package beat
