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

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/declare"
	"upkeep/internal/task"
)

func newSite(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "site",
		Short: "Virtual hosts: add, look, suspend, go back",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(newSiteAdd(a), newSiteList(a), newSiteShow(a), newSiteDiff(a), newSiteHistory(a), newSiteUndo(a), newSiteRemove(a),
		newSiteSuspend(a, true, "suspend", "Have a site answer 503 and keep everything"),
		newSiteSuspend(a, false, "resume", "Have a suspended site serve again"))
	return c
}

func newSiteAdd(a *app) *cobra.Command {
	var site upkeep.Site
	var noWWW, php, wait bool
	var patience time.Duration
	c := &cobra.Command{
		Use:   "add NAME --account ACCOUNT --server SERVER",
		Short: "Declare a site, and its account where there is none yet",
		Long: `Declare a site. What flags do not offer (error pages, deny lists, redirects,
passwords, headers) is declared with upkeep apply; upkeep get site NAME -o yaml
shows the document to start from.`,
		Example: "  upkeep site add example.test --account acme --server web1 --wait",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			site.Name = args[0]
			if noWWW {
				off := false
				site.WWW = &off
			}
			if php {
				site.PHP = &upkeep.PHP{}
			}
			return a.addSite(c.Context(), site, wait, patience)
		},
	}
	flags := c.Flags()
	flags.StringVar(&site.Account, "account", "", "`account` that owns it")
	flags.StringSliceVar(&site.Servers, "server", nil, "web `servers` that answer for it")
	flags.StringVar(&site.Files, "files", "", "`server` that holds its files, when not the web servers themselves")
	flags.StringSliceVar(&site.Aliases, "alias", nil, "further `names`")
	flags.BoolVar(&noWWW, "no-www", false, "do not answer as www.NAME too")
	flags.BoolVar(&site.Wildcard, "wildcard", false, "answer for every *.NAME that nobody else has")
	flags.BoolVar(&site.CGI, "cgi", false, "run programs in cgi-bin")
	flags.BoolVar(&php, "php", false, "run PHP as the account's own user")
	flags.StringVar(&site.SubOf, "subof", "", "other `site` of the account whose folder it lives in")
	flags.StringVar(&site.Root, "root", "", "`folder` of the pages below htdocs")
	waitFlags(c, &wait, &patience)
	return c
}

func (a *app) addSite(ctx context.Context, site upkeep.Site, wait bool, patience time.Duration) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	if _, err := up.Objects(ctx, upkeep.KindSite, site.Name); err == nil {
		return upkeep.WithHint(fmt.Errorf("site %s: is declared already: %w", site.Name, upkeep.ErrConflict),
			"change it with: upkeep get site "+site.Name+" -o yaml, and upkeep apply -f -")
	}
	objects := []upkeep.Object{site}
	if _, err := up.Objects(ctx, upkeep.KindAccount, site.Account); errors.Is(err, upkeep.ErrNotFound) {
		objects = []upkeep.Object{upkeep.Account{Name: site.Account}, site}
	}
	result, err := a.declare(ctx, up, objects...)
	if err != nil {
		return err
	}
	if a.output != "table" && !wait {
		return a.show(result)
	}
	if a.output == "table" {
		a.changes(result)
	}
	if wait {
		return a.awaitSite(ctx, up, site.Name, patience)
	}
	return nil
}

// awaitSite returns when every job about a site has ended.
func (a *app) awaitSite(ctx context.Context, up *client.Client, name string, patience time.Duration) error {
	jobs, err := up.Jobs(ctx, wire.JobFilter{Object: "site/" + name, States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}})
	if err != nil {
		return err
	}
	var ids []int64
	for _, job := range jobs {
		if job.Kind != upkeep.JobNotification {
			ids = append(ids, job.ID)
		}
	}
	if len(ids) > 0 {
		ended, err := a.await(ctx, up, patience, ids...)
		if err != nil {
			return err
		}
		if err := unlessDone(ended); err != nil {
			return err
		}
	}
	return a.showSite(ctx, up, name)
}

func newSiteList(a *app) *cobra.Command {
	var account string
	c := &cobra.Command{
		Use:   "list",
		Short: "List sites and what servers serve of them",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			sites, err := up.Sites(c.Context(), account)
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(append([]upkeep.SiteStatus{}, sites...))
			}
			t := newTable("SITE", "STATE", "ACCOUNT", "SERVERS", "WHY")
			for _, s := range sites {
				var servers []string
				for _, on := range s.Servers {
					servers = append(servers, on.Server)
				}
				t.add(s.Name, s.State, s.Account, strings.Join(servers, ","), s.Reason)
			}
			return t.write(a.out)
		},
	}
	c.Flags().StringVar(&account, "account", "", "only sites of this `account`")
	return c
}

func newSiteShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show what servers serve of a site, and why",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			return a.showSite(c.Context(), up, args[0])
		},
	}
}

func (a *app) showSite(ctx context.Context, up *client.Client, name string) error {
	site, err := up.Site(ctx, name)
	if err != nil {
		return err
	}
	return a.siteDetails(site)
}

