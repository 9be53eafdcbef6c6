package store_test

import (
	"context"
	"path/filepath"
	"testing"

	"upkeep/internal/store"
	"upkeep/internal/store/storetest"
	"upkeep/internal/testkit"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() *store.Store {
		return opener(t, "sqlite:"+filepath.Join(t.TempDir(), "upkeep.db"))
	})
}

func TestPostgres(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() *store.Store { return opener(t, testkit.Postgres(t)) })
}

func opener(t *testing.T, dsn string) func() *store.Store {
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
