package store_test

import (
	"context"
	"fmt"
	"testing"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// benchSites are ten thousand sites of a hundred accounts, on two servers.
const benchSites, benchAccounts = 10_000, 100

func benchSite(i, generation int) upkeep.Site {
	return upkeep.Site{
		Name: fmt.Sprintf("site%d.example%d.test", i, i%benchAccounts), Account: fmt.Sprintf("account%d", i%benchAccounts), Servers: []string{"web1", "web2"},
		Aliases: []string{fmt.Sprintf("alias%d.test", i)}, ErrorPages: map[string]string{"404": fmt.Sprintf("/missing%d.html", generation)},
	}
}

// fill declares the ten thousand, a thousand at a time.
func fill(b *testing.B, s *store.Store) {
	b.Helper()
	objects := []upkeep.Object{upkeep.Server{Name: "web1", Roles: []string{"web"}}, upkeep.Server{Name: "web2", Roles: []string{"web"}}}
	for i := range benchAccounts {
		objects = append(objects, upkeep.Account{Name: fmt.Sprintf("account%d", i)})
	}
	for i := range benchSites {
		objects = append(objects, benchSite(i, 0))
		if len(objects) >= 1000 || i == benchSites-1 {
			benchApply(b, s, objects)
			objects = nil
		}
	}
}

func benchApply(b *testing.B, s *store.Store, objects []upkeep.Object) {
	b.Helper()
	applied, err := s.Apply(context.Background(), "bench", store.Change{Put: objects})
	if err != nil {
		b.Fatal(err)
	}
	if len(applied.Altered) != len(objects) {
		b.Fatalf("%d of %d changed", len(applied.Altered), len(objects))
	}
}

func onEach(b *testing.B, run func(b *testing.B, s *store.Store)) {
	b.Run("SQLite", func(b *testing.B) { run(b, opener(b, sqliteDSN(b))()) })
	b.Run("Postgres", func(b *testing.B) {
		testkit.Need(b, "postgres", "initdb")
		run(b, opener(b, testkit.Postgres(b))())
	})
}

// One site is changed among ten thousand.
func BenchmarkOneSite(b *testing.B) {
	onEach(b, func(b *testing.B, s *store.Store) {
		fill(b, s)
		n := 0
		for b.Loop() {
			n++
			benchApply(b, s, []upkeep.Object{benchSite(n*7919%benchSites, n)})
		}
	})
}

// A thousand sites are changed among ten thousand, in one change.
func BenchmarkThousandSites(b *testing.B) {
	onEach(b, func(b *testing.B, s *store.Store) {
		fill(b, s)
		n := 0
		for b.Loop() {
			n++
			objects := make([]upkeep.Object, 1000)
			for i := range objects {
				objects[i] = benchSite((i*7+n)%benchSites, n)
			}
			benchApply(b, s, objects)
		}
	})
}

// A thousand sites that were not there, above nine thousand others.
func BenchmarkThousandNewSites(b *testing.B) {
	onEach(b, func(b *testing.B, s *store.Store) {
		fill(b, s)
		n := 0
		for b.Loop() {
			n++
			objects := make([]upkeep.Object, 1000)
			for i := range objects {
				objects[i] = benchSite(n*benchSites+i, 0)
			}
			benchApply(b, s, objects)
		}
	})
}

// Nothing is changed by a thousand sites that are as they were.
func BenchmarkThousandUnchanged(b *testing.B) {
	onEach(b, func(b *testing.B, s *store.Store) {
		fill(b, s)
		objects := make([]upkeep.Object, 1000)
		for i := range objects {
			objects[i] = benchSite(i, 0)
		}
		for b.Loop() {
			if applied, err := s.Apply(context.Background(), "bench", store.Change{Put: objects}); err != nil || len(applied.Altered) > 0 {
				b.Fatal(err, len(applied.Altered))
			}
		}
	})
}
