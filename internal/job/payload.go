package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/task"
	"upkeep/internal/vhost"
)

// order is what is sent to an agent for a job.
type order struct {
	payload    task.Payload
	generation int64
	// moving are sites that a synchronisation leaves where they are, though they are
	// declared for other servers.
	moving []string
}

// parcel is a job with its order.
type parcel struct {
	job store.ClaimedJob
	order
}

// pointless says that nothing is to be done any more, because of what happened
// since the job was made.
type pointless struct{ why string }

func (e *pointless) Error() string { return e.why }

// declared is what orders are made from, read when they are.
type declared struct {
	found map[store.Ref]store.Found
	// sites are all of them, read for site.sync alone.
	sites []store.Found
	// changing are the sites that jobs are about which have not ended, by server;
	// read for a verification alone.
	changing map[string][]string
	// moving are the sites that a server goes on answering for until those do that
	// they are declared for, by server; read for a regeneration alone.
	moving map[string][]string
}

func ref(kind, name string) store.Ref { return store.Ref{Kind: kind, Name: name} }

// object is the object of a job as a name; "site/example.test" is the site.
func object(job upkeep.Job) store.Ref {
	for _, kind := range []string{upkeep.KindSite, upkeep.KindAccount} {
		if len(job.Object) > len(kind) && job.Object[:len(kind)+1] == kind+"/" {
			return ref(kind, job.Object[len(kind)+1:])
		}
	}
	return store.Ref{}
}

// needs are the declared things that the order of a job is made from.
func needs(job upkeep.Job) []store.Ref {
	switch job.Kind {
	case upkeep.JobSiteApply, upkeep.JobSiteFiles, upkeep.JobSiteRemove:
		return []store.Ref{object(job), ref(upkeep.KindAccount, job.Account)}
	case upkeep.JobUserEnsure, upkeep.JobUserRemove:
		return []store.Ref{object(job)}
	}
	return nil
}

// assemble makes the order of a job from what is declared now. A job that became
// [pointless] is superseded; any other error is why it fails.
func (d declared) assemble(job store.ClaimedJob) (order, error) {
	switch job.Kind {
	case upkeep.JobSiteApply:
		return d.siteApply(job)
	case upkeep.JobSiteFiles:
		return d.siteFiles(job)
	case upkeep.JobSiteRemove:
		return d.siteRemove(job)
	case upkeep.JobSiteSync:
		return d.siteSync(job)
	case upkeep.JobUserEnsure:
		return d.userEnsure(job)
	}
	// What a person asked for, and what publishers hand over, is in the job.
	payload, err := task.Decode(job.Kind, job.Payload)
	if err != nil {
		return order{}, err
	}
	return checked(payload, job.Generation)
}

// checked is an order for a payload that the agent would take.
func checked(payload task.Payload, generation int64) (order, error) {
	if broken := payload.Validate(); len(broken) > 0 {
		return order{}, &upkeep.InvalidError{Fields: broken}
	}
	return order{payload: payload, generation: generation}, nil
}

// site is the site that a job is about, with its owner.
func (d declared) site(job upkeep.Job) (store.Found, upkeep.Site, upkeep.Account, error) {
	name := object(job)
	found, exists := d.found[name]
	switch {
	case !exists:
		return found, upkeep.Site{}, upkeep.Account{}, &pointless{name.Name + " was removed since"}
	case found.Err != nil:
		return found, upkeep.Site{}, upkeep.Account{}, found.Err
	}
	site := found.Object.(upkeep.Site)
	if site.Account != job.Account {
		// The owner was not read; the change that gave it away made a newer job.
		return found, site, upkeep.Account{}, &pointless{name.Name + " belongs to another account since"}
	}
	account, err := d.account(site.Account)
	return found, site, account, err
}

func (d declared) account(name string) (upkeep.Account, error) {
	found, exists := d.found[ref(upkeep.KindAccount, name)]
	switch {
	case !exists:
		return upkeep.Account{}, fmt.Errorf("account %s is not declared", name)
	case found.Err != nil:
		return upkeep.Account{}, found.Err
	}
	return found.Object.(upkeep.Account), nil
}

func tenant(account upkeep.Account) task.Tenant {
	return task.Tenant{Account: account.Name, UID: account.UID}
}

func applyOf(site upkeep.Site, account upkeep.Account, generation int64) task.SiteApply {
	return task.SiteApply{Site: site, Generation: generation, Tenant: tenant(account), Suspended: site.Suspended || account.Suspended}
}

func (d declared) siteApply(job store.ClaimedJob) (order, error) {
	found, site, account, err := d.site(job.Job)
	if err != nil {
		return order{}, err
	}
	if !slices.Contains(site.Servers, job.Server) {
		return order{}, &pointless{fmt.Sprintf("%s is not served by %s any more", site.Name, job.Server)}
	}
	apply := applyOf(site, account, found.Generation)
	apply.Hold = hold(slices.Index(site.Servers, job.Server), apply.Suspended)
	return checked(apply, found.Generation)
}

