package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"upkeep"
	"upkeep/internal/watch"
	"upkeep/internal/zone"
)

// publishers makes the publishers that zone documents ask for: a publisher type
// is a case here and a file in package zone.
func (p *process) publishers(ctx context.Context, dns *zone.Server) watch.PublisherFunc {
	var bind *zone.Bind // one for all zones, since zones may share include files
	var once sync.Once
	agents := newAgentPublishers(p.jobs)
	return func(w *watch.Watch, z upkeep.Zone, declared upkeep.Publisher) (zone.Publisher, error) {
		notice := func(name, what, why string) { w.Notice("zone/"+name, what, why) }
		once.Do(func() { bind = zone.NewBind(zone.BindOptions{Logger: p.log, Notice: notice}) })
		switch {
		case declared.Type == upkeep.PublishTransfer:
			if dns == nil {
				return nil, upkeep.WithHint(errors.New("upkeep answers no DNS here"), "give it an address with --dns")
			}
			return dns.Publisher(ctx, z, declared)
		case declared.Type == upkeep.PublishBind && declared.Agent != "":
			return agents.publisher(z, declared, notice, func() { w.Republish(z.Name) }), nil
		case declared.Type == upkeep.PublishBind:
			return bind.Publisher(z, declared)
		case declared.Type == upkeep.PublishUpdate:
			return zone.NewUpdate(z, declared, zone.UpdateOptions{Logger: p.log, Notice: notice, Memory: memory{w, z.Name + "/"}})
		}
		return nil, fmt.Errorf("publisher type %q is not known", declared.Type)
	}
}

// memory keeps what a publisher must remember across restarts.
type memory struct {
	watch  *watch.Watch
	prefix string
}

func (m memory) Load(ctx context.Context, key string) ([]byte, error) {
	return m.watch.Recall(ctx, m.prefix+key)
}

func (m memory) Save(ctx context.Context, key string, value []byte) error {
	m.watch.Remember(ctx, m.prefix+key, value)
	return nil
}
