package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

// Pages about a pool for people who do not sign in, where its document says so. They
// are the same for everybody and name no address, no machine and no reason: what a
// check was told may have all of these in it.

func (c *Console) statusRoutes() {
	c.route("GET /status/{name}", c.statusPage)
	c.route("GET /status/{name}/badge.svg", c.statusBadge)
	c.route("GET /status/{name}/feed.xml", c.statusFeed)
}

// publicPolicy is for pages without a script.
const publicPolicy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// How long others may keep what is said of a pool, and how long its past is kept
// here: the database is not for everybody to keep busy.
const (
	publicAge = 15 * time.Second
	pastAge   = 15 * time.Second
)

// maxIncidents is how many a page and a feed have.
const maxIncidents = 20

func statusPath(name string) string { return "/status/" + url.PathEscape(name) }

// statusView is what a status page shows of a pool.
type statusView struct {
	Title, Path string
	Fare        string
	Sentence    string
	Members     []statusMember
	Hidden      int // members that are left out, those that answer first
	Share       string
	Days        strip
	Incidents   []incidentView
	Lost        bool // the past cannot be read
	// Follows has the page load itself anew. It is for who reads it to say: under a
	// screen reader, or a hand that is slow, the page would begin again and again.
	Follows bool
	At      moment
	pool    string
}

type statusMember struct {
	Name, Address, State, Mark string
	Since                      moment
}

type incidentView struct {
	incident
	What       string
	Began, End moment
	Lasted     string
	Ongoing    bool
}

// public finds a pool that has a status page. One that has none, one that is not
// there and a name that no pool can have are the same.
func (c *Console) public(w http.ResponseWriter, r *http.Request) (statusView, bool) {
	p, err := c.o.Observer.Pool(r.Context(), r.PathValue("name"))
	switch {
	case err != nil && !errors.Is(err, upkeep.ErrNotFound):
		c.notNow(w, err)
		return statusView{}, false
	case err != nil || !p.Page.Public:
		http.Error(w, "There is no such status page.", http.StatusNotFound)
		return statusView{}, false
	}
	return c.viewStatus(r.Context(), p, c.o.Now()), true
}

// notNow answers for what is upkeep's own fault. Other pages that say so name the
// machine.
func (c *Console) notNow(w http.ResponseWriter, err error) {
	c.o.Log.Error("making a status page", "err", err)
	w.Header().Set("Retry-After", "60")
	http.Error(w, "This cannot be shown just now.", http.StatusServiceUnavailable)
}

func (c *Console) viewStatus(ctx context.Context, p upkeep.PoolStatus, now time.Time) statusView {
	v := statusView{Title: orElse(p.Page.Title, p.Name), Path: statusPath(p.Name), At: at(now, now), pool: p.Name}
	up, down, asked := 0, 0, 0
	for i, m := range p.Members {
		one := statusMember{Name: orElse(m.Label, fmt.Sprintf("Member %d", i+1)), State: "not known yet", Mark: upkeep.Unknown.String(), Since: at(m.ChangedAt, now)}
		if p.Page.Addresses {
			one.Address = m.Address.String()
		}
		switch {
		case m.Admin == upkeep.AdminDown || m.Admin == upkeep.AdminDrain:
			one.State, one.Since = "out of service on purpose", moment{}
		case m.Verdict == upkeep.Up:
			one.State, one.Mark = "answers", upkeep.Up.String()
			up++
		case m.Verdict == upkeep.Down:
			one.State, one.Mark = "does not answer", upkeep.Down.String()
			down++
		}
		if one.State != "out of service on purpose" {
			asked++
		}
		v.Members = append(v.Members, one)
	}
	v.Fare, v.Sentence = sentence(up, down, asked)
	if len(v.Members) > pageMembers {
		slices.SortStableFunc(v.Members, func(a, b statusMember) int { return strings.Compare(a.Mark, b.Mark) }) // down, unknown, up
		v.Hidden, v.Members = len(v.Members)-pageMembers, v.Members[:pageMembers]
	}
	past, until, err := c.pasts.of(ctx, c.o.Recorder, p, now)
	if err != nil {
		c.o.Log.Error("reading the past of a pool for its status page", "pool", p.Name, "err", err)
		v.Lost = true
		return v
	}
	v.Days, v.Share = drawDays(past, until), count(past, firstDay(until), until).share()
	for _, one := range incidents(past, until, maxIncidents) {
		v.Incidents = append(v.Incidents, viewIncident(one, len(p.Members), now))
	}
	return v
}

