package upkeep

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
