package console

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"upkeep"
	"upkeep/internal/api"
	"upkeep/internal/store"
)

// published is a typical day on which pool web has a status page.
func published() *fake {
	f := typical()
	f.pools[2].Page = upkeep.StatusPage{Public: true, Title: "Shop & <b>more</b>"}
	f.pools[2].Members[0].Label = "Frankfurt"
	f.pools[2].Members[2].Label = "Berlin"
	return f
}

// outage has a page of a large pool that has been through a lot.
func outage() *fake {
	f := crowded()
	big := f.pools[len(f.pools)-1]
	big.Name, big.Page = "web", upkeep.StatusPage{Public: true, Addresses: true, Title: strings.Repeat("a-title-without-a-space-", 8)}
	big.Members = slices.Clone(big.Members[:300])
	f.pools, f.events = []upkeep.PoolStatus{big}, nil
	for i := range 60 {
		for j := range 1 + i%3*299/2 {
			f.events = append(f.events, upkeep.Event{ID: int64(len(f.events) + 1), At: past(time.Duration(60-i)*11*time.Hour - time.Minute), Kind: upkeep.EventVerdict,
				Object: "pool/web/" + big.Members[j].Address.String(), What: []string{"down", "up"}[i%2]})
		}
	}
	return f
}

var statusPaths = []string{"", "/badge.svg", "/feed.xml"}

// The page stays as it is until somebody asks for it to follow.
func TestStatusPageFollowsWhenAsked(t *testing.T) {
	h := handler(t, published())
	for path, follows := range map[string]bool{"/status/web": false, "/status/web?follow=1": true} {
		if body := get(t, h, path).Body.String(); strings.Contains(body, `http-equiv="refresh"`) != follows || strings.Contains(body, `href="/status/web?follow=1"`) == follows {
			t.Errorf("%s: that it follows is to be %v: %s", path, follows, body)
		}
	}
}

// A pool without a page and one that there is not are the same to who asks.
func TestStatusPageIsOffUnlessAskedFor(t *testing.T) {
	f := published()
	f.pools[0].Page = upkeep.StatusPage{Title: "Not public", Addresses: true}
	for _, private := range []bool{false, true} {
		a := house(t, f, twoCustomers(), func(o *api.Options) { o.Private = private })
		for _, path := range statusPaths {
			if w := ask(a.Public(), "", "GET", "/status/web"+path, ""); w.Code != 200 {
				t.Errorf("private %v: %s answers %d", private, path, w.Code)
			}
			gone, off := ask(a.Public(), "", "GET", "/status/no-such-pool"+path, ""), ask(a.Public(), "ada", "GET", "/status/mail"+path, "")
			if gone.Code != 404 || off.Code != 404 || gone.Body.String() != off.Body.String() || !maps.EqualFunc(gone.Header(), off.Header(), slices.Equal) {
				t.Errorf("private %v: %s tells a pool without a page, %d %v %q, from none, %d %v %q", private, path, off.Code, off.Header(), off.Body, gone.Code, gone.Header(), gone.Body)
			}
		}
	}
}

// What is public names no address, no reason, no zone and no machine, and is the same
// for everybody, so that it may be kept.
func TestStatusPageTellsLittle(t *testing.T) {
	f := published()
	a := house(t, f, twoCustomers())
	secrets := []string{"192.0.2", "2001:db8", "probes", "probation", "refused", "example.test", "certificate", "uid 1000", "1.0.0", "1795465266"}
	for _, path := range statusPaths {
		w := ask(a.Public(), "", "GET", "/status/web"+path, "")
		body := w.Body.String()
		for _, secret := range secrets {
			if strings.Contains(body, secret) {
				t.Errorf("%s tells %q: %s", path, secret, body)
			}
		}
		h := w.Header()
		if h.Get("Cache-Control") != "public, max-age=15" || h.Get("Set-Cookie") != "" || h.Get("Content-Security-Policy") != publicPolicy || h.Get("ETag") == "" {
			t.Errorf("%s has the headers %v", path, h)
		}
		if strings.Contains(body, "<b>more") || strings.Contains(body, "<script") {
			t.Errorf("%s has a title as markup: %s", path, body)
		}
		if path == "" { // has the time on it
			continue
		}
		if other := ask(a.Public(), "ada", "GET", "/status/web"+path, ""); other.Body.String() != body {
			t.Errorf("%s shows staff %s, and strangers %s", path, other.Body, body)
		}
		r := httptest.NewRequest("GET", "/status/web"+path, nil)
		r.Host = "localhost"
		r.Header.Set("If-None-Match", h.Get("ETag"))
		again := httptest.NewRecorder()
		a.Public().ServeHTTP(again, r)
		if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
			t.Errorf("%s, unchanged, answers %d with %d bytes", path, again.Code, again.Body.Len())
		}
	}
	page := ask(a.Public(), "", "GET", "/status/web", "").Body.String()
	for _, want := range []string{"3 of 4 answer", "Frankfurt", "Berlin", "Member 2", "does not answer", "1 of 4 did not answer", "not yet"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q: %s", want, page)
		}
	}
	f.pools[2].Page.Addresses = true
	if page := ask(a.Public(), "", "GET", "/status/web", "").Body.String(); !strings.Contains(page, "192.0.2.11") {
		t.Errorf("asked for, addresses are not shown: %s", page)
	}
}

