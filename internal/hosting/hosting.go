// Package hosting answers what people ask about sites and servers, from the
// declared rows, the queue of jobs and the links to agents, and does what they
// ask for there. It decides nothing of its own: what follows from a change is
// package job's, what is right on a server is its agent's.
package hosting

import (
	"context"

	"upkeep"
	"upkeep/internal/job"
	"upkeep/internal/store"
	"upkeep/internal/watch"
)

// Declarer stores what people declare.
type Declarer interface {
	ApplyIf(ctx context.Context, who string, still map[store.Ref]int64, objects []upkeep.Object, dryRun bool) (watch.Applied, error)
}

// Desk is where people ask.
type Desk struct {
	Store    *store.Store
	Jobs     *job.Dispatcher
	Declarer Declarer
	// Agents lets agents in, with tokens of Inviter; nil where none but the one in
	// this process is taken.
	Agents  Agents
	Inviter Inviter
	// Address is where agents connect, for people to read.
	Address string
	// Notice records what a person should know.
	Notice func(object, what, why string)
	// Announce is told of events that were written here; nil for nobody.
	Announce func([]upkeep.Event)
}

// SitePage returns what is being done about the sites on a part of the list of them.
func (d *Desk) SitePage(ctx context.Context, f upkeep.SiteFilter) (upkeep.SitePage, error) {
	return d.Jobs.SitePage(ctx, f)
}

// Site returns what is being done about one, or [upkeep.ErrNotFound].
func (d *Desk) Site(ctx context.Context, name string) (upkeep.SiteStatus, error) {
	return d.Jobs.SiteStatus(ctx, name)
}

// Preview asks the web servers of sites, as they would be, what that changes
// there.
func (d *Desk) Preview(ctx context.Context, who string, objects []upkeep.Object) ([]upkeep.Job, error) {
	return d.Jobs.Preview(ctx, who, objects)
}

// Regenerate has every generated file of a web server made anew.
func (d *Desk) Regenerate(ctx context.Context, server, who string) (upkeep.Job, error) {
	return d.Jobs.Regenerate(ctx, server, who)
}

// Verify has the files of a web server compared with what is declared.
func (d *Desk) Verify(ctx context.Context, server, who string) (upkeep.Job, error) {
	return d.Jobs.Verify(ctx, server, who)
}
