package console

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/store"
)

func (c *Console) staffRoutes() {
	c.route("GET /servers", c.servers)
	c.route("POST /servers", c.addServer)
	c.route("POST /servers/{name}/invite", c.inviteServer)
	c.route("POST /servers/{name}/verify", c.workOnServer)
	c.route("POST /servers/{name}/regenerate", c.workOnServer)
	c.route("POST /servers/{name}/revoke", c.revokeServer)
	c.route("GET /servers/{name}", c.server)
	c.route("GET /accounts", c.accounts)
	c.route("POST /accounts", c.addAccount)
	c.route("POST /accounts/{name}/suspend", c.suspendAccount)
	c.route("GET /zones", c.zones)
	c.route("GET /zones/{name}", c.zone)
	c.route("POST /pools/{name}/force", c.forceMember)
	c.route("POST /unfreeze", c.unfreeze)
}

type serversView struct {
	Servers []serverRow
	// Invitation is for a server that was just asked for, shown this once.
	Invitation *invitationView
	Faults     faults
	Name       string
	Roles      []option
}

func (serversView) isForm() bool { return true }

// A page with an invitation must not be loaded anew by itself: it is shown once.
func (v serversView) Live() bool { return v.Invitation == nil }

type serverRow struct {
	upkeep.AgentStatus
	SinceAt, ExpiresAt, FactsAt moment
	Web, Quiet, Soon            bool
}

type invitationView struct {
	Server, Command, Until string
	Placeholder            bool
}

func (c *Console) servers(w http.ResponseWriter, r *http.Request) {
	c.showServers(w, r, http.StatusOK, serversView{})
}

func (c *Console) showServers(w http.ResponseWriter, r *http.Request, status int, v serversView) {
	servers, err := c.o.Hosting.Servers.Servers(r.Context())
	if err != nil {
		c.broken(w, r, err)
		return
	}
	now := c.o.Now()
	for _, s := range servers {
		v.Servers = append(v.Servers, viewServerRow(s, now))
	}
	if v.Roles == nil {
		v.Roles = options(upkeep.Roles)
	}
	c.render(w, r, status, "servers.html", "Servers", v)
}

func viewServerRow(s upkeep.AgentStatus, now time.Time) serverRow {
	row := serverRow{AgentStatus: s, SinceAt: at(s.Since, now), ExpiresAt: at(s.Expires, now), Web: slices.Contains(s.Roles, upkeep.RoleWeb), Quiet: !s.Connected}
	row.Soon = !s.Expires.IsZero() && s.Expires.Sub(now) < 7*24*time.Hour
	if s.Facts != nil {
		row.FactsAt = at(s.Facts.At, now)
	}
	return row
}

func (c *Console) addServer(w http.ResponseWriter, r *http.Request) {
	server := upkeep.Server{Name: strings.TrimSpace(r.PostForm.Get("name")), Roles: r.PostForm["role"]}
	// Nothing that is there is changed by it.
	still := map[store.Ref]int64{store.RefOf(server): 0}
	if _, err := c.o.Hosting.Bounds.Apply(r.Context(), still, []upkeep.Object{server}, false); err != nil {
		found, ours := faultsOf(existing(err, server.Name))
		if !ours {
			c.broken(w, r, err)
			return
		}
		c.showServers(w, r, http.StatusUnprocessableEntity, serversView{Faults: flat(found), Name: server.Name, Roles: options(upkeep.Roles, server.Roles...)})
		return
	}
	if c.o.Hosting.Servers.Listen() == "" {
		http.Redirect(w, r, "/servers", http.StatusSeeOther)
		return
	}
	c.invite(w, r, server.Name)
}

// existing is what went wrong with adding something, in the words of who added it:
// a generation where there was to be none is a name that is taken.
func existing(err error, name string) error {
	if errors.Is(err, upkeep.ErrChanged) {
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "name", Value: name, Rule: "exists already"}}}
	}
	return err
}

// flat are faults by whole fields: "roles" for "roles[1]".
func flat(f faults) faults {
	made := faults{}
	for _, path := range sortedFaults(f) {
		name := indices().ReplaceAllString(path, "")
		made[name] = strings.TrimSpace(made[name] + " " + f[path])
	}
	return made
}

func (c *Console) inviteServer(w http.ResponseWriter, r *http.Request) {
	c.invite(w, r, r.PathValue("name"))
}

func (c *Console) invite(w http.ResponseWriter, r *http.Request, name string) {
	token, expires, err := c.o.Hosting.Servers.Invite(r.Context(), access.From(r.Context()).Who, name)
	if err != nil {
		c.refusedChange(w, r, err, "server")
		return
	}
	v := &invitationView{Server: name, Until: expires.Local().Format("15:04")}
	v.Command, v.Placeholder = joinCommand(c.o.Hosting.Servers.Listen(), token)
	c.showServers(w, r, http.StatusCreated, serversView{Invitation: v})
}

