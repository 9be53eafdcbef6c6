package watch

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/beat"
	"upkeep/internal/notify"
	"upkeep/internal/store"
	"upkeep/internal/zone"
)

// Applied is what an apply did, or would do.
type Applied struct {
	Changes  []AppliedChange
	Warnings []string
}

// AppliedChange is what became of one object; Old is nil when it is new.
type AppliedChange struct {
	Action string // store.Created, store.Changed or store.Unchanged
	// Generation is the object's after the change.
	Generation int64
	Old, New   upkeep.Object
}

// Apply declares objects, all or none. It returns an [upkeep.InvalidError] when
// the whole of what would then be declared breaks a rule. With dryRun nothing
// is changed.
//
// Rules between things of [upkeep.HostingKinds] are the store's, which looks at
// what is around a change only: pools are neither read nor rebuilt for a site.
func (w *Watch) Apply(ctx context.Context, who string, objects []upkeep.Object, dryRun bool) (Applied, error) {
	return w.ApplyIf(ctx, who, nil, objects, dryRun)
}

// ApplyIf does what Apply does if things still have these generations, and
// returns [upkeep.ErrChanged] otherwise: nothing that was changed since it was
// read is overwritten.
func (w *Watch) ApplyIf(ctx context.Context, who string, still map[store.Ref]int64, objects []upkeep.Object, dryRun bool) (Applied, error) {
	// No lock is held while name servers are asked, and what they serve is asked
	// before it changes.
	doubts := zone.DoubtServers(ctx, w.news(objects))
	applied, err := w.apply(ctx, who, still, objects, dryRun)
	if err == nil {
		applied.Warnings = append(applied.Warnings, doubts...)
	}
	return applied, err
}

func (w *Watch) apply(ctx context.Context, who string, still map[store.Ref]int64, objects []upkeep.Object, dryRun bool) (Applied, error) {
	w.declare.Lock()
	defer w.declare.Unlock()
	if err := w.validate(objects); err != nil {
		return Applied{}, err
	}
	if slices.ContainsFunc(objects, watched) {
		before, err := w.cfg.Store.Objects(ctx, upkeep.CheckedKinds...)
		if err != nil {
			return Applied{}, err
		}
		if err := checkAll(merge(plain(before), objects)); err != nil {
			return Applied{}, err
		}
	}
	stored, err := w.commit(ctx, who, store.Change{Put: objects, IfGeneration: still, DryRun: dryRun})
	return outcome(objects, stored), err
}

// news are the zones, of those to be applied, that are not declared as they are.
func (w *Watch) news(objects []upkeep.Object) []upkeep.Zone {
	w.mu.Lock()
	defer w.mu.Unlock()
	var zones []upkeep.Zone
	for _, object := range objects {
		z, is := object.(upkeep.Zone)
		if is && len(z.Validate()) == 0 && !slices.ContainsFunc(w.objects, func(d upkeep.Declared) bool { return reflect.DeepEqual(d.Object, object) }) {
			zones = append(zones, z)
		}
	}
	return zones
}

// watched reports things that the loop works with.
func watched(o upkeep.Object) bool { return slices.Contains(upkeep.PoolKinds, o.ObjectKind()) }

// merge returns what would be declared of [upkeep.CheckedKinds] once objects are
// put over what was before.
func merge(before, objects []upkeep.Object) []upkeep.Object {
	after := before
	for _, object := range objects {
		if !slices.Contains(upkeep.CheckedKinds, object.ObjectKind()) {
			continue
		}
		if at := slices.IndexFunc(after, func(o upkeep.Object) bool { return same(o, object) }); at >= 0 {
			after[at] = object
		} else {
			after = append(after, object)
		}
	}
	return after
}

// outcome tells what the store did with each of the objects.
func outcome(objects []upkeep.Object, stored store.Applied) Applied {
	applied := Applied{Warnings: append(warnings(objects), stored.Warnings...)}
	altered := make(map[store.Ref]store.Altered, len(stored.Altered))
	for _, a := range stored.Altered {
		altered[a.Ref] = a
	}
	for i, result := range stored.Results {
		change := AppliedChange{Action: result.Action, Generation: result.Generation, Old: objects[i], New: objects[i]}
		if a, is := altered[result.Ref]; is {
			change.Old, change.New = a.Old, a.New
		}
		applied.Changes = append(applied.Changes, change)
	}
	return applied
}

