package failover

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"upkeep"
)

// PoolInput is everything that a decision depends on.
type PoolInput struct {
	Pool    upkeep.Pool   // with its defaults applied
	Members []MemberInput // in the order of Pool.Members
	State   PoolState     // of the last decision; zero at first
	// Freeze is the reason for which nothing may be removed, empty for none.
	// FreezeFrom is when its cause began: removals made since are taken back.
	Freeze     string
	FreezeFrom time.Time
	Now        time.Time
}

// MemberInput is what is known of one member.
type MemberInput struct {
	Verdict upkeep.Verdict
	Admin   string
	Since   time.Time // of the verdict
	Reason  string    // of the verdict, from [Detector.Explain]
	Next    string
}

// PoolState is what a decision leaves for the next, also across a restart.
type PoolState struct {
	Published []netip.Addr    `json:"published,omitempty"`
	TTL       upkeep.Duration `json:"ttl,omitempty"`
	ChangedAt time.Time       `json:"changed_at,omitzero"`
}

// Decision is what a pool is to publish and why.
type Decision struct {
	Published []netip.Addr // sorted
	TTL       upkeep.Duration
	Changed   bool // Published or TTL differ from the last decision
	// Change says what changed and why; empty if and only if nothing changed.
	Change       string
	Reason, Next string
	Members      []MemberDecision // in the order of Pool.Members
	State        PoolState
	// Wake is when to decide again although nothing was heard; zero for never.
	Wake time.Time
}

// MemberDecision says whether a member is published and why.
type MemberDecision struct {
	Published    bool
	Reason, Next string
}

// Decide makes of the verdicts the set to publish.
func Decide(in PoolInput) Decision {
	d := Decision{TTL: in.Pool.TTL, Members: make([]MemberDecision, len(in.Members)), State: in.State}
	up := 0
	for i, m := range in.Pool.Members {
		known := in.Members[i]
		was := slices.Contains(in.State.Published, m.Address)
		is := known.Admin == upkeep.AdminUp || (known.Admin == "" || known.Admin == upkeep.AdminAuto) &&
			(known.Verdict == upkeep.Up || was && (known.Verdict == upkeep.Unknown || in.Freeze != ""))
		d.Members[i] = MemberDecision{Published: is, Reason: known.Reason, Next: known.Next}
		if is {
			up++
			d.Published = append(d.Published, m.Address)
		}
	}
	d.Reason = fmt.Sprintf("%d of %d members are up", up, len(in.Members))
	if up == 0 && in.Pool.Policy.FailOpen != upkeep.FailOpenNone {
		d.Reason += "; failing open: all are published"
		for i, m := range in.Pool.Members {
			if a := in.Members[i].Admin; a != upkeep.AdminDown && a != upkeep.AdminDrain {
				d.Members[i].Published = true
				d.Published = append(d.Published, m.Address)
			}
		}
	}
	slices.SortFunc(d.Published, netip.Addr.Compare)
	if d.Changed = !slices.Equal(d.Published, in.State.Published) || d.TTL != in.State.TTL; d.Changed {
		d.Change = d.Reason
		d.State = PoolState{Published: d.Published, TTL: d.TTL, ChangedAt: in.Now}
	}
	return d
}