func TestStatusBadgeAndFeedAreXML(t *testing.T) {
	f := published()
	a := house(t, f, twoCustomers())
	badge := ask(a.Public(), "", "GET", "/status/web/badge.svg", "")
	var svg struct {
		Title string   `xml:"title"`
		Texts []string `xml:"g>text"`
	}
	if err := xml.Unmarshal(badge.Body.Bytes(), &svg); err != nil || svg.Title != "Shop & <b>more</b>: degraded" || !slices.Equal(svg.Texts, []string{"Shop & <b>more</b>", "degraded"}) {
		t.Errorf("the badge is %+v (%v): %s", svg, err, badge.Body)
	}
	if h := badge.Header(); h.Get("Content-Type") != "image/svg+xml" || h.Get("Cross-Origin-Resource-Policy") != "cross-origin" {
		t.Errorf("the badge has the headers %v", h)
	}
	read := func() (feed atomFeed) {
		w := ask(a.Public(), "", "GET", "/status/web/feed.xml", "")
		if err := xml.Unmarshal(w.Body.Bytes(), &feed); err != nil || w.Header().Get("Content-Type") != "application/atom+xml; charset=utf-8" {
			t.Fatalf("the feed, %v, is no XML: %v: %s", w.Header(), err, w.Body)
		}
		return feed
	}
	feed := read()
	if feed.Title != "Shop & <b>more</b>" || len(feed.Entries) != 2 || feed.Entries[0].ID == feed.Entries[1].ID || feed.Updated != feed.Entries[0].Updated {
		t.Fatalf("the feed is %+v", feed)
	}
	for _, one := range append([]string{feed.ID, feed.Updated}, feed.Entries[0].ID, feed.Entries[0].Published, feed.Entries[1].Updated) {
		if _, err := time.Parse(time.RFC3339, one); !strings.HasPrefix(one, "urn:uuid:") && err != nil {
			t.Errorf("%q is neither an id nor a time", one)
		}
	}
	// When it has ended, it is the same entry with another text.
	f.change(func() {
		m := &f.pools[2].Members[2]
		m.Verdict, m.ChangedAt = upkeep.Up, time.Now()
		f.pools[2].Generation++ // or what is kept of the past would still be shown
		f.events = append(f.events, upkeep.Event{ID: 1000, At: time.Now(), Kind: upkeep.EventVerdict, Object: "pool/web/192.0.2.13", What: "up"})
	})
	if after := read(); len(after.Entries) != 2 || after.Entries[0].ID != feed.Entries[0].ID || after.Entries[0].Updated == feed.Entries[0].Updated || !strings.Contains(after.Entries[0].Content, "which is 2 min") {
		t.Errorf("afterwards the feed is %+v", after)
	}
}

// counting counts how often the past is read, and can fail.
type counting struct {
	*fake
	reads atomic.Int64
	err   error
}

func (c *counting) Events(ctx context.Context, f store.EventFilter) ([]upkeep.Event, error) {
	c.reads.Add(1)
	if c.err != nil {
		return nil, c.err
	}
	return c.fake.Events(ctx, f)
}

