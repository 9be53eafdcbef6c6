package console

import (
	"fmt"
	"maps"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upkeep"
	"upkeep/internal/testkit/browser"
)

// scene is an upkeep to be walked through, with the names of things in it that pages
// are about.
type scene struct {
	f                      *fake
	h                      *hosting
	pool, zone, site, user string
	server                 string // with images
	root, image            string
	things                 map[string]string // the name of one thing of each kind
}

// stop is a page as somebody comes to it: by its address, or as the answer to a form.
type stop struct {
	who  string // as in people; "" for who has not signed in
	path string
	form string // what is sent there, if anything
	// unset has no user be there yet.
	unset bool
}

func (s stop) String() string {
	text := s.path
	if s.form != "" {
		text = "POST " + text + " " + fmt.Sprintf("%.60q", s.form)
	}
	return text + " as " + orElse(s.who, "nobody")
}

// noPages are routes of which nobody sees a page of its own: what they answer is a file,
// or leads to a page that has a stop.
var noPages = []string{
	"GET /healthz", "GET /metrics", "GET /live", "GET /assets/style.css", "GET /assets/live.js", "GET /assets/mark.svg", "GET /assets/passkey.js",
	"GET /status/{name}/badge.svg", "GET /status/{name}/feed.xml", "POST /signout", "POST /jobs/{id}/read", "POST /jobs/{id}/cancel",
	"POST /servers/{name}/verify", "POST /servers/{name}/regenerate", "POST /servers/{name}/revoke", "POST /accounts/{name}/suspend", "POST /unfreeze",
	"POST /users/{name}/password", "POST /users/{name}/signout", "POST /users/{name}/nofactor",
	"POST /signin/passkey/options", "POST /me/passkeys/options", "POST /me/passkeys/{id}/remove", "POST /users/{name}/nopasskeys",
	"POST /me/signout", "POST /me/factor/drop", "POST /me/tokens/{id}/remove", "POST /images/look",
}

// as is a page as several people see it.
func as(path string, all ...string) []stop {
	var stops []stop
	for _, who := range all {
		stops = append(stops, stop{who: who, path: path})
	}
	return stops
}

func filled(path string, form ...string) []stop {
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Add(form[i], form[i+1])
	}
	return []stop{{who: "ada", path: path, form: values.Encode()}}
}

