package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/task"
)

// List returns jobs, the newest first.
func (d *Dispatcher) List(ctx context.Context, f store.JobFilter) ([]upkeep.Job, error) {
	jobs, err := d.store.Jobs(ctx, f)
	return d.told(jobs...), err
}

// Show returns one job with its result, or [upkeep.ErrNotFound].
func (d *Dispatcher) Show(ctx context.Context, id int64) (upkeep.Job, error) {
	job, err := d.store.Job(ctx, id)
	return d.told(job)[0], err
}

// Pending returns what is still being done for an account, and the messages that
// it has not read, the newest first.
func (d *Dispatcher) Pending(ctx context.Context, account string) ([]upkeep.Job, error) {
	return d.List(ctx, store.JobFilter{Account: account, States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}})
}

// Watch returns each job as it is made and whenever it changes, until the
// returned function is called. The channel is closed on a reader that falls too
// far behind, and at the end.
func (d *Dispatcher) Watch() (<-chan *upkeep.Job, func()) { return d.news.subscribe() }

// Await waits for the end of a job, and returns it with its result.
func (d *Dispatcher) Await(ctx context.Context, id int64) (upkeep.Job, error) {
	for {
		jobs, stop := d.Watch()
		job, err := d.awaitIn(ctx, jobs, id)
		stop()
		if err != nil || job.State.Ended() {
			return job, err
		}
	}
}

// awaitIn waits in what is told of jobs; it returns a job that has not ended when
// nothing more is told.
func (d *Dispatcher) awaitIn(ctx context.Context, jobs <-chan *upkeep.Job, id int64) (upkeep.Job, error) {
	job, err := d.Show(ctx, id) // it may have ended before the watch began
	for err == nil && !job.State.Ended() {
		select {
		case told, more := <-jobs:
			if !more && d.closing() {
				return job, errClosing
			}
			if !more {
				return job, nil
			}
			if told.ID == id && told.State.Ended() {
				return d.Show(ctx, id)
			}
		case <-ctx.Done():
			return job, ctx.Err()
		}
	}
	return job, err
}

// Retry makes a job that failed or was cancelled pending once more, see
// [store.Store.RetryJob]. It returns [upkeep.ErrNotFound] when its server is not
// declared any more.
func (d *Dispatcher) Retry(ctx context.Context, id int64, who string) (upkeep.Job, error) {
	job, err := d.store.Job(ctx, id)
	if err != nil {
		return job, err
	}
	if job.Server != "" {
		if _, err := d.server(ctx, job.Server); err != nil {
			return upkeep.Job{}, fmt.Errorf("retrying job %d: %w", id, err)
		}
	}
	job, err = d.store.RetryJob(ctx, id, who)
	return d.told(job)[0], err
}

// Read ends a notification.
func (d *Dispatcher) Read(ctx context.Context, id int64, who string) (upkeep.Job, error) {
	return d.store.ReadJob(ctx, id, who)
}

// Cancel cancels a pending job. Of a running one the agent is asked to give it
// up: what is returned is running still, and ends by what the agent says.
func (d *Dispatcher) Cancel(ctx context.Context, id int64, who string) (upkeep.Job, error) {
	job, err := d.store.CancelJob(ctx, id, who)
	if err != nil || job.State != upkeep.JobRunning {
		return job, err
	}
	d.mu.Lock()
	s := d.sessions[job.Server]
	d.mu.Unlock()
	if s == nil {
		return job, nil // its link has just broken, and it is being put back
	}
	return job, s.cancel(ctx, id)
}

// Links returns what is known of the links to agents, by server: of those that
// are there, and that were since the start.
func (d *Dispatcher) Links() map[string]Presence {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make(map[string]Presence, len(d.seen)+len(d.sessions))
	for server, presence := range d.seen {
		all[server] = presence
	}
	for _, s := range d.sessions {
		all[s.server] = s.presence()
	}
	return all
}

// Disconnect breaks the link to a server's agent, if there is one: its
// certificate was revoked, or it was removed.
func (d *Dispatcher) Disconnect(server string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.sessions[server]; s != nil {
		_ = s.conn.Close() // its own Serve says how it ended
	}
}

