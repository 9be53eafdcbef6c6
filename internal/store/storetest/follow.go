package storetest

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upkeep"
	"upkeep/internal/store"
)

var followTests = []test{
	{"followers are told what changed", followersTold},
	{"a follower writes in the transaction of the change", followerWrites},
}

// follower is a function as a [store.Follower].
type follower func(ctx context.Context, tx store.Tx, changes []store.Altered) error

func (f follower) Follow(ctx context.Context, tx store.Tx, changes []store.Altered) error {
	return f(ctx, tx, changes)
}

func followersTold(t *testing.T, open func() *store.Store) {
	s := open()
	var told []store.Altered
	calls := 0
	s.Follow(follower(func(_ context.Context, tx store.Tx, changes []store.Altered) error {
		if tx.Who != "tester" || tx.At.IsZero() {
			t.Errorf("a change of %q at %s", tx.Who, tx.At)
		}
		told, calls = changes, calls+1
		return nil
	}))
	a, b, changed := zone("a.test"), zone("b.test"), zone("a.test")
	changed.TTL = upkeep.Duration(1e9)
	refA := store.RefOf(a)
	for _, step := range []struct {
		change store.Change
		want   []store.Altered
	}{
		{store.Change{Put: []upkeep.Object{b, a}}, []store.Altered{{Ref: store.RefOf(b), New: b, Generation: 1}, {Ref: refA, New: a, Generation: 1}}},
		{store.Change{Put: []upkeep.Object{b}}, nil}, // which is no change
		{store.Change{Put: []upkeep.Object{b, changed}}, []store.Altered{{Ref: refA, Old: a, New: changed, Generation: 2}}},
		{store.Change{Delete: []store.Ref{refA}}, []store.Altered{{Ref: refA, Old: changed, Generation: 2}}},
		{store.Change{Put: []upkeep.Object{a}}, []store.Altered{{Ref: refA, New: a, Generation: 3}}},
	} {
		told = nil
		_, err := s.Apply(ctx, "tester", step.change)
		must(t, err)
		if diff := cmp.Diff(step.want, told); diff != "" {
			t.Error(diff)
		}
	}
	if calls != 4 {
		t.Errorf("told %d times", calls)
	}
}

func followerWrites(t *testing.T, open func() *store.Store) {
	s, refusal := open(), errors.New("not that one")
	var first int
	s.Follow(follower(func(ctx context.Context, tx store.Tx, changes []store.Altered) error {
		first++
		_, err := tx.SQL().ExecContext(ctx, "INSERT INTO cursors (name, event) VALUES ('"+changes[0].Ref.Name+"', 7)")
		return err
	}))
	s.Follow(follower(func(_ context.Context, _ store.Tx, changes []store.Altered) error {
		if changes[0].Ref.Name == "b.test" {
			return refusal
		}
		return nil
	}))
	put(t, s, zone("a.test"))
	if _, err := s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{zone("b.test")}}); !errors.Is(err, refusal) {
		t.Errorf("refused by a follower: %v", err)
	}
	if got := generations(t, s); got != "zone/a.test:1" || first != 2 {
		t.Errorf("left %s after %d calls", got, first)
	}
	for name, want := range map[string]int64{"a.test": 7, "b.test": 0} {
		if got, err := s.Cursor(ctx, name); err != nil || got != want {
			t.Errorf("what followed of %s: %d, %v", name, got, err)
		}
	}
}
