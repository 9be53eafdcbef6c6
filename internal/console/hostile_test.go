package console

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/testkit/browser"
)

// poisoner makes every text of values evil, and knows each by a number.
type poisoner struct {
	start  string          // what texts begin with
	round  int             // how often all was made anew
	brief  bool            // names are short enough for pages under them to be followed
	number map[string]int  // of each text, by its path
	kept   map[string]bool // paths of texts that decide what is shown
	names  map[string]bool // paths of texts that addresses of pages have
}

var fieldNumber = regexp.MustCompile(`f(\d+)z`)

func (p *poisoner) text(path string) string {
	if p.number[path] == 0 {
		p.number[path] = len(p.number) + 1
	}
	round, markup := p.round, browser.Markup
	if p.names[path] {
		round = 0
		if p.brief {
			markup = `"'><script>window.ran=1</script><evil-mark onclick=x>`
		}
	}
	return fmt.Sprintf("%sf%dz k%dz %s", p.start, p.number[path], round, markup)
}

// unset are types whose texts have a form of their own.
var formed = []reflect.Type{reflect.TypeFor[time.Time](), reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.Prefix](), reflect.TypeFor[upkeep.Network]()}

// fill makes all texts below a value evil.
func (p *poisoner) fill(v reflect.Value, path string) {
	if slices.Contains(formed, v.Type()) || p.kept[path] {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(p.text(path))
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() {
				p.fill(v.Field(i), path+"."+field.Name)
			}
		}
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		p.fill(v.Elem(), path)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return // raw JSON is written by hand
		}
		if v.Len() == 0 && !slices.Contains(formed, v.Type().Elem()) {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		for i := range v.Len() {
			p.fill(v.Index(i), path)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		p.fill(key, path+" key")
		p.fill(value, path)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	}
}

// poisoned is a value with all texts evil.
func poisoned[T any](p *poisoner, path string, value T) T {
	p.fill(reflect.ValueOf(&value).Elem(), path)
	return value
}

// raw is JSON with evil in it, as it is kept.
func (p *poisoner) raw(path, format string) json.RawMessage {
	quoted, err := json.Marshal(p.text(path))
	if err != nil {
		panic(err)
	}
	return json.RawMessage(strings.ReplaceAll(format, "EVIL", strings.Trim(string(quoted), `"`)))
}

