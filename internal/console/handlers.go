package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"upkeep"
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
)

// recall is how far back verdict events are read: a member's state at the
// beginning of the window comes from what happened before it.
const recall = 7 * upkeep.Day

func (c *Console) history(ctx context.Context, object string, now time.Time) (history, error) {
	events, err := c.o.Recorder.Events(ctx, store.EventFilter{Object: object, Kind: upkeep.EventVerdict,
		Since: now.Add(-recall), Limit: historyEvents, Latest: true})
	if err != nil {
		return nil, err
	}
	h := history{}
	for _, e := range events {
		h[e.Object] = append(h[e.Object], e)
	}
	return h, nil
}

// past is the history of an object's verdicts and its latest events. lost means
// that they cannot be read at present, because the database is away: what is known
// now is shown all the same, for that is when people look.
func (c *Console) past(ctx context.Context, object string, now time.Time) (h history, events []upkeep.Event, lost bool) {
	ctx, cancel := context.WithTimeout(ctx, historyPatience)
	defer cancel()
	h, err := c.history(ctx, object, now)
	if err == nil {
		events, err = c.o.Recorder.Events(ctx, store.EventFilter{Object: object, Limit: cardEvents, Latest: true})
	}
	if err != nil {
		c.o.Log.Error("reading history for a page", "err", err)
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
}

func (c *Console) overview(w http.ResponseWriter, r *http.Request) {
	ctx, now := r.Context(), c.o.Now()
	pools, err := c.o.Observer.Pools(ctx)
	if err != nil {
		c.broken(w, err)
		return
	}
	zones, err := c.o.Observer.Zones(ctx)
	if err != nil {
		c.broken(w, err)
		return
	}
	h, events, lost := c.past(ctx, "", now)
	v := overviewView{Events: viewEvents(events, now), Lost: lost, Empty: len(pools) == 0 && len(zones) == 0}
	v.summarise(pools)
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
	c.render(w, http.StatusOK, "overview.html", "Status", v)
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

type poolPage struct {
	Pool   poolView
	Pager  pager
	Zones  []zoneView
	Events []eventView
	Lost   bool // history cannot be read
}

func (c *Console) pool(w http.ResponseWriter, r *http.Request) {
	ctx, now, name := r.Context(), c.o.Now(), r.PathValue("name")
	p, err := c.o.Observer.Pool(ctx, name)
	if errors.Is(err, upkeep.ErrNotFound) {
		c.fault(w, http.StatusNotFound, "There is no such pool. It may have been deleted.")
		return
	} else if err != nil {
		c.broken(w, err)
		return
	}
	object := "pool/" + p.Name
	h, events, lost := c.past(ctx, object, now)
	offset, pager := leaf(len(p.Members), pageMembers, number(r, "page", 1), "/pools/"+url.PathEscape(p.Name), nil)
	c.render(w, http.StatusOK, "pool.html", p.Name, poolPage{
		Pool: viewPool(p, h, now, offset, pageMembers), Pager: pager, Zones: viewZones(p.Zones, now), Events: viewEvents(events, now), Lost: lost})
}

type eventsPage struct {
	Events []eventView
	Older  string
	Newest bool
}

func (c *Console) events(w http.ResponseWriter, r *http.Request) {
	before := number(r, "before", 0)
	events, err := c.o.Recorder.Events(r.Context(), store.EventFilter{Before: before, Limit: pageEvents, Latest: true})
	if err != nil {
		c.o.Log.Error("reading events for a page", "err", err)
		c.fault(w, http.StatusServiceUnavailable, "History cannot be read: the database does not answer. What is published now is on the first page.")
		return
	}
	v := eventsPage{Events: viewEvents(events, c.o.Now()), Newest: before == 0}
	if len(events) == pageEvents {
		v.Older = "/events?before=" + strconv.FormatInt(events[0].ID, 10)
	}
	c.render(w, http.StatusOK, "events.html", "Events", v)
}
