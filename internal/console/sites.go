package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
	"upkeep/internal/names"
	"upkeep/internal/store"
)

// Hosting is what pages about sites, jobs and servers ask.
type Hosting struct {
	Bounds  *api.Bounds
	Jobs    api.Jobs
	Servers api.Servers
	// Connected says of every declared server whether its agent is connected, which
	// takes far less than all that is known of it.
	Connected func(context.Context) (map[string]bool, error)
	Forcer    api.Forcer
	Users     api.Users
	Audit     api.Audit
	// Notifier sends receivers what tries them.
	Notifier api.Notifier
}

func (c *Console) siteRoutes() {
	c.route("GET /sites", c.sites)
	c.route("GET /sites/new", c.newSite)
	c.route("POST /sites/new", c.saveSite)
	c.route("GET /sites/{name}", c.site)
	c.route("GET /sites/{name}/edit", c.editSite)
	c.route("POST /sites/{name}/edit", c.saveSite)
	c.route("GET /sites/{name}/history", c.siteHistory)
	c.route("POST /sites/{name}/undo", c.undoSite)
	c.route("GET /sites/{name}/remove", c.askRemoval)
	c.route("POST /sites/{name}/remove", c.removeSite)
}

// pageSites is how many sites a page of the list shows.
const pageSites = 100

type sitesView struct {
	Sites   []siteRow
	Counts  []stateCount
	Query   string
	State   string
	Pager   pager
	Account string    // whose they are, of a customer
	None    bool      // there is none at all
	Wrong   string    // with the filter
	Jobs    []jobView // of a customer, what waits, failed or is to be read
}

type stateCount struct {
	State, Path string
	N           int
	On          bool
}

type siteRow struct {
	upkeep.SiteStatus
	Path string
}

func sitePath(name string) string { return "/sites/" + url.PathEscape(name) }

var siteStates = []string{upkeep.SiteFailed, upkeep.SitePending, upkeep.SiteSuspended, upkeep.SiteLive}

func (c *Console) sites(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	v := sitesView{Query: q.Get("q"), State: q.Get("state"), Account: access.From(r.Context()).Account}
	number, keep := number(r, "page", 1), url.Values{}
	if v.Wrong = outside(q, keep, "state", siteStates); v.Wrong != "" {
		v.State = ""
	}
	filter := upkeep.SiteFilter{Holds: v.Query, State: v.State, Skip: skipped(number, pageSites), Limit: pageSites}
	page, err := c.o.Hosting.Bounds.SitePage(r.Context(), filter)
	if err == nil && filter.Skip > 0 && filter.Skip >= page.Of { // there are fewer than there were
		number = int64((page.Of + pageSites - 1) / pageSites)
		filter.Skip = skipped(number, pageSites)
		page, err = c.o.Hosting.Bounds.SitePage(r.Context(), filter)
	}
	if err != nil {
		c.broken(w, r, err)
		return
	}
	v.None = page.None
	if v.Query != "" {
		keep.Set("q", v.Query)
	}
	for _, state := range siteStates {
		to := url.Values{"state": {state}}
		if v.Query != "" {
			to.Set("q", v.Query)
		}
		v.Counts = append(v.Counts, stateCount{state, "/sites?" + to.Encode(), page.Counts[state], state == v.State})
	}
	if v.State != "" {
		keep.Set("state", v.State)
	}
	_, v.Pager = leaf(page.Of, pageSites, number, "/sites", keep)
	for _, s := range page.Sites {
		v.Sites = append(v.Sites, siteRow{s, sitePath(s.Name)})
	}
	if v.Account != "" {
		jobs, err := c.o.Hosting.Bounds.Jobs(r.Context(), store.JobFilter{States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning, upkeep.JobFailed}, Limit: siteJobs})
		if err != nil {
			c.broken(w, r, err)
			return
		}
		v.Jobs = viewJobs(jobs, c.o.Now(), access.From(r.Context()).Staff)
	}
	c.render(w, r, filtered(v.Wrong), "sites.html", "Sites", v)
}

// skipped is how many things come before a page of a list.
func skipped(page int64, size int) int {
	const most = 1 << 20 // pages
	return int(max(0, min(page, most)-1)) * size
}

type siteView struct {
	upkeep.SiteStatus
	Path    string
	Jobs    []jobView
	Courses []course
}

// siteJobs is how many jobs a page of a site shows.
const siteJobs = 20