// derived are the kinds whose jobs follow from declared things alone, with what
// to do instead of asking for one.
var derived = map[string]string{
	upkeep.JobSiteApply:   "have its server put right with: upkeep regenerate SERVER",
	upkeep.JobSiteFiles:   "have its server put right with: upkeep regenerate SERVER",
	upkeep.JobSiteRemove:  "remove the site with: upkeep site remove NAME",
	upkeep.JobZonePublish: "zones are published when their pools change; see: upkeep zone status",
}

// Run makes a job of a kind for a server on behalf of who. The payload is the
// kind's own, as JSON. It returns an [upkeep.InvalidError] when it breaks a rule,
// [upkeep.ErrNotFound] when the server is not declared, [upkeep.ErrRefused] for
// kinds that follow from declared things alone, and [upkeep.ErrConflict] for
// emptying a server that something still uses.
func (d *Dispatcher) Run(ctx context.Context, kind string, payload json.RawMessage, server, who string) (upkeep.Job, error) {
	if instead, is := derived[kind]; is {
		return upkeep.Job{}, upkeep.WithHint(fmt.Errorf("running a %s job: such jobs follow from what is declared: %w", kind, upkeep.ErrRefused), instead)
	}
	if len(payload) == 0 {
		payload = json.RawMessage("{}") // there are kinds that need no more
	}
	payload, err := d.numbered(ctx, kind, payload)
	if err != nil {
		return upkeep.Job{}, err
	}
	decoded, err := task.Decode(kind, payload)
	if err != nil {
		return upkeep.Job{}, readable(kind, err)
	}
	if err := d.able(ctx, kind, server); err != nil {
		return upkeep.Job{}, err
	}
	if kind == upkeep.JobServerPurge {
		// Only a server that could be removed is emptied.
		if _, err := d.store.Apply(ctx, who, store.Change{Delete: []store.Ref{ref(upkeep.KindServer, server)}, DryRun: true}); err != nil {
			return upkeep.Job{}, err
		}
	}
	job := upkeep.Job{Account: owner(decoded), Server: server, Kind: kind, Object: decoded.Object(), Who: who}
	made, err := d.store.AskFor(ctx, store.NewJob{Job: job, Payload: encode(decoded)})
	return d.told(made)[0], err
}

// readable makes an error about a payload one about what a person typed.
func readable(kind string, err error) error {
	var invalid *upkeep.InvalidError
	if errors.As(err, &invalid) {
		return err
	}
	if !slices.Contains(task.Kinds(), kind) {
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "kind", Value: kind, Rule: "must be one of " + strings.Join(task.Kinds(), ", ")}}}
	}
	return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "payload", Rule: err.Error()}}}
}

// numbered fills in the number of the account whose user is to be made or removed.
// A payload that cannot be read is left to be refused.
func (d *Dispatcher) numbered(ctx context.Context, kind string, payload json.RawMessage) (json.RawMessage, error) {
	var asked task.Tenant
	if kind != upkeep.JobUserEnsure && kind != upkeep.JobUserRemove || json.Unmarshal(payload, &asked) != nil || !upkeep.ValidAccount(asked.Account) {
		return payload, nil
	}
	name := ref(upkeep.KindAccount, asked.Account)
	found, err := d.store.Declared(ctx, []store.Ref{name})
	if err != nil {
		return nil, err
	}
	account, is := found[name].Object.(upkeep.Account)
	switch {
	case is && (kind == upkeep.JobUserEnsure || asked.UID == 0):
		asked = tenant(account)
	case is || kind == upkeep.JobUserRemove && asked.UID != 0:
		return payload, nil
	case kind == upkeep.JobUserRemove:
		if asked.UID, err = d.store.AccountNumber(ctx, asked.Account); err != nil {
			return nil, err
		}
	default:
		return nil, upkeep.WithHint(fmt.Errorf("account %s: %w", asked.Account, upkeep.ErrNotFound), "declare it first: its user gets the number of the account")
	}
	if kind == upkeep.JobUserRemove {
		return encode(task.UserRemove{Tenant: asked}), nil
	}
	return encode(task.UserEnsure{Tenant: asked}), nil
}