// Delete removes declared things, all or none; what they published is withdrawn.
// It returns [upkeep.ErrNotFound] when one of them is not declared, and
// [upkeep.ErrConflict] when something that would stay still uses one.
func (w *Watch) Delete(ctx context.Context, who string, refs ...store.Ref) error {
	return w.DeleteIf(ctx, who, nil, refs...)
}

// DeleteIf does what Delete does if things still have these generations, and
// returns [upkeep.ErrChanged] otherwise.
func (w *Watch) DeleteIf(ctx context.Context, who string, still map[store.Ref]int64, refs ...store.Ref) error {
	w.declare.Lock()
	defer w.declare.Unlock()
	pools := slices.DeleteFunc(slices.Clone(refs), func(r store.Ref) bool { return !slices.Contains(upkeep.PoolKinds, r.Kind) })
	if len(pools) > 0 {
		declared, err := w.cfg.Store.Objects(ctx, upkeep.CheckedKinds...)
		if err != nil {
			return err
		}
		if err := deletable(plain(declared), pools); err != nil {
			return err
		}
	}
	_, err := w.commit(ctx, who, store.Change{Delete: refs, IfGeneration: still})
	return err
}

// deletable refuses what cannot be deleted, with everything that stands in the
// way.
func deletable(before []upkeep.Object, refs []store.Ref) error {
	leaving := func(o upkeep.Object) bool { return slices.Contains(refs, store.RefOf(o)) }
	var absent, reasons []string
	for _, ref := range refs {
		if !slices.ContainsFunc(before, func(o upkeep.Object) bool { return store.RefOf(o) == ref }) {
			absent = append(absent, ref.Kind+" "+ref.Name)
		}
	}
	if len(absent) > 0 {
		return fmt.Errorf("deleting: %s: %w", strings.Join(absent, ", "), upkeep.ErrNotFound)
	}
	after := slices.DeleteFunc(slices.Clone(before), leaving)
	old := upkeep.CheckAll(before)
	for _, c := range upkeep.CheckAll(after) {
		// A rule that was broken before, by an older version's leave, is no reason.
		if !slices.ContainsFunc(old, func(o upkeep.Conflict) bool { return same(o.Object, c.Object) && o.FieldError == c.FieldError }) {
			reasons = append(reasons, fmt.Sprintf("%s %s still uses %s", c.Object.ObjectKind(), c.Object.ObjectName(), c.Value))
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	reasons = slices.Compact(reasons)
	if more := len(reasons) - maxReasons; more > 0 {
		reasons = append(reasons[:maxReasons], fmt.Sprintf("and %d more", more))
	}
	return upkeep.WithHint(fmt.Errorf("deleting: %s: %w", strings.Join(reasons, ", "), upkeep.ErrConflict),
		"nothing was deleted; change what uses it first, or delete both in one go with: upkeep delete -f FILE")
}

// maxReasons is how many things that stand in the way are named.
const maxReasons = 10

// commit changes what is declared and, where that is of [upkeep.PoolKinds], what
// runs.
func (w *Watch) commit(ctx context.Context, who string, change store.Change) (store.Applied, error) {
	stored, err := w.cfg.Store.Apply(ctx, who, change)
	if err != nil || change.DryRun {
		return stored, err
	}
	w.announce(stored.Events)
	if !slices.ContainsFunc(stored.Results, func(r store.Result) bool { return slices.Contains(upkeep.PoolKinds, r.Ref.Kind) }) {
		return stored, nil
	}
	objects, err := w.cfg.Store.Objects(ctx, upkeep.PoolKinds...)
	if err != nil {
		return stored, fmt.Errorf("reading back what was stored: %w", err)
	}
	if stale := w.rebuild(objects, nil); len(stale) > 0 {
		if err := w.cfg.Store.DeleteStates(ctx, stale...); err != nil {
			w.log.Error("forgetting what is not declared any more", "err", err)
		}
	}
	return stored, nil
}

// validate holds each object to the rules that it can break by itself, those
// that need more than the root's knowledge among them.
func (w *Watch) validate(objects []upkeep.Object) error {
	invalid := &upkeep.InvalidError{}
	add := func(object upkeep.Object, f upkeep.FieldError) {
		f.Object = store.RefOf(object).String()
		invalid.Fields = append(invalid.Fields, f)
	}
	seen := make(map[store.Ref]bool, len(objects))
	for _, object := range objects {
		if ref := store.RefOf(object); seen[ref] {
			add(object, upkeep.FieldError{Field: "name", Value: object.ObjectName(), Rule: "is given twice"})
		} else {
			seen[ref] = true
		}
		for _, f := range object.Validate() {
			add(object, f)
		}
		switch o := object.(type) {
		case upkeep.Zone:
			for _, f := range zone.ValidateRecords(o) {
				add(o, f)
			}
		case upkeep.Receiver:
			for _, f := range notify.Preflight(o) {
				add(o, f)
			}
		case upkeep.Pool:
			for _, f := range w.preflight(o) {
				add(o, f)
			}
		}
	}
	if len(invalid.Fields) > 0 {
		return invalid
	}
	return nil
}

// checkAll is the error for rules that are broken between things of
// [upkeep.CheckedKinds], of which all are given.
func checkAll(all []upkeep.Object) error {
	invalid := &upkeep.InvalidError{}
	for _, conflict := range upkeep.CheckAll(all) {
		conflict.FieldError.Object = store.RefOf(conflict.Object).String()
		invalid.Fields = append(invalid.Fields, conflict.FieldError)
	}
	if len(invalid.Fields) > 0 {
		return invalid
	}
	return nil
}

// preflight asks the probe engine whether this machine can run the pool's checks.
func (w *Watch) preflight(p upkeep.Pool) []upkeep.FieldError {
	var fields []upkeep.FieldError
	ask := func(field string, c upkeep.Check) {
		if err := w.cfg.Prober.Preflight(c); err != nil {
			rule := err.Error()
			if hint := (*upkeep.HintError)(nil); errors.As(err, &hint) {
				rule += "; " + hint.Hint
			}
			fields = append(fields, upkeep.FieldError{Field: field, Value: c.Type, Rule: rule})
		}
	}
	ask("check.type", p.Check.WithDefaults())
	if p.Check.Type == upkeep.CheckHeartbeat && len(fields) == 0 {
		fields = append(fields, keyless(p)...)
	}
	if len(p.Policy.Anchors) > 0 {
		ask("policy.anchors", anchorCheck())
	}
	return fields
}

// keyless are the members whose heartbeats nobody could sign.
func keyless(p upkeep.Pool) []upkeep.FieldError {
	keys, err := beat.ReadKeys(p.Check.KeyFile)
	if err != nil {
		return nil // reported already
	}
	known := map[string]bool{}
	for _, key := range keys {
		known[key.ID] = true
	}
	var fields []upkeep.FieldError
	for i, m := range p.Members {
		target, errTarget := beat.ParseID(m.Target())
		address, errAddress := beat.ParseID(m.Address.String())
		if errTarget == nil && known[target] || errAddress == nil && known[address] {
			continue
		}
		fields = append(fields, upkeep.FieldError{
			Field: fmt.Sprintf("members[%d]", i), Value: m.Target(),
			Rule: fmt.Sprintf("has no key in %s; make one with: upkeep beat keygen --key %s %s", p.Check.KeyFile, p.Check.KeyFile, m.Target()),
		})
	}
	return fields
}

// Objects returns what is declared, of one kind and of one name where these are
// not empty. It returns [upkeep.ErrNotFound] when a name was given and is not declared.
func (w *Watch) Objects(ctx context.Context, kind, name string) ([]upkeep.Declared, error) {
	var kinds []string // all
	if kind != "" {
		kinds = []string{kind}
	}
	if name == "" {
		return w.cfg.Store.Objects(ctx, kinds...)
	}
	if kind == "" {
		kinds = upkeep.Kinds
	}
	var objects []upkeep.Declared
	for _, kind := range kinds {
		object, err := w.cfg.Store.Object(ctx, store.Ref{Kind: kind, Name: name})
		switch {
		case err == nil:
			objects = append(objects, object)
		case !errors.Is(err, upkeep.ErrNotFound):
			return nil, err
		}
	}
	if len(objects) == 0 {
		return nil, fmt.Errorf("%s %s: %w", kind, name, upkeep.ErrNotFound)
	}
	return objects, nil
}

func warnings(objects []upkeep.Object) []string {
	var all []string
	for _, object := range objects {
		if warner, can := object.(interface{ Warnings() []string }); can {
			all = append(all, warner.Warnings()...)
		}
	}
	return all
}

func plain(declared []upkeep.Declared) []upkeep.Object {
	objects := make([]upkeep.Object, len(declared))
	for i, d := range declared {
		objects[i] = d.Object
	}
	return objects
}

func same(a, b upkeep.Object) bool {
	return a.ObjectKind() == b.ObjectKind() && a.ObjectName() == b.ObjectName()
}
