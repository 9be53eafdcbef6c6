package job_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
)

// The list of sites is what asking about each of them would tell, whatever has
// happened since it was last asked for.
func TestSitePage(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		ctx := context.Background()
		page := func(f upkeep.SiteFilter) string {
			t.Helper()
			f.Limit = max(f.Limit, 2)
			got, err := c.SitePage(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range got.Sites {
				names = append(names, s.Name+" "+s.State)
			}
			return fmt.Sprintf("%s of %d, %v", strings.Join(names, ", "), got.Of, got.Counts)
		}
		expect := func(want string, f upkeep.SiteFilter) {
			t.Helper()
			if got := page(f); got != want {
				t.Errorf("%+v: %s, want %s", f, got, want)
			}
		}
		// What the API's list is made of, in the order of names, from a name on.
		byName := func(want, after string, limit int) {
			t.Helper()
			got, err := c.SitePage(ctx, upkeep.SiteFilter{ByName: true, After: after, Limit: limit})
			var names []string
			for _, s := range got.Sites {
				names = append(names, s.Name)
			}
			if is := fmt.Sprintf("%v of %d, last %q", names, got.Of, got.Last); err != nil || is != want {
				t.Errorf("%d by name after %q: %s, %v, want %s", limit, after, is, err, want)
			}
		}
		if got, err := c.SitePage(ctx, upkeep.SiteFilter{Limit: 5}); err != nil || !got.None || len(got.Sites) > 0 {
			t.Errorf("without any site: %+v, %v", got, err)
		}
		refuse := func(j link.Job) link.Outcome {
			if j.Object == "site/c.test" {
				return link.Outcome{ID: j.ID, State: upkeep.JobFailed, Error: "no"}
			}
			return serves(j)
		}
		connect(t, c, "web1", refuse)
		c.put(t, upkeep.Account{Name: "shop", UID: 20002})
		other := site("d.test", "web2")
		other.Account, other.Aliases = "shop", []string{"needle.test"}
		c.put(t, site("a.test", "web1"), site("b.test", "web1"), site("c.test", "web1"), other)
		c.until(t, store.JobFilter{Server: "web1", Kind: upkeep.JobSiteApply}, counts{upkeep.JobDone: 2, upkeep.JobFailed: 1})
		expect("c.test failed, d.test pending of 4, map[failed:1 live:2 pending:1]", upkeep.SiteFilter{})
		expect("a.test live, b.test live of 4, map[failed:1 live:2 pending:1]", upkeep.SiteFilter{Skip: 2})
		expect(" of 4, map[failed:1 live:2 pending:1]", upkeep.SiteFilter{Skip: 4})
		expect("a.test live, b.test live of 2, map[failed:1 live:2 pending:1]", upkeep.SiteFilter{State: upkeep.SiteLive})
		expect("c.test failed, a.test live of 3, map[failed:1 live:2]", upkeep.SiteFilter{Account: "acme"})
		expect("d.test pending of 1, map[pending:1]", upkeep.SiteFilter{Holds: " NEEDLE "})
		expect("d.test pending of 1, map[pending:1]", upkeep.SiteFilter{Holds: "web2"})
		expect(" of 0, map[]", upkeep.SiteFilter{Account: "acme", Holds: "needle"})
		byName(`[a.test b.test c.test d.test] of 4, last "d.test"`, "", 4)
		byName(`[b.test c.test] of 3, last "c.test"`, "a.test", 2)
		byName(`[c.test] of 2, last "c.test"`, "bb", 1)
		byName(`[] of 0, last ""`, "d.test", 3)

		connect(t, c, "web2", serves)
		c.until(t, store.JobFilter{Object: "site/d.test", Kind: upkeep.JobSiteApply}, counts{upkeep.JobDone: 1})
		expect("d.test live of 1, map[live:1]", upkeep.SiteFilter{Account: "shop"})
		c.put(t, upkeep.Account{Name: "shop", UID: 20002, Suspended: true})
		if got := page(upkeep.SiteFilter{Account: "shop"}); strings.Contains(got, "live") {
			t.Errorf("of an account that was suspended: %s", got)
		}
		if _, err := c.store.Apply(ctx, "uid 0", store.Change{Delete: []store.Ref{{Kind: upkeep.KindSite, Name: "a.test"}}}); err != nil {
			t.Fatal(err)
		}
		expect("b.test live of 1, map[failed:1 live:1]", upkeep.SiteFilter{State: upkeep.SiteLive, Holds: "web1"})
		c.put(t, site("a.test", "web1"))
		c.until(t, store.JobFilter{Object: "site/a.test", Kind: upkeep.JobSiteApply}, counts{upkeep.JobDone: 2})
		expect("a.test live, b.test live of 2, map[failed:1 live:2]", upkeep.SiteFilter{State: upkeep.SiteLive, Account: "acme"})

		c.Misremember("b.test", upkeep.SiteFailed) // as after a row was written past upkeep
		c.Reread(ctx)
		expect("c.test failed of 1, map[failed:1 live:2]", upkeep.SiteFilter{State: upkeep.SiteFailed, Account: "acme"})
	})
}

// serves does what an agent does with a site.
func serves(j link.Job) link.Outcome {
	result := fmt.Appendf(nil, `{"generation":%d,"url":"http://%s"}`, j.Generation, j.Server)
	return link.Outcome{ID: j.ID, State: upkeep.JobDone, Result: result}
}

// Lists are asked for while everything changes, and are right once it is calm.
func TestSitePageAmongChanges(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		ctx := context.Background()
		connect(t, c, "web1", serves)
		var all []string
		var askers sync.WaitGroup
		stop := make(chan bool)
		for range 3 {
			askers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := c.SitePage(ctx, upkeep.SiteFilter{Limit: 10}); err != nil {
						t.Error(err)
						return
					}
					c.Reread(ctx)
				}
			})
		}
		for i := range 30 {
			name := fmt.Sprintf("s%02d.test", i)
			c.put(t, site(name, "web1"))
			all = append(all, name+" "+upkeep.SiteLive)
		}
		c.until(t, store.JobFilter{Kind: upkeep.JobSiteApply}, counts{upkeep.JobDone: 30})
		close(stop)
		askers.Wait()
		page, err := c.SitePage(ctx, upkeep.SiteFilter{Limit: 100})
		var got []string
		for _, s := range page.Sites {
			got = append(got, s.Name+" "+s.State)
		}
		if err != nil || !slices.Equal(got, all) || page.Counts[upkeep.SiteLive] != 30 {
			t.Errorf("%q %v, %v", got, page.Counts, err)
		}
	})
}
