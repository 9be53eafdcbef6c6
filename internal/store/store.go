// Package store keeps declared things, events, overrides, states and zone
// journals in a database: SQLite by default, PostgreSQL for who has one.
//
// There is one set of queries for both. What differs is in sqlite.go and
// postgres.go: opening, locking against other writers, and what an error of the
// database means to a person. Package storetest is the suite that both pass.
//
// Every method is one transaction, durable when it returns: a kill or a power
// cut leaves the state before it or the state after it.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

// Store is an open database. It is safe for use by several goroutines.
type Store struct {
	write   *bun.DB // for SQLite a single connection: there is one writer at a time
	read    *bun.DB
	dialect dialect
	now     func() time.Time
	// followers are told of changes in their transaction.
	followers []Follower
	queue     Queue    // nil when nobody has jobs done
	reserved  []string // names that no site may have
	kept      kept
}

// dialect is what differs between the databases.
type dialect interface {
	// lockWriters makes a transaction wait for every earlier writer's end.
	lockWriters(ctx context.Context, tx bun.Tx) error
	// explain adds to an error of the database what a person can do about it.
	explain(err error) error
	// columnTypes are put in place of ${NAME} in migrations.
	columnTypes() map[string]string
	// keepTypes has the database refuse values that are not of their column's type.
	keepTypes(ctx context.Context, db *bun.DB) error
}

// Open opens the database at "sqlite:PATH" or "postgres://...", creates what it
// lacks and brings an older one up to date. A database of a newer version is
// refused. Advice comes with the errors, see [upkeep.WithHint].
func Open(ctx context.Context, dsn string) (*Store, error) {
	var s *Store
	var err error
	scheme, rest, _ := strings.Cut(dsn, ":")
	switch {
	case scheme == "sqlite" && rest != "":
		s, err = openSQLite(ctx, rest)
	case scheme == "postgres" || scheme == "postgresql":
		s, err = openPostgres(ctx, dsn)
	default:
		// The address is not shown: it may hold a password.
		return nil, errors.New("opening the database: its address must be sqlite:PATH or postgres://USER@HOST/NAME")
	}
	if err != nil {
		return nil, err
	}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes the database. It must not be in use any more.
func (s *Store) Close() error {
	if s.read == s.write {
		return s.write.Close()
	}
	// The writer goes last: closing the last connection folds the write-ahead
	// log into the file, which a read-only one cannot do.
	return errors.Join(s.read.Close(), s.write.Close())
}

// change runs f in one transaction that waits for the writers before it and
// keeps later ones out, so what f reads is true until it commits. Event ids
// become visible in their own order for the same reason: a reader that
// remembers the last id it saw misses none.
func (s *Store) change(ctx context.Context, doing string, f func(context.Context, bun.Tx) error) error {
	err := s.write.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := s.dialect.lockWriters(ctx, tx); err != nil {
			return err
		}
		if err := f(ctx, tx); err != nil {
			return err
		}
		return noteRequest(ctx, tx, s.now())
	})
	return s.explain(doing, err)
}

// snapshot runs f in a transaction that only reads and sees one state.
func (s *Store) snapshot(ctx context.Context, f func(context.Context, bun.Tx) error) error {
	return s.read.RunInTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, f)
}

// explain gives an error its context and advice; nil stays nil.
func (s *Store) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	return s.dialect.explain(fmt.Errorf("%s: %w", doing, err))
}

// chunk bounds the rows of one statement, and so its length.
const chunk = 500

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func instant(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// present makes no bytes an empty value, where nil would be NULL.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// notFound turns the absence of a row into false.
func notFound(err error) (found bool, other error) {
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// Ref names a declared thing.
type Ref struct{ Kind, Name string }

// RefOf is the name of an object.
func RefOf(object upkeep.Object) Ref { return Ref{object.ObjectKind(), object.ObjectName()} }

// String is the form that events carry: "pool/web".
func (r Ref) String() string { return r.Kind + "/" + r.Name }
