package store

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

// historyRow is a generation of a declared thing.
type historyRow struct {
	bun.BaseModel `bun:"table:object_history"`
	Kind          string `bun:",pk"`
	Name          string `bun:",pk"`
	Generation    int64  `bun:",pk"`
	Document      string
	ChangedAt     int64
	ChangedBy     string
}

func (p *plan) writeHistory(ctx context.Context) error {
	for part := range chunks(p.upserts) {
		var rows []historyRow
		for _, row := range part {
			if hosting(row.Kind) {
				rows = append(rows, historyRow{Kind: row.Kind, Name: row.Name, Generation: row.Generation, Document: row.Document, ChangedAt: row.ChangedAt, ChangedBy: row.ChangedBy})
			}
		}
		if err := insertAll(ctx, p.tx, rows); err != nil {
			return err
		}
	}
	return nil
}

// Version is a generation of a declared thing.
type Version struct {
	Generation int64
	// Object is nil where the generation is a deletion, or cannot be read.
	Object upkeep.Object
	At     time.Time
	Who    string
}

// History returns the generations of a thing of [upkeep.HostingKinds], the
// present one included, the newest first: all that are younger than events are
// kept, and the last [KeptGenerations] at least. One that was deleted has the
// deletion as its newest.
func (s *Store) History(ctx context.Context, ref Ref) ([]Version, error) {
	var rows []historyRow
	err := s.read.NewSelect().Model(&rows).Where("kind = ?", ref.Kind).Where("name = ?", clean(ref.Name)).Order("generation DESC").Scan(ctx)
	if err != nil {
		return nil, s.explain("reading earlier generations", err)
	}
	versions := make([]Version, len(rows))
	for i, row := range rows {
		versions[i] = row.version()
	}
	return versions, nil
}

func (r historyRow) version() Version {
	return Version{r.Generation, objectRow{Kind: r.Kind, Name: r.Name, Document: r.Document}.object(), instant(r.ChangedAt), r.ChangedBy}
}

// Generation returns one generation of a thing, to be put again where the thing
// is to become what it was. It returns [upkeep.ErrNotFound] for one that is not
// kept or was a deletion.
func (s *Store) Generation(ctx context.Context, ref Ref, generation int64) (upkeep.Object, error) {
	row := historyRow{Kind: ref.Kind, Name: clean(ref.Name), Generation: generation}
	err := s.read.NewSelect().Model(&row).WherePK().Scan(ctx)
	found, err := notFound(err)
	if err != nil {
		return nil, s.explain("reading an earlier generation", err)
	}
	if !found || row.Document == "" {
		return nil, fmt.Errorf("generation %d of %s %s: %w", generation, ref.Kind, ref.Name, upkeep.ErrNotFound)
	}
	declared, err := objectRow{Kind: row.Kind, Name: row.Name, Document: row.Document}.declared()
	return declared.Object, err
}

// KeptGenerations is how many generations of a thing are kept, whatever their
// age.
const KeptGenerations = 10

// pruneHistory deletes what is older than before and not among the newest.
func pruneHistory(ctx context.Context, tx bun.Tx, before int64) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM object_history WHERE changed_at < ? AND EXISTS (SELECT 1 FROM objects AS o "+
		"WHERE o.kind = object_history.kind AND o.name = object_history.name AND o.generation >= object_history.generation + ?)", before, KeptGenerations)
	return err
}
