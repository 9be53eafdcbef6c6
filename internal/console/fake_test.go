package console

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api"
	"upkeep/internal/store"
)

// fake is what the pages are made from, in memory. That the real parts fit is
// tested with the real process, in cmd/upkeep.
type fake struct {
	mu     sync.Mutex
	pools  []upkeep.PoolStatus
	zones  []upkeep.ZoneStatus
	events []upkeep.Event
	news   []chan upkeep.Event
	forced []string
	store  *store.Store // where events are read, if it is not nil
	asked  atomic.Int64 // how often all pools were
	tried  int          // receivers
	untold error        // what becomes of that
}

var discard = slog.New(slog.DiscardHandler)

func (f *fake) Pools(context.Context) ([]upkeep.PoolStatus, error) {
	f.asked.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]upkeep.PoolStatus(nil), f.pools...), nil
}

func (f *fake) Pool(_ context.Context, name string) (upkeep.PoolStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pools {
		if p.Name == name {
			return p, nil
		}
	}
	return upkeep.PoolStatus{}, fmt.Errorf("pool %s: %w", name, upkeep.ErrNotFound)
}

func (f *fake) Zones(context.Context) ([]upkeep.ZoneStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.zones, nil
}

func (f *fake) Budget(context.Context, string) (upkeep.Budget, error) {
	return upkeep.Budget{}, nil
}

// Latency is an hour in which each member answered faster and faster, but for one slot
// without an answer and one with a slow one.
func (f *fake) Latency(_ context.Context, pool string, members []netip.Addr) ([]upkeep.Latency, error) {
	all := make([]upkeep.Latency, len(members))
	for i, address := range members {
		all[i] = upkeep.Latency{Address: address, Min: upkeep.Duration(100 * time.Microsecond), Median: upkeep.Duration(400 * time.Microsecond), Max: upkeep.Duration(90 * time.Millisecond), Slot: upkeep.Duration(2 * time.Minute)}
		for slot := range 30 {
			s := upkeep.LatencySlot{At: past(time.Duration(29-slot) * 2 * time.Minute), Min: upkeep.Duration(100 * time.Microsecond), Median: upkeep.Duration(time.Duration(40-slot) * 20 * time.Microsecond), Max: upkeep.Duration(time.Millisecond)}
			if slot == 20 {
				s.Max = all[i].Max
			}
			if slot != 10 {
				all[i].Slots = append(all[i].Slots, s)
			}
		}
	}
	return all, nil
}

func (f *fake) Events(ctx context.Context, filter store.EventFilter) ([]upkeep.Event, error) {
	if f.store != nil {
		return f.store.Events(ctx, filter)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []upkeep.Event
	for _, e := range f.events {
		if api.Matches(e, filter) && !e.At.Before(filter.Since) && (filter.Before == 0 || e.ID < filter.Before) && e.ID > filter.After {
			found = append(found, e)
		}
	}
	if filter.Latest && len(found) > filter.Limit {
		found = found[len(found)-filter.Limit:]
	}
	return found[:min(len(found), filter.Limit)], nil
}

func (f *fake) Subscribe() (<-chan upkeep.Event, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan upkeep.Event, 8)
	f.news = append(f.news, c)
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.news = slices.DeleteFunc(f.news, func(one chan upkeep.Event) bool { return one == c })
	}
}

// change changes what is, and tells those who listen.
func (f *fake) change(g func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g()
	for _, c := range f.news {
		c <- upkeep.Event{}
	}
}

