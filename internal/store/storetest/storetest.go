// Package storetest is the suite that every database under package store must
// pass. Tests import it.
package storetest

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

// Run runs the suite. Within one test, open opens the same database each time
// that the function it returns is called; each test has a database of its own.
func Run(t *testing.T, open func(t *testing.T) func() *store.Store) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Objects", objectTests},
		{"Hosting", hostingTests},
		{"Followers", followTests},
		{"Events", eventTests},
		{"Overrides", overrideTests},
		{"States", stateTests},
		{"Zones", zoneTests},
		{"Jobs", jobTests},
		{"Users", userTests},
		{"Audit", auditTests},
		{"Once", onceTests},
		{"Open", openTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, one := range group.tests {
				t.Run(one.name, func(t *testing.T) {
					t.Parallel()
					one.run(t, open(t))
				})
			}
		})
	}
}

type test struct {
	name string
	run  func(*testing.T, func() *store.Store)
}

var ctx = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func zone(name string) upkeep.Zone {
	return upkeep.Zone{Name: name, Publishers: []upkeep.Publisher{{Type: upkeep.PublishTransfer}}}
}

func pool(name, zone string, members ...string) upkeep.Pool {
	p := upkeep.Pool{Name: name, Zones: []string{zone}, Records: []string{name}, Check: upkeep.Check{Type: upkeep.CheckPing}}
	for _, m := range members {
		p.Members = append(p.Members, upkeep.Member{Address: netip.MustParseAddr(m)})
	}
	return p
}

func put(t *testing.T, s *store.Store, objects ...upkeep.Object) store.Applied {
	t.Helper()
	applied, err := s.Apply(ctx, "tester", store.Change{Put: objects})
	must(t, err)
	return applied
}

// generations is the state of declared things, such as "pool/web:2 zone/a.test:1".
func generations(t *testing.T, s *store.Store) string {
	t.Helper()
	declared, err := s.Objects(ctx)
	must(t, err)
	text := ""
	for _, d := range declared {
		text += fmt.Sprintf(" %s:%d", store.RefOf(d.Object), d.Generation)
	}
	if text == "" {
		return ""
	}
	return text[1:]
}

func events(t *testing.T, s *store.Store, f store.EventFilter) []upkeep.Event {
	t.Helper()
	found, err := s.Events(ctx, f)
	must(t, err)
	return found
}

var start = time.Date(2026, 3, 29, 1, 30, 0, 123456789, time.UTC)
