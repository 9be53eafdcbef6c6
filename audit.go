package upkeep

import (
	"encoding/json"
	"time"
)

// AuditEntry is one change that somebody made: to what is declared, to users and
// their tokens, to who may connect, to admin states, to jobs. It holds no password and
// no token.
type AuditEntry struct {
	ID int64     `json:"id"`
	At time.Time `json:"at"`
	// Who made it: "uid 0 (root)", "token", "user ada", or "upkeep" itself.
	Who string `json:"who"`
	// Object is what was changed, such as "site/example.test", "user/ada",
	// "server/web1", "job/7" or "pool/web/192.0.2.1".
	Object string `json:"object"`
	// What was done, in words.
	What string `json:"what"`
	Why  string `json:"why,omitempty"`
	// Before and After are the thing as it was and as it is since. They are left out
	// where there was, or is, none, and in lists.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}
