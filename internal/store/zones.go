package store

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"
)

type zoneRow struct {
	bun.BaseModel `bun:"table:zones"`
	Name          string `bun:",pk"`
	Content       []byte
}

type zoneDeltaRow struct {
	bun.BaseModel `bun:"table:zone_deltas"`
	ID            int64 `bun:",pk,autoincrement"`
	Zone          string
	Content       []byte
}

// MaxDeltaBytes bounds one zone's journal; the oldest deltas go first. A
// secondary that is further behind gets the whole zone.
const MaxDeltaBytes = 4 << 20

// LoadZone returns what the last [Store.SaveZone] left of a zone, deltas oldest
// first; content is nil when nothing is kept. Both are opaque here: they belong
// to whoever serves the zone.
func (s *Store) LoadZone(ctx context.Context, zone string) (content []byte, deltas [][]byte, err error) {
	// Both tables are read in one transaction, lest a save fall in between.
	err = s.snapshot(ctx, func(ctx context.Context, tx bun.Tx) error {
		row := zoneRow{Name: zone}
		if found, err := notFound(tx.NewSelect().Model(&row).WherePK().Scan(ctx)); !found || err != nil {
			return err
		}
		content = present(row.Content)
		var rows []zoneDeltaRow
		if err := tx.NewSelect().Model(&rows).Where("zone = ?", zone).Order("id").Scan(ctx); err != nil {
			return err
		}
		for _, d := range rows {
			deltas = append(deltas, d.Content)
		}
		return nil
	})
	if err != nil {
		return nil, nil, s.explain(fmt.Sprintf("loading the journal of zone %s", zone), err)
	}
	return content, deltas, nil
}

// SaveZone replaces the content of a zone and, in the same transaction, adds
// the delta that led to it, unless that is nil. All but the newest keep deltas
// are forgotten.
func (s *Store) SaveZone(ctx context.Context, zone string, content, delta []byte, keep int) error {
	return s.change(ctx, "saving the journal of zone "+zone, func(ctx context.Context, tx bun.Tx) error {
		row := zoneRow{Name: zone, Content: present(content)}
		_, err := tx.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE").Set("content = EXCLUDED.content").Exec(ctx)
		if err != nil {
			return err
		}
		if delta != nil {
			added := zoneDeltaRow{Zone: zone, Content: present(delta)}
			if _, err := tx.NewInsert().Model(&added).Returning("id").Exec(ctx); err != nil {
				return err
			}
		}
		return trimDeltas(ctx, tx, zone, keep)
	})
}

// DeleteZone forgets a zone and its journal.
func (s *Store) DeleteZone(ctx context.Context, zone string) error {
	return s.change(ctx, "deleting the journal of zone "+zone, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model(&zoneRow{Name: zone}).WherePK().Exec(ctx); err != nil {
			return err
		}
		return dropDeltas(ctx, tx, zone, -1)
	})
}

// trimDeltas drops the oldest deltas beyond the bounds.
func trimDeltas(ctx context.Context, tx bun.Tx, zone string, keep int) error {
	var sizes []struct {
		ID   int64
		Size int
	}
	err := tx.NewSelect().Model((*zoneDeltaRow)(nil)).Column("id").ColumnExpr("length(content) AS size").
		Where("zone = ?", zone).Order("id DESC").Scan(ctx, &sizes)
	if err != nil {
		return err
	}
	total := 0
	for i, delta := range sizes {
		if total += delta.Size; i >= keep || total > MaxDeltaBytes {
			return dropDeltas(ctx, tx, zone, delta.ID)
		}
	}
	return nil
}

// dropDeltas deletes the deltas of a zone up to the one with the id, all of them
// when it is negative.
func dropDeltas(ctx context.Context, tx bun.Tx, zone string, upTo int64) error {
	query := tx.NewDelete().Model((*zoneDeltaRow)(nil)).Where("zone = ?", zone)
	if upTo >= 0 {
		query.Where("id <= ?", upTo)
	}
	_, err := query.Exec(ctx)
	return err
}
