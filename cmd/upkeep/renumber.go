package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
)

func newZoneRenumber(a *app) *cobra.Command {
	timeout := time.Duration(0)
	c := &cobra.Command{
		Use:   "renumber ZONE",
		Short: "Walk a serial such as 2026112301 to the Unix time, waiting for every secondary",
		Long: `Bring a zone whose serial is ahead of the clock, as one written YYYYMMDDnn is, to
the Unix time. A serial may only go forward, so it goes round in the steps that
RFC 1982 allows; each is taken when every listed server has the one before.

It can be interrupted at any time and started again: nothing is remembered but
what the servers answer.`,
		Example: "  upkeep zone renumber example.test\n  upkeep zone renumber example.test --timeout 10m",
		Args:    exactly("the zone"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.renumber(c.Context(), args[0], timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "give up waiting after this `TIME`; 0 waits as long as it takes")
	return c
}

func (a *app) renumber(ctx context.Context, name string, timeout time.Duration) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	said := ""
	for {
		r, err := up.Renumber(ctx, name)
		switch {
		case timeout > 0 && ctx.Err() == context.DeadlineExceeded:
			return &timeoutError{waiting: said}
		case err != nil:
			return err
		case r.Done && a.output != "table":
			return a.show(r)
		case r.Done:
			fmt.Fprintf(a.out, "%s has serial %d on every server\n", name, r.Serial)
			return nil
		}
		if r.Waiting != said {
			said = r.Waiting
			fmt.Fprintln(a.err, upkeep.Printable(said))
		}
	}
}
