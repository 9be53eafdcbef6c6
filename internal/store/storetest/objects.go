package storetest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upkeep"
	"upkeep/internal/store"
)

var objectTests = []test{
	{"what was put comes back", putComesBack},
	{"generations rise on a real change only", generationsRise},
	{"a generation is never given twice", generationNotReused},
	{"a change is all or nothing", allOrNothing},
	{"rules between things hold", rulesBetween},
	{"an expected generation is checked", expectedGeneration},
	{"of two writers one wins", twoWriters},
	{"each change has its event", changeEvents},
}

func putComesBack(t *testing.T, open func() *store.Store) {
	s := open()
	off, window := false, upkeep.Duration(0)
	web := pool("web", "example.test", "192.0.2.1", "2001:db8::1")
	web.Members[1].CheckAddress, web.Members[1].Backup = "198.51.100.7", true
	web.Check = upkeep.Check{
		Type: upkeep.CheckHTTPS, Interval: upkeep.Duration(1500 * time.Millisecond), Burst: &off, Host: "www.example.org",
		Header: map[string]string{"X-Quote": `it's a "test" \ with ? and $1 and ${X}`}, MaxFalse: upkeep.Rate{Count: 1, Per: upkeep.Year},
		Status: []upkeep.StatusRange{{From: 200, To: 204}}, Body: "größer\tals 日本",
	}
	web.Policy = upkeep.Policy{HealthyFraction: 1.0 / 3, AddWindow: &window}
	example := zone("example.test")
	example.Records = []upkeep.Record{{Name: "@", Type: "TXT", Value: `"v=spf1 ?all"`}}
	put(t, s, web, example)
	want := []upkeep.Declared{{Generation: 1, Object: web}, {Generation: 1, Object: example}}
	for _, s := range []*store.Store{s, open()} {
		got, err := s.Objects(ctx)
		must(t, err)
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
			t.Error(diff)
		}
	}
}

func generationsRise(t *testing.T, open func() *store.Store) {
	s := open()
	put(t, s, zone("a.test"), pool("web", "a.test", "192.0.2.1"))
	applied := put(t, s, zone("a.test"), pool("web", "a.test", "192.0.2.1"))
	for _, result := range applied.Results {
		if result.Action != store.Unchanged || result.Generation != 1 {
			t.Errorf("put again: %+v", result)
		}
	}
	if len(applied.Events) != 0 {
		t.Errorf("events of no change: %+v", applied.Events)
	}
	applied = put(t, s, pool("web", "a.test", "192.0.2.1", "192.0.2.2"), zone("a.test"))
	want := []store.Result{
		{Ref: store.Ref{Kind: "pool", Name: "web"}, Action: store.Changed, Generation: 2},
		{Ref: store.Ref{Kind: "zone", Name: "a.test"}, Action: store.Unchanged, Generation: 1},
	}
	if diff := cmp.Diff(want, applied.Results); diff != "" {
		t.Error(diff)
	}
	if got := generations(t, s); got != "pool/web:2 zone/a.test:1" {
		t.Error(got)
	}
	if all := events(t, s, store.EventFilter{}); len(all) != 3 {
		t.Errorf("%d events, want 3: %+v", len(all), all)
	}
}

// Whoever remembers a generation must not take a new thing of the same name for
// the one that it knew.
func generationNotReused(t *testing.T, open func() *store.Store) {
	s := open()
	ref := store.Ref{Kind: "zone", Name: "a.test"}
	put(t, s, zone("a.test"))
	_, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{ref}})
	must(t, err)
	if got := generations(t, s); got != "" {
		t.Errorf("after the deletion: %s", got)
	}
	if applied := put(t, s, zone("a.test")); applied.Results[0].Action != store.Created || applied.Results[0].Generation != 2 {
		t.Errorf("created again: %+v", applied.Results)
	}
	_, err = s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{ref}})
	must(t, err)
	// What is remembered of the dead goes with the events of their time.
	_, err = s.PruneEvents(ctx, time.Now().Add(time.Hour))
	must(t, err)
	if applied := put(t, s, zone("a.test")); applied.Results[0].Generation != 1 {
		t.Errorf("after pruning: %+v", applied.Results)
	}
}

