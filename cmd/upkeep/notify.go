package main

import (
	"context"
	"fmt"
	"time"

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

// wake has the notifier look at once whenever something was recorded. What it
// misses, such as the events of another process, it finds at its next poll.
func wake(ctx context.Context, source interface {
	Subscribe() (events <-chan upkeep.Event, cancel func())
}, n *notify.Notifier) error {
	for {
		events, cancel := source.Subscribe()
		follow(ctx, events, n.Wake)
		cancel()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second): // it was cut off, which is rare, or all is stopping
		}
	}
}

// follow calls f after each event until the channel is closed or ctx ends.
func follow(ctx context.Context, events <-chan upkeep.Event, f func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-events:
			if !open {
				return
			}
			f()
		}
	}
}

func newNotify(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "notify",
		Short: "Try out who is told",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(&cobra.Command{
		Use:     "test RECEIVER",
		Short:   "Send a receiver a test message now, and say what became of it",
		Example: "  upkeep notify test oncall",
		Args:    exactly("RECEIVER"),
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
