package job

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/store"
)

// SiteStatus says what is being done about a site, or [upkeep.ErrNotFound].
func (d *Dispatcher) SiteStatus(ctx context.Context, name string) (upkeep.SiteStatus, error) {
	all, err := d.sites(ctx, []string{name})
	if err != nil {
		return upkeep.SiteStatus{}, err
	}
	if len(all) == 0 {
		return upkeep.SiteStatus{}, upkeep.WithHint(fmt.Errorf("site %s: %w", name, upkeep.ErrNotFound), "list those that there are with: upkeep site list")
	}
	return all[0], nil
}

// someSites is how many sites are looked at together, where not all are.
const someSites = 200

// sites are the states of some sites, in the order of their names, or of all with
// no names.
func (d *Dispatcher) sites(ctx context.Context, names []string) ([]upkeep.SiteStatus, error) {
	if len(names) == 0 {
		return d.look(ctx, nil)
	}
	var all []upkeep.SiteStatus
	for part := range slices.Chunk(names, someSites) {
		some, err := d.look(ctx, part)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func (d *Dispatcher) look(ctx context.Context, names []string) ([]upkeep.SiteStatus, error) {
	found, err := d.foundSites(ctx, names)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	// In this order: of a job that ends in between, the other way round, neither
	// that it is under way nor what it did would be seen.
	open, err := d.siteJobs(ctx, names, upkeep.JobPending, upkeep.JobRunning)
	if err != nil {
		return nil, err
	}
	states, err := d.store.SiteStates(ctx, "", names...)
	if err != nil {
		return nil, err
	}
	failed, err := d.siteJobs(ctx, names, upkeep.JobFailed)
	if err != nil {
		return nil, err
	}
	suspended, err := d.suspendedAccounts(ctx, found, len(names) > 0)
	if err != nil {
		return nil, err
	}
	know := knowledge{links: d.Links(), states: map[string]map[string]store.SiteState{}, jobs: map[[2]string]upkeep.Job{}, failed: map[[2]string]upkeep.Job{}}
	for _, state := range states {
		know.learn(state)
	}
	for _, job := range open { // the oldest is what is waited for
		know.jobs[[2]string{object(job).Name, job.Server}] = job
	}
	for _, job := range failed { // the newest counts
		key := [2]string{object(job).Name, job.Server}
		if _, newer := know.failed[key]; !newer {
			know.failed[key] = job
		}
	}
	all := make([]upkeep.SiteStatus, 0, len(found))
	for _, one := range found {
		if one.Err != nil {
			all = append(all, damaged(one, know.states[one.Ref.Name]))
			continue
		}
		site := one.Object.(upkeep.Site) // as the kind says
		all = append(all, know.site(site, one.Generation, site.Suspended || suspended[site.Account]))
	}
	return all, nil
}

// suspendedAccounts are those that are, of all accounts or of the owners of some
// sites.
func (d *Dispatcher) suspendedAccounts(ctx context.Context, sites []store.Found, some bool) (map[string]bool, error) {
	suspended := map[string]bool{}
	keep := func(found store.Found) {
		if account, is := found.Object.(upkeep.Account); is && account.Suspended {
			suspended[account.Name] = true
		}
	}
	if !some {
		all, err := d.store.All(ctx, upkeep.KindAccount)
		for _, found := range all {
			keep(found)
		}
		return suspended, err
	}
	var refs []store.Ref
	for _, found := range sites {
		if site, is := found.Object.(upkeep.Site); is && !slices.Contains(refs, ref(upkeep.KindAccount, site.Account)) {
			refs = append(refs, ref(upkeep.KindAccount, site.Account))
		}
	}
	by, err := d.store.Declared(ctx, refs)
	for _, found := range by {
		keep(found)
	}
	return suspended, err
}

// damaged is the state of a site by whose row nothing is done. Its servers go on
// with what they had.
func damaged(found store.Found, states map[string]store.SiteState) upkeep.SiteStatus {
	status := upkeep.SiteStatus{Name: found.Ref.Name, Generation: found.Generation, State: upkeep.SiteFailed, Names: []string{found.Ref.Name}, Servers: []upkeep.ServedStatus{}}
	reason := bounded(found.Err.Error())
	status.Reason = "nothing is done by its row in the database: " + reason
	if site, is := found.Object.(upkeep.Site); is {
		status.Account = site.Account
	}
	for _, server := range slices.Sorted(maps.Keys(states)) {
		state := states[server]
		status.DocumentRoot = state.DocumentRoot
		status.Servers = append(status.Servers, upkeep.ServedStatus{
			Server: server, Generation: state.Generation, URL: state.URL, State: upkeep.SiteFailed, Reason: "goes on with what it had",
		})
	}
	return status
}

// maxReason bounds what is told of a damaged row, and by an agent, in bytes.
const maxReason = 500

// bounded is a reason of others as a state has it.
func bounded(text string) string {
	reason := upkeep.Printable(strings.ReplaceAll(text, "\n", "; "))
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "..."
	}
	return reason
}

func (d *Dispatcher) foundSites(ctx context.Context, names []string) ([]store.Found, error) {
	if len(names) == 0 {
		return d.store.All(ctx, upkeep.KindSite)
	}
	refs := make([]store.Ref, len(names))
	for i, name := range names {
		refs[i] = ref(upkeep.KindSite, name)
	}
	by, err := d.store.Declared(ctx, refs)
	var found []store.Found
	for _, ref := range refs {
		if one, exists := by[ref]; exists {
			found = append(found, one)
		}
	}
	return found, err
}

// siteJobs are the jobs in some states about some sites or all, the newest first.
func (d *Dispatcher) siteJobs(ctx context.Context, names []string, states ...upkeep.JobState) ([]upkeep.Job, error) {
	filter := store.JobFilter{States: states}
	for _, name := range names {
		filter.Objects = append(filter.Objects, ref(upkeep.KindSite, name).String())
	}
	jobs, err := d.store.Jobs(ctx, filter)
	// What failed long ago says nothing of a site any more; what waits does.
	for some := jobs; err == nil && len(some) == store.MaxJobs && states[0] != upkeep.JobFailed; {
		filter.Before = some[len(some)-1].ID
		some, err = d.store.Jobs(ctx, filter)
		jobs = append(jobs, some...)
	}
	return slices.DeleteFunc(jobs, func(j upkeep.Job) bool { return j.Server == "" || object(j).Kind != upkeep.KindSite }), err
}

// knowledge is what the state of sites is made from. Keys are a site and a server.
type knowledge struct {
	links  map[string]Presence
	states map[string]map[string]store.SiteState // by site, then by server
	jobs   map[[2]string]upkeep.Job              // that have not ended
	failed map[[2]string]upkeep.Job
}

func (k knowledge) learn(state store.SiteState) {
	if k.states[state.Site] == nil {
		k.states[state.Site] = map[string]store.SiteState{}
	}
	k.states[state.Site][state.Server] = state
}

// site puts the state of one site together. The whole is as bad as its worst
// server.
func (k knowledge) site(site upkeep.Site, generation int64, suspended bool) upkeep.SiteStatus {
	status := upkeep.SiteStatus{Name: site.Name, Account: site.Account, Generation: generation, Names: site.Names()}
	worst := upkeep.SiteLive
	if suspended {
		worst = upkeep.SiteSuspended
	}
	status.Reason = "answers on " + strings.Join(site.Servers, ", ")
	if suspended {
		status.Reason = "it answers 503 and keeps everything"
	}
	for _, server := range site.Servers {
		served := k.served(site, server, generation, suspended)
		status.Servers = append(status.Servers, served)
		if state, known := k.states[site.Name][server]; known && status.DocumentRoot == "" {
			status.DocumentRoot = state.DocumentRoot
		}
		if rank(served.State) > rank(worst) {
			worst, status.Reason = served.State, server+": "+served.Reason
		}
	}
	for _, served := range k.left(site, generation, suspended) {
		status.Servers = append(status.Servers, served)
		if rank(served.State) > rank(worst) && served.State == upkeep.SiteFailed {
			worst, status.Reason = served.State, served.Server+": "+served.Reason
		}
	}
	status.State = worst
	return status
}

// left are the servers that go on answering for a site that is not declared there
// any more. Until a removal that waits is done, that is as it should be.
func (k knowledge) left(site upkeep.Site, generation int64, suspended bool) (left []upkeep.ServedStatus) {
	for server, state := range k.states[site.Name] {
		if state.Generation == 0 || slices.Contains(site.Servers, server) {
			continue
		}
		served := upkeep.ServedStatus{Server: state.Server, Generation: state.Generation, URL: state.URL, State: upkeep.SiteFailed}
		if job, busy := k.jobs[[2]string{site.Name, server}]; busy {
			served.State, served.Reason = upkeep.SitePending, "it is still there: "+k.waiting(job)
		} else {
			served.Reason = "it is still there, though it is not declared to be; have it put right with: upkeep regenerate " + state.Server
			if awaited := k.awaited(site, generation); len(awaited) > 0 && !suspended {
				served.Reason = "it stays there until it answers on " + strings.Join(awaited, ", ")
			}
		}
		left = append(left, served)
	}
	slices.SortFunc(left, func(a, b upkeep.ServedStatus) int { return strings.Compare(a.Server, b.Server) })
	return left
}

// awaited are the servers that do not answer for a site yet as it is declared.
func (k knowledge) awaited(site upkeep.Site, generation int64) (awaited []string) {
	for _, server := range site.Servers {
		if state := k.states[site.Name][server]; state.Generation < generation || state.State != upkeep.SiteLive {
			awaited = append(awaited, server)
		}
	}
	return awaited
}

func rank(state string) int {
	return slices.Index([]string{upkeep.SiteSuspended, upkeep.SiteLive, upkeep.SitePending, upkeep.SiteFailed}, state)
}

// served is the state of a site on one server.
func (k knowledge) served(site upkeep.Site, server string, generation int64, suspended bool) upkeep.ServedStatus {
	key := [2]string{site.Name, server}
	state := k.states[site.Name][server]
	served := upkeep.ServedStatus{Server: server, Generation: state.Generation, URL: state.URL, State: state.State, Reason: state.Reason}
	job, busy := k.jobs[key]
	files, waits := k.jobs[[2]string{site.Name, site.Files}]
	switch {
	case busy && waits && site.Files != "" && site.Files != server && job.State == upkeep.JobPending:
		served.State, served.Reason = upkeep.SitePending, "its files come first: "+k.waiting(files)
	case busy:
		served.State, served.Reason = upkeep.SitePending, k.waiting(job)
	case state.State == upkeep.SiteFailed:
	case state.Generation < generation:
		served.State = upkeep.SiteFailed
		if job, known := k.failed[key]; known && job.Generation >= generation {
			served.Reason = job.Error // as when what it waited for has failed
			break
		}
		// It was cancelled, or is forgotten.
		served.Reason = fmt.Sprintf("generation %d is not applied there; have it done with: upkeep regenerate %s", generation, server)
	case suspended != (state.State == upkeep.SiteSuspended):
		served.State, served.Reason = upkeep.SiteFailed, "what the server answers is not what is declared; have it put right with: upkeep regenerate "+server
	case k.links[server].webDown() != "":
		served.State = upkeep.SiteFailed
		served.Reason = "nothing is answered there, the web server is down: " + k.links[server].webDown() + "; start it, and the site is called what it was within seconds"
	}
	return served
}

// waiting says what a job waits for.
func (k knowledge) waiting(job upkeep.Job) string {
	switch {
	case job.State == upkeep.JobRunning && job.Progress != "":
		return job.Progress
	case job.State == upkeep.JobRunning:
		return fmt.Sprintf("job %d is being done on %s", job.ID, job.Server)
	case away(job, k.links) != "":
		return fmt.Sprintf("job %d %s", job.ID, away(job, k.links))
	}
	return fmt.Sprintf("job %d waits for its turn on %s", job.ID, job.Server)
}

// away says that a job waits for an agent that is not connected; empty where it
// does not.
func away(job upkeep.Job, links map[string]Presence) string {
	link, known := links[job.Server]
	if job.Server == "" || job.State != upkeep.JobPending || link.Connected {
		return ""
	}
	return fmt.Sprintf("waits for %s, whose agent is not connected%s", job.Server, since(link, known))
}

// told are jobs as people see them, with what those that are pending wait for.
func (d *Dispatcher) told(jobs ...upkeep.Job) []upkeep.Job {
	links := d.Links()
	for i := range jobs {
		jobs[i].Away = away(jobs[i], links)
	}
	return jobs
}
