package hosting

import (
	"context"
	"encoding/json"
	"fmt"

	"upkeep"
	"upkeep/internal/store"
)

// History returns the generations of a site that are kept, the newest first.
func (d *Desk) History(ctx context.Context, name string) ([]store.Version, error) {
	versions, err := d.Store.History(ctx, store.Ref{Kind: upkeep.KindSite, Name: name})
	if err == nil && len(versions) == 0 {
		err = upkeep.WithHint(fmt.Errorf("site %s: %w", name, upkeep.ErrNotFound), "upkeep site list shows those that are declared")
	}
	return versions, err
}

// Undo declares a site as it was at a generation, under a new one; 0 is the
// newest one that differs from what is declared. A site that was deleted is
// declared again by it. With a generation in still, 0 for none, nothing is done
// unless that is the newest one, a deletion among them, and with [store.Exists] unless it
// is declared; what others did since it was read is not undone.
func (d *Desk) Undo(ctx context.Context, who, name string, generation, still int64) (upkeep.SiteStatus, error) {
	versions, err := d.History(ctx, name)
	if err != nil {
		return upkeep.SiteStatus{}, err
	}
	present := versions[0]
	if still == store.Exists && present.Object == nil {
		return upkeep.SiteStatus{}, store.Still(store.Ref{Kind: upkeep.KindSite, Name: name}, 0, still)
	}
	if still != 0 && still != store.Exists && present.Generation != still {
		return upkeep.SiteStatus{}, upkeep.WithHint(fmt.Errorf("site %s has generation %d, not %d: %w", name, present.Generation, still, upkeep.ErrChanged),
			"upkeep site history "+name+" shows who changed what; ask again for what is there now")
	}
	target, err := earlier(name, versions, generation)
	if err != nil {
		return upkeep.SiteStatus{}, err
	}
	unchanged := map[store.Ref]int64{store.RefOf(target): 0} // not declared
	if present.Object != nil {
		unchanged[store.RefOf(target)] = present.Generation
	}
	if _, err := d.Declarer.ApplyIf(ctx, who, unchanged, []upkeep.Object{target}, false); err != nil {
		return upkeep.SiteStatus{}, err
	}
	return d.Site(ctx, name)
}

// earlier chooses among the generations of a site, the newest first.
func earlier(name string, versions []store.Version, generation int64) (upkeep.Object, error) {
	for _, v := range versions {
		switch {
		case generation == 0 && v.Object != nil && !same(v.Object, versions[0].Object), v.Generation == generation && v.Object != nil:
			return v.Object, nil
		case v.Generation == generation:
			return nil, upkeep.WithHint(fmt.Errorf("generation %d of site %s is a deletion: %w", generation, name, upkeep.ErrRefused), "upkeep site remove "+name+" deletes it")
		}
	}
	what := fmt.Sprintf("generation %d of site %s", generation, name)
	if generation == 0 {
		what = "an earlier generation of site " + name
	}
	return nil, upkeep.WithHint(fmt.Errorf("%s: %w", what, upkeep.ErrNotFound), "upkeep site history "+name+" shows those that are kept")
}

// same compares what would be stored; nil is a deletion.
func same(a, b upkeep.Object) bool {
	if a == nil || b == nil {
		return false
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
