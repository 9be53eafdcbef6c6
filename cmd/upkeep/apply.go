package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

func newApply(a *app) *cobra.Command {
	var files []string
	var dry, wait bool
	var patience time.Duration
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Declare the objects in YAML documents, all of them or none",
		Long: `Declare things as YAML documents with kind and name: ` + strings.Join(upkeep.Kinds, ", ") + `.
All documents of all files are applied, or none when any of them breaks a rule.
Applying the same again changes nothing. What is not in the files stays as it is.
With --wait it returns when the web servers are done with the sites in the files,
and says what became of each.

Relative paths inside a file (key files, include folders) count from the folder
of the file.`,
		Example: "  upkeep apply -f web.yaml\n  upkeep get pool web -o yaml | sed s/1m/30s/ | upkeep apply -f -",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if dry && wait {
				return &usageError{err: errors.New("--dry-run changes nothing that could be waited for: leave out --wait")}
			}
			result, err := a.apply(c.Context(), files, dry)
			if err == nil && wait {
				err = a.awaitApplied(c.Context(), result, patience)
			}
			return err
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, filesHelp)
	c.Flags().BoolVar(&dry, "dry-run", false, "check everything, change nothing")
	c.Flags().BoolVar(&wait, "wait", false, "return when each site in the files is served or has failed; status 1 when one failed")
	c.Flags().DurationVar(&patience, "timeout", 5*time.Minute, "how `long` to wait")
	return c
}

func (a *app) apply(ctx context.Context, files []string, dry bool) (wire.ApplyResult, error) {
	sources, err := a.sources(files)
	if err != nil {
		return wire.ApplyResult{}, err
	}
	up, err := a.client()
	if err != nil {
		return wire.ApplyResult{}, err
	}
	result, err := up.Apply(ctx, sources, dry)
	if err != nil {
		return result, err
	}
	if a.output != "table" {
		return result, a.show(result)
	}
	a.warn(result)
	a.changes(result)
	return result, nil
}

// awaitApplied waits for what servers have to do for the sites that were declared, and
// for those of accounts that changed, and says on the error output what became of the
// former: the other one may be read by a program.
func (a *app) awaitApplied(ctx context.Context, result wire.ApplyResult, patience time.Duration) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	sites, accounts := map[string]bool{}, map[string]bool{}
	for _, change := range result.Changes {
		switch {
		case change.Kind == upkeep.KindSite:
			sites[change.Name] = true
		case change.Kind == upkeep.KindAccount && change.Action == wire.Changed:
			accounts[change.Name] = true
		}
	}
	open, err := up.Jobs(ctx, wire.JobFilter{States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}})
	if err != nil {
		return err
	}
	var ids []int64
	for _, job := range open {
		site, of := strings.CutPrefix(job.Object, upkeep.KindSite+"/")
		if job.Kind != upkeep.JobNotification && (of && sites[site] || accounts[job.Account]) {
			ids = append(ids, job.ID)
		}
	}
	if len(ids) > 0 {
		ended, err := a.await(ctx, up, patience, ids...)
		if err != nil {
			return err
		}
		if err := unlessDone(ended); err != nil && len(sites) == 0 {
			return err
		}
	}
	return a.became(ctx, up, slices.Sorted(maps.Keys(sites)))
}

// became says what became of sites.
func (a *app) became(ctx context.Context, up *client.Client, sites []string) error {
	failed := 0
	for _, name := range sites {
		site, err := up.Site(ctx, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.err, "%s is %s: %s\n", upkeep.Printable(name), site.State, upkeep.Printable(site.Reason))
		if site.State == upkeep.SiteFailed {
			failed++
		}
	}
	if failed > 0 {
		return upkeep.WithHint(fmt.Errorf("%d of %s failed", failed, count(len(sites), "site")), "upkeep site show NAME says more, and upkeep job list --state failed which jobs to retry")
	}
	return nil
}

// changes prints a line for each object, warnings apart.
// changed shows what was changed, in the form that was asked for, after a.declare or
// a.declareIf, which have warned.
func (a *app) changed(result wire.ApplyResult) error {
	if a.output != "table" {
		return a.show(result)
	}
	a.changes(result)
	return nil
}

func (a *app) warn(result wire.ApplyResult) {
	for _, warning := range result.Warnings {
		fmt.Fprintln(a.err, "warning:", upkeep.Printable(warning))
	}
}

func (a *app) changes(result wire.ApplyResult) {
	suffix := ""
	if result.DryRun {
		suffix = " (dry run: nothing was changed)"
	}
	for _, change := range result.Changes {
		fmt.Fprintf(a.out, "%s/%s %s%s\n", upkeep.Printable(change.Kind), upkeep.Printable(change.Name), upkeep.Printable(change.Action), suffix)
	}
}