// sentence says how a pool fares whose members, less those that are out on purpose,
// are so many.
func sentence(up, down, asked int) (state, text string) {
	state = fare(up, down)
	switch {
	case asked == 0:
		return fareOut, "Out of service on purpose"
	case state == fareUnknown:
		return state, "Not known yet"
	case state == fareDown && asked == 1:
		return state, "It does not answer"
	case state == fareDown:
		return state, fmt.Sprintf("None of %d answers", asked)
	case state == fareDegraded:
		return state, fmt.Sprintf("%d of %d answer", up, asked)
	case up == 1:
		return state, "It answers"
	}
	return state, fmt.Sprintf("All %d answer", up)
}

func viewIncident(one incident, members int, now time.Time) incidentView {
	v := incidentView{incident: one, Began: at(one.From, now), End: at(one.To, now), Ongoing: one.To.IsZero()}
	end := one.To
	if v.Ongoing {
		end = now
	}
	v.Lasted = length(end.Sub(one.From))
	switch {
	case one.Outage > 0 && members == 1:
		v.What = "It did not answer"
	case one.Outage > 0 && one.Outage < end.Sub(one.From):
		v.What = fmt.Sprintf("Nobody answered for %s", length(one.Outage))
	case one.Outage > 0:
		v.What = "Nobody answered"
	default:
		v.What = fmt.Sprintf("%d of %d did not answer", one.Down, members)
	}
	return v
}

func (c *Console) statusPage(w http.ResponseWriter, r *http.Request) {
	v, is := c.public(w, r)
	if !is {
		return
	}
	v.Follows = r.URL.Query().Has("follow")
	var body bytes.Buffer
	if err := c.pages.ExecuteTemplate(&body, "status.html", v); err != nil {
		c.notNow(w, err)
		return
	}
	servePublic(w, r, "text/html; charset=utf-8", body.Bytes())
}

// servePublic answers with what is the same for everybody, and may be kept.
func servePublic(w http.ResponseWriter, r *http.Request, kind string, body []byte) {
	sum := sha256.Sum256(body)
	header := w.Header()
	header.Set("Content-Security-Policy", publicPolicy)
	header.Set("Content-Type", kind)
	header.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(publicAge.Seconds())))
	header.Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// pasts keeps for a short while how pools fared. Only pools with a status page come
// here, so that there are no more of them than of pools.
type pasts struct {
	mu   sync.Mutex
	pool map[string]*pastOf
}

type pastOf struct {
	mu  sync.Mutex
	at  time.Time
	of  int64 // the pool's generation
	all []stretch
}

// of is how a pool fared through the days that its page shows, until a time a little
// before now. One reader asks the database, those who come meanwhile wait for the
// answer.
func (c *pasts) of(ctx context.Context, recorder interface {
	Events(ctx context.Context, f store.EventFilter) ([]upkeep.Event, error)
}, p upkeep.PoolStatus, now time.Time) (all []stretch, until time.Time, err error) {
	c.mu.Lock()
	kept := c.pool[p.Name]
	if kept == nil {
		if c.pool == nil {
			c.pool = map[string]*pastOf{}
		}
		kept = &pastOf{}
		c.pool[p.Name] = kept
	}
	c.mu.Unlock()
	kept.mu.Lock()
	defer kept.mu.Unlock()
	// Who came first may get here last, and finds what was read a moment after it came.
	if age := now.Sub(kept.at); kept.of == p.Generation && age.Abs() < pastAge {
		return kept.all, kept.at, nil
	}
	ctx, cancel := context.WithTimeout(ctx, historyPatience)
	defer cancel()
	from := firstDay(now)
	// What held when the first day began is known from what happened before it.
	events, err := recorder.Events(ctx, store.EventFilter{Object: upkeep.KindPool + "/" + p.Name, Kind: upkeep.EventVerdict,
		Since: from.Add(-recall), Limit: store.MaxEvents, Latest: true})
	if err != nil {
		return nil, now, err
	}
	by := history{}
	for _, e := range events {
		by[e.Object] = append(by[e.Object], e)
	}
	members := make([][]span, len(p.Members))
	for i, m := range p.Members {
		members[i] = spans(by[upkeep.KindPool+"/"+p.Name+"/"+m.Address.String()], from, now, m.Verdict, m.ChangedAt)
	}
	kept.at, kept.of, kept.all = now, p.Generation, stretches(members, from, now)
	return kept.all, now, nil
}