func (c *Console) workOnServer(w http.ResponseWriter, r *http.Request) {
	do := c.o.Hosting.Servers.Verify
	if strings.HasSuffix(r.URL.Path, "/regenerate") {
		do = c.o.Hosting.Servers.Regenerate
	}
	job, err := do(r.Context(), r.PathValue("name"), access.From(r.Context()).Who)
	if err != nil {
		c.refusedChange(w, r, err, "server")
		return
	}
	http.Redirect(w, r, "/jobs/"+strconv.FormatInt(job.ID, 10), http.StatusSeeOther)
}

func (c *Console) revokeServer(w http.ResponseWriter, r *http.Request) {
	if err := c.o.Hosting.Servers.Revoke(r.Context(), access.From(r.Context()).Who, r.PathValue("name")); err != nil {
		c.refusedChange(w, r, err, "server")
		return
	}
	http.Redirect(w, r, "/servers", http.StatusSeeOther)
}

type accountsView struct {
	Accounts []accountRow
	Query    string
	Pager    pager
	Faults   faults
	Account  upkeep.Account
}

func (accountsView) isForm() bool { return true }

// pageAccounts is how many accounts a page of the list shows.
const pageAccounts = 100

type accountRow struct {
	upkeep.Account
	Generation int64
	Sites      string // path to them
}

func (c *Console) accounts(w http.ResponseWriter, r *http.Request) {
	c.showAccounts(w, r, http.StatusOK, accountsView{})
}

func (c *Console) showAccounts(w http.ResponseWriter, r *http.Request, status int, v accountsView) {
	declared, err := c.o.Hosting.Bounds.Objects(r.Context(), upkeep.KindAccount, "")
	if err != nil {
		c.broken(w, r, err)
		return
	}
	v.Query = strings.ToLower(strings.TrimSpace(r.URL.Query().Get("q")))
	keep := url.Values{}
	if v.Query != "" {
		keep.Set("q", v.Query)
	}
	declared = slices.DeleteFunc(slices.Clone(declared), func(d upkeep.Declared) bool {
		account, is := d.Object.(upkeep.Account)
		return !is || !strings.Contains(account.Name+" "+account.Email, v.Query)
	})
	offset, pager := leaf(len(declared), pageAccounts, number(r, "page", 1), "/accounts", keep)
	v.Pager = pager
	for _, d := range declared[offset:min(offset+pageAccounts, len(declared))] {
		account := d.Object.(upkeep.Account) // as those that are left are
		v.Accounts = append(v.Accounts, accountRow{account, d.Generation, "/sites?" + url.Values{"q": {account.Name}}.Encode()})
	}
	c.render(w, r, status, "accounts.html", "Accounts", v)
}

func (c *Console) addAccount(w http.ResponseWriter, r *http.Request) {
	account := upkeep.Account{Name: strings.TrimSpace(r.PostForm.Get("name")), Email: strings.TrimSpace(r.PostForm.Get("email"))}
	if _, err := c.o.Hosting.Bounds.Apply(r.Context(), map[store.Ref]int64{store.RefOf(account): 0}, []upkeep.Object{account}, false); err != nil {
		found, ours := faultsOf(existing(err, account.Name))
		if !ours {
			c.broken(w, r, err)
			return
		}
		c.showAccounts(w, r, http.StatusUnprocessableEntity, accountsView{Faults: found, Account: account})
		return
	}
	http.Redirect(w, r, "/accounts", http.StatusSeeOther)
}

// suspendAccount suspends an account, or lifts that.
func (c *Console) suspendAccount(w http.ResponseWriter, r *http.Request) {
	ctx, name := r.Context(), r.PathValue("name")
	found, err := c.o.Hosting.Bounds.Objects(ctx, upkeep.KindAccount, name)
	if err != nil {
		c.gone(w, r, err, "account")
		return
	}
	account, is := found[0].Object.(upkeep.Account)
	if !is {
		c.gone(w, r, upkeep.ErrNotFound, "account")
		return
	}
	account.Suspended = r.PostForm.Get("suspended") == "yes"
	still := map[store.Ref]int64{store.RefOf(account): found[0].Generation}
	if _, err := c.o.Hosting.Bounds.Apply(ctx, still, []upkeep.Object{account}, false); err != nil {
		c.refusedChange(w, r, err, "account")
		return
	}
	http.Redirect(w, r, "/accounts", http.StatusSeeOther)
}

