package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/task"
	"upkeep/internal/vhost"
	"upkeep/internal/webserver"
)

// siteSync makes the web server serve the sites of the job and no others, or,
// where it is only to verify, tells how it differs from that.
func siteSync(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.SiteSync)
	web, err := r.web()
	if err != nil {
		return nil, err
	}
	s := syncing{r: r, j: j, t: t, web: web}
	if err := s.compare(); err != nil {
		return nil, err
	}
	if !t.Verify {
		if err := r.budget.spend(s.names()...); err != nil {
			return nil, err
		}
		s.prepare(ctx)
	} else if !t.Partial {
		s.missing()
	}
	j.step(40, "comparing the files of %d sites", len(t.Sites))
	var report webserver.Report
	if t.Partial {
		report = web.Applier.Preview(ctx, s.inputs())
	} else {
		report = web.Applier.Sync(ctx, s.inputs(), t.Verify, t.Keep...)
	}
	if report.Err != nil {
		return nil, report.Err
	}
	if !t.Verify {
		if err := r.applied.record(s.records(report)...); err != nil {
			return nil, err
		}
	}
	return s.result(report), nil
}

// syncing is one site.sync on its way.
type syncing struct {
	r   *Root
	j   job
	t   task.SiteSync
	web *Web
	// gone are the sites that were applied here and are not in the job.
	gone []done
	// known are the sites that were applied here at this very generation, by name.
	known map[string]bool
	// failed are why sites could not be prepared.
	failed map[string]error
}

// siteKinds are the kinds of jobs that say what a web server serves.
var siteKinds = []string{upkeep.JobSiteApply, upkeep.JobSiteRemove}

// compare finds out what the job would change, and refuses one that has become
// too old since it was signed: it would take back what was done meanwhile.
func (s *syncing) compare() error {
	s.known, s.failed = map[string]bool{}, map[string]error{}
	declared := make(map[string]int64, len(s.t.Sites))
	for _, site := range s.t.Sites {
		declared[site.Object()] = site.Generation
	}
	for object, last := range s.r.applied.latest(siteKinds...) {
		generation, is := declared[object]
		if !is && (s.t.Partial || slices.Contains(s.t.Keep, strings.TrimPrefix(object, upkeep.KindSite+"/"))) {
			continue
		}
		switch live := last.Kind == upkeep.JobSiteApply; {
		case is && last.Generation > generation, is && !live && last.Generation == generation && last.Job > s.j.ID, !is && live && last.Job > s.j.ID:
			return fmt.Errorf("%s was changed here (job %d) after this job was made: %w", object, last.Job, errSuperseded)
		case !is && live:
			s.gone = append(s.gone, last)
		case is && live && last.Generation == generation:
			s.known[object] = true
		}
	}
	return nil
}

// names are the objects that the job would remove, in order.
func (s *syncing) names() []string {
	var names []string
	for _, one := range s.gone {
		names = append(names, one.Object)
	}
	slices.Sort(names)
	return names
}

// prepare makes users and folders of the sites that were not applied here at
// this generation, and of those whose pages are gone. One that cannot be prepared
// fails alone.
func (s *syncing) prepare(ctx context.Context) {
	for _, site := range s.t.Sites {
		if s.known[site.Object()] && !s.gonePages(site) {
			continue
		}
		if err := s.r.prepare(ctx, s.j, site); err != nil {
			s.failed[site.Site.Name] = err
		}
	}
}

// missing has sites fail whose pages are gone: their files are as declared, and
// yet they are not served.
func (s *syncing) missing() {
	for _, site := range s.t.Sites {
		if s.known[site.Object()] && s.gonePages(site) {
			s.failed[site.Site.Name] = upkeep.WithHint(errors.New("the folder of its pages is gone"), "upkeep regenerate makes it anew, empty")
		}
	}
}

// gonePages reports whether a folder of pages that this server has to make is not
// there. It looks by path, and so may be lied to by who owns the folders above:
// nothing is done but to look properly.
func (s *syncing) gonePages(site task.SiteApply) bool {
	if site.Site.Files != "" && site.Site.Files != s.r.o.Server {
		return false
	}
	_, err := os.Lstat(s.r.input(s.web, site).DocumentRoot())
	return err != nil
}

