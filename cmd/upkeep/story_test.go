package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/miekg/dns"

	"upkeep/internal/access"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/browser"
)

const storyPassword = "a password for tests"

// story is a browser in which ada of staff is signed in at a real control, with its own
// agent.
type story struct {
	t             *testing.T
	tab           *browser.Tab
	up            *client.Client
	network, port string
	page          string // where the console answers
}

// begin starts control with further arguments, in which NET and PORT stand for what is
// free.
func begin(t *testing.T, network, port string, args ...string) *story {
	t.Helper()
	s := &story{t: t, tab: browser.Open(t), network: network, port: port, page: "http://" + network + ".80:" + port}
	dir := t.TempDir()
	for _, folder := range []string{dir, filepath.Dir(dir)} { // the web server's user passes them
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	args = append([]string{"up", "--data", data, "--dns", network + ".53:" + port, "--http", network + ".80:" + port}, args...)
	p := startUpkeep(t, []string{"UPKEEP_BEAT="}, args...)
	var setup string
	testkit.Eventually(t, patience, func() (bool, string) {
		setup = regexp.MustCompile(`http://\S+/setup\?token=\w+`).FindString(p.Log())
		return setup != "", p.Log()
	})
	s.up = client.OverSocket(data)
	s.tab.Do(chromedp.Navigate(setup))
	s.tab.Fill("form.form", "name", "ada", "password", storyPassword, "again", storyPassword)
	s.tab.Click("form.form button", `//a[@href="/me" and contains(., "ada")]`)
	return s
}

func (s *story) declare(documents string) {
	s.t.Helper()
	if _, err := s.up.Apply(s.t.Context(), []wire.Source{{Text: documents}}, false); err != nil {
		s.t.Fatal(err)
	}
}

// open goes to a page and waits until it is told of what happens.
func (s *story) open(path string) {
	s.tab.Do(chromedp.Navigate(s.page+path), chromedp.WaitReady(chromedp.CSS(`html[data-following=yes]`)))
	browser.Ask[bool](s.tab, "window.kept = true")
}

// changedByItself fails when a page was loaded anew since it was opened.
func (s *story) changedByItself() {
	s.t.Helper()
	if !browser.Ask[bool](s.tab, "window.kept === true") {
		s.t.Error("the page was loaded anew rather than changed")
	}
}

// complains fails for what the browser found wrong, but for answers that are meant.
func (s *story) complains(meant ...string) {
	s.t.Helper()
	s.tab.Do(chromedp.Navigate("about:blank")) // lets go of the stream
	for _, complaint := range s.tab.Complaints() {
		fine := false
		for _, status := range meant {
			fine = fine || strings.Contains(complaint, status)
		}
		if !fine {
			s.t.Errorf("the browser complains: %s", complaint)
		}
	}
}

// signIn leaves who is signed in, and signs somebody else in.
func (s *story) signIn(name string) {
	s.tab.Click(`form[action="/signout"] button`, `//a[@href="/signin"]`)
	s.tab.Do(chromedp.Navigate(s.page + "/signin"))
	s.tab.Fill("form.form", "name", name, "password", storyPassword)
	s.tab.Click("form.form button", `//a[@href="/me" and contains(., "`+name+`")]`)
}

// host answers at an address until it is closed.
func host(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close() })
	return listener
}

// answers are the addresses that a name server gives for a name.
func answers(server, name string) (string, error) {
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), dns.TypeA)
	answer, _, err := new(dns.Client).Exchange(question, server)
	if err != nil {
		return "", err
	}
	var all []string
	for _, rr := range answer.Answer {
		if a, is := rr.(*dns.A); is {
			all = append(all, a.A.String())
		}
	}
	return strings.Join(all, " "), nil
}

