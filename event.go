package upkeep

import "time"

// Event kinds.
const (
	EventDeclared = "declared" // a document was applied or deleted
	EventVerdict  = "verdict"  // a member's verdict changed
	EventAdmin    = "admin"    // somebody forced, drained or released a member
	EventDecision = "decision" // the set that a pool publishes changed, or was frozen
	EventPublish  = "publish"  // a publisher carried a set to a zone, or could not
	EventProof    = "proof"    // the name servers answer what was published, or do not
	EventJob      = "job"      // a job ended: done, failed, superseded or cancelled
	EventWarning  = "warning"  // something to fix that changes no answer
	EventSystem   = "system"   // start, stop, pruning
)

// EventKinds lists the kinds of events.
var EventKinds = []string{EventDeclared, EventVerdict, EventAdmin, EventDecision, EventPublish, EventProof, EventJob, EventWarning, EventSystem}

// Event is one thing that happened: who did what to which object, and why.
type Event struct {
	ID   int64     `json:"id"`
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	// Who acted: "upkeep" or a user, such as "uid 1000" or "token".
	Who string `json:"who"`
	// Object is "pool/web", "pool/web/192.0.2.1" or "zone/example.test".
	Object string `json:"object"`
	What   string `json:"what"`
	Why    string `json:"why,omitempty"`
}
