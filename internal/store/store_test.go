package store_test

import (
	"context"
	"database/sql"
	"net/netip"
	"path/filepath"
	"testing"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/store/storetest"
	"upkeep/internal/testkit"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() *store.Store { return opener(t, sqliteDSN(t)) })
}

func TestPostgres(t *testing.T) {
	testkit.Need(t, "postgres", "initdb")
	storetest.Run(t, func(t *testing.T) func() *store.Store { return opener(t, testkit.Postgres(t)) })
}

func sqliteDSN(t testing.TB) string {
	// A path that needs escaping in a URI.
	return "sqlite:" + filepath.Join(t.TempDir(), "up keep?#%41.db")
}

func opener(t testing.TB, dsn string) func() *store.Store {
	return func() *store.Store {
		t.Helper()
		s, err := store.Open(context.Background(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
}

// onBoth runs a test against each database, with the means to go behind the
// store's back.
func onBoth(t *testing.T, run func(t *testing.T, dsn string, raw *sql.DB)) {
	t.Run("SQLite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "upkeep.db")
		run(t, "sqlite:"+path, rawDB(t, "sqlite", path))
	})
	t.Run("Postgres", func(t *testing.T) {
		dsn := testkit.Postgres(t)
		run(t, dsn, rawDB(t, "pgx", dsn))
	})
}

func rawDB(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.ExecContext(context.Background(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// A rule that was broken before, by an older version's leave, does not stand in
// the way of what has nothing to do with it.
func TestRuleBrokenBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string, raw *sql.DB) {
		ctx, s := context.Background(), opener(t, dsn)()
		apply := func(change store.Change) {
			t.Helper()
			if _, err := s.Apply(ctx, "tester", change); err != nil {
				t.Error(err)
			}
		}
		apply(store.Change{Put: []upkeep.Object{zone("old.test"), pool("orphan", "old.test")}})
		exec(t, raw, "DELETE FROM objects WHERE kind = 'zone'")
		apply(store.Change{Put: []upkeep.Object{zone("a.test"), pool("web", "a.test")}})
		apply(store.Change{Delete: []store.Ref{{Kind: "pool", Name: "orphan"}}})
	})
}

// A document that only an older version's spelling tells from the present one is
// the same; one that cannot be read is named and keeps nothing else from being
// understood.
func TestStoredSpelling(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string, raw *sql.DB) {
		ctx, s := context.Background(), opener(t, dsn)()
		change := store.Change{Put: []upkeep.Object{zone("a.test"), pool("web", "a.test")}}
		if _, err := s.Apply(ctx, "tester", change); err != nil {
			t.Fatal(err)
		}
		exec(t, raw, `UPDATE objects SET document = '{"check":{"type":"ping"}, "members":["192.0.2.1"],
			"records":["web"], "zones":["a.test"], "name":"web", "ttl":"0s"}' WHERE kind = 'pool'`)
		applied, err := s.Apply(ctx, "tester", change)
		if err != nil || len(applied.Events) != 0 || applied.Results[1].Generation != 1 {
			t.Errorf("the same in another spelling: %+v, %v", applied, err)
		}
	})
}

func zone(name string) upkeep.Zone {
	return upkeep.Zone{Name: name, Publishers: []upkeep.Publisher{{Type: upkeep.PublishTransfer}}}
}

func pool(name, zone string) upkeep.Pool {
	return upkeep.Pool{
		Name: name, Zones: []string{zone}, Records: []string{name}, Check: upkeep.Check{Type: upkeep.CheckPing},
		Members: []upkeep.Member{{Address: netip.MustParseAddr("192.0.2.1")}},
	}
}
