package webserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"upkeep"
	"upkeep/internal/vhost"
)

// expected is what the server answers, or does not answer any more, once it has
// taken its configuration anew.
type expected struct {
	probe vhost.Probe
	want  bool
}

// settled waits until the server is seen to answer from its new configuration, by
// whichever of the probes that is, and returns how long it let visitors wait. One site
// that something else takes the requests of says nothing about the server: where
// nothing is seen, the longest wait for any answer at all is what is known.
func (r *round) settled(ctx context.Context, deadline time.Time, by []expected) (stall time.Duration, err error) {
	start := time.Now()
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	pause := time.Millisecond
	for i := 0; ; i++ {
		e, asked := by[i%len(by)], time.Now()
		err := r.client.answers(ctx, e.probe, true)
		if (err == nil) == e.want && ctx.Err() == nil {
			return time.Since(start), nil
		}
		stall = max(stall, time.Since(asked))
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("%s still answers for %s", r.client.address, e.probe.Host)
			}
			return stall, err
		case <-time.After(pause):
		}
		if (i+1)%len(by) == 0 {
			pause = min(2*pause, 100*time.Millisecond)
		}
	}
}

// settles is what [round.settled] looks for.
func (r *round) settles() (by []expected) {
	for _, c := range r.unasked() {
		if probes := r.probesOf(c); len(probes) > 0 {
			by = append(by, expected{probes[0], true})
		}
	}
	if len(by) > 0 {
		return by
	}
	return []expected{r.vanishes()}
}

// unasked are the changed sites whose files the server was not seen to answer with.
func (r *round) unasked() []*change {
	return slices.DeleteFunc(r.live(), func(c *change) bool { return c.input == nil || !c.unproven })
}

// proveAll asks every such site, all side by side, until each answers or the
// deadline has passed. Those that answer are told at once: one that does not would have
// them wait for nothing.
func (r *round) proveAll(ctx context.Context, deadline time.Time) {
	waiting := r.unasked()
	for _, c := range waiting {
		c.waits = true
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		last := ctx.Err() != nil || !time.Now().Before(deadline)
		each(waiting, func(c *change) {
			err := r.proveOne(ctx, c, deadline, last)
			switch {
			case err == nil:
				c.waits = false
			case last:
				c.waits = false
				c.fail(err)
				var php *poolError
				if errors.As(err, &php) {
					c.field = "php"
				}
			}
		})
		before := len(waiting)
		waiting = slices.DeleteFunc(waiting, func(c *change) bool { return !c.waits })
		if len(waiting) == 0 {
			return
		}
		if len(waiting) < before {
			r.tellProven()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// askPatience is how long one question may take when the deadline has passed.
const askPatience = time.Second

var errPoolNext = errors.New("its pool was not asked yet")

// proveOne asks once. Pools are asked when all sites were: they may take their time.
func (r *round) proveOne(ctx context.Context, c *change, deadline time.Time, last bool) error {
	if soonest := time.Now().Add(askPatience); deadline.Before(soonest) {
		deadline = soonest
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	fresh := c.asked // what was connected before may be answered from before
	c.asked = true
	for _, p := range r.probesOf(c) {
		if err := r.client.answers(ctx, p, fresh); err != nil {
			return upkeep.WithHint(fmt.Errorf("the server was reloaded, and the site does not answer: %w", err),
				"look whether other configuration of the web server takes its requests, for example a virtual host for one address")
		}
	}
	switch {
	case !c.runsPHP() || c.samePool():
		return nil
	case !fresh && !last:
		return errPoolNext
	}
	return r.provePool(ctx, c)
}

// poolError is about a site's PHP.
type poolError struct{ error }

func (e *poolError) Unwrap() error { return e.error }

// provePool asks the pool of a site, which starts a process of the account's. One that
// takes the request and does not come to it is busy with those of visitors, and not
// dead: its site is none the worse.
func (r *round) provePool(ctx context.Context, c *change) error {
	ctx, cancel := context.WithTimeout(ctx, busyPatience)
	defer cancel()
	err := pingPool(ctx, r.layout.Socket(c.site))
	r.busy.set(c.site, isBusy(err))
	if err == nil {
		return nil
	}
	if isBusy(err) {
		r.o.Logger.Warn("a site's PHP takes requests and is too busy to answer; raise php.children if that lasts", "site", c.site, "after", busyPatience)
		return nil
	}
	return &poolError{upkeep.WithHint(fmt.Errorf("its PHP does not answer: %w", err), "php-fpm's log says why; then retry the job")}
}

// samePool reports whether the pool says what it said when the site last answered with
// it: its first line is another with each change of the site. php-fpm need not take it
// anew then, which would end the requests that run, nor be asked for it.
func (c *change) samePool() bool {
	if c.before == nil || !c.before.Proven {
		return false
	}
	for i, f := range c.files {
		if !isPool(f.Path) {
			continue
		}
		if c.before.Files[f.Path] == c.sums[i] {
			return c.pool() == nil
		}
		w := c.pool()
		return w != nil && c.before.Files[f.Path] == sumOf(w.before) && bytes.Equal(belowFirst(w.before), belowFirst(f.Text))
	}
	return true
}

func belowFirst(text []byte) []byte {
	_, rest, _ := bytes.Cut(text, []byte("\n"))
	return rest
}

// tellProven writes down and tells what is known so far, while others are waited for.
// Where it cannot be written down they are told with the rest.
func (r *round) tellProven() {
	if err := r.finish(); err != nil {
		r.o.Logger.Warn("what was applied is not written down yet", "err", err)
		return
	}
	for _, c := range r.changes {
		if !c.waits {
			r.tell(c)
		}
	}
}

// tell tells those who asked for a change, once.
func (r *round) tell(c *change) {
	if c.told {
		return
	}
	c.told = true
	result := r.resultOf(c)
	for _, req := range c.requests {
		one := result
		if req.generation < c.generation && one.State == upkeep.JobDone {
			one.State = upkeep.JobSuperseded
		}
		req.result <- one
	}
}
