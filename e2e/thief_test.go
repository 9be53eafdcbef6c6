package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// identityFile is where an agent keeps its certificate and key.
const identityFile = "var/lib/upkeep-agent/identity/identity.json"

// Somebody has copied the certificate and key of web1 and runs the program with it
// on a machine of his own. He can be web1, as long as he is let, and nobody else.
func TestStolenIdentity(t *testing.T) {
	t.Parallel()
	h := newHosting(t, 3)
	web1, web2, thief := h.machines[0], h.machines[1], h.machines[2]
	ctx := context.Background()
	h.must(h.apply(ctx, upkeep.Account{Name: "acme"}, siteOn("one.test", "web1"), siteOn("two.test", "web2")))
	h.settled(time.Minute)
	web1.killAgent()
	thief.killAgent()
	stolen := web1.read(identityFile)
	h.must(os.WriteFile(thief.path(identityFile), []byte(stolen), 0o600))
	h.must(thief.startAgent(t))
	h.awaitLink("web1", true)

	h.must(h.apply(ctx, siteOn("three.test", "web1", "web2"), siteOn("four.test", "web2")))
	h.settled(time.Minute)
	if !thief.has("three.test") {
		t.Error("the thief is not sent what he can have: the test proves nothing")
	}
	for _, name := range []string{"two.test", "four.test"} {
		if thief.has(name) || !web2.has(name) {
			t.Errorf("%s: on the thief's machine: %v, on web2: %v", name, thief.has(name), web2.has(name))
		}
	}

	// He says that he is web2. His certificate says who he is, and his own agent
	// refuses what is for another server than it thinks it is.
	thief.killAgent()
	var identity map[string]any
	h.must(json.Unmarshal([]byte(stolen), &identity))
	identity["server"] = "web2"
	forged, err := json.Marshal(identity)
	h.must(err)
	h.must(os.WriteFile(thief.path(identityFile), forged, 0o600))
	h.must(thief.startAgent(t))
	h.must(h.apply(ctx, siteOn("five.test", "web2")))
	testkit.Eventually(t, time.Minute, func() (bool, string) { return web2.has("five.test"), "five.test is not on web2" })
	if thief.has("five.test") {
		t.Error("the thief got a job of web2's")
	}
	if h.server("web2").Connected != true {
		t.Error("web2 was pushed out")
	}

	// The certificate is taken back while he is connected: his link ends at once, and
	// he is not let in any more.
	thief.killAgent()
	h.must(os.WriteFile(thief.path(identityFile), []byte(stolen), 0o600))
	h.must(thief.startAgent(t))
	h.awaitLink("web1", true)
	begin := time.Now()
	h.says("server", "revoke", "web1")
	h.awaitLink("web1", false)
	t.Logf("the link had ended %s after the call", time.Since(begin))
	h.must(h.apply(ctx, siteOn("six.test", "web1")))
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		log := thief.agentLog()
		return strings.Contains(log, "does not take the certificate of web1"), log
	})
	if thief.has("six.test") || h.server("web1").Connected {
		t.Error("who was revoked got a job")
	}

	// The true web1 joins again and takes up what waited.
	h.must(os.Remove(web1.path(identityFile)))
	h.invite(web1, nil, "token")
	h.must(web1.startAgent(t))
	h.settled(time.Minute)
	if !web1.has("six.test") || thief.has("six.test") {
		t.Error("web1 did not get what had waited for it")
	}
	// What the thief said that he had done was a lie.
	if web1.has("three.test") {
		t.Error("web1 has what the thief was sent")
	}
	h.says("regenerate", "web1")
	h.live("one.test", "two.test", "three.test", "four.test", "five.test", "six.test")
}

// A server that is declared no more is cut off at once; one that sites use keeps
// its place and its certificate.
func TestServerRemoved(t *testing.T) {
	t.Parallel()
	h := newHosting(t, 2)
	web1, web2 := h.machines[0], h.machines[1]
	ctx := context.Background()
	h.must(h.apply(ctx, upkeep.Account{Name: "acme"}, siteOn("one.test", "web1", "web2")))
	h.settled(time.Minute)
	if output, exit := h.upkeep("server", "remove", "web2"); exit != 5 || !strings.Contains(output, "site one.test still uses server web2") {
		t.Errorf("removing a server that is used: exit %d\n%s", exit, output)
	}
	h.must(h.apply(ctx, siteOn("two.test", "web2")))
	h.settled(time.Minute)
	h.live("one.test", "two.test")

	h.says("site", "remove", "two.test", "--wait")
	h.must(h.apply(ctx, siteOn("one.test", "web1")))
	h.settled(time.Minute)
	if web2.has("one.test") || web2.has("two.test") {
		t.Error("sites that have left are still there")
	}
	config := web2.path("etc/apache2/apache2.conf")
	if web1Purge, exit := h.upkeep("server", "remove", "web1", "--purge"); exit == 0 || !strings.Contains(web1Purge, "one.test") {
		t.Errorf("purging a server with a site: exit %d\n%s", exit, web1Purge)
	}
	begin := time.Now()
	h.says("server", "remove", "web2", "--purge")
	if text, err := os.ReadFile(config); err != nil || strings.Contains(string(text), "hosted.d") {
		t.Errorf("the line is still there, %v:\n%s", err, text)
	}
	for _, want := range []string{"includes /etc/apache2/hosted.d now", "already"} {
		if output, err := web2.run(upkeepProgram(t), "agent", "include", "--add"); err != nil || !strings.Contains(output, want) {
			t.Errorf("%v, %s; want %q", err, output, want)
		}
	}
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		log := web2.agentLog()
		return strings.Contains(log, "the server is declared no more"), log
	})
	t.Logf("the link had ended %s after the call", time.Since(begin))
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		log := web2.agentLog()
		return strings.Contains(log, "does not take the certificate of web2"), log
	})
	t.Logf("the agent was cut off and refused %s after the call", time.Since(begin))
	web2.killAgent()
	h.must(web2.startAgent(t))
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		log := web2.agentLog()
		return strings.Contains(log, "does not take the certificate of web2"), log
	})
	if servers, err := h.api().Servers(ctx); err != nil || len(servers) != 1 {
		t.Errorf("%+v, %v", servers, err)
	}
	if !web1.has("one.test") {
		t.Error("its neighbour lost a site")
	}
	// Declared anew it is another server: the old certificate opens nothing.
	h.must(h.apply(ctx, upkeep.Server{Name: "web2", Roles: []string{upkeep.RoleWeb}}, siteOn("new.test", "web2")))
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		n := strings.Count(web2.agentLog(), "does not take the certificate of web2")
		return n > 1, fmt.Sprint(n, " refusals")
	})
	if web2.has("new.test") {
		t.Error("an old certificate was taken for a new server")
	}
}

