package upkeep

// Actions of a [Change].
const (
	ActionCreate = "create"
	ActionChange = "change"
	ActionDelete = "delete"
	ActionNone   = "unchanged"
)

// Change is what applying or deleting did, or would do, to one object.
type Change struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action"`
	// Generation is the object's after the change.
	Generation int64 `json:"generation"`
	// Diff is a unified diff of the document before and after, where it was
	// asked for.
	Diff string `json:"diff,omitempty"`
}

// ApplyResult is the outcome of applying a set of objects: all of them, or none.
type ApplyResult struct {
	// DryRun means that nothing was stored.
	DryRun   bool     `json:"dry_run"`
	Changes  []Change `json:"changes"`
	Warnings []string `json:"warnings,omitempty"`
}

// Changed reports whether any object differs from what was stored.
func (r ApplyResult) Changed() bool {
	for _, c := range r.Changes {
		if c.Action != ActionNone {
			return true
		}
	}
	return false
}

// Budget is the longest that a dead member can go on being answered, part by
// part, from its last good probe to the last cache without it.
type Budget struct {
	Pool  string       `json:"pool"`
	Parts []BudgetPart `json:"parts"`
	// Worst is the sum over all parts. It bounds an ordinary failover: a frozen
	// pool or a name server that refuses its reload has no bound.
	Worst Duration `json:"worst"`
	// Advice says what to change where, one sentence each, most useful first.
	Advice []string `json:"advice,omitempty"`
}

// BudgetPart is one stretch of a failover.
type BudgetPart struct {
	Name  string   `json:"name"` // detect, publish, notify, transfer, ttl
	Worst Duration `json:"worst"`
	// Measured is the longest seen lately, zero when nothing was seen.
	Measured Duration `json:"measured,omitempty"`
	// Why says where the figures come from.
	Why string `json:"why"`
}
