package store

import (
	"context"
	"slices"

	"github.com/uptrace/bun"

	"upkeep"
)

// Found is what was found under a name.
type Found struct {
	Ref Ref
	upkeep.Declared
	// Err is set for a row that cannot be read or, of [upkeep.HostingKinds], that
	// nobody can have written who asked upkeep: nothing may be done by it. It is
	// as in [Store.Faults].
	Err error
}

// Declared returns the things of the given names that are declared. A row that
// cannot be read spoils no other.
func (s *Store) Declared(ctx context.Context, refs []Ref) (map[Ref]Found, error) {
	found := make(map[Ref]Found, len(refs))
	err := s.snapshot(ctx, func(ctx context.Context, tx bun.Tx) error {
		rows, err := selectRefs(ctx, tx, refs)
		if err != nil {
			return err
		}
		rows = slices.DeleteFunc(rows, func(r objectRow) bool { return r.Deleted })
		claimed, err := claimsOf(ctx, tx, rows)
		for _, row := range rows {
			found[row.ref()] = row.found(claimed)
		}
		return err
	})
	return found, s.explain("reading declared things", err)
}

// claimsOf reads which names are registered to the sites among rows, and to whom
// the names of these are registered.
func claimsOf(ctx context.Context, tx bun.Tx, rows []objectRow) (map[string]string, error) {
	claimed := map[string]string{}
	wanted := map[string]bool{}
	for _, row := range rows {
		if site, is := row.object().(upkeep.Site); is {
			for _, name := range site.Names() {
				wanted[name] = true
			}
		}
	}
	for part := range slices.Chunk(sortedKeys(wanted), chunk) {
		var some []nameRow
		if err := tx.NewSelect().Model(&some).Column("name", "site").Where("name IN (?)", bun.List(part)).Scan(ctx); err != nil {
			return nil, err
		}
		for _, row := range some {
			claimed[row.Name] = row.Site
		}
	}
	return claimed, nil
}

func (r objectRow) found(claimed map[string]string) Found {
	declared, err := r.declared()
	if err == nil && hosting(r.Kind) {
		err = r.fault(claimed)
	}
	return Found{r.ref(), declared, err}
}

// Sites returns all sites as they are after the change, ordered by name; those
// whose rows cannot be read with their error.
func (t Tx) Sites(ctx context.Context) ([]Found, error) {
	var rows []objectRow
	if err := t.tx.NewSelect().Model(&rows).Where("kind = ?", upkeep.KindSite).Where("NOT deleted").Order("name").Scan(ctx); err != nil {
		return nil, err
	}
	return plainly(rows), nil
}

// SitesOf is [Tx.Sites] for the sites that use something: an account, a server
// or the site that they are sub-sites of.
func (t Tx) SitesOf(ctx context.Context, used Ref) ([]Found, error) {
	var names []string
	err := t.tx.NewSelect().Model((*useRow)(nil)).ColumnExpr("DISTINCT name").Where("used_kind = ?", used.Kind).Where("used_name = ?", clean(used.Name)).
		Where("kind = ?", upkeep.KindSite).Order("name").Scan(ctx, &names)
	if err != nil {
		return nil, err
	}
	var found []Found
	for part := range slices.Chunk(names, chunk) {
		var rows []objectRow
		err := t.tx.NewSelect().Model(&rows).Where("kind = ?", upkeep.KindSite).Where("name IN (?)", bun.List(part)).Where("NOT deleted").Order("name").Scan(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, plainly(rows)...)
	}
	return found, nil
}

// plainly are rows with no more asked than whether they can be read: what is done
// by them is looked at when it is.
func plainly(rows []objectRow) []Found {
	found := make([]Found, len(rows))
	for i, row := range rows {
		found[i].Ref = row.ref()
		found[i].Declared, found[i].Err = row.declared()
	}
	return found
}

// All returns all things of a kind, ordered by name; those whose rows cannot be
// read with their error.
func (s *Store) All(ctx context.Context, kind string) ([]Found, error) {
	var found []Found
	err := s.snapshot(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []objectRow
		if err := tx.NewSelect().Model(&rows).Where("kind = ?", kind).Where("NOT deleted").Order("name").Scan(ctx); err != nil {
			return err
		}
		claimed, err := claimsOf(ctx, tx, rows)
		for _, row := range rows {
			found = append(found, row.found(claimed))
		}
		return err
	})
	return found, s.explain("reading declared things", err)
}
