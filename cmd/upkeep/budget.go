package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
)

func newBudget(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "budget POOL",
		Short: "Show the longest that a failover of a pool can take, part by part",
		Long: `Show how long a dead member can go on being answered at worst: from its last good
probe to the last cache without it, part by part, beside what was measured, and
what to change in your name server's configuration to shorten it.`,
		Args:              exactly("POOL"),
		ValidArgsFunction: a.completePools,
		RunE:              func(c *cobra.Command, args []string) error { return a.budget(c.Context(), args[0]) },
	}
}

func (a *app) budget(ctx context.Context, pool string) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	budget, err := up.Budget(ctx, pool)
	if err != nil {
		return err
	}
	if a.output != "table" {
		return a.show(budget)
	}
	t := newTable("PART", "WORST", "MEASURED", "WHY")
	for _, part := range budget.Parts {
		t.add(part.Name, part.Worst.String(), measured(part.Measured), part.Why)
	}
	t.add("total", budget.Worst.String(), "", "from the last good probe to the last cache without the member")
	if err := t.write(a.out); err != nil {
		return err
	}
	for i, advice := range budget.Advice {
		if i == 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintln(a.out, "hint:", upkeep.Printable(advice))
	}
	return nil
}

func measured(d upkeep.Duration) string {
	if d == 0 {
		return ""
	}
	return short(time.Duration(d))
}
