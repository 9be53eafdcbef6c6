package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
	"upkeep/internal/webserver"
)

const webPolicy = `
kinds: [user.ensure, user.remove, site.files, site.apply, site.remove, site.sync, server.facts]
roots: {home: DIR/home}
uids: {min: 20000, max: 20999}
group: web
web: {server: apache, include: /etc/apache2/hosted.d}
delete_budget: 3
`

// newWebLab is a server with an Apache of its own.
func newWebLab(t testing.TB) *lab {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "apache2")
	l := newLab(t, webPolicy)
	dir := filepath.Join(l.dir, "apache")
	address := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	apache, err := webserver.Private(t.Context(), dir, address)
	l.must(err)
	t.Cleanup(func() {
		if err := apache.Close(); err != nil {
			t.Error(err)
		}
	})
	layout := webserver.PrivateLayout(dir, address)
	layout.Home = l.path("home")
	options := webserver.Options{
		Server: apache, Layout: layout, State: filepath.Join(dir, "state"), Address: address, URL: "http://" + address,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	l.webOptions = options
	l.openWeb()
	t.Cleanup(func() { _ = l.o.Web.Applier.Close() })
	return l
}

// openWeb opens the web server, and starts the agent with it.
func (l *lab) openWeb() {
	l.t.Helper()
	applier, err := webserver.Open(l.t.Context(), l.webOptions)
	l.must(err)
	l.o.Web = &Web{Applier: applier, Server: l.webOptions.Server, Layout: l.webOptions.Layout, URL: l.webOptions.URL}
	l.start()
}

func apply(name, account string, uid int, generation int64) task.SiteApply {
	f := files(name, account, uid, generation)
	return task.SiteApply{Site: f.Site, Generation: generation, Tenant: f.Tenant}
}

// page asks the web server for the first page of a name.
func (l *lab) page(name string) string {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, l.o.Web.URL+"/", nil)
	l.must(err)
	req.Host, req.Close = name, true
	resp, err := http.DefaultClient.Do(req)
	l.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	l.must(err)
	if resp.StatusCode != http.StatusOK {
		return resp.Status
	}
	return string(text)
}

// write puts a page into the site's folder, as its account would.
func (l *lab) write(name, account string, uid int) {
	l.t.Helper()
	path := l.path("home/" + account + "/" + name + "/htdocs/index.html")
	l.must(os.WriteFile(path, []byte("page of "+name), 0o644))
	l.must(os.Chown(path, uid, uid))
}

func TestSiteFromNothingToServed(t *testing.T) {
	l := newWebLab(t)
	outcome := l.wantDone(apply("example.test", "acme", 20001, 1), 1)
	var told task.SiteResult
	l.must(json.Unmarshal(outcome.Result, &told))
	if told.URL != l.o.Web.URL || told.Generation != 1 || told.DocumentRoot != l.path("home/acme/example.test/htdocs") {
		t.Errorf("told %+v", told)
	}
	l.write("example.test", "acme", 20001)
	l.wantDone(apply("other.test", "beta", 20002, 1), 1)
	l.write("other.test", "beta", 20002)
	for _, name := range []string{"example.test", "www.example.test", "other.test"} {
		if got, want := l.page(name), "page of "+strings.TrimPrefix(name, "www."); got != want {
			t.Errorf("%s answers %q", name, got)
		}
	}
	if got := l.like("home/acme/example.test/log"); !strings.HasPrefix(got, "L") {
		t.Errorf("log is %s", got)
	}
	// A field that the web server's renderer refuses is named.
	bad := apply("third.test", "acme", 20001, 1)
	bad.Site.Root = "public"
	l.wantDone(bad, 1)
	// It is taken away, and its files are kept.
	l.wantDone(task.SiteRemove{Name: "example.test", Account: "acme", Generation: 2}, 2)
	if got := l.page("example.test"); strings.Contains(got, "page of") {
		t.Errorf("it still answers %q", got)
	}
	if got := l.like("home/acme/example.test"); got != "none" {
		t.Errorf("its folder is %s", got)
	}
	kept, err := filepath.Glob(l.path("home/acme/.trash/example.test.*/htdocs/index.html"))
	if err != nil || len(kept) != 1 || l.like("home/acme/.trash") != "drwx------ 0:0" {
		t.Errorf("kept %v, %v, in %s", kept, err, l.like("home/acme/.trash"))
	}
	if outcome := l.do(apply("example.test", "acme", 20001, 1), 1); outcome.State != upkeep.JobSuperseded {
		t.Errorf("an old job brought it back: %+v", outcome)
	}
	if got := l.page("other.test"); got != "page of other.test" {
		t.Errorf("the neighbour answers %q", got)
	}
	facts := l.root.Facts(t.Context())
	if facts.Sites != 2 || !strings.HasPrefix(facts.WebServer, "Apache/2.4") || facts.URL != l.o.Web.URL {
		t.Errorf("facts are %+v", facts)
	}
}

