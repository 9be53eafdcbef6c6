package console

import (
	"context"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep/internal/access"
	"upkeep/internal/api"
)

// house is the whole console behind the API's door, over what is in memory.
func house(t testing.TB, f *fake, h *hosting, change ...func(*api.Options)) *api.API {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	p := people{h}
	c, err := New(Options{Observer: f, Recorder: f, People: p, Log: log, Version: "1.0.0",
		Hosting: &Hosting{Bounds: api.NewBounds(h, h, h), Jobs: h, Servers: h, Connected: h.Connected, Forcer: f, Users: p, Audit: h, Notifier: f}})
	if err != nil {
		t.Fatal(err)
	}
	o := api.Options{Declarer: h, Observer: f, Forcer: f, Recorder: f, Notifier: f, Jobs: h, Sites: h, Servers: h, People: p, Users: p, Audit: h, Log: log, Page: c,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics") })}
	for _, one := range change {
		one(&o)
	}
	a, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ask sends a request as a browser of somebody does; nobody for "".
func ask(h http.Handler, who, method, path, body string) *httptest.ResponseRecorder {
	patience := time.Minute
	if place, _, _ := strings.Cut(path, "?"); place == "/live" || strings.HasSuffix(place, "/stream") {
		patience = 200 * time.Millisecond // a stream has no end of its own
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1234"
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if strings.HasPrefix(path, "/api/") {
		r.Header.Set("Content-Type", "application/json")
	}
	if who != "" {
		r.AddCookie(&http.Cookie{Name: "upkeep", Value: who})
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Every route has a rule, and every rule a route: what is not in the table cannot be
// reached, and what is in it is there.
func TestEveryRouteHasARule(t *testing.T) {
	routes := slices.Sorted(slices.Values(house(t, typical(), twoCustomers()).Routes()))
	for _, pattern := range access.Patterns() {
		if !slices.Contains(routes, pattern) {
			t.Errorf("the rule of %q is for no route", pattern)
		}
	}
	if len(routes) != len(access.Patterns()) {
		t.Errorf("there are %d routes and %d rules", len(routes), len(access.Patterns()))
	}
}

// bodies are what routes that take more than a path are sent about what is other's.
var bodies = map[string]string{
	"POST /api/v1/apply":                               `{"sources":[{"text":"{kind: site, name: other.test, account: other, servers: [web1]}"}]}`,
	"POST /api/v1/diff":                                `{"sources":[{"text":"{kind: site, name: other.test, account: other, servers: [web1]}"}]}`,
	"POST /api/v1/sites/preview":                       `{"sources":[{"text":"{kind: site, name: other.test, account: other, servers: [web1]}"}]}`,
	"POST /api/v1/delete":                              `{"objects":[{"kind":"site","name":"other.test"}]}`,
	"POST /api/v1/sites/{name}/undo":                   `{"generation":1}`,
	"POST /api/v1/jobs":                                `{"kind":"server.facts","server":"web1"}`,
	"POST /api/v1/users":                               `{"name":"mallory","role":"staff","password":"long enough a password"}`,
	"PUT /api/v1/users/{name}/password":                `{"password":"long enough a password"}`,
	"POST /api/v1/users/{name}/tokens":                 `{"name":"x","scope":"write","expires":"2027-01-01T00:00:00Z"}`,
	"POST /api/v1/pools/{name}/members/{member}/force": `{"state":"down"}`,
	"POST /sites/new":                                  "name=new.test&account=other&servers=web1&www=on&do=save",
	"POST /sites/{name}/edit":                          "generation=1&account=acme&servers=web1&do=save",
	"POST /sites/{name}/undo":                          "generation=1&still=1",
	"POST /sites/{name}/remove":                        "generation=1",
	"POST /servers":                                    "name=web9&role=web",
	"POST /accounts":                                   "name=mallory",
	"POST /accounts/{name}/suspend":                    "suspended=yes",
	"POST /pools/{name}/force":                         "member=192.0.2.11&state=down&all=yes",
	"POST /declare/{kind}":                             "text=kind:+account%0Aname:+mallory&do=save",
	"POST /declared/{kind}/{name}":                     "generation=1&text=kind:+account%0Aname:+other&do=save",
	"POST /declared/{kind}/{name}/remove":              "generation=1",
	"POST /receivers/new":                              "name=mallory&type=exec&command=/bin/true&do=save",
	"POST /receivers/{name}/edit":                      "generation=1&type=exec&command=/bin/true&do=save",
	"POST /delegations/new":                            "name=other.test&account=acme&do=save",
	"POST /delegations/{name}/edit":                    "generation=1&account=acme&do=save",
	"POST /delegations/{name}/end":                     "generation=1",
	"POST /images/look":                                "server=vm1",
	"POST /images/{name}/{verb}":                       "root=vms&path=x.img&size=1G&do=run",
	"POST /users":                                      "name=mallory&password=long+enough+a+password",
	"POST /users/{name}/password":                      "password=long+enough+a+password",
	"POST /signin/passkey":                             "answer={}",
	"POST /me/passkeys":                                "label=x&answer={}",
	"POST /me/passkeys/options":                        "label=x&present=wrong",
	"POST /me/password":                                "present=wrong&password=long+enough+a+password&again=long+enough+a+password",
}

// target fills a pattern with what is other's.
func target(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	name := "other.test"
	switch {
	case strings.Contains(path, "/pools/"):
		name = "web"
	case strings.Contains(path, "/users/"):
		name = "ada"
	case strings.Contains(path, "/servers/"):
		name = "web1"
	}
	if strings.HasPrefix(path, "/images/") {
		name = "vm1"
	}
	if strings.HasPrefix(path, "/declare") {
		path = strings.NewReplacer("{kind}", "account", "{name}", "other").Replace(path)
	}
	path = strings.NewReplacer("{name}", name, "{verb}", "create", "{id}", "2", "{kind}", "site", "{member}", "192.0.2.11", "{$}", "").Replace(path)
	return method, path
}

// TestCustomerOnEveryRoute has a customer try each route with what is another's and
// with what is staff's: nothing is done, and nothing is told.
func TestCustomerOnEveryRoute(t *testing.T) {
	for _, private := range []bool{false, true} {
		h := twoCustomers()
		a := house(t, typical(), h, func(o *api.Options) { o.Private = private })
		for _, pattern := range a.Routes() {
			rule, _ := access.For(pattern)
			method, path := target(pattern)
			w := ask(a.Public(), "eve", method, path, bodies[pattern])
			if w.Code >= 500 {
				t.Errorf("%s answers %d: %s", pattern, w.Code, w.Body)
			}
			if strings.Contains(w.Body.String(), secretOfOther) {
				t.Errorf("%s tells what is another's: %s", pattern, w.Body)
			}
			staff := rule.For == access.Staff || private && rule.For == access.Onlookers
			if refused := w.Code == http.StatusForbidden || path == "/" && w.Code == http.StatusSeeOther; staff && !refused {
				t.Errorf("%s, which is for staff, answers %d to a customer", pattern, w.Code)
			}
			about := strings.Contains(pattern, "{name}") || strings.Contains(pattern, "{id}")
			if rule.For == access.Customers && about && !strings.Contains(path, "/me/") && w.Code != http.StatusNotFound {
				t.Errorf("%s answers %d about what is another's: %s", pattern, w.Code, w.Body)
			}
		}
		for _, one := range h.did() {
			// Its own things it may have changed, and a new site is its own whatever it says.
			if !slices.Contains([]string{"user eve signs eve out of 0", "user eve signs eve out of 2", "user eve takes token 2 of eve back", "user eve removes passkey 2 of eve", "eve drops the second factor",
				`user eve applies {"name":"new.test","account":"acme","servers":["web1"]}`}, one) && !strings.HasSuffix(one, "is the first, from 127.0.0.1") {
				t.Errorf("a customer got done, private %v: %s", private, one)
			}
		}
	}
}

// TestStrangerOnEveryRoute has somebody who did not sign in try each route.
func TestStrangerOnEveryRoute(t *testing.T) {
	for _, private := range []bool{false, true} {
		h := twoCustomers()
		a := house(t, typical(), h, func(o *api.Options) { o.Private = private })
		for _, pattern := range a.Routes() {
			rule, _ := access.For(pattern)
			for _, who := range []string{"", "mallory"} {
				method, path := target(pattern)
				w := ask(a.Public(), who, method, path, bodies[pattern])
				if w.Code >= 500 || strings.Contains(w.Body.String(), secretOfOther) {
					t.Errorf("%s answers %d: %s", pattern, w.Code, w.Body)
				}
				closed := rule.For >= access.Customers || private && rule.For != access.Anybody
				if led := w.Code == http.StatusSeeOther && strings.HasPrefix(w.Header().Get("Location"), "/signin?"); closed && w.Code != http.StatusUnauthorized && !led {
					t.Errorf("%s, private %v, answers %d to a stranger: %s", pattern, private, w.Code, w.Body)
				}
			}
		}
		for _, one := range h.did() {
			if !strings.Contains(one, "is the first") { // who has the token of the first start is nobody yet
				t.Errorf("a stranger got done: %s", one)
			}
		}
	}
}

// TestReaderOnEveryRoute has somebody whose token may only read try each route.
func TestReaderOnEveryRoute(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h)
	for _, pattern := range a.Routes() {
		rule, _ := access.For(pattern)
		method, path := target(pattern)
		w := ask(a.Public(), "rob", method, path, bodies[pattern])
		if rule.Changes && w.Code != http.StatusForbidden {
			t.Errorf("%s answers %d to who may only read", pattern, w.Code)
		}
		if get := method == http.MethodGet; get && rule.Changes || !get && !rule.Changes && pattern != "POST /api/v1/diff" && pattern != "POST /api/v1/sites/preview" {
			t.Errorf("%s: whether it changes something is said wrongly", pattern)
		}
	}
	for _, one := range h.did() {
		if !strings.Contains(one, " looks at ") {
			t.Errorf("who may only read got done: %s", one)
		}
	}
}

// TestWriterOnEveryRoute has a program of staff that may write try each route: what
// would outlive its token is refused.
func TestWriterOnEveryRoute(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h)
	for _, pattern := range a.Routes() {
		rule, _ := access.For(pattern)
		if !rule.Users {
			continue
		}
		method, path := target(pattern)
		if w := ask(a.Public(), "pat", method, path, bodies[pattern]); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "who signs in") {
			t.Errorf("%s answers %d to a token that may write: %s", pattern, w.Code, w.Body)
		}
	}
	for user, want := range map[string]int{"ada": http.StatusCreated, "rob": http.StatusForbidden} {
		path := "/api/v1/users/" + user + "/tokens"
		if w := ask(a.Public(), "pat", "POST", path, bodies["POST /api/v1/users/{name}/tokens"]); w.Code != want {
			t.Errorf("a token for %s answers %d: %s", user, w.Code, w.Body)
		}
	}
	if done := h.did(); !slices.Equal(done, []string{"user ada (token 5) gives ada a token to write, made with 5"}) {
		t.Errorf("done is %q", done)
	}
	for pattern, method := range map[string]string{"/api/v1/users": "POST", "/users/{name}/password": "POST"} {
		if rule, _ := access.For(method + " " + pattern); !rule.Users {
			t.Errorf("%s %s takes no scope of its own", method, pattern)
		}
	}
}

// A page of another host cannot have a browser that is signed in do anything.
func TestOtherHostsCannotUseASignIn(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h)
	for _, pattern := range a.Routes() {
		method, path := target(pattern)
		if method == http.MethodGet {
			continue
		}
		for _, header := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://evil.test"}, {"Origin", "null"}} {
			r := httptest.NewRequest(method, path, strings.NewReader(bodies[pattern]))
			r.Host = "localhost"
			r.Header.Set(header[0], header[1])
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.AddCookie(&http.Cookie{Name: "upkeep", Value: "ada"})
			w := httptest.NewRecorder()
			a.Public().ServeHTTP(w, r)
			if w.Code != http.StatusForbidden {
				t.Errorf("%s with %s answers %d", pattern, header, w.Code)
			}
		}
	}
	if done := h.did(); len(done) > 0 {
		t.Errorf("got done: %q", done)
	}
}

