package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/declare"
	"upkeep/internal/names"
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
		RunE: func(c *cobra.Command, args []string) (err error) {
			if site.Name, err = hostName(args[0]); err != nil {
				return err
			}
			if site.Account == "" || len(site.Servers) == 0 {
				return &usageError{err: errors.New("--account and --server are required: whose the site is, and which web servers answer for it"),
					hint: "upkeep server list shows the servers; in upkeep up there is one named " + localServer}
			}
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
	site, err := up.Site(ctx, name)
	if err != nil {
		return err
	}
	if err := a.siteDetails(site); err != nil {
		return err
	}
	if site.State == upkeep.SiteFailed { // by a job that had ended before it was asked for
		return fmt.Errorf("site %s failed: %s", name, site.Reason)
	}
	return nil
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
		RunE:  a.aboutSite(a.showSite),
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
	shown := make([]string, len(site.Names))
	for i, name := range site.Names {
		shown[i] = names.Shown(name)
	}
	fmt.Fprintf(a.out, "%s is %s: %s\n", names.Shown(site.Name), site.State, upkeep.Printable(site.Reason))
	fmt.Fprintf(a.out, "  account     %s\n  names       %s\n  generation  %d\n", site.Account, strings.Join(shown, ", "), site.Generation)
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

func newSiteRemove(a *app) *cobra.Command {
	var wait bool
	var patience time.Duration
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a site; its folder is kept in the account's trash",
		Args:  exactly("NAME"),
		RunE: a.aboutSite(func(ctx context.Context, up *client.Client, name string) error {
			site, _, readErr := declaredThing[upkeep.Site](ctx, up, upkeep.KindSite, name) // whose it was, if it is there
			status, statusErr := up.Site(ctx, name)
			has, folderErr := folderOf(ctx, up, site)
			if statusErr == nil && site.SubOf == "" && answered(status) {
				has = ownFolder
			}
			if err := a.delete(ctx, []deletion{{Kind: upkeep.KindSite, Name: name}}); err != nil {
				return err
			}
			if errors.Join(readErr, statusErr, folderErr) == nil { // it is removed, whatever cannot be told of it
				a.tellTrash(site, has)
			}
			if !wait {
				return nil
			}
			jobs, err := up.Jobs(ctx, wire.JobFilter{Object: "site/" + name, Kind: upkeep.JobSiteRemove, Limit: 100,
				States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}})
			if err != nil || len(jobs) == 0 {
				return err
			}
			var ids []int64
			for _, job := range jobs {
				ids = append(ids, job.ID)
			}
			ended, err := a.await(ctx, up, patience, ids...)
			return errors.Join(err, unlessDone(ended))
		}),
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
		RunE: a.aboutSite(func(ctx context.Context, up *client.Client, name string) error {
			site, generation, err := declaredThing[upkeep.Site](ctx, up, upkeep.KindSite, name)
			if err != nil {
				return err
			}
			site.Suspended = suspend
			result, err := a.declareIf(ctx, up, generation, site)
			if err != nil {
				return err
			}
			if !suspend {
				a.tellSuspended(ctx, up, site)
			}
			if !wait {
				return a.changed(result)
			}
			return a.awaitSite(ctx, up, name, patience)
		}),
	}
	waitFlags(c, &wait, &patience)
	return c
}

// tellSuspended says that a site stays down with its account, which is not the
// site's to lift.
func (a *app) tellSuspended(ctx context.Context, up *client.Client, site upkeep.Site) {
	account, _, err := declaredThing[upkeep.Account](ctx, up, upkeep.KindAccount, site.Account)
	if err == nil && account.Suspended { // a hint is all that is lost
		fmt.Fprintf(a.err, "note: %s stays suspended with its account %[2]s; to lift that: upkeep account resume %[2]s\n", upkeep.Printable(site.Name), site.Account)
	}
}

// declaredThing is something as it is declared, with its generation.
func declaredThing[T upkeep.Object](ctx context.Context, up *client.Client, kind, name string) (thing T, generation int64, err error) {
	declared, err := up.Objects(ctx, kind, name)
	if err != nil {
		return thing, 0, err
	}
	if len(declared) != 1 {
		return thing, 0, fmt.Errorf("control has %d of kind %s with the name %s", len(declared), kind, name)
	}
	objects, err := declare.Read(name, declared[0].Object)
	if err != nil {
		return thing, 0, err
	}
	return objects[0].(T), declared[0].Generation, nil // one, of the kind that was asked for
}

// declareIf declares what was read before, if it still has the generation
// that it had then.
func (a *app) declareIf(ctx context.Context, up *client.Client, generation int64, thing upkeep.Object) (wire.ApplyResult, error) {
	text, err := documents(thing)
	if err != nil {
		return wire.ApplyResult{}, err
	}
	result, err := up.ApplyIf(ctx, wire.Source{File: "what was asked for", Text: text}, generation)
	a.warn(result)
	return result, withoutPlaces(err)
}

// aboutSite makes the Run of a verb that takes the name of a site, as people
// write it.
func (a *app) aboutSite(do func(ctx context.Context, up *client.Client, name string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		name, err := hostName(args[0])
		if err != nil {
			return err
		}
		up, err := a.client()
		if err != nil {
			return err
		}
		return do(c.Context(), up, name)
	}
}

// hostName is a name as it is kept: people may write capitals, a final dot, or
// the letters of their own script.
func hostName(text string) (string, error) {
	name, err := names.ASCII(text)
	if err != nil {
		return "", &usageError{err: fmt.Errorf("NAME %q %w", text, err)}
	}
	return name, nil
}

// documents writes objects as YAML.
func documents(objects ...upkeep.Object) (string, error) {
	var b strings.Builder
	err := declare.Write(&b, objects...)
	return b.String(), err
}
