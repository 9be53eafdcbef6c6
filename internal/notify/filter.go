package notify

import (
	"path"
	"slices"
	"strings"

	"upkeep"
)

// filter is what a receiver wants to be told of.
type filter struct {
	self  string // the receiver's own object
	kinds []string
	globs []string // of pools; none: everything
	zones []string // that pools of the globs are published in, sorted
}

func newFilter(r upkeep.Receiver, objects []upkeep.Object) filter {
	f := filter{self: upkeep.KindReceiver + "/" + r.Name, kinds: r.Events, globs: r.Pools}
	for _, object := range objects {
		if pool, is := object.(upkeep.Pool); is && f.pool(pool.Name) {
			f.zones = append(f.zones, pool.Zones...)
		}
	}
	slices.Sort(f.zones)
	f.zones = slices.Compact(f.zones)
	return f
}

func (f filter) pool(name string) bool {
	return len(f.globs) == 0 || slices.ContainsFunc(f.globs, func(glob string) bool {
		matched, err := path.Match(glob, name)
		return err == nil && matched
	})
}

func (f filter) zone(name string) bool {
	if len(f.globs) == 0 {
		return true
	}
	_, found := slices.BinarySearch(f.zones, name)
	return found
}

// wants reports whether the receiver is told of an event. What concerns the
// receiver itself is for others to hear: that it could not be reached is no news
// to it once it can.
func (f filter) wants(e upkeep.Event) bool {
	if e.Object == f.self || !slices.Contains(f.kinds, e.Kind) {
		return false
	}
	kind, rest, _ := strings.Cut(e.Object, "/")
	name, _, _ := strings.Cut(rest, "/")
	switch kind {
	case upkeep.KindPool:
		return f.pool(name)
	case upkeep.KindZone:
		return f.zone(name)
	}
	return len(f.globs) == 0
}
