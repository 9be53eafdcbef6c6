package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"upkeep"
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
}
