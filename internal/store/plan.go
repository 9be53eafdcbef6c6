package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

// plan works out what a change does to the rows that are there. It reads in the
// transaction of the change and writes nothing until [plan.write].
type plan struct {
	tx       bun.Tx
	who      string
	change   Change
	now      time.Time
	reserved []string

	rows map[Ref]objectRow
	// put has what the change puts, deleted what it deletes.
	put     map[Ref]upkeep.Object
	deleted map[Ref]bool

	upserts  []objectRow
	results  []Result
	altered  []Altered
	events   []upkeep.Event
	changes  []audited
	warnings []string
	uids     []uidRow        // that are new
	rewrites map[Ref]bool    // see rewritten
	settled  map[string]bool // sites whose names and uses stay as they are stored
}

func newPlan(tx bun.Tx, who string, c Change, now time.Time, reserved []string) *plan {
	p := &plan{tx: tx, who: who, change: c, now: now, reserved: reserved,
		rows: map[Ref]objectRow{}, put: make(map[Ref]upkeep.Object, len(c.Put)), deleted: make(map[Ref]bool, len(c.Delete))}
	for _, object := range c.Put {
		p.put[RefOf(object)] = object
	}
	for _, ref := range c.Delete {
		p.deleted[ref] = true
	}
	return p
}

func (p *plan) make(ctx context.Context) error {
	if err := p.read(ctx); err != nil {
		return err
	}
	for ref, expected := range p.change.IfGeneration {
		current := p.generation(ref)
		if p.deleted[ref] && current == 0 {
			continue // a condition does not come before there being nothing to delete
		}
		if err := Still(ref, current, expected); err != nil {
			return err
		}
	}
	if p.touches(upkeep.PoolKinds) {
		if err := p.checkAll(); err != nil {
			return err
		}
	}
	if err := p.numberAccounts(ctx); err != nil {
		return err
	}
	for _, object := range p.change.Put {
		if err := p.putOne(p.put[RefOf(object)]); err != nil {
			return err
		}
	}
	if err := p.deleteAll(); err != nil {
		return err
	}
	if p.touches(upkeep.HostingKinds) {
		return p.checkHosting(ctx)
	}
	return nil
}

// read loads the rows that the change is about. Rules between things of
// [upkeep.PoolKinds] need all of these.
func (p *plan) read(ctx context.Context) error {
	var refs []Ref
	for _, object := range p.change.Put {
		refs = append(refs, RefOf(object))
	}
	refs = append(refs, p.change.Delete...)
	for ref := range p.change.IfGeneration {
		refs = append(refs, ref)
	}
	if p.touches(upkeep.PoolKinds) {
		refs = slices.DeleteFunc(refs, func(r Ref) bool { return slices.Contains(upkeep.CheckedKinds, r.Kind) })
		var rows []objectRow
		if err := p.tx.NewSelect().Model(&rows).Where("kind IN (?)", bun.List(upkeep.CheckedKinds)).Scan(ctx); err != nil {
			return err
		}
		p.keep(rows)
	}
	rows, err := selectRefs(ctx, p.tx, refs)
	p.keep(rows)
	return err
}

func (p *plan) keep(rows []objectRow) {
	for _, row := range rows {
		p.rows[row.ref()] = row
	}
}

func (p *plan) touches(kinds []string) bool {
	return slices.ContainsFunc(p.change.Put, func(o upkeep.Object) bool { return slices.Contains(kinds, o.ObjectKind()) }) ||
		slices.ContainsFunc(p.change.Delete, func(r Ref) bool { return slices.Contains(kinds, r.Kind) })
}

// touched reports whether the change puts or deletes a thing.
func (p *plan) touched(ref Ref) bool { return p.put[ref] != nil || p.deleted[ref] }

// generation is that of a thing that exists, 0 otherwise.
func (p *plan) generation(ref Ref) int64 {
	if row := p.rows[ref]; !row.Deleted {
		return row.Generation
	}
	return 0
}

func (p *plan) putOne(object upkeep.Object) error {
	ref := RefOf(object)
	text, err := json.Marshal(object) // canonical: fields in order of the type, map keys sorted
	if err != nil {
		return fmt.Errorf("writing %s: %w", ref, err)
	}
	row, result := p.rows[ref], Result{Ref: ref, Action: Created}
	what, was := Created, upkeep.Object(nil)
	if p.generation(ref) != 0 {
		fields, err := changedFields(row, text)
		switch {
		case errors.Is(err, errDamaged):
			what = "replaced; what was stored could not be read"
		case err != nil:
			return err
		case len(fields) == 0:
			p.results = append(p.results, Result{ref, Unchanged, row.Generation})
			return nil
		default:
			what, was = "changed "+strings.Join(fields, ", "), row.object()
		}
		result.Action = Changed
	}
	result.Generation = row.Generation + 1
	p.upserts = append(p.upserts, objectRow{
		Kind: ref.Kind, Name: ref.Name, Generation: result.Generation, Document: string(text), ChangedAt: nanos(p.now), ChangedBy: p.who,
	})
	p.record(result, what, was, object)
	return nil
}

