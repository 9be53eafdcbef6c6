package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/notify"
	"upkeep/internal/store"
)

// told is what a notifier reads, in the form that the store has it.
type told struct{ *store.Store }

func (t told) Events(ctx context.Context, q notify.Query) ([]upkeep.Event, error) {
	return t.Store.Events(ctx, store.EventFilter{After: q.After, Object: q.Object, Kind: q.Kind, Limit: q.Limit, Latest: q.Latest})
}

func newNotify(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "notify",
		Short: "Try out who is told",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(&cobra.Command{
		Use:   "test RECEIVER",
		Short: "Send a receiver a test message now, and say what became of it",
		Args:  exactly("RECEIVER"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			if err := up.TestReceiver(c.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s took the test message\n", upkeep.Printable(args[0]))
			return nil
		},
	})
	return c
}
