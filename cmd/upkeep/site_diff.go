package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/declare"
	"upkeep/internal/task"
)

func newSiteDiff(a *app) *cobra.Command {
	var files []string
	var patience time.Duration
	c := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what documents would change on web servers, before they are applied",
		Long: `Check the sites in YAML documents as apply would, and have their web servers say
what that would change there: names that are gained and lost, files as unified
diffs, and whether the server is reloaded. Nothing is changed. Status 1 when there
are differences.`,
		Example: "  upkeep get site example.test -o yaml > site.yaml\n  vi site.yaml\n  upkeep site diff -f site.yaml || upkeep apply -f site.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			sources, err := a.sources(files)
			if err != nil {
				return err
			}
			up, err := a.client()
			if err != nil {
				return err
			}
			looks, err := a.preview(c.Context(), up, sources, patience)
			if err != nil {
				return err
			}
			return a.looks(looks)
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, filesHelp)
	c.Flags().DurationVar(&patience, "timeout", time.Minute, "how `long` to wait for the servers")
	return c
}

// look is what a site, as it would be, changes on one server.
type look struct {
	Site   string   `json:"site"`
	Server string   `json:"server"`
	Gained []string `json:"gained,omitempty"` // names
	Lost   []string `json:"lost,omitempty"`
	Reload bool     `json:"reload"`
	task.SyncResult
}

func (a *app) preview(ctx context.Context, up *client.Client, sources []wire.Source, patience time.Duration) ([]look, error) {
	started, err := up.PreviewSites(ctx, sources)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(started))
	for i, job := range started {
		ids[i] = job.ID
	}
	jobs, err := a.await(ctx, up, patience, ids...)
	if err == nil {
		err = unlessDone(jobs)
	}
	if err != nil {
		return nil, err
	}
	sites, err := sitesIn(sources)
	if err != nil {
		return nil, err
	}
	present, err := up.Sites(ctx, "")
	if err != nil {
		return nil, err
	}
	looks := make([]look, len(jobs))
	for i, job := range jobs {
		full, err := up.Job(ctx, job.ID) // the stream leaves results out
		if err != nil {
			return nil, err
		}
		l := look{Site: strings.TrimPrefix(job.Object, "preview/"), Server: job.Server}
		if l.SyncResult, err = syncResult(full); err != nil {
			return nil, err
		}
		var had []string
		if at := slices.IndexFunc(present, func(s upkeep.SiteStatus) bool { return s.Name == l.Site }); at >= 0 {
			had = present[at].Names
		}
		l.Gained, l.Lost = without(sites[l.Site].Names(), had), without(had, sites[l.Site].Names())
		l.Reload = len(l.Drift) > 0
		looks[i] = l
	}
	return looks, nil
}

// sitesIn are the sites in documents, by name.
func sitesIn(sources []wire.Source) (map[string]upkeep.Site, error) {
	sites := map[string]upkeep.Site{}
	for _, source := range sources {
		objects, err := declare.Read(source.File, []byte(source.Text))
		if err != nil {
			return nil, err
		}
		for _, object := range objects {
			if site, is := object.(upkeep.Site); is {
				sites[site.Name] = site
			}
		}
	}
	return sites, nil
}

// without are the names of one list that are not in the other.
func without(some, others []string) []string {
	return slices.DeleteFunc(slices.Clone(some), func(name string) bool { return slices.Contains(others, name) })
}

// looks tells what would change. Differences are status 1, as of diff(1).
func (a *app) looks(looks []look) error {
	if len(looks) == 0 {
		fmt.Fprintln(a.err, "there is no site in the documents")
	}
	differs := slices.ContainsFunc(looks, func(l look) bool { return len(l.Drift)+len(l.Failed) > 0 })
	if a.output != "table" {
		if err := a.show(looks); err != nil {
			return err
		}
	} else {
		for _, l := range looks {
			fmt.Fprintf(a.out, "%s on %s: %s\n", upkeep.Printable(l.Site), l.Server, upkeep.Printable(l.summary()))
			if err := a.drift(l.SyncResult); err != nil {
				return err
			}
		}
	}
	if differs {
		return statusError(exitFailed)
	}
	return nil
}

func (l look) summary() string {
	if len(l.Drift)+len(l.Failed) == 0 {
		return "nothing would change"
	}
	text := count(l.Differ, "file") + " would change, with one reload"
	if len(l.Gained) > 0 {
		text += "; names gained: " + strings.Join(l.Gained, ", ")
	}
	if len(l.Lost) > 0 {
		text += "; names lost: " + strings.Join(l.Lost, ", ")
	}
	return text
}
