package webserver

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"upkeep"
)

// Why sites are astray.
const (
	setAside = "its file did not pass the web server's test any more, and was put back to what it last answered with, or taken away"
	waits    = "the web server did not run when it was applied"
)

// Astray is a site that is not served as it was applied last.
type Astray struct {
	Why string
	// InForce is the generation that it answers with when the server has read its
	// files; 0 for none.
	InForce int64
}

// noteAstray makes what is known of sites that went astray known to others.
func (a *Applier) noteAstray() {
	astray := map[string]Astray{}
	for site, e := range a.manifest.Sites {
		if e.Astray != "" {
			astray[site] = Astray{e.Astray, e.InForce}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.astray = astray
}

// Astray are the sites that are not served as they were applied last, and that are
// worth another try: a file of theirs was set aside since, or
// the web server did not run then and does now.
func (a *Applier) Astray() map[string]Astray {
	a.mu.Lock()
	astray := maps.Clone(a.astray)
	a.mu.Unlock()
	if len(astray) == 0 {
		return nil
	}
	if _, err := a.o.Server.Process(); err != nil {
		maps.DeleteFunc(astray, func(_ string, one Astray) bool { return one.Why == waits })
	}
	return astray
}

// spoken forgets that a site went astray: the job that failed says why it is not
// served. It reports whether there was anything to forget.
func (c *change) spoken() bool {
	if c.input == nil || c.before == nil || c.before.Astray == "" || errors.Is(c.err, errNotRunning) {
		return false
	}
	c.before.Astray, c.before.InForce = "", 0
	return true
}

// unanswered has sites fail, in a verification, whose files are as declared and
// that have never been seen to answer with them.
func (r *round) unanswered(ctx context.Context) {
	if r.whole.partial {
		return
	}
	if r.running {
		r.alreadyLive(ctx)
	}
	for _, c := range r.live() {
		if !c.unproven || c.input == nil || len(c.writes)+len(c.removes) > 0 {
			continue
		}
		why := "the web server does not answer with them"
		if !r.running {
			why = "the web server does not run"
		}
		c.fail(upkeep.WithHint(fmt.Errorf("its files are as declared, but %s", why), "upkeep regenerate has it tried again"))
	}
}
