package api

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

// fakeHosting is the queue and the desk in memory, for what is HTTP's own.
type fakeHosting struct {
	jobs    []upkeep.Job
	sites   []string // names; one may be gone when it is looked at
	gone    string
	filter  store.JobFilter
	asked   []string // what was asked for, by whom
	payload json.RawMessage
	changes chan *upkeep.Job
	fail    error
}

func (f *fakeHosting) note(who, what string) error {
	f.asked = append(f.asked, who+" "+what)
	return f.fail
}

func (f *fakeHosting) one() upkeep.Job {
	if len(f.jobs) == 0 {
		return upkeep.Job{}
	}
	return f.jobs[0]
}

func (f *fakeHosting) List(_ context.Context, filter store.JobFilter) ([]upkeep.Job, error) {
	f.filter = filter
	return f.jobs, f.fail
}

func (f *fakeHosting) Show(context.Context, int64) (upkeep.Job, error) { return f.one(), f.fail }

func (f *fakeHosting) Watch() (<-chan *upkeep.Job, func()) { return f.changes, func() {} }

func (f *fakeHosting) Retry(_ context.Context, _ int64, who string) (upkeep.Job, error) {
	return f.one(), f.note(who, "retry")
}

func (f *fakeHosting) Cancel(_ context.Context, _ int64, who string) (upkeep.Job, error) {
	return f.one(), f.note(who, "cancel")
}

func (f *fakeHosting) Read(_ context.Context, _ int64, who string) (upkeep.Job, error) {
	return f.one(), f.note(who, "read")
}

func (f *fakeHosting) Run(_ context.Context, kind string, payload json.RawMessage, server, who string) (upkeep.Job, error) {
	f.payload = payload
	return f.one(), f.note(who, kind+" on "+server)
}

func (f *fakeHosting) SitePage(_ context.Context, filter upkeep.SiteFilter) (page upkeep.SitePage, _ error) {
	for _, name := range f.sites { // in the order of names
		if filter.ByName && name <= filter.After {
			continue
		}
		if page.Of++; page.Of <= filter.Limit {
			page.Last = name
			if name != f.gone {
				page.Sites = append(page.Sites, upkeep.SiteStatus{Name: name})
			}
		}
	}
	return page, f.note("", fmt.Sprintf("%d sites of %q after %q", filter.Limit, filter.Account, filter.After))
}

func (f *fakeHosting) Site(_ context.Context, name string) (upkeep.SiteStatus, error) {
	return upkeep.SiteStatus{Name: name}, f.fail
}

func (f *fakeHosting) History(_ context.Context, name string) ([]store.Version, error) {
	return []store.Version{
		{Generation: 2, Who: "uid 0", At: time.Unix(2, 0).UTC()},
		{Generation: 1, Who: "uid 0", At: time.Unix(1, 0).UTC(), Object: upkeep.Site{Name: name, Account: "acme", Servers: []string{"web1"}}},
	}, f.fail
}

func (f *fakeHosting) Undo(_ context.Context, who, name string, generation, still int64) (upkeep.SiteStatus, error) {
	if still > 2 {
		return upkeep.SiteStatus{}, upkeep.ErrChanged
	}
	return upkeep.SiteStatus{Name: name, Generation: generation}, f.note(who, "undo "+name)
}

func (f *fakeHosting) Preview(_ context.Context, who string, objects []upkeep.Object) ([]upkeep.Job, error) {
	for _, object := range objects {
		f.asked = append(f.asked, who+" preview "+object.ObjectName())
	}
	return f.jobs, f.fail
}

func (f *fakeHosting) Servers(context.Context) ([]upkeep.AgentStatus, error) { return nil, f.fail }

func (f *fakeHosting) Images(_ context.Context, server string) ([]upkeep.ImageList, error) {
	return []upkeep.ImageList{{Server: "vm1", Images: []upkeep.ImageFile{{Root: "vms", Path: "web1.img", Size: 4 << 30}}}}, f.note("", "images of "+server)
}

func (f *fakeHosting) Invite(_ context.Context, who, server string) (string, time.Time, error) {
	return "token-of-" + server, time.Unix(3600, 0).UTC(), f.note(who, "invite "+server)
}

func (f *fakeHosting) Listen() string { return "192.0.2.1:8055" }

func (f *fakeHosting) Revoke(_ context.Context, who, server string) error {
	return f.note(who, "revoke "+server)
}

func (f *fakeHosting) Regenerate(_ context.Context, server, who string) (upkeep.Job, error) {
	return f.one(), f.note(who, "regenerate "+server)
}

func (f *fakeHosting) Verify(_ context.Context, server, who string) (upkeep.Job, error) {
	return f.one(), f.note(who, "verify "+server)
}
