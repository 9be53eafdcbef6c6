package failover

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"upkeep"
)

// conclude carries the decision into words and into the state of the next one.
func (d *decider) conclude() Decision {
	set := d.published()
	out := Decision{
		Published: set, TTL: d.ttl(), Wake: d.wake,
		Open:    d.four.open || d.six.open,
		Members: make([]MemberDecision, len(d.members)),
	}
	for i := range d.members {
		m := &d.members[i]
		f := d.family(m.addr)
		out.Members[i].Published = m.publish
		out.Members[i].Reason, out.Members[i].Next = d.explain(m, f)
	}
	out.Reason, out.Next = d.reason(), d.next()
	out.Change = d.change(set, out)
	out.Changed = out.Change != ""

	s := &d.state
	s.Open4, s.Open6 = d.four.open, d.six.open
	d.rememberRemovals()
	s.Good = d.good()
	s.Published, s.TTL = set, out.TTL
	if out.Changed {
		s.ChangedAt, s.Change = d.Now, out.Change
	}
	out.State = *s
	return out
}

// ttl is the pool's, or the degraded one while a member is down. While nothing
// is decided it stays as it was, if it is still one of the two.
func (d *decider) ttl() upkeep.Duration {
	p := d.Pool
	keeps := d.four.mode == frozen || d.six.mode == frozen || d.four.mode == starting || d.six.mode == starting
	if before := d.State.TTL; keeps && before != 0 && (before == p.TTL || before == p.DegradedTTL) {
		return before
	}
	down := slices.ContainsFunc(d.members, func(m member) bool { return m.Verdict == upkeep.Down && !m.out() })
	if d.four.open || d.six.open || down && !keeps {
		return p.DegradedTTL
	}
	return p.TTL
}

func (d *decider) rememberRemovals() {
	for i := range d.members {
		m := &d.members[i]
		switch {
		case m.publish:
			delete(d.state.Removed, m.addr)
		case m.was && !m.out() && m.Verdict == upkeep.Down:
			if d.state.Removed == nil {
				d.state.Removed = make(map[netip.Addr]time.Time)
			}
			d.state.Removed[m.addr] = d.Now
		}
	}
}

// good is the last set of each family that was published by health.
func (d *decider) good() []netip.Addr {
	before := make(map[netip.Addr]bool, len(d.state.Good))
	for _, a := range d.state.Good {
		before[a] = true
	}
	var good []netip.Addr
	for i := range d.members {
		m := &d.members[i]
		if d.family(m.addr).mode == byHealth && m.publish || d.family(m.addr).mode != byHealth && before[m.addr] {
			good = append(good, m.addr)
		}
	}
	return good
}

// change says what is different from the last decision, and why.
func (d *decider) change(set []netip.Addr, out Decision) string {
	if !d.State.ChangedAt.IsZero() && slices.Equal(d.State.Published, set) && d.State.TTL == out.TTL {
		return ""
	}
	now := make(map[netip.Addr]bool, len(set))
	var added, removed []string
	reasons := make(map[netip.Addr]string)
	for i := range d.members {
		reasons[d.members[i].addr] = out.Members[i].Reason
	}
	for _, a := range set {
		now[a] = true
		if !d.was[a] {
			added = append(added, describe(a, reasons, "it is in the policy's fixed set"))
		}
	}
	for _, a := range d.State.Published {
		if !now[a] {
			why := "it is no member any more"
			if slices.Contains(d.Pool.Policy.Fixed, a) {
				why = "the policy's fixed set is needed no more"
			}
			removed = append(removed, describe(a, reasons, why))
		}
	}
	var parts []string
	if len(removed) > 0 {
		parts = append(parts, "removed "+list(removed))
	}
	if len(added) > 0 {
		parts = append(parts, "added "+list(added))
	}
	switch {
	case len(parts) > 0:
	case d.State.ChangedAt.IsZero():
		parts = append(parts, "nothing to publish yet: "+out.Reason)
	default:
		parts = append(parts, fmt.Sprintf("TTL changed from %s to %s: %s", d.State.TTL, out.TTL, out.Reason))
	}
	return strings.Join(parts, "; ")
}

