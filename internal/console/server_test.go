package console

import (
	"encoding/json"
	"fmt"
	"html"
	"strings"
	"testing"
	"time"

	"upkeep"
)

// The page of a server says what its agent told of it and of its policy, how its files
// compare with what is declared, and how it joins.
func TestPageOfAServer(t *testing.T) {
	h := twoCustomers()
	made := past(time.Hour)
	h.servers = []upkeep.AgentStatus{
		{Name: "web1", Roles: []string{upkeep.RoleWeb}, State: "joined", Connected: true, Sites: 3, Expires: made.Add(3 * upkeep.Day), Facts: &upkeep.Facts{At: made, Hostname: "web1.example.test <b>", System: "Debian", Kernel: "6.1", Version: "1.2",
			WebServer: "Apache/2.4.66", Kinds: []string{"site.apply", "site.sync"}, Astray: map[string]string{"acme.test": "changed by hand"}, Warnings: []string{"fs.protected_hardlinks is 0"},
			Allows: &upkeep.Allowed{Roots: map[string]string{"home": "/srv/home"}, ImageRoots: map[string]string{"vms": "/srv/vms"}, MaxImage: 64 << 30, UIDMin: 20000, UIDMax: 20999, DeleteBudget: 20, IncludeDirs: []string{"/etc/bind/upkeep"}}}},
		{Name: "old1", Roles: []string{upkeep.RoleFiles}, State: "joined", Facts: &upkeep.Facts{Hostname: "old1", Kinds: []string{"mkdir"}}},
		{Name: "new1", Roles: []string{upkeep.RoleWeb}, State: "new"},
	}
	drifted, err := json.Marshal(map[string]any{"drift": map[string]string{"/etc/apache2/upkeep/a.conf": "--- a\n+++ b\n@@ -1 +1 @@\n-Options None\n+Options All\n"}})
	if err != nil {
		t.Fatal(err)
	}
	verify := upkeep.Job{ID: 8, Server: "web1", Kind: upkeep.JobSiteSync, Object: "sites/verify", State: upkeep.JobDone, Created: made, Finished: made}
	h.jobs = append(h.jobs, verify, upkeep.Job{ID: 9, Server: "web1", Kind: upkeep.JobSiteSync, Object: "sites", State: upkeep.JobDone, Created: made})
	a := house(t, typical(), h).Public()
	page := func(name string) string {
		t.Helper()
		w := ask(a, "ada", "GET", "/servers/"+name, "")
		if w.Code != 200 || strings.Contains(w.Body.String(), "<b>") {
			t.Errorf("%s answers %d: %s", name, w.Code, w.Body)
		}
		return html.UnescapeString(w.Body.String())
	}
	says := func(body string, words ...string) {
		t.Helper()
		for _, word := range words {
			if !strings.Contains(body, word) {
				t.Errorf("the page does not say %q: %s", word, body)
			}
		}
	}
	says(page("web1"), "web1.example.test <b>", "site.apply, site.sync", "Folders below home", "/srv/home", "Images below vms", "/srv/vms", "64G", "20000 to 20999", "20 in an hour", "/etc/bind/upkeep", "changed by hand",
		"fs.protected_hardlinks is 0", "They were as they should be", "/jobs/8", "Its agent has joined", `action="/servers/web1/verify"`, `class="warn">`+made.Add(3*upkeep.Day).Local().Format("2006-01-02"))
	h.jobs[len(h.jobs)-2].Result = drifted
	says(page("web1"), "They differed", "/etc/apache2/upkeep/a.conf", `<span class="added">+Options All</span>`)
	h.jobs[len(h.jobs)-2].Result, h.jobs[len(h.jobs)-2].State, h.jobs[len(h.jobs)-2].Error = nil, upkeep.JobFailed, "the disk is full"
	says(page("web1"), "The last comparison", "the disk is full")
	says(page("old1"), "tells no more than that", "mkdir")
	says(page("new1"), "It has told nothing yet", "It is not known before the agent has connected", "They were never compared", "upkeep join https://192.0.2.1:8055 TOKEN", "agent-policy.yaml", `action="/servers/new1/invite"`)
	if body := ask(a, "rob", "GET", "/servers/new1", "").Body.String(); strings.Contains(body, "/servers/new1/invite") {
		t.Error("who may only read is offered a token")
	}
	if w := ask(a, "ada", "GET", "/servers/none", ""); w.Code != 404 {
		t.Errorf("a server that there is not answers %d", w.Code)
	}
	if list := ask(a, "ada", "GET", "/servers", "").Body.String(); !strings.Contains(list, `<a href="/servers/web1">`) {
		t.Error("the list does not lead there")
	}
}

func TestBoundsInWords(t *testing.T) {
	if got := fmt.Sprint(bounds(upkeep.Allowed{})); got != "[{User ids of accounts none: accounts get no users here} {Removals none}]" {
		t.Errorf("a policy that allows nothing is said as %s", got)
	}
}

func TestJoinCommand(t *testing.T) {
	for listen, want := range map[string]string{
		"192.0.2.1:8055": "upkeep join https://192.0.2.1:8055 x false", "[2001:db8::1]:8055": "upkeep join https://[2001:db8::1]:8055 x false",
		"0.0.0.0:8055": "upkeep join https://CONTROL:PORT x true", "[::]:8055": "upkeep join https://CONTROL:PORT x true", "": "upkeep join https://CONTROL:PORT x true",
	} {
		command, placeholder := joinCommand(listen, "x")
		if got := fmt.Sprint(command, " ", placeholder); got != want {
			t.Errorf("%q: %s, want %s", listen, got, want)
		}
	}
}
