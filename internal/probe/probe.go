// Package probe asks members whether they are well. An [Engine] runs each check
// on a fixed schedule and hands every outcome to the check's observer; it keeps
// no history and draws no conclusion, which is the business of package failover.
//
// One check type is one file and one line in [checkTypes]. ping and tcp run
// inside the engine's own event loop, because they are asked by the hundred
// thousand; http, https, dns and exec run in a goroutine per probe in flight;
// heartbeat listens.
package probe

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"upkeep"
)

// Result is the outcome of one probe.
type Result struct {
	// At is when the outcome was known.
	At time.Time
	// OK means that the target answered as it should.
	OK bool
	// Addr is the address that was asked, of a target that is a name.
	Addr netip.Addr
	// RTT is the time from asking to the answer, or that was waited for none; of a
	// missed heartbeat, since it should have come. Zero where nobody knows.
	RTT time.Duration
	// Refused means a definite bad answer (a reset, a wrong status, a bad
	// certificate) as opposed to silence.
	Refused bool
	// Slow means silence after contact: a connection stood, yet the answer did
	// not come in time. The host lives, and may only be working hard.
	Slow bool
	// Goodbye means that the member itself said that it is leaving.
	Goodbye bool
	// Void means that nothing was learned about the target, because the fault is
	// the monitor's own (no permission, no file descriptor left, a name that it
	// cannot look up, a plugin that says UNKNOWN). It must count neither as a success nor as a failure.
	Void bool
	// Late means that the answer came after the shortened timeout of
	// [Next.Timeout], whose failure was reported already, but within the
	// configured one: the target lives and its round trip has grown to RTT.
	Late bool
	// Reason is a short plain sentence without its full stop, such as
	// "connection refused". It holds no control characters. Empty when OK.
	Reason string
	// Warning is what a person should know although the target is well, such as
	// a certificate that ends soon.
	Warning string
	// PerfData is what a plugin measured, in the notation of the Nagios plugin API.
	PerfData string
}

// Next says when and how patiently to ask again.
type Next struct {
	// After asks for an extra probe that long after this one ended; zero means
	// that the next regular slot will do.
	After time.Duration
	// Timeout of the next probe; zero, or anything above the configured one,
	// means the configured one.
	Timeout time.Duration
}

// Spec is one target with one check.
type Spec struct {
	// Target is an address or a host name.
	Target string
	// Known is where a target that is a name was found in an earlier life, zero
	// for unknown. It is asked there if its name cannot be looked up: a monitor
	// that is restarted while its name servers fail goes on.
	Known netip.Addr
	// Check is the definition; Port is the one to ask of this very member.
	Check upkeep.Check
	// Name is the address that the member is published under. It says who is
	// meant in messages and in heartbeats.
	Name string
	// Observe is called once for each finished probe, from goroutines of the
	// engine, never concurrently for one key. It must be quick: other targets
	// wait for it. It must neither call Set or Close nor wait for a lock that is
	// held around them.
	Observe func(Result) Next
}

// Key names a measurement: a target together with a check definition. Whoever
// needs the same measurement shares it.
type Key string

// KeyOf is the key of target asked by c. Definitions that differ only in writing
// out a default have the same key.
func KeyOf(target string, c upkeep.Check) Key {
	return Key(target + " " + digest(c))
}

// digest is a short stand-in for a definition: the engine holds one key for each
// of perhaps 100,000 members, and a definition written out is some hundred bytes.
func digest(c upkeep.Check) string {
	text, err := json.Marshal(c.WithDefaults())
	if err != nil {
		// A Check is made of strings, numbers and lists of them.
		panic(fmt.Sprintf("encoding a check: %v", err))
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:15])
}
