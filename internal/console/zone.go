package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/access"
)

func zonePath(name string) string { return "/zones/" + url.PathEscape(name) }

// zonePage is what is published in a zone: each pool's addresses, and the records of
// its own document.
type zonePage struct {
	Zone    zoneView
	Pools   []zonePool
	Records []zoneRecord
	Events  []eventView
	Lost    bool
	Writes  bool
}

type zonePool struct {
	Name, Path, Names, Addresses, TTL string
	Trouble                           []string
}

type zoneRecord struct{ Name, Type, Value string }

func (c *Console) zone(w http.ResponseWriter, r *http.Request) {
	ctx, now, name := r.Context(), c.o.Now(), r.PathValue("name")
	zones, err := c.o.Observer.Zones(ctx)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	at := slices.IndexFunc(zones, func(z upkeep.ZoneStatus) bool { return z.Name == name })
	if at < 0 {
		c.fault(w, r, http.StatusNotFound, "There is no such zone. It may have been deleted.")
		return
	}
	v := zonePage{Zone: viewZones(zones[at:at+1], now)[0], Writes: !access.From(ctx).ReadOnly}
	if v.Pools, err = c.zonePools(r, name); err != nil {
		c.broken(w, r, err)
		return
	}
	if found, err := c.o.Hosting.Bounds.Objects(ctx, upkeep.KindZone, name); err == nil && len(found) == 1 {
		if zone, is := found[0].Object.(upkeep.Zone); is {
			for _, record := range zone.Records {
				v.Records = append(v.Records, zoneRecord{record.Name, record.Type, record.Value})
			}
		}
	}
	var events []upkeep.Event
	_, events, v.Lost = c.past(ctx, upkeep.KindZone+"/"+name, now)
	v.Events = viewEvents(events, now, access.From(ctx).Staff)
	c.render(w, r, http.StatusOK, "zone.html", name, v)
}

// zonePools are the pools that are published in a zone, by their documents and by what
// they do now.
func (c *Console) zonePools(r *http.Request, zone string) ([]zonePool, error) {
	declared, err := c.o.Hosting.Bounds.Objects(r.Context(), upkeep.KindPool, "")
	if err != nil {
		return nil, err
	}
	var all []zonePool
	names := []string{}
	for _, d := range declared {
		pool, is := d.Object.(upkeep.Pool)
		if !is || !slices.Contains(pool.Zones, zone) {
			continue
		}
		names = append(names, pool.Name)
		status, err := c.o.Observer.Pool(r.Context(), pool.Name)
		if err != nil {
			continue // it was deleted meanwhile
		}
		var addresses []string
		for _, address := range status.Published {
			addresses = append(addresses, address.String())
		}
		all = append(all, zonePool{pool.Name, "/pools/" + url.PathEscape(pool.Name), strings.Join(pool.Records, ", "), strings.Join(addresses, ", "), fmt.Sprint(status.TTL), trouble(status)})
	}
	shows(r.Context(), upkeep.KindPool, names)
	return all, nil
}
