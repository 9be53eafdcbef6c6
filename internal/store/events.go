package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

type eventRow struct {
	bun.BaseModel `bun:"table:events"`
	ID            int64 `bun:",pk,autoincrement"`
	At            int64
	Kind          string
	Who           string
	Object        string
	What          string
	Why           string
}

func (r eventRow) event() upkeep.Event {
	return upkeep.Event{ID: r.ID, At: instant(r.At), Kind: r.Kind, Who: r.Who, Object: r.Object, What: r.What, Why: r.Why}
}

// AddEvents writes events and returns them as stored: with their ids, which
// rise in the order in which events become visible to readers. An event without
// a time gets the present one. Texts are cut at 4 KiB, and bytes that are not
// text are replaced: reasons carry what hostile targets answered.
func (s *Store) AddEvents(ctx context.Context, events ...upkeep.Event) ([]upkeep.Event, error) {
	if len(events) == 0 {
		return nil, nil
	}
	events = slices.Clone(events)
	for i := range events {
		if events[i].At.IsZero() {
			events[i].At = s.now()
		}
	}
	var stored []upkeep.Event
	err := s.change(ctx, "writing events", func(ctx context.Context, tx bun.Tx) (err error) {
		stored, err = addEvents(ctx, tx, events)
		return err
	})
	return stored, err
}

func addEvents(ctx context.Context, tx bun.Tx, events []upkeep.Event) ([]upkeep.Event, error) {
	stored := make([]upkeep.Event, 0, len(events))
	for part := range slices.Chunk(events, chunk) {
		rows := make([]eventRow, len(part))
		for i, e := range part {
			rows[i] = eventRow{
				At: nanos(e.At), Kind: clean(e.Kind), Who: clean(e.Who), Object: clean(e.Object), What: clean(e.What), Why: clean(e.Why),
			}
		}
		if _, err := tx.NewInsert().Model(&rows).Returning("id").Exec(ctx); err != nil {
			return nil, err
		}
		for _, row := range rows {
			stored = append(stored, row.event())
		}
	}
	return stored, nil
}

// maxText bounds one text of an event.
const maxText = 4 << 10

