package upkeep

import "time"

// Certificate is one that an agent was given: with it the agent proves which
// server it is on. A server has more than one for as long as it takes to change
// over from an old to a new one.
type Certificate struct {
	Server string `json:"server"`
	// Serial is the serial number of RFC 5280 section 4.1.2.2 in hexadecimal.
	Serial  string    `json:"serial"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
}

// Invitation lets one agent join as a server, once. What is kept of its token is
// a hash: who reads the database cannot join with it.
type Invitation struct {
	Server string `json:"server"`
	// Hash is SHA-256 of the token's secret part, in hexadecimal.
	Hash    string    `json:"hash"`
	Expires time.Time `json:"expires"`
	// Used is when an agent joined with it; zero while none has.
	Used time.Time `json:"used,omitzero"`
}
