package storetest

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upkeep"
	"upkeep/internal/store"
)

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
		pending, err := s.RecoverJobs(ctx)
		must(t, err)
		wantStates(t, s, "1:pending 2:superseded 3:pending 4:pending 5:done 6:pending")
		if pending != 3 || len(c.ready) != 0 { // the notification is nobody's work
			t.Errorf("%d are pending, %v were told", pending, c.ready)
		}
		for server, want := range map[string][]int64{"web1": {1, 6}, "web2": {3}, "web3": nil} {
			ids, err := s.PendingJobs(ctx, server)
			must(t, err)
			if !slices.Equal(ids, want) {
				t.Errorf("%v wait for %s, want %v", ids, server, want)
			}
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
		var sites []string
		if site != "" {
			sites = []string{site, "none.test"}
		}
		got, err := open().SiteStates(ctx, server, sites...)
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

// jobsSitesAgain holds that what a server tells of all its sites is written where it
// is not what was known, whatever differs, and not where it is the same.
func jobsSitesAgain(t *testing.T, open func() *store.Store) {
	s := open()
	withQueue(s)
	tell := func(sites ...store.SiteState) []store.SiteState {
		t.Helper()
		ids := enqueue(t, s, newJob("web1", upkeep.JobSiteSync, "sites", 0))
		claim(t, s, "web1", ids...)
		must(t, s.FinishJobs(ctx, []store.JobEnd{{ID: ids[0], State: upkeep.JobDone, Sites: sites, AllSites: true}}))
		known, err := s.SiteStates(ctx, "web1")
		must(t, err)
		return known
	}
	site := func(name string) store.SiteState {
		return store.SiteState{Server: "web1", Site: name, Generation: 3, URL: "http://web1", DocumentRoot: "/home/acme/" + name, State: upkeep.SiteFailed, Reason: "because of \"this\""}
	}
	a, b, c := site("a.test"), site("b.test"), site("c.test")
	known := tell(a, b)
	for name, again := range map[string][]store.SiteState{"the same": {a, b}, "in another order": {b, a}} {
		if diff := cmp.Diff(known, tell(again...)); diff != "" {
			t.Errorf("%s: it was written: %s", name, diff)
		}
	}
	change := func(f func(*store.SiteState)) []store.SiteState {
		changed := b
		f(&changed)
		return []store.SiteState{a, changed}
	}
	for name, sites := range map[string][]store.SiteState{
		"generation": change(func(s *store.SiteState) { s.Generation = 4 }), "state": change(func(s *store.SiteState) { s.State = upkeep.SiteLive }),
		"reason": change(func(s *store.SiteState) { s.Reason = "" }), "url": change(func(s *store.SiteState) { s.URL = "https://web1" }),
		"document root": change(func(s *store.SiteState) { s.DocumentRoot += "/public" }), "one more": {a, b, c}, "one less": {a}, "another one": {a, c},
	} {
		tell(a, b)
		if diff := cmp.Diff(sites, tell(sites...), cmpopts.IgnoreFields(store.SiteState{}, "At")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	tell(a, b)
	if diff := cmp.Diff([]store.SiteState{a}, tell(a, a), cmpopts.IgnoreFields(store.SiteState{}, "At")); diff != "" {
		t.Errorf("one twice: %s", diff)
	}
}
