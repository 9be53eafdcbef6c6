package console

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
	"upkeep/internal/store"
)

// How much a page holds.
const (
	fullPools     = 12  // up to so many pools are shown whole
	cardMembers   = 24  // members that a pool on the overview shows all of
	cardFew       = 6   // of a larger one, those that need a look first
	listedPools   = 100 // pools on a page of the list
	pageMembers   = 200 // members on a page of one pool
	cardEvents    = 25
	pageEvents    = 200
	historyEvents = 5000
	beforeEvents  = 300 // of a pool, from before the window
)

// recall is how far back verdict events are read: a member's state at the
// beginning of the window comes from what happened before it.
const recall = 7 * upkeep.Day

func (c *Console) history(ctx context.Context, object string, now time.Time) (history, error) {
	if object == "" {
		return c.verdicts.upToDate(ctx, c.o.Recorder, now)
	}
	filter := store.EventFilter{Object: object, Kind: upkeep.EventVerdict, Since: now.Add(-window), Limit: historyEvents, Latest: true}
	events, err := c.o.Recorder.Events(ctx, filter)
	if err != nil {
		return nil, err
	}
	// Of what was before, little is needed: how members were when the window began.
	filter.Since, filter.Limit = now.Add(-recall), beforeEvents
	if len(events) > 0 {
		filter.Before = events[0].ID
	}
	before, err := c.o.Recorder.Events(ctx, filter)
	if err != nil {
		return nil, err
	}
	h := history{}
	for _, e := range append(before, events...) {
		h[e.Object] = append(h[e.Object], e)
	}
	return h, nil
}

// verdicts is the history of all objects, kept so that a page reads only what is new.
type verdicts struct {
	mu   sync.Mutex
	last int64 // id of the last event in it
	all  []upkeep.Event
	by   history
}

func (v *verdicts) upToDate(ctx context.Context, from api.Recorder, now time.Time) (history, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	filter := store.EventFilter{Kind: upkeep.EventVerdict, Since: now.Add(-recall), Limit: historyEvents, After: v.last, Latest: v.last == 0}
	for {
		events, err := from.Events(ctx, filter)
		if err != nil {
			return nil, err
		}
		v.add(events)
		if filter.Latest || len(events) < historyEvents {
			break
		}
		filter.After = v.last
	}
	v.forget(now)
	return maps.Clone(v.by), nil
}

func (v *verdicts) add(events []upkeep.Event) {
	if v.by == nil {
		v.by = history{}
	}
	for _, e := range events {
		v.all = append(v.all, e)
		v.by[e.Object] = append(v.by[e.Object], e) // behind what others hold of it
		v.last = max(v.last, e.ID)
	}
}

// forget drops what is too old or too much, not for each event by itself.
func (v *verdicts) forget(now time.Time) {
	old := max(0, len(v.all)-historyEvents)
	for old < len(v.all) && v.all[old].At.Before(now.Add(-recall)) {
		old++
	}
	if old < historyEvents/10 {
		return
	}
	kept := slices.Clone(v.all[old:])
	v.all, v.by = nil, nil
	v.add(kept)
}

// past is the history of an object's verdicts and its latest events. lost means
// that they cannot be read at present, because the database is away: what is known
// now is shown all the same, for that is when people look.
func (c *Console) past(ctx context.Context, object string, now time.Time) (h history, events []upkeep.Event, lost bool) {
	patient, cancel := context.WithTimeout(ctx, historyPatience)
	defer cancel()
	h, err := c.history(patient, object, now)
	if err == nil {
		events, err = c.o.Recorder.Events(patient, store.EventFilter{Object: object, Of: api.Shown(ctx), Limit: cardEvents, Latest: true})
	}
	if err != nil {
		if ctx.Err() == nil { // who left the page misses nothing
			c.o.Log.Error("reading history for a page", "err", err)
		}
		return history{}, nil, true
	}
	return h, events, false
}

// historyPatience is how long a page waits for a database that hangs.
const historyPatience = 3 * time.Second

// pager leads to the neighbouring pages; empty paths have no neighbour.
type pager struct {
	Previous, Next string
	From, To, Of   int
}

// leaf is a page of size of n things, with paths made by setting "page" in query.
func leaf(n, size int, number int64, path string, query url.Values) (offset int, p pager) {
	last := int64((n + size - 1) / size)
	number = max(1, min(number, last))
	to := func(page int64) string {
		q := url.Values{}
		for name, values := range query {
			q[name] = values
		}
		q.Set("page", strconv.FormatInt(page, 10))
		return path + "?" + q.Encode()
	}
	offset = int(number-1) * size
	p = pager{From: min(offset+1, n), To: min(offset+size, n), Of: n}
	if number > 1 {
		p.Previous = to(number - 1)
	}
	if number < last {
		p.Next = to(number + 1)
	}
	return offset, p
}

type overviewView struct {
	Lost     bool // history cannot be read
	Headline string
	Well     bool
	Look     []poolView // named under the headline
	More     int        // how many more need a look
	Cards    []poolView // few pools, whole
	List     []poolView // or many, a line each
	Query    string
	Wrong    bool
	Pager    pager
	Zones    []zoneView
	Events   []eventView
	Empty    bool
	// Hosted is what needs a look beside pools, for staff.
	Hosted []hostedLine
}

// hostedLine says in a few words what needs a look, and leads to it.
type hostedLine struct {
	Path, Text string
	Wrong      bool
}

