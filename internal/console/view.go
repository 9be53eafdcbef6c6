package console

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"upkeep"
)

// moment is a time as pages show it: how long ago, with the exact time beside.
type moment struct {
	Known  bool
	Ago    string
	Exact  string
	Stamp  string // for scripts
	Future bool
}

func at(t, now time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	m := moment{Known: true, Exact: t.Local().Format("2006-01-02 15:04:05 MST"), Stamp: t.UTC().Format(time.RFC3339Nano)}
	m.Ago = length(now.Sub(t)) + " ago"
	if now.Sub(t) < time.Second {
		m.Ago = "just now"
	}
	return m
}

// poolView is a pool as pages show it.
type poolView struct {
	upkeep.PoolStatus
	Path     string
	Changed  moment
	Trouble  []string // what needs a look, a few words each
	Members  []memberView
	Hidden   int // members that are left out
	Down     int
	Total    int
	Servers  []serverView
	Synced   int // of Servers, how many answer what was published
	Took     string
	Strip    strip
	Strips   bool
	Compared string // "2 of 3"
}

type memberView struct {
	upkeep.MemberStatus
	ID      string
	State   string // up, down or unknown
	Forced  string // up, down or drain
	Since   moment
	RTT     string
	LossPct string
	Spark   *spark // where it is drawn
	Drain   string // how far the drain of a drained one has come, where that is asked
	Strip   strip
	Elsew   string // where it is checked, if not at its address
	Probed  moment
	Trouble bool
}

type serverView struct {
	Address, Serial, Want string
	InSync                bool
	Error                 string
	Lag                   string
	Asked                 moment
}

