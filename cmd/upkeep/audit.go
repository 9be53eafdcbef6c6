package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
)

func newAudit(a *app) *cobra.Command {
	f := client.AuditFilter{}
	var since string
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, with what there was before and after",
		Long: `List changes that people and their programs made, the newest first: to what is
declared, to users and tokens, to who may connect, to admin states, to jobs. They
are kept for two years. With a number, "upkeep audit show" has what there was
before and after.`,
		Example: "  upkeep audit --object site/www.example.test\n  upkeep audit --who 'user eve' --since 2d\n  upkeep audit show 17",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.Limit < 1 || f.Limit > maxListed {
				return &usageError{err: fmt.Errorf("--limit %d must be 1 to %d", f.Limit, maxListed)}
			}
			if since != "" {
				age, err := upkeep.ParseDuration(since)
				if err != nil {
					return &usageError{err: fmt.Errorf("--since: %w", err), hint: "how long ago, such as --since 90s, 1h or 2d"}
				}
				f.Since = time.Now().Add(-age)
			}
			return a.audit(c.Context(), f)
		},
	}
	c.Flags().StringVar(&f.Object, "object", "", "only changes of this `object` and what lies below it: pool/web, user/ada; or of a kind: site")
	c.Flags().StringVar(&f.Who, "who", "", "only changes that this `one` made: token, 'user ada'")
	c.Flags().IntVarP(&f.Limit, "limit", "n", 50, "how `many` to show at most")
	c.Flags().StringVar(&since, "since", "", "only changes since so `long` ago, such as 1h or 2d")
	c.AddCommand(newAuditShow(a))
	return c
}

// maxListed is the longest list that is asked for.
const maxListed = 100_000

func (a *app) audit(ctx context.Context, f client.AuditFilter) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	entries, err := up.Audit(ctx, f)
	if err != nil {
		return err
	}
	if a.output != "table" {
		return a.show(append([]upkeep.AuditEntry{}, entries...))
	}
	if len(entries) == 0 {
		fmt.Fprintln(a.err, "there are no such changes")
		return nil
	}
	t := newTable("ID", "AT", "WHO", "OBJECT", "WHAT")
	for _, e := range entries {
		what := e.What
		if e.Why != "" {
			what += ": " + e.Why
		}
		t.add(strconv.FormatInt(e.ID, 10), e.At.Local().Format("2006-01-02 15:04:05"), e.Who, e.Object, what)
	}
	return t.write(a.out)
}

func newAuditShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show one change, with what there was before and after",
		Args:  exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || id < 1 {
				return &usageError{err: fmt.Errorf("%q is not the number of a change", args[0]), hint: "upkeep audit lists them"}
			}
			up, err := a.client()
			if err != nil {
				return err
			}
			entry, err := up.AuditEntry(c.Context(), id)
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(entry)
			}
			return a.auditEntry(entry)
		},
	}
}

// auditEntry prints a change for people: each field that differs, before and after.
func (a *app) auditEntry(e upkeep.AuditEntry) error {
	line := fmt.Sprintf("%s  %s  %s: %s", e.At.Local().Format("2006-01-02 15:04:05"), e.Object, e.Who, e.What)
	if e.Why != "" {
		line += ": " + e.Why
	}
	fmt.Fprintln(a.out, upkeep.Printable(line))
	for _, part := range []struct {
		name string
		text json.RawMessage
	}{{"before", e.Before}, {"after", e.After}} {
		if len(part.text) == 0 {
			continue
		}
		var value any
		if err := json.Unmarshal(part.text, &value); err != nil {
			return fmt.Errorf("reading what there was %s: %w", part.name, err)
		}
		text, err := json.MarshalIndent(value, "  ", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s:\n  %s\n", part.name, text)
	}
	return nil
}
