package watch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/store"
)

// Sites are declared through the same door as pools, and disturb none.
func TestSitesBesidePools(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2"))
	ctx := context.Background()
	apply := func(dry bool, objects ...upkeep.Object) Applied {
		t.Helper()
		applied, err := r.Apply(ctx, "tester", objects, dry)
		if err != nil {
			t.Fatal(err)
		}
		return applied
	}
	site := upkeep.Site{Name: "example.test", Account: "acme", Servers: []string{"web1"}}
	changed := site
	changed.CGI = true
	ground := []upkeep.Object{upkeep.Account{Name: "acme"}, upkeep.Server{Name: "web1", Roles: []string{"web"}}, site}
	dry := apply(true, ground...)
	if len(dry.Changes) != 3 || dry.Changes[2].Action != store.Created || dry.Changes[2].Old != nil || dry.Changes[2].Generation != 1 {
		t.Errorf("dry run: %+v", dry)
	}
	if all, err := r.Objects(ctx, upkeep.KindSite, ""); err != nil || len(all) != 0 {
		t.Errorf("after a dry run: %v, %v", all, err)
	}
	r.prober.mu.Lock()
	probed := r.prober.specs
	r.prober.specs = nil
	r.prober.mu.Unlock()
	apply(false, ground...)
	r.prober.mu.Lock()
	if r.prober.specs != nil {
		t.Error("the probes were set anew for a site")
	}
	r.prober.specs = probed
	r.prober.mu.Unlock()
	both := apply(false, changed, testPool("192.0.2.1", "192.0.2.2"), ground[0])
	if c := both.Changes[0]; c.Action != store.Changed || c.Generation != 2 || c.Old.(upkeep.Site).CGI || !c.New.(upkeep.Site).CGI {
		t.Errorf("changed: %+v", c)
	}
	if both.Changes[1].Action != store.Unchanged || both.Changes[2].Action != store.Unchanged {
		t.Errorf("unchanged: %+v", both.Changes)
	}
	// Who has read the first generation does not overwrite the second.
	stale := map[store.Ref]int64{store.RefOf(site): 1}
	if _, err := r.ApplyIf(ctx, "tester", stale, []upkeep.Object{site}, false); !errors.Is(err, upkeep.ErrChanged) {
		t.Errorf("changing what was changed meanwhile: %v", err)
	}
	if err := r.DeleteIf(ctx, "tester", stale, store.RefOf(site)); !errors.Is(err, upkeep.ErrChanged) {
		t.Errorf("deleting what was changed meanwhile: %v", err)
	}
	if all, err := r.Objects(ctx, upkeep.KindSite, site.Name); err != nil || len(all) != 1 || all[0].Generation != 2 {
		t.Errorf("after refused changes: %v, %v", all, err)
	}
	var invalid *upkeep.InvalidError
	if _, err := r.Apply(ctx, "tester", []upkeep.Object{upkeep.Site{Name: "b.test", Account: "bob", Servers: []string{"web1"}}, changed, changed}, true); !errors.As(err, &invalid) ||
		!strings.Contains(err.Error(), "given twice") {
		t.Errorf("given twice: %v", err)
	}
	if err := r.Delete(ctx, "tester", store.RefOf(ground[1])); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("deleting a server that is used: %v", err)
	}
	if found, err := r.Objects(ctx, "", "example.test"); err != nil || len(found) == 0 || found[len(found)-1].Object.ObjectKind() != upkeep.KindSite {
		t.Errorf("found %v, %v", found, err)
	}
	if _, err := r.Objects(ctx, upkeep.KindSite, "none.test"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("not there: %v", err)
	}
	if err := r.Delete(ctx, "tester", store.RefOf(site), store.RefOf(ground[1]), store.RefOf(testPool())); err != nil {
		t.Error(err)
	}
	many := ground[:2:2]
	for i := range 1000 {
		many = append(many, upkeep.Site{Name: fmt.Sprintf("s%d.test", i), Account: "acme", Servers: []string{"web1"}})
	}
	if applied := apply(false, many...); len(applied.Changes) != len(many) {
		t.Errorf("%d changes", len(applied.Changes))
	}
}
