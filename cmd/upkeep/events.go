package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
)

func newEvents(a *app) *cobra.Command {
	var filter client.EventFilter
	var follow bool
	var since string
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: who or what changed what, and why",
		Long: `Show events, the oldest first. With -o json each event is one line of JSON.
--follow goes on with events as they happen until it is interrupted.`,
		Example: "  upkeep events --object pool/web --since 1h\n  upkeep events --follow",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if filter.Limit < 0 || filter.Limit > 1000 || filter.Limit == 0 && !follow {
				return &usageError{err: fmt.Errorf("--limit %d must be 1 to 1000, or 0 with --follow", filter.Limit)}
			}
			if filter.Kind != "" && !slices.Contains(upkeep.EventKinds, filter.Kind) {
				return &usageError{err: fmt.Errorf("--kind %q must be one of %s", filter.Kind, strings.Join(upkeep.EventKinds, ", "))}
			}
			if since != "" {
				age, err := upkeep.ParseDuration(since)
				if err != nil {
					return &usageError{err: fmt.Errorf("--since: %w", err), hint: "how long ago, such as --since 90s, 1h or 2d"}
				}
				filter.Since = time.Now().Add(-age)
			}
			return a.events(c.Context(), filter, follow)
		},
	}
	c.Flags().StringVar(&filter.Object, "object", "", "only events of this `object` and what lies below it: pool/web, zone/example.test")
	c.Flags().StringVar(&filter.Kind, "kind", "", "only this `kind`: "+strings.Join(upkeep.EventKinds, ", "))
	c.Flags().IntVarP(&filter.Limit, "limit", "n", 50, "how `many` to show at most, the newest")
	c.Flags().StringVar(&since, "since", "", "only what happened since so `long` ago, such as 1h or 2d")
	c.Flags().BoolVar(&follow, "follow", false, "go on with events as they happen")
	return c
}

func (a *app) events(ctx context.Context, filter client.EventFilter, follow bool) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	from := int64(0)
	if follow { // from the newest of all on, so that nothing falls between the list and the stream
		newest, err := up.Events(ctx, client.EventFilter{Limit: 1})
		if err != nil {
			return err
		}
		for _, e := range newest {
			from = e.ID
		}
	}
	if filter.Limit > 0 {
		past, err := up.Events(ctx, filter)
		if err != nil {
			return err
		}
		for _, e := range past {
			if err := a.event(e); err != nil {
				return err
			}
			from = max(from, e.ID)
		}
	}
	if !follow {
		return nil
	}
	filter.After = from
	err = up.Follow(ctx, filter, a.event)
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C is how following ends
	}
	return err
}

func (a *app) event(e upkeep.Event) error {
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(e)
	}
	if a.output == "yaml" {
		if _, err := fmt.Fprintln(a.out, "---"); err != nil {
			return err
		}
		return a.show(e)
	}
	line := fmt.Sprintf("%s  %-8s  %s  %s", e.At.Local().Format("2006-01-02 15:04:05.000"), e.Kind, e.Object, e.What)
	if e.Why != "" {
		line += ": " + e.Why
	}
	if e.Who != "" && e.Who != "upkeep" {
		line += " (by " + e.Who + ")"
	}
	_, err := fmt.Fprintln(a.out, upkeep.Printable(line))
	return err
}
