package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
func (w *Watch) Apply(ctx context.Context, who string, objects []upkeep.Object, dryRun bool) (Applied, error) {
	w.declare.Lock()
	defer w.declare.Unlock()
	before, err := w.cfg.Store.Objects(ctx)
	if err != nil {
		return Applied{}, err
	}
	applied, after := compare(before, objects)
	if err := w.validate(objects, after); err != nil {
		return Applied{}, err
	}
	if dryRun {
		return applied, nil
	}
	results, err := w.commit(ctx, who, store.Change{Put: objects})
	for i, result := range results {
		applied.Changes[i].Generation = result.Generation // one that was deleted once goes on counting
	}
	return applied, err
}

// compare says what putting objects over before would change, and returns all
// that would then be declared.
func compare(before []upkeep.Declared, objects []upkeep.Object) (Applied, []upkeep.Object) {
	applied, after := Applied{Warnings: warnings(objects)}, plain(before)
	for _, object := range objects {
		change := AppliedChange{Action: store.Created, Generation: 1, New: object}
		at := slices.IndexFunc(after, func(o upkeep.Object) bool { return same(o, object) })
		if at < 0 {
			after = append(after, object)
			applied.Changes = append(applied.Changes, change)
			continue
		}
		change.Old, change.Action = after[at], store.Changed
		if at < len(before) { // else it is given twice, which validate refuses
			change.Generation = before[at].Generation + 1
		}
		if equal(change.Old, object) {
			change.Action = store.Unchanged
			change.Generation--
		}
		after[at] = object
		applied.Changes = append(applied.Changes, change)
	}
	return applied, after
}

// Delete removes declared things, all or none; what they published is withdrawn.
// It returns [upkeep.ErrNotFound] when one of them is not declared, and
// [upkeep.ErrConflict] when something that would stay still uses one.
func (w *Watch) Delete(ctx context.Context, who string, refs ...store.Ref) error {
	w.declare.Lock()
	defer w.declare.Unlock()
	declared, err := w.cfg.Store.Objects(ctx)
	if err != nil {
		return err
	}
	if err := deletable(plain(declared), refs); err != nil {
		return err
	}
	_, err = w.commit(ctx, who, store.Change{Delete: refs})
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
		"nothing was deleted; change what uses it first, or delete both in one go with -f")
}

// maxReasons is how many things that stand in the way are named.
const maxReasons = 10

func (w *Watch) commit(ctx context.Context, who string, change store.Change) ([]store.Result, error) {
	stored, err := w.cfg.Store.Apply(ctx, who, change)
	if err != nil {
		return nil, err
	}
	w.announce(stored.Events)
	objects, err := w.cfg.Store.Objects(ctx)
	if err != nil {
		return stored.Results, fmt.Errorf("reading back what was stored: %w", err)
	}
	if stale := w.rebuild(objects, nil); len(stale) > 0 {
		if err := w.cfg.Store.DeleteStates(ctx, stale...); err != nil {
			w.log.Error("forgetting what is not declared any more", "err", err)
		}
	}
	return stored.Results, nil
}

// validate holds the rules that need more than one document or more than the
// root's knowledge; objects are the ones given, all is what would be declared.
func (w *Watch) validate(objects, all []upkeep.Object) error {
	invalid := &upkeep.InvalidError{}
	add := func(object upkeep.Object, f upkeep.FieldError) {
		f.Object = object.ObjectKind() + "/" + object.ObjectName()
		invalid.Fields = append(invalid.Fields, f)
	}
	for i, object := range objects {
		if slices.ContainsFunc(objects[:i], func(o upkeep.Object) bool { return same(o, object) }) {
			add(object, upkeep.FieldError{Field: "name", Value: object.ObjectName(), Rule: "is given twice"})
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
	for _, conflict := range upkeep.CheckAll(all) {
		add(conflict.Object, conflict.FieldError)
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
	objects, err := w.cfg.Store.Objects(ctx)
	if err != nil {
		return nil, err
	}
	objects = slices.DeleteFunc(objects, func(d upkeep.Declared) bool {
		return kind != "" && d.Object.ObjectKind() != kind || name != "" && d.Object.ObjectName() != name
	})
	if name != "" && len(objects) == 0 {
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

// equal compares what would be stored: an empty list and one left out are the same.
func equal(a, b upkeep.Object) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