// able refuses jobs that no agent would get, or take.
func (d *Dispatcher) able(ctx context.Context, kind, server string) error {
	if kind == upkeep.JobNotification {
		if server != "" {
			return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "server", Value: server, Rule: "must be left out: notifications are for accounts, not for servers"}}}
		}
		return nil
	}
	is, err := d.server(ctx, server)
	if err != nil {
		return err
	}
	if role := task.Role(kind); role != "" && !slices.Contains(is.Roles, role) {
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "server", Value: server,
			Rule: fmt.Sprintf("must have the role %s for %s jobs; it has %s", role, kind, strings.Join(is.Roles, ", "))}}}
	}
	return nil
}

// server is a declared server, or [upkeep.ErrNotFound].
func (d *Dispatcher) server(ctx context.Context, server string) (upkeep.Server, error) {
	name := ref(upkeep.KindServer, server)
	found, err := d.store.Declared(ctx, []store.Ref{name})
	if err != nil {
		return upkeep.Server{}, err
	}
	is, declared := found[name].Object.(upkeep.Server)
	if !declared {
		return is, upkeep.WithHint(fmt.Errorf("server %s: %w", server, upkeep.ErrNotFound), "list those that there are with: upkeep server list")
	}
	return is, nil
}

// owner is the account whose people see a job.
func owner(payload task.Payload) string {
	switch p := payload.(type) {
	case task.Mkdir:
		if upkeep.ValidAccount(p.Owner) {
			return p.Owner
		}
	case task.UserEnsure:
		return p.Account
	case task.UserRemove:
		return p.Account
	case task.Notification:
		return p.Account
	}
	return ""
}

// Regenerate has every generated file of a web server made anew.
func (d *Dispatcher) Regenerate(ctx context.Context, server, who string) (upkeep.Job, error) {
	return d.Run(ctx, upkeep.JobSiteSync, encode(task.SiteSync{}), server, who)
}

// Verify has the files of a web server compared with what is declared; the
// result of the job says how they differ.
func (d *Dispatcher) Verify(ctx context.Context, server, who string) (upkeep.Job, error) {
	return d.Run(ctx, upkeep.JobSiteSync, encode(task.SiteSync{Verify: true}), server, who)
}

// Preview has web servers compare the sites among objects, as they would be, with
// what is there; the results of the jobs say how that differs. Each job is about
// one site. The accounts among the objects own them as they would.
func (d *Dispatcher) Preview(ctx context.Context, who string, objects []upkeep.Object) ([]upkeep.Job, error) {
	var refs []store.Ref
	var sites []upkeep.Site
	trial := store.Change{DryRun: true} // which says what number an account would get
	for _, object := range objects {
		switch o := object.(type) {
		case upkeep.Site:
			sites = append(sites, o)
			refs = append(refs, ref(upkeep.KindSite, o.Name), ref(upkeep.KindAccount, o.Account))
		case upkeep.Account:
			trial.Put = append(trial.Put, o)
		}
	}
	found, err := d.store.Declared(ctx, refs)
	if err != nil {
		return nil, err
	}
	if len(trial.Put) > 0 {
		would, err := d.store.Apply(ctx, who, trial)
		if err != nil {
			return nil, err
		}
		for _, change := range would.Altered {
			found[change.Ref] = store.Found{Ref: change.Ref, Declared: upkeep.Declared{Generation: change.Generation, Object: change.New}}
		}
	}
	var jobs []store.NewJob
	for _, site := range sites {
		account, is := found[ref(upkeep.KindAccount, site.Account)].Object.(upkeep.Account)
		if !is {
			return nil, upkeep.WithHint(fmt.Errorf("account %s: %w", site.Account, upkeep.ErrNotFound), "declare the account first: files carry its number")
		}
		present := found[ref(upkeep.KindSite, site.Name)]
		generation := present.Generation
		if !reflect.DeepEqual(present.Object, upkeep.Object(site)) {
			generation++
		}
		look := task.SiteSync{Sites: []task.SiteApply{applyOf(site, account, generation)}, Verify: true, Partial: true}
		for _, server := range site.Servers {
			if err := d.able(ctx, look.Kind(), server); err != nil {
				return nil, err
			}
			job := upkeep.Job{Account: site.Account, Server: server, Kind: look.Kind(), Object: look.Object(), Who: who}
			jobs = append(jobs, store.NewJob{Job: job, Payload: encode(look)})
		}
	}
	return d.store.Enqueue(ctx, jobs...)
}