// stagger is what lies between the reloads of two servers that serve one site, in
// milliseconds: a web server that reloads keeps visitors waiting for a moment, and
// the others should not do so in the same one.
const stagger = 500

// hold is how long a server waits, by its place among those of the site. The first
// never waits, and nobody does with taking a site down.
func hold(place int, suspended bool) int {
	if suspended {
		return 0
	}
	return min(max(place, 0)*stagger, task.MaxHold)
}

func (d declared) siteFiles(job store.ClaimedJob) (order, error) {
	found, site, account, err := d.site(job.Job)
	if err != nil {
		return order{}, err
	}
	if site.Files != job.Server {
		return order{}, &pointless{fmt.Sprintf("%s does not hold the files of %s any more", job.Server, site.Name)}
	}
	return checked(task.SiteFiles{Site: site, Generation: found.Generation, Tenant: tenant(account)}, found.Generation)
}

// siteRemove says by whom and in which generation the site was served; that it
// is not to be any more is seen from what is declared.
func (d declared) siteRemove(job store.ClaimedJob) (order, error) {
	if found, exists := d.found[object(job.Job)]; exists {
		if found.Err != nil {
			return order{}, found.Err
		}
		site := found.Object.(upkeep.Site)
		if slices.Contains(site.Servers, job.Server) {
			return order{}, &pointless{fmt.Sprintf("%s is served by %s again", site.Name, job.Server)}
		}
		var was task.SiteRemove
		if json.Unmarshal(job.Payload, &was) == nil && !was.KeepFiles && site.Files == job.Server && site.Account == was.Account {
			return order{}, &pointless{fmt.Sprintf("%s holds the files of %s again", job.Server, site.Name)}
		}
	}
	payload, err := task.Decode(job.Kind, job.Payload)
	if err != nil {
		return order{}, err
	}
	return checked(payload, job.Generation)
}

func (d declared) siteSync(job store.ClaimedJob) (order, error) {
	var asked task.SiteSync
	if len(job.Payload) > 0 {
		if err := json.Unmarshal(job.Payload, &asked); err != nil {
			return order{}, fmt.Errorf("reading what was asked: %w", err)
		}
	}
	if asked.Partial {
		return checked(asked, job.Generation) // of sites as they would be
	}
	asked.Sites, asked.Keep, asked.Changing = nil, nil, nil
	if asked.Verify {
		asked.Changing = d.changing[job.Server]
		asked.Keep = slices.Clone(asked.Changing)
	}
	var moving []string
	for _, found := range d.sites {
		if slices.Contains(asked.Changing, found.Ref.Name) {
			continue
		}
		if found.Err != nil {
			// Left out it would be taken for a stray.
			asked.Keep = append(asked.Keep, found.Ref.Name)
			continue
		}
		site := found.Object.(upkeep.Site)
		account, err := d.account(site.Account)
		if !slices.Contains(site.Servers, job.Server) {
			if !site.Suspended && !account.Suspended && slices.Contains(d.moving[job.Server], site.Name) {
				moving = append(moving, site.Name)
			}
			continue
		}
		if err != nil || len(tenant(account).Validate()) > 0 {
			// The same for the sites of an account that cannot be read.
			asked.Keep = append(asked.Keep, found.Ref.Name)
			continue
		}
		asked.Sites = append(asked.Sites, applyOf(site, account, found.Generation))
	}
	// The last server that answers for a site is not taken from it.
	asked.Keep = append(asked.Keep, moving...)
	return order{payload: asked, generation: job.Generation, moving: moving}, nil // each site was checked when it was read
}

func (d declared) userEnsure(job store.ClaimedJob) (order, error) {
	account, err := d.account(object(job.Job).Name)
	if err != nil {
		return order{}, err
	}
	return checked(task.UserEnsure{Tenant: tenant(account)}, job.Generation)
}

// batch tells each site.apply of those that are sent to a server together which
// others there are, so that one reload serves them all: that of the first that is
// not to wait.
func batch(parcels []parcel) {
	first, size, hold := int64(0), 0, task.MaxHold
	for _, p := range parcels {
		if p.job.Kind == upkeep.JobSiteApply {
			size++
			if first == 0 {
				first = p.job.ID
			}
		}
		if apply, is := p.payload.(task.SiteApply); is {
			hold = min(hold, apply.Hold)
		}
	}
	for i := range parcels {
		if apply, is := parcels[i].payload.(task.SiteApply); is {
			apply.Batch, apply.BatchSize, apply.Hold = first, size, hold
			parcels[i].payload = apply
		}
	}
}

// older reports whether an outcome is that of another generation, sent under the same
// id before a link broke. Agents up to 1.0 tell it on the next link.
func (p parcel) older(told link.Outcome) bool {
	apply, is := p.payload.(task.SiteApply)
	var result task.SiteResult
	return is && told.State == upkeep.JobDone && json.Unmarshal(told.Result, &result) == nil && result.Generation > 0 && result.Generation < apply.Generation
}