// TestFirstPage sees that a new site shows a page that is its account's, and that
// nothing is ever put over or beside what the account has there.
func TestFirstPage(t *testing.T) {
	l := newWebLab(t)
	site := apply("example.test", "acme", 20001, 1)
	l.wantDone(site, 1)
	if page := l.page("example.test"); !strings.Contains(page, "<h1>example.test is ready</h1>") {
		t.Errorf("it answers %q", page)
	}
	first := "home/acme/example.test/htdocs/index.html"
	if got := l.like(first); got != "-rw-r--r-- 20001:20001" {
		t.Errorf("the page is %s", got)
	}
	// Its owner removes it, and it stays away; the same with the whole folder, when
	// that is made anew.
	again := func(change func(*task.SiteApply)) {
		t.Helper()
		site.Generation++
		change(&site)
		l.wantDone(site, site.Generation)
	}
	l.must(os.Remove(l.path(first)))
	again(func(s *task.SiteApply) {
		s.Site.Deny = []upkeep.Network{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
	})
	l.must(os.Remove(l.path("home/acme/example.test/htdocs")))
	l.wantDone(task.SiteSync{Sites: []task.SiteApply{site}}, 0)
	if got := l.like(first); got != "none" {
		t.Errorf("it came back as %s", got)
	}
	// A new root is a new folder; one that its owner has made before is not.
	l.must(os.Mkdir(l.path("home/acme/example.test/htdocs/mine"), 0o755))
	l.must(os.Chown(l.path("home/acme/example.test/htdocs/mine"), 20001, 20001))
	again(func(s *task.SiteApply) { s.Site.Root = "mine" })
	again(func(s *task.SiteApply) { s.Site.Root, s.Site.Index = "ours", []string{"start.html", "index.html"} })
	again(func(s *task.SiteApply) { s.Site.Root, s.Site.Index = "other", []string{"start.php"} })
	for name, want := range map[string]string{"mine/index.html": "none", "ours/start.html": "-rw-r--r-- 20001:20001", "ours/index.html": "none", "other/start.php": "none"} {
		if got := l.like("home/acme/example.test/htdocs/" + name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	sub := apply("blog.example.test", "acme", 20001, 1)
	sub.Site.SubOf = "example.test"
	l.wantDone(sub, 1)
	if page := l.page("blog.example.test"); !strings.Contains(page, "blog.example.test is ready") {
		t.Errorf("the sub-site answers %q", page)
	}
	// Of two new sites the one that lives in the other's folder comes first.
	sub, site = apply("blog.late.test", "acme", 20001, 1), apply("late.test", "acme", 20001, 1)
	sub.Site.SubOf = "late.test"
	l.wantDone(sub, 1)
	l.wantDone(site, 1)
	for _, name := range []string{"late.test", "blog.late.test"} {
		if page := l.page(name); !strings.Contains(page, "<h1>"+name+" is ready</h1>") {
			t.Errorf("%s answers %q", name, page)
		}
	}
	first = "home/acme/late.test/htdocs/index.html"
	l.must(os.Remove(l.path(first)))
	again(func(s *task.SiteApply) { s.Site.Aliases = []string{"later.test"} })
	if got := l.like(first); got != "none" {
		t.Errorf("it came back as %s", got)
	}
}

func TestSiteFilesElsewhere(t *testing.T) {
	l := newWebLab(t)
	site := apply("example.test", "acme", 20001, 1)
	site.Site.Files = "files1"
	l.wantFailed(site, 1, "is not there")
	if l.passwd("acme") == "" || l.like("home/acme") != "none" {
		t.Errorf("the user is %q, and the home %s", l.passwd("acme"), l.like("home/acme"))
	}
}

// Hashes of passwords are in no result of a job, which is kept and shown; neither
// is what somebody wrote into such a file by hand.
func TestSyncHidesPasswords(t *testing.T) {
	l := newWebLab(t)
	site := apply("a.test", "acme", 20001, 1)
	const hash = "$2y$05$Ud.N4/E1iXzGrcVFq9r0gux1iOuiN/Dm8UT7rCD3/x0B0DGOh0cfq"
	site.Site.Protect = []upkeep.Protection{{Path: "/x", Users: map[string]string{"ann": hash, "bob": hash}}}
	verify := task.SiteSync{Sites: []task.SiteApply{site}, Verify: true}
	told := func(outcome link.Outcome) string {
		t.Helper()
		if strings.Contains(string(outcome.Result), hash[7:]) || strings.Contains(string(outcome.Result), "sesame") {
			t.Errorf("the result has a password: %s", outcome.Result)
		}
		var result task.SyncResult
		l.must(json.Unmarshal(outcome.Result, &result))
		for path, text := range result.Drift {
			if strings.HasPrefix(path, l.o.Web.Layout.Auth) {
				return text
			}
		}
		t.Fatalf("there is no difference of a password file: %s", outcome.Result)
		return ""
	}
	if got := told(l.wantDone(verify, 0)); !strings.Contains(got, "+ann:"+upkeep.HiddenHash(hash)) {
		t.Errorf("got %s", got)
	}
	l.wantDone(site, 1)
	var file string
	l.must(filepath.WalkDir(l.o.Web.Layout.Auth, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			file = path
		}
		return err
	}))
	l.must(os.WriteFile(file, []byte("ann:open sesame\nsesame\nbob:"+hash), 0o640))
	if got := told(l.wantDone(verify, 0)); !strings.Contains(got, "-ann:(hidden hash") || !strings.Contains(got, "+ann:(hidden hash") {
		t.Errorf("got %s", got)
	}
}

// TestSyncReadsWhatIsNew sees that sites are read again where they are other than
// they were applied, and only there, also by an agent that was started anew.
func TestSyncReadsWhatIsNew(t *testing.T) {
	l := newWebLab(t)
	sites := []task.SiteApply{apply("a.test", "acme", 20001, 1), apply("b.test", "beta", 20002, 1), apply("c.test", "acme", 20001, 1)}
	alone := sites[0]
	alone.Batch, alone.BatchSize, alone.Hold = 7, 1, 10 // as it comes in a job of its own
	l.wantDone(alone, 1)
	sync := task.SiteSync{Sites: sites}
	known := func(sync task.SiteSync) (all string) {
		t.Helper()
		job, err := link.Open(l.o.Key, "web1", l.now, l.sign(sync.Kind(), sync.Object(), 0, sync))
		l.must(err)
		payload, err := l.root.decode(job)
		l.must(err)
		for i, site := range payload.(task.SiteSync).Sites {
			if payload.(task.SiteSync).Known(i) {
				all += site.Site.Name + " "
			}
		}
		return all
	}
	expect := func(sync task.SiteSync, want string) {
		t.Helper()
		if got := known(sync); got != want {
			t.Errorf("known are %q, want %q", got, want)
		}
	}
	expect(sync, "a.test ")
	l.wantDone(sync, 0)
	expect(sync, "a.test b.test c.test ")
	l.start()
	expect(sync, "a.test b.test c.test ")
	verify := sync
	verify.Verify = true
	expect(verify, "") // which reads everything
	changed := task.SiteSync{Sites: slices.Clone(sites)}
	changed.Sites[1].Suspended = true
	expect(changed, "a.test c.test ")
	l.wantDone(changed, 0)
	expect(changed, "a.test b.test c.test ")
	if got := l.page("b.test"); !strings.HasPrefix(got, "503") {
		t.Errorf("suspended, it answers %q", got)
	}
	l.wantDone(task.SiteRemove{Name: "c.test", Account: "acme", Generation: 1}, 1)
	expect(changed, "a.test b.test ")
}

func TestSiteSync(t *testing.T) {
	l := newWebLab(t)
	all := task.SiteSync{Sites: []task.SiteApply{apply("a.test", "acme", 20001, 1), apply("b.test", "beta", 20002, 1)}}
	l.wantDone(all, 0)
	l.write("a.test", "acme", 20001)
	l.write("b.test", "beta", 20002)
	if a, b := l.page("a.test"), l.page("b.test"); a != "page of a.test" || b != "page of b.test" {
		t.Fatalf("got %q and %q", a, b)
	}
	include := l.o.Web.Layout.Include
	result := func(outcome link.Outcome) (told task.SyncResult) {
		t.Helper()
		l.must(json.Unmarshal(outcome.Result, &told))
		return told
	}
	verify := all
	verify.Verify = true
	if told := result(l.wantDone(verify, 0)); len(told.Drift) > 0 || len(told.Strays) > 0 || told.Served != 2 {
		t.Errorf("told %+v", told)
	}
	// Somebody edits a file.
	edited, err := filepath.Glob(filepath.Join(include, "*a.test*"))
	if err != nil || len(edited) != 1 {
		t.Fatalf("found %v, %v", edited, err)
	}
	l.must(os.WriteFile(edited[0], []byte("# by hand\n"), 0o644))
	if told := result(l.wantDone(verify, 0)); !strings.Contains(told.Drift[edited[0]], "-# by hand") {
		t.Errorf("told %+v", told)
	}
	if told := result(l.wantDone(all, 0)); len(told.Drift) != 1 || told.Served != 2 {
		t.Errorf("told %+v", told)
	}
	if told := result(l.wantDone(verify, 0)); len(told.Drift) > 0 {
		t.Errorf("told %+v", told)
	}
	// Somebody removes the folders of sites, and one cannot be made anew.
	l.must(errors.Join(os.RemoveAll(l.path("home/acme/a.test/htdocs")), os.RemoveAll(l.path("home/beta"))))
	if told := result(l.wantDone(verify, 0)); len(told.Failed) != 2 || !strings.Contains(told.Failed[0].Rule, "the folder of its pages is gone") {
		t.Errorf("told %+v", told)
	}
	l.must(os.WriteFile(l.path("home/beta"), nil, 0o600))
	told := result(l.wantDone(all, 0))
	if told.Served != 1 || len(told.Failed) != 1 || told.Failed[0].Object != "site/b.test" || told.Failed[0].Field != "" {
		t.Errorf("told %+v", told)
	}
	l.must(os.Remove(l.path("home/beta")))
	if told := result(l.wantDone(all, 0)); told.Served != 2 || len(told.Failed) != 0 {
		t.Errorf("told %+v", told)
	}
	for _, site := range all.Sites {
		l.write(site.Site.Name, site.Site.Account, site.Tenant.UID)
		if got := l.page(site.Site.Name); got != "page of "+site.Site.Name {
			t.Errorf("%s answers %q", site.Site.Name, got)
		}
	}
	// A job that was made before a site came must not take it away.
	stale := l.sign(all.Kind(), all.Object(), 0, all)
	l.wantDone(apply("c.test", "acme", 20001, 1), 1)
	if outcome := l.root.Do(t.Context(), stale, nil); outcome.State != upkeep.JobSuperseded {
		t.Errorf("got %+v", outcome)
	}
	// Fewer sites than there are: the rest is removed, within the budget.
	for _, name := range []string{"d.test", "e.test"} {
		l.wantDone(apply(name, "acme", 20001, 1), 1)
	}
	// What control cannot read is neither removed nor taken for a stray.
	unread := task.SiteSync{Sites: all.Sites[1:], Keep: []string{"a.test", "c.test", "d.test", "e.test"}}
	if told := result(l.wantDone(unread, 0)); len(told.Drift) > 0 || len(told.Strays) > 0 || told.Served != 1 {
		t.Errorf("told %+v", told)
	}
	if got := l.page("a.test"); got != "page of a.test" {
		t.Errorf("it answers %q", got)
	}
	l.wantDone(all, 0)
	if got := l.page("c.test"); got == "page of c.test" {
		t.Error("c.test still answers")
	}
	if outcome := l.do(apply("c.test", "acme", 20001, 2), 2); outcome.State != upkeep.JobDone {
		t.Errorf("it does not come back: %+v", outcome)
	}
}

// A synchronisation removes as many sites as the budget has room for, says which ones
// it left, and does all else. A removal that had failed before ends well afterwards.
func TestSyncWithinBudget(t *testing.T) {
	l := newWebLab(t)
	names := []string{"a.test", "b.test", "c.test", "d.test", "e.test"}
	for _, name := range names {
		site := apply(name, "acme", 20001, 1)
		site.Site.Protect = []upkeep.Protection{{Path: "/x", Realm: "x", Users: map[string]string{"ann": "$2y$05$Kghm/VJ1GUKKHbwF2VnhL.CCMQR36lKVLth6Z6U3Ib/QWHlSGDRwy"}}}
		l.wantDone(site, 1)
		l.write(name, "acme", 20001)
	}
	mended := task.SiteSync{Sites: []task.SiteApply{apply("e.test", "acme", 20001, 2)}}
	result := func(outcome link.Outcome) (told task.SyncResult) {
		t.Helper()
		l.must(json.Unmarshal(outcome.Result, &told))
		return told
	}
	verify := mended
	verify.Verify = true
	told := result(l.wantDone(verify, 0))
	for _, name := range names[:4] {
		file := filepath.Join(l.o.Web.Layout.Include, "50-"+name+".conf")
		if text := told.Drift[file]; !strings.Contains(text, "\n-\tServerName "+name) || !strings.Contains(text, "not declared here") {
			t.Errorf("of %s it shows %q", file, text)
		}
	}
	for path, text := range told.Drift {
		if text == "" || strings.Contains(text, "Kghm") {
			t.Errorf("of %s it shows %q", path, text)
		}
	}
	if told.Differ != len(told.Drift) {
		t.Errorf("%d files, and %d shown", told.Differ, len(told.Drift))
	}
	// An order that nothing at all be served is refused whole.
	l.wantFailed(task.SiteSync{}, 0, "removing site a.test and 4 more: the policy of this server allows 3 removals an hour, and 0 were made")
	var removals []link.Signed
	for _, name := range names[:4] {
		remove := task.SiteRemove{Name: name, Account: "acme", Generation: 1}
		removals = append(removals, l.sign(remove.Kind(), remove.Object(), 1, remove))
	}
	told = result(l.wantDone(mended, 0))
	if told.Served != 1 || !slices.Equal(told.Removed, names[:3]) || !slices.Equal(told.Left, names[3:4]) || len(told.Failed) != 1 || told.Failed[0].Object != "server/web1" ||
		!strings.Contains(told.Failed[0].Rule, "removing site d.test: the policy of this server allows 3 removals an hour, and 3 were made") || !strings.Contains(told.Failed[0].Rule, "try again after") {
		t.Errorf("told %+v", told)
	}
	for i, name := range names {
		if got, want := l.page(name) == "page of "+name, i > 2; got != want {
			t.Errorf("%s answers: %v", name, got)
		}
	}
	for i, name := range names[:3] {
		if outcome := l.root.Do(t.Context(), removals[i], nil); outcome.State != upkeep.JobDone || l.like("home/acme/"+name) != "none" {
			t.Errorf("%s is removed once more: %+v, and its folder is %s", name, outcome, l.like("home/acme/"+name))
		}
	}
	if outcome := l.root.Do(t.Context(), removals[3], nil); outcome.State != upkeep.JobFailed || l.like("home/acme/d.test") == "none" {
		t.Errorf("the budget has room for another: %+v", outcome)
	}
	l.now = l.now.Add(time.Hour)
	l.wantDone(task.SiteRemove{Name: "d.test", Account: "acme", Generation: 1}, 1)
	if l.like("home/acme/d.test") != "none" || l.page("d.test") == "page of d.test" {
		t.Error("d.test is still there")
	}
}

// TestOpenWeb has an agent serve a site by the web server that its policy
// describes.
func TestOpenWeb(t *testing.T) {
	l := newWebLab(t) // for its Apache
	l.must(l.o.Web.Applier.Close())
	dir, layout := l.path("apache"), l.o.Web.Layout
	l.reload(fmt.Sprintf(`
kinds: [site.apply, server.facts]
roots: {home: DIR/home}
uids: {min: 20000, max: 20999}
web: {server: apache, include: %s, data: %s/data, logs: %s/sitelogs, listen: %q, url: %q, program: %s, config: %s/apache.conf, pid_file: %s/run/apache.pid}
`, layout.Include, dir, dir, layout.Listen, l.o.Web.URL, webserver.FindApache(), dir, dir))
	web, err := OpenWeb(t.Context(), l.o.Policy, l.o.State, nil, l.o.Logger)
	l.must(err)
	defer func() { l.must(web.Applier.Close()) }()
	l.o.Web = web
	// The group of the lab's own /etc/group is not that of the machine's.
	text, err := os.ReadFile(l.path("etc/group"))
	l.must(err)
	l.must(os.WriteFile(l.path("etc/group"), []byte(strings.Replace(string(text), "web:", "www-data:", 1)), 0o600))
	l.start()
	l.wantDone(apply("example.test", "acme", 20001, 1), 1)
	l.write("example.test", "acme", 20001)
	if got := l.page("example.test"); got != "page of example.test" {
		t.Errorf("it answers %q", got)
	}
	if got := l.like("apache/sitelogs/example.test"); !strings.HasSuffix(got, " 0:20001") {
		t.Errorf("its logs are %s", got)
	}
}

// A name moves from one site to another, and the job of the one that gains it comes
// first.
func TestNameIsWaitedFor(t *testing.T) {
	l := newWebLab(t)
	loses, gains := apply("a.test", "acme", 20001, 1), apply("b.test", "acme", 20001, 1)
	loses.Site.Aliases = []string{"shop.a.test"}
	l.wantDone(loses, 1)
	gains.Site.Aliases, loses.Site.Aliases, loses.Generation = loses.Site.Aliases, nil, 2
	told := make(chan link.Progress, 100)
	outcome := make(chan link.Outcome, 1)
	signed := l.sign(gains.Kind(), gains.Object(), 1, gains)
	go func() {
		outcome <- l.root.Do(t.Context(), signed, func(p link.Progress) { told <- p })
	}()
	for p := range told {
		if strings.HasPrefix(p.Step, "waiting for a name") {
			break
		}
	}
	l.wantDone(loses, 2)
	if o := <-outcome; o.State != upkeep.JobDone {
		t.Errorf("%+v", o)
	}
}

// The folder of a site that is removed stays until no other site is served from it, and
// that is said where it takes long.
func TestFolderThatIsServedFrom(t *testing.T) {
	l := newWebLab(t)
	l.wantDone(apply("a.test", "acme", 20001, 1), 1)
	sub := apply("sub.a.test", "acme", 20001, 1)
	sub.Site.SubOf = "a.test"
	l.wantDone(sub, 1)
	l.must(os.WriteFile(l.path("home/acme/a.test/htdocs/sub/index.html"), []byte("page of sub"), 0o644))
	remove := task.SiteRemove{Name: "a.test", Account: "acme", Generation: 2}
	l.wantFailed(remove, 2, "a.test does not answer here any more, and its folder stays, since sub.a.test is served from it still")
	if got := l.page("sub.a.test"); got != "page of sub" {
		t.Errorf("sub.a.test answers %q", got)
	}
	told, outcome := make(chan link.Progress, 100), make(chan link.Outcome, 1)
	signed := l.sign(remove.Kind(), remove.Object(), 2, remove)
	go func() {
		outcome <- l.root.Do(t.Context(), signed, func(p link.Progress) { told <- p })
	}()
	for p := range told {
		if p.Step == "waiting for sub.a.test, which is served from its folder" {
			break
		}
	}
	l.wantDone(task.SiteRemove{Name: "sub.a.test", Account: "acme", Generation: 2}, 2)
	if o := <-outcome; o.State != upkeep.JobDone || l.like("home/acme/a.test") != "none" {
		t.Errorf("%+v, and the folder is %s", o, l.like("home/acme/a.test"))
	}
}

// A site that is not served any more as it was applied is applied again by the very
// job that was done before; otherwise such a job is done already.
func TestAstraySiteIsAppliedAgain(t *testing.T) {
	l := newWebLab(t)
	order := apply("example.test", "acme", 20001, 1)
	l.wantDone(order, 1)
	l.write("example.test", "acme", 20001)
	if facts := l.root.Facts(t.Context()); facts.Astray != nil {
		t.Errorf("astray are %v", facts.Astray)
	}
	before := l.o.Web.Applier.Stats()
	l.wantDone(order, 1)
	if after := l.o.Web.Applier.Stats(); after.Reloads != before.Reloads {
		t.Error("the same job was done twice")
	}
	// Nothing good is kept of it, as after a crash of the machine.
	l.must(l.o.Web.Applier.Close())
	l.must(os.Truncate(filepath.Join(l.webOptions.State, "good"), 0))
	l.must(os.WriteFile(l.o.Web.Layout.Place(vhost.Files("example.test")[0]), []byte("NoSuchThing\n"), 0o600))
	l.openWeb()
	l.must(l.o.Web.Server.Reload(t.Context()))
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		page := l.page("example.test")
		return strings.HasPrefix(page, "421"), page
	})
	if facts := l.root.Facts(t.Context()); len(facts.Astray) != 1 || !strings.Contains(facts.Astray["example.test"], "did not pass") || !maps.Equal(facts.InForce, map[string]int64{"example.test": 0}) {
		t.Errorf("astray are %v, with %v in force", facts.Astray, facts.InForce)
	}
	l.wantDone(order, 1)
	if got := l.page("example.test"); got != "page of example.test" {
		t.Errorf("it answers %q", got)
	}
	if facts := l.root.Facts(t.Context()); facts.Astray != nil {
		t.Errorf("astray are %v", facts.Astray)
	}
}
