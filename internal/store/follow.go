package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

// Follower makes what follows from a change of declared things, such as jobs, in
// the transaction of that change: both are there, or neither.
type Follower interface {
	// Follow is told once of each change, of all things in it that did change, in
	// their order. It must not use the store but through tx: the store waits for
	// the transaction. An error refuses the change.
	Follow(ctx context.Context, tx Tx, changes []Altered) error
}

// Altered is one declared thing that a change created, changed or deleted.
type Altered struct {
	Ref Ref
	// Old is nil when the thing is new, or when its row could not be read. New is
	// nil when it was deleted.
	Old, New upkeep.Object
	// Generation is the thing's after the change; a deletion leaves it as it was.
	Generation int64
}

// Tx is the transaction of a change, open until Follow returns.
type Tx struct {
	// Who made the change, and Why, as its events say; At is when.
	Who, Why string
	At       time.Time

	tx    bun.Tx
	jobs  *JobNews // never nil
	queue Queue    // nil when nobody has jobs done
}

// SQL is the transaction itself, for libraries that write tables of their own in it.
func (t Tx) SQL() *sql.Tx { return t.tx.Tx }

// Follow has f told of every change from now on. It is called before the store
// is shared, once for each follower; they are told in that order.
func (s *Store) Follow(f Follower) { s.followers = append(s.followers, f) }

func (s *Store) follow(ctx context.Context, tx Tx, changes []Altered) error {
	if len(changes) == 0 {
		return nil
	}
	for _, f := range s.followers {
		if err := f.Follow(ctx, tx, changes); err != nil {
			return err
		}
	}
	return nil
}
