package console

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	xhtml "golang.org/x/net/html"

	"upkeep"
	"upkeep/internal/store"
)

// hostile has markup, scripts and tricks in every text that can come from elsewhere.
func hostile() *fake {
	evil := []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'; alert(1); //`, `{{.}}`, "javascript:alert(1)",
		"\u202egnp.exe", "\x1b[31m", `</title><svg onload=alert(1)>`, `a" onmouseover="alert(1)`, strings.Repeat("W", 400)}
	f := &fake{}
	for i, e := range evil {
		m := member(fmt.Sprintf("192.0.2.%d", i+1))
		m.Reason, m.Next, m.Warning, m.Target, m.Admin, m.PerfData, m.AdminWho, m.AdminWhy = e, e, e, e, e, e, e, e
		z := zoneOf("example.test")
		z.Name, z.Servers[0].Address, z.Servers[0].Error, z.Servers[0].InSync = e, e, e, false
		z.Publishers[0].Error, z.Publishers[0].Hint, z.Publishers[0].Type = e, e, e
		p := pool(fmt.Sprint("pool-", i), m)
		p.Reason, p.Next, p.Frozen, p.Warnings, p.Zones = e, e, e, []string{e}, []upkeep.ZoneStatus{z}
		f.pools, f.zones = append(f.pools, p), append(f.zones, z)
		f.events = append(f.events,
			upkeep.Event{ID: int64(2*i + 1), At: past(time.Minute), Kind: e, Who: e, Object: e, What: e, Why: e},
			upkeep.Event{ID: int64(2*i + 2), At: past(time.Minute), Kind: upkeep.EventVerdict, Who: e, Object: "pool/" + e + "/192.0.2.1", What: "down", Why: e})
	}
	return f
}

// attributes are those of every element, as a browser would read them.
func attributes(t *testing.T, body string) []xhtml.Attribute {
	t.Helper()
	root, err := xhtml.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var all []xhtml.Attribute
	for node := range root.Descendants() {
		all = append(all, node.Attr...)
	}
	return all
}

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	r.Host = "localhost"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Whatever hosts and plugins answer with, a page has the elements and attributes
// of its templates and no others.
func TestHostileTextsStayTexts(t *testing.T) {
	h := handler(t, hostile())
	for _, path := range []string{"/", "/pools/pool-0", "/pools/pool-7", "/events", `/?q="><script>alert(1)</script>`, "/pools/%3Cscript%3Ealert(1)%3C%2Fscript%3E"} {
		w := get(t, h, strings.ReplaceAll(path, `"><script>`, "%22%3E%3Cscript%3E"))
		body := w.Body.String()
		if n := strings.Count(body, "<script"); n != 1 { // live.js
			t.Errorf("%s holds %d scripts", path, n)
		}
		for _, wrong := range []string{"<img", "<svg onload", "\x1b", "\u202e"} {
			if strings.Contains(body, wrong) {
				t.Errorf("%s holds %q", path, wrong)
			}
		}
		for _, a := range attributes(t, body) {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || (a.Key == "href" || a.Key == "src") && !regexp.MustCompile(`^(/|#)`).MatchString(a.Val) {
				t.Errorf("%s holds the attribute %s=%q", path, a.Key, a.Val)
			}
		}
		if path == "/events" && !strings.Contains(html.UnescapeString(body), `<script>alert(1)</script>`) {
			t.Error("the text itself is not shown")
		}
	}
}

func TestPolicy(t *testing.T) {
	for _, path := range []string{"/", "/events", "/assets/live.js", "/nothing"} {
		w := get(t, handler(t, typical()), path)
		p := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") || strings.Contains(p, "http") {
			t.Errorf("%s is sent with policy %q", path, p)
		}
		if strings.Contains(w.Body.String(), "//") && strings.Contains(w.Body.String(), "https://") {
			t.Errorf("%s names something elsewhere", path)
		}
	}
}

func TestPages(t *testing.T) {
	h := handler(t, typical())
	for path, want := range map[string]struct {
		status int
		says   []string
	}{
		"/":               {200, []string{"2 of 3 pools need a look.", "3 of 4", "1 down", "forced drain", "by uid 1000 (ada): new kernel", "the certificate ends in 9 days", "1795465266", "742ms"}},
		"/pools/web":      {200, []string{"<h1>web</h1>", "3 of 4", "742ms", "192.0.2.13 joins again", "1.2 % lost"}},
		"/events":         {200, []string{"new kernel", "by uid 1000 (ada)"}},
		"/pools/nothing":  {404, []string{"There is no such pool"}},
		"/elsewhere":      {404, []string{"There is no such page"}},
		"/?page=nonsense": {200, []string{"2 of 3"}},
	} {
		w := get(t, h, path)
		body := html.UnescapeString(w.Body.String())
		if w.Code != want.status {
			t.Errorf("%s answers %d", path, w.Code)
		}
		for _, text := range want.says {
			if !strings.Contains(body, text) {
				t.Errorf("%s does not say %q", path, text)
			}
		}
	}
}

