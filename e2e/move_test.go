package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
)

// A site with another in its folder moves, and the other cannot: it goes on answering
// with its pages where it was, whatever else is asked for, until it answers there too.
func TestMoveThatCannotBeDone(t *testing.T) {
	t.Parallel()
	h := newHosting(t, 2)
	web1, web2 := h.machines[0], h.machines[1]
	sub := siteOn("sub.one.test", "web1")
	sub.SubOf = "one.test"
	h.must(h.apply(t.Context(), upkeep.Account{Name: "acme"}, siteOn("one.test", "web1"), sub))
	h.settled(time.Minute)
	page := filepath.Join("home/acme/one.test/htdocs/sub/index.html")
	h.must(os.WriteFile(web1.path(page), []byte("page of sub"), 0o644))
	answers := func(m *machine, name, body string) {
		t.Helper()
		if got, err := h.ask(m, "GET", name, "/", false); err != nil || !strings.Contains(got.body, body) {
			t.Errorf("%s answers for %s with %d %q, %v", m.Name, name, got.status, got.body, err)
		}
	}
	hand := web2.path("etc/apache2/hosted.d/10-hand.conf")
	h.must(os.WriteFile(hand, []byte("<VirtualHost *:80>\nServerName sub.one.test\n</VirtualHost>\n"), 0o644))
	sub.Servers = []string{"web2"}
	h.must(h.apply(t.Context(), siteOn("one.test", "web2"), sub))
	h.settled(time.Minute)
	answers(web2, "one.test", "one.test is ready")
	answers(web1, "sub.one.test", "page of sub")
	if s, err := h.api().Site(t.Context(), "sub.one.test"); err != nil || len(s.Servers) != 2 || s.Servers[1].Reason != "it stays there until it answers on web2" {
		t.Errorf("%+v, %v", s, err)
	}
	if output, exit := h.upkeep("regenerate", "web1"); exit != 0 || !strings.Contains(output, "removed: one.test;") || !strings.Contains(output, "still served, and not declared here: sub.one.test;") {
		t.Errorf("regenerate ends with %d:\n%s", exit, output)
	}
	answers(web1, "sub.one.test", "page of sub")
	h.must(os.Remove(hand))
	for _, id := range h.failedJobs() {
		h.upkeep("job", "retry", id) // one that waited for another is retried with it
	}
	h.settled(time.Minute)
	for _, name := range []string{"one.test", "sub.one.test"} {
		if s, err := h.api().Site(t.Context(), name); err != nil || s.State != upkeep.SiteLive || len(s.Servers) != 1 {
			t.Errorf("%+v, %v", s, err)
		}
		answers(web2, name, name+" is ready")
	}
	kept, err := filepath.Glob(web1.path("home/acme/.trash/one.test.*/htdocs/sub/index.html"))
	if err != nil || len(kept) != 1 || len(h.failedJobs()) > 0 {
		t.Errorf("the trash of web1 has %v, %v, and jobs %v fail", kept, err, h.failedJobs())
	}
}
