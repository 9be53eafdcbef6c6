package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/names"
	"upkeep/internal/store"
	"upkeep/internal/watch"
)

// Bounds does what callers ask for about sites and jobs, and keeps customers to
// what is their account's: what is another's is not there. It is what routes that
// customers may use, and their pages, ask; they ask nothing else. Who the caller is
// comes with the context.
type Bounds struct {
	declarer Declarer
	sites    Sites
	jobs     Jobs
}

// NewBounds makes the bounds around what an API offers.
func NewBounds(declarer Declarer, sites Sites, jobs Jobs) *Bounds {
	return &Bounds{declarer: declarer, sites: sites, jobs: jobs}
}

func absent(kind, name string) error {
	return upkeep.WithHint(fmt.Errorf("%s %s: %w", kind, upkeep.Printable(name), upkeep.ErrNotFound), "upkeep "+kind+" list shows those that there are")
}

// Apply declares objects, as [Declarer].
func (b *Bounds) Apply(ctx context.Context, still map[store.Ref]int64, objects []upkeep.Object, dry bool) (watch.Applied, error) {
	c := access.From(ctx)
	if !c.Staff {
		var err error
		if still, err = b.customerApplies(ctx, c, still, objects); err != nil {
			return watch.Applied{}, err
		}
	}
	applied, err := b.declarer.ApplyIf(ctx, c.Who, still, objects, dry)
	if !c.Staff {
		applied.Warnings = nil // they are about others
		err = discreet(c, err)
	}
	return applied, err
}

// customerApplies checks what a customer declares. The generations that it returns
// make the change one to what was checked, whoever changes it meanwhile.
func (b *Bounds) customerApplies(ctx context.Context, c access.Caller, still map[store.Ref]int64, objects []upkeep.Object) (map[store.Ref]int64, error) {
	seen := map[store.Ref]int64{}
	var changes []access.Change
	var broken []upkeep.FieldError
	for _, object := range objects {
		ref := store.RefOf(object)
		site, is := object.(upkeep.Site)
		if !is {
			broken = append(broken, upkeep.FieldError{Object: ref.String(), Field: "kind", Value: ref.Kind, Rule: "is for staff to declare; yours are sites"})
			continue
		}
		change := access.Change{Would: site}
		present, generation, err := b.present(ctx, site.Name)
		if err != nil {
			return nil, err
		}
		change.Is, seen[ref] = present, generation
		changes = append(changes, change)
	}
	staffOnly, err := b.staffOnly(ctx)
	if err != nil {
		return nil, err
	}
	if broken = append(broken, access.CheckSites(c, changes, staffOnly)...); len(broken) > 0 {
		return nil, &upkeep.InvalidError{Fields: broken}
	}
	for ref, generation := range still {
		if is, among := seen[ref]; among {
			if err := store.Still(ref, is, generation); err != nil {
				return nil, err
			}
		}
	}
	return seen, nil
}

// present is a site as it is declared, nil and 0 when it is not.
func (b *Bounds) present(ctx context.Context, name string) (*upkeep.Site, int64, error) {
	if name == "" { // stands for all of them; validation says what is wrong with it
		return nil, 0, nil
	}
	found, err := b.declarer.Objects(ctx, upkeep.KindSite, name)
	if errors.Is(err, upkeep.ErrNotFound) || err == nil && len(found) == 0 {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, err
	}
	site, is := found[0].Object.(upkeep.Site)
	if !is {
		return nil, 0, fmt.Errorf("site %s cannot be read", name)
	}
	return &site, found[0].Generation, nil
}

// staffOnly are the servers that customers do not choose.
func (b *Bounds) staffOnly(ctx context.Context) ([]string, error) {
	servers, err := b.declarer.Objects(ctx, upkeep.KindServer, "")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, found := range servers {
		if server, is := found.Object.(upkeep.Server); is && server.StaffOnly {
			names = append(names, server.Name)
		}
	}
	return names, nil
}

// discreet words an error for a customer: whose a name is, if not theirs, is not
// told.
func discreet(c access.Caller, err error) error {
	var invalid *upkeep.InvalidError
	if !errors.As(err, &invalid) {
		return err
	}
	fields := slices.Clone(invalid.Fields)
	for i := range fields {
		fields[i].Rule = names.Discreet(fields[i].Rule, c.Account)
	}
	return &upkeep.InvalidError{Fields: fields}
}