// A server that was away is sent the newest of each thing alone, and skips what it
// has done already.
func TestOfflineAgent(t *testing.T) {
	t.Parallel()
	h := newHosting(t, 2)
	web1 := h.machines[0]
	ctx := context.Background()
	h.must(h.apply(ctx, upkeep.Account{Name: "acme"}, siteOn("one.test", "web1"), siteOn("two.test", "web1"), siteOn("gone.test", "web1")))
	h.settled(time.Minute)
	before := strings.Count(web1.read("var/lib/upkeep-agent/agent/applied.log"), "\n")
	web1.killAgent()
	h.awaitLink("web1", false)
	const generations = 30
	for i := range generations {
		one, new := siteOn("one.test", "web1"), siteOn("new.test", "web1")
		one.Aliases = []string{fmt.Sprintf("a%d.one.test", i)}
		new.Headers = map[string]string{"X-Kept": fmt.Sprint(i)}
		h.must(h.apply(ctx, one, new))
	}
	h.says("site", "remove", "gone.test")
	h.must(h.apply(ctx, siteOn("brief.test", "web1")))
	h.says("site", "remove", "brief.test")
	open, err := h.open()
	h.must(err)
	for _, j := range open {
		if j.Object == "site/one.test" && j.Generation != generations+1 {
			t.Errorf("the job that waits has generation %d", j.Generation)
		}
	}
	if len(open) > 5 {
		t.Errorf("%d jobs wait", len(open))
	}
	for _, name := range []string{"one.test", "new.test"} {
		if s, err := h.api().Site(ctx, name); err != nil || s.State != upkeep.SitePending || !strings.Contains(s.Reason, "web1, whose agent is not connected") {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	h.must(web1.startAgent(t))
	h.settled(time.Minute)
	h.live("one.test", "two.test", "new.test")
	jobs, err := h.jobs(upkeep.JobDone)
	h.must(err)
	applied := 0
	for _, j := range jobs {
		if j.Kind == upkeep.JobSiteApply && (j.Object == "site/one.test" || j.Object == "site/new.test") {
			applied++
		}
	}
	if applied != 3 { // one.test before and after, new.test once
		t.Errorf("%d jobs were done for the two sites", applied)
	}
	// What the agent itself has done since: at most one thing for each object.
	log := web1.read("var/lib/upkeep-agent/agent/applied.log")
	if done := strings.Count(log, "\n") - before; done > 4 {
		t.Errorf("the agent did %d things:\n%s", done, log)
	}
	if web1.has("gone.test") || web1.has("brief.test") {
		t.Error("what was removed meanwhile is there")
	}
	if got, err := h.ask(web1, "GET", "new.test", "/", false); err != nil || got.header.Get("X-Kept") != fmt.Sprint(generations-1) {
		t.Errorf("%+v, %v", got, err)
	}
}

func siteOn(name string, servers ...string) upkeep.Site {
	return upkeep.Site{Name: name, Account: "acme", Servers: servers}
}

// has reports whether the machine's web server has a file of a site.
func (m *machine) has(site string) bool {
	_, err := os.Stat(m.path("etc/apache2/hosted.d" + strings.TrimPrefix(vhost.Files(site)[0], vhost.FolderSites)))
	return err == nil
}

func (h *hosting) server(name string) upkeep.AgentStatus {
	h.t.Helper()
	servers, err := h.api().Servers(context.Background())
	h.must(err)
	for _, s := range servers {
		if s.Name == name {
			return s
		}
	}
	h.t.Fatalf("there is no server %s", name)
	return upkeep.AgentStatus{}
}

func (h *hosting) awaitLink(server string, connected bool) {
	h.t.Helper()
	testkit.Eventually(h.t, time.Minute, func() (bool, string) {
		return h.server(server).Connected == connected, fmt.Sprintf("%s connected: %v", server, !connected)
	})
}

// live expects sites to be live, with the page of each on each of its servers.
func (h *hosting) live(names ...string) {
	h.t.Helper()
	for _, name := range names {
		s, err := h.api().Site(context.Background(), name)
		if err != nil || s.State != upkeep.SiteLive {
			h.t.Errorf("%s: %+v, %v", name, s, err)
			continue
		}
		site := siteOn(name)
		for _, on := range s.Servers {
			site.Servers = []string{on.Server}
			h.must(h.writePages(site, site.Account))
			got, err := h.ask(h.machine(on.Server), "GET", name, "/", false)
			if err != nil || got.status != 200 || got.body != page(site) {
				h.t.Errorf("%s on %s: %+v, %v", name, on.Server, got, err)
			}
		}
	}
}
