package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"upkeep"
	"upkeep/internal/policy"
	"upkeep/internal/task"
)

// trashFolder is where the folders of removed sites go, in the home of their
// account. It is root's alone.
const trashFolder = ".trash"

// siteRemove takes a site out of the web server, if there is one here, and then moves its folder to
// the trash of its account, where it stays until a person empties that.
func siteRemove(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.SiteRemove)
	if r.o.Web == nil && t.KeepFiles {
		_, err := r.web()
		return nil, err
	}
	if err := r.budget.spend(t.Object()); err != nil {
		return nil, err
	}
	if r.o.Web != nil {
		j.step(20, "taking the virtual host away")
		if err := resultError(r.o.Web.Applier.Remove(ctx, t.Name, t.Account, t.Generation)); err != nil {
			return nil, err
		}
	}
	if t.KeepFiles {
		return nil, nil
	}
	if err := r.vacant(ctx, j, t); err != nil {
		return nil, err
	}
	j.step(80, "moving its files to the trash of its account")
	return nil, r.discard(t)
}

// vacant waits until no other site is served from the folder of one that is removed. A
// sub-site whose own move has failed goes on answering here, and needs its pages.
func (r *Root) vacant(ctx context.Context, j job, t task.SiteRemove) error {
	tick := time.NewTicker(nameAgain)
	defer tick.Stop()
	for begin := time.Now(); ; {
		site := r.livesIn(t)
		if site == "" {
			return nil
		}
		if time.Since(begin) > namePatience {
			return upkeep.WithHint(fmt.Errorf("%s does not answer here any more, and its folder stays, since %s is served from it still: %w", t.Name, site, upkeep.ErrConflict),
				"when that one has left this server, retry this job")
		}
		j.step(60, "waiting for %s, which is served from its folder", site)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// livesIn is a site that this server serves from the folder of another, empty for none.
func (r *Root) livesIn(t task.SiteRemove) string {
	if r.o.Web == nil {
		return ""
	}
	return r.applied.servedBelow(filepath.Join(r.o.Web.Layout.Home, t.Account, t.Name)+"/", t.Object())
}

// discard moves the folder of a site to the trash.
func (r *Root) discard(t task.SiteRemove) error {
	account, err := r.roots[policy.Home].Open(t.Account)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has no files here
	}
	if err != nil {
		return err
	}
	defer account.Close()
	private := ownFile()
	private.Mode = 0o700
	trash, _, err := account.Ensure(trashFolder, private)
	if err != nil {
		return err
	}
	defer trash.Close()
	_, err = account.Discard(t.Name, trash, fmt.Sprintf("%s.%s", t.Name, r.o.Now().UTC().Format("20060102T150405.000000000")))
	return err
}
