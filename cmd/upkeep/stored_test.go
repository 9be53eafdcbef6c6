package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/browser"
)

const storedDocuments = `
kind: zone
name: page.test
publishers: [{type: transfer}]
---
kind: pool
name: shop
zones: [page.test]
records: [www]
members: [{address: 192.0.2.7, label: First}]
check: {type: tcp, port: 9}
status: {public: true}
---
kind: account
name: acme
---
kind: server
name: web9
roles: [web, files, images]
---
kind: site
name: shop.test
account: acme
servers: [web9]
`

// Whatever stands in the database of the real program, written there past all that
// checks it: on no page by the table of routes does a script of it run, does an element
// come of it, or is another host asked for anything.
func TestWhatIsInTheDatabaseIsText(t *testing.T) {
	tab := browser.Open(t)
	network, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "all.yaml")
	if err := os.WriteFile(file, []byte(storedDocuments), 0o644); err != nil {
		t.Fatal(err)
	}
	data, page := filepath.Join(dir, "data"), network+".80:"+port
	run := func(more ...string) *testkit.Process {
		return startUpkeep(t, []string{"UPKEEP_BEAT="}, append([]string{"up", "--data", data, "--dns", network + ".53:" + port, "--http", page, "--apache", "none"}, more...)...)
	}
	p := run("-f", file)
	var setup string
	testkit.Eventually(t, patience, func() (bool, string) {
		setup = regexp.MustCompile(`http://\S+/setup\?token=\w+`).FindString(p.Log())
		return setup != "", p.Log()
	})
	tab.Do(chromedp.Navigate(setup))
	tab.Fill("form.form", "name", "ada", "password", "a password for tests", "again", "a password for tests")
	tab.Click("form.form button", `//a[@href="/me" and contains(., "ada")]`)
	tab.Do(chromedp.Navigate("about:blank"))
	p.Signal(t, syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	spoilDatabase(t, filepath.Join(data, "upkeep.db"))

	run()
	testkit.Eventually(t, patience, func() (bool, string) {
		_, _, err := ask("http://"+page+"/healthz", page)
		return err == nil, fmt.Sprint(err)
	})
	seen := 0
	for _, pattern := range access.Patterns() {
		path, is := strings.CutPrefix(pattern, "GET ")
		if !is || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/assets/") || slices.Contains([]string{"/live", "/metrics", "/healthz", "/setup", "/signin"}, path) || strings.HasSuffix(path, ".svg") || strings.HasSuffix(path, ".xml") {
			continue
		}
		for _, at := range storedPaths(path) {
			tab.Do(chromedp.Navigate("http://"+page+at), chromedp.WaitReady(chromedp.CSS("body")))
			if found := tab.Harm(); len(found) > 0 {
				t.Errorf("%s: %.600q", at, found)
			}
			title := browser.Ask[string](tab, "document.title")
			if strings.Contains(title, "Error") || strings.Contains(title, "Sign in") {
				t.Errorf("%s is %q", at, title)
			}
			if browser.Ask[bool](tab, `document.body.textContent.includes("window.ran=1</script>")`) {
				seen++
			}
		}
	}
	if seen < 20 {
		t.Errorf("what is in the database is on %d pages alone", seen)
	}
	tab.Do(chromedp.Navigate("about:blank"))
	if wrong := tab.Strayed(network + ".80"); len(wrong) > 0 {
		t.Errorf("%.1000q", wrong)
	}
}

// storedPaths fills a pattern with the names of what there is, as it was declared and as
// it was written into the database.
func storedPaths(path string) []string {
	evil := url.PathEscape(browser.Markup)
	if strings.HasPrefix(path, "/status/") {
		return []string{"/status/shop"} // another is no page
	}
	if strings.Contains(path, "{kind}") {
		var all []string
		for _, kind := range upkeep.Kinds {
			if kind != upkeep.KindSite {
				all = append(all, strings.NewReplacer("{kind}", kind, "{name}", evil).Replace(path))
			}
		}
		return all
	}
	switch path {
	case "/images/{name}/image", "/images/{name}/{verb}":
		return []string{strings.NewReplacer("{name}", "web9", "{verb}", "grow").Replace(path) + "?" + url.Values{"root": {browser.Markup}, "path": {browser.Markup}}.Encode()}
	case "/declared":
		return []string{"/declared?kind=account", "/declared?kind=server", "/declared?kind=delegation", "/declared?kind=receiver", "/declared?kind=pool", "/declared?kind=zone"}
	}
	known := map[string]string{"/pools/": "shop", "/zones/": "page.test", "/sites/": "shop.test"}
	name := "none"
	for prefix, is := range known {
		if strings.HasPrefix(path, prefix) {
			name = is
		}
	}
	var all []string
	for _, id := range []string{"1", "2", "3", "4"} {
		for _, n := range []string{name, evil} {
			if one := strings.NewReplacer("{name}", n, "{id}", id, "{$}", "").Replace(path); !slices.Contains(all, one) {
				all = append(all, one)
			}
		}
	}
	return all
}