// inputs are all sites: one that could not be prepared is served as before, or
// fails where its folder is missing.
func (s *syncing) inputs() []vhost.Input {
	inputs := make([]vhost.Input, len(s.t.Sites))
	for i, site := range s.t.Sites {
		inputs[i] = s.r.input(s.web, site)
	}
	return inputs
}

// records are what is to be remembered of a sync.
func (s *syncing) records(report webserver.Report) []done {
	var all []done
	for _, one := range s.gone {
		all = append(all, done{Object: one.Object, Kind: upkeep.JobSiteRemove, Generation: one.Generation, Job: s.j.ID})
	}
	for _, site := range s.t.Sites {
		if s.known[site.Object()] || s.failed[site.Site.Name] != nil || report.Sites[site.Site.Name].State != upkeep.JobDone {
			continue
		}
		text, err := json.Marshal(site)
		if err != nil {
			continue // what was read from JSON can be written
		}
		all = append(all, doneOf(link.Job{ID: s.j.ID, Kind: site.Kind(), Object: site.Object(), Generation: site.Generation, Payload: text}))
	}
	return all
}

// maxDrift bounds the diffs of a report, in bytes: with all of them it would not
// fit on the link.
const maxDrift = 1 << 20

func (s *syncing) result(report webserver.Report) task.SyncResult {
	told := task.SyncResult{Changing: s.t.Changing}
	for _, in := range s.inputs() {
		name := in.Site.Name
		result, err := report.Sites[name], s.failed[name]
		if err == nil {
			err = resultError(result)
		}
		var about fieldError
		errors.As(err, &about)
		switch {
		case err == nil:
			told.Sites = append(told.Sites, siteResult(in, result))
		case !s.t.Verify || !errors.Is(err, errSuperseded):
			told.Failed = append(told.Failed, upkeep.FieldError{Object: "site/" + name, Field: about.field, Rule: strings.TrimPrefix(plainText(err.Error()), about.field+": ")})
		}
	}
	if report.Down != nil {
		told.Failed = append(told.Failed, upkeep.FieldError{Object: upkeep.KindServer + "/" + s.r.o.Server, Rule: "nothing is answered: " + plainText(report.Down.Error())})
	}
	size, left := 0, 0
	for _, d := range report.Drift {
		if d.Want == nil && d.Site == "" {
			told.Strays = append(told.Strays, d.Path)
			continue
		}
		if size > maxDrift {
			left++
			continue
		}
		text := driftText(d)
		if told.Drift == nil {
			told.Drift = map[string]string{}
		}
		told.Drift[d.Path] = text
		size += len(text)
	}
	if left > 0 {
		told.Drift["..."] = fmt.Sprintf("%d more files differ\n", left)
	}
	slices.Sort(told.Strays)
	if len(told.Strays) > 10_000 {
		told.Strays = told.Strays[:10_000]
	}
	return told
}

// driftText is how a file differs. It is kept with the job and shown to who may
// look at jobs, so hashes of passwords are not in it.
func driftText(d webserver.Drift) string {
	if d.Passwords {
		d.Have, d.Want = hidePasswords(d.Have), hidePasswords(d.Want)
	}
	return string(diff.Diff(d.Path+" (on disk)", d.Have, d.Path+" (declared)", d.Want))
}

// hidePasswords is a file of NAME:HASH lines without what follows the names,
// whatever that is: somebody may have written a password there by hand. Nil stays
// nil, for a file that is not there.
func hidePasswords(text []byte) []byte {
	if text == nil {
		return nil
	}
	hidden := []byte{}
	for line := range bytes.Lines(text) {
		line, end := bytes.CutSuffix(line, []byte("\n"))
		name, secret, found := bytes.Cut(line, []byte(":"))
		if !found {
			name, secret = nil, line
		}
		hidden = fmt.Appendf(hidden, "%s:%s", name, upkeep.HiddenHash(string(secret)))
		if end {
			hidden = append(hidden, '\n')
		}
	}
	return hidden
}
