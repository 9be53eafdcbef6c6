package job

import (
	"context"
	"maps"
	"slices"

	"upkeep"
	"upkeep/internal/store"
)

// astray has sites applied again of which an agent says that its server does not
// serve them as they were applied. Until that is done they are not called live.
// What an agent says of sites that its server does not have counts for nothing.
func (d *Dispatcher) astray(ctx context.Context, server string, facts upkeep.Facts) {
	why := facts.Astray
	if len(why) == 0 {
		return
	}
	refs := make([]store.Ref, 0, len(why))
	for _, name := range slices.Sorted(maps.Keys(why)) {
		if upkeep.ValidHost(name) {
			refs = append(refs, ref(upkeep.KindSite, name))
		}
	}
	found, err := d.store.Declared(ctx, refs)
	var astray []store.AstraySite
	for _, ref := range refs {
		one, declared := found[ref]
		site, is := one.Object.(upkeep.Site)
		if !declared || one.Err != nil || !is || !slices.Contains(site.Servers, server) {
			continue
		}
		stray := store.AstraySite{Site: site.Name, Account: site.Account, Generation: one.Generation, Reason: bounded(why[ref.Name])}
		// An agent of an older version does not tell, and one that tells of what never
		// was is not believed.
		if served, told := facts.InForce[site.Name]; told && served >= 0 && served <= one.Generation {
			stray.InForce = &served
		}
		astray = append(astray, stray)
	}
	if err == nil {
		err = d.store.AstraySites(ctx, server, astray)
	}
	if err != nil && ctx.Err() == nil {
		d.log.Error("having sites applied again that went astray", "server", server, "sites", len(astray), "err", err)
	}
}
