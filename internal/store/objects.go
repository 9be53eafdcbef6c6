package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

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

// object is what the row declares; nil when it cannot be read, so that a damaged
// row can be replaced and deleted.
func (r objectRow) object() upkeep.Object {
	object, err := upkeep.DecodeObject(r.Kind, []byte(r.Document))
	if err != nil {
		return nil
	}
	return object
}

// Objects returns every declared thing, ordered by kind and name.
func (s *Store) Objects(ctx context.Context) ([]upkeep.Declared, error) {
	rows, err := selectObjects(ctx, s.read)
	if err != nil {
		return nil, s.explain("reading declared things", err)
	}
	declared := make([]upkeep.Declared, 0, len(rows))
	for _, row := range rows {
		if row.Deleted {
			continue
		}
		object, err := upkeep.DecodeObject(row.Kind, []byte(row.Document))
		if err != nil {
			return nil, fmt.Errorf("reading %s/%s from the database: %w", row.Kind, row.Name, err)
		}
		declared = append(declared, upkeep.Declared{Generation: row.Generation, Object: object})
	}
	return declared, nil
}

func selectObjects(ctx context.Context, db bun.IDB) ([]objectRow, error) {
	var rows []objectRow
	err := db.NewSelect().Model(&rows).Order("kind", "name").Scan(ctx)
	return rows, err
}

