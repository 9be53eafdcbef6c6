package store

import (
	"context"
	"errors"
	"slices"

	"github.com/uptrace/bun"

	"upkeep"
)

// retryHeld tries again what failed because another site had one of its names on
// the same server, once something was done about that one there: it may have given
// the name up. It is in the transaction of the ends, so that none is forgotten by a
// process that is killed. Nothing that fails has others tried again, so that two
// that want each other's names do not do so without end.
func (t Tx) retryHeld(ctx context.Context, ended []jobRow) error {
	type place struct{ server, object string }
	done := map[place]bool{}
	var objects []string
	var late []int64
	for _, row := range ended {
		switch {
		case row.State == upkeep.JobDone && (row.Kind == upkeep.JobSiteApply || row.Kind == upkeep.JobSiteRemove):
			done[place{row.Server, row.Object}] = true
			objects = append(objects, row.Object)
		case row.State == upkeep.JobFailed && row.Holder != "":
			late = append(late, row.ID)
		}
	}
	var again []jobRow
	for part := range slices.Chunk(objects, chunk) {
		var rows []jobRow
		if err := t.held(&rows).Where("j.holder IN (?)", bun.List(part)).Scan(ctx); err != nil {
			return err
		}
		again = append(again, slices.DeleteFunc(rows, func(r jobRow) bool { return !done[place{r.Server, r.Holder}] })...)
	}
	// The other one may have been done while these were under way, and its end heard of
	// before theirs.
	for part := range slices.Chunk(late, chunk) {
		var rows []jobRow
		err := t.held(&rows).Where("j.id IN (?)", bun.List(part)).
			Where("EXISTS (SELECT 1 FROM jobs AS h WHERE h.object = j.holder AND h.server = j.server AND h.kind IN (?) AND h.state = ? AND h.finished > j.started)",
				bun.List([]string{upkeep.JobSiteApply, upkeep.JobSiteRemove}), upkeep.JobDone).Scan(ctx)
		if err != nil {
			return err
		}
		again = append(again, rows...)
	}
	return t.retryAll(ctx, again)
}

// held selects jobs that failed over a name and that nothing newer was made after.
func (t Tx) held(rows *[]jobRow) *bun.SelectQuery {
	return t.tx.NewSelect().Model(rows).ModelTableExpr("jobs AS j").ColumnExpr("j.*").Where("j.holder <> ''").Where("j.state = ?", upkeep.JobFailed).
		Where("NOT EXISTS (SELECT 1 FROM jobs AS n WHERE n.object = j.object AND n.server = j.server AND n.kind = j.kind AND n.id > j.id)").OrderExpr("j.id")
}

// retryAll retries those of the jobs that can be.
func (t Tx) retryAll(ctx context.Context, rows []jobRow) error {
	if len(rows) == 0 {
		return nil
	}
	taken, err := t.pendingKeys(ctx, rows)
	if err != nil {
		return err
	}
	var again []jobRow
	seen := map[int64]bool{}
	for _, row := range rows {
		if taken[row.key()] != 0 || seen[row.ID] {
			continue
		}
		switch err := t.retriable(ctx, row.ID); {
		case errors.Is(err, upkeep.ErrConflict):
			continue
		case err != nil:
			return err
		}
		seen[row.ID] = true
		again = append(again, row)
	}
	if len(again) == 0 {
		return nil
	}
	return t.retry(ctx, again)
}