// stops are those of each route. A route without one is found by [TestEveryPageHasAStop].
func (s scene) stops() map[string][]stop {
	all := map[string][]stop{
		"GET /":                as("/nothing", "ada", ""),
		"GET /{$}":             append(as("/", "ada", ""), as("/?q=w&wrong=1", "ada")...),
		"GET /events":          append(as("/events", "ada", ""), as("/events?object=pool%2Fweb&kind=verdict", "ada")...),
		"GET /docs/api":        as("/docs/api", ""),
		"GET /signin":          append(as("/signin?next=/sites", ""), stop{path: "/signin", unset: true}),
		"POST /signin":         {{path: "/signin", form: "name=eve&password=wrong"}},
		"POST /signin/passkey": {{path: "/signin/passkey", form: "answer=none"}},
		"GET /setup":           {{path: "/setup?token=token", unset: true}},
		"POST /setup":          {{path: "/setup", form: "token=token&name=ada&password=long+enough&again=other", unset: true}},
		"GET /sites":           append(as("/sites", "ada", "eve"), as("/sites?q=nothing&state=failed", "ada")...),
		"GET /jobs":            append(as("/jobs", "ada", "eve"), as("/jobs?state=failed&server=web1", "ada")...),
		"GET /servers":         as("/servers", "ada", "eve"), // to whom it is refused
		"GET /images":          append(as("/images", "ada", "rob"), as("/images?q=nothing", "ada")...),
		"GET /audit":           append(as("/audit", "ada"), as("/audit?object=site%2Facme.test&who=user+ada", "ada")...),
		"GET /declared":        nil,
		"GET /accounts":        append(as("/accounts", "ada"), as("/accounts?q=nothing", "ada")...),
		"GET /zones":           as("/zones", "ada"),
		"GET /users":           as("/users", "ada"),
		"GET /me":              as("/me", "ada", "eve", "rob"),

		"GET /sites/new":     as("/sites/new", "ada", "eve"),
		"POST /sites/new":    filled("/sites/new", "name", "new site", "aliases", "no name", "php", "on", "php.children", "many", "redirects", "/a", "do", "save"),
		"POST /servers":      append(filled("/servers", "name", "Web 2", "role", "cooking"), filled("/servers", "name", "web9", "role", "web")...),
		"GET /receivers/new": as("/receivers/new", "ada"),
		"POST /receivers/new": append(filled("/receivers/new", "name", "No Name", "type", "email", "to", "nobody", "smtp", "mail", "pools", "[", "do", "save"),
			filled("/receivers/new", "name", "pager", "type", "exec", "command", "/bin/page\n--now", "do", "preview")...),
		"GET /delegations/new":  as("/delegations/new", "ada"),
		"POST /delegations/new": filled("/delegations/new", "name", "no name", "account", "acme", "until", "tomorrow", "do", "save"),
		"POST /accounts":        filled("/accounts", "name", "root", "email", "nobody"),
		"POST /users":           filled("/users", "name", "A", "password", "short", "account", "none"),
		"GET /declare/{kind}":   nil,
		"POST /declare/{kind}":  append(filled("/declare/pool", "text", "kind: pool\nname: web\nbanana: 1\nttl: soon\n", "do", "save"), filled("/declare/account", "text", "kind: account\nname: shop\n", "do", "preview")...),
		"POST /me/password":     filled("/me/password", "present", "wrong", "password", "long enough a one", "again", "other"),
		"POST /me/passkeys":     filled("/me/passkeys", "label", "", "answer", "none"),
		"POST /me/factor": append(filled("/me/factor", "secret", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "code", "1", "present", "right"),
			stop{who: "rob-writes", path: "/me/factor", form: "secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&code=123456&present=right"}),
		"POST /me/tokens":           append(filled("/me/tokens", "name", "backup", "scope", "write", "days", "30"), filled("/me/tokens", "name", "backup", "scope", "write", "days", "3000")...),
		"POST /jobs/{id}/retry":     filled("/jobs/99999/retry", "x", "y"),
		"POST /users/{name}/remove": filled("/users/ada/remove", "x", "y"),
	}
	for _, kind := range writtenKinds {
		all["GET /declared"] = append(all["GET /declared"], as("/declared?kind="+kind, "ada")...)
		all["GET /declare/{kind}"] = append(all["GET /declare/{kind}"], as("/declare/"+kind, "ada")...)
	}
	s.named(all)
	return all
}