func (c *Console) zones(w http.ResponseWriter, r *http.Request) {
	zones, err := c.o.Observer.Zones(r.Context())
	if err != nil {
		c.broken(w, r, err)
		return
	}
	q := strings.ToLower(strings.TrimSpace(r.URL.Query().Get("q")))
	zones = slices.DeleteFunc(slices.Clone(zones), func(z upkeep.ZoneStatus) bool { return !strings.Contains(z.Name, q) })
	keep := url.Values{}
	if q != "" {
		keep.Set("q", q)
	}
	offset, pager := leaf(len(zones), listedPools, number(r, "page", 1), "/zones", keep)
	views := viewZones(zones[offset:min(offset+listedPools, len(zones))], c.o.Now())
	for i := range views {
		views[i].Path = zonePath(views[i].Name)
	}
	c.render(w, r, http.StatusOK, "zones.html", "Zones", zonesPage{views, q, pager})
}

type zonesPage struct {
	Zones []zoneView
	Query string
	Pager pager
}

// forceMember lays an admin state over a member, or takes it away.
func (c *Console) forceMember(w http.ResponseWriter, r *http.Request) {
	ctx, who, pool, member, form := r.Context(), access.From(r.Context()).Who, r.PathValue("name"), r.PostForm.Get("member"), r.PostForm
	p, err := c.o.Observer.Pool(ctx, pool)
	if err != nil {
		c.gone(w, r, err, "pool")
		return
	}
	// Members of the page alone: a glob is for who types it on a command line.
	if !slices.ContainsFunc(p.Members, func(m upkeep.MemberStatus) bool { return m.Address.String() == member }) {
		c.fault(w, r, http.StatusNotFound, "The pool has no such member.")
		return
	}
	switch state := form.Get("state"); state {
	case upkeep.AdminAuto:
		_, err = c.o.Hosting.Forcer.Release(ctx, who, pool, member)
	case upkeep.AdminUp, upkeep.AdminDown, upkeep.AdminDrain:
		why := strings.TrimSpace(form.Get("why"))
		if len(why) > 500 {
			c.fault(w, r, http.StatusUnprocessableEntity, "The reason has more than 500 bytes.")
			return
		}
		_, err = c.o.Hosting.Forcer.Force(ctx, who, upkeep.Override{Pool: pool, Member: member, State: state, Why: why}, form.Get("all") != "")
	default:
		c.fault(w, r, http.StatusUnprocessableEntity, "A member is given back to its checks, up, down or drained.")
		return
	}
	if err != nil {
		c.refusedChange(w, r, err, "pool")
		return
	}
	http.Redirect(w, r, "/pools/"+url.PathEscape(pool)+"#"+anchor(member), http.StatusSeeOther)
}

func (c *Console) unfreeze(w http.ResponseWriter, r *http.Request) {
	if err := c.o.Hosting.Forcer.Unfreeze(r.Context(), access.From(r.Context()).Who); err != nil {
		c.refusedChange(w, r, err, "freeze")
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// mostFailed is how many failed jobs are counted for the first page.
const mostFailed = 100

// hosted is what needs a look of servers and jobs. What cannot be read is said, and
// keeps nothing else from being shown.
func (c *Console) hosted(r *http.Request) []hostedLine {
	ctx := r.Context()
	if c.o.Hosting == nil || !access.From(ctx).Staff {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, historyPatience)
	defer cancel()
	servers, err := c.o.Hosting.Connected(ctx)
	var failed []upkeep.Job
	if err == nil {
		failed, err = c.o.Hosting.Bounds.Jobs(ctx, store.JobFilter{States: []upkeep.JobState{upkeep.JobFailed}, Limit: mostFailed})
	}
	if err != nil {
		c.o.Log.Error("reading servers and jobs for a page", "err", err)
		return []hostedLine{{Path: "/servers", Text: "servers and jobs cannot be read: the database does not answer", Wrong: true}}
	}
	var found []hostedLine
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		if !servers[name] {
			found = append(found, hostedLine{"/servers", "server " + name + " is not connected", true})
		}
	}
	if len(found) > 5 {
		found = append(found[:5], hostedLine{"/servers", "and more servers", true})
	}
	if len(failed) > 0 {
		text := plural(len(failed), "job") + " failed"
		if len(failed) == mostFailed {
			text = strconv.Itoa(mostFailed) + " jobs or more failed"
		}
		found = append(found, hostedLine{"/jobs?state=failed", text, true})
	}
	if len(found) == 0 && len(servers) > 0 {
		found = append(found, hostedLine{"/servers", "every server is connected, and no job has failed", false})
	}
	return found
}