// A member dies, and the open page of its pool and BIND are without it; it returns; it
// is drained, and the page says when it may be stopped.
func TestMemberDiesAndIsDrained(t *testing.T) {
	testkit.Need(t, "named", "rndc", "named-checkzone")
	network, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	named := testkit.StartNamed(t, testkit.NamedConfig{Config: `zone "page.test" { type primary; file "{dir}/db.page.test"; };`, Files: map[string]string{
		"db.page.test":    "$INCLUDE \"{dir}/inc/soa.include\"\n$INCLUDE \"{dir}/inc/ips.include\"\n@ IN NS ns1\nns1 IN A 192.0.2.53\n",
		"inc/soa.include": "$TTL 60\n@ IN SOA ns1 hostmaster (\n 7 ; Serial\n 300 60 86400 60 )\n",
		"inc/ips.include": "www IN A 192.0.2.1\n",
	}})
	s := begin(t, network, port)
	first, second := network+".1", network+".2"
	host(t, first+":"+port)
	dies := host(t, second+":"+port)
	s.declare(fmt.Sprintf(`
kind: zone
name: page.test
publishers: [{type: bind, zone_file: %q, include_dir: %q, server: %q, rndc: [rndc, -c, %q]}]
servers: [%q]
---
kind: pool
name: shop
zones: [page.test]
records: [www]
ttl: 2s
members: [%s, %s]
check: {type: tcp, port: %s, interval: 100ms}
policy: {probation: 100ms, add_window: 0s}
`, named.Path("db.page.test"), named.Path("inc"), named.Addr, named.Path("rndc.conf"), named.Addr, first, second, port))
	wants := func(want string) {
		t.Helper()
		testkit.Eventually(t, patience, func() (bool, string) {
			got, err := answers(named.Addr, "www.page.test")
			parts := strings.Fields(got)
			if len(parts) == 2 && parts[0] == second {
				got = parts[1] + " " + parts[0]
			}
			return got == want, fmt.Sprint(got, err)
		})
	}
	wants(first + " " + second)
	row := `//section[@id="members"]//tr[th[contains(., "` + second + `")]]`
	s.open("/pools/shop")
	drawing := "#m-" + strings.ReplaceAll(second, ".", "-") + " svg.spark"
	s.tab.Do(chromedp.WaitVisible(row+`//td[@data-name="State" and contains(., "up")]`), chromedp.WaitReady(chromedp.CSS(drawing))) // by itself
	if says := browser.Ask[string](s.tab, `document.querySelector("`+drawing+`").getAttribute("aria-label")`); !strings.HasPrefix(says, "round trips in the last hour: at least ") {
		t.Errorf("what is drawn is said as %q", says)
	}

	dies.Close()
	s.tab.Do(chromedp.WaitVisible(row+`//td[@data-name="State" and contains(., "down")]`), chromedp.WaitVisible(row+`//td[@data-name="In DNS" and contains(., "no")]`),
		chromedp.WaitVisible(row+`//td[@data-name="Reason" and contains(., "refused")]`), chromedp.WaitVisible(`//ol[@class="log"]//li[contains(., "publishing 1 of 2")]`))
	wants(first)
	host(t, second+":"+port)
	s.tab.Do(chromedp.WaitVisible(row + `//td[@data-name="In DNS" and contains(., "yes")]`))
	wants(first + " " + second)
	s.changedByItself()

	browser.Ask[bool](s.tab, `document.querySelector("form[action='/pools/shop/force'] select[name=member]").value = "`+second+`"; true`)
	s.tab.Fill(`form[action="/pools/shop/force"]`, "why", "a new disk")
	s.tab.Click(`form[action="/pools/shop/force"] button`, row+`//td[@data-name="State" and contains(., "forced drain")]`)
	s.tab.Do(chromedp.WaitReady(chromedp.CSS(`html[data-following=yes]`)), chromedp.WaitVisible(row+`//td[@data-name="Reason" and contains(., "a new disk")]`))
	browser.Ask[bool](s.tab, "window.kept = true")
	s.tab.Do(chromedp.WaitVisible(row + `//td[@data-name="State" and contains(., "drained: it can be stopped")]`)) // by itself, when its TTL has run out
	s.changedByItself()
	wants(first)
	browser.Ask[bool](s.tab, `document.querySelector("form[action='/pools/shop/force'] select[name=member]").value = "`+second+`"; document.querySelector("select[name=state]").value = "auto"; true`)
	s.tab.Click(`form[action="/pools/shop/force"] button`, row+`//td[@data-name="In DNS" and contains(., "yes")]`)
	wants(first + " " + second)
	s.complains()
}

