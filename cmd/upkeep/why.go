package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
)

func newPoolWhy(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "why [POOL [MEMBER]]",
		Short: "Say why each member is in the answers of DNS or not, and what would change it",
		Long: `Say for a pool and each of its members why things are as they are, when they last
changed, and what would change them next. Without a name it does so for all.`,
		Example:           "  upkeep pool why web\n  upkeep pool why web 192.0.2.11",
		Args:              atMost(2),
		ValidArgsFunction: a.completePools,
		RunE: func(c *cobra.Command, args []string) error {
			return a.why(c.Context(), args)
		},
	}
}

func (a *app) why(ctx context.Context, args []string) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return a.whyAll(ctx, up)
	}
	pool, err := up.Pool(ctx, args[0])
	if err != nil {
		return err
	}
	if len(args) == 2 {
		var chosen []upkeep.MemberStatus
		for _, m := range pool.Members {
			if m.Address.String() == args[1] {
				chosen = append(chosen, m)
			}
		}
		if len(chosen) == 0 {
			return upkeep.WithHint(fmt.Errorf("pool %s has no member %s: %w", pool.Name, args[1], upkeep.ErrNotFound), "upkeep pool status "+pool.Name+" lists the members")
		}
		pool.Members = chosen
	}
	if a.output != "table" {
		return a.show(pool)
	}
	a.whyPool(pool, len(args) == 1, time.Now())
	return nil
}

func (a *app) whyAll(ctx context.Context, up *client.Client) error {
	pools, err := up.Pools(ctx)
	if err != nil {
		return err
	}
	if a.output != "table" {
		return a.show(pools)
	}
	if len(pools) == 0 {
		fmt.Fprintln(a.err, "no pool is declared; upkeep apply -f FILE declares one")
	}
	for i, pool := range pools {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		a.whyPool(pool, true, time.Now())
	}
	return nil
}

// whyPool explains the members of a pool, and the pool itself where it is whole.
func (a *app) whyPool(pool upkeep.PoolStatus, whole bool, now time.Time) {
	if whole {
		a.poolHead(pool, now)
		for _, zone := range pool.Zones {
			for _, server := range zone.Servers {
				if !server.InSync {
					fmt.Fprintf(a.out, "%-10s %s does not answer this for %s yet%s\n", "but", upkeep.Printable(server.Address), upkeep.Printable(zone.Name), because(server.Error))
				}
			}
		}
	}
	for i, m := range pool.Members {
		if i > 0 || whole {
			fmt.Fprintln(a.out)
		}
		a.whyMember(m, now)
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + upkeep.Printable(reason)
}

func (a *app) whyMember(m upkeep.MemberStatus, now time.Time) {
	state := "not published"
	if m.Published {
		state = "published"
	}
	if m.Backup {
		state += ", backup"
	}
	if m.Admin != upkeep.AdminAuto && m.Admin != "" {
		state += ", forced " + m.Admin + " (measured " + m.Verdict.String() + ")"
	} else {
		state += ", " + m.Verdict.String()
	}
	fmt.Fprintf(a.out, "%s  %s\n", m.Address, upkeep.Printable(state))
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(a.out, "  %-8s %s\n", name, upkeep.Printable(text))
		}
	}
	line("because", m.Reason)
	line("forced", byWhom(m))
	if !m.ChangedAt.IsZero() {
		line("since", bothWays(m.ChangedAt, now))
	}
	line("next", m.Next)
	line("checked", checked(m, now))
	line("warning", m.Warning)
}

// checked sums up what the probes saw.
func checked(m upkeep.MemberStatus, now time.Time) string {
	if m.LastProbe.IsZero() {
		return ""
	}
	text := "last " + ago(m.LastProbe, now)
	if m.Target != "" && m.Target != m.Address.String() {
		text += " at " + m.Target
	}
	switch {
	case m.LastOK.IsZero():
		text += ", never answered well"
	case !m.LastOK.Equal(m.LastProbe):
		text += ", last well " + ago(m.LastOK, now)
	}
	if m.RTT > 0 {
		text += ", round trip " + short(time.Duration(m.RTT))
	}
	if m.Loss >= 0.0005 {
		text += fmt.Sprintf(", %.1f%% lost", 100*m.Loss)
	}
	return text
}
