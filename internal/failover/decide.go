package failover

import (
	"maps"
	"math"
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
	// Both come from [Guard.Freeze]; without FreezeFrom nothing is taken back.
	Freeze     string
	FreezeFrom time.Time
	Now        time.Time
}

// MemberInput is what is known of one member.
type MemberInput struct {
	Verdict upkeep.Verdict
	Admin   string    // one of [upkeep.AdminStates]; anything else means auto
	Since   time.Time // of the verdict
	Reason  string    // of the verdict, from [Detector.Explain]
	Next    string
}

// PoolState is what a decision leaves for the next, also across a restart.
type PoolState struct {
	Published []netip.Addr    `json:"published,omitempty"`
	TTL       upkeep.Duration `json:"ttl,omitempty"`
	// ChangedAt and Change are the last change of what is published, and why.
	ChangedAt time.Time `json:"changed_at,omitzero"`
	Change    string    `json:"change,omitempty"`
	// AddedAt is the time of the last addition, for the add window.
	AddedAt time.Time `json:"added_at,omitzero"`
	// Good holds what was published while enough members were left.
	Good []netip.Addr `json:"good,omitempty"`
	// Open4 and Open6 say that the family fails open.
	Open4 bool `json:"open4,omitempty"`
	Open6 bool `json:"open6,omitempty"`
	// Failed holds the members that failed and are not forgiven yet.
	Failed map[netip.Addr]Failure `json:"failed,omitempty"`
	// Removed holds the latest removals for failure, which a freeze takes back.
	Removed map[netip.Addr]time.Time `json:"removed,omitempty"`

	// Round says that every member's verdict was known once since this process
	// started; RoundFrom is when waiting for that began. They are not written
	// down: after a restart the last published set stays until a new round is in.
	Round     bool      `json:"-"`
	RoundFrom time.Time `json:"-"`
}

// Decision is what a pool is to publish and why.
type Decision struct {
	Published []netip.Addr // sorted
	TTL       upkeep.Duration
	Changed   bool // Published or TTL differ from the last decision
	// Change says what changed and why; empty if and only if nothing changed.
	Change       string
	Reason, Next string
	// Open says that a family fails open: its members are published although
	// too few of them are up.
	Open    bool
	Members []MemberDecision // in the order of Pool.Members
	State   PoolState
	// Wake is when to decide again although nothing was heard; zero for never.
	Wake time.Time
}

// MemberDecision says whether a member is published and why.
type MemberDecision struct {
	Published    bool
	Reason, Next string
}

// Decide makes of the verdicts the set to publish. It depends on its input
// alone and changes nothing in it. IPv4 and IPv6 members are decided upon apart,
// by the first line that fits:
//
//	situation                                   published                        open
//	every member out by hand                    fixed set, if that is the policy
//	frozen, or first round not in yet           as before, and what a freeze     as before
//	                                            takes back
//	  ... and that is nothing                   frozen: those up; else the fail-open set
//	enough up, one of them past its probation   those up and past probation
//	none up or past probation, a backup up      the backups that are up
//	enough up, all on probation                 those up: probation is waived
//	too few up                                  the fail-open set                yes
//
// "By hand" is a layer above: a member forced up is always published, one taken
// down or drained never, not even when failing open. Unknown counts as it was:
// published members stay, others wait, but for those that replace all that was
// published. Failing open ends only when enough
// members have been up for the first probation, so that a lone member that
// comes and goes does not pull everything behind it. Additions are held to the
// add window unless something is published anyway; removals never wait.
func Decide(in PoolInput) Decision {
	d := newDecider(in)
	d.recordFailures()
	d.awaitRound()
	for _, f := range []*family{&d.four, &d.six} {
		if len(f.members) > 0 {
			d.choose(f)
			d.limit(f)
		}
	}
	d.holdAdditions()
	return d.conclude()
}

// decider holds one decision while it is made.
type decider struct {
	PoolInput
	state     PoolState // the new one
	members   []member
	four, six family
	was       map[netip.Addr]bool // published before
	wake      time.Time
	held      int // additions that wait for the add window
}

// family is the members of one address family.
type family struct {
	name    string
	is4     bool
	members []*member
	fixed   []netip.Addr // fail-open set of the policy that are not members
	extra   []netip.Addr // of these, published
	mode    mode
	total   int // members that count, without backups
	up      int // of these, up or unknown and published
	need    int
	open    bool
	backups int // backups that could be published
	// replaced says that all that was published is no member any more: the new
	// ones of which nothing is known take its place, even under fail_open: none.
	replaced bool
}

// mode is the line of the table that was taken.
type mode uint8

const (
	byHealth mode = iota
	allOut
	frozen
	starting
	onBackups
	waived
	failOpen
)

