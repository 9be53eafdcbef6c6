package storetest

import (
	"testing"

	"upkeep/internal/link/rostertest"
	"upkeep/internal/store"
)

// Roster runs the suite of rosters of agents. open opens a database without
// entries.
func Roster(t *testing.T, open func(t *testing.T) *store.Store) {
	rostertest.Exercise(t, func(t *testing.T) rostertest.Roster { return open(t).Roster() })
}
