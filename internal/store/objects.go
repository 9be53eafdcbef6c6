package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/uptrace/bun"

	"upkeep"
)

type objectRow struct {
	bun.BaseModel `bun:"table:objects"`
	Kind          string `bun:",pk"`
	Name          string `bun:",pk"`
	Generation    int64
	Document      string
	ChangedAt     int64
	ChangedBy     string
	Deleted       bool
}

func (r objectRow) ref() Ref { return Ref{r.Kind, r.Name} }

// declared is what the row declares. One that somebody wrote past every check is
// found out where it cannot be read, or declares a thing of another name.
func (r objectRow) declared() (upkeep.Declared, error) {
	object, err := upkeep.DecodeObject(r.Kind, []byte(r.Document))
	if err == nil && hosting(r.Kind) && RefOf(object) != r.ref() {
		err = fmt.Errorf("it is about %s", upkeep.Printable(RefOf(object).String()))
	}
	if err != nil {
		return upkeep.Declared{Generation: r.Generation}, fmt.Errorf("reading %s from the database: %w", r.ref(), err)
	}
	return upkeep.Declared{Generation: r.Generation, Object: object}, nil
}

// object is what the row declares; nil when it cannot be read, so that a damaged
// row can be replaced and deleted.
func (r objectRow) object() upkeep.Object {
	declared, err := r.declared()
	if err != nil {
		return nil
	}
	return declared.Object
}

// hosting reports kinds of which there may be many thousands. What one row of
// them says is its own matter: where it cannot be read, the others still can.
func hosting(kind string) bool { return slices.Contains(upkeep.HostingKinds, kind) }

// Objects returns what is declared of the given kinds, of all when none is given,
// ordered by kind and name. Things of [upkeep.HostingKinds] whose rows cannot be
// read are left out, see [Store.Faults]; of other kinds such a row fails the
// whole, for a decision without one of the pools would be about another world.
func (s *Store) Objects(ctx context.Context, kinds ...string) ([]upkeep.Declared, error) {
	if len(kinds) == 0 {
		kinds = upkeep.Kinds
	}
	var rows []objectRow
	err := s.read.NewSelect().Model(&rows).Where("kind IN (?)", bun.List(kinds)).Where("NOT deleted").Order("kind", "name").Scan(ctx)
	if err != nil {
		return nil, s.explain("reading declared things", err)
	}
	declared := make([]upkeep.Declared, 0, len(rows))
	for _, row := range rows {
		one, err := row.declared()
		switch {
		case err == nil:
			declared = append(declared, one)
		case !hosting(row.Kind):
			return nil, err
		}
	}
	return declared, nil
}

// Object returns one declared thing, or [upkeep.ErrNotFound].
func (s *Store) Object(ctx context.Context, ref Ref) (upkeep.Declared, error) {
	var row objectRow
	err := s.read.NewSelect().Model(&row).Where("kind = ?", ref.Kind).Where("name = ?", clean(ref.Name)).Where("NOT deleted").Scan(ctx)
	found, err := notFound(err)
	switch {
	case err != nil:
		return upkeep.Declared{}, s.explain("reading a declared thing", err)
	case !found:
		return upkeep.Declared{}, fmt.Errorf("%s %s: %w", ref.Kind, ref.Name, upkeep.ErrNotFound)
	}
	return row.declared()
}

// Fault is a row that cannot be read, or that breaks a rule.
type Fault struct {
	Ref Ref
	Err error
}

