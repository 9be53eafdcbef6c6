package main

import (
	"context"
	"errors"
	"fmt"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/watch"
	"upkeep/internal/zone"
)

// publishers makes the publishers that zone documents ask for: a publisher type
// is a case here and a file in package zone.
func (p *process) publishers(ctx context.Context, dns *zone.Server, kept *store.Store) watch.PublisherFunc {
	notice := func(name, what, why string) { p.watch.Notice("zone/"+name, what, why) }
	bind := zone.NewBind(zone.BindOptions{Logger: p.log, Notice: notice})
	return func(z upkeep.Zone, declared upkeep.Publisher) (zone.Publisher, error) {
		switch declared.Type {
		case upkeep.PublishTransfer:
			if dns == nil {
				return nil, upkeep.WithHint(errors.New("upkeep answers no DNS here"), "give it an address with --dns")
			}
			return dns.Publisher(ctx, z, declared)
		case upkeep.PublishBind:
			return bind.Publisher(z, declared)
		case upkeep.PublishUpdate:
			return zone.NewUpdate(z, declared, zone.UpdateOptions{
				Logger: p.log, Notice: notice, Memory: memory{kept, "publisher/" + z.Name + "/"},
			})
		}
		return nil, fmt.Errorf("publisher type %q is not known", declared.Type)
	}
}

// memory keeps what a publisher must remember across restarts in the store.
type memory struct {
	store  *store.Store
	prefix string
}

func (m memory) Load(ctx context.Context, key string) ([]byte, error) {
	states, err := m.store.LoadStates(ctx, m.prefix+key)
	return states[m.prefix+key], err
}

func (m memory) Save(ctx context.Context, key string, value []byte) error {
	return m.store.SaveStates(ctx, map[string][]byte{m.prefix + key: value})
}