// member is one member while a decision is made about it.
type member struct {
	MemberInput
	addr    netip.Addr
	backup  bool
	was     bool      // published before
	up      bool      // counts as up
	ready   time.Time // end of its probation, zero when it is on none
	settled time.Time // the same with the first probation only, to leave failing open
	publish bool
	left    leftOut
	rank    uint64 // by which it is chosen when there are too many
}

// leftOut says why a member that is up is not published.
type leftOut uint8

const (
	notLeft leftOut = iota
	leftByCap
	leftByWindow
)

func newDecider(in PoolInput) *decider {
	d := &decider{
		PoolInput: in, state: in.State,
		members: make([]member, len(in.Pool.Members)),
		four:    family{name: "IPv4", is4: true, open: in.State.Open4},
		six:     family{name: "IPv6", open: in.State.Open6},
		was:     make(map[netip.Addr]bool, len(in.State.Published)),
	}
	d.state.Failed = maps.Clone(in.State.Failed)
	d.state.Removed = maps.Clone(in.State.Removed)
	for _, a := range in.State.Published {
		d.was[a] = true
	}
	known := make(map[netip.Addr]bool, len(in.Pool.Members))
	for i, m := range in.Pool.Members {
		c := &d.members[i]
		if i < len(in.Members) {
			c.MemberInput = in.Members[i]
		}
		c.addr, c.backup, c.was = m.Address, m.Backup, d.was[m.Address]
		known[m.Address] = true
		f := d.family(m.Address)
		f.members = append(f.members, c)
	}
	if in.Pool.Policy.FailOpen == upkeep.FailOpenFixed {
		for _, a := range in.Pool.Policy.Fixed {
			if !known[a] {
				f := d.family(a)
				f.fixed = append(f.fixed, a)
			}
		}
	}
	for _, a := range in.State.Published {
		if in.Pool.Policy.FailOpen != upkeep.FailOpenNone {
			break // the others fail open in this case
		}
		f := d.family(a)
		f.replaced = f.replaced || !known[a] && !slices.ContainsFunc(f.members, func(m *member) bool { return m.was })
	}
	return d
}

func (d *decider) family(a netip.Addr) *family {
	if a.Is4() {
		return &d.four
	}
	return &d.six
}

// out reports whether the member was taken out by hand.
func (m *member) out() bool { return m.Admin == upkeep.AdminDown || m.Admin == upkeep.AdminDrain }

// forced reports whether the member is published whatever its verdict.
func (m *member) forced() bool { return m.Admin == upkeep.AdminUp }

// awaitRound waits until each member was known once. It waits no longer than
// the checks need for that, so that one that never reports (a plugin that hangs,
// a name that does not resolve) does not keep all others from being decided upon.
func (d *decider) awaitRound() {
	if d.state.Round {
		return
	}
	if d.state.RoundFrom.IsZero() || d.state.RoundFrom.After(d.Now) {
		d.state.RoundFrom = d.Now
	}
	check := d.Pool.Check
	rounds := 3
	if !check.Adaptive() && !check.BurstOn() {
		rounds += check.Fall
	}
	deadline := d.state.RoundFrom.Add(max(10*time.Second, time.Duration(rounds)*time.Duration(check.Interval)))
	unknown := slices.ContainsFunc(d.members, func(m member) bool {
		return m.Verdict == upkeep.Unknown && !m.out() && !m.forced()
	})
	if !unknown || !d.Now.Before(deadline) {
		d.state.Round = true
		return
	}
	d.wakeAt(deadline)
}

func (d *decider) wakeAt(t time.Time) {
	if t.After(d.Now) && (d.wake.IsZero() || t.Before(d.wake)) {
		d.wake = t
	}
}

// choose decides on one family.
func (d *decider) choose(f *family) {
	if d.Pool.Policy.FailOpen == upkeep.FailOpenNone {
		f.open = false // there is no fail-open set to stay with
	}
	d.count(f)
	wasOpen := f.open
	switch {
	case !slices.ContainsFunc(f.members, func(m *member) bool { return !m.out() }):
		f.mode, f.open = allOut, false
		f.extra = f.fixed
	case d.Freeze != "":
		f.mode = frozen
		d.keep(f)
	case !d.state.Round:
		f.mode = starting
		d.keep(f)
	case d.enough(f):
		f.mode, f.open = byHealth, false
		for _, m := range f.members {
			m.publish = m.forced() || !m.backup && !m.out() && m.up && (m.was || d.past(m.ready) || wasOpen && d.past(m.settled))
		}
	case f.backups > 0:
		f.mode, f.open = onBackups, false
		d.publish(f, func(m *member) bool { return m.backup && m.up })
	case f.up >= f.need && !wasOpen:
		f.mode = waived
		d.publish(f, func(m *member) bool { return !m.backup && m.up })
	default:
		f.mode, f.open = failOpen, true
		d.failOpen(f)
	}
}