// hostileScene is an upkeep in which every text that comes from elsewhere is evil, and
// so many pools.
func hostileScene(p *poisoner, pools int) scene {
	p.kept = map[string]bool{"job.State": true, "job.Kind": true, "job.Object": true, "job.Account": true, "job.Server": true, "site.Account": true, "status.State": true, "status.Name": true, "status.Account": true,
		"status.Servers.State": true, "status.Servers.Server": true, "event.Kind": true, "event.Object": true, "event.What": true, "drained.Admin": true, "user.Role": true, "audit.Object": true, "server.Roles": true, "pool.Zones": true, "event of a zone.Kind": true, "event of a zone.Object": true,
		"document pool.Name": true, "document pool.Zones": true, "document zone.Name": true}
	p.names = map[string]bool{"pool.Name": true, "zone.Name": true, "site.Name": true, "server.Name": true, "image list.Server": true, "image list.Images.Root": true, "image list.Images.Path": true}
	for _, kind := range writtenKinds {
		p.names["document "+kind+".Name"] = true
	}
	f, h := &fake{}, twoCustomers()
	s := scene{f: f, h: h, user: "eve", things: map[string]string{}}
	p.fillPools(&s, pools)
	s.pool, s.zone = f.pools[0].Name, f.zones[0].Name

	site := poisoned(p, "site", upkeep.Site{Account: "acme"})
	s.site = site.Name
	before := poisoned(p, "former site", upkeep.Site{Account: "acme"})
	h.sites = []upkeep.Site{site}
	h.history = map[string][]store.Version{site.Name: {{Generation: 3, Object: site, At: past(time.Hour), Who: p.text("version.Who")}, {Generation: 2, Object: before, At: past(time.Hour), Who: p.text("version.Who")}}}
	status := poisoned(p, "status", upkeep.SiteStatus{Name: site.Name, Account: "acme", Generation: 3, State: upkeep.SiteFailed, Servers: []upkeep.ServedStatus{{Server: p.text("job.Server!"), State: upkeep.SiteFailed}}})
	h.status = func(upkeep.SiteStatus) upkeep.SiteStatus { return status }
	h.things = nil
	for _, kind := range writtenKinds {
		zero, _ := upkeep.ZeroObject(kind)
		value := reflect.New(reflect.TypeOf(zero)).Elem()
		p.fill(value, "document "+kind)
		if kind == upkeep.KindZone {
			value.FieldByName("Name").SetString(s.zone)
		}
		if kind == upkeep.KindPool {
			value.FieldByName("Name").SetString(s.pool)
			value.FieldByName("Zones").Set(reflect.ValueOf([]string{s.zone}))
		}
		object := value.Interface().(upkeep.Object)
		s.things[kind] = object.ObjectName()
		h.things = append(h.things, upkeep.Declared{Generation: 4, Object: object})
	}
	p.fillJobs(&s)
	p.fillServers(&s)
	h.users = []upkeep.User{{Name: "ada", Role: upkeep.UserStaff}, poisoned(p, "user", upkeep.User{Role: upkeep.UserCustomer, Factor: true, Locked: time.Now().Add(time.Hour)})}
	h.signIns = []upkeep.SignIn{poisoned(p, "sign-in", upkeep.SignIn{ID: 9, Created: past(time.Hour), Seen: past(time.Hour)})}
	h.tokens = []upkeep.AccessToken{poisoned(p, "token", upkeep.AccessToken{ID: 9, Expires: time.Now().Add(time.Hour)})}
	h.passkeys = []upkeep.Passkey{poisoned(p, "passkey", upkeep.Passkey{ID: 9, Created: past(time.Hour)})}
	h.audits = []upkeep.AuditEntry{
		poisoned(p, "audit", upkeep.AuditEntry{ID: 3, At: past(time.Minute), Object: "site/" + site.Name, Before: p.raw("audit.Before", `{"name":"x","account":"acme","servers":["EVIL"]}`), After: p.raw("audit.After", `{"name":"x","account":"acme","servers":["EVIL"]}`)}),
		poisoned(p, "audit of another kind", upkeep.AuditEntry{ID: 2, At: past(time.Minute), Before: p.raw("audit.Before of another kind", `{"EVIL":"EVIL"}`), After: p.raw("audit.After of another kind", `"EVIL`)}),
	}
	return s
}

func (p *poisoner) fillPools(s *scene, pools int) {
	f := s.f
	zone := poisoned(p, "zone", zoneOf(""))
	zone.Servers[0].InSync = false
	below := poisoned(p, "zone of a pool", zoneOf(""))
	below.Servers[0].InSync = false
	zone.Publishers = append(zone.Publishers, upkeep.PublisherStatus{Type: p.text("publisher.Type"), At: past(time.Minute)})
	f.zones = []upkeep.ZoneStatus{zone}
	for i := range pools {
		one := poisoned(p, "pool", pool("", member("192.0.2.11"), member("192.0.2.12"), member("192.0.2.13")))
		one.Zones, one.Page.Public, one.Page.Addresses = []upkeep.ZoneStatus{below}, true, true
		if i > 0 {
			one.Name = fmt.Sprintf("pool-%d %s", i, one.Name)
		}
		one.Members[1].Verdict, one.Members[1].Admin = upkeep.Down, upkeep.AdminDrain
		f.pools = append(f.pools, one)
	}
	name := f.pools[0].Name
	for i, event := range []upkeep.Event{
		poisoned(p, "event", upkeep.Event{Kind: upkeep.EventVerdict, Object: "pool/" + name + "/192.0.2.12", What: "up"}),
		poisoned(p, "event", upkeep.Event{Kind: upkeep.EventVerdict, Object: "pool/" + name + "/192.0.2.12", What: "down"}),
		poisoned(p, "event of a zone", upkeep.Event{Kind: upkeep.EventAdmin, Object: "zone/" + f.zones[0].Name}),
		poisoned(p, "event of any kind", upkeep.Event{}),
	} {
		event.ID, event.At = int64(i+1), past(time.Duration(9-i)*time.Hour)
		f.events = append(f.events, event)
	}
}