// A name may have been somebody else's before: its history begins with its present
// owner.
func TestHistoryBeginsWithItsOwner(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h)
	for _, path := range []string{"/sites/acme.test/history", "/api/v1/sites/acme.test/history"} {
		w := ask(a.Public(), "eve", "GET", path, "")
		if w.Code != 200 || strings.Contains(w.Body.String(), secretOfOther) || !strings.Contains(w.Body.String(), "older.test") {
			t.Errorf("%s answers a customer %d: %s", path, w.Code, w.Body)
		}
		if w := ask(a.Public(), "ada", "GET", path, ""); !strings.Contains(w.Body.String(), secretOfOther) {
			t.Errorf("%s answers staff %d: %s", path, w.Code, w.Body)
		}
	}
	if w := ask(a.Public(), "eve", "POST", "/sites/acme.test/undo", "generation=1&still=3"); w.Code != 404 {
		t.Errorf("going back to what was another's answers %d", w.Code)
	}
	if w := ask(a.Public(), "eve", "POST", "/sites/acme.test/undo", "generation=2&still=3"); w.Code != 303 {
		t.Errorf("going back answers %d: %s", w.Code, w.Body)
	}
	if done := h.did(); !slices.Equal(done, []string{"user eve takes acme.test back to 2 from 3"}) {
		t.Errorf("done is %q", done)
	}
}

// What servers tell of other sites in a job is not shown to the job's owner.
func TestOwnPartOfAPreview(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h)
	w := ask(a.Public(), "eve", "POST", "/sites/acme.test/edit", "generation=3&servers=web1&aliases=new.test&www=on&do=preview")
	body := html.UnescapeString(w.Body.String())
	if w.Code != 200 || !strings.Contains(body, "ServerAlias new.test") || !strings.Contains(body, `<span class="added">+`) {
		t.Errorf("the preview answers %d: %s", w.Code, body)
	}
	for _, path := range []string{"/jobs/100", "/api/v1/jobs/100"} {
		w := ask(a.Public(), "eve", "GET", path, "")
		if w.Code != 200 || strings.Contains(w.Body.String(), secretOfOther) || !strings.Contains(w.Body.String(), "ServerAlias new.test") {
			t.Errorf("%s answers %d: %s", path, w.Code, w.Body)
		}
	}
}
