package webserver

import (
	"context"
	"errors"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/vhost"
)

// While the budget has no reload, what needs none is answered all the same, and
// what needs one waits.
func TestOverBudget(t *testing.T) {
	w := newWorld(t)
	served, other := w.input("served.test", 1), w.input("other.test", 1)
	w.mustApply(served)
	before := w.Stats()
	w.pace.reload(time.Now(), time.Hour) // of the loop alone, which waits for requests
	ctx, cancel := context.WithTimeout(t.Context(), maxGap/2)
	defer cancel()
	thief := w.input("thief.test", 1)
	thief.Site.Aliases = []string{"served.test"}
	var taken *NameTakenError
	if r := w.Apply(ctx, Request{Input: thief}); r.State != upkeep.JobFailed || !errors.As(r.Err, &taken) {
		t.Errorf("a name that another site has: %s, %v", r.State, r.Err)
	}
	if r := w.Apply(ctx, Request{Input: served}); r.State != upkeep.JobDone || r.Changed {
		t.Errorf("what is served already: %+v", r)
	}
	if r := w.Remove(ctx, "never.test", "", 1); r.State != upkeep.JobDone {
		t.Errorf("a site that is not there: %+v", r)
	}
	if r := w.Sync(ctx, []vhost.Input{served}, true); r.Err != nil || len(r.Drift) > 0 {
		t.Errorf("a comparison: %+v", r)
	}
	if r := w.Sync(ctx, []vhost.Input{served}, false); r.Err != nil || r.Sites["served.test"].State != upkeep.JobDone || len(r.Drift) > 0 {
		t.Errorf("a regeneration that changes nothing: %+v", r)
	}
	short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if r := w.Apply(short, Request{Input: other}); !errors.Is(r.Err, context.DeadlineExceeded) {
		t.Errorf("what needs a reload did not wait: %+v", r)
	}
	// It waits on. What comes after it is told all the same.
	if r := w.Apply(ctx, Request{Input: served}); r.State != upkeep.JobDone || r.Changed {
		t.Errorf("what is served already, beside what waits: %+v", r)
	}
	if ctx.Err() != nil {
		t.Error("they waited for the budget")
	}
	short, cancel = context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if r := w.Sync(short, []vhost.Input{served, other}, false); !errors.Is(r.Err, context.DeadlineExceeded) {
		t.Errorf("a regeneration that needs a reload did not wait: %+v", r)
	}
	if now := w.Stats(); now.Reloads != before.Reloads || now.Writes != before.Writes {
		t.Errorf("%d reloads and %d writes beyond the budget", now.Reloads-before.Reloads, now.Writes-before.Writes)
	}
}