// Change is a set of declared things to put and to delete, all or nothing.
type Change struct {
	Put    []upkeep.Object
	Delete []Ref
	// IfGeneration names generations that things must still have, 0 for things
	// that must not exist: what was read before has not changed since. Things
	// that are not in it are changed whatever their generation.
	IfGeneration map[Ref]int64
	// Why is kept with the events, such as the name of a file.
	Why string
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
// that order, and one event for each that is not [Unchanged].
type Applied struct {
	Results []Result
	Events  []upkeep.Event
}

// Apply makes a change on behalf of who. It is refused as a whole, with an
// [upkeep.InvalidError], when a thing breaks a rule by itself or when the change
// breaks a rule between things; with [upkeep.ErrNotFound] when a thing to delete
// does not exist; with [upkeep.ErrConflict] when a generation is another than
// expected. A thing that is put as it already is keeps its generation and has no
// event.
func (s *Store) Apply(ctx context.Context, who string, c Change) (Applied, error) {
	if err := c.validate(); err != nil {
		return Applied{}, err
	}
	var applied Applied
	var jobs JobNews
	err := s.change(ctx, "applying a change", func(ctx context.Context, tx bun.Tx) error {
		rows, err := selectObjects(ctx, tx)
		if err != nil {
			return err
		}
		p := plan{who: who, change: c, now: nanos(s.now()), rows: make(map[Ref]objectRow, len(rows))}
		for _, row := range rows {
			p.rows[Ref{row.Kind, row.Name}] = row
		}
		if err := p.make(); err != nil {
			return err
		}
		if err := p.write(ctx, tx); err != nil {
			return err
		}
		applied.Results = p.results
		if applied.Events, err = addEvents(ctx, tx, p.events); err != nil {
			return err
		}
		return s.follow(ctx, Tx{tx: tx, Who: who, Why: c.Why, At: instant(p.now), jobs: &jobs, queue: s.queue}, p.changed)
	})
	if err != nil {
		return Applied{}, err
	}
	s.committed(jobs)
	return applied, nil
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

// plan works out what a change does to the rows that are there.
type plan struct {
	who    string
	change Change
	now    int64
	rows   map[Ref]objectRow

	upserts []objectRow
	results []Result
	events  []upkeep.Event
	changed []Altered
}

func (p *plan) make() error {
	for ref, expected := range p.change.IfGeneration {
		if current := p.generation(ref); current != expected {
			return upkeep.WithHint(fmt.Errorf("%s has generation %d, not %d: %w", ref, current, expected, upkeep.ErrConflict),
				"somebody else changed it; look at it again with: upkeep get "+ref.Kind+" "+ref.Name)
		}
	}
	if err := p.checkAll(); err != nil {
		return err
	}
	for _, object := range p.change.Put {
		if err := p.put(object); err != nil {
			return err
		}
	}
	for _, ref := range p.change.Delete {
		if err := p.delete(ref); err != nil {
			return err
		}
	}
	return nil
}

// generation is that of a thing that exists, 0 otherwise.
func (p *plan) generation(ref Ref) int64 {
	if row := p.rows[ref]; !row.Deleted {
		return row.Generation
	}
	return 0
}

func (p *plan) put(object upkeep.Object) error {
	ref := RefOf(object)
	text, err := json.Marshal(object) // canonical: fields in order of the type, map keys sorted
	if err != nil {
		return fmt.Errorf("writing %s: %w", ref, err)
	}
	row, result := p.rows[ref], Result{Ref: ref, Action: Created}
	what, was := Created, upkeep.Object(nil)
	if p.generation(ref) != 0 {
		fields, err := changedFields(ref.Kind, row.Document, text)
		if err != nil {
			return err
		}
		if len(fields) == 0 {
			p.results = append(p.results, Result{ref, Unchanged, row.Generation})
			return nil
		}
		result.Action, what, was = Changed, "changed "+strings.Join(fields, ", "), row.object()
	}
	result.Generation = row.Generation + 1
	p.upserts = append(p.upserts, objectRow{
		Kind: ref.Kind, Name: ref.Name, Generation: result.Generation, Document: string(text), ChangedAt: p.now, ChangedBy: p.who,
	})
	p.record(result, what, was, object)
	return nil
}

func (p *plan) delete(ref Ref) error {
	row := p.rows[ref]
	if p.generation(ref) == 0 {
		return fmt.Errorf("%s: %w", ref, upkeep.ErrNotFound)
	}
	was := row.object()
	row.Deleted, row.Document, row.ChangedAt, row.ChangedBy = true, "", p.now, p.who
	p.upserts = append(p.upserts, row)
	p.record(Result{ref, Deleted, row.Generation}, Deleted, was, nil)
	return nil
}

func (p *plan) record(result Result, what string, was, is upkeep.Object) {
	p.results = append(p.results, result)
	p.changed = append(p.changed, Altered{result.Ref, was, is, result.Generation})
	p.events = append(p.events, upkeep.Event{
		At: instant(p.now), Kind: upkeep.EventDeclared, Who: p.who, Object: result.Ref.String(), What: what, Why: p.change.Why,
	})
}

// checkAll refuses a change that breaks a rule between things. One that was
// broken before, by an older version's leave, does not stand in the way of
// changes that have nothing to do with it.
func (p *plan) checkAll() error {
	var before, after []upkeep.Object
	touched := map[Ref]bool{}
	for _, object := range p.change.Put {
		touched[RefOf(object)] = true
	}
	for _, ref := range p.change.Delete {
		touched[ref] = true
	}
	refs := make([]Ref, 0, len(p.rows))
	for ref, row := range p.rows {
		if !row.Deleted {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })
	for _, ref := range refs {
		object, err := upkeep.DecodeObject(ref.Kind, []byte(p.rows[ref].Document))
		if err != nil {
			return fmt.Errorf("reading %s from the database: %w", ref, err)
		}
		before = append(before, object)
		if !touched[ref] {
			after = append(after, object)
		}
	}
	// Of two things that claim one name, the later in the list is to blame.
	after = append(after, p.change.Put...)
	type rule struct {
		ref   Ref
		field upkeep.FieldError
	}
	known := map[rule]bool{}
	for _, conflict := range upkeep.CheckAll(before) {
		known[rule{RefOf(conflict.Object), conflict.FieldError}] = true
	}
	var broken []upkeep.FieldError
	for _, conflict := range upkeep.CheckAll(after) {
		ref := RefOf(conflict.Object)
		if !known[rule{ref, conflict.FieldError}] {
			conflict.FieldError.Object = ref.String()
			broken = append(broken, conflict.FieldError)
		}
	}
	if len(broken) > 0 {
		return &upkeep.InvalidError{Fields: broken}
	}
	return nil
}

// changedFields names the fields in which a stored document differs from a new
// one. The stored one is read and written anew first: a version of upkeep that
// writes the same thing in another way has not changed it.
func changedFields(kind, stored string, text []byte) ([]string, error) {
	object, err := upkeep.DecodeObject(kind, []byte(stored))
	if err != nil {
		return nil, err
	}
	canonical, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	var old, new map[string]json.RawMessage
	if err := json.Unmarshal(canonical, &old); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &new); err != nil {
		return nil, err
	}
	var fields []string
	for name, value := range new {
		if string(old[name]) != string(value) {
			fields = append(fields, name)
		}
	}
	for name := range old {
		if _, still := new[name]; !still {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields, nil
}

// write saves the planned rows.
func (p *plan) write(ctx context.Context, tx bun.Tx) error {
	for _, row := range p.upserts {
		_, err := tx.NewInsert().Model(&row).On("CONFLICT (kind, name) DO UPDATE").
			Set("generation = EXCLUDED.generation").Set("document = EXCLUDED.document").
			Set("changed_at = EXCLUDED.changed_at").Set("changed_by = EXCLUDED.changed_by").
			Set("deleted = EXCLUDED.deleted").Exec(ctx)
		if err != nil {
			return fmt.Errorf("writing %s/%s: %w", row.Kind, row.Name, err)
		}
	}
	return nil
}
