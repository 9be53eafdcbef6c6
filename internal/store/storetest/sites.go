package storetest

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upkeep"
	"upkeep/internal/store"
)

// jobsRecovered is told of jobs by a queue, and has the tables of River.
func jobsRecovered(t *testing.T, open func() *store.Store) {
	s := open()
	_, err := s.River(ctx, slog.New(slog.DiscardHandler))
	must(t, err)
	withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1), newJob("web1", upkeep.JobSiteApply, "site/b.test", 1),
		newJob("web2", upkeep.JobSiteApply, "site/a.test", 1, 0), newJob("", upkeep.JobNotification, "site/a.test", 0),
		newJob("web1", upkeep.JobSiteApply, "site/c.test", 1))
	claim(t, s, "web1", 1, 2, 5)
	finish(t, s, upkeep.JobDone, "", 5)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/b.test", 2)) // 6
	for range 2 {
		s = open()
		c := withQueue(s)
		ready, err := s.RecoverJobs(ctx)
		must(t, err)
		wantStates(t, s, "1:pending 2:superseded 3:pending 4:pending 5:done 6:pending")
		if ready != len(c.ready) {
			t.Errorf("%d are ready, %d were told", ready, len(c.ready))
		}
		seen := map[int64]bool{}
		for _, id := range c.ready {
			seen[id] = true
		}
		if diff := cmp.Diff(map[int64]bool{1: true, 6: true}, seen); diff != "" {
			t.Error(diff)
		}
		if job, err := s.Job(ctx, 1); err != nil || job.Attempts != 0 {
			t.Errorf("recovered: %+v, %v", job, err)
		}
	}
}

func jobsSites(t *testing.T, open func() *store.Store) {
	s := open()
	withQueue(s)
	end := func(server string, state upkeep.JobState, all bool, sites ...store.SiteState) {
		t.Helper()
		ids := enqueue(t, s, newJob(server, upkeep.JobSiteSync, "sites", 0))
		claim(t, s, server, ids...)
		must(t, s.FinishJobs(ctx, []store.JobEnd{{ID: ids[0], State: state, Error: "because", Sites: sites, AllSites: all}}))
		must(t, s.FinishJobs(ctx, []store.JobEnd{{ID: ids[0], State: state, Sites: []store.SiteState{{Site: "late.test", State: "live"}}}}))
	}
	expect := func(server, site string, want ...store.SiteState) {
		t.Helper()
		got, err := open().SiteStates(ctx, server, site)
		must(t, err)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(store.SiteState{}, "At"), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
	live := func(server, site string, generation int64) store.SiteState {
		return store.SiteState{Server: server, Site: site, Generation: generation, URL: "http://" + server, DocumentRoot: "/home/" + site, State: upkeep.SiteLive}
	}
	end("web1", upkeep.JobDone, false, live("", "a.test", 1), live("", "b.test", 1))
	end("web2", upkeep.JobDone, false, live("", "a.test", 2))
	a1, b1, a2 := live("web1", "a.test", 1), live("web1", "b.test", 1), live("web2", "a.test", 2)
	a1.URL, b1.URL, a2.URL = "http://", "http://", "http://"
	expect("", "", a1, a2, b1)
	expect("", "a.test", a1, a2)
	expect("web1", "", a1, b1)
	// A failure leaves what is served before.
	end("web1", upkeep.JobFailed, false, store.SiteState{Site: "a.test", State: upkeep.SiteFailed, Reason: "AH00526"})
	a1.State, a1.Reason = upkeep.SiteFailed, "AH00526"
	expect("", "a.test", a1, a2)
	end("web1", upkeep.JobDone, false, store.SiteState{Site: "a.test"}, live("", "c.test", 1))
	c1 := live("web1", "c.test", 1)
	c1.URL = "http://"
	expect("web1", "", b1, c1)
	end("web1", upkeep.JobDone, true, live("", "b.test", 1))
	expect("", "", a2, b1)
	end("web1", upkeep.JobDone, true)
	expect("", "", a2)
}