func (c *Console) overview(w http.ResponseWriter, r *http.Request) {
	ctx, now := r.Context(), c.o.Now()
	if c.o.Hosting != nil && access.From(ctx).Account != "" {
		http.Redirect(w, r, "/sites", http.StatusSeeOther) // what concerns a customer first
		return
	}
	pools, err := c.o.Observer.Pools(ctx)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	zones, err := c.o.Observer.Zones(ctx)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	h, events, lost := c.past(ctx, "", now)
	v := overviewView{Events: viewEvents(events, now, access.From(ctx).Staff), Lost: lost, Empty: len(pools) == 0 && len(zones) == 0}
	v.summarise(pools)
	v.Hosted = c.hosted(r)
	if len(pools) <= fullPools {
		for _, p := range pools {
			limit := cardMembers
			if len(p.Members) > cardMembers {
				limit = cardFew // on a phone each takes five lines before the next pool
			}
			v.Cards = append(v.Cards, viewPool(p, h, now, 0, limit))
		}
		v.Zones = viewZones(zones, now)
	} else {
		v.list(r, pools, h, now)
		v.Zones = viewZones(troubled(zones), now)
	}
	c.render(w, r, http.StatusOK, "overview.html", "Status", v)
}

func (v *overviewView) summarise(pools []upkeep.PoolStatus) {
	brief := make([]poolView, 0, len(pools))
	for _, p := range pools {
		brief = append(brief, poolView{PoolStatus: p, Path: "/pools/" + url.PathEscape(p.Name), Trouble: trouble(p), Total: len(p.Members)})
	}
	const most = 8
	v.Headline, v.Look = headline(brief)
	v.Well = len(v.Look) == 0
	if len(v.Look) > most {
		v.More, v.Look = len(v.Look)-most, v.Look[:most]
	}
}

// list shows many pools, a line each.
func (v *overviewView) list(r *http.Request, pools []upkeep.PoolStatus, h history, now time.Time) {
	query := r.URL.Query()
	v.Query, v.Wrong = query.Get("q"), query.Get("wrong") != ""
	keep := url.Values{}
	if v.Query != "" {
		keep.Set("q", v.Query)
	}
	if v.Wrong {
		keep.Set("wrong", "1")
	}
	pools = chosen(pools, v.Query, v.Wrong)
	urgent(pools)
	offset, pager := leaf(len(pools), listedPools, number(r, "page", 1), "/", keep)
	v.Pager = pager
	for _, p := range pools[offset:min(offset+listedPools, len(pools))] {
		v.List = append(v.List, viewPool(p, h, now, 0, 0))
	}
}

// troubled keeps the zones that are not as they should be.
func troubled(zones []upkeep.ZoneStatus) []upkeep.ZoneStatus {
	var kept []upkeep.ZoneStatus
	for _, z := range zones {
		wrong := false
		for _, s := range z.Servers {
			wrong = wrong || !s.InSync
		}
		for _, p := range z.Publishers {
			wrong = wrong || p.Error != ""
		}
		if wrong && len(kept) < listedPools {
			kept = append(kept, z)
		}
	}
	return kept
}

// drains says of the members that are drained whether they may be stopped by now, as
// draining with --wait does. It is for who drains them.
func (c *Console) drains(ctx context.Context, p *poolView) {
	if c.o.Hosting == nil || !access.From(ctx).Staff {
		return
	}
	for i := range p.Members {
		m := &p.Members[i]
		if m.Forced != upkeep.AdminDrain {
			continue
		}
		done, waiting, err := c.o.Hosting.Forcer.Drained(ctx, p.Name, m.Address.String())
		switch {
		case err != nil: // as when it was just removed
			c.o.Log.Debug("asking how far a drain has come", "pool", p.Name, "member", m.Address, "err", err)
		case done:
			m.Drain = "drained: it can be stopped"
		default:
			m.Drain = "not yet to be stopped: " + waiting
		}
	}
}

func zoneNames(zones []upkeep.ZoneStatus) []string {
	names := make([]string, len(zones))
	for i, z := range zones {
		names[i] = z.Name
	}
	return names
}

type poolPage struct {
	Pool   poolView
	Pager  pager
	Zones  []zoneView
	Events []eventView
	Lost   bool // history cannot be read
	Steers bool // the reader may force members
}

func (p poolPage) isForm() bool { return p.Steers }

func (c *Console) pool(w http.ResponseWriter, r *http.Request) {
	ctx, now, name := r.Context(), c.o.Now(), r.PathValue("name")
	p, err := c.o.Observer.Pool(ctx, name)
	if errors.Is(err, upkeep.ErrNotFound) {
		c.fault(w, r, http.StatusNotFound, "There is no such pool. It may have been deleted.")
		return
	} else if err != nil {
		c.broken(w, r, err)
		return
	}
	shows(ctx, upkeep.KindZone, zoneNames(p.Zones))
	object := "pool/" + p.Name
	h, events, lost := c.past(ctx, object, now)
	offset, pager := leaf(len(p.Members), pageMembers, number(r, "page", 1), "/pools/"+url.PathEscape(p.Name), nil)
	view := viewPool(p, h, now, offset, pageMembers)
	c.sparks(ctx, &view, now)
	c.drains(ctx, &view)
	c.render(w, r, http.StatusOK, "pool.html", p.Name, poolPage{
		Pool: view, Pager: pager, Zones: viewZones(p.Zones, now), Events: viewEvents(events, now, access.From(ctx).Staff), Lost: lost,
		Steers: c.o.Hosting != nil && access.From(ctx).Staff && !access.From(ctx).ReadOnly})
}
