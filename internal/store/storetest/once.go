package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"upkeep"
	"upkeep/internal/store"
)

var onceTests = []test{
	{"what was carried out is known, also after a kill before the answer", onceKnown},
	{"of one caller so many are kept, with so many bytes", onceBounded},
}

func onceKnown(t *testing.T, open func() *store.Store) {
	s := open()
	o := store.Once{Caller: "user ada", Key: "key", Request: "what"}
	if _, err := s.RequestFor(ctx, o.Caller, o.Key); !errors.Is(err, upkeep.ErrNotFound) {
		t.Fatalf("before anything: %v", err)
	}
	named := store.WithOnce(ctx, o)
	if _, err := s.Apply(named, "user ada", store.Change{Delete: []store.Ref{{Kind: "pool", Name: "none"}}}); err == nil {
		t.Fatal("what is not there was deleted")
	}
	if _, err := s.RequestFor(ctx, o.Caller, o.Key); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("after what failed: %v", err)
	}
	_, err := s.Apply(named, "user ada", store.Change{Put: []upkeep.Object{upkeep.Account{Name: "acme"}}})
	must(t, err)
	// As after a kill: another process opens what this one left.
	for _, again := range []*store.Store{s, open()} {
		if r, err := again.RequestFor(ctx, o.Caller, o.Key); err != nil || r.Request != "what" || r.Answer != nil {
			t.Errorf("after the change, before the answer: %+v, %v", r, err)
		}
	}
	must(t, s.KeepAnswer(ctx, o, []byte{0, 1, 2}))
	if r, err := open().RequestFor(ctx, o.Caller, o.Key); err != nil || !bytes.Equal(r.Answer, []byte{0, 1, 2}) {
		t.Errorf("after the answer: %+v, %v", r, err)
	}
	if _, err := s.RequestFor(ctx, "user bob", o.Key); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("the key of somebody else: %v", err)
	}
	// The key once more, as of a request that comes after the first was forgotten: what
	// is known is of that one, and the old answer is not given to it.
	o.Request = "another"
	_, err = s.Apply(store.WithOnce(ctx, o), "user ada", store.Change{Put: []upkeep.Object{upkeep.Account{Name: "other"}}})
	must(t, err)
	if r, err := open().RequestFor(ctx, o.Caller, o.Key); err != nil || r.Request != "another" || r.Answer != nil {
		t.Errorf("after the key was used again: %+v, %v", r, err)
	}
}

func onceBounded(t *testing.T, open func() *store.Store) {
	s := open()
	keep := func(caller string, i, size int) {
		t.Helper()
		must(t, s.KeepAnswer(ctx, store.Once{Caller: caller, Key: fmt.Sprint(i)}, make([]byte, size)))
	}
	known := func(caller string, i int) bool {
		_, err := s.RequestFor(ctx, caller, fmt.Sprint(i))
		return err == nil
	}
	keep("bob", 0, 1)
	for i := range 10 {
		keep("ada", i, store.MaxAnswerBytes/4)
	}
	if !known("ada", 9) || !known("ada", 7) || known("ada", 0) || known("ada", 5) || !known("bob", 0) {
		t.Error("of too many bytes the oldest of the same caller go")
	}
}
