package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"slices"
	"sync"

	"github.com/uptrace/bun"

	"upkeep"
)

// kept is what [Store.All] last returned for a kind, with the sum of all rows that
// it was made from. To have the database put all rows into one text, and to see that
// it is the same text, takes a fraction of what it takes to read ten thousand rows
// and hold them to the rules.
type kept struct {
	mu  sync.Mutex
	all map[string]keptKind
}

type keptKind struct {
	sum   [sha256.Size]byte
	found []Found
}

// maxKept bounds how many things of a kind are kept.
const maxKept = 50_000

// get returns a copy of what was made from rows of a sum; the things themselves are
// shared, as nobody changes them.
func (k *kept) get(kind string, sum [sha256.Size]byte) (found []Found, is bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	last, is := k.all[kind]
	return slices.Clone(last.found), is && last.sum == sum
}

func (k *kept) put(kind string, sum [sha256.Size]byte, found []Found) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(found) > maxKept {
		delete(k.all, kind)
		return
	}
	if k.all == nil {
		k.all = map[string]keptKind{}
	}
	k.all[kind] = keptKind{sum, slices.Clone(found)}
}

// rowsSum is a sum of all rows of a kind, and of the names that are registered for
// them.
func rowsSum(ctx context.Context, tx bun.Tx, kind string) (sum [sha256.Size]byte, err error) {
	rows, err := lines(ctx, tx, tx.NewSelect().Model((*objectRow)(nil)).ColumnExpr("name || ' ' || generation || ' ' || document AS line").
		Where("kind = ?", kind).Where("NOT deleted").Order("name"))
	if err != nil {
		return sum, err
	}
	hash := sha256.New()
	_, _ = hash.Write([]byte(rows)) // which returns no error
	if kind == upkeep.KindSite {
		names, err := lines(ctx, tx, tx.NewSelect().Model((*nameRow)(nil)).ColumnExpr("name || ' ' || site AS line").Order("name"))
		if err != nil {
			return sum, err
		}
		_, _ = hash.Write([]byte("\n\n" + names))
	}
	hash.Sum(sum[:0])
	return sum, nil
}

// lines are the lines that a query makes, in one text.
func lines(ctx context.Context, tx bun.Tx, query *bun.SelectQuery) (string, error) {
	var text sql.NullString // of no rows
	err := tx.NewSelect().TableExpr("(?) AS l", query).ColumnExpr("string_agg(l.line, ?)", "\n").Scan(ctx, &text)
	return text.String, err
}
