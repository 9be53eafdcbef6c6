package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/declare"
	"upkeep/internal/testkit"
)

// A web server that ends, and one that is back, is told of by the look that its agent
// takes anyway, whatever was asked of it in between; sites on it are not called live
// while it is away.
func TestWebServerComesAndGoes(t *testing.T) {
	t.Parallel()
	h := newHosting(t, 1)
	web1 := h.machines[0]
	h.must(h.apply(context.Background(), upkeep.Account{Name: "acme"}, siteOn("one.test", "web1")))
	h.settled(time.Minute)
	const warning = "warning: web1: the web server: "
	expect := func(state string, warned bool) {
		t.Helper()
		testkit.Eventually(t, 30*time.Second, func() (bool, string) {
			servers, sites := h.says("server", "list"), h.says("site", "list")
			return strings.Contains(servers, warning) == warned && strings.Contains(sites, state), servers + sites
		})
	}
	expect("live", false)
	for round := range 2 {
		web1.killApache()
		if round > 0 { // what a job told is older than what the agent says from then on
			h.says("job", "run", "server.facts", "--server", "web1", "--wait")
		}
		expect("failed", true)
		if s, err := h.api().Site(t.Context(), "one.test"); err != nil || !strings.HasPrefix(s.Reason, "web1: nothing is answered there, the web server is down: ") {
			t.Errorf("%d: %+v, %v", round, s, err)
		}
		h.says("job", "run", "server.facts", "--server", "web1", "--wait")
		h.must(web1.startApache())
		expect("live", false)
		if s := h.server("web1"); s.Facts == nil || s.Facts.WebDown != "" {
			t.Errorf("%d: %s", round, fmt.Sprint(s.Facts))
		}
	}
	h.live("one.test")

	// Programs of sites that suexec would not run are warned of, while that is so.
	suexec := func(root string, warned bool) {
		t.Helper()
		h.must(os.WriteFile(web1.path("etc/apache2/suexec/www-data"), []byte(root+"\npublic_html/cgi-bin\n"), 0o644))
		const warning = "warning: web1: suexec runs programs below /var/www alone, and sites are in /home: those with cgi answer 500 there; make /home the first line of /etc/apache2/suexec/www-data\n"
		testkit.Eventually(t, 30*time.Second, func() (bool, string) {
			servers := h.says("server", "list")
			return strings.Contains(servers, warning) == warned, servers
		})
	}
	suexec("/var/www", true)
	suexec("/home", false)
}

// What the budget of removals refuses is not lost from sight: the list of servers says
// that deleted sites are served, regenerate does what the budget allows and says what it
// left, and the removals end well when they are retried.
func TestRemovalsBeyondTheBudget(t *testing.T) {
	t.Parallel()
	h := newHosting(t, 1)
	web1 := h.machines[0]
	budget := func(n string) {
		t.Helper()
		web1.killAgent()
		h.must(os.WriteFile(web1.path("etc/upkeep/agent-policy.yaml"), []byte(strings.Replace(machinePolicy, "delete_budget: 100000", "delete_budget: "+n, 1)), 0o644))
		h.awaitLink("web1", false)
		h.must(web1.startAgent(t))
		h.awaitLink("web1", true)
	}
	budget("2")
	objects := []upkeep.Object{upkeep.Account{Name: "acme"}, siteOn("stays.test", "web1")}
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprintf("m%d.test", i))
		objects = append(objects, siteOn(names[i], "web1"))
	}
	h.must(h.apply(t.Context(), objects...))
	h.settled(time.Minute)
	var text strings.Builder
	h.must(declare.Write(&text, objects[2:]...))
	many := filepath.Join(h.dir, "many.yaml")
	h.must(os.WriteFile(many, []byte(text.String()), 0o644))
	h.says("delete", "-f", many)
	testkit.Eventually(t, time.Minute, func() (bool, string) { n := len(h.failedJobs()); return n == 3, fmt.Sprint(n) })
	const warning = "warning: web1: it still answers for 3 sites that are not declared any more: upkeep job list --state failed says why"
	if text := h.says("server", "list"); !strings.Contains(text, warning) {
		t.Errorf("the list of servers says\n%s", text)
	}
	output, exit := h.upkeep("verify")
	if exit == 0 || strings.Count(output, "\n-\tServerName m") != 3 || !strings.Contains(output, "not declared here") || strings.Contains(output, "\n\n\n") {
		t.Errorf("verify ends with %d:\n%s", exit, output)
	}
	if output, exit = h.upkeep("regenerate"); exit != 1 || !strings.Contains(output, "still served, and not declared here: m") || !strings.Contains(output, "allows 2 removals an hour, and 2 were made") {
		t.Errorf("regenerate ends with %d:\n%s", exit, output)
	}
	budget("20")
	if output = h.says("regenerate"); !strings.Contains(output, "removed: m") || strings.Contains(output, "still served") {
		t.Errorf("with a larger budget regenerate says\n%s", output)
	}
	if text := h.says("server", "list"); strings.Contains(text, "still answers") {
		t.Errorf("after that the list of servers says\n%s", text)
	}
	for _, id := range h.failedJobs() {
		h.says("job", "retry", id)
	}
	h.settled(time.Minute)
	if left := h.failedJobs(); len(left) > 0 {
		t.Errorf("jobs %v fail once more", left)
	}
	for _, name := range names {
		trash, err := filepath.Glob(web1.path("home/acme/.trash/" + name + ".*"))
		if _, here := os.Stat(web1.path("home/acme/" + name)); err != nil || len(trash) != 1 || here == nil {
			t.Errorf("of %s there is %v in the trash, %v, and in the home: %v", name, trash, err, here == nil)
		}
	}
	h.live("stays.test")
}
