package agent

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/safefs"
	"upkeep/internal/task"
	"upkeep/internal/zone"
)

// zones are the publishers of the zones that jobs have named. They are kept,
// because they know which zones share include files.
type zones struct {
	mu      sync.Mutex
	bind    *zone.Bind
	made    map[zoneView]madeZone
	notices map[string][]task.ZoneNotice // by zone, that control was not told of yet
}

type zoneView struct{ name, view string }

type madeZone struct {
	asked     upkeep.Publisher
	publisher *zone.BindPublisher
}

// maxNotices is how many things are kept for control to be told of a zone.
const maxNotices = 20

func (r *Root) openZones() error {
	r.zones.made, r.zones.notices = map[zoneView]madeZone{}, map[string][]task.ZoneNotice{}
	r.zones.bind = zone.NewBind(zone.BindOptions{Logger: r.o.Logger, Now: r.o.Now, Notice: r.zones.note})
	return nil
}

func (z *zones) note(name, what, why string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if len(z.notices[name]) < maxNotices {
		z.notices[name] = append(z.notices[name], task.ZoneNotice{What: plainText(what), Why: plainText(why)})
	}
}

// noted returns what there is to tell of a zone, once.
func (z *zones) noted(name string) []task.ZoneNotice {
	z.mu.Lock()
	defer z.mu.Unlock()
	notices := z.notices[name]
	delete(z.notices, name)
	return notices
}

// zonePublish writes the include files of a zone and has named load them. Where
// the files may be, which commands are run and which server is asked comes from
// the policy; of the job's own, nothing is run, asked or told.
func zonePublish(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ZonePublish)
	asked := t.Publisher
	if err := r.policy.Zones.AllowsInclude(asked); err != nil {
		return nil, err
	}
	asked.RNDC, asked.Checkzone = r.policy.Zones.RNDC, r.policy.Zones.Checkzone
	asked.Server, asked.Chroot = r.policy.Zones.Server, r.policy.Zones.Chroot
	asked.Agent = ""
	if err := mustBeRoots(asked.RealPath(asked.IncludeDir)); err != nil {
		return nil, err
	}
	z := t.Zone.WithDefaults()
	z.Publishers = []upkeep.Publisher{asked}
	z.Servers = r.policy.Zones.Notify // root sends nothing to addresses that a job names
	content := zone.Content{Zone: z}
	for _, set := range t.Sets {
		one := zone.AddressSet{Owner: set.Owner, TTL: time.Duration(set.TTL) * time.Second}
		for _, text := range set.Addresses {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, err // which validation has refused
			}
			one.Addresses = append(one.Addresses, addr)
		}
		content.Sets = append(content.Sets, one)
	}
	publisher, err := r.zones.publisher(z, asked, t.Sharing)
	if err != nil {
		return nil, err
	}
	j.step(20, "writing include files and asking named to load them")
	serial, err := publisher.Publish(ctx, content)
	if err != nil {
		return nil, err
	}
	return task.ZoneResult{Serial: serial, Notices: r.zones.noted(z.Name)}, nil
}

// mustBeRoots refuses an include folder in which somebody else could plant
// something.
func mustBeRoots(path string) error {
	dir, err := safefs.OpenRoot(path, true, nil)
	if err != nil {
		return upkeep.WithHint(fmt.Errorf("the include folder of the zone: %w", err), "give it to root: named reads what is in it and never writes there")
	}
	return dir.Close()
}

// publisher is the one of a zone. Zones that do not share the include files any
// more are forgotten: as long as they are known, the files have to suit them.
func (z *zones) publisher(declared upkeep.Zone, asked upkeep.Publisher, sharing []string) (*zone.BindPublisher, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for key, made := range z.made {
		if made.asked.IncludeDir == asked.IncludeDir && key.name != declared.Name && !slices.Contains(sharing, key.name) {
			if err := made.publisher.Close(); err != nil {
				return nil, err
			}
			delete(z.made, key)
		}
	}
	key := zoneView{declared.Name, asked.View}
	if made, exists := z.made[key]; exists {
		if reflect.DeepEqual(made.asked, asked) {
			return made.publisher, nil
		}
		if err := made.publisher.Close(); err != nil {
			return nil, err
		}
		delete(z.made, key)
	}
	publisher, err := z.bind.Publisher(declared, asked)
	if err != nil {
		return nil, err
	}
	z.made[key] = madeZone{asked, publisher}
	return publisher, nil
}
