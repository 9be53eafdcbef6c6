package upkeep

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// RealPath is the path by which a file of a bind publisher is reached from
// outside the chroot of named. A path below the chroot is taken as it is, and
// any other as named sees it; no path can be both.
func (p Publisher) RealPath(path string) string {
	if path == "" || p.Chroot == "" {
		return path
	}
	chroot, path := filepath.Clean(p.Chroot), filepath.Clean(path)
	if path == chroot || strings.HasPrefix(path, strings.TrimSuffix(chroot, "/")+"/") {
		return path
	}
	return filepath.Join(chroot, path)
}

// checkShared refuses zones that include the same files and would not have the
// same text in them: one SOA record and one set of pools for all of them.
func (c *conflicts) checkShared(objects []Object) {
	pools := map[string][]string{} // by zone
	for _, object := range objects {
		if pool, is := object.(Pool); is {
			for _, zone := range pool.Zones {
				pools[zone] = append(pools[zone], pool.Name)
			}
		}
	}
	type place struct{ agent, dir string }
	first := map[place]Zone{} // by include directory, of this machine or of an agent's
	zones := make([]Zone, 0, len(c.zones))
	for _, zone := range c.zones {
		zones = append(zones, zone)
	}
	slices.SortFunc(zones, func(a, b Zone) int { return cmp.Compare(a.Name, b.Name) })
	for _, zone := range zones {
		for i, p := range zone.Publishers {
			if p.Type != PublishBind {
				continue
			}
			dir := place{p.Agent, filepath.Clean(p.RealPath(p.IncludeDir))}
			other, shared := first[dir]
			if !shared {
				first[dir] = zone
				continue
			}
			field := fmt.Sprintf("publishers[%d].include_dir", i)
			slices.Sort(pools[zone.Name])
			slices.Sort(pools[other.Name])
			switch {
			case other.Name == zone.Name:
				c.add(zone, field, p.IncludeDir, "is used by two publishers of this zone")
			case !slices.Equal(pools[zone.Name], pools[other.Name]):
				c.add(zone, field, p.IncludeDir, "is shared with zone %s, so the same pools must name both zones: here %s, there %s",
					other.Name, orNone(pools[zone.Name]), orNone(pools[other.Name]))
			case !sameSOA(zone.WithDefaults(), other.WithDefaults()):
				c.add(zone, field, p.IncludeDir, "is shared with zone %s, so both must have the same ttl and soa", other.Name)
			}
		}
	}
}

func orNone(names []string) string { return orString(strings.Join(names, ", "), "none") }

// sameSOA reports whether one SOA record can be written for both zones: with
// its names in full, or relative to each zone.
func sameSOA(a, b Zone) bool {
	same := func(x, y string) bool {
		relativeX, inA := strings.CutSuffix(x, "."+a.Name)
		relativeY, inB := strings.CutSuffix(y, "."+b.Name)
		return x == y || inA && inB && relativeX == relativeY || x == a.Name && y == b.Name
	}
	soaA, soaB := a.SOA, b.SOA
	if !same(soaA.MName, soaB.MName) || !same(soaA.RName, soaB.RName) {
		return false
	}
	soaA.MName, soaB.MName, soaA.RName, soaB.RName = "", "", "", ""
	return soaA == soaB && a.TTL == b.TTL
}