// gone answers for what is not there, or not the caller's, or cannot be read.
func (c *Console) gone(w http.ResponseWriter, r *http.Request, err error, what string) {
	if errors.Is(err, upkeep.ErrNotFound) {
		c.fault(w, r, http.StatusNotFound, "There is no such "+what+". It may have been deleted.")
		return
	}
	c.broken(w, r, err)
}

func (c *Console) site(w http.ResponseWriter, r *http.Request) {
	ctx, now := r.Context(), c.o.Now()
	site, err := c.o.Hosting.Bounds.Site(ctx, r.PathValue("name"))
	if err != nil {
		c.gone(w, r, err, "site")
		return
	}
	jobs, err := c.o.Hosting.Bounds.Jobs(ctx, store.JobFilter{Object: upkeep.KindSite + "/" + site.Name, Limit: siteJobs})
	if err != nil {
		c.broken(w, r, err)
		return
	}
	c.render(w, r, http.StatusOK, "site.html", site.Name, siteView{site, sitePath(site.Name), viewJobs(jobs, now, access.From(r.Context()).Staff), courses(site, jobs, now)})
}

// siteFormView is the form for a site, with what saving it would do.
type siteFormView struct {
	Title, Action, Back string
	Groups              []group
	Generation          int64
	Faults              []string
	// NoAccount is whether there is none yet that a new site could belong to.
	NoAccount bool
	// Changed says who changed it while the form was open, and how.
	Changed *changedMeanwhile
	Preview *preview
}

func (siteFormView) isForm() bool { return true }

type changedMeanwhile struct {
	Who  string
	When moment
	Diff []diffLine
}

// preview is what saving would change: the document, and files on servers.
type preview struct {
	Document []diffLine
	Warnings []string
	Servers  []serverPreview
}

type serverPreview struct {
	Server string
	Job    int64
	Says   string // where there is no diff, why
	Files  []fileDiff
}

type fileDiff struct {
	Path  string
	Lines []diffLine
}

// choices are what can be chosen for a site that is on some servers by now.
func (c *Console) choices(ctx context.Context, isNew bool, on ...string) (choices, error) {
	v := choices{New: isNew}
	servers, err := c.o.Hosting.Servers.Servers(ctx)
	if err != nil {
		return v, err
	}
	staff := access.From(ctx).Staff
	for _, s := range servers {
		if slices.Contains(s.Roles, upkeep.RoleWeb) && (staff || !s.StaffOnly || slices.Contains(on, s.Name)) {
			v.Web = append(v.Web, s.Name)
		}
		if staff && slices.Contains(s.Roles, upkeep.RoleFiles) {
			v.Files = append(v.Files, s.Name)
		}
	}
	if !staff {
		return v, nil
	}
	accounts, err := c.o.Hosting.Bounds.Objects(ctx, upkeep.KindAccount, "")
	for _, a := range accounts {
		v.Accounts = append(v.Accounts, a.Object.ObjectName())
	}
	if v.Accounts == nil {
		v.Accounts = []string{}
	}
	return v, err
}

func (c *Console) newSite(w http.ResponseWriter, r *http.Request) {
	choices, err := c.choices(r.Context(), true)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	site := upkeep.Site{Account: access.From(r.Context()).Account}
	if len(choices.Web) == 1 {
		site.Servers = choices.Web
	}
	v := siteFormView{Title: "New site", Action: "/sites/new", Back: "/sites", Groups: siteForm(site, choices), NoAccount: choices.none()}
	c.render(w, r, http.StatusOK, "siteform.html", v.Title, v)
}

// declaredSite is a site as it is declared.
func (c *Console) declaredSite(ctx context.Context, name string) (upkeep.Site, int64, error) {
	found, err := c.o.Hosting.Bounds.Objects(ctx, upkeep.KindSite, name)
	if err != nil {
		return upkeep.Site{}, 0, err
	}
	if site, is := found[0].Object.(upkeep.Site); is {
		return site, found[0].Generation, nil
	}
	return upkeep.Site{}, 0, upkeep.ErrNotFound
}

func (c *Console) editSite(w http.ResponseWriter, r *http.Request) {
	site, generation, err := c.declaredSite(r.Context(), r.PathValue("name"))
	if err != nil {
		c.gone(w, r, err, "site")
		return
	}
	choices, err := c.choices(r.Context(), false, site.Servers...)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	v := siteFormView{Title: site.Name, Action: sitePath(site.Name) + "/edit", Back: sitePath(site.Name), Groups: siteForm(site, choices), Generation: generation}
	c.render(w, r, http.StatusOK, "siteform.html", v.Title, v)
}

