package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

func newSiteHistory(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "history NAME",
		Short: "Show earlier generations of a site, the newest first",
		Long: `Show the generations of a site that are kept, the newest first, with the fields
in which each differs from the one before. With -o yaml or json each has its
whole document.`,
		Args: exactly("NAME"),
		RunE: a.aboutSite(func(ctx context.Context, up *client.Client, name string) error {
			generations, err := up.SiteHistory(ctx, name)
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(append([]wire.Generation{}, generations...))
			}
			t := newTable("GENERATION", "WHEN", "BY", "CHANGED")
			for i, g := range generations {
				var before wire.Generation
				if i+1 < len(generations) {
					before = generations[i+1]
				}
				what, err := changedFields(before, g)
				if err != nil {
					return err
				}
				t.add(strconv.FormatInt(g.Generation, 10), ago(g.At, time.Now()), g.Who, what)
			}
			return t.write(a.out)
		}),
	}
}

// changedFields names the fields in which a generation differs from the one
// before it.
func changedFields(before, g wire.Generation) (string, error) {
	switch {
	case g.Deleted:
		return "removed", nil
	case len(before.Object) == 0 && g.Generation == 1:
		return "added", nil
	case before.Deleted:
		return "added again", nil
	case len(before.Object) == 0:
		return "the one before is not kept", nil
	}
	var was, is map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(before.Object, &was), json.Unmarshal(g.Object, &is)); err != nil {
		return "", fmt.Errorf("reading generation %d: %w", g.Generation, err)
	}
	fields := map[string]bool{}
	for _, one := range []map[string]json.RawMessage{was, is} {
		for field := range one {
			if string(was[field]) != string(is[field]) {
				fields[field] = true
			}
		}
	}
	names := slices.Sorted(maps.Keys(fields))
	for i, name := range names {
		if value, is := onOff(was[name], is[name]); is {
			names[i] = name + ": " + value
		}
	}
	return strings.Join(names, ", "), nil
}

// onOff is what a field became that is true, false or left out: without it, turning
// it on and off would read the same.
func onOff(was, is json.RawMessage) (string, bool) {
	switch {
	case string(is) == "true":
		return "yes", true
	case string(is) == "false", len(is) == 0 && string(was) == "true":
		return "no", true
	case len(is) == 0 && string(was) == "false":
		return "left out", true
	}
	return "", false
}

// restored is the generation that an undo went back to: the one that was asked for,
// or the newest that differs from the present one; 0 when that is not kept.
func restored(generations []wire.Generation, asked int64) int64 {
	if asked != 0 || len(generations) == 0 {
		return asked
	}
	for _, g := range generations[1:] {
		if !g.Deleted && string(g.Object) != string(generations[0].Object) {
			return g.Generation
		}
	}
	return 0
}

func newSiteUndo(a *app) *cobra.Command {
	var generation int64
	var wait bool
	var patience time.Duration
	c := &cobra.Command{
		Use:   "undo NAME",
		Short: "Declare a site as it was at an earlier generation",
		Long: `Declare a site as it was at an earlier generation, as a new one. A site that was
removed is declared again by it, with a new folder: the one that it had stays in
the trash of its account, for root to move back.`,
		Args: exactly("NAME"),
		RunE: a.aboutSite(func(ctx context.Context, up *client.Client, name string) error {
			if generation < 0 {
				return &usageError{err: fmt.Errorf("--to %d must be a generation, see upkeep site history", generation)}
			}
			generations, err := up.SiteHistory(ctx, name)
			if err != nil {
				return err
			}
			read := int64(0)
			if len(generations) > 0 {
				read = generations[0].Generation
			}
			was, had, err := removedSite(ctx, up, name, generations) // before there are new jobs about it
			if err != nil {
				return err
			}
			status, err := up.UndoSite(ctx, name, generation, read)
			if err != nil {
				return err
			}
			if restored := restored(generations, generation); restored != 0 {
				fmt.Fprintf(a.err, "note: %s is again as it was at generation %d\n", name, restored)
			}
			was.Account = status.Account
			a.tellOldPages(was, had)
			if wait {
				return a.awaitSite(ctx, up, name, patience)
			}
			return a.siteDetails(status)
		}),
	}
	c.Flags().Int64Var(&generation, "to", 0, "`generation` to go back to (default the newest that differs from the present one)")
	waitFlags(c, &wait, &patience)
	return c
}
