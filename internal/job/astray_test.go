package job_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

// A site that an agent does not serve any more as it was applied is not called live
// and is applied again, whether the agent says so when it connects or later; sites
// of other servers are none of its business.
func TestAstray(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		ctx := context.Background()
		hold := make(chan bool)
		var jobs atomic.Int64
		done := func(j link.Job) link.Outcome {
			if jobs.Add(1) > 2 {
				<-hold
			}
			result, err := json.Marshal(task.SiteResult{Generation: j.Generation, URL: "http://" + j.Server})
			if err != nil {
				t.Error(err)
			}
			return link.Outcome{ID: j.ID, State: upkeep.JobDone, Result: result}
		}
		one, two := connect(t, c, "web1", done), connect(t, c, "web2", nil)
		c.put(t, site("a.test", "web1"))
		c.until(t, web(store.JobFilter{Kind: upkeep.JobSiteApply}), counts{upkeep.JobDone: 1})
		c.put(t, site("b.test", "web2"), site("c.test", "web1"))
		c.until(t, store.JobFilter{Kind: upkeep.JobSiteApply}, counts{upkeep.JobDone: 3})
		const why = "its file was set aside\n\x1b[31m"
		astray := map[string]string{"a.test": why, "b.test": why, "c.test": why, "never.test": why, "../etc": why}
		hello := link.Hello{Version: "test", Facts: upkeep.Facts{Astray: astray, InForce: map[string]int64{"a.test": 0, "b.test": 0, "c.test": 99}}}
		if err := one.conn.Send(ctx, link.Message{Hello: &hello}); err != nil {
			t.Fatal(err)
		}
		c.until(t, web(store.JobFilter{Kind: upkeep.JobSiteApply}), counts{upkeep.JobDone: 2, upkeep.JobRunning: 2})
		states, err := c.store.SiteStates(ctx, "web1")
		if err != nil || len(states) != 2 || states[0].State != upkeep.SiteFailed || states[0].Generation != 0 || states[0].Reason != upkeep.Printable("its file was set aside; \x1b[31m") {
			t.Errorf("while it is astray: %+v, %v", states, err)
		}
		if err == nil && (states[1].State != upkeep.SiteFailed || states[1].Generation != 1) {
			t.Errorf("with a generation in force that never was: %+v", states[1])
		}
		if status, err := c.SiteStatus(ctx, "a.test"); err != nil || status.State != upkeep.SitePending || status.Servers[0].Generation != 0 {
			t.Errorf("while it is applied again: %+v, %v", status, err)
		}
		close(hold)
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status, err := c.SiteStatus(ctx, "a.test")
			return err == nil && status.State == upkeep.SiteLive && status.Servers[0].Generation == 1, fmt.Sprint(status, err)
		})
		if got, want := one.sent(), []string{"site.apply site/a.test 1", "site.apply site/c.test 1", "site.apply site/a.test 1", "site.apply site/c.test 1"}; !slices.Equal(got, want) {
			t.Errorf("web1 was sent %q", got)
		}
		if got := two.sent(); len(got) != 1 {
			t.Errorf("web2 was sent %q", got)
		}
		events, err := c.store.Events(ctx, store.EventFilter{Object: "site/a.test"})
		if err != nil || !slices.ContainsFunc(events, func(e upkeep.Event) bool {
			return e.Kind == upkeep.EventWarning && e.What == "web1 does not serve it as it is declared; it is applied again"
		}) {
			t.Errorf("events %+v, %v", events, err)
		}
	})
}

// A site is not called live while the web server of one of its servers is down, of
// which the agent tells, and is called so again once that is back.
func TestWebServerDown(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		ctx := context.Background()
		one := connect(t, c, "web1", serves)
		connect(t, c, "web2", serves)
		both, suspended := site("a.test", "web1", "web2"), site("s.test", "web1")
		suspended.Suspended = true
		c.put(t, both, site("b.test", "web2"), suspended)
		c.until(t, store.JobFilter{Kind: upkeep.JobSiteApply}, counts{upkeep.JobDone: 4})
		expect := func(name, state, reason string) {
			t.Helper()
			testkit.Eventually(t, 20*time.Second, func() (bool, string) {
				status, err := c.SiteStatus(ctx, name)
				return err == nil && status.State == state && strings.HasPrefix(status.Reason, reason), fmt.Sprint(status, err)
			})
			page, err := c.SitePage(ctx, upkeep.SiteFilter{Limit: 9})
			if i := slices.IndexFunc(page.Sites, func(s upkeep.SiteStatus) bool { return s.Name == name }); err != nil || page.Sites[i].State != state || page.Counts[state] == 0 {
				t.Errorf("the list has %+v, %v", page, err)
			}
		}
		hello := func(down string) {
			t.Helper()
			if err := one.conn.Send(ctx, link.Message{Hello: &link.Hello{Version: "test", Protocol: link.Protocol, Facts: upkeep.Facts{WebDown: down}}}); err != nil {
				t.Fatal(err)
			}
		}
		hello("process 1 has ended\n\x1b[31m")
		const why = "web1: nothing is answered there, the web server is down: process 1 has ended; "
		expect("a.test", upkeep.SiteFailed, why)
		expect("s.test", upkeep.SiteFailed, why)
		expect("b.test", upkeep.SiteLive, "answers on web2")
		hello("")
		expect("a.test", upkeep.SiteLive, "answers on web1, web2")
		expect("s.test", upkeep.SiteSuspended, "it answers 503")
		// What a site has just answered with is newer than what was told before.
		hello("process 2 has ended")
		expect("a.test", upkeep.SiteFailed, "web1: nothing is answered")
		both.WWW = new(bool)
		c.put(t, both)
		expect("a.test", upkeep.SiteLive, "answers on web1, web2")
		// Of an agent that is away nothing is known.
		hello("process 3 has ended")
		expect("a.test", upkeep.SiteFailed, "web1: nothing is answered")
		if err := one.conn.Close(); err != nil {
			t.Fatal(err)
		}
		expect("a.test", upkeep.SiteLive, "answers on web1, web2")
	})
}
