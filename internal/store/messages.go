package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/uptrace/bun"

	"upkeep"
)

// MaxUnread is how many messages an account can have that it has not read: nobody
// reads more, and they are kept until somebody does.
const MaxUnread = 100

// unread are the words of the index of messages that were not read.
const unread = "state = 'pending' AND kind = 'notification'"

// withoutUnread returns the rows that are to be written. The others are messages
// that are unread in the same words: in rows, these are put in their places.
func (t Tx) withoutUnread(ctx context.Context, rows []jobRow, at map[jobKey]int) ([]jobRow, error) {
	messages := slices.DeleteFunc(slices.Clone(rows), func(r jobRow) bool { return r.Kind != upkeep.JobNotification })
	have := map[jobKey]bool{}
	for part := range slices.Chunk(messages, chunk) {
		var accounts, objects []string
		for _, row := range part {
			accounts, objects = append(accounts, row.Account), append(objects, row.Object)
		}
		var found []jobRow
		err := t.tx.NewSelect().Model(&found).Where(unread).Where("account IN (?)", bun.List(accounts)).Where("object IN (?)", bun.List(objects)).
			Order("id").Scan(ctx)
		if err != nil {
			return nil, err
		}
		for _, row := range found {
			if i, same := at[row.key()]; same && rows[i].Account == row.Account {
				rows[i], have[row.key()] = row, true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(rows), func(r jobRow) bool { return have[r.key()] }), nil
}

// roomFor refuses a message for an account that does not read what it has.
func (t Tx) roomFor(ctx context.Context, job upkeep.Job) error {
	if job.Kind != upkeep.JobNotification {
		return nil
	}
	counts, err := t.Unread(ctx, []string{job.Account})
	if err != nil || counts[job.Account] <= MaxUnread {
		return err
	}
	return upkeep.WithHint(
		fmt.Errorf("making a notification: account %s has %d that were not read, and has room for no more: %w", job.Account, counts[job.Account]-1, upkeep.ErrConflict),
		fmt.Sprintf("see them with: upkeep job list --account %s --kind notification --state unread; end one with: upkeep job read ID", job.Account))
}

// Unread is how many messages accounts have not read.
func (t Tx) Unread(ctx context.Context, accounts []string) (map[string]int, error) {
	counts := map[string]int{}
	for part := range slices.Chunk(accounts, chunk) {
		var found []struct {
			Account string
			Count   int
		}
		err := t.tx.NewSelect().Model((*jobRow)(nil)).Column("account").ColumnExpr("count(*) AS count").
			Where(unread).Where("account IN (?)", bun.List(part)).Group("account").Scan(ctx, &found)
		if err != nil {
			return nil, err
		}
		for _, one := range found {
			counts[one.Account] = one.Count
		}
	}
	return counts, nil
}
