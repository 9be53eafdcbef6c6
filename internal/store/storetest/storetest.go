// Package storetest is the suite that every database under package store must
// pass.
package storetest

import (
	"context"
	"testing"

	"upkeep/internal/store"
)

// Run runs the suite. The function opens the same database each time that it is
// called within one test, a fresh one in each test.
func Run(t *testing.T, open func(t *testing.T) func() *store.Store) {
	for _, group := range []struct {
		name string
		test func(*testing.T, func() *store.Store)
	}{
		{"Objects", objects},
	} {
		t.Run(group.name, func(t *testing.T) { group.test(t, open(t)) })
	}
}

func objects(t *testing.T, open func() *store.Store) {
	s := open()
	if _, err := s.Objects(context.Background()); err != nil {
		t.Fatal(err)
	}
}
