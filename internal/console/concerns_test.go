package console

import (
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
)

// What happens has the pages made anew that may show it, and leaves alone those that
// cannot: of a thousand that are open, most are about something else.
func TestPagesAreConcerned(t *testing.T) {
	staff, eve := access.Caller{Staff: true}, access.Caller{Account: "acme"}
	zones, pools := shown{upkeep.KindZone: {"example.test"}}, shown{upkeep.KindPool: {"web"}}
	declared := upkeep.EventDeclared
	for _, tt := range []struct {
		pattern, path string
		view          access.Caller
		shown         shown
		making        bool
		kind, object  string
		want          bool
	}{
		{"GET /{$}", "/", staff, shown{}, false, "", "pool/web", true},
		{"GET /{$}", "/", staff, shown{}, false, "", "zone/other.test", true},
		{"GET /{$}", "/", staff, shown{}, false, "", "site/a.test", false},
		{"GET /pools/{name}", "/pools/web", staff, zones, false, "", "pool/web/192.0.2.1", true},
		{"GET /pools/{name}", "/pools/web", staff, zones, false, "", "pool/web2", false},
		{"GET /pools/{name}", "/pools/web", staff, zones, false, "", "zone/example.test", true},
		{"GET /pools/{name}", "/pools/web", staff, zones, false, "", "zone/other.test", false},
		{"GET /pools/{name}", "/pools/web", staff, zones, false, "", "", true}, // upkeep itself
		// A zone that was declared may be shown by a pool that did not show it.
		{"GET /pools/{name}", "/pools/web", staff, zones, false, declared, "zone/other.test", true},
		// While it is made, and before, what it will show is not known.
		{"GET /pools/{name}", "/pools/web", staff, zones, true, "", "zone/other.test", true},
		{"GET /pools/{name}", "/pools/web", staff, nil, false, "", "zone/other.test", true},
		{"GET /zones/{name}", "/zones/example.test", staff, pools, false, "", "zone/example.test", true},
		{"GET /zones/{name}", "/zones/example.test", staff, pools, false, "", "zone/other.test", false},
		{"GET /zones/{name}", "/zones/example.test", staff, pools, false, "", "pool/web/192.0.2.1", true},
		{"GET /zones/{name}", "/zones/example.test", staff, pools, false, "", "pool/mail", false},
		{"GET /zones/{name}", "/zones/example.test", staff, pools, false, declared, "pool/mail", true},
		{"GET /sites", "/sites", staff, shown{}, false, "", "site/a.test", true},
		{"GET /sites", "/sites", eve, shown{}, false, declared, "site/a.test", true},
		{"GET /sites", "/sites", eve, shown{}, false, upkeep.EventJob, "site/a.test", false}, // its job tells
		{"GET /sites", "/sites", eve, shown{}, false, declared, "account/acme", true},
		{"GET /sites", "/sites", eve, shown{}, false, declared, "account/other", false},
		{"GET /sites", "/sites", eve, shown{}, false, "", "account", true},
	} {
		p := &openPage{key: pageKey{view: tt.view}, pattern: tt.pattern, path: tt.path, shown: tt.shown, making: tt.making}
		if got := p.concerned(upkeep.Event{Kind: tt.kind, Object: tt.object}); got != tt.want {
			t.Errorf("%s of %+v, shows %v, being made %v: %s %q concerns it: %v", tt.path, tt.view, tt.shown, tt.making, tt.kind, tt.object, got)
		}
	}
}

// Who begins to read is told the whole once, made once for all who begin together; who
// has it, because its connection broke, is told nothing until there is news.
func TestReadersBeginWhereTheyAre(t *testing.T) {
	f, h := typical(), twoCustomers()
	h.things = documents(t)
	now := time.Now()
	c, err := New(Options{Observer: f, Recorder: f, Log: discard, Now: func() time.Time { return now },
		Hosting: &Hosting{Bounds: api.NewBounds(h, h, h), Jobs: h, Servers: h, Connected: h.Connected, Forcer: f, Audit: h, Notifier: f}})
	if err != nil {
		t.Fatal(err)
	}
	for at, kind := range map[string]string{"/pools/web": upkeep.KindZone, "/zones/example.test": upkeep.KindPool} {
		begin := func(has string) chan *message {
			page, news := c.hub.join(access.Caller{Staff: true}, at, has)
			t.Cleanup(func() { c.hub.leave(page, news) })
			return news
		}
		fresh := begin("")
		whole := next(t, fresh)
		id, _, _ := strings.Cut(strings.TrimPrefix(string(whole.plain), "id: "), "\n")
		if len(id) != 24 || !strings.Contains(string(whole.plain), "\nevent: page\ndata: {") {
			t.Fatalf("%s begins with %.200s", at, whole.plain)
		}
		if other := next(t, begin("something else")); other != whole {
			t.Errorf("the whole of %s is made a second time", at)
		}
		back := begin(id)
		if len(back) > 0 {
			t.Errorf("who has %s is told it anew", at)
		}
		c.hub.mu.Lock()
		for _, p := range c.hub.pages {
			if p.path == at && len(p.shown[kind]) == 0 {
				t.Errorf("%s does not say what it shows: %v", at, p.shown)
			}
		}
		c.hub.mu.Unlock()
		f.change(func() {
			m := &f.pools[2].Members[0]
			m.Verdict, m.Published, m.Reason, f.pools[2].Reason = upkeep.Down, false, "gone from "+at, "gone from "+at
			f.pools[2].Published = f.pools[2].Published[1:]
			f.zones[0].Serial++
		})
		news := next(t, back)
		if next(t, fresh) != news || strings.Contains(string(news.plain), id) || len(news.plain) >= len(whole.plain) {
			t.Errorf("then %s is told %.200s", at, news.plain)
		}
	}
}

// next is the next message to a reader.
func next(t *testing.T, news chan *message) *message {
	t.Helper()
	select {
	case m := <-news:
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is told")
	}
	return nil
}