// named adds the stops of pages about one thing.
func (s scene) named(all map[string][]stop) {
	at := func(route string, stops ...[]stop) { all[route] = append(all[route], slices.Concat(stops...)...) }
	if s.pool != "" {
		path := "/pools/" + url.PathEscape(s.pool)
		at("GET /pools/{name}", as(path, "ada", "rob", ""))
		at("GET /status/{name}", as("/status/"+url.PathEscape(s.pool), ""))
		at("POST /pools/{name}/force", filled(path+"/force", "member", "192.0.2.99", "state", "down"))
	}
	if s.zone != "" {
		at("GET /zones/{name}", as(zonePath(s.zone), "ada", "rob"))
	}
	if s.site != "" {
		path, generation := sitePath(s.site), strconv.FormatInt(s.h.generation(s.site), 10)
		at("GET /sites/{name}", as(path, "ada", "eve"))
		at("GET /sites/{name}/edit", as(path+"/edit", "ada", "eve"))
		at("POST /sites/{name}/edit", filled(path+"/edit", "generation", generation, "account", "acme", "servers", "web1", "www", "on", "aliases", "new.test", "do", "preview"),
			filled(path+"/edit", "generation", "1", "account", "acme", "servers", "web1", "www", "on", "aliases", "mine.test", "do", "save"))
		at("GET /sites/{name}/history", as(path+"/history", "ada", "eve"))
		at("GET /sites/{name}/remove", as(path+"/remove", "ada"))
		at("POST /sites/{name}/remove", filled(path+"/remove", "generation", "none"))
		at("POST /sites/{name}/undo", filled(path+"/undo", "generation", "none"))
	}
	for kind, name := range s.things {
		path := declaredPath(kind, name)
		at("GET /declared/{kind}/{name}", as(path, "ada"), as(path, "rob"))
		at("GET /declared/{kind}/{name}/remove", as(path+"/remove", "ada"))
		at("POST /declared/{kind}/{name}", filled(path, "generation", "1", "text", "kind: "+kind+"\nname: other\n", "do", "save"))
		at("POST /declared/{kind}/{name}/remove", filled(path+"/remove", "generation", "none"))
		form, has := objectKinds[kind]
		if !has {
			continue
		}
		at("GET "+form.at+"{name}/edit", as(form.path(name), "ada", "rob"))
		at("POST "+form.at+"{name}/edit", filled(form.path(name), "generation", "1", "type", "webhook", "url", "https://other.test/", "account", "acme", "do", "save"))
	}
	if name := s.things[upkeep.KindReceiver]; name != "" {
		at("POST /receivers/{name}/test", filled("/receivers/"+url.PathEscape(name)+"/test", "x", "y"))
	}
	if name := s.things[upkeep.KindDelegation]; name != "" {
		at("POST /delegations/{name}/end", filled("/delegations/"+url.PathEscape(name)+"/end", "generation", "none"))
	}
	if s.server != "" {
		path, about := "/images/"+url.PathEscape(s.server), url.Values{"root": {s.root}, "path": {s.image}}.Encode()
		at("POST /servers/{name}/invite", filled("/servers/"+url.PathEscape(s.server)+"/invite", "x", "y"))
		at("GET /images/{name}/image", as(path+"/image?"+about, "ada", "rob"))
		for _, verb := range imageVerbs {
			at("GET /images/{name}/{verb}", as(path+"/"+verb.name+"?"+about, "ada"))
		}
		at("POST /images/{name}/{verb}", filled(path+"/create", "root", "vms", "path", "../x", "size", "much", "do", "run"),
			filled(path+"/create", "root", "vms", "path", "x.img", "size", "1G", "fs", "ext4", "do", "preview"))
	}
	for _, agent := range s.h.servers[:min(len(s.h.servers), 4)] {
		at("GET /servers/{name}", as("/servers/"+url.PathEscape(agent.Name), "ada", "rob"))
	}
	for _, job := range s.h.jobs[:min(len(s.h.jobs), 12)] {
		at("GET /jobs/{id}", as("/jobs/"+strconv.FormatInt(job.ID, 10), "ada"))
	}
	for _, entry := range s.h.audits[:min(len(s.h.audits), 6)] {
		at("GET /audit/{id}", as("/audit/"+strconv.FormatInt(entry.ID, 10), "ada"))
	}
}

// Every route of a page has a stop, so that a new page is walked through with the others.
func TestEveryPageHasAStop(t *testing.T) {
	s := livedIn(t)
	all := s.stops()
	routes := house(t, s.f, s.h).Routes()
	for _, route := range routes {
		if _, path, _ := strings.Cut(route, " "); strings.HasPrefix(path, "/api/") || slices.Contains(noPages, route) {
			continue
		}
		if len(all[route]) == 0 {
			t.Errorf("%s has no stop in the tour of all pages", route)
		}
	}
	for _, route := range slices.Concat(noPages, slices.Collect(maps.Keys(all))) {
		if !slices.Contains(routes, route) {
			t.Errorf("the tour knows %s, which is no route", route)
		}
	}
}

// tour has a browser at each stop of a scene in turn.
func (s scene) tour(t *testing.T, tab *browser.Tab, look func(at stop, origin string)) {
	t.Helper()
	var way []stop
	all := s.stops()
	for _, route := range slices.Sorted(maps.Keys(all)) {
		way = append(way, all[route]...)
	}
	s.walk(t, tab, way, look)
}