// trouble lists what needs a look in a pool, most pressing first.
func trouble(p upkeep.PoolStatus) []string {
	var found []string
	if p.Frozen != "" {
		found = append(found, "frozen")
	}
	if len(p.Published) == 0 {
		found = append(found, "publishes nothing")
	}
	down, unknown, forced := 0, 0, 0
	for _, m := range p.Members {
		switch {
		case m.Verdict == upkeep.Down:
			down++
		case m.Verdict == upkeep.Unknown:
			unknown++
		}
		if m.Admin != upkeep.AdminAuto && m.Admin != "" {
			forced++
		}
	}
	for _, kind := range []struct {
		n    int
		what string
	}{{down, "down"}, {unknown, "not known yet"}, {forced, "forced"}} {
		if kind.n > 0 {
			found = append(found, fmt.Sprintf("%d %s", kind.n, kind.what))
		}
	}
	behind, failing := 0, 0
	for _, zone := range p.Zones {
		for _, s := range zone.Servers {
			if !s.InSync {
				behind++
			}
		}
		for _, pub := range zone.Publishers {
			if pub.Error != "" {
				failing++
			}
		}
	}
	if failing > 0 {
		found = append(found, "publishing fails")
	}
	if behind > 0 {
		found = append(found, plural(behind, "name server")+" behind")
	}
	return found
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// history is verdict events by object, oldest first.
type history map[string][]upkeep.Event

// viewPool prepares a pool; members beyond limit are left out from the offset
// on, and those that need a look come first when any is left out.
func viewPool(p upkeep.PoolStatus, h history, now time.Time, offset, limit int) poolView {
	v := poolView{PoolStatus: p, Path: "/pools/" + url.PathEscape(p.Name), Changed: at(p.ChangedAt, now), Trouble: trouble(p), Total: len(p.Members)}
	v.Compared = fmt.Sprintf("%d of %d", len(p.Published), len(p.Members))
	if p.Failover > 0 {
		v.Took = time.Duration(p.Failover).Round(time.Millisecond).String()
	}
	from := now.Add(-window)
	members := make([]memberView, len(p.Members))
	all := make([][]span, len(p.Members))
	for i, m := range p.Members {
		all[i] = spans(h["pool/"+p.Name+"/"+m.Address.String()], from, now, m.Verdict, m.ChangedAt)
		members[i] = viewMember(m, now)
		if m.Verdict == upkeep.Down {
			v.Down++
		}
	}
	v.Strip = drawPool(all, from, now)
	order := make([]int, len(members))
	for i := range order {
		order[i] = i
	}
	if len(members) > limit {
		slices.SortStableFunc(order, func(a, b int) int { return rank(members[a]) - rank(members[b]) })
	}
	order = order[min(offset, len(order)):]
	if len(order) > limit {
		v.Hidden, order = len(order)-limit, order[:limit]
	}
	for _, i := range order {
		members[i].Strip = draw(all[i], from, now)
		v.Members = append(v.Members, members[i])
	}
	for _, zone := range p.Zones {
		for _, s := range zone.Servers {
			v.Servers = append(v.Servers, viewServer(zone, s, now))
			if s.InSync {
				v.Synced++
			}
		}
	}
	return v
}

// rank puts what needs a look before what does not.
func rank(m memberView) int {
	switch {
	case m.Verdict == upkeep.Down:
		return 0
	case m.Forced != "":
		return 1
	case m.Verdict == upkeep.Unknown:
		return 2
	case m.Warning != "":
		return 3
	}
	return 4
}

func viewMember(m upkeep.MemberStatus, now time.Time) memberView {
	v := memberView{MemberStatus: m, ID: anchor(m.Address.String()), State: m.Verdict.String(), Since: at(m.ChangedAt, now), Probed: at(m.LastProbe, now)}
	if m.Admin != upkeep.AdminAuto {
		v.Forced = m.Admin
	}
	if m.RTT > 0 {
		v.RTT = roundTrip(time.Duration(m.RTT))
	}
	if m.Loss >= 0.0005 {
		v.LossPct = fmt.Sprintf("%.1f %%", 100*m.Loss)
	}
	if m.Target != m.Address.String() {
		v.Elsew = m.Target
	}
	v.Trouble = m.Verdict == upkeep.Down || v.Forced == upkeep.AdminDown || v.Forced == upkeep.AdminDrain
	return v
}

func roundTrip(d time.Duration) string {
	if d < time.Millisecond {
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
}

func viewServer(zone upkeep.ZoneStatus, s upkeep.ServerStatus, now time.Time) serverView {
	v := serverView{Address: s.Address, InSync: s.InSync, Error: s.Error, Asked: at(s.AskedAt, now)}
	if s.Serial != 0 {
		v.Serial = fmt.Sprint(s.Serial)
	}
	if zone.Serial != 0 {
		v.Want = fmt.Sprint(zone.Serial)
	}
	if s.Lag > 0 {
		v.Lag = time.Duration(s.Lag).Round(time.Millisecond).String()
	}
	return v
}

// zoneView is what is published in a zone, apart from any pool.
type zoneView struct {
	Name       string
	Path       string // of its page, where there is a link to it
	Serial     string
	Publishers []publisherView
	Servers    []serverView
}

type publisherView struct {
	upkeep.PublisherStatus
	When moment
}

func viewZones(zones []upkeep.ZoneStatus, now time.Time) []zoneView {
	var views []zoneView
	for _, z := range zones {
		v := zoneView{Name: z.Name}
		if z.Serial != 0 {
			v.Serial = fmt.Sprint(z.Serial)
		}
		for _, p := range z.Publishers {
			v.Publishers = append(v.Publishers, publisherView{p, at(p.At, now)})
		}
		for _, s := range z.Servers {
			v.Servers = append(v.Servers, viewServer(z, s, now))
		}
		views = append(views, v)
	}
	return views
}

// eventView is an event as the log shows it.
type eventView struct {
	upkeep.Event
	When    moment
	Path    string
	Trouble bool
	ByHand  bool
}

func viewEvents(events []upkeep.Event, now time.Time, staff bool) []eventView {
	views := make([]eventView, 0, len(events))
	for _, e := range slices.Backward(events) { // the newest first
		views = append(views, eventView{Event: e, When: at(e.At, now), Path: pathOf(e.Object, staff), ByHand: e.Who != "" && e.Who != "upkeep",
			Trouble: e.Kind == upkeep.EventVerdict && e.What == upkeep.Down.String() || e.Kind == upkeep.EventWarning})
	}
	return views
}

// headline says in one sentence how things are, and names the pools that need a look.
func headline(pools []poolView) (sentence string, look []poolView) {
	members := 0
	for _, p := range pools {
		members += p.Total
		if len(p.Trouble) > 0 {
			look = append(look, p)
		}
	}
	switch {
	case len(pools) == 0:
		return "Nothing is declared yet.", nil
	case len(look) == 0 && len(pools) == 1:
		return fmt.Sprintf("All is well: %s publishes every one of its %s.", pools[0].Name, plural(members, "member")), nil
	case len(look) == 0:
		return fmt.Sprintf("All is well: %s publish every one of their %s.", plural(len(pools), "pool"), plural(members, "member")), nil
	case len(look) == 1 && len(pools) == 1:
		return fmt.Sprintf("%s needs a look.", look[0].Name), look
	case len(look) == 1:
		return fmt.Sprintf("1 of %d pools needs a look.", len(pools)), look
	}
	return fmt.Sprintf("%d of %d pools need a look.", len(look), len(pools)), look
}

// urgent sorts pools that need a look first, then by name.
func urgent(pools []upkeep.PoolStatus) {
	wrong := make(map[string]int, len(pools))
	for _, p := range pools {
		wrong[p.Name] = min(1, len(trouble(p)))
	}
	slices.SortStableFunc(pools, func(a, b upkeep.PoolStatus) int {
		return cmp.Or(wrong[b.Name]-wrong[a.Name], cmp.Compare(a.Name, b.Name))
	})
}

// chosen keeps the pools whose name holds q, and with wrong those that need a look.
func chosen(pools []upkeep.PoolStatus, q string, wrong bool) []upkeep.PoolStatus {
	return slices.DeleteFunc(slices.Clone(pools), func(p upkeep.PoolStatus) bool {
		return !strings.Contains(p.Name, strings.ToLower(q)) || wrong && len(trouble(p)) == 0
	})
}
