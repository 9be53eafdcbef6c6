package failover

import (
	"math"
	"net/netip"
	"time"

	"upkeep"
)

// Failure is what is held against a member that failed.
type Failure struct {
	// Down says that it has not come back yet.
	Down bool `json:"down,omitempty"`
	// Penalty is how long it must stay up before it is published again, as set
	// by its last failure.
	Penalty upkeep.Duration `json:"penalty"`
	// UpSince is when it came back.
	UpSince time.Time `json:"up_since,omitzero"`
}

// removedMemory is how long a removal is remembered, so that a freeze can take
// it back: far longer than a guard needs to see that everything is failing.
const removedMemory = 10 * time.Minute

// recordFailures keeps the members' probation: doubled by each failure up to
// the most, halved by each stretch of that most that the member stays up, and
// forgotten at half of the first. Nothing is held against a member for what
// happens while the pool is frozen, because then the monitor is to blame.
func (d *decider) recordFailures() {
	policy := d.Pool.Policy
	present := make(map[netip.Addr]bool, len(d.members))
	for i := range d.members {
		m := &d.members[i]
		present[m.addr] = true
		failure, failed := d.state.Failed[m.addr]
		switch {
		case m.Verdict == upkeep.Down && !failure.Down && d.Freeze == "":
			penalty := policy.Probation
			if failed {
				penalty = min(policy.ProbationMax, max(policy.Probation, 2*d.decayed(failure)))
			}
			failure, failed = Failure{Down: true, Penalty: penalty}, true
		case m.Verdict == upkeep.Up && failed:
			failure.settle(m.Since, d.Now)
			if d.decayed(failure) < policy.Probation/2 || failure.Penalty <= 0 {
				failed = false
			}
		}
		d.record(m, failure, failed)
	}
	for addr := range d.state.Failed {
		if !present[addr] {
			delete(d.state.Failed, addr)
		}
	}
	for addr, at := range d.state.Removed {
		if age := d.Now.Sub(at); !present[addr] || age < 0 || age > removedMemory {
			delete(d.state.Removed, addr)
		}
	}
}

// settle notes since when the member is up. A clock that was set back must
// not prolong its probation beyond starting it anew.
func (f *Failure) settle(since, now time.Time) {
	told := !since.IsZero() && !since.After(now)
	switch {
	case f.Down && told:
		f.UpSince = since
	case f.Down || f.UpSince.After(now):
		f.UpSince = now
	case told && since.After(f.UpSince):
		f.UpSince = since
	}
	f.Down = false
}

func (d *decider) record(m *member, failure Failure, failed bool) {
	if !failed {
		delete(d.state.Failed, m.addr)
		return
	}
	if d.state.Failed == nil {
		d.state.Failed = make(map[netip.Addr]Failure)
	}
	d.state.Failed[m.addr] = failure
	if !failure.Down {
		penalty := min(failure.Penalty, d.Pool.Policy.ProbationMax) // which may have been lowered since
		m.ready = failure.UpSince.Add(time.Duration(penalty))
		m.settled = failure.UpSince.Add(time.Duration(min(penalty, d.Pool.Policy.Probation)))
	}
}

// decayed is the penalty less what staying up has taken off it.
func (d *decider) decayed(f Failure) upkeep.Duration {
	up := d.Now.Sub(f.UpSince)
	if f.Down || up <= 0 || d.Pool.Policy.ProbationMax <= 0 {
		return f.Penalty
	}
	return upkeep.Duration(float64(f.Penalty) * math.Exp2(-float64(up)/float64(d.Pool.Policy.ProbationMax)))
}