func describe(a netip.Addr, reasons map[netip.Addr]string, otherwise string) string {
	if reason := reasons[a]; reason != "" {
		return fmt.Sprintf("%s (%s)", a, reason)
	}
	return fmt.Sprintf("%s (%s)", a, otherwise)
}

// list joins the first few of what may be thousands.
func list(items []string) string {
	const most = 5
	if len(items) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(items[:most], ", "), len(items)-most)
	}
	return strings.Join(items, ", ")
}

// reason says why this set is published.
func (d *decider) reason() string {
	var parts []string
	for _, f := range []*family{&d.four, &d.six} {
		if len(f.members) == 0 {
			continue
		}
		text := d.familyReason(f)
		if len(d.four.members) > 0 && len(d.six.members) > 0 {
			text = f.name + ": " + text
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func (d *decider) familyReason(f *family) string {
	count := fmt.Sprintf("%d of %s up", f.up, upkeep.Plural(f.total, "member is", "members are"))
	if f.total == 0 {
		count = "there are only backups"
	} else if f.need > 1 {
		count += fmt.Sprintf(" where the policy asks for %d", f.need)
	}
	if n := f.byHandAlone(); n > 0 {
		count += fmt.Sprintf(", %d of them by hand alone", n)
	}
	switch f.mode {
	case allOut:
		if len(f.extra) > 0 {
			return "every member was taken out by hand: the policy's fixed set is published"
		}
		return "every member was taken out by hand: nothing is published"
	case frozen:
		return "frozen, the last published set stays: " + d.Freeze
	case starting:
		known := 0
		for _, m := range f.members {
			if m.Verdict != upkeep.Unknown {
				known++
			}
		}
		kept := "the last published set stays"
		if len(d.State.Published) == 0 {
			kept = "every member is published"
			if d.Pool.Policy.FailOpen == upkeep.FailOpenNone {
				kept = "members are published once they are known to be up"
			}
		}
		return fmt.Sprintf("the first round of checks is not in, %d of %d known: %s", known, len(f.members), kept)
	case onBackups:
		if f.up > 0 {
			count += ", on probation"
		}
		return count + ": the backups are published"
	case waived:
		return count + ", all of them on probation, which is waived because nothing else is left"
	case failOpen:
		return d.openReason(f, count)
	}
	return count + d.waiting(f)
}

// waiting says how many members count as up and are not published yet because
// they are on probation, "" when none is.
func (d *decider) waiting(f *family) string {
	n, first := 0, time.Duration(0)
	for _, m := range f.members {
		if m.backup || m.publish || m.out() || m.Verdict != upkeep.Up || d.past(m.ready) {
			continue
		}
		if left := m.ready.Sub(d.Now); n == 0 || left < first {
			first = left
		}
		n++
	}
	switch n {
	case 0:
		return ""
	case 1:
		return ", 1 of them on probation for another " + short(first)
	}
	return fmt.Sprintf(", %d of them on probation, the first for another %s", n, short(first))
}

// byHandAlone is the number of members, backups apart, that count as up because
// they are forced up and not by their checks.
func (f *family) byHandAlone() int {
	n := 0
	for _, m := range f.members {
		if m.forced() && !m.backup && m.Verdict != upkeep.Up {
			n++
		}
	}
	return n
}

func (d *decider) openReason(f *family, count string) string {
	if f.up >= f.need {
		count += fmt.Sprintf(", but not all of them for %s yet", d.Pool.Policy.Probation)
	}
	switch d.Pool.Policy.FailOpen {
	case upkeep.FailOpenNone:
		return count + ": nothing is published, as the policy says (fail_open: none)"
	case upkeep.FailOpenFixed:
		if len(f.extra) > 0 || f.any() {
			return count + ": failing open to the fixed set of the policy (fail_open: fixed)"
		}
	case upkeep.FailOpenLast:
		return count + ": failing open to the last good set (fail_open: last)"
	}
	return count + ": failing open to all members (fail_open: all)"
}

// next says what would change the published set.
func (d *decider) next() string {
	switch {
	case d.Freeze != "":
		return "the freeze ends when its reason does, or when a person releases it"
	case !d.state.Round:
		return "the first round of checks decides, at the latest in " + short(d.wake.Sub(d.Now))
	}
	var parts []string
	if d.held > 0 {
		parts = append(parts, fmt.Sprintf("%s join in the next add window", upkeep.Plural(d.held, "member", "members")))
	}
	for _, f := range []*family{&d.four, &d.six} {
		if len(f.members) == 0 {
			continue
		}
		text := ""
		switch f.mode {
		case allOut:
			text = "a member that is released by hand"
		case failOpen:
			if d.Pool.Policy.FailOpen == upkeep.FailOpenNone {
				text = upkeep.Plural(f.need, "member", "members") + " up would be published"
				break
			}
			text = fmt.Sprintf("%s up for %s ends failing open", upkeep.Plural(f.need, "member", "members"), d.Pool.Policy.Probation)
		case onBackups:
			text = "a member that comes up and passes its probation replaces the backups"
		default:
			text = d.nextByHealth(f)
		}
		if len(d.four.members) > 0 && len(d.six.members) > 0 {
			text = f.name + ": " + text
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func (d *decider) nextByHealth(f *family) string {
	what := "fail open"
	switch {
	case slices.ContainsFunc(f.members, func(m *member) bool { return m.backup && m.up && !m.out() }):
		what = "bring in the backups"
	case d.Pool.Policy.FailOpen == upkeep.FailOpenNone:
		what = "leave nothing published"
	}
	return fmt.Sprintf("any change of a verdict; %s down would %s", upkeep.Plural(max(1, f.up-f.need+1), "more member", "more members"), what)
}

// explain says why one member is published or not, and what would change that.
func (d *decider) explain(m *member, f *family) (reason, next string) {
	verdict := m.Verdict.String()
	if m.Reason != "" {
		verdict += ": " + m.Reason
	}
	switch {
	case m.out() && m.Admin == upkeep.AdminDrain:
		return "drained by hand; by its checks " + verdict, "undrain brings it back"
	case m.out():
		return "taken down by hand; by its checks " + verdict, "releasing it by hand leaves it to its checks"
	case m.left == leftByCap:
		return fmt.Sprintf("%s; left out because %d addresses at one name is the most that name servers take", verdict, upkeep.MaxAnswer),
			"it steps in when a published member leaves"
	case m.left == leftByWindow:
		return verdict + "; waits for the next add window", "joins in " + short(d.wake.Sub(d.Now))
	case m.forced():
		return "forced up by hand; by its checks " + verdict, "releasing it by hand leaves it to its checks"
	case f.mode == frozen || f.mode == starting:
		return d.explainKept(m, f, verdict), m.Next
	case m.publish:
		return d.explainPublished(m, f, verdict), m.Next
	}
	return d.explainAbsent(m, f, verdict)
}

func (d *decider) explainKept(m *member, f *family, verdict string) string {
	why := "the first round of checks is not in"
	if f.mode == frozen {
		why = "the pool is frozen"
	}
	switch {
	case m.publish && m.was:
		return verdict + "; stays published while " + why
	case m.publish && f.mode == frozen:
		return verdict + "; published again because " + why
	case m.publish:
		return verdict + "; published while " + why
	}
	return verdict + "; not added while " + why
}

func (d *decider) explainPublished(m *member, f *family, verdict string) string {
	switch {
	case f.mode == failOpen && m.Verdict != upkeep.Up:
		return verdict + "; published because the pool fails open"
	case f.mode == waived && !m.was:
		return verdict + "; on probation, which is waived because nothing else is left"
	case m.Verdict == upkeep.Unknown && !m.was:
		return verdict + "; published until it is known, because it replaces what was published"
	case m.Verdict == upkeep.Unknown:
		return verdict + "; stays published until it is known"
	}
	return verdict
}

func (d *decider) explainAbsent(m *member, f *family, verdict string) (reason, next string) {
	switch {
	case m.Verdict == upkeep.Unknown:
		return verdict + "; waits until it is known", m.Next
	case m.backup && m.Verdict == upkeep.Up && f.mode != failOpen:
		return verdict + "; a backup, which waits while others are left", "published when no other member is left"
	case m.Verdict == upkeep.Up && !d.past(m.ready):
		left := short(m.ready.Sub(d.Now))
		return fmt.Sprintf("%s; on probation for another %s because it failed", verdict, left), "published if it stays up for " + left
	case m.Verdict == upkeep.Up:
		return verdict + "; not in the fail-open set", m.Next
	}
	return verdict, m.Next
}