func (p *poisoner) fillJobs(s *scene) {
	now, server := past(time.Minute), p.text("job.Server!")
	job := func(id int64, kind string, state upkeep.JobState, object string) upkeep.Job {
		return poisoned(p, "job", upkeep.Job{ID: id, Account: "acme", Server: server, Kind: kind, State: state, Object: object, Created: now, Started: now, Percent: 40})
	}
	s.h.jobs = []upkeep.Job{
		job(1, upkeep.JobSiteApply, upkeep.JobFailed, "site/"+s.site), job(2, upkeep.JobNotification, upkeep.JobPending, "notification/1"), job(3, upkeep.JobServerFacts, upkeep.JobDone, "server/x"),
		job(4, upkeep.JobSiteSync, upkeep.JobDone, "server/x"), job(5, upkeep.JobImageGrow, upkeep.JobRunning, "image/"+p.text("image list.Images.Root")+"/"+p.text("image list.Images.Path")),
		poisoned(p, "any job", upkeep.Job{ID: 6, Created: now, Account: "acme"}), job(7, upkeep.JobSiteApply, upkeep.JobRunning, "site/"+s.site),
	}
	s.h.jobs[1].Error = ""
	s.h.jobs[2].Result = p.raw("job.Result", `{"EVIL":"EVIL"}`)
	s.h.jobs[3].Result = p.raw("job.Result of a sync", `{"drift":{"EVIL":"--- a\n+++ b\n@@ -1 +1 @@EVIL\n-EVIL\n+EVIL\n EVIL\n"}}`)
	s.h.jobs[4].Error, s.h.jobs[6].Error, s.h.jobs[6].Text = "", "", ""
}

func (p *poisoner) fillServers(s *scene) {
	list := poisoned(p, "image list", upkeep.ImageList{At: past(time.Hour), Images: []upkeep.ImageFile{{Size: 4 << 30, Allocated: 1 << 30}, {}}})
	damaged := list.Images[0]
	damaged.Path, damaged.Unfinished = "damaged.img", ""
	list.Images[1] = upkeep.ImageFile{Root: "vms", Path: "sound.img", Size: 4 << 30, Allocated: 1 << 30, Used: 1 << 20, Free: 1 << 30, Format: "raw", State: p.text("image list.Images.State"), Type: p.text("image list.Images.Type")}
	list.Images = append(list.Images, damaged)
	s.h.images = []upkeep.ImageList{list}
	s.server, s.root, s.image = list.Server, list.Images[0].Root, list.Images[0].Path
	web := poisoned(p, "server", upkeep.AgentStatus{Roles: []string{upkeep.RoleWeb, upkeep.RoleFiles}})
	s.h.servers = []upkeep.AgentStatus{web, poisoned(p, "server", upkeep.AgentStatus{Roles: []string{p.text("server.Roles!")}})}
}

// hostileStops are those of a scene, and those again with what a person types made evil.
func (s scene) hostileStops() []stop {
	var way []stop
	spoil := func(query string, kept ...string) string {
		values, err := url.ParseQuery(query)
		if err != nil {
			panic(err)
		}
		for name := range values {
			if !slices.Contains(kept, name) {
				values[name] = []string{browser.Markup}
			}
		}
		return values.Encode()
	}
	all := s.stops()
	for _, route := range slices.Sorted(maps.Keys(all)) {
		for _, at := range all[route] {
			way = append(way, at)
			path, query, asked := strings.Cut(at.path, "?")
			if asked {
				at.path = path + "?" + spoil(query, "kind", "wrong")
			}
			if at.form != "" {
				at.form = spoil(at.form, "do", "generation")
			}
			if asked || at.form != "" {
				way = append(way, at)
			}
		}
	}
	return append(way, as("/nothing/"+url.PathEscape(browser.Markup), "ada")...)
}

