package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

// Once names a request that is to be carried out once, however often it is sent.
type Once struct {
	Caller  string // who sent it: keys of others are others
	Key     string // a hash of the key that the sender gave it
	Request string // a hash of all that it asks for
}

type onceKey struct{}

// WithOnce has the change that is made with the context note, in its own
// transaction, for which request it was made.
func WithOnce(ctx context.Context, o Once) context.Context {
	return context.WithValue(ctx, onceKey{}, o)
}

type requestRow struct {
	bun.BaseModel `bun:"table:requests"`
	Caller        string `bun:",pk"`
	Key           string `bun:",pk"`
	Request       string
	At            int64
	Answered      bool
	Answer        []byte
}

// noteRequest is the last statement of every change: after a kill it tells what was
// carried out from what was not.
func noteRequest(ctx context.Context, tx bun.Tx, now time.Time) error {
	o, named := ctx.Value(onceKey{}).(Once)
	if !named {
		return nil
	}
	// One that is there already has expired, or is of the same request.
	return putRequest(ctx, tx, requestRow{Caller: clean(o.Caller), Key: o.Key, Request: o.Request, At: nanos(now), Answer: []byte{}})
}

func putRequest(ctx context.Context, tx bun.Tx, row requestRow) error {
	_, err := tx.NewInsert().Model(&row).On("CONFLICT (caller, key) DO UPDATE").
		Set("request = EXCLUDED.request").Set("at = EXCLUDED.at").Set("answered = EXCLUDED.answered").Set("answer = EXCLUDED.answer").Exec(ctx)
	return err
}

// Requested is what is known of a request that was carried out.
type Requested struct {
	Request string // the hash of what was asked for
	// Answer is what was answered, nil where that is not known: upkeep was killed
	// before it was kept, or it was too large.
	Answer []byte
}

// RequestFor finds the request of a caller that was given a key;
// [upkeep.ErrNotFound] when none was carried out.
func (s *Store) RequestFor(ctx context.Context, caller, key string) (Requested, error) {
	row := requestRow{Caller: clean(caller), Key: key}
	found, err := notFound(s.read.NewSelect().Model(&row).WherePK().Where("at > ?", nanos(s.now().Add(-KeptRequests))).Scan(ctx))
	switch {
	case err != nil:
		return Requested{}, s.explain("looking for an earlier request", err)
	case !found:
		return Requested{}, upkeep.ErrNotFound
	case !row.Answered:
		return Requested{Request: row.Request}, nil
	}
	return Requested{Request: row.Request, Answer: present(row.Answer)}, nil
}

// How long requests are remembered, and how many of one caller with how many bytes
// of answers: beyond that the oldest go.
const (
	KeptRequests   = 24 * time.Hour
	MaxRequests    = 1000
	MaxAnswerBytes = 8 << 20
)

// KeepAnswer keeps what was answered to a request.
func (s *Store) KeepAnswer(ctx context.Context, o Once, answer []byte) error {
	return s.change(ctx, "keeping an answer", func(ctx context.Context, tx bun.Tx) error {
		row := requestRow{Caller: clean(o.Caller), Key: o.Key, Request: o.Request, At: nanos(s.now()), Answered: true, Answer: present(answer)}
		if err := putRequest(ctx, tx, row); err != nil {
			return err
		}
		return pruneRequests(ctx, tx, row.Caller, s.now())
	})
}

// pruneRequests forgets what is too old, and of a caller what is too much.
func pruneRequests(ctx context.Context, tx bun.Tx, caller string, now time.Time) error {
	if _, err := tx.NewDelete().Model((*requestRow)(nil)).Where("at <= ?", nanos(now.Add(-KeptRequests))).Exec(ctx); err != nil {
		return err
	}
	var rows []struct {
		At   int64
		Size int64
	}
	err := tx.NewSelect().Model((*requestRow)(nil)).Column("at").ColumnExpr("length(answer) AS size").
		Where("caller = ?", caller).Order("at DESC").Limit(MaxRequests+1).Scan(ctx, &rows)
	if err != nil {
		return err
	}
	size := int64(0)
	for i, row := range rows {
		if size += row.Size; i == MaxRequests || i > 0 && size > MaxAnswerBytes {
			_, err := tx.NewDelete().Model((*requestRow)(nil)).Where("caller = ?", caller).Where("at <= ?", row.At).Exec(ctx)
			return err
		}
	}
	return nil
}
