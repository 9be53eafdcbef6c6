package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/task"
)

func newRegenerate(a *app) *cobra.Command {
	return newSync(a, "regenerate", "Generate all files of web servers anew",
		`Have every file that upkeep generates on web servers made anew from the database:
what is the same is left alone, what was changed by hand is put right, strays are
removed, and folders of pages that are gone are made anew. Of one server, or of
all. The status is 1 when a site failed; which one and why is listed.`)
}

func newVerify(a *app) *cobra.Command {
	return newSync(a, "verify", "Prove that web servers' files equal the database",
		`Compare every file that upkeep generates with what is declared, and change
nothing. Differences are shown as diffs, with status 1. --overwrite puts them right
at once, as upkeep regenerate does. --adopt declares what was edited in the Apache
files of sites, where the edited file is just what upkeep makes of it: aliases,
index names, error pages, redirects, denied and allowed addresses, methods and
headers. What stands for no field is refused and left. Of one server, or of all.`)
}

func newSync(a *app, action, short, long string) *cobra.Command {
	var patience time.Duration
	var overwrite, adopt bool
	c := &cobra.Command{
		Use:   action + " [SERVER]",
		Short: short,
		Long:  long,
		Args:  atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if adopt && overwrite {
				return &usageError{err: errors.New("--adopt keeps what was edited and --overwrite puts it back: give one of them")}
			}
			if adopt && a.output != "table" {
				return &usageError{err: errors.New("--adopt reports each step as it goes, and has no other output")}
			}
			if adopt {
				return a.adopt(c.Context(), args, patience)
			}
			err := a.sync(c.Context(), action, args, patience)
			if overwrite && err == statusError(exitFailed) {
				return a.sync(c.Context(), "regenerate", args, patience)
			}
			return err
		},
	}
	if action == "verify" {
		c.Flags().BoolVar(&overwrite, "overwrite", false, "then have what differs made anew")
		c.Flags().BoolVar(&adopt, "adopt", false, "then declare what was edited, where that stands for fields of a site")
	}
	c.Flags().DurationVar(&patience, "timeout", 5*time.Minute, "how `long` to wait")
	return c
}

func (a *app) sync(ctx context.Context, action string, names []string, patience time.Duration) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	if names, err = a.webServers(ctx, up, names); err != nil || len(names) == 0 {
		return err
	}
	jobs, err := a.syncAll(ctx, up, action, names, patience)
	if err != nil {
		return err
	}
	return a.synced(ctx, up, action, jobs)
}

// webServers are those that are named, or all.
func (a *app) webServers(ctx context.Context, up *client.Client, names []string) ([]string, error) {
	if len(names) > 0 {
		return names, nil
	}
	servers, err := up.Servers(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range servers {
		if slices.Contains(s.Roles, upkeep.RoleWeb) {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 {
		fmt.Fprintln(a.err, "no server with role web is declared; upkeep server add NAME --role web declares one")
	}
	return names, nil
}

// overtaken is how often a server is asked once more because a site was changed
// there after its job was made.
const overtaken = 5

// syncAll has servers do one job each and waits for them.
func (a *app) syncAll(ctx context.Context, up *client.Client, action string, names []string, patience time.Duration) (done []upkeep.Job, err error) {
	for range overtaken {
		var ids []int64
		for _, name := range names {
			job, err := up.SyncServer(ctx, name, action)
			if err != nil {
				return nil, err
			}
			ids = append(ids, job.ID)
		}
		jobs, err := a.await(ctx, up, patience, ids...)
		if err != nil {
			return nil, err
		}
		if err := unlessDone(jobs); err != nil {
			return nil, err
		}
		names = nil
		for _, job := range jobs {
			if job.State == upkeep.JobSuperseded {
				names = append(names, job.Server)
			} else {
				done = append(done, job)
			}
		}
		if len(names) == 0 {
			return done, nil
		}
	}
	return nil, upkeep.WithHint(fmt.Errorf("%s of %s: sites change there faster than they can be compared: %w", action, strings.Join(names, ", "), upkeep.ErrConflict),
		"try again when less is being changed")
}

// synced tells what became of sync jobs. Differences are a failure of verify.
func (a *app) synced(ctx context.Context, up *client.Client, action string, jobs []upkeep.Job) error {
	results, differs, fails := map[string]task.SyncResult{}, false, false
	for _, job := range jobs {
		full, err := up.Job(ctx, job.ID) // the stream leaves results out
		if err != nil {
			return err
		}
		result, err := syncResult(full)
		if err != nil {
			return err
		}
		results[job.Server] = result
		fails = fails || len(result.Failed) > 0
		differs = differs || fails || len(result.Drift)+len(result.Strays) > 0
	}
	if a.output != "table" {
		if err := a.show(results); err != nil {
			return err
		}
	} else {
		for _, server := range slices.Sorted(maps.Keys(results)) {
			result := results[server]
			fmt.Fprintf(a.out, "%s: %s\n", server, syncSummary(action, result))
			if err := a.drift(result); err != nil {
				return err
			}
		}
	}
	if fails || action == "verify" && differs {
		return statusError(exitFailed)
	}
	return nil
}

// syncSummary is a line about one server.
func syncSummary(action string, r task.SyncResult) string {
	text := count(r.Served, "site")
	if len(r.Changing) > 0 {
		text += fmt.Sprintf(" and %d more that are being changed", len(r.Changing))
	}
	if len(r.Drift)+len(r.Strays)+len(r.Failed) == 0 {
		return text + ", every file is as declared"
	}
	differ, strays := "not as declared", "of no site"
	if action == "regenerate" {
		differ, strays = "put right", "of no site removed"
	}
	return fmt.Sprintf("%s; %s %s, %d %s, %s", text, count(r.Differ, "file"), differ, len(r.Strays), strays, count(len(r.Failed), "failure"))
}

func syncResult(job upkeep.Job) (task.SyncResult, error) {
	var result task.SyncResult
	if len(job.Result) == 0 {
		return result, nil
	}
	if err := json.Unmarshal(job.Result, &result); err != nil {
		return result, fmt.Errorf("reading the result of job %d: %w", job.ID, err)
	}
	return result, nil
}

// drift prints how files differ.
func (a *app) drift(result task.SyncResult) error {
	for _, path := range slices.Sorted(maps.Keys(result.Drift)) {
		for line := range strings.SplitSeq(strings.TrimRight(result.Drift[path], "\n"), "\n") {
			if strings.HasPrefix(line, "diff ") {
				continue // says no more than the two lines after it
			}
			if _, err := fmt.Fprintln(a.out, strings.ReplaceAll(upkeep.Printable(line), `\x09`, "\t")); err != nil {
				return err
			}
		}
	}
	for _, stray := range result.Strays {
		if _, err := fmt.Fprintln(a.out, "stray:", upkeep.Printable(stray)); err != nil {
			return err
		}
	}
	if len(result.Removed) > 0 {
		if _, err := fmt.Fprintf(a.out, "removed: %s; folders of sites go to the trash when removals that failed are retried: upkeep job list --state failed\n", upkeep.Printable(strings.Join(result.Removed, ", "))); err != nil {
			return err
		}
	}
	if len(result.Left) > 0 {
		if _, err := fmt.Fprintf(a.out, "still served, and not declared here: %s; what is declared elsewhere goes when it answers there\n", upkeep.Printable(strings.Join(result.Left, ", "))); err != nil {
			return err
		}
	}
	for _, failed := range result.Failed {
		if _, err := fmt.Fprintln(a.out, "failed:", upkeep.Printable(failed.Error())); err != nil {
			return err
		}
	}
	return nil
}
