package store_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

func TestOneProcessHoldsADatabase(t *testing.T) {
	onBoth(t, oneProcessHolds)
}

func oneProcessHolds(t *testing.T, dsn string, _ *sql.DB) {
	open := opener(t, dsn)
	first, second := open(), open()
	hold, err := first.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Hold(t.Context()); !errors.Is(err, upkeep.ErrConflict) {
		t.Fatalf("a second holder: %v, want a conflict", err)
	}
	if err := hold.Release(); err != nil {
		t.Fatal(err)
	}
	if hold, err = second.Hold(t.Context()); err != nil {
		t.Fatalf("after the release: %v", err)
	}
	if err := hold.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestHoldOutlivesItsConnection(t *testing.T) {
	testkit.Need(t, "postgres", "initdb")
	dsn := testkit.Postgres(t)
	open := opener(t, dsn)
	hold, err := open().Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw := rawDB(t, "pgx", dsn)
	// It waits until each connection is gone; a lock that is still being let go looks held.
	cut := "SELECT pg_terminate_backend(pid, 60000) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
	if _, err := raw.Exec(cut); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		held := 0
		err := raw.QueryRow("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").Scan(&held)
		return err == nil && held == 1, "the lock was not taken again"
	})
	select {
	case <-hold.Lost():
		t.Fatal("a broken connection counts as lost although nobody else came")
	default:
	}

	// Somebody else who comes while the connection is away does take over. It is opened
	// before: the first looks after its connection every few seconds.
	other := open()
	if _, err := raw.Exec(cut); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		_, err := other.Hold(t.Context())
		return err == nil, "the other could not take over"
	})
	<-hold.Lost()
}