// handler is the console behind the API's own door, as in real life.
func handler(t *testing.T, f *fake) http.Handler {
	t.Helper()
	log := discard
	c, err := New(Options{Observer: f, Recorder: f, Log: log, Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	a, err := api.New(api.Options{Observer: f, Recorder: f, Log: log, Page: c})
	if err != nil {
		t.Fatal(err)
	}
	return a.Public()
}

// past is a time so long ago.
func past(d time.Duration) time.Time { return time.Now().Add(-d) }

// member is a healthy one.
func member(address string) upkeep.MemberStatus {
	return upkeep.MemberStatus{Address: netip.MustParseAddr(address), Target: address, Verdict: upkeep.Up, Admin: upkeep.AdminAuto, Published: true,
		Reason: "up: answered the last 21,604 checks", ChangedAt: past(31 * time.Hour), LastOK: past(400 * time.Millisecond),
		LastProbe: past(400 * time.Millisecond), RTT: upkeep.Duration(412 * time.Microsecond)}
}

// pool is one whose members are all well.
func pool(name string, members ...upkeep.MemberStatus) upkeep.PoolStatus {
	p := upkeep.PoolStatus{Name: name, Generation: 3, TTL: upkeep.Duration(time.Minute), ChangedAt: past(31 * time.Hour), Members: members,
		Zones: []upkeep.ZoneStatus{zoneOf("example.test")}}
	for _, m := range members {
		if m.Published {
			p.Published = append(p.Published, m.Address)
		}
	}
	p.Reason = fmt.Sprintf("%d of %d members are up and published.", len(p.Published), len(members))
	return p
}

func zoneOf(name string) upkeep.ZoneStatus {
	return upkeep.ZoneStatus{Name: name, Serial: 1795465266, PublishedAt: past(2 * time.Minute),
		Publishers: []upkeep.PublisherStatus{{Type: "bind", Serial: 1795465266, At: past(2 * time.Minute)}},
		Servers: []upkeep.ServerStatus{
			{Address: "192.0.2.53:53", Serial: 1795465266, InSync: true, Lag: upkeep.Duration(24 * time.Millisecond), AskedAt: past(3 * time.Second)},
			{Address: "[2001:db8::53]:53", Serial: 1795465266, InSync: true, Lag: upkeep.Duration(181 * time.Millisecond), AskedAt: past(3 * time.Second)},
		}}
}

// typical is an ordinary day: one member down, one being worked on.
func typical() *fake {
	f := &fake{zones: []upkeep.ZoneStatus{zoneOf("example.test")}}
	a, b, c, d := member("192.0.2.11"), member("192.0.2.12"), member("192.0.2.13"), member("2001:db8::11")
	c.Verdict, c.Published, c.ChangedAt, c.LastOK = upkeep.Down, false, past(134*time.Second), past(135*time.Second)
	c.Reason = "down: 4 probes in 310 ms were dropped; on this path that happens by chance once in 61 years"
	c.Next = "After it answers again, up for 40 s on probation: it failed twice in the last hour."
	d.RTT, d.Loss = upkeep.Duration(14200*time.Microsecond), 0.012
	web := pool("web", a, b, c, d)
	web.ChangedAt, web.Failover = past(134*time.Second), upkeep.Duration(742*time.Millisecond)
	web.Next = "192.0.2.13 joins again when it has been up for 40 s."
	m1, m2 := member("192.0.2.21"), member("192.0.2.22")
	m2.Admin, m2.Published, m2.Reason, m2.AdminWho, m2.AdminWhy = upkeep.AdminDrain, false, "drained by hand; by its checks up", "uid 1000 (ada)", "new kernel"
	m2.Warning = "the certificate ends in 9 days"
	mail := pool("mail", m1, m2)
	static := pool("static", member("198.51.100.7"), member("198.51.100.8"))
	f.pools = []upkeep.PoolStatus{mail, static, web}
	add := func(ago time.Duration, kind, who, object, what, why string) {
		f.events = append(f.events, upkeep.Event{ID: int64(len(f.events) + 1), At: past(ago), Kind: kind, Who: who, Object: object, What: what, Why: why})
	}
	add(30*time.Hour, upkeep.EventSystem, "upkeep", "upkeep", "started", "")
	add(30*time.Hour, upkeep.EventVerdict, "upkeep", "pool/web/192.0.2.13", "up", "5 good probes")
	add(29*time.Hour, upkeep.EventDeclared, "uid 1000 (ada)", "pool/web", "changed to generation 3", "")
	add(3*time.Hour, upkeep.EventVerdict, "upkeep", "pool/web/192.0.2.13", "down", "connection refused")
	add(170*time.Minute, upkeep.EventVerdict, "upkeep", "pool/web/192.0.2.13", "up", "5 good probes")
	add(80*time.Minute, upkeep.EventAdmin, "uid 1000 (ada)", "pool/mail/192.0.2.22", "drain", "new kernel")
	add(134*time.Second, upkeep.EventVerdict, "upkeep", "pool/web/192.0.2.13", "down", "4 probes in 310 ms were dropped")
	add(134*time.Second, upkeep.EventDecision, "upkeep", "pool/web", "publishing 3 of 4: 192.0.2.11, 192.0.2.12, 2001:db8::11", "192.0.2.13 is down")
	add(133*time.Second, upkeep.EventPublish, "upkeep", "zone/example.test", "serial 1795465266 published by bind", "")
	add(133*time.Second, upkeep.EventProof, "upkeep", "zone/example.test", "every server answers serial 1795465266, 181ms after it was published", "pool web: 742ms after the last good probe of the member that left")
	return f
}

// healthy is a day without trouble.
func healthy() *fake {
	return &fake{zones: []upkeep.ZoneStatus{zoneOf("example.test")}, pools: []upkeep.PoolStatus{pool("web", member("192.0.2.11"), member("192.0.2.12"), member("192.0.2.13"))},
		events: []upkeep.Event{{ID: 1, At: past(31 * time.Hour), Kind: upkeep.EventSystem, Who: "upkeep", Object: "upkeep", What: "started"}}}
}

// broken is a bad day: frozen, name servers behind, publishing fails.
func broken() *fake {
	f := typical()
	z := zoneOf("example.test")
	z.Publishers[0].Error, z.Publishers[0].Hint = "rndc: connect failed: 127.0.0.1#953: connection refused", "is named running? systemctl status named"
	z.Servers[1].InSync, z.Servers[1].Serial, z.Servers[1].Lag = false, 1795465201, 0
	z.Servers = append(z.Servers, upkeep.ServerStatus{Address: "ns3.example.net:53", Error: "read udp 192.0.2.1:41022->198.51.100.3:53: i/o timeout", AskedAt: past(2 * time.Second)})
	f.zones = []upkeep.ZoneStatus{z}
	for i := range f.pools {
		f.pools[i].Zones = f.zones
		f.pools[i].Frozen = "none of the anchors 192.0.2.1 and 198.51.100.1 answers, so this machine itself is cut off"
	}
	return f
}

// crowded has a thousand pools, every fortieth in trouble, and one with 5,000 members.
func crowded() *fake {
	f := &fake{}
	for i := range 1000 {
		var members []upkeep.MemberStatus
		for j := range 5 {
			m := member(fmt.Sprintf("10.%d.%d.%d", i/250, i%250, j+1))
			if i%40 == 0 && j < 1+i/400 {
				m.Verdict, m.Published, m.Reason, m.ChangedAt = upkeep.Down, false, "down: connection refused", past(time.Duration(i+1)*time.Minute/4)
			}
			members = append(members, m)
		}
		f.pools = append(f.pools, pool(fmt.Sprintf("customer-%04d", i), members...))
	}
	var many []upkeep.MemberStatus
	for i := range 5000 {
		m := member(fmt.Sprintf("10.200.%d.%d", i/250, i%250))
		if i%500 == 7 {
			m.Verdict, m.Published, m.Reason = upkeep.Down, false, "down: no answer within 500ms, "+strings.Repeat("again and ", 12)+"again"
		}
		many = append(many, m)
	}
	f.pools = append(f.pools, pool("anycast-of-everything-that-has-a-really-long-name-for-a-pool-ok", many...))
	for i := range 4000 {
		f.events = append(f.events, upkeep.Event{ID: int64(i + 1), At: past(time.Duration(4000-i) * 20 * time.Second), Kind: upkeep.EventVerdict, Who: "upkeep",
			Object: fmt.Sprintf("pool/customer-%04d/10.0.0.1", i%40*40), What: []string{"down", "up"}[i%2], Why: "connection refused"})
	}
	return f
}

func (f *fake) Force(_ context.Context, who string, o upkeep.Override, all bool) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forced = append(f.forced, fmt.Sprintf("%s forces %s/%s %s (%s), all %v", who, o.Pool, o.Member, o.State, o.Why, all))
	return nil, nil
}

func (f *fake) Release(_ context.Context, who, pool, member string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forced = append(f.forced, fmt.Sprintf("%s releases %s/%s", who, pool, member))
	return nil, nil
}

func (f *fake) Drained(context.Context, string, string) (bool, string, error) {
	return false, "the old TTL, 12s more", nil
}

func (f *fake) Unfreeze(context.Context, string) error { return nil }

func (f *fake) Renumber(context.Context, string, string) (uint32, bool, string, error) {
	return 7, true, "", nil
}

func (f *fake) Test(context.Context, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried++
	return f.untold
}
