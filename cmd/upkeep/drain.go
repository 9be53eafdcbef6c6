package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

func newPoolDrain(a *app) *cobra.Command {
	var why, limit string
	var wait, all bool
	c := &cobra.Command{
		Use:   "drain POOL MEMBER",
		Short: "Take a member out of DNS gracefully, for maintenance",
		Long: `Take a member out of what the pool publishes; its checks go on. With --wait return
only when it is safe to stop it: no listed name server answers with it any more,
and the TTL of the last answer that held it has run out in every cache.

Quote a glob such as '192.0.2.*' to drain several. To take the last members of a
pool out, or the last that are up, is refused without --all: nothing would be
published then, or members that are down.`,
		Example:           "  upkeep pool drain web 192.0.2.11 --wait && ssh 192.0.2.11 reboot\n  upkeep pool undrain web 192.0.2.11",
		Args:              exactly("POOL", "MEMBER"),
		ValidArgsFunction: a.completePools,
		RunE: func(c *cobra.Command, args []string) error {
			patience := time.Duration(0)
			if limit != "" {
				var err error
				if patience, err = upkeep.ParseDuration(limit); err != nil || patience <= 0 {
					return &usageError{err: fmt.Errorf("--timeout %q must be a duration such as 10m", limit)}
				}
				if !wait {
					return &usageError{err: fmt.Errorf("--timeout has no use without --wait")}
				}
			}
			return a.drain(c.Context(), args[0], args[1], wire.Force{State: upkeep.AdminDrain, Why: why, All: all}, wait, patience)
		},
	}
	c.Flags().StringVar(&why, "why", "", "`reason`, shown wherever the member's state is")
	c.Flags().BoolVar(&all, "all", false, "also take the last members of a pool out: nothing is published then")
	c.Flags().BoolVar(&wait, "wait", false, "return when the member is out of every answer and every cache")
	c.Flags().StringVar(&limit, "timeout", "", "with --wait: give up after this `time`; the member stays drained (default: never)")
	return c
}

func newPoolUndrain(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "undrain POOL MEMBER",
		Short:             "Undo a drain or a forced state: the verdict counts again",
		Example:           "  upkeep pool undrain web 192.0.2.11",
		Args:              exactly("POOL", "MEMBER"),
		ValidArgsFunction: a.completePools,
		RunE: func(c *cobra.Command, args []string) error {
			return a.force(c.Context(), args[0], args[1], wire.Force{State: upkeep.AdminAuto})
		},
	}
}

func newPoolUnfreeze(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "unfreeze",
		Short: "Say that a mass failure is real, so that removals go on",
		Long: `When most targets fail at once, removals are frozen: the monitor itself may be cut
off. This says that the failure is real. It holds until that failure is over; the
next one freezes again.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			return up.Unfreeze(c.Context())
		},
	}
}

func newPoolForce(a *app) *cobra.Command {
	var why string
	var all bool
	c := &cobra.Command{
		Use:   "force POOL MEMBER up|down|drain|auto",
		Short: "Override a member's verdict with a state; auto removes the override",
		Long: `Publish a member whatever its verdict says (up), keep it out (down), take it out in
good order (drain), or let the verdict decide again (auto). Checks go on and the
measured verdict stays visible. The state survives restarts. To take the last
members of a pool out, or the last that are up, is refused without --all: nothing
would be published then, or members that are down.

POOL and MEMBER may be quoted globs; of several that match, the latest wins.`,
		Example: "  upkeep pool force web 192.0.2.11 down --why \"disk is replaced\"\n" +
			"  upkeep pool force web '192.0.2.*' drain --why \"rack 7 moves\"\n" +
			"  upkeep pool force web 192.0.2.11 auto",
		Args:              exactly("POOL", "MEMBER", "STATE"),
		ValidArgsFunction: a.completeForce,
		RunE: func(c *cobra.Command, args []string) error {
			return a.force(c.Context(), args[0], args[1], wire.Force{State: args[2], Why: why, All: all})
		},
	}
	c.Flags().StringVar(&why, "why", "", "`reason`, shown wherever the member's state is")
	c.Flags().BoolVar(&all, "all", false, "also take the last members of a pool out: nothing is published then")
	return c
}

func (a *app) completeForce(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 2 {
		return upkeep.AdminStates, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completePools(c, args, prefix)
}

// forced is what -o shows of a force.
type forced struct {
	Members []string `json:"members"`
	Admin   string   `json:"admin"`
	Drained bool     `json:"drained,omitempty"`
}

func (a *app) force(ctx context.Context, pool, member string, f wire.Force) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	members, err := a.forceMembers(ctx, up, pool, member, f)
	if err != nil {
		return err
	}
	if a.output != "table" {
		return a.show(forced{Members: members, Admin: f.State})
	}
	for _, m := range members {
		fmt.Fprintf(a.out, "%s %s\n", upkeep.Printable(m), f.State)
	}
	return nil
}

func (a *app) forceMembers(ctx context.Context, up *client.Client, pool, member string, f wire.Force) (members []string, err error) {
	switch f.State {
	case upkeep.AdminAuto:
		members, err = up.Release(ctx, pool, member)
	case upkeep.AdminUp, upkeep.AdminDown, upkeep.AdminDrain:
		members, err = up.Force(ctx, pool, member, f)
	default:
		return nil, &usageError{err: fmt.Errorf("state %q must be one of %s", f.State, strings.Join(upkeep.AdminStates, ", "))}
	}
	return members, err
}

func (a *app) drain(ctx context.Context, pool, member string, f wire.Force, wait bool, patience time.Duration) error {
	if !wait {
		return a.force(ctx, pool, member, f)
	}
	up, err := a.client()
	if err != nil {
		return err
	}
	members, err := a.forceMembers(ctx, up, pool, member, f)
	if err != nil {
		return err
	}
	var deadline <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		deadline = timer.C
	}
	for _, m := range members {
		if err := a.waitDrained(ctx, up, m, deadline); err != nil {
			return err
		}
		if a.output == "table" {
			fmt.Fprintf(a.out, "%s drained\n", upkeep.Printable(m))
		}
	}
	if a.output != "table" {
		return a.show(forced{Members: members, Admin: upkeep.AdminDrain, Drained: true})
	}
	return nil
}

// waitDrained asks until the member, as pool/address, is drained, and says on
// standard error what it waits for when that changes.
func (a *app) waitDrained(ctx context.Context, up *client.Client, member string, deadline <-chan time.Time) error {
	pool, address, _ := strings.Cut(member, "/")
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	said := ""
	for {
		drained, err := up.Drained(ctx, pool, address)
		if err != nil {
			return err
		}
		if drained.Done {
			return nil
		}
		if stage, _, _ := strings.Cut(drained.Waiting, ";"); stage != said {
			said = stage
			fmt.Fprintf(a.err, "waiting: %s: %s\n", upkeep.Printable(member), upkeep.Printable(drained.Waiting))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return upkeep.WithHint(&timeoutError{waiting: drained.Waiting}, "the member stays drained; upkeep pool undrain "+pool+" "+address+" puts it back")
		case <-tick.C:
		}
	}
}
