package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

type auditRow struct {
	bun.BaseModel `bun:"table:audit"`
	ID            int64 `bun:",pk,autoincrement"`
	At            int64
	Who           string
	Object        string
	What          string
	Why           string
	Before        string
	After         string
}

func (r auditRow) entry() upkeep.AuditEntry {
	e := upkeep.AuditEntry{ID: r.ID, At: instant(r.At), Who: r.Who, Object: r.Object, What: r.What, Why: r.Why}
	if r.Before != "" {
		e.Before = json.RawMessage(r.Before)
	}
	if r.After != "" {
		e.After = json.RawMessage(r.After)
	}
	return e
}

// audited is a change as it is written down: before and after are values that
// become JSON, nil for none.
type audited struct {
	who, object, what, why string
	before, after          any
}

func (a audited) row(at time.Time) (auditRow, error) {
	row := auditRow{At: nanos(at), Who: clean(a.who), Object: clean(a.object), What: clean(a.what), Why: clean(a.why)}
	for _, one := range []struct {
		value any
		text  *string
	}{{a.before, &row.Before}, {a.after, &row.After}} {
		if one.value == nil {
			continue
		}
		text, err := json.Marshal(one.value)
		if err != nil {
			return row, fmt.Errorf("writing down a change of %s: %w", a.object, err)
		}
		*one.text = string(text)
	}
	return row, nil
}

// addAudit writes changes down in the transaction in which they are made.
func addAudit(ctx context.Context, tx bun.Tx, at time.Time, changes ...audited) error {
	var rows []auditRow
	size := 0
	flush := func() error {
		if len(rows) == 0 {
			return nil
		}
		_, err := tx.NewInsert().Model(&rows).Exec(ctx)
		rows, size = nil, 0
		return err
	}
	for _, change := range changes {
		row, err := change.row(at)
		if err != nil {
			return err
		}
		rows, size = append(rows, row), size+len(row.Before)+len(row.After)
		if len(rows) == chunk || size > maxStatement {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// AddAudit writes down a change of something that is not kept in the database.
func (s *Store) AddAudit(ctx context.Context, e upkeep.AuditEntry) error {
	return s.change(ctx, "writing down a change", func(ctx context.Context, tx bun.Tx) error {
		return addAudit(ctx, tx, s.now(), audited{who: e.Who, object: e.Object, what: e.What, why: e.Why})
	})
}

// MaxAudit is how many entries one call of [Store.Audit] returns at most.
const MaxAudit = 1000

// AuditFilter says which entries are wanted; zero fields choose all.
type AuditFilter struct {
	// Object is a thing such as "pool/web", and with it everything below it; or a
	// kind of things, such as "pool".
	Object string
	Who    string
	Since  time.Time // included
	// Before is an id, excluded: the last one of the page before. 0 for no bound.
	Before int64
	// Limit is at most [MaxAudit], which 0 stands for too.
	Limit int
}

// Audit returns the entries that pass the filter, the newest first, without what
// there was before and after.
func (s *Store) Audit(ctx context.Context, f AuditFilter) ([]upkeep.AuditEntry, error) {
	if f.Limit < 0 || f.Limit > MaxAudit {
		return nil, fmt.Errorf("reading the audit log: a limit of %d is not within 0 to %d", f.Limit, MaxAudit)
	}
	limit := f.Limit
	if limit == 0 {
		limit = MaxAudit
	}
	var rows []auditRow
	query := s.read.NewSelect().Model(&rows).ExcludeColumn("before", "after").Order("id DESC").Limit(int64(limit))
	if object := clean(f.Object); object != "" {
		// "0" follows "/", so this is the range of all that begins with object+"/".
		query.Where("(object = ? OR (object > ? AND object < ?))", object, object+"/", object+"0")
	}
	if f.Who != "" {
		query.Where("who = ?", clean(f.Who))
	}
	if !f.Since.IsZero() {
		query.Where("at >= ?", nanos(f.Since))
	}
	if f.Before > 0 {
		query.Where("id < ?", f.Before)
	}
	if err := query.Scan(ctx); err != nil {
		return nil, s.explain("reading the audit log", err)
	}
	entries := make([]upkeep.AuditEntry, len(rows))
	for i, row := range rows {
		entries[i] = row.entry()
	}
	return entries, nil
}

// AuditEntry returns one entry whole, or [upkeep.ErrNotFound].
func (s *Store) AuditEntry(ctx context.Context, id int64) (upkeep.AuditEntry, error) {
	row := auditRow{ID: id}
	found, err := notFound(s.read.NewSelect().Model(&row).WherePK().Scan(ctx))
	if err == nil && !found {
		return upkeep.AuditEntry{}, upkeep.WithHint(fmt.Errorf("entry %d of the audit log: %w", id, upkeep.ErrNotFound), "upkeep audit shows those that there are")
	}
	return row.entry(), s.explain("reading the audit log", err)
}

// PruneAudit forgets changes that were made before a time, and returns how many. It
// works in batches, so a cancelled pruning has done part of the work.
func (s *Store) PruneAudit(ctx context.Context, before time.Time) (int64, error) {
	var total int64
	for {
		var n int64
		err := s.change(ctx, "pruning the audit log", func(ctx context.Context, tx bun.Tx) error {
			old := tx.NewSelect().Model((*auditRow)(nil)).Column("id").Where("at < ?", nanos(before)).Order("at").Limit(pruneBatch)
			result, err := tx.NewDelete().Model((*auditRow)(nil)).Where("id IN (?)", old).Exec(ctx)
			if err != nil {
				return err
			}
			n, err = result.RowsAffected()
			return err
		})
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}
