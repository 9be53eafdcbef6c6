package zone

import (
	"context"
	"slices"
	"sync"
)

// Journal keeps what the transfer publisher answers across restarts: each
// zone's whole content and the latest changes to it, from which incremental
// transfers are answered (RFC 1995). Both are opaque to the keeper.
type Journal interface {
	// LoadZone returns what the last SaveZone left, deltas oldest first. Content
	// is nil for a zone that was never saved.
	LoadZone(ctx context.Context, zone string) (content []byte, deltas [][]byte, err error)
	// SaveZone replaces the content and appends the delta that led to it, in one
	// transaction, and forgets all but the newest keep deltas. A nil delta is
	// not appended.
	SaveZone(ctx context.Context, zone string, content, delta []byte, keep int) error
}

// MemoryJournal is a [Journal] that ends with the process: for tests, and for
// whoever can live with a full transfer after each restart.
type MemoryJournal struct {
	mu    sync.Mutex
	zones map[string]journaled
}

type journaled struct {
	content []byte
	deltas  [][]byte
}

// LoadZone implements [Journal].
func (m *MemoryJournal) LoadZone(_ context.Context, zone string) ([]byte, [][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.zones[zone]
	return kept.content, slices.Clone(kept.deltas), nil
}

// SaveZone implements [Journal].
func (m *MemoryJournal) SaveZone(_ context.Context, zone string, content, delta []byte, keep int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.zones == nil {
		m.zones = map[string]journaled{}
	}
	deltas := slices.Clone(m.zones[zone].deltas)
	if delta != nil {
		deltas = append(deltas, delta)
	}
	deltas = deltas[max(0, len(deltas)-keep):]
	m.zones[zone] = journaled{content: content, deltas: deltas}
	return nil
}