// ending is how an outcome that an agent told ends its job.
func (p parcel) ending(told link.Outcome) store.JobEnd {
	end := store.JobEnd{ID: p.job.ID, State: told.State, Error: told.Error, Field: told.Field}
	if p.generation > p.job.Generation {
		end.Generation = p.generation
	}
	done, site := told.State == upkeep.JobDone, object(p.job.Job).Name
	switch payload := p.payload.(type) {
	case task.SiteApply:
		if done {
			result := task.SiteResult{Generation: p.generation}
			_ = json.Unmarshal(told.Result, &result) // what it does not tell is not known
			result.Name, result.Suspended = site, payload.Suspended
			end.Sites = []store.SiteState{siteState(result)}
		} else if told.State == upkeep.JobFailed {
			if upkeep.ValidHost(told.Holder) && told.Holder != site {
				end.Holder = upkeep.KindSite + "/" + told.Holder
				end.Error += "; it is tried again by itself as soon as a job of that site is done there"
			}
			end.Sites = []store.SiteState{{Site: site, State: upkeep.SiteFailed, Reason: end.Error}}
		}
	case task.SiteRemove:
		if done {
			end.Sites = []store.SiteState{{Site: site}}
		}
	case task.SiteSync:
		end.Result = withLeft(told.Result, p.moving)
		if done && !payload.Verify {
			end.Sites, end.AllSites = syncStates(payload.Sites, told.Result)
			// What is kept is not told of, and is served still.
			end.AllSites = end.AllSites && len(payload.Keep) == 0
			if !end.AllSites {
				end.Sites = append(end.Sites, removedSites(payload.Sites, told.Result)...)
			}
		}
	default:
		if tellsMore(p.job.Kind) {
			end.Result = told.Result
		}
	}
	return end
}

// withLeft is the result of a synchronisation with the sites that it was told to leave
// where they are.
func withLeft(result []byte, moving []string) []byte {
	var told task.SyncResult
	if len(moving) == 0 || json.Unmarshal(result, &told) != nil {
		return result
	}
	told.Left = append(told.Left, moving...)
	if text, err := json.Marshal(told); err == nil {
		return text
	}
	return result
}

// tellsMore reports whether the result of a kind is kept as the agent told it.
func tellsMore(kind string) bool {
	return kind == upkeep.JobServerFacts || kind == upkeep.JobZonePublish || task.Role(kind) == upkeep.RoleImages
}

// syncStates are the states of sites of a server after a sync of these; all is false
// when they may not be those of all.
func syncStates(sites []task.SiteApply, result []byte) (states []store.SiteState, all bool) {
	var told task.SyncResult
	if err := json.Unmarshal(result, &told); err != nil || !filepath.IsAbs(told.Home) || len(told.Home)+len(told.URL) > maxPlace {
		return nil, false
	}
	failed := make(map[string]string, len(told.Failed))
	for _, one := range told.Failed {
		name, is := strings.CutPrefix(one.Object, upkeep.KindSite+"/")
		if one.Object = ""; is {
			failed[name] = one.Error()
		}
	}
	newer := make(map[string]bool, len(told.Newer))
	for _, name := range told.Newer {
		newer[name] = true
	}
	all, layout := len(told.Left) == 0, vhost.Layout{Home: told.Home}
	for _, site := range sites {
		switch reason, fails := failed[site.Site.Name]; {
		case fails:
			states = append(states, store.SiteState{Site: site.Site.Name, State: upkeep.SiteFailed, Reason: reason})
		case newer[site.Site.Name]: // of which its own job tells
			all = false
		default:
			states = append(states, siteState(task.SiteResult{
				Name: site.Site.Name, Generation: site.Generation, URL: told.URL, Suspended: site.Suspended, DocumentRoot: vhost.Input{Site: site.Site, Layout: layout}.DocumentRoot(),
			}))
		}
	}
	return states, all
}

// removedSites are the states of sites that a server has removed at a sync of others.
func removedSites(sites []task.SiteApply, result []byte) (states []store.SiteState) {
	var told task.SyncResult
	if json.Unmarshal(result, &told) != nil {
		return nil
	}
	wanted := make(map[string]bool, len(sites))
	for _, site := range sites {
		wanted[site.Site.Name] = true
	}
	for _, name := range told.Removed {
		if !wanted[name] { // what it was told to serve it tells of elsewhere
			states = append(states, store.SiteState{Site: name})
		}
	}
	return states
}

// maxPlace bounds what an agent says of where its sites are, in bytes: it is written
// down with each of them.
const maxPlace = 1 << 10

func siteState(told task.SiteResult) store.SiteState {
	state := store.SiteState{Site: told.Name, Generation: told.Generation, URL: told.URL, DocumentRoot: told.DocumentRoot, State: upkeep.SiteLive}
	if told.Suspended {
		state.State = upkeep.SiteSuspended
	}
	return state
}

// sentence is an error as its job's owner reads it.
func sentence(err error) (text, field string) {
	var invalid *upkeep.InvalidError
	if errors.As(err, &invalid) && len(invalid.Fields) > 0 {
		return err.Error(), invalid.Fields[0].Field
	}
	return err.Error(), ""
}
