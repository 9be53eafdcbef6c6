package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/task"
)

// A server is not told by a regeneration to give up a site that does not answer yet
// where it moved to; once it does, or where it is to answer nowhere, it is.
func TestRegenerateWhileASiteMoves(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		var fails atomic.Bool
		kept := make(chan []string, 10)
		do := func(j link.Job) link.Outcome {
			var result any = task.SiteResult{Generation: j.Generation}
			switch {
			case j.Kind == upkeep.JobSiteSync:
				payload, err := task.Decode(j.Kind, j.Payload)
				if err != nil {
					return link.Outcome{ID: j.ID, State: upkeep.JobFailed, Error: err.Error()}
				}
				kept <- payload.(task.SiteSync).Keep
				result = task.SyncResult{URL: "http://" + j.Server, Home: "/home"}
			case j.Kind == upkeep.JobSiteApply && j.Server == "web2" && fails.Load():
				return link.Outcome{ID: j.ID, State: upkeep.JobFailed, Error: "there is no such module"}
			}
			text, _ := json.Marshal(result)
			return link.Outcome{ID: j.ID, State: upkeep.JobDone, Result: text}
		}
		connect(t, c, "web1", do)
		connect(t, c, "web2", do)
		regenerate := func(keep, left string) {
			t.Helper()
			job, err := c.Regenerate(context.Background(), "web1", "uid 0")
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(<-kept, " "); got != keep {
				t.Errorf("it is told to keep %q, want %q", got, keep)
			}
			c.until(t, store.JobFilter{Object: "sites", States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}}, counts{})
			job, err = c.store.Job(context.Background(), job.ID)
			var told task.SyncResult
			if err := errors.Join(err, json.Unmarshal(job.Result, &told)); err != nil || strings.Join(told.Left, " ") != left {
				t.Errorf("%v is left, want %q (%v)", told.Left, left, err)
			}
		}
		c.put(t, site("a.test", "web1"), site("b.test", "web1"), site("stays.test", "web1"))
		c.until(t, web(all), counts{upkeep.JobDone: 3})
		fails.Store(true)
		off := site("b.test", "web2")
		off.Suspended = true
		c.put(t, site("a.test", "web2"), off)
		c.until(t, web(store.JobFilter{Kind: upkeep.JobSiteRemove}), counts{upkeep.JobFailed: 1, upkeep.JobDone: 1})
		status, err := c.SiteStatus(context.Background(), "a.test")
		if err != nil || len(status.Servers) != 2 || status.Servers[1].Reason != "it stays there until it answers on web2" {
			t.Errorf("status %+v, %v", status, err)
		}
		regenerate("a.test", "a.test")
		states, err := c.store.SiteStates(context.Background(), "web1")
		var known []string
		for _, s := range states {
			known = append(known, s.Site)
		}
		if diff := cmp.Diff([]string{"a.test", "stays.test"}, known); err != nil || diff != "" {
			t.Error(err, diff)
		}
		fails.Store(false)
		failed, err := c.List(context.Background(), store.JobFilter{Server: "web2", Object: "site/a.test"})
		if err != nil || len(failed) != 1 {
			t.Fatal(failed, err)
		}
		if _, err := c.Retry(context.Background(), failed[0].ID, "uid 0"); err != nil {
			t.Fatal(err)
		}
		c.until(t, web(store.JobFilter{Kind: upkeep.JobSiteRemove}), counts{upkeep.JobDone: 2})
		regenerate("", "")
	})
}
