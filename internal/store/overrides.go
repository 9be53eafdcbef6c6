package store

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/uptrace/bun"

	"upkeep"
)

type overrideRow struct {
	bun.BaseModel `bun:"table:overrides"`
	ID            int64 `bun:",pk,autoincrement"`
	Pool          string
	Member        string
	State         string
	Who           string
	Why           string
	At            int64
}

func (r overrideRow) override() upkeep.Override {
	return upkeep.Override{ID: r.ID, Pool: r.Pool, Member: r.Member, State: r.State, Who: r.Who, Why: r.Why, At: instant(r.At)}
}

// Overrides returns the rules in the order in which they apply: a later one
// wins.
func (s *Store) Overrides(ctx context.Context) ([]upkeep.Override, error) {
	var rows []overrideRow
	if err := s.read.NewSelect().Model(&rows).Order("id").Scan(ctx); err != nil {
		return nil, s.explain("reading overrides", err)
	}
	overrides := make([]upkeep.Override, len(rows))
	for i, row := range rows {
		overrides[i] = row.override()
	}
	return overrides, nil
}

// SetOverride adds a rule after all others, in place of one with the very same
// patterns, and writes its event. The id and, when it has none, the time of the
// rule are filled in.
func (s *Store) SetOverride(ctx context.Context, o upkeep.Override) (upkeep.Override, []upkeep.Event, error) {
	if err := validateOverride(o); err != nil {
		return upkeep.Override{}, nil, err
	}
	if o.At.IsZero() {
		o.At = s.now()
	}
	row := overrideRow{Pool: o.Pool, Member: o.Member, State: o.State, Who: clean(o.Who), Why: clean(o.Why), At: nanos(o.At)}
	var events []upkeep.Event
	err := s.change(ctx, "setting an override", func(ctx context.Context, tx bun.Tx) error {
		var before []overrideRow
		_, err := tx.NewDelete().Model((*overrideRow)(nil)).Where("pool = ?", row.Pool).Where("member = ?", row.Member).Returning("*").Exec(ctx, &before)
		if err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(&row).Returning("id").Exec(ctx); err != nil {
			return err
		}
		change := audited{who: o.Who, object: overrideObject(o.Pool, o.Member), what: "set to " + o.State, why: o.Why, after: row.override()}
		if len(before) > 0 {
			change.before = before[0].override()
		}
		if err := addAudit(ctx, tx, o.At, change); err != nil {
			return err
		}
		events, err = addEvents(ctx, tx, []upkeep.Event{{
			At: o.At, Kind: upkeep.EventAdmin, Who: o.Who, Object: overrideObject(o.Pool, o.Member), What: "set to " + o.State, Why: o.Why,
		}})
		return err
	})
	if err != nil {
		return upkeep.Override{}, nil, err
	}
	return row.override(), events, nil
}

// ClearOverrides deletes the rules with exactly these patterns, an empty member
// standing for every rule of the pool pattern, and writes an event for each. It
// is no error when there is none.
func (s *Store) ClearOverrides(ctx context.Context, who, pool, member string) (int, []upkeep.Event, error) {
	var events []upkeep.Event
	err := s.change(ctx, "clearing overrides", func(ctx context.Context, tx bun.Tx) error {
		var rows []overrideRow
		query := tx.NewSelect().Model(&rows).Where("pool = ?", clean(pool)).Order("id")
		if member != "" {
			query.Where("member = ?", clean(member))
		}
		if err := query.Scan(ctx); err != nil || len(rows) == 0 {
			return err
		}
		now := s.now()
		var cleared []upkeep.Event
		var changes []audited
		for _, row := range rows {
			changes = append(changes, audited{who: who, object: overrideObject(row.Pool, row.Member), what: "released from " + row.State, before: row.override()})
			cleared = append(cleared, upkeep.Event{
				At: now, Kind: upkeep.EventAdmin, Who: who, Object: overrideObject(row.Pool, row.Member),
				What: "released from " + row.State,
			})
		}
		if _, err := tx.NewDelete().Model(&rows).WherePK().Exec(ctx); err != nil {
			return err
		}
		if err := addAudit(ctx, tx, now, changes...); err != nil {
			return err
		}
		var err error
		events, err = addEvents(ctx, tx, cleared)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	return len(events), events, nil
}

// overrideObject is the object of an override's event.
func overrideObject(pool, member string) string { return upkeep.KindPool + "/" + pool + "/" + member }

func validateOverride(o upkeep.Override) error {
	var broken []upkeep.FieldError
	for field, pattern := range map[string]string{"pool": o.Pool, "member": o.Member} {
		_, err := path.Match(pattern, "")
		if err != nil || pattern == "" || len(pattern) > 255 || clean(pattern) != pattern {
			broken = append(broken, upkeep.FieldError{Field: field, Value: clean(pattern), Rule: "must be a name or a pattern with *, ? and [a-z]"})
		}
	}
	if !slices.Contains(upkeep.AdminStates, o.State) {
		broken = append(broken, upkeep.FieldError{Field: "state", Value: clean(o.State), Rule: "must be one of " + strings.Join(upkeep.AdminStates, ", ")})
	}
	if broken == nil {
		return nil
	}
	slices.SortFunc(broken, func(a, b upkeep.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return fmt.Errorf("setting an override: %w", &upkeep.InvalidError{Fields: broken})
}