func TestAThousandPools(t *testing.T) {
	h := handler(t, crowded())
	w := get(t, h, "/")
	body := w.Body.String()
	if !strings.Contains(body, "26 of 1001 pools need a look.") {
		t.Error("the headline does not sum up")
	}
	if rows := strings.Count(body, `<th scope="row">`); rows != listedPools {
		t.Errorf("the first page lists %d pools", rows)
	}
	if first := strings.Index(body, "customer-0000"); first < 0 || first > strings.Index(body, "customer-0001") {
		t.Error("what needs a look does not come first")
	}
	if len(body) > 1<<20 {
		t.Errorf("the page weighs %d bytes", len(body))
	}
	seen := map[string]bool{}
	next, pages := "/", 0
	for next != "" {
		body := get(t, h, html.UnescapeString(next)).Body.String()
		for _, name := range regexp.MustCompile(`<a href="/pools/([^"#]+)">`).FindAllStringSubmatch(body[strings.Index(body, `class="pools"`):], -1) {
			seen[name[1]] = true
		}
		next = ""
		if m := regexp.MustCompile(`<a href="([^"]+)" rel="next">`).FindStringSubmatch(body); m != nil {
			next = m[1]
		}
		if pages++; pages > 20 {
			t.Fatal("the pages do not end")
		}
	}
	if len(seen) != 1001 {
		t.Errorf("over all pages %d of 1001 pools are shown", len(seen))
	}
	if body := get(t, h, "/?wrong=1").Body.String(); strings.Contains(body, "customer-0001<") || !strings.Contains(body, "customer-0960") {
		t.Error("the filter for what needs a look does not hold")
	}
	if body := get(t, h, "/?q=customer-09").Body.String(); strings.Count(body, `<th scope="row">`) != 100 {
		t.Error("the filter by name does not hold")
	}
	big := get(t, h, "/pools/anycast-of-everything-that-has-a-really-long-name-for-a-pool-ok").Body.String()
	if !strings.Contains(big, "1–200 of 5000") || strings.Index(big, `class="bad"`) > strings.Index(big, `id="m-10-200-0-0"`) {
		t.Error("the members of a large pool are not paged with those that are down first")
	}
}

func TestSpans(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	from := now.Add(-6 * time.Hour)
	event := func(ago time.Duration, what string) upkeep.Event {
		return upkeep.Event{At: now.Add(-ago), Kind: upkeep.EventVerdict, What: what}
	}
	h := func(n int) time.Duration { return time.Duration(n) * time.Hour }
	for name, tt := range map[string]struct {
		events  []upkeep.Event
		current upkeep.Verdict
		since   time.Duration
		want    string
	}{
		"no record":                      {nil, upkeep.Unknown, 0, "unknown 6h-0h"},
		"up for ever":                    {nil, upkeep.Up, h(100), "up 6h-0h"},
		"up since lately":                {nil, upkeep.Up, h(2), "unknown 6h-2h, up 2h-0h"},
		"an outage":                      {[]upkeep.Event{event(h(20), "up"), event(h(3), "down"), event(h(2), "up")}, upkeep.Up, h(2), "up 6h-3h, down 3h-2h, up 2h-0h"},
		"down over the edge":             {[]upkeep.Event{event(h(7), "down"), event(h(5), "up")}, upkeep.Up, h(5), "down 6h-5h, up 5h-0h"},
		"first word in the window":       {[]upkeep.Event{event(h(4), "down")}, upkeep.Down, h(4), "unknown 6h-4h, down 4h-0h"},
		"repeated":                       {[]upkeep.Event{event(h(8), "down"), event(h(4), "down"), event(h(1), "up")}, upkeep.Up, h(1), "down 6h-1h, up 1h-0h"},
		"an event that was not written":  {[]upkeep.Event{event(h(8), "up")}, upkeep.Down, h(1), "up 6h-1h, down 1h-0h"},
		"since before its last event":    {[]upkeep.Event{event(h(2), "up")}, upkeep.Down, h(4), "unknown 6h-2h, down 2h-0h"},
		"something else that it says":    {[]upkeep.Event{event(h(2), "restarted")}, upkeep.Up, h(9), "up 6h-0h"},
		"events of the future are clear": {[]upkeep.Event{event(h(2), "down"), event(-h(1), "up")}, upkeep.Down, h(2), "unknown 6h-2h, down 2h-0h"},
	} {
		since := time.Time{}
		if tt.since != 0 {
			since = now.Add(-tt.since)
		}
		all := spans(tt.events, from, now, tt.current, since)
		var words []string
		for _, s := range all {
			words = append(words, fmt.Sprintf("%s %gh-%gh", s.Verdict, now.Sub(s.From).Hours(), now.Sub(s.To).Hours()))
		}
		if got := strings.Join(words, ", "); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
		for _, b := range draw(all, from, now).Bars {
			if b.X < 0 || b.W < 0 || b.X+b.W > stripWidth {
				t.Errorf("%s: a bar at %d, %d wide, leaves the strip", name, b.X, b.W)
			}
		}
	}
}

// TestPagesWithoutHistory has a database that is gone: what is published is shown
// all the same.
func TestPagesWithoutHistory(t *testing.T) {
	gone, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "upkeep.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	f := typical()
	f.store = gone
	h := handler(t, f)
	for path, want := range map[string]struct {
		status int
		says   string
	}{
		"/":          {200, "2 of 3 pools need a look."},
		"/pools/web": {200, "3 of 4"},
		"/events":    {503, "What is published now"},
	} {
		w := get(t, h, path)
		body := html.UnescapeString(w.Body.String())
		if w.Code != want.status || !strings.Contains(body, want.says) || !strings.Contains(body, "History cannot be read") {
			t.Errorf("%s answers %d: %s", path, w.Code, body)
		}
	}
}
