package store_test

import (
	"testing"

	"upkeep/internal/store"
	"upkeep/internal/store/storetest"
	"upkeep/internal/testkit"
)

func TestRosterSQLite(t *testing.T) {
	storetest.Roster(t, func(t *testing.T) *store.Store { return opener(t, sqliteDSN(t))() })
}

func TestRosterPostgres(t *testing.T) {
	testkit.Need(t, "postgres", "initdb")
	storetest.Roster(t, func(t *testing.T) *store.Store { return opener(t, testkit.Postgres(t))() })
}