// Faults returns what is wrong with rows of [upkeep.HostingKinds], ordered by
// kind and name: rows that cannot be read, that break a rule by themselves, and
// sites with names that are registered to another site or to none. A rule may be
// broken by an older version's leave; the rest was written past upkeep.
func (s *Store) Faults(ctx context.Context) ([]Fault, error) {
	var faults []Fault
	err := s.snapshot(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []objectRow
		err := tx.NewSelect().Model(&rows).Where("kind IN (?)", bun.List(upkeep.HostingKinds)).Where("NOT deleted").Order("kind", "name").Scan(ctx)
		if err != nil {
			return err
		}
		var names []nameRow
		if err := tx.NewSelect().Model(&names).Scan(ctx); err != nil {
			return err
		}
		claimed := make(map[string]string, len(names))
		for _, name := range names {
			claimed[name.Name] = name.Site
		}
		for _, one := range plainly(rows) {
			err := one.Err
			if err == nil {
				err = one.fault(claimed)
			}
			if err != nil {
				faults = append(faults, Fault{one.Ref, err})
			}
		}
		return nil
	})
	return faults, s.explain("looking for damaged rows", err)
}

// fault is what is wrong with what a row declares; claimed has the site of each name.
func (f Found) fault(claimed map[string]string) error {
	if broken := f.Object.Validate(); len(broken) > 0 {
		for i := range broken {
			broken[i].Object = f.Ref.String()
		}
		return &upkeep.InvalidError{Fields: broken}
	}
	site, is := f.Object.(upkeep.Site)
	if !is {
		return nil
	}
	return unregistered(site, claimed)
}

// unregistered is the error about a site with names that are not registered as
// its own: nobody asked whose they are before its row was written.
func unregistered(site upkeep.Site, claimed map[string]string) error {
	lacking := ""
	for _, name := range site.Names() {
		switch owner := claimed[name]; owner {
		case site.Name:
		case "":
			lacking = name
		default:
			return fmt.Errorf("site/%s was written past upkeep: its name %s is registered to site %s", site.Name, name, owner)
		}
	}
	if lacking == "" {
		return nil
	}
	return upkeep.WithHint(fmt.Errorf("site/%s was written past upkeep: its name %s is not registered", site.Name, lacking),
		"delete it, then declare it: upkeep delete site "+site.Name)
}

// selectRefs reads the rows of names, also of deleted things.
func selectRefs(ctx context.Context, db bun.IDB, refs []Ref) ([]objectRow, error) {
	names := map[string][]string{}
	for _, ref := range refs {
		names[ref.Kind] = append(names[ref.Kind], clean(ref.Name))
	}
	var rows []objectRow
	for kind, all := range names {
		slices.Sort(all)
		for part := range slices.Chunk(slices.Compact(all), chunk) {
			var some []objectRow
			if err := db.NewSelect().Model(&some).Where("kind = ?", kind).Where("name IN (?)", bun.List(part)).Scan(ctx); err != nil {
				return nil, err
			}
			rows = append(rows, some...)
		}
	}
	return rows, nil
}

// Exists stands for the generation of a thing that is declared, whichever it is.
const Exists = -1

// Still returns [upkeep.ErrChanged] unless a thing, which has a generation or is not
// declared and has 0, is as expected by [Change.IfGeneration].
func Still(ref Ref, current, expected int64) error {
	again := "upkeep get " + ref.Kind + " " + ref.Name
	switch {
	case current == expected, expected == Exists && current != 0:
		return nil
	case current == 0:
		return upkeep.WithHint(fmt.Errorf("%s does not exist: %w", ref, upkeep.ErrChanged),
			"it was never declared, or was deleted meanwhile; list those that there are with: upkeep get "+ref.Kind)
	case expected == 0:
		return upkeep.WithHint(fmt.Errorf("%s exists already, with generation %d: %w", ref, current, upkeep.ErrChanged), "look at it with: "+again)
	}
	return upkeep.WithHint(fmt.Errorf("%s has generation %d, not %d: %w", ref, current, expected, upkeep.ErrChanged),
		"somebody else changed it; look at it again with: "+again)
}

// Change is a set of declared things to put and to delete, all or nothing.
type Change struct {
	Put    []upkeep.Object
	Delete []Ref
	// IfGeneration names generations that things must still have, 0 for things
	// that must not exist, [Exists] for those that must: what was read before has
	// not changed since. Things that are not in it are changed whatever their
	// generation.
	IfGeneration map[Ref]int64
	// Why is kept with the events, such as the name of a file.
	Why string
	// DryRun has everything checked and nothing changed; followers are not told.
	DryRun bool
}

