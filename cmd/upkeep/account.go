package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

func newAccount(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "account",
		Short: "Customers: their sites, what is being done for them, their messages",
		Long: `Customers: what is theirs, what is being done for them, and their messages. Who signs
in for an account is a user: upkeep user add NAME --role customer --account ACCOUNT
lets somebody in, and passwd and token are here, too, as they are with upkeep user.`,
		Args: cobra.ArbitraryArgs,
		RunE: verbsOnly,
	}
	c.AddCommand(newAccountAdd(a), newAccountList(a), newAccountShow(a),
		newAccountSuspend(a, true, "suspend", "Have all sites of an account answer 503 and keep everything"),
		newAccountSuspend(a, false, "resume", "Have the sites of a suspended account serve again"),
		newUserPasswd(a), newUserToken(a))
	return c
}

// accountView is an account with everything that concerns it now.
type accountView struct {
	upkeep.Account
	Sites []upkeep.SiteStatus `json:"sites"`
	// Pending are jobs that have not ended, and Failed the latest that did not end
	// well, unless that was overcome since; both the newest first.
	Pending []upkeep.Job `json:"pending"`
	Failed  []upkeep.Job `json:"failed"`
	// Unread are messages that nobody has said to have read.
	Unread []upkeep.Job `json:"unread"`
}

func newAccountAdd(a *app) *cobra.Command {
	account := upkeep.Account{}
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Declare an account, which sites can then belong to",
		Long: `Declare an account, which sites can then belong to. Its system user is made on a
server with the first site there. Nobody can sign in for it before
upkeep user add NAME --role customer --account ACCOUNT.`,
		Example: "  upkeep account add acme --email hostmaster@acme.example",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			account.Name = args[0]
			if _, err := up.Objects(c.Context(), upkeep.KindAccount, account.Name); err == nil {
				return upkeep.WithHint(fmt.Errorf("account %s: is declared already: %w", account.Name, upkeep.ErrConflict),
					"upkeep account show "+account.Name+" shows it")
			}
			result, err := a.declare(c.Context(), up, account)
			if err != nil {
				return err
			}
			return a.changed(result)
		},
	}
	c.Flags().StringVar(&account.Email, "email", "", "`address` that is told of what concerns the account")
	c.Flags().IntVar(&account.UID, "uid", 0, "`number` of its system user on every server (default one that is free)")
	return c
}

func newAccountSuspend(a *app, suspend bool, verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			account, generation, err := declaredThing[upkeep.Account](c.Context(), up, upkeep.KindAccount, args[0])
			if err != nil {
				return err
			}
			account.Suspended = suspend
			result, err := a.declareIf(c.Context(), up, generation, account)
			if err != nil {
				return err
			}
			return a.changed(result)
		},
	}
}

func newAccountList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List accounts with what concerns them now",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			views, err := accountViews(c.Context(), up, "")
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(views)
			}
			if len(views) == 0 {
				fmt.Fprintln(a.err, "no account is declared; upkeep account add NAME declares one")
				return nil
			}
			t := newTable("ACCOUNT", "UID", "STATE", "SITES", "PENDING", "FAILED", "UNREAD")
			for _, v := range views {
				t.add(v.Name, strconv.Itoa(v.UID), v.state(), strconv.Itoa(len(v.Sites)), some(v.Pending), some(v.Failed), some(v.Unread))
			}
			return t.write(a.out)
		},
	}
}

func newAccountShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show an account's sites, what is being done for it, and its messages",
		Long: `Show the sites of an account, the jobs that have not ended or have failed, and the
messages that were not read. upkeep job read ID says that one was.`,
		Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			views, err := accountViews(c.Context(), up, args[0])
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(views[0])
			}
			return a.accountDetails(views[0])
		},
	}
}

func (v accountView) state() string {
	if v.Suspended {
		return "suspended"
	}
	return "active"
}

// some is a number of jobs, of which no more than a page is counted.
func some(jobs []upkeep.Job) string {
	switch {
	case len(jobs) == 0:
		return ""
	case len(jobs) >= mostOfAccount:
		return fmt.Sprintf("%d or more", len(jobs))
	}
	return strconv.Itoa(len(jobs))
}