func allOrNothing(t *testing.T, open func() *store.Store) {
	s := open()
	put(t, s, zone("a.test"))
	broken := pool("web", "a.test")
	for name, change := range map[string]store.Change{
		"invalid":           {Put: []upkeep.Object{zone("b.test"), broken}},
		"missing to delete": {Put: []upkeep.Object{zone("b.test")}, Delete: []store.Ref{{Kind: "pool", Name: "none"}}},
		"put twice":         {Put: []upkeep.Object{zone("b.test"), zone("b.test")}},
		"put and deleted":   {Put: []upkeep.Object{zone("b.test")}, Delete: []store.Ref{{Kind: "zone", Name: "b.test"}}},
		"deleted twice":     {Delete: []store.Ref{{Kind: "zone", Name: "a.test"}, {Kind: "zone", Name: "a.test"}}},
	} {
		applied, err := s.Apply(ctx, "tester", change)
		if err == nil || len(applied.Results)+len(applied.Events) != 0 {
			t.Errorf("%s: applied %+v, %v", name, applied, err)
		}
		if got := generations(t, s); got != "zone/a.test:1" {
			t.Errorf("%s: left %s", name, got)
		}
	}
	var invalid *upkeep.InvalidError
	if _, err := s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{broken}}); !errors.As(err, &invalid) || invalid.Fields[0].Object != "pool/web" || invalid.Fields[0].Field != "members" {
		t.Errorf("error %#v", err)
	}
	_, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{{Kind: "pool", Name: "none"}}})
	if !errors.Is(err, upkeep.ErrNotFound) || !strings.Contains(err.Error(), "pool/none") {
		t.Errorf("deleting what does not exist: %v", err)
	}
	if all := events(t, s, store.EventFilter{}); len(all) != 1 {
		t.Errorf("events of refused changes: %+v", all)
	}
}

func rulesBetween(t *testing.T, open func() *store.Store) {
	s := open()
	var invalid *upkeep.InvalidError
	if _, err := s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{pool("web", "a.test", "192.0.2.1")}}); !errors.As(err, &invalid) {
		t.Errorf("a pool without its zone: %v", err)
	}
	put(t, s, pool("web", "a.test", "192.0.2.1"), zone("a.test"))
	if _, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{{Kind: "zone", Name: "a.test"}}}); !errors.As(err, &invalid) {
		t.Errorf("deleting a zone that is in use: %v", err)
	}
	// The newcomer is to blame, though its name comes first.
	other := pool("first", "a.test", "192.0.2.2")
	other.Records = []string{"web"}
	_, err := s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{other}})
	if !errors.As(err, &invalid) || invalid.Fields[0].Object != "pool/first" || invalid.Fields[0].Field != "records[0]" {
		t.Errorf("two pools at one name: %v", err)
	}
	_, err = s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{{Kind: "zone", Name: "a.test"}, {Kind: "pool", Name: "web"}}})
	must(t, err)
	if got := generations(t, s); got != "" {
		t.Errorf("left %s", got)
	}
}