// walk has a browser at some stops in turn.
func (s scene) walk(t *testing.T, tab *browser.Tab, way []stop, look func(at stop, origin string)) {
	t.Helper()
	server := httptest.NewServer(house(t, s.f, s.h).Public())
	defer server.Close()
	// Browsers use no passkeys with an address.
	origin := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	for _, at := range way {
		s.h.unset(at.unset)
		tab.Do(browser.Cookie("upkeep", at.who, origin))
		visit(tab, origin, at)
		look(at, origin)
	}
	tab.Do(chromedp.Navigate("about:blank")) // lets go of streams
}

// visit opens a page, or has the answer to a form, sent as a page of the same host does.
func visit(tab *browser.Tab, origin string, at stop) {
	if at.form == "" {
		tab.Do(chromedp.Navigate(origin+at.path), chromedp.WaitReady(chromedp.CSS("footer")))
		return
	}
	tab.Do(chromedp.Navigate(origin+"/nothing"), chromedp.WaitReady(chromedp.CSS("footer")))
	browser.Ask[bool](tab, fmt.Sprintf(`(() => {
		document.documentElement.dataset.left = "yes";
		const form = document.createElement("form");
		form.method = "post";
		form.action = %q;
		for (const [name, value] of new URLSearchParams(%q)) {
			const field = document.createElement("textarea");
			field.name = name;
			field.value = value;
			form.append(field);
		}
		document.body.append(form);
		form.submit();
		return true;
	})()`, at.path, at.form))
	tab.Do(chromedp.WaitReady(chromedp.CSS("html:not([data-left]) footer")))
}