// Delete removes objects, as [Declarer].
func (b *Bounds) Delete(ctx context.Context, still map[store.Ref]int64, refs ...store.Ref) error {
	c := access.From(ctx)
	if !c.Staff {
		seen := map[store.Ref]int64{}
		for _, ref := range refs {
			if ref.Kind != upkeep.KindSite {
				return absent(ref.Kind, ref.Name)
			}
			site, generation, err := b.present(ctx, ref.Name)
			if err != nil {
				return err
			}
			if site == nil || !c.Owns(site.Account) {
				return absent(ref.Kind, ref.Name)
			}
			if broken := access.CheckRemoval(c, *site); len(broken) > 0 {
				return &upkeep.InvalidError{Fields: broken}
			}
			if want, given := still[ref]; given {
				if err := store.Still(ref, generation, want); err != nil {
					return err
				}
			}
			seen[ref] = generation
		}
		still = seen
	}
	return b.declarer.DeleteIf(ctx, c.Who, still, refs...)
}

// Objects returns what is declared, as [Declarer].
func (b *Bounds) Objects(ctx context.Context, kind, name string) ([]upkeep.Declared, error) {
	c := access.From(ctx)
	if !c.Staff && kind != upkeep.KindSite {
		if name != "" {
			return nil, absent(kind, name)
		}
		return nil, nil
	}
	found, err := b.declarer.Objects(ctx, kind, name)
	if err != nil || c.Staff {
		return found, err
	}
	found = slices.DeleteFunc(slices.Clone(found), func(d upkeep.Declared) bool {
		site, is := d.Object.(upkeep.Site)
		return !is || !c.Owns(site.Account)
	})
	if name != "" && len(found) == 0 {
		return nil, absent(kind, name)
	}
	return found, nil
}

// SitePage returns a part of the list of sites.
func (b *Bounds) SitePage(ctx context.Context, f upkeep.SiteFilter) (upkeep.SitePage, error) {
	c := access.From(ctx)
	if !c.Staff {
		if f.Account != "" && f.Account != c.Account {
			return upkeep.SitePage{Counts: map[string]int{}}, nil
		}
		f.Account = c.Account
	}
	return b.sites.SitePage(ctx, f)
}

// Site returns one.
func (b *Bounds) Site(ctx context.Context, name string) (upkeep.SiteStatus, error) {
	site, err := b.sites.Site(ctx, name)
	if err == nil && !access.From(ctx).Owns(site.Account) {
		return upkeep.SiteStatus{}, absent(upkeep.KindSite, name)
	}
	return site, err
}

// History returns the generations of a site, the newest first. A customer sees
// those since the site is theirs: a name may have been somebody else's before.
func (b *Bounds) History(ctx context.Context, name string) ([]store.Version, error) {
	c := access.From(ctx)
	versions, err := b.sites.History(ctx, name)
	if err != nil || c.Staff {
		return versions, err
	}
	own := 0
	for _, v := range versions {
		site, is := v.Object.(upkeep.Site)
		if !is || !c.Owns(site.Account) {
			break
		}
		own++
	}
	if own == 0 {
		return nil, absent(upkeep.KindSite, name)
	}
	return versions[:own], nil
}

// Undo declares a site as it was.
func (b *Bounds) Undo(ctx context.Context, name string, generation, still int64) (upkeep.SiteStatus, error) {
	c := access.From(ctx)
	if c.Staff {
		return b.sites.Undo(ctx, c.Who, name, generation, still)
	}
	versions, err := b.History(ctx, name)
	if err != nil {
		return upkeep.SiteStatus{}, err
	}
	staffOnly, err := b.staffOnly(ctx)
	if err != nil {
		return upkeep.SiteStatus{}, err
	}
	present := versions[0].Object.(upkeep.Site)
	if still != 0 {
		if err := store.Still(store.RefOf(present), versions[0].Generation, still); err != nil {
			return upkeep.SiteStatus{}, err
		}
	}
	target := generation
	for _, v := range versions[1:] {
		if site := v.Object.(upkeep.Site); generation == 0 && !sameSite(site, present) || v.Generation == generation {
			if broken := access.CheckSites(c, []access.Change{{Is: &present, Would: site}}, staffOnly); len(broken) > 0 {
				return upkeep.SiteStatus{}, &upkeep.InvalidError{Fields: broken}
			}
			target = v.Generation
			break
		}
	}
	if !slices.ContainsFunc(versions, func(v store.Version) bool { return v.Generation == target }) {
		return upkeep.SiteStatus{}, fmt.Errorf("an earlier generation of site %s: %w", name, upkeep.ErrNotFound)
	}
	site, err := b.sites.Undo(ctx, c.Who, name, target, versions[0].Generation)
	return site, discreet(c, err)
}