// count counts who is up, and how many are needed: ceil(fraction * members), and
// one at least. Members that were taken out by hand do not count: the rule
// distrusts checks that fail for too many, and a hand is no check. An unknown
// member counts as it was, but not while failing open: then all are published.
func (d *decider) count(f *family) {
	usable, left := 0, false
	for _, m := range f.members {
		m.up = m.forced() || m.Verdict == upkeep.Up || m.Verdict == upkeep.Unknown && (m.was || f.replaced) && !f.open
		switch {
		case m.out():
		case m.backup:
			if m.up {
				usable++
			}
		default:
			f.total++
			left = left || m.forced() || m.Verdict == upkeep.Up
			if m.up {
				f.up++
			}
		}
	}
	// The small number keeps 0.6*5, which is 3.0000000000000004, at three.
	f.need = max(1, int(math.Ceil(d.Pool.Policy.HealthyFraction*float64(f.total)-1e-9)))
	// When the others are not enough, backups wait while one of those is known
	// to be up: published, or, after failing open, about to settle.
	if !left || !f.open && !d.steady(f, 1) {
		f.backups = usable
	}
}

// enough reports whether the family can be published by health.
func (d *decider) enough(f *family) bool {
	if f.up < f.need {
		return false
	}
	if f.open {
		return d.steady(f, f.need)
	}
	return d.steady(f, 1)
}

// steady reports whether n members, backups apart, are up and can be relied on
// to be: past their probation, or, while failing open, past the first one.
func (d *decider) steady(f *family, n int) bool {
	for _, m := range f.members {
		if m.out() || m.backup || !m.up {
			continue
		}
		if m.forced() || d.past(m.settled) && f.open || !f.open && (m.was || d.past(m.ready)) {
			n--
		} else if f.open {
			d.wakeAt(m.settled)
		}
	}
	return n <= 0
}

func (d *decider) past(t time.Time) bool { return !t.After(d.Now) }

// publish publishes those that were forced up, and those that the rule takes
// and no hand has taken out.
func (d *decider) publish(f *family, rule func(*member) bool) {
	for _, m := range f.members {
		m.publish = m.forced() || !m.out() && rule(m)
	}
}

// any reports whether anything of the family is published.
func (f *family) any() bool {
	return len(f.extra) > 0 || slices.ContainsFunc(f.members, func(m *member) bool { return m.publish })
}

// keep publishes what was published before. A freeze takes back the removals
// that were made since its cause began: it is known too late, when the first
// members have been given up already. What is left of nothing fails open.
func (d *decider) keep(f *family) {
	d.publish(f, func(m *member) bool {
		removed, was := d.state.Removed[m.addr]
		return m.was || d.Freeze != "" && was && !d.FreezeFrom.IsZero() && !removed.Before(d.FreezeFrom)
	})
	if f.open {
		for _, a := range f.fixed {
			if d.was[a] {
				f.extra = append(f.extra, a)
			}
		}
	}
	if f.any() {
		return
	}
	if f.mode == frozen || d.Pool.Policy.FailOpen == upkeep.FailOpenNone {
		d.publish(f, func(m *member) bool {
			return !m.backup && (m.Verdict == upkeep.Up || f.replaced && m.Verdict == upkeep.Unknown)
		})
	}
	if !f.any() {
		d.failOpen(f)
	}
}

// failOpen publishes what the policy says for the case that too few are up.
func (d *decider) failOpen(f *family) {
	switch d.Pool.Policy.FailOpen {
	case upkeep.FailOpenNone:
		d.publish(f, func(m *member) bool { return false })
		return
	case upkeep.FailOpenFixed:
		if f.mode == failOpen || f.open {
			f.extra = f.fixed
			d.publish(f, func(m *member) bool { return slices.Contains(d.Pool.Policy.Fixed, m.addr) })
		}
	case upkeep.FailOpenLast:
		good := make(map[netip.Addr]bool, len(d.state.Good))
		for _, a := range d.state.Good {
			good[a] = true
		}
		d.publish(f, func(m *member) bool { return good[m.addr] })
	}
	if f.any() && d.Pool.Policy.FailOpen != upkeep.FailOpenAll {
		return
	}
	// Everybody; backups only when no other is known to be up, for they stand in
	// when no other is left.
	left := slices.ContainsFunc(f.members, func(m *member) bool {
		return !m.backup && !m.out() && (m.forced() || m.Verdict == upkeep.Up)
	})
	d.publish(f, func(m *member) bool { return !m.backup || !left && f.mode == failOpen })
	if !f.any() {
		d.publish(f, func(m *member) bool { return true })
	}
}
