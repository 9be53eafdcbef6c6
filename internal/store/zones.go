package store

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"
)

type zoneRow struct {
	bun.BaseModel `bun:"table:zones"`
	Name          string `bun:",pk"`
	Serial        int64
	Content       []byte
}

type zoneDeltaRow struct {
	bun.BaseModel `bun:"table:zone_deltas"`
	ID            int64 `bun:",pk,autoincrement"`
	Zone          string
	FromSerial    int64
	ToSerial      int64
	Content       []byte
}

// ZoneRecord is what is kept of a served zone. The contents are opaque here:
// they belong to whoever serves the zone.
type ZoneRecord struct {
	Zone    string
	Serial  uint32
	Content []byte
	Deltas  []ZoneDelta // oldest first, each starting where the one before ended, the last ending at Serial
}

// ZoneDelta is the difference between two contents of a zone.
type ZoneDelta struct {
	From, To uint32
	Content  []byte
}

// Bounds of one zone's journal; the oldest deltas go first. A secondary that is
// further behind gets the whole zone.
const (
	MaxDeltas     = 256
	MaxDeltaBytes = 4 << 20
)

// LoadZone returns what is kept of a zone; false when nothing is.
func (s *Store) LoadZone(ctx context.Context, zone string) (record ZoneRecord, found bool, err error) {
	const doing = "loading the journal of zone %s"
	// Both tables are read in one transaction, lest a save fall in between.
	err = s.snapshot(ctx, func(ctx context.Context, tx bun.Tx) error {
		row := zoneRow{Name: zone}
		if found, err = notFound(tx.NewSelect().Model(&row).WherePK().Scan(ctx)); !found || err != nil {
			return err
		}
		record = ZoneRecord{Zone: zone, Serial: uint32(row.Serial), Content: row.Content}
		var deltas []zoneDeltaRow
		if err := tx.NewSelect().Model(&deltas).Where("zone = ?", zone).Order("id").Scan(ctx); err != nil {
			return err
		}
		for _, d := range deltas {
			record.Deltas = append(record.Deltas, ZoneDelta{From: uint32(d.FromSerial), To: uint32(d.ToSerial), Content: d.Content})
		}
		return nil
	})
	if err != nil {
		return ZoneRecord{}, false, s.explain(fmt.Sprintf(doing, zone), err)
	}
	return record, found, nil
}

// SaveZone replaces the content of a zone and adds the delta that leads to it
// from the content before. Without a delta, or with one that does not start at
// the serial that was kept or end at the new one, the deltas kept so far lead
// nowhere and are dropped. Deltas in the record itself are ignored.
func (s *Store) SaveZone(ctx context.Context, record ZoneRecord, delta *ZoneDelta) error {
	return s.change(ctx, "saving the journal of zone "+record.Zone, func(ctx context.Context, tx bun.Tx) error {
		old := zoneRow{Name: record.Zone}
		found, err := notFound(tx.NewSelect().Model(&old).WherePK().Scan(ctx))
		if err != nil {
			return err
		}
		row := zoneRow{Name: record.Zone, Serial: int64(record.Serial), Content: present(record.Content)}
		_, err = tx.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE").
			Set("serial = EXCLUDED.serial").Set("content = EXCLUDED.content").Exec(ctx)
		if err != nil {
			return err
		}
		follows := found && delta != nil && int64(delta.From) == old.Serial && delta.To == record.Serial
		if !follows {
			return dropDeltas(ctx, tx, record.Zone, -1)
		}
		added := zoneDeltaRow{Zone: record.Zone, FromSerial: int64(delta.From), ToSerial: int64(delta.To), Content: present(delta.Content)}
		if _, err := tx.NewInsert().Model(&added).Returning("id").Exec(ctx); err != nil {
			return err
		}
		return trimDeltas(ctx, tx, record.Zone)
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
func trimDeltas(ctx context.Context, tx bun.Tx, zone string) error {
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
		if total += delta.Size; i >= MaxDeltas || total > MaxDeltaBytes {
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
