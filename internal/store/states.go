package store

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/uptrace/bun"
)

type stateRow struct {
	bun.BaseModel `bun:"table:states"`
	Key           string `bun:",pk"`
	Value         []byte
}

// SaveStates writes what detection and decisions remember, by key, over what was
// there. It is one transaction and so costs one fsync, whatever the number of
// states: save many at once rather than each as it changes.
func (s *Store) SaveStates(ctx context.Context, states map[string][]byte) error {
	if len(states) == 0 {
		return nil
	}
	rows := make([]stateRow, 0, len(states))
	for _, key := range slices.Sorted(maps.Keys(states)) {
		rows = append(rows, stateRow{Key: clean(key), Value: present(states[key])})
	}
	return s.change(ctx, "saving states", func(ctx context.Context, tx bun.Tx) error {
		for part := range slices.Chunk(rows, chunk) {
			_, err := tx.NewInsert().Model(&part).On("CONFLICT (key) DO UPDATE").Set("value = EXCLUDED.value").Exec(ctx)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// LoadStates returns the states whose keys begin with prefix.
func (s *Store) LoadStates(ctx context.Context, prefix string) (map[string][]byte, error) {
	var rows []stateRow
	query := s.read.NewSelect().Model(&rows)
	if prefix != "" {
		query.Where("key >= ?", prefix)
		if end := after(prefix); end != "" {
			query.Where("key < ?", end)
		}
	}
	if err := query.Scan(ctx); err != nil {
		return nil, s.explain("loading states", err)
	}
	states := make(map[string][]byte, len(rows))
	for _, row := range rows {
		if strings.HasPrefix(row.Key, prefix) {
			states[row.Key] = row.Value
		}
	}
	return states, nil
}

// after is the least text that follows everything beginning with prefix, "" where
// that takes more than raising the last letter: keys are ASCII in practice.
func after(prefix string) string {
	last := len(prefix) - 1
	if prefix[last] >= 0x7f {
		return ""
	}
	return prefix[:last] + string(rune(prefix[last]+1))
}

// DeleteStates forgets states. Keys that do not exist are no error.
func (s *Store) DeleteStates(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	return s.change(ctx, "deleting states", func(ctx context.Context, tx bun.Tx) error {
		for part := range slices.Chunk(keys, chunk) {
			_, err := tx.NewDelete().Model((*stateRow)(nil)).Where("key IN (?)", bun.List(part)).Exec(ctx)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

type cursorRow struct {
	bun.BaseModel `bun:"table:cursors"`
	Name          string `bun:",pk"`
	Event         int64
}

// Cursor is the id of the last event that the named reader has dealt with, 0 at
// first.
func (s *Store) Cursor(ctx context.Context, name string) (int64, error) {
	row := cursorRow{Name: name}
	if _, err := notFound(s.read.NewSelect().Model(&row).WherePK().Scan(ctx)); err != nil {
		return 0, s.explain("reading a cursor", err)
	}
	return row.Event, nil
}

// SetCursor remembers how far the named reader has come.
func (s *Store) SetCursor(ctx context.Context, name string, event int64) error {
	row := cursorRow{Name: name, Event: event}
	return s.change(ctx, "moving a cursor", func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE").Set("event = EXCLUDED.event").Exec(ctx)
		return err
	})
}

// DeleteCursor forgets a reader.
func (s *Store) DeleteCursor(ctx context.Context, name string) error {
	return s.change(ctx, "deleting a cursor", func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewDelete().Model(&cursorRow{Name: name}).WherePK().Exec(ctx)
		return err
	})
}
