package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// A name that another site gives up, whose own change waits for a server that is away,
// goes to the site that it was given to once that change is done, with nobody asking,
// and over a kill of control.
func TestTakenNameIsTriedAgain(t *testing.T) {
	t.Parallel()
	h := newHosting(t, 2)
	web1, web2 := h.machines[0], h.machines[1]
	holder, taker := siteOn("holder.test", "web2"), siteOn("taker.test", "web2")
	holder.Account, holder.Files, holder.Aliases = sharedAccount, "web1", []string{"moves.test"}
	h.must(h.apply(t.Context(), upkeep.Account{Name: "acme"}, upkeep.Account{Name: sharedAccount}, holder, taker))
	h.settled(time.Minute)
	answersFor := func(site string) {
		t.Helper()
		if a, err := h.ask(web2, "GET", "moves.test", "/", false); err != nil || a.status != 200 || !strings.Contains(a.body, site+" is ready") {
			t.Errorf("the name is not answered for %s: %+v, %v", site, a, err)
		}
	}
	answersFor("holder.test")

	web1.killAgent()
	h.awaitLink("web1", false)
	holder.Aliases, taker.Aliases = nil, []string{"moves.test"}
	h.must(h.apply(t.Context(), holder, taker))
	taken := func() []upkeep.Job {
		t.Helper()
		jobs, err := h.jobs(upkeep.JobFailed)
		h.must(err)
		return jobs
	}
	testkit.Eventually(t, time.Minute, func() (bool, string) { return len(taken()) == 1, fmt.Sprint(taken()) })
	const why = "the name moves.test is answered for site holder.test on this server; it is tried again by itself as soon as a job of that site is done there"
	if job := taken()[0]; job.Error != why || job.Kind != upkeep.JobSiteApply || job.Object != "site/taker.test" {
		t.Errorf("%+v", job)
	}
	if s, err := h.api().Site(t.Context(), "taker.test"); err != nil || s.State != upkeep.SiteFailed || !strings.Contains(s.Reason, why) {
		t.Errorf("%+v, %v", s, err)
	}

	h.killControl()
	h.must(h.startControl())
	h.awaitControl()
	h.must(web1.startAgent(t))
	h.awaitAgents()
	h.settled(time.Minute)
	if failed := taken(); len(failed) > 0 {
		t.Errorf("still failed: %+v", failed)
	}
	answersFor("taker.test")
	for _, name := range []string{"holder.test", "taker.test"} {
		if s, err := h.api().Site(t.Context(), name); err != nil || s.State != upkeep.SiteLive {
			t.Errorf("%+v, %v", s, err)
		}
	}
}
