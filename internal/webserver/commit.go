package webserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"upkeep"
	"upkeep/internal/vhost"
)

// commit moves what passed its test into place, has the server read it, and asks
// the sites.
func (r *round) commit(ctx context.Context) error {
	reload := r.reloads()
	settles := r.settles()
	if err := r.move(); err != nil {
		r.doubt()
		return errors.Join(fmt.Errorf("moving files into their places: %w", err), r.putBack(r.live()))
	}
	r.step("move")
	r.reloadPools(ctx)
	if !reload {
		return nil
	}
	if err := r.lookAgain(ctx); err != nil {
		r.doubt()
		return errors.Join(err, r.putBack(r.live()))
	}
	if err := r.reload(ctx); err != nil {
		r.doubt()
		return fmt.Errorf("reloading the web server: %w", err)
	}
	r.count(func(s *Stats) { s.Reloads++ })
	deadline := r.deadline()
	stall, err := r.settled(ctx, deadline, settles)
	r.pace.reload(time.Now(), stall)
	r.count(func(s *Stats) { s.Stall = stall })
	if err != nil {
		return r.afterFailedReload(ctx, deadline, err)
	}
	r.step("reload")
	r.proveAll(ctx, deadline)
	r.step("prove")
	return nil
}

// reload has the server read its files. One that does not run reads them when it
// starts: it is started where it is upkeep's own, and waited for where a service
// manager brings it back. A server that was waited for in vain is not waited for
// again until it was seen.
func (r *round) reload(ctx context.Context) error {
	err := r.o.Server.Reload(ctx)
	if !errors.Is(err, errNotRunning) {
		r.away = false
		return err
	}
	if starter, can := r.o.Server.(interface{ Start(context.Context) error }); can {
		if err := starter.Start(ctx); err != nil {
			return err
		}
		// One that was being started may have read its files before the move.
		return untilRunning(ctx, r.o.Patience, func() error { return r.o.Server.Reload(ctx) })
	}
	if !r.away {
		r.o.Logger.Warn("the web server does not run; it is waited for", "err", err)
		err = untilRunning(ctx, r.o.Patience, func() error { return r.o.Server.Reload(ctx) })
	}
	if r.away = errors.Is(err, errNotRunning); r.away {
		return upkeep.WithHint(err, "start it; it then reads what is in place. After that, have it proven with: upkeep regenerate")
	}
	return err
}

// untilRunning tries to signal a server until it runs, or the patience is at an
// end.
func untilRunning(ctx context.Context, patience time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try()
		if !errors.Is(err, errNotRunning) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// move puts files in their places.
func (r *round) move() error {
	dirs := map[string]bool{}
	for _, c := range append([]*change{r.common}, r.live()...) {
		for i := range c.writes {
			w := &c.writes[i]
			c.moved = true
			if err := os.Rename(w.temp, w.place); err != nil {
				return err
			}
			w.temp = ""
			r.placed(w.place)
			r.found[w.place] = found{r.stamp(w.file.Path), c.sumOf(w.file.Path)}
			dirs[filepath.Dir(w.place)] = true
		}
		r.count(func(s *Stats) { s.Writes += len(c.writes) + len(c.removes) })
		for _, path := range c.removes {
			c.moved = true
			place := r.layout.Place(path)
			if err := removeAll(place); err != nil {
				return err
			}
			r.placed(place)
			delete(r.found, place)
			dirs[r.leave(filepath.Dir(place))] = true
		}
	}
	if r.whole != nil {
		if err := r.whole.sweepStrays(r); err != nil {
			return err
		}
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil && !errors.Is(err, os.ErrNotExist) { // it may have become empty
			return err
		}
	}
	return nil
}

// leave removes a folder of one site's files when it is empty, and returns the
// folder in which something changed.
func (r *round) leave(dir string) string {
	above := filepath.Dir(dir)
	if (above == r.layout.Pages || above == r.layout.Auth) && os.Remove(dir) == nil {
		return above
	}
	return dir
}

// putBack undoes the moves of changes: to the last good version, or to nothing.
func (r *round) putBack(changes []*change) error {
	var all error
	for _, c := range append(slices.Clone(changes), r.common) {
		for _, w := range c.writes {
			if w.temp != "" {
				continue // was not moved
			}
			all = errors.Join(all, r.restore(w.file, w.before))
		}
		c.moved = len(c.removes) > 0 // which are not brought back
	}
	return all
}

// restore puts a text back where a file of ours is, or removes it.
func (r *Applier) restore(f vhost.File, text []byte) error {
	place := r.o.Layout.Place(f.Path)
	if text == nil {
		return removeAll(place)
	}
	group := -1
	if f.Group {
		group = r.o.Layout.Group
	}
	temp, err := stage(place, text, f.Mode, group)
	if err != nil {
		return err
	}
	return os.Rename(temp, place)
}

// vanishes is what shows that the server has taken its configuration anew when no
// site is changed that it could be asked for.
func (r *round) vanishes() expected {
	for _, c := range r.live() {
		for _, path := range c.removes {
			text, err := os.ReadFile(r.layout.Place(path))
			if err != nil || !isSite(path) {
				continue
			}
			if probes := r.o.Server.Renderer().Probes([]vhost.File{{Path: path, Text: text}}); len(probes) > 0 {
				return expected{probes[0], false}
			}
		}
	}
	return expected{r.common.probes[0], true}
}

// afterFailedReload finds out whether the server survived. A server that ended
// over what we gave it gets back what it had, and is started if we may.
func (r *round) afterFailedReload(ctx context.Context, deadline time.Time, cause error) error {
	r.doubt()
	if _, err := r.o.Server.Process(); err == nil {
		r.proveAll(ctx, deadline) // it runs: the fault may be with its sites
		if slices.ContainsFunc(r.changes, func(c *change) bool { return c.input != nil && c.err == nil }) {
			return nil
		}
		return cause
	}
	err := r.putBack(r.live())
	cause = upkeep.WithHint(errors.Join(fmt.Errorf("the web server ended when it was reloaded; its files are as they were before: %w", cause), err),
		"its error log says why; then start it again")
	if starter, can := r.o.Server.(interface{ Start(context.Context) error }); can {
		if err := starter.Start(ctx); err != nil {
			return errors.Join(cause, fmt.Errorf("starting it again: %w", err))
		}
	}
	return cause
}

// doubt makes the next round test everything.
func (r *round) doubt() { r.tested = fingerprint{} }