func sameSite(a, b upkeep.Site) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// Preview asks the web servers of the sites among objects what they, as they would
// be, change there, for the accounts among them as these would be. All were checked
// by [Bounds.Apply] as a trial.
func (b *Bounds) Preview(ctx context.Context, objects []upkeep.Object) ([]upkeep.Job, error) {
	c := access.From(ctx)
	for _, object := range objects {
		owner := ""
		switch o := object.(type) {
		case upkeep.Site:
			owner = o.Account
		case upkeep.Account:
			owner = o.Name
		default:
			continue
		}
		if !c.Owns(owner) {
			return nil, absent(upkeep.KindAccount, owner)
		}
	}
	return b.sites.Preview(ctx, c.Who, objects)
}

// Jobs returns jobs, the newest first.
func (b *Bounds) Jobs(ctx context.Context, f store.JobFilter) ([]upkeep.Job, error) {
	c := access.From(ctx)
	if !c.Staff {
		if f.Account != "" && f.Account != c.Account {
			return nil, nil
		}
		f.Account = c.Account
	}
	return b.jobs.List(ctx, f)
}

// Job returns one, with its result.
func (b *Bounds) Job(ctx context.Context, id int64) (upkeep.Job, error) {
	c := access.From(ctx)
	job, err := b.jobs.Show(ctx, id)
	if err != nil || c.Staff {
		return job, err
	}
	if !c.Owns(job.Account) {
		return upkeep.Job{}, noJob(id)
	}
	return own(ctx)(job, nil)
}

// own leaves of a job what its owner is shown.
func own(ctx context.Context) func(upkeep.Job, error) (upkeep.Job, error) {
	return func(job upkeep.Job, err error) (upkeep.Job, error) {
		if !access.From(ctx).Staff {
			job.Result = ownResult(job)
		}
		return job, err
	}
}

func noJob(id int64) error {
	return upkeep.WithHint(fmt.Errorf("job %d: %w", id, upkeep.ErrNotFound), "upkeep job list shows those that there are")
}

// ownResult is what a customer is shown of the result of a job: how files of the
// site would differ. The rest tells of the server and of others on it.
func ownResult(job upkeep.Job) json.RawMessage {
	var own struct {
		Drift map[string]string `json:"drift,omitempty"`
	}
	if job.Kind != upkeep.JobSiteSync || json.Unmarshal(job.Result, &own) != nil {
		return nil
	}
	text, err := json.Marshal(own)
	if err != nil {
		return nil
	}
	return text
}

// Retry, Read and Cancel do to a job what [Jobs] does, if it is the caller's.
func (b *Bounds) Retry(ctx context.Context, id int64) (upkeep.Job, error) {
	if _, err := b.Job(ctx, id); err != nil {
		return upkeep.Job{}, err
	}
	return own(ctx)(b.jobs.Retry(ctx, id, access.From(ctx).Who))
}

// Read ends a notification.
func (b *Bounds) Read(ctx context.Context, id int64) (upkeep.Job, error) {
	if _, err := b.Job(ctx, id); err != nil {
		return upkeep.Job{}, err
	}
	return own(ctx)(b.jobs.Read(ctx, id, access.From(ctx).Who))
}

// Cancel gives a job up.
func (b *Bounds) Cancel(ctx context.Context, id int64) (upkeep.Job, error) {
	if _, err := b.Job(ctx, id); err != nil {
		return upkeep.Job{}, err
	}
	return own(ctx)(b.jobs.Cancel(ctx, id, access.From(ctx).Who))
}
