package agent

import (
	"context"
	"errors"
	"time"

	"upkeep"
	"upkeep/internal/task"
	"upkeep/internal/vhost"
	"upkeep/internal/webserver"
)

// siteApply has the web server answer for a site: its user, its folders where
// they are on this server, its files, one reload for all that come at a time, and
// the question to the site itself.
func siteApply(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.SiteApply)
	web, err := r.web()
	if err != nil {
		return nil, err
	}
	if err := r.prepare(ctx, j, t); err != nil {
		return nil, err
	}
	if err := held(ctx, j, time.Duration(t.Hold)*time.Millisecond); err != nil {
		return nil, err
	}
	j.step(40, "writing the virtual host, and asking the site")
	input, key := r.input(web, t), doneOf(j).Sum
	result := web.Applier.Apply(ctx, webserver.Request{Input: input, Key: key, Batch: t.Batch, BatchSize: t.BatchSize})
	for begin := time.Now(); nameTaken(result) && time.Since(begin) < namePatience && ctx.Err() == nil; {
		j.step(50, "waiting for a name: %s", result.Err)
		select {
		case <-ctx.Done():
		case <-time.After(nameAgain):
		}
		result = web.Applier.Apply(ctx, webserver.Request{Input: input, Key: key})
	}
	if err := resultError(result); err != nil {
		return nil, err
	}
	return siteResult(input, result), nil
}

// held waits for as long as control asks a mirror to.
func held(ctx context.Context, j job, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	j.step(30, "waiting %s: servers of one site reload one after the other", wait)
	select {
	case <-ctx.Done():
		return ctx.Err() // nothing was done yet: a job that is cancelled here is just that
	case <-time.After(wait):
		return nil
	}
}

// How long a site waits for a name that another one is to give up, and how often it
// asks. Control has given the name to one site alone, and both jobs are on their way
// here; which comes first is chance where they are of two changes, or one was sent
// again.
const (
	namePatience = 10 * time.Second
	nameAgain    = 250 * time.Millisecond
)

func nameTaken(result webserver.Result) bool {
	var taken *webserver.NameTakenError
	return result.State == upkeep.JobFailed && errors.As(result.Err, &taken)
}

// prepare makes the user of a site and, unless another server has them, its
// folders.
func (r *Root) prepare(ctx context.Context, j job, t task.SiteApply) error {
	if t.Site.Files != "" && t.Site.Files != r.o.Server {
		_, err := r.accounts.ensure(ctx, t.Tenant)
		return err
	}
	return r.folders(ctx, j, t.Site, t.Tenant)
}

func (r *Root) input(web *Web, t task.SiteApply) vhost.Input {
	return vhost.Input{Site: t.Site, Generation: t.Generation, UID: t.Tenant.UID, Suspended: t.Suspended || t.Site.Suspended, Layout: web.Layout}
}

// resultError is why the web server does not answer for a site as it should.
func resultError(result webserver.Result) error {
	switch result.State {
	case upkeep.JobDone:
		return nil
	case upkeep.JobSuperseded:
		return errSuperseded
	}
	return fieldError{result.Err, result.Field}
}

func siteResult(in vhost.Input, result webserver.Result) task.SiteResult {
	return task.SiteResult{Name: in.Site.Name, Generation: in.Generation, URL: result.URL, DocumentRoot: in.DocumentRoot(), Suspended: in.Suspended}
}
