package store

import (
	"context"
	"errors"
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
		all, err := judged(ctx, tx, slices.DeleteFunc(rows, func(r objectRow) bool { return r.Deleted }))
		for _, one := range all {
			found[one.Ref] = one
		}
		return err
	})
	return found, s.explain("reading declared things", err)
}

// claimsOf reads to whom the names of sites are registered.
func claimsOf(ctx context.Context, tx bun.Tx, found []Found) (map[string]string, error) {
	wanted := map[string]bool{}
	for _, one := range found {
		if site, is := one.Object.(upkeep.Site); is {
			for _, name := range site.Names() {
				wanted[name] = true
			}
		}
	}
	claimed := make(map[string]string, len(wanted))
	if len(wanted) > manyNames { // nearly all that there are
		return claimed, allClaims(ctx, tx, claimed)
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

// manyNames is from how many on all names are read in place of those.
const manyNames = 2000

func allClaims(ctx context.Context, tx bun.Tx, claimed map[string]string) error {
	rows, err := tx.QueryContext(ctx, "SELECT name, site FROM site_names")
	if err != nil {
		return err
	}
	var name, site string
	for rows.Next() && err == nil {
		if err = rows.Scan(&name, &site); err == nil {
			claimed[name] = site
		}
	}
	return errors.Join(err, rows.Err(), rows.Close())
}

// judged are rows that were read, with what is wrong with them.
func judged(ctx context.Context, tx bun.Tx, rows []objectRow) ([]Found, error) {
	found := plainly(rows)
	claimed, err := claimsOf(ctx, tx, found)
	for i, row := range rows {
		if found[i].Err == nil && hosting(row.Kind) {
			found[i].Err = found[i].fault(claimed)
		}
	}
	return found, err
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
// read with their error. What they hold is not to be changed: others have it too.
func (s *Store) All(ctx context.Context, kind string) ([]Found, error) {
	var found []Found
	err := s.snapshot(ctx, func(ctx context.Context, tx bun.Tx) error {
		sum, err := rowsSum(ctx, tx, kind)
		if err != nil {
			return err
		}
		var is bool
		if found, is = s.kept.get(kind, sum); is {
			return nil
		}
		var rows []objectRow
		if err := tx.NewSelect().Model(&rows).Column("kind", "name", "generation", "document").
			Where("kind = ?", kind).Where("NOT deleted").Order("name").Scan(ctx); err != nil {
			return err
		}
		if found, err = judged(ctx, tx, rows); err == nil {
			s.kept.put(kind, sum, found)
		}
		return err
	})
	return found, s.explain("reading declared things", err)
}