func (a *app) siteDetails(site upkeep.SiteStatus) error {
	if a.output != "table" {
		return a.show(site)
	}
	fmt.Fprintf(a.out, "%s is %s: %s\n", upkeep.Printable(site.Name), site.State, upkeep.Printable(site.Reason))
	fmt.Fprintf(a.out, "  account     %s\n  names       %s\n  generation  %d\n", site.Account, upkeep.Printable(strings.Join(site.Names, ", ")), site.Generation)
	if site.DocumentRoot != "" {
		fmt.Fprintf(a.out, "  pages in    %s\n", upkeep.Printable(site.DocumentRoot))
	}
	t := newTable("SERVER", "STATE", "GENERATION", "URL", "WHY")
	for _, s := range site.Servers {
		t.add(s.Server, s.State, strconv.FormatInt(s.Generation, 10), s.URL, s.Reason)
		if s.URL != "" {
			defer fmt.Fprintf(a.out, "try: curl -H 'Host: %s' %s\n", site.Name, s.URL)
		}
	}
	return t.write(a.out)
}

func newSiteDiff(a *app) *cobra.Command {
	var files []string
	var patience time.Duration
	c := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what documents would change on web servers, before they are applied",
		Long: `Check the sites in YAML documents as apply would, and have their web servers say
what that would change there: files as unified diffs. Nothing is changed. Status
1 when there are differences.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			sources, err := a.sources(files)
			if err != nil {
				return err
			}
			up, err := a.client()
			if err != nil {
				return err
			}
			return a.preview(c.Context(), up, sources, patience)
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, filesHelp)
	c.Flags().DurationVar(&patience, "timeout", time.Minute, "how `long` to wait for the servers")
	return c
}

func (a *app) preview(ctx context.Context, up *client.Client, sources []wire.Source, patience time.Duration) error {
	started, err := up.PreviewSites(ctx, sources)
	if err != nil {
		return err
	}
	var ids []int64
	for _, job := range started {
		ids = append(ids, job.ID)
	}
	if len(ids) == 0 {
		fmt.Fprintln(a.err, "there is no site in the documents")
		return nil
	}
	jobs, err := a.await(ctx, up, patience, ids...)
	if err != nil {
		return err
	}
	if err := unlessDone(jobs); err != nil {
		return err
	}
	return a.synced(ctx, up, "verify", jobs)
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
			if _, err := fmt.Fprintln(a.out, upkeep.Printable(line)); err != nil {
				return err
			}
		}
	}
	for _, stray := range result.Strays {
		if _, err := fmt.Fprintln(a.out, "stray:", upkeep.Printable(stray)); err != nil {
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

func newSiteHistory(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "history NAME",
		Short: "Show what a site was before, the newest first",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			generations, err := up.SiteHistory(c.Context(), args[0])
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(append([]wire.Generation{}, generations...))
			}
			t := newTable("GENERATION", "WHEN", "BY", "DOCUMENT")
			for _, g := range generations {
				text := string(g.Object)
				if g.Deleted {
					text = "deleted"
				}
				t.add(strconv.FormatInt(g.Generation, 10), ago(g.At, time.Now()), g.Who, text)
			}
			return t.write(a.out)
		},
	}
}

func newSiteUndo(a *app) *cobra.Command {
	var generation int64
	c := &cobra.Command{
		Use:   "undo NAME",
		Short: "Declare a site as it was at an earlier generation",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if generation < 0 {
				return &usageError{err: fmt.Errorf("--to %d must be a generation, see upkeep site history", generation)}
			}
			up, err := a.client()
			if err != nil {
				return err
			}
			site, err := up.UndoSite(c.Context(), args[0], generation)
			if err != nil {
				return err
			}
			return a.siteDetails(site)
		},
	}
	c.Flags().Int64Var(&generation, "to", 0, "`generation` to go back to (default the one before the present)")
	return c
}

func newSiteRemove(a *app) *cobra.Command {
	var wait bool
	var patience time.Duration
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a site back; its files are kept in the account's trash",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.delete(c.Context(), []deletion{{Kind: upkeep.KindSite, Name: args[0]}}); err != nil || !wait {
				return err
			}
			up, err := a.client()
			if err != nil {
				return err
			}
			jobs, err := up.Jobs(c.Context(), wire.JobFilter{Object: "site/" + args[0], Kind: upkeep.JobSiteRemove, Limit: 100,
				States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}})
			if err != nil {
				return err
			}
			var ids []int64
			for _, job := range jobs {
				ids = append(ids, job.ID)
			}
			if len(ids) == 0 {
				return nil
			}
			ended, err := a.await(c.Context(), up, patience, ids...)
			return errors.Join(err, unlessDone(ended))
		},
	}
	waitFlags(c, &wait, &patience)
	return c
}

func newSiteSuspend(a *app, suspend bool, verb, short string) *cobra.Command {
	var wait bool
	var patience time.Duration
	c := &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			found, err := up.Objects(c.Context(), upkeep.KindSite, args[0])
			if err != nil {
				return err
			}
			object, err := upkeep.DecodeObject(upkeep.KindSite, found[0].Object)
			if err != nil {
				return err
			}
			site := object.(upkeep.Site) // as the kind says
			site.Suspended = suspend
			result, err := a.declare(c.Context(), up, site)
			if err != nil {
				return err
			}
			if !wait {
				if a.output != "table" {
					return a.show(result)
				}
				a.changes(result)
				return nil
			}
			return a.awaitSite(c.Context(), up, args[0], patience)
		},
	}
	waitFlags(c, &wait, &patience)
	return c
}

// documents writes objects as YAML.
func documents(objects ...upkeep.Object) (string, error) {
	var b strings.Builder
	err := declare.Write(&b, objects...)
	return b.String(), err
}