func expectedGeneration(t *testing.T, open func() *store.Store) {
	s := open()
	ref := store.Ref{Kind: "zone", Name: "a.test"}
	changed := zone("a.test")
	changed.TTL = upkeep.Duration(time.Hour)
	apply := func(expected int64, change store.Change) error {
		change.IfGeneration = map[store.Ref]int64{ref: expected}
		_, err := s.Apply(ctx, "tester", change)
		return err
	}
	for _, step := range []struct {
		expected int64
		change   store.Change
		conflict bool
	}{
		{1, store.Change{Put: []upkeep.Object{zone("a.test")}}, true},
		{0, store.Change{Put: []upkeep.Object{zone("a.test")}}, false},
		{0, store.Change{Put: []upkeep.Object{changed}}, true},
		{1, store.Change{Put: []upkeep.Object{changed}}, false},
		{1, store.Change{Delete: []store.Ref{ref}}, true},
		{store.Exists, store.Change{Put: []upkeep.Object{changed}}, false}, // which changes nothing
		{2, store.Change{Delete: []store.Ref{ref}}, false},
		{2, store.Change{Put: []upkeep.Object{changed}}, true},
		{store.Exists, store.Change{Put: []upkeep.Object{changed}}, true},
		{0, store.Change{Put: []upkeep.Object{changed}}, false},
	} {
		if err := apply(step.expected, step.change); errors.Is(err, upkeep.ErrConflict) != step.conflict || !step.conflict && err != nil {
			t.Fatalf("%+v: %v", step, err)
		}
	}
	if got := generations(t, s); got != "zone/a.test:3" {
		t.Error(got)
	}
	// What is not there is said not to be there, whatever was expected of it.
	gone := store.Ref{Kind: "zone", Name: "b.test"}
	_, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{gone}, IfGeneration: map[store.Ref]int64{gone: 7}})
	if !errors.Is(err, upkeep.ErrNotFound) || errors.Is(err, upkeep.ErrChanged) {
		t.Errorf("deleting what is not there: %v", err)
	}
	_, err = s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{zone("b.test")}, IfGeneration: map[store.Ref]int64{gone: 7}})
	if !errors.Is(err, upkeep.ErrChanged) || !strings.Contains(err.Error(), "zone/b.test does not exist") {
		t.Errorf("declaring what is not there: %v", err)
	}
}

func twoWriters(t *testing.T, open func() *store.Store) {
	const writers, rounds = 3, 8
	s := open()
	put(t, s, zone("a.test"))
	ref := store.Ref{Kind: "zone", Name: "a.test"}
	var won sync.Map
	var group sync.WaitGroup
	for w := range writers {
		mine := open() // another process would have a connection of its own
		group.Go(func() {
			for round := range int64(rounds) {
				for { // until this round is decided
					changed := zone("a.test")
					changed.TTL = upkeep.Duration(time.Duration(round*writers+int64(w)+1) * time.Second)
					_, err := mine.Apply(ctx, fmt.Sprint(w), store.Change{Put: []upkeep.Object{changed}, IfGeneration: map[store.Ref]int64{ref: round + 1}})
					if err == nil {
						if other, twice := won.Swap(round, w); twice {
							t.Errorf("round %d was won by %v and %d", round, other, w)
						}
					} else if !errors.Is(err, upkeep.ErrConflict) {
						t.Error(err)
					}
					if now, err := mine.Objects(ctx); err != nil || now[0].Generation > round+1 {
						break
					}
				}
			}
		})
	}
	group.Wait()
	if got := generations(t, s); got != fmt.Sprintf("zone/a.test:%d", rounds+1) {
		t.Error(got)
	}
}

func changeEvents(t *testing.T, open func() *store.Store) {
	s := open()
	web := pool("web", "a.test", "192.0.2.1")
	_, err := s.Apply(ctx, "uid 1000", store.Change{Put: []upkeep.Object{zone("a.test"), web}, Why: "web.yaml"})
	must(t, err)
	web.TTL, web.Policy.FailOpen = upkeep.Duration(time.Minute), upkeep.FailOpenNone
	put(t, s, web)
	web.TTL = 0
	put(t, s, web)
	applied, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{{Kind: "pool", Name: "web"}}})
	must(t, err)
	var got []string
	all := events(t, s, store.EventFilter{})
	for _, e := range all {
		got = append(got, fmt.Sprintf("%s|%s|%s|%s|%s", e.Kind, e.Who, e.Object, e.What, e.Why))
		if e.At.IsZero() || time.Since(e.At) > time.Hour || time.Since(e.At) < -time.Hour {
			t.Errorf("event at %s", e.At)
		}
	}
	want := []string{
		"declared|uid 1000|zone/a.test|created|web.yaml",
		"declared|uid 1000|pool/web|created|web.yaml",
		"declared|tester|pool/web|changed policy, ttl|",
		"declared|tester|pool/web|changed ttl|",
		"declared|tester|pool/web|deleted|",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(all[4:], applied.Events); diff != "" {
		t.Errorf("events returned: %s", diff)
	}
}
