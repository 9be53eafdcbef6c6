package store

import (
	"errors"
	"testing"

	"upkeep/internal/testkit"
)

// A server that hung may go on holding the lock for a connection of ours that is
// gone. That is not taken for somebody else who took over.
func TestOwnStaleLockIsNotATakeover(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), testkit.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	first := &Hold{store: s}
	if taken, err := first.take(t.Context()); !taken || err != nil {
		t.Fatalf("taking the lock: %v, %v", taken, err)
	}
	again := &Hold{store: s, pid: first.pid} // as if its connection had been lost
	if taken, err := again.take(t.Context()); taken || !errors.Is(err, errStale) {
		t.Errorf("while our own dead connection holds it: %v, %v", taken, err)
	}
	other := &Hold{store: s, pid: first.pid + 1}
	if taken, err := other.take(t.Context()); taken || err != nil {
		t.Errorf("while somebody else holds it: %v, %v", taken, err)
	}
	if err := first.conn.Close(); err != nil {
		t.Error(err)
	}
}