// Strangers who all ask at once read the database once; without it they are told how
// things are now.
func TestStatusPageIsCheap(t *testing.T) {
	r := &counting{fake: published()}
	c, err := New(Options{Observer: r, Recorder: r, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		req := httptest.NewRequest("GET", path, nil)
		req.SetPathValue("name", "web")
		c.Routes()[map[bool]string{true: "GET /status/{name}/feed.xml", false: "GET /status/{name}"}[strings.HasSuffix(path, "xml")]].ServeHTTP(w, req)
		return w
	}
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() { ask("/status/web") })
	}
	group.Wait()
	if n := r.reads.Load(); n != 1 {
		t.Errorf("50 readers read the past %d times", n)
	}
	r.change(func() { r.pools[2].Generation++ })
	r.err = errors.New("the database is away")
	if w := ask("/status/web"); w.Code != 200 || !strings.Contains(w.Body.String(), "3 of 4 answer") || !strings.Contains(w.Body.String(), "cannot be shown just now") || strings.Contains(w.Body.String(), "database") {
		t.Errorf("without a past the page answers %d: %s", w.Code, w.Body)
	}
	if w := ask("/status/web/feed.xml"); w.Code != 503 || w.Header().Get("Cache-Control") == "public, max-age=15" {
		body, _ := io.ReadAll(w.Body)
		t.Errorf("without a past the feed answers %d: %s", w.Code, body)
	}
}

func TestFares(t *testing.T) {
	for _, tt := range []struct {
		up, down, asked int
		state, text     string
	}{
		{3, 0, 3, fareUp, "All 3 answer"}, {1, 0, 1, fareUp, "It answers"}, {2, 1, 3, fareDegraded, "2 of 3 answer"}, {0, 3, 3, fareDown, "None of 3 answers"},
		{0, 1, 1, fareDown, "It does not answer"}, {0, 0, 3, fareUnknown, "Not known yet"}, {0, 0, 0, fareOut, "Out of service on purpose"},
	} {
		if state, text := sentence(tt.up, tt.down, tt.asked); state != tt.state || text != tt.text {
			t.Errorf("%+v: %s, %q", tt, state, text)
		}
	}
	for _, tt := range []struct {
		t    tally
		want string
	}{{tally{}, ""}, {tally{Up: time.Hour}, "100 %"}, {tally{Degraded: time.Hour}, "100 %"}, {tally{Up: 1e6 * time.Hour, Down: time.Second}, "99.999 %"}, {tally{Up: time.Hour, Down: time.Hour}, "50.000 %"}} {
		if got := tt.t.share(); got != tt.want {
			t.Errorf("%+v: %s", tt.t, got)
		}
	}
}

// The stretches of a pool cover its window without a gap, and say at each instant
// what the members' own do.
func TestStretches(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	from := now.Add(-100 * time.Second)
	rapid.Check(t, func(t *rapid.T) {
		members := make([][]span, rapid.IntRange(0, 4).Draw(t, "members"))
		for i := range members {
			var events []upkeep.Event
			at := from.Add(-10 * time.Second)
			for range rapid.IntRange(0, 6).Draw(t, "events") {
				at = at.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
				events = append(events, upkeep.Event{At: at, Kind: upkeep.EventVerdict, What: rapid.SampledFrom([]string{"up", "down", "unknown"}).Draw(t, "verdict")})
			}
			members[i] = spans(events, from, now, upkeep.Unknown, time.Time{})
		}
		all := stretches(members, from, now)
		if all[0].From != from || all[len(all)-1].To != now {
			t.Fatalf("the stretches are from %v to %v", all[0].From, all[len(all)-1].To)
		}
		for i, s := range all {
			if i > 0 && (s.From != all[i-1].To || s.Fare == all[i-1].Fare) {
				t.Fatalf("stretch %+v follows %+v", s, all[i-1])
			}
		}
		for second := range 100 {
			instant, up, down := from.Add(time.Duration(second)*time.Second+time.Millisecond), 0, 0
			for _, own := range members {
				for _, s := range own {
					if !instant.Before(s.From) && instant.Before(s.To) && s.Verdict == upkeep.Up {
						up++
					} else if !instant.Before(s.From) && instant.Before(s.To) && s.Verdict == upkeep.Down {
						down++
					}
				}
			}
			i := slices.IndexFunc(all, func(s stretch) bool { return !instant.Before(s.From) && instant.Before(s.To) })
			if all[i].Fare != fare(up, down) || all[i].Down < down {
				t.Fatalf("%d s in, %d are up and %d down, and the stretch is %+v", second, up, down, all[i])
			}
		}
		total := count(all, from, now)
		for _, one := range incidents(all, now, 1000) {
			end := one.To
			if end.IsZero() {
				end = now
			}
			total.Degraded -= end.Sub(one.From) - one.Outage
			total.Down -= one.Outage
		}
		if total.Degraded != 0 || total.Down != 0 {
			t.Fatalf("incidents and stretches differ by %+v", total)
		}
	})
}