// livedIn is an upkeep in which something of everything has happened.
func livedIn(t testing.TB) scene {
	t.Helper()
	f, h := typical(), twoCustomers()
	f.pools[2].Page = upkeep.StatusPage{Public: true, Title: "Our shop"}
	f.pools[2].Members[0].Label, f.pools[1].Frozen = "Frankfurt", "none of the anchors 192.0.2.1 and 198.51.100.1 answers, so this machine itself is cut off"
	z := zoneOf("example.test")
	z.Publishers = append(z.Publishers, upkeep.PublisherStatus{Type: "bind", Agent: "dns2", Error: "rndc: connect failed: 127.0.0.1#953: connection refused", Hint: "is named running? systemctl status named"})
	z.Servers = append(z.Servers, upkeep.ServerStatus{Address: "ns3.example.net:53", Error: "read udp 192.0.2.1:41022->198.51.100.3:53: i/o timeout", AskedAt: past(2 * time.Second)})
	f.zones = append(f.zones, z)
	f.zones[0].Name = "example.org"
	h.things = documents(t)
	h.jobs = append(h.jobs,
		upkeep.Job{ID: 4, Account: "acme", Server: "web1", Kind: upkeep.JobSiteApply, Object: "site/acme.test", State: upkeep.JobRunning, Progress: "waiting for the web server to read its files", Percent: 60, Who: "user eve", Attempts: 1, After: []int64{1}, Created: past(9 * time.Second), Started: past(5 * time.Second)},
		upkeep.Job{ID: 5, Account: "acme", Kind: upkeep.JobNotification, Object: "notification/1", State: upkeep.JobPending, Text: "The certificate of acme.test ends in 9 days.", Created: past(3 * time.Hour)},
		upkeep.Job{ID: 6, Server: "web1", Kind: upkeep.JobServerFacts, Object: "server/web1", State: upkeep.JobDone, Who: "upkeep", Created: past(2 * time.Hour), Started: past(2 * time.Hour), Finished: past(2*time.Hour - 31*time.Millisecond), Result: []byte(`{"hostname":"web1.example.test","kinds":["site.apply","site.sync"]}`)},
		upkeep.Job{ID: 7, Server: "vm1", Kind: upkeep.JobImageGrow, Object: "image/vms/old/mail.img", State: upkeep.JobRunning, Progress: "copying", Percent: 40, Who: "user ada", Created: past(time.Minute), Started: past(50 * time.Second)},
		upkeep.Job{ID: 8, Server: "web1", Kind: upkeep.JobSiteSync, Object: "server/web1", State: upkeep.JobDone, Who: "user ada", Created: past(time.Hour), Finished: past(time.Hour - time.Second), Result: []byte(`{"drift":{"/etc/apache2/upkeep/acme.test.conf":"--- a\n+++ b\n@@ -1,2 +1,2 @@\n ServerName acme.test\n-ServerAlias old.test\n+ServerAlias new.test\n"}}`)},
		upkeep.Job{ID: 9, Account: "other", Server: "web1", Kind: upkeep.JobSiteRemove, Object: "site/gone.test", State: upkeep.JobCancelled, Who: "user ada", Created: past(30 * time.Hour), Finished: past(29 * time.Hour)})
	h.servers = append(h.servers,
		upkeep.AgentStatus{Name: "web2", Roles: []string{upkeep.RoleWeb, upkeep.RoleFiles}, State: "joined", Since: past(20 * time.Minute), Expires: time.Now().Add(50 * time.Hour), Pending: 12, Sites: 1204,
			Facts: &upkeep.Facts{At: past(time.Hour), Hostname: "web2.example.test", System: "Debian GNU/Linux 12 (bookworm)", WebServer: "Apache/2.4.66", Warnings: []string{"fs.protected_hardlinks is 0"}, Astray: map[string]string{"acme.test": "its file was changed by hand"}}},
		upkeep.AgentStatus{Name: "dns2", Roles: []string{upkeep.RoleDNS}, State: "waiting"})
	h.images[0].Problems = []string{"/srv/images/lost+found: permission denied"}
	h.images[0].Images[1].Label = "mail"
	was, is := []byte(`{"name":"acme.test","account":"acme","servers":["web1"]}`), []byte(`{"name":"acme.test","account":"acme","servers":["web1"],"aliases":["shop.acme.test"]}`)
	h.audits = []upkeep.AuditEntry{
		{ID: 3, At: past(time.Minute), Who: "user ada", Object: "site/acme.test", What: "changed aliases", Before: was, After: is},
		{ID: 2, At: past(time.Hour), Who: "uid 0 (root)", Object: "user/eve", What: "added", After: []byte(`{"name":"eve","role":"customer","account":"acme"}`)},
		{ID: 1, At: past(80 * time.Minute), Who: "uid 1000 (ada)", Object: "pool/mail/192.0.2.22", What: "drain", Why: "new kernel"},
	}
	h.users = []upkeep.User{{Name: "ada", Role: upkeep.UserStaff, Created: past(900 * time.Hour), SignIns: 2, Factor: true}, {Name: "eve", Role: upkeep.UserCustomer, Account: "acme", Created: past(90 * time.Hour), SignIns: 1, Locked: time.Now().Add(time.Minute)},
		{Name: "oda@example.test", Role: upkeep.UserStaff, Created: past(9 * time.Hour), Factor: true}}
	h.status = func(s upkeep.SiteStatus) upkeep.SiteStatus {
		if s.Name == "other.test" {
			s.State, s.Reason = upkeep.SiteFailed, "the web server on web1 refuses it: AH00526: Syntax error on line 7"
			s.Servers[0].State, s.Servers[0].Reason, s.Servers[0].URL = s.State, s.Reason, "http://192.0.2.80:80"
		}
		return s
	}
	return scene{f: f, h: h, pool: "web", zone: "example.test", site: "acme.test", user: "eve", server: "vm1", root: "vms", image: "old/mail.img",
		things: map[string]string{upkeep.KindPool: "web", upkeep.KindZone: "example.test", upkeep.KindReceiver: "ops", upkeep.KindServer: "web1", upkeep.KindAccount: "acme", upkeep.KindDelegation: "blog.example.test"}}
}
