package store

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
	"upkeep/internal/names"
)

// Cursors that begin so say which end of a delegation was told of last, in seconds.
const toldEnd = upkeep.KindDelegation + "/"

// EndedDelegations writes an event for each delegation that has ended and of whose
// end none was written, and returns these. Next is when the next one ends, zero for
// never. While none has ended it writes nothing.
func (s *Store) EndedDelegations(ctx context.Context) (events []upkeep.Event, next time.Time, err error) {
	now := s.now()
	var ended []upkeep.Delegation
	look := func(ctx context.Context, tx bun.Tx) (err error) {
		ended, next, err = endedDelegations(ctx, tx, now)
		return err
	}
	if err := s.snapshot(ctx, look); err != nil || len(ended) == 0 {
		return nil, next, s.explain("looking for delegations that have ended", err)
	}
	err = s.change(ctx, "telling of delegations that have ended", func(ctx context.Context, tx bun.Tx) error {
		if err := look(ctx, tx); err != nil {
			return err
		}
		var told []upkeep.Event
		for _, given := range ended {
			event, err := endOf(ctx, tx, given, now)
			if err != nil {
				return err
			}
			told = append(told, event)
			row := cursorRow{Name: toldEnd + given.Name, Event: endsAt(given).Unix()}
			if _, err := tx.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE").Set("event = EXCLUDED.event").Exec(ctx); err != nil {
				return err
			}
		}
		events, err = addEvents(ctx, tx, told)
		return err
	})
	if err != nil {
		return nil, next, err
	}
	return events, next, nil
}

// endedDelegations are those whose ends are to be told of.
func endedDelegations(ctx context.Context, tx bun.Tx, now time.Time) (ended []upkeep.Delegation, next time.Time, err error) {
	var rows []objectRow
	if err := tx.NewSelect().Model(&rows).Where("kind = ?", upkeep.KindDelegation).Where("NOT deleted").Order("name").Scan(ctx); err != nil || len(rows) == 0 {
		return nil, next, err
	}
	var cursors []cursorRow
	if err := tx.NewSelect().Model(&cursors).Where("name >= ?", toldEnd).Where("name < ?", after(toldEnd)).Scan(ctx); err != nil {
		return nil, next, err
	}
	told := make(map[string]int64, len(cursors))
	for _, cursor := range cursors {
		told[cursor.Name] = cursor.Event
	}
	for _, row := range rows {
		given, is := row.object().(upkeep.Delegation)
		until := endsAt(given)
		if !is || until.IsZero() { // it does not end, or is reported where it is read
			continue
		}
		if until.After(now) {
			if next.IsZero() || until.Before(next) {
				next = until
			}
			continue
		}
		if last, is := told[toldEnd+given.Name]; !is || last != until.Unix() {
			ended = append(ended, given)
		}
	}
	return ended, next, nil
}

// endsAt is when a delegation ends, zero for never.
func endsAt(given upkeep.Delegation) time.Time {
	until, err := time.Parse(time.RFC3339, given.Until)
	if err != nil {
		return time.Time{}
	}
	return until
}

// endOf is the event about the end of a delegation: it says what becomes of the
// sites that are there by it.
func endOf(ctx context.Context, tx bun.Tx, given upkeep.Delegation, now time.Time) (upkeep.Event, error) {
	from := names.Backwards(given.Name)
	var sites []string
	err := tx.NewSelect().Model((*nameRow)(nil)).ColumnExpr("DISTINCT site").Where("account = ?", given.Account).
		Where("backwards >= ?", from).Where("backwards < ?", names.Beyond(from)).Scan(ctx, &sites)
	why := fmt.Sprintf("on %s; account %s can take no names there any more", given.Until, given.Account)
	switch len(sites) {
	case 0:
		why += ", and has none"
	case 1:
		why += fmt.Sprintf("; its site %s stays as it is, and can be suspended or removed, and not be changed otherwise", sites[0])
	default:
		why += fmt.Sprintf("; its %d sites there stay as they are, and can be suspended or removed, and not be changed otherwise", len(sites))
	}
	return upkeep.Event{At: now, Kind: upkeep.EventWarning, Who: "upkeep", Object: RefOf(given).String(), What: "the delegation has ended", Why: why}, err
}
