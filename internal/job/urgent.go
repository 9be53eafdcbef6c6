package job

import (
	"context"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/task"
)

// givenWay says why a job ended that made room for a newer one.
const givenWay = "it waited for its server's turn to reload, and a newer change that takes the site down could not wait with it"

// hasten has servers give up older work on sites that are to be taken down, where
// that waits for another server to have reloaded: nobody waits with taking a site
// down.
func (d *Dispatcher) hasten(changed []upkeep.Job) {
	waiting := map[*session][]upkeep.Job{}
	d.mu.Lock()
	for _, job := range changed {
		if job.State != upkeep.JobPending || job.Kind != upkeep.JobSiteApply {
			continue
		}
		if s := d.sessions[job.Server]; s != nil {
			waiting[s] = append(waiting[s], job)
		}
	}
	d.mu.Unlock()
	for s, jobs := range waiting {
		if older := s.holding(jobs); len(older) > 0 {
			go s.giveWay(older) // it reads from the database, and a commit is not to wait for that
		}
	}
}

// holding are, by the names of their sites, the jobs that the agent has been told
// to wait with and that others are about.
func (s *session) holding(jobs []upkeep.Job) map[store.Ref]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var older map[store.Ref]int64
	held := map[string]int64{}
	for id, h := range s.held {
		if apply, is := h.parcel.payload.(task.SiteApply); is && h.sent && !h.ending && apply.Hold > 0 {
			held[h.parcel.job.Object] = id
		}
	}
	for _, job := range jobs {
		if id := held[job.Object]; id != 0 && id != job.ID {
			if older == nil {
				older = map[store.Ref]int64{}
			}
			older[object(job)] = id
		}
	}
	return older
}

// giveWay cancels the jobs whose sites are declared suspended by now.
func (s *session) giveWay(older map[store.Ref]int64) {
	ctx, cancel := context.WithTimeout(context.Background(), again)
	defer cancel()
	for name, id := range older {
		down, err := s.d.suspended(ctx, name)
		if err != nil {
			s.log.Warn("a site that is to be taken down waits for its turn", "site", name.Name, "err", err)
			return
		}
		if !down {
			continue
		}
		s.mu.Lock()
		if h := s.held[id]; h != nil {
			h.gaveWay = true
		}
		s.mu.Unlock()
		if err := s.cancel(ctx, id); err != nil {
			return // the link is gone, and with it what it held
		}
	}
}

// suspended reports whether a site or its account is declared so.
func (d *Dispatcher) suspended(ctx context.Context, name store.Ref) (bool, error) {
	found, err := d.store.Declared(ctx, []store.Ref{name})
	site, is := found[name].Object.(upkeep.Site)
	if err != nil || !is || site.Suspended {
		return is && site.Suspended, err
	}
	owner := ref(upkeep.KindAccount, site.Account)
	found, err = d.store.Declared(ctx, []store.Ref{owner})
	account, is := found[owner].Object.(upkeep.Account)
	return is && account.Suspended, err
}

// superseded is the outcome of a job that gave way.
func superseded(told link.Outcome) link.Outcome {
	told.State, told.Error = upkeep.JobSuperseded, givenWay
	return told
}
