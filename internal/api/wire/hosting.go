package wire

import (
	"encoding/json"
	"time"

	"upkeep"
)

// NewJob asks for one job of a kind, with the payload of that kind.
type NewJob struct {
	Kind string `json:"kind" minLength:"2" maxLength:"40" example:"server.facts"`
	// Server does it; empty for a notification.
	Server string `json:"server,omitempty" maxLength:"63" example:"web1"`
	// Payload is that of the kind.
	Payload json.RawMessage `json:"payload,omitempty"`
}

// JobFilter chooses jobs; zero fields choose all, the newest first.
type JobFilter struct {
	Account, Server, Kind, Object string
	States                        []upkeep.JobState
	Before                        int64 // ids below
	Limit                         int
}

// Invitation lets one agent join, once.
type Invitation struct {
	Server string `json:"server"`
	// Token is shown this once; only its hash is kept.
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	// Listen is where agents connect, as control was told; empty when it takes none.
	Listen string `json:"listen,omitempty"`
}

// Generation is one that a site once had.
type Generation struct {
	Generation int64     `json:"generation"`
	At         time.Time `json:"at"`
	Who        string    `json:"who"`
	Deleted    bool      `json:"deleted,omitempty"`
	// Object is the site as it was then.
	Object json.RawMessage `json:"object,omitempty"`
}