// clean makes a text fit for both databases: PostgreSQL refuses NUL and bytes
// that are not UTF-8.
func clean(s string) string {
	end := ""
	if len(s) > maxText {
		s, end = s[:maxText], "..." // a rune that is cut through becomes U+FFFD
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD") + end
}

// MaxEvents is how many events one call of [Store.Events] returns at most.
const MaxEvents = 10000

// EventFilter says which events are wanted; its zero value means the oldest
// [MaxEvents].
type EventFilter struct {
	After, Before int64     // ids, both excluded; 0 for no bound
	Since         time.Time // included; zero for no bound
	// Object is an object such as "pool/web", and with it everything below it,
	// such as "pool/web/192.0.2.1". Kind is one of the root package's kinds.
	Object, Kind string
	// Of are kinds of objects, such as "pool"; none for all.
	Of []string
	// Limit is at most [MaxEvents], which 0 stands for too.
	Limit int
	// Latest takes the newest Limit events instead of the oldest.
	Latest bool
}

// Events returns the events that pass the filter, always in the order of their
// ids.
func (s *Store) Events(ctx context.Context, f EventFilter) ([]upkeep.Event, error) {
	if f.Limit < 0 || f.Limit > MaxEvents {
		return nil, fmt.Errorf("reading events: a limit of %d is not within 0 to %d", f.Limit, MaxEvents)
	}
	limit := f.Limit
	if limit == 0 {
		limit = MaxEvents
	}
	var rows []eventRow
	query := s.read.NewSelect().Model(&rows).Limit(int64(limit))
	if f.Latest {
		query.Order("id DESC")
	} else {
		query.Order("id")
	}
	if f.Object == "" {
		f.choose(query)
	} else {
		query.Where("id IN (?)", s.eventsOf(f, limit))
	}
	if err := query.Scan(ctx); err != nil {
		return nil, s.explain("reading events", err)
	}
	if f.Latest {
		slices.Reverse(rows)
	}
	events := make([]upkeep.Event, len(rows))
	for i, row := range rows {
		events[i] = row.event()
	}
	return events, nil
}

// choose has a query find the events that pass, whatever they are about.
func (f EventFilter) choose(query *bun.SelectQuery) {
	if f.After > 0 {
		query.Where("id > ?", f.After)
	}
	if f.Before > 0 {
		query.Where("id < ?", f.Before)
	}
	if !f.Since.IsZero() {
		query.Where("at >= ?", nanos(f.Since))
	}
	if f.Kind != "" {
		query.Where("kind = ?", clean(f.Kind))
	}
	if len(f.Of) > 0 {
		query.WhereGroup(" AND ", func(any *bun.SelectQuery) *bun.SelectQuery {
			for _, kind := range f.Of { // in the words of an index
				any.WhereOr("(object || '' > ? AND object || '' < ?)", clean(kind)+"/", clean(kind)+"0")
			}
			return any
		})
	}
}

// eventsOf are the ids of the events of one object and of what is below it. They
// are few among all that happened. The sums keep the databases from going through
// all events in their order, or all of a kind or of a time, in search of them.
func (s *Store) eventsOf(f EventFilter, limit int) *bun.SelectQuery {
	object := clean(f.Object)
	// "0" follows "/", so this is the range of all that begins with object+"/".
	query := s.read.NewSelect().Model((*eventRow)(nil)).Column("id").Where("(object = ? OR (object > ? AND object < ?))", object, object+"/", object+"0").Limit(int64(limit))
	if f.After > 0 {
		query.Where("id + 0 > ?", f.After)
	}
	if f.Before > 0 {
		query.Where("id + 0 < ?", f.Before)
	}
	if !f.Since.IsZero() {
		query.Where("at + 0 >= ?", nanos(f.Since))
	}
	if f.Kind != "" {
		query.Where("kind || '' = ?", clean(f.Kind))
	}
	if len(f.Of) > 0 && !slices.Contains(f.Of, kindOf(object)) {
		query.Where("1 = 0")
	}
	if f.Latest {
		return query.OrderExpr("id + 0 DESC")
	}
	return query.OrderExpr("id + 0")
}

// kindOf is the kind of an object's name, "pool" of "pool/web".
func kindOf(object string) string {
	kind, _, _ := strings.Cut(object, "/")
	return kind
}

// pruneBatch is how many events one transaction of a pruning deletes: long
// enough to get on, short enough not to keep decisions waiting.
const pruneBatch = 1000

// PruneEvents deletes the events that happened before the given time, and what
// is remembered of things deleted before it. It returns how many events went.
// It works in batches, so a cancelled pruning has done part of the work.
func (s *Store) PruneEvents(ctx context.Context, before time.Time) (int64, error) {
	var total int64
	for {
		var n int64
		err := s.change(ctx, "pruning events", func(ctx context.Context, tx bun.Tx) error {
			old := tx.NewSelect().Model((*eventRow)(nil)).Column("id").Where("at < ?", nanos(before)).Order("at").Limit(pruneBatch)
			result, err := tx.NewDelete().Model((*eventRow)(nil)).Where("id IN (?)", old).Exec(ctx)
			if err != nil {
				return err
			}
			if n, err = result.RowsAffected(); err != nil || n > 0 {
				return err
			}
			// A generation of a site is never given twice: agents remember them.
			_, err = tx.NewDelete().Model((*objectRow)(nil)).Where("deleted").Where("kind IN (?)", bun.List(upkeep.PoolKinds)).
				Where("changed_at < ?", nanos(before)).Exec(ctx)
			if err != nil {
				return err
			}
			return pruneHistory(ctx, tx, nanos(before))
		})
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}
