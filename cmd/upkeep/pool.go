package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
)

func newPool(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "pool",
		Short: "See what DNS answers with and why, and take members out of it",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(newPoolList(a), newPoolStatus(a), newPoolWhy(a), newPoolLatency(a), newPoolDrain(a), newPoolUndrain(a), newPoolForce(a), newPoolUnfreeze(a), newBudget(a))
	return c
}

func newPoolList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the pools with what they publish",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return a.poolList(c.Context()) },
	}
}

func (a *app) poolList(ctx context.Context) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	pools, err := up.Pools(ctx)
	if err != nil {
		return err
	}
	if a.output != "table" {
		return a.show(pools)
	}
	if len(pools) == 0 {
		fmt.Fprintln(a.err, "no pool is declared; upkeep apply -f FILE declares one")
		return nil
	}
	t := newTable("POOL", "PUBLISHED", "DOWN", "DNS", "CHANGED", "REASON")
	for _, pool := range pools {
		down := 0
		for _, m := range pool.Members {
			if m.Verdict == upkeep.Down {
				down++
			}
		}
		t.add(pool.Name, fmt.Sprintf("%d/%d", len(pool.Published), len(pool.Members)), fmt.Sprint(down),
			inSync(pool), ago(pool.ChangedAt, time.Now()), reason(pool))
	}
	return t.write(a.out)
}

func reason(pool upkeep.PoolStatus) string {
	if pool.Frozen != "" {
		return "frozen: " + pool.Frozen
	}
	return pool.Reason
}

// inSync says in a word what the pool's name servers answer.
func inSync(pool upkeep.PoolStatus) string {
	synced, servers := 0, 0
	for _, zone := range pool.Zones {
		for _, server := range zone.Servers {
			servers++
			if server.InSync {
				synced++
			}
		}
	}
	switch {
	case servers == 0:
		return ""
	case synced == servers:
		return "in sync"
	}
	return fmt.Sprintf("%d/%d in sync", synced, servers)
}

func newPoolStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "status [POOL]",
		Short:             "Show a pool's members, what DNS is made to answer, and what it answers",
		Args:              atMost(1),
		ValidArgsFunction: a.completePools,
		RunE: func(c *cobra.Command, args []string) error {
			return a.poolStatus(c.Context(), args)
		},
	}
}

func (a *app) poolStatus(ctx context.Context, args []string) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	if len(args) == 1 {
		pool, err := up.Pool(ctx, args[0])
		if err != nil {
			return err
		}
		if a.output != "table" {
			return a.show(pool)
		}
		return a.poolTable(pool, time.Now())
	}
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
		if err := a.poolTable(pool, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) poolTable(pool upkeep.PoolStatus, now time.Time) error {
	a.poolHead(pool, now)
	t := newTable("MEMBER", "VERDICT", "ADMIN", "PUBLISHED", "RTT", "SINCE", "REASON")
	for _, m := range pool.Members {
		address := m.Address.String()
		if m.Backup {
			address += " (backup)"
		}
		rtt := ""
		if m.RTT > 0 {
			rtt = short(time.Duration(m.RTT))
		}
		since := ""
		if !m.ChangedAt.IsZero() {
			since = short(now.Sub(m.ChangedAt))
		}
		why := m.Reason
		if by := byWhom(m); by != "" {
			why += " (" + by + ")"
		}
		if m.Warning != "" {
			why += "; warning: " + m.Warning
		}
		t.add(address, m.Verdict.String(), m.Admin, yesNo(m.Published), rtt, since, why)
	}
	fmt.Fprintln(a.out)
	if err := t.write(a.out); err != nil {
		return err
	}
	if len(pool.Zones) == 0 {
		return nil
	}
	fmt.Fprintln(a.out)
	return zoneTable(pool.Zones, now).write(a.out)
}

// byWhom says who forced a member and why, "" when nobody did.
func byWhom(m upkeep.MemberStatus) string {
	switch {
	case m.AdminWho == "":
		return ""
	case m.AdminWhy == "":
		return "by " + m.AdminWho
	}
	return "by " + m.AdminWho + ": " + m.AdminWhy
}

// poolHead prints what holds for the pool as a whole.
func (a *app) poolHead(pool upkeep.PoolStatus, now time.Time) {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(a.out, "%-10s %s\n", name, upkeep.Printable(text))
		}
	}
	line("pool", pool.Name)
	line("published", published(pool.Published)+", TTL "+pool.TTL.String())
	if !strings.Contains(pool.Reason, pool.Frozen) { // else the reason says it
		line("frozen", pool.Frozen)
	}
	line("reason", pool.Reason)
	if !pool.ChangedAt.IsZero() {
		line("changed", bothWays(pool.ChangedAt, now))
	}
	line("next", pool.Next)
	if pool.Failover > 0 {
		line("failover", short(time.Duration(pool.Failover))+" from the last good probe to the last name server without the member, last time")
	}
	for _, warning := range pool.Warnings {
		line("warning", warning)
	}
}

// bothWays gives a time both ways: how long ago, and when.
func bothWays(t, now time.Time) string {
	return ago(t, now) + " (" + t.Local().Format("2006-01-02 15:04:05") + ")"
}

func published(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "nothing"
	}
	const most = 8
	var texts []string
	for i, addr := range addrs {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(addrs)-most))
			break
		}
		texts = append(texts, addr.String())
	}
	return strings.Join(texts, " ")
}

// completePools completes a pool's name and, after it, a member's address.
func (a *app) completePools(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const only = cobra.ShellCompDirectiveNoFileComp
	up, err := a.client()
	if err != nil {
		return nil, only
	}
	var names []string
	switch len(args) {
	case 0:
		pools, err := up.Pools(c.Context())
		if err != nil {
			return nil, only
		}
		for _, pool := range pools {
			names = append(names, pool.Name)
		}
	case 1:
		pool, err := up.Pool(c.Context(), args[0])
		if err != nil {
			return nil, only
		}
		for _, m := range pool.Members {
			names = append(names, m.Address.String())
		}
	}
	return names, only
}