func (p *plan) deleteAll() error {
	var absent []string
	for _, ref := range p.change.Delete {
		if p.generation(ref) == 0 {
			absent = append(absent, ref.String())
			continue
		}
		p.deleteOne(ref)
	}
	if len(absent) > 0 {
		return fmt.Errorf("%s: %w", strings.Join(absent, ", "), upkeep.ErrNotFound)
	}
	return nil
}

func (p *plan) deleteOne(ref Ref) {
	row := p.rows[ref]
	was := row.object()
	if hosting(ref.Kind) {
		row.Generation++ // so that an agent can tell the removal from what it has
	}
	row.Deleted, row.Document, row.ChangedAt, row.ChangedBy = true, "", nanos(p.now), p.who
	p.upserts = append(p.upserts, row)
	p.record(Result{ref, Deleted, row.Generation}, Deleted, was, nil)
}

func (p *plan) record(result Result, what string, was, is upkeep.Object) {
	p.results = append(p.results, result)
	p.altered = append(p.altered, Altered{result.Ref, was, is, result.Generation})
	p.changes = append(p.changes, audited{p.who, result.Ref.String(), what, p.change.Why, was, is})
	p.events = append(p.events, upkeep.Event{
		At: p.now, Kind: upkeep.EventDeclared, Who: p.who, Object: result.Ref.String(), What: what, Why: p.change.Why,
	})
}

// checkAll refuses a change that breaks a rule between things of
// [upkeep.CheckedKinds]. One that was broken before, by an older version's leave,
// does not stand in the way of changes that have nothing to do with it.
func (p *plan) checkAll() error {
	var before, after []upkeep.Object
	refs := make([]Ref, 0, len(p.rows))
	for ref, row := range p.rows {
		if !row.Deleted && slices.Contains(upkeep.CheckedKinds, ref.Kind) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })
	for _, ref := range refs {
		declared, err := p.rows[ref].declared()
		switch {
		case err != nil && hosting(ref.Kind):
			continue // a damaged server is not there
		case err != nil:
			return err
		}
		before = append(before, declared.Object)
		if !p.touched(ref) {
			after = append(after, declared.Object)
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
	var broken []upkeep.Conflict
	for _, conflict := range upkeep.CheckAll(after) {
		if !known[rule{RefOf(conflict.Object), conflict.FieldError}] {
			broken = append(broken, conflict)
		}
	}
	return invalid(broken)
}

// invalid is the error for broken rules, nil for none.
func invalid(broken []upkeep.Conflict) error {
	if len(broken) == 0 {
		return nil
	}
	fields := make([]upkeep.FieldError, len(broken))
	for i, conflict := range broken {
		fields[i] = conflict.FieldError
		fields[i].Object = RefOf(conflict.Object).String()
	}
	return &upkeep.InvalidError{Fields: fields}
}

// changedFields names the fields in which a stored document differs from a new
// one. The stored one is read and written anew first: a version of upkeep that
// writes the same thing in another way has not changed it. It returns errDamaged
// when the stored one cannot be read.
func changedFields(stored objectRow, text []byte) ([]string, error) {
	object := stored.object()
	if object == nil {
		return nil, errDamaged
	}
	canonical, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	if string(canonical) == string(text) {
		return nil, nil
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

// write saves what was planned.
func (p *plan) write(ctx context.Context) error {
	for part := range chunks(p.upserts) {
		_, err := p.tx.NewInsert().Model(&part).On("CONFLICT (kind, name) DO UPDATE").
			Set("generation = EXCLUDED.generation").Set("document = EXCLUDED.document").
			Set("changed_at = EXCLUDED.changed_at").Set("changed_by = EXCLUDED.changed_by").
			Set("deleted = EXCLUDED.deleted").Exec(ctx)
		if err != nil {
			return fmt.Errorf("writing %s and others: %w", part[0].ref(), err)
		}
	}
	if err := addAudit(ctx, p.tx, p.now, p.changes...); err != nil {
		return err
	}
	for _, a := range p.altered {
		if a.Ref.Kind == upkeep.KindAccount && a.New == nil {
			if err := removeUsersOf(ctx, p.tx, p.now, p.who, a.Ref.Name); err != nil {
				return err
			}
		}
	}
	return p.writeHosting(ctx)
}

// maxStatement bounds the documents in one statement, in bytes.
const maxStatement = 256 << 10

// chunks cuts rows into as many as one statement may have.
func chunks(rows []objectRow) func(yield func([]objectRow) bool) {
	return func(yield func([]objectRow) bool) {
		for len(rows) > 0 {
			n, size := 0, 0
			for n < min(len(rows), chunk) && (n == 0 || size+len(rows[n].Document) <= maxStatement) {
				size += len(rows[n].Document)
				n++
			}
			if !yield(slices.Clone(rows[:n])) {
				return
			}
			rows = rows[n:]
		}
	}
}