// saveSite saves a site, or with "preview" shows what that would change.
func (c *Console) saveSite(w http.ResponseWriter, r *http.Request) {
	ctx, name := r.Context(), r.PathValue("name")
	v := siteFormView{Title: "New site", Action: "/sites/new", Back: "/sites"}
	site := upkeep.Site{Account: access.From(ctx).Account}
	if name != "" {
		var err error
		if site, _, err = c.declaredSite(ctx, name); err != nil {
			c.gone(w, r, err, "site")
			return
		}
		v = siteFormView{Title: name, Action: sitePath(name) + "/edit", Back: sitePath(name)}
		v.Generation, _ = strconv.ParseInt(r.PostForm.Get("generation"), 10, 64)
	}
	choices, err := c.choices(ctx, name == "", site.Servers...)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	v.NoAccount = name == "" && choices.none()
	present := site
	site, err = siteOf(r.PostForm, site, choices)
	v.Groups = siteForm(site, choices)
	keepTyped(v.Groups, r.PostForm)
	if err == nil {
		dry := r.PostForm.Get("do") == "preview"
		if err = c.applySite(ctx, site, &v, dry); err == nil && !dry {
			http.Redirect(w, r, sitePath(v.Title), http.StatusSeeOther)
			return
		}
	}
	status := http.StatusOK
	switch {
	case err == nil:
	case errors.Is(err, upkeep.ErrChanged) && name != "":
		status = http.StatusPreconditionFailed
		if err := c.changed(ctx, &v, present, site); err != nil {
			c.gone(w, r, err, "site")
			return
		}
	default:
		found, ours := faultsOf(err)
		if !ours {
			c.broken(w, r, err)
			return
		}
		status, v.Faults = http.StatusUnprocessableEntity, besideFields(v.Groups, found)
	}
	c.render(w, r, status, "siteform.html", v.Title, v)
}

// applySite declares a site, or only says what that would do. The title of the view
// becomes the name as it is kept.
func (c *Console) applySite(ctx context.Context, site upkeep.Site, v *siteFormView, dry bool) error {
	canonical, broken := names.Canonical(site)
	if len(broken) > 0 {
		return &upkeep.InvalidError{Fields: broken}
	}
	site = canonical.(upkeep.Site)
	still := map[store.Ref]int64{store.RefOf(site): v.Generation}
	applied, err := c.o.Hosting.Bounds.Apply(ctx, still, []upkeep.Object{site}, dry)
	switch {
	case v.Generation == 0 && errors.Is(err, upkeep.ErrChanged):
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "name", Value: site.Name, Rule: "is taken"}}}
	case err != nil:
		return err
	}
	if !dry {
		v.Title = site.Name
		return nil
	}
	v.Preview = &preview{Warnings: applied.Warnings}
	for _, change := range applied.Changes {
		v.Preview.Document = append(v.Preview.Document, documentDiff(change.Old, change.New)...)
	}
	if len(v.Preview.Document) > 0 && !site.Suspended {
		v.Preview.Servers = c.look(ctx, site)
	}
	return nil
}

// changed says what somebody else did while a form was open. What was typed is
// kept, and saving it again goes over theirs.
func (c *Console) changed(ctx context.Context, v *siteFormView, present, would upkeep.Site) error {
	versions, err := c.o.Hosting.Bounds.History(ctx, present.Name)
	if err != nil {
		return err
	}
	v.Generation = versions[0].Generation
	v.Changed = &changedMeanwhile{Who: versions[0].Who, When: at(versions[0].At, c.o.Now()), Diff: documentDiff(present, would)}
	return nil
}

// previewPatience is how long a preview waits for servers.
const previewPatience = 8 * time.Second

// look asks the servers of a site what it, as it would be, changes there.
func (c *Console) look(ctx context.Context, site upkeep.Site) []serverPreview {
	ctx, cancel := context.WithTimeout(ctx, previewPatience)
	defer cancel()
	news, stop := c.o.Hosting.Jobs.Watch()
	defer stop()
	jobs, err := c.o.Hosting.Bounds.Preview(ctx, []upkeep.Object{site})
	if err != nil {
		c.o.Log.Warn("looking at what a site would change", "site", site.Name, "err", err)
		return []serverPreview{{Says: "The servers cannot be asked what this would change: " + err.Error()}}
	}
	views := make([]serverPreview, len(jobs))
	for i, job := range jobs {
		job, err := c.ended(ctx, news, job.ID)
		views[i] = viewLook(job, err)
	}
	return views
}