// unshown are texts that no page shows, by their paths, with the reason.
var unshown = map[string]string{
	"pool.Frozen":              "that it is frozen is shown, and its sentence says why",
	"pool.Members.PerfData":    "it is for programs",
	"former site.Environment":  "values of the environment may be passwords, and are not in diffs",
	"server.Facts.InForce key": "it is for the agent and control to agree on",
}

// Whatever is in the database, and whatever somebody types: no script of it runs, nothing
// of it becomes an element or an attribute, and nothing is asked of another host. That
// every text is on some page is seen by its number.
func TestNothingThatIsStoredBecomesMarkup(t *testing.T) {
	tab := browser.Open(t)
	tab.Do(chromedp.EmulateViewport(1280, 900))
	number := map[string]int{}
	seen := map[string]bool{}
	for _, one := range []struct {
		start string
		pools int
	}{{"", 1}, {"javascript:window.ran=12//", fullPools + 1}} {
		p := &poisoner{start: one.start, number: number}
		s := hostileScene(p, one.pools)
		s.walk(t, tab, s.hostileStops(), func(at stop, origin string) {
			if found := tab.Harm(); len(found) > 0 {
				t.Errorf("%.120s: %.600q", at, found)
			}
			for _, n := range fieldNumber.FindAllString(browser.Ask[string](tab, "document.documentElement.outerHTML"), -1) {
				seen[n] = true
			}
		})
		if wrong := tab.Strayed("localhost"); len(wrong) > 0 {
			t.Errorf("%.1000q", wrong)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(number)) {
		switch shown := seen[fmt.Sprintf("f%dz", number[path])]; {
		case !shown && unshown[path] == "":
			t.Errorf("%s is on no page: is there a page that this test does not fill?", path)
		case shown && unshown[path] != "":
			t.Errorf("%s is on a page, though it is listed as shown on none", path)
		}
	}
}

// What an open page is told as it happens is held together as pages are.
func TestNothingThatIsToldLiveBecomesMarkup(t *testing.T) {
	tab := browser.Open(t)
	tab.Do(chromedp.EmulateViewport(1280, 900))
	p := &poisoner{number: map[string]int{}, brief: true}
	s := hostileScene(p, 1)
	all := s.stops()
	var way []stop
	for _, route := range slices.Sorted(maps.Keys(concerns)) {
		way = append(way, all[route][0])
	}
	s.walk(t, tab, way, func(at stop, _ string) {
		tab.Do(chromedp.WaitReady(chromedp.CSS(`html[data-following=yes]`)))
		p.round++
		s.turn(hostileScene(p, 1))
		t.Logf("%.60s is told of round %d", at, p.round)
		tab.Do(chromedp.WaitReady(fmt.Sprintf(`//*[@data-live][contains(., "k%dz")]`, p.round)))
		if found := tab.Harm(); len(found) > 0 {
			t.Errorf("%.120s: %.600q", at, found)
		}
	})
	if wrong := tab.Strayed("localhost"); len(wrong) > 0 {
		t.Errorf("%.1000q", wrong)
	}
}

// turn has everything be as in another scene, and tells of it.
func (s scene) turn(to scene) {
	s.f.change(func() { s.f.pools, s.f.zones, s.f.events = to.f.pools, to.f.zones, to.f.events })
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.sites, s.h.jobs, s.h.servers, s.h.images, s.h.audits, s.h.status, s.h.things = to.h.sites, to.h.jobs, to.h.servers, to.h.images, to.h.audits, to.h.status, to.h.things
	for _, job := range s.h.jobs {
		for _, news := range s.h.changes {
			news <- &job
		}
	}
}