// Actions that a change takes.
const (
	Created   = "created"
	Changed   = "changed"
	Unchanged = "unchanged"
	Deleted   = "deleted"
)

// Result is what a change did to one thing.
type Result struct {
	Ref        Ref
	Action     string
	Generation int64
}

// Applied is what a change did: one result for each thing put or deleted, in
// that order; of each that is not [Unchanged] what it was and is, and an event.
type Applied struct {
	Results []Result
	Altered []Altered
	Events  []upkeep.Event
	// Warnings are about what is allowed and should be looked at, such as a name
	// that can be taken for one of another account.
	Warnings []string
}

// Apply makes a change on behalf of who. It is refused as a whole, with an
// [upkeep.InvalidError], when a thing breaks a rule by itself or when the change
// breaks a rule between things; with [upkeep.ErrNotFound] when a thing to delete
// does not exist; with [upkeep.ErrConflict] when a generation is another than
// expected, or when something that would stay still uses what is deleted. A
// thing that is put as it already is keeps its generation and has no event.
//
// An account that is put without a number keeps the one that it has, or gets one
// that no account ever had.
//
// The cost is that of what is changed, and of what it names and what names it,
// whatever else is declared; with things of [upkeep.PoolKinds] that of all of
// these.
func (s *Store) Apply(ctx context.Context, who string, c Change) (Applied, error) {
	if err := c.validate(); err != nil {
		return Applied{}, err
	}
	var applied Applied
	var jobs JobNews
	work := func(ctx context.Context, tx bun.Tx) error {
		p := newPlan(tx, who, c, instant(nanos(s.now())), s.reserved)
		if err := p.make(ctx); err != nil {
			return err
		}
		applied = Applied{Results: p.results, Altered: p.altered, Warnings: p.warnings}
		if c.DryRun {
			return nil
		}
		err := p.write(ctx)
		if err != nil {
			return err
		}
		if applied.Events, err = addEvents(ctx, tx, p.events); err != nil {
			return err
		}
		jobs = JobNews{}
		jobs.note(p.altered)
		return s.follow(ctx, Tx{tx: tx, Who: who, Why: c.Why, At: p.now, jobs: &jobs, queue: s.queue}, p.altered)
	}
	var err error
	if c.DryRun {
		err = s.explain("trying out a change", s.snapshot(ctx, work))
	} else {
		err = s.change(ctx, "applying a change", work)
	}
	if err != nil {
		return Applied{}, err
	}
	s.committed(jobs)
	return applied, nil
}

// note takes down whose state a change may have changed.
func (n *JobNews) note(altered []Altered) {
	for _, a := range altered {
		switch a.Ref.Kind {
		case upkeep.KindSite:
			n.Sites = append(n.Sites, a.Ref.Name)
		case upkeep.KindAccount:
			n.Accounts = append(n.Accounts, a.Ref.Name)
		}
	}
}

// validate checks what can be checked without the database.
func (c Change) validate() error {
	var broken []upkeep.FieldError
	seen := map[Ref]bool{}
	once := func(ref Ref) {
		if seen[ref] {
			broken = append(broken, upkeep.FieldError{Object: ref.String(), Rule: "stands in the change twice"})
		}
		seen[ref] = true
	}
	for _, object := range c.Put {
		ref := RefOf(object)
		once(ref)
		for _, field := range object.Validate() {
			field.Object = ref.String()
			broken = append(broken, field)
		}
	}
	for _, ref := range c.Delete {
		once(ref)
	}
	if len(broken) > 0 {
		return &upkeep.InvalidError{Fields: broken}
	}
	return nil
}

// errDamaged stands for a stored document that cannot be compared with a new one.
var errDamaged = errors.New("the stored document cannot be read")