// spoilDatabase writes markup wherever a text stands, and declares something under such
// a name of each kind.
func spoilDatabase(t *testing.T, path string) {
	t.Helper()
	db, err := store.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	const evil = browser.Markup
	for _, object := range []upkeep.Object{
		upkeep.Account{Name: evil, Email: evil}, upkeep.Server{Name: evil, Roles: []string{evil, upkeep.RoleWeb}}, upkeep.Delegation{Name: evil, Account: evil, Until: evil},
		upkeep.Receiver{Name: evil, Type: evil, To: []string{evil}, URL: evil},
	} {
		document, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		spoil(t, path, "INSERT INTO objects (kind, name, generation, document, changed_at, changed_by, deleted) VALUES ($1, $2, 1, $3, 1, $2, false)", object.ObjectKind(), object.ObjectName(), string(document))
	}
	image := upkeep.ImageFile{Root: evil, Path: evil, Size: 1 << 30, Format: evil, Type: evil, Label: evil, UUID: evil, State: evil, Holders: []string{evil}}
	for kind, result := range map[string]any{
		upkeep.JobServerFacts: upkeep.Facts{Hostname: evil, System: evil, WebServer: evil, Warnings: []string{evil}, Astray: map[string]string{evil: evil}},
		upkeep.JobImageList:   upkeep.ImageList{Images: []upkeep.ImageFile{image}, Problems: []string{evil}},
		upkeep.JobSiteSync:    map[string]any{"drift": map[string]string{evil: "@@ -1 +1 @@" + evil + "\n-" + evil + "\n+" + evil + "\n"}},
	} {
		made, err := db.Enqueue(t.Context(), store.NewJob{Job: upkeep.Job{Server: "web9", Kind: kind, Object: "server/web9", Account: "acme", Who: evil}})
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(result)
		if err != nil {
			t.Fatal(err)
		}
		spoil(t, path, "UPDATE jobs SET state = 'done', result = $1 WHERE id = $2", string(text), made[0].ID)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"UPDATE events SET who = $1, what = $1, why = $1, object = CASE WHEN id % 3 = 0 THEN $1 ELSE object END, kind = CASE WHEN id % 5 = 0 THEN $1 ELSE kind END",
		"UPDATE audit SET who = $1, what = $1, why = $1, object = CASE WHEN id % 2 = 0 THEN $1 ELSE object END, before = CASE WHEN id % 2 = 0 THEN $1 ELSE before END",
		"UPDATE jobs SET error = $1, progress = $1, field = $1, who = $1",
		"UPDATE jobs SET state = 'failed' WHERE kind NOT IN ('server.facts', 'image.list', 'site.sync')",
		"UPDATE sign_ins SET address = $1, agent = $1",
		"INSERT INTO access_tokens (hash, user_id, name, scope, created, expires, seen) SELECT 'x', id, $1, $1, 1, 4000000000000000000, 1 FROM users",
		"INSERT INTO users (name, role, account, password, created, failures, locked) VALUES ($1, $1, $1, '', 1, 0, 0)",
		"INSERT INTO site_state (server, site, generation, url, document_root, state, reason, at) VALUES ('web9', 'shop.test', 1, $1, $1, 'failed', $1, 1)",
		"UPDATE object_history SET changed_by = $1",
	} {
		if strings.Contains(text, "$1") {
			spoil(t, path, text, evil)
		} else {
			spoil(t, path, text)
		}
	}
}

func spoil(t *testing.T, path, text string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
		t.Errorf("%s: %v", text, err)
	}
}