// A site that its server refuses says why, in the words of its form; what two people
// change at the same time is lost to neither; and who is signed out is shown nothing
// more and does nothing more.
func TestCustomerIsToldAndKept(t *testing.T) {
	testkit.Need(t, "apache2")
	network, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, network, port, "--apache", network+".90:"+port)
	s.declare("kind: account\nname: acme\n---\nkind: account\nname: other\n")
	for user, account := range map[string]string{"eve": "acme"} {
		if err := s.up.AddUser(t.Context(), wire.NewUser{Name: user, Role: "customer", Account: account, Password: storyPassword}); err != nil {
			t.Fatal(err)
		}
	}
	s.signIn("eve")
	s.tab.Do(chromedp.Navigate(s.page + "/sites/new"))
	s.tab.Fill("form.form", "name", "shop.example.test")
	browser.Ask[bool](s.tab, `for (const d of document.querySelectorAll("details")) d.open = true; document.querySelector("input[name=php]").checked = true; true`)
	s.tab.Click(`button[value="save"]`, `//h1[contains(., "shop.example.test")]`)
	// This machine's policy names no php-fpm.
	s.tab.Do(chromedp.WaitVisible(`//section[@id="headline"]//p[@class="reason" and contains(., "failed") and contains(., "php-fpm")]`), // by itself
		chromedp.WaitVisible(`//section[@id="course"]//li[@class="failed"]//a[contains(., "PHP")]`))
	s.tab.Click(`#course li.failed a`, `//input[@name="php"]`)
	browser.Ask[bool](s.tab, `for (const d of document.querySelectorAll("details")) d.open = true; document.querySelector("input[name=php]").checked = false; true`)
	s.tab.Click(`button[value="save"]`, `//section[@id="headline"]//p[@class="reason" and contains(., "live")]`)

	s.tab.Do(chromedp.Navigate(s.page+"/sites/shop.example.test/edit"), chromedp.WaitVisible(chromedp.CSS("form.form")))
	s.declare("kind: site\nname: shop.example.test\naccount: acme\nservers: [local]\naliases: [theirs.example.test]\n")
	browser.Ask[bool](s.tab, `for (const d of document.querySelectorAll("details")) d.open = true; true`)
	s.tab.Fill("form.form", "aliases", "mine.example.test")
	s.tab.Click(`button[value="save"]`, `//h2[contains(., "Somebody else changed it")]`)
	if typed := browser.Ask[string](s.tab, `document.querySelector("textarea[name=aliases]").value`); typed != "mine.example.test" {
		t.Errorf("of what was typed this is left: %q", typed)
	}
	if diff := browser.Ask[string](s.tab, `document.querySelector("pre.diff").textContent`); !strings.Contains(diff, "theirs.example.test") || !strings.Contains(diff, "mine.example.test") {
		t.Errorf("the difference is %q", diff)
	}
	s.tab.Click(`button[value="save"]`, `//section[@id="headline"]//h1[contains(., "shop.example.test")]`)
	if site, err := s.up.Site(t.Context(), "shop.example.test"); err != nil || !strings.Contains(strings.Join(site.Names, " "), "mine.example.test") {
		t.Errorf("the site has the names %v, %v", site.Names, err)
	}

	jar := s.cookies("eve")
	if status, _ := s.send(jar, http.MethodGet, "/sites/shop.example.test", ""); status != http.StatusOK {
		t.Errorf("before, its page answers %d", status)
	}
	s.open("/sites")
	before := time.Now()
	if err := s.up.SignUserOut(t.Context(), "eve"); err != nil {
		t.Fatal(err)
	}
	if status, text := s.send(jar, http.MethodPost, "/sites/shop.example.test/remove", "generation=1"); status != http.StatusUnauthorized {
		t.Errorf("a change by who was signed out answers %d: %s", status, text)
	}
	s.tab.Do(chromedp.WaitVisible(`//h1[contains(., "Sign in")]`)) // by itself
	if took := time.Since(before); took > 5*time.Second {
		t.Errorf("the page that was open stays for %s", took)
	}
	s.complains("412")
}

// cookies are those of a browser in which somebody signed in.
func (s *story) cookies(name string) http.CookieJar {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if status, text := s.send(jar, http.MethodPost, "/signin", url.Values{"name": {name}, "password": {storyPassword}}.Encode()); status != http.StatusSeeOther {
		s.t.Fatalf("signing %s in answers %d: %s", name, status, text)
	}
	return jar
}

// send sends what a browser does, without following where it leads.
func (s *story) send(jar http.CookieJar, method, path, body string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, s.page+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if strings.HasPrefix(path, "/api/") {
		r.Header.Set("Content-Type", "application/json")
	}
	c := http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := c.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text := new(strings.Builder)
	buffer := make([]byte, 32<<10)
	for text.Len() < 1<<20 {
		n, err := response.Body.Read(buffer)
		text.Write(buffer[:n])
		if err != nil {
			break
		}
	}
	return response.StatusCode, text.String()
}