// mostOfAccount is how many jobs of a kind are looked at.
const mostOfAccount = 1000

// accountViews are the views of one account, or of all with no name.
func accountViews(ctx context.Context, up *client.Client, name string) ([]accountView, error) {
	declared, err := up.Objects(ctx, upkeep.KindAccount, name)
	if err != nil {
		return nil, err
	}
	sites, err := up.Sites(ctx, name)
	if err != nil {
		return nil, err
	}
	jobs := func(states ...upkeep.JobState) ([]upkeep.Job, error) {
		return up.Jobs(ctx, wire.JobFilter{Account: name, States: states, Limit: mostOfAccount})
	}
	open, err := jobs(upkeep.JobPending, upkeep.JobRunning)
	if err != nil {
		return nil, err
	}
	failed, err := jobs(upkeep.JobFailed)
	if err != nil {
		return nil, err
	}
	views := make([]accountView, len(declared))
	at := map[string]*accountView{}
	for i, d := range declared {
		views[i] = accountView{Sites: []upkeep.SiteStatus{}, Pending: []upkeep.Job{}, Failed: []upkeep.Job{}, Unread: []upkeep.Job{}}
		if err := json.Unmarshal(d.Object, &views[i].Account); err != nil {
			return nil, fmt.Errorf("reading account %s: %w", d.Name, err)
		}
		at[d.Name] = &views[i]
	}
	for _, site := range sites {
		if v := at[site.Account]; v != nil {
			v.Sites = append(v.Sites, site)
		}
	}
	for _, job := range append(open, failed...) {
		v := at[job.Account]
		switch {
		case v == nil: // of one that was deleted
		case job.Kind == upkeep.JobNotification:
			v.Unread = append(v.Unread, job)
		case job.State == upkeep.JobFailed && overcome(job, v.Sites):
		case job.State == upkeep.JobFailed:
			v.Failed = append(v.Failed, job)
		default:
			v.Pending = append(v.Pending, job)
		}
	}
	return views, nil
}

// overcome reports whether what a failed job was to bring about has come to be by
// another: its site is served as it was then, or newer. The job itself stays, and
// upkeep job list shows it.
func overcome(job upkeep.Job, sites []upkeep.SiteStatus) bool {
	as := func(state string, generation int64) bool {
		return (state == upkeep.SiteLive || state == upkeep.SiteSuspended) && generation >= job.Generation
	}
	at := slices.IndexFunc(sites, func(s upkeep.SiteStatus) bool { return job.Object == upkeep.KindSite+"/"+s.Name })
	switch {
	case at < 0:
		return false
	case job.Kind == upkeep.JobSiteFiles:
		return as(sites[at].State, sites[at].Generation)
	case job.Kind == upkeep.JobSiteApply:
		return slices.ContainsFunc(sites[at].Servers, func(s upkeep.ServedStatus) bool { return s.Server == job.Server && as(s.State, s.Generation) })
	}
	return false
}

func (a *app) accountDetails(v accountView) error {
	now := time.Now()
	head := newTable("ACCOUNT", "UID", "STATE", "EMAIL")
	head.add(v.Name, strconv.Itoa(v.UID), v.state(), v.Email)
	if err := head.write(a.out); err != nil {
		return err
	}
	sites := newTable("SITE", "STATE", "WHY")
	for _, site := range v.Sites {
		sites.add(site.Name, site.State, site.Reason)
	}
	messages := newTable("MESSAGE", "WHEN", "TEXT")
	for _, job := range v.Unread {
		messages.add(strconv.FormatInt(job.ID, 10), ago(job.Created, now), job.Text)
	}
	for _, part := range []struct {
		n int
		t *table
	}{{len(v.Sites), sites}, {len(v.Pending), jobTable(v.Pending, now)}, {len(v.Failed), jobTable(v.Failed, now)}, {len(v.Unread), messages}} {
		if part.n == 0 {
			continue
		}
		fmt.Fprintln(a.out)
		if err := part.t.write(a.out); err != nil {
			return err
		}
	}
	return nil
}