// ended waits for a job to end, or for ctx.
func (c *Console) ended(ctx context.Context, news <-chan *upkeep.Job, id int64) (upkeep.Job, error) {
	tick := time.NewTicker(time.Second) // for news that were missed: the channel is closed on readers who fall behind
	defer tick.Stop()
	for {
		job, err := c.o.Hosting.Bounds.Job(context.WithoutCancel(ctx), id)
		if err != nil || job.State.Ended() {
			return job, err
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return job, nil
			case changed, open := <-news:
				if !open {
					news = nil
				}
				waiting = changed == nil || changed.ID != id
			case <-tick.C:
				waiting = false
			}
		}
	}
}

type historyView struct {
	Name, Path string
	Present    int64
	Versions   []versionView
}

type versionView struct {
	Generation int64
	When       moment
	Who        string
	Deleted    bool
	Present    bool
	Diff       []diffLine // to the one before
}

func (c *Console) siteHistory(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	versions, err := c.o.Hosting.Bounds.History(r.Context(), name)
	if err != nil {
		c.gone(w, r, err, "site")
		return
	}
	v := historyView{Name: name, Path: sitePath(name), Present: versions[0].Generation}
	for i, version := range versions {
		row := versionView{Generation: version.Generation, When: at(version.At, c.o.Now()), Who: version.Who, Deleted: version.Object == nil, Present: i == 0}
		var before upkeep.Object
		if i+1 < len(versions) {
			before = versions[i+1].Object
		}
		if i+1 < len(versions) || version.Generation == 1 {
			row.Diff = documentDiff(before, version.Object)
		}
		v.Versions = append(v.Versions, row)
	}
	c.render(w, r, http.StatusOK, "history.html", name, v)
}

func (c *Console) undoSite(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	generation, err1 := strconv.ParseInt(r.PostForm.Get("generation"), 10, 64)
	still, err2 := strconv.ParseInt(r.PostForm.Get("still"), 10, 64)
	if err1 != nil || err2 != nil || generation < 1 || still < 1 {
		c.fault(w, r, http.StatusBadRequest, "A generation is a number.")
		return
	}
	if _, err := c.o.Hosting.Bounds.Undo(r.Context(), name, generation, still); err != nil {
		c.refusedChange(w, r, err, "site")
		return
	}
	http.Redirect(w, r, sitePath(name), http.StatusSeeOther)
}

// refusedChange says why something that is no form of many fields was not done.
func (c *Console) refusedChange(w http.ResponseWriter, r *http.Request, err error, what string) {
	if errors.Is(err, upkeep.ErrNotFound) {
		c.gone(w, r, err, what)
		return
	}
	found, ours := faultsOf(err)
	if !ours {
		c.broken(w, r, err)
		return
	}
	var texts []string
	for _, field := range sortedFaults(found) {
		text := found[field]
		if field != "" {
			text = field + ": " + text
		}
		texts = append(texts, text)
	}
	c.fault(w, r, http.StatusConflict, strings.Join(texts, " ")+" Nothing was changed.")
}

type removalView struct {
	Site       upkeep.SiteStatus
	Path       string
	Generation int64
}

func (removalView) isForm() bool { return true }

func (c *Console) askRemoval(w http.ResponseWriter, r *http.Request) {
	site, err := c.o.Hosting.Bounds.Site(r.Context(), r.PathValue("name"))
	if err != nil {
		c.gone(w, r, err, "site")
		return
	}
	c.render(w, r, http.StatusOK, "remove.html", "Remove "+site.Name, removalView{site, sitePath(site.Name), site.Generation})
}

func (c *Console) removeSite(w http.ResponseWriter, r *http.Request) {
	ref := store.Ref{Kind: upkeep.KindSite, Name: r.PathValue("name")}
	generation, err := strconv.ParseInt(r.PostForm.Get("generation"), 10, 64)
	if err != nil || generation < 1 {
		c.fault(w, r, http.StatusBadRequest, "A generation is a number.")
		return
	}
	if err := c.o.Hosting.Bounds.Delete(r.Context(), map[store.Ref]int64{ref: generation}, ref); err != nil {
		c.refusedChange(w, r, err, "site")
		return
	}
	http.Redirect(w, r, "/sites", http.StatusSeeOther)
}