// A customer goes to every address there is, of staff and of somebody else's things:
// in the browser to every page, and to all else as a browser would send it.
func TestCustomerTriesEveryAddress(t *testing.T) {
	testkit.Need(t, "apache2")
	network, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, network, port, "--apache", network+".90:"+port)
	s.declare(`
kind: account
name: acme
---
kind: account
name: other
email: only-other-may-read-this@other.test
---
kind: zone
name: page.test
publishers: [{type: transfer}]
---
kind: pool
name: web
zones: [page.test]
records: [www]
members: [192.0.2.7]
check: {type: tcp, port: 9}
---
kind: receiver
name: ops
type: exec
command: [/bin/true]
---
kind: delegation
name: blog.other.test
account: other
---
kind: site
name: other.test
account: other
servers: [local]
aliases: [only-other-may-read-this.test]
`)
	if err := s.up.AddUser(t.Context(), wire.NewUser{Name: "eve", Role: "customer", Account: "acme", Password: storyPassword}); err != nil {
		t.Fatal(err)
	}
	jobs, err := s.up.Jobs(t.Context(), wire.JobFilter{Object: "site/other.test"})
	if err != nil || len(jobs) == 0 {
		t.Fatalf("the jobs of the other site: %v, %v", jobs, err)
	}
	s.signIn("eve")
	jar := s.cookies("eve")
	tried := 0
	for _, pattern := range access.Patterns() {
		rule, _ := access.For(pattern)
		named := strings.Contains(pattern, "{name}") || strings.Contains(pattern, "{id}")
		if rule.For < access.Customers || rule.Lasts || rule.For == access.Customers && !named {
			continue
		}
		method, path, _ := strings.Cut(pattern, " ")
		path = s.others(path, jobs[0].ID)
		if strings.HasPrefix(path, "/me/") {
			continue // one's own
		}
		body := "generation=1&still=1"
		if strings.HasPrefix(path, "/api/") {
			body = `{"generation":1}`
		}
		status, text := s.send(jar, method, path, body)
		refused := status == http.StatusForbidden
		if rule.For == access.Customers { // somebody else's things are not there
			refused = status == http.StatusNotFound
		}
		if !refused || strings.Contains(text, "only-other-may-read-this") {
			t.Errorf("%s %s answers a customer %d: %.300s", method, path, status, text)
		}
		tried++
		if method != http.MethodGet || strings.HasPrefix(path, "/api/") {
			continue
		}
		says := "This is for staff."
		if rule.For == access.Customers {
			says = "There is no such"
		}
		s.tab.Do(chromedp.Navigate(s.page+path), chromedp.WaitVisible(`//main//p[contains(., "`+says+`")]`))
		if shown := browser.Ask[string](s.tab, "document.documentElement.outerHTML"); strings.Contains(shown, "only-other-may-read-this") {
			t.Errorf("%s shows what is somebody else's", path)
		}
	}
	if tried < 60 {
		t.Errorf("only %d addresses were tried", tried)
	}
	site, err := s.up.Site(t.Context(), "other.test")
	if err != nil || site.Generation != 1 || site.Account != "other" {
		t.Errorf("the other site is %+v by now, %v", site, err)
	}
	if servers, err := s.up.Servers(t.Context()); err != nil || len(servers) != 1 || !servers[0].Connected {
		t.Errorf("servers are %+v, %v", servers, err)
	}
	s.complains("403", "404")
}

// others fills the address of a route with what is somebody else's, or staff's.
func (s *story) others(path string, job int64) string {
	name := "other.test"
	for part, there := range map[string]string{"/pools/": "web", "/users/": "ada", "/servers/": "local", "/images/": "local", "/zones/": "page.test", "/accounts/": "other", "/receivers/": "ops", "/delegations/": "blog.other.test", "/declared/": "ops"} {
		if strings.Contains(path, part) {
			name = there
		}
	}
	kind := "site"
	if strings.HasPrefix(path, "/declare") {
		kind = "receiver"
	}
	return strings.NewReplacer("{name}", name, "{kind}", kind, "{verb}", "create", "{id}", fmt.Sprint(job), "{member}", "192.0.2.7", "{$}", "").Replace(path)
}
