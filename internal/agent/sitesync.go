package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/lazy"
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
		if err := s.spend(); err != nil {
			return nil, err
		}
		s.tend()
		s.prepare(ctx)
	} else if !t.Partial {
		s.tend()
		s.missing()
	}
	j.step(40, "comparing the files of %d sites", len(t.Sites))
	var report webserver.Report
	switch {
	case t.Partial:
		report = web.Applier.Preview(ctx, s.inputs())
	case t.Verify:
		report = web.Applier.Sync(ctx, s.inputs(), true, t.Keep...)
	default:
		var wanted []webserver.Wanted
		if wanted, err = s.wanted(); err == nil {
			report = web.Applier.Bring(ctx, wanted, append(s.left, t.Keep...)...)
		}
	}
	if err != nil {
		return nil, err
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
	// left are names of sites that would go and stay, since the budget of removals has
	// no room for them, and why.
	left    []string
	leftWhy error
	// failed are why sites could not be prepared.
	failed map[string]error
	tended
}

// compare finds out what the job would change, and refuses one that has become
// too old since it was signed: it would take back what was done meanwhile.
func (s *syncing) compare() (err error) {
	s.known, s.failed = make(map[string]bool, len(s.t.Sites)), map[string]error{}
	declared := make(map[string]int64, len(s.t.Sites))
	for _, site := range s.t.Sites {
		declared[site.Site.Name] = site.Generation
	}
	s.r.applied.eachSite(func(last done) {
		name := strings.TrimPrefix(last.Object, upkeep.KindSite+"/")
		generation, is := declared[name]
		if !is && (s.t.Partial || slices.Contains(s.t.Keep, name)) {
			return
		}
		switch live := last.Kind == upkeep.JobSiteApply; {
		case is && last.Generation > generation, is && !live && last.Generation == generation && last.Job > s.j.ID, !is && live && last.Job > s.j.ID:
			err = fmt.Errorf("%s was changed here (job %d) after this job was made: %w", last.Object, last.Job, errSuperseded)
		case !is && live:
			s.gone = append(s.gone, last)
		case is && live && last.Generation == generation:
			s.known[name] = true
		}
	})
	return err
}

// lastApply is what was done last to serve a site.
func (s *syncing) lastApply(site task.SiteApply) done {
	return s.r.applied.last(site.Object(), upkeep.JobSiteApply)
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

// spend takes what the job would remove from the budget. What that has no room for
// stays as it is, and all else is done: one mistake that is held up must not keep a
// server from being put right. An order that a server serve nothing at all has nothing
// else to do, and is what a mistake or a thief of control's key would give: it is done
// whole or not at all.
func (s *syncing) spend() error {
	if len(s.t.Sites) == 0 {
		return s.r.budget.spend(s.names()...)
	}
	left, why, err := s.r.budget.spendSome(s.names())
	if err != nil || len(left) == 0 {
		return err
	}
	s.leftWhy = why
	s.gone = slices.DeleteFunc(s.gone, func(d done) bool { return slices.Contains(left, d.Object) })
	for _, object := range left {
		s.left = append(s.left, strings.TrimPrefix(object, upkeep.KindSite+"/"))
	}
	return nil
}

// prepare makes users and folders of the sites that were not applied here at
// this generation, and of those whose pages are gone. One that cannot be prepared
// fails alone.
func (s *syncing) prepare(ctx context.Context) {
	for i, site := range s.t.Sites {
		if s.known[site.Site.Name] && !s.gonePages(i) {
			continue
		}
		full, err := s.t.Read(i)
		if err == nil {
			err = s.r.prepare(ctx, s.j, full)
		}
		if err != nil {
			s.failed[site.Site.Name] = err
		}
	}
}

// missing has sites fail whose pages are gone: their files are as declared, and
// yet they are not served.
func (s *syncing) missing() {
	for i, site := range s.t.Sites {
		if s.known[site.Site.Name] && s.gonePages(i) {
			s.failed[site.Site.Name] = upkeep.WithHint(errors.New("the folder of its pages is gone"), "upkeep regenerate makes it anew, empty")
		}
	}
}

// gonePages reports whether a folder of pages that this server has to make is not
// there. It looks by path, and so may be lied to by who owns the folders above:
// nothing is done but to look properly. Where the folder of a site is that was not
// read stands with what was done of it.
func (s *syncing) gonePages(i int) bool {
	site := s.t.Sites[i]
	if s.t.Known(i) && s.pagesSeen[site.Site.Name] {
		return false
	}
	pages := s.lastApply(site).Pages
	if !s.t.Known(i) {
		pages = s.r.pages(site)
	}
	if pages == elsewhere {
		return false
	}
	var stat unix.Stat_t
	return unix.Lstat(pages, &stat) != nil
}

// wanted are all sites, as [syncing.inputs] are, each read where the web server does
// not serve it so already.
func (s *syncing) wanted() ([]webserver.Wanted, error) {
	wanted := make([]webserver.Wanted, len(s.t.Sites))
	for i, site := range s.t.Sites {
		text, err := s.t.Text(i)
		if err != nil {
			return nil, err
		}
		wanted[i] = webserver.Wanted{Name: site.Site.Name, Generation: site.Generation, Key: sumOf(text), UID: s.uids[site.Site.Name], Input: func() (vhost.Input, error) {
			full, err := s.t.Read(i)
			return s.r.input(s.web, full), err
		}}
	}
	return wanted, nil
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
		all = append(all, done{Object: one.Object, Kind: upkeep.JobSiteRemove, Generation: one.Generation, Job: s.j.ID, Kept: true})
	}
	for i, site := range s.t.Sites {
		if s.t.Known(i) || s.failed[site.Site.Name] != nil || report.Sites[site.Site.Name].State != upkeep.JobDone {
			continue
		}
		// What it would be if it had come in a job of its own.
		last, alone := s.lastApply(site), link.Job{ID: s.j.ID, Kind: site.Kind(), Object: site.Object(), Generation: site.Generation}
		if s.known[site.Site.Name] {
			alone.ID = last.Job // a job of its own that was made before this one may be on its way
		}
		if d := s.r.doneBy(job{Job: alone, payload: site}); !d.same(last) {
			all = append(all, d)
		}
	}
	return all
}

// Bounds of the diffs of a report, in bytes: with all of them it would not fit on
// the link. What was put right already is of less interest.
const (
	maxDrift  = 1 << 20
	maxMended = 64 << 10
)

func (s *syncing) result(report webserver.Report) task.SyncResult {
	told := task.SyncResult{Changing: s.t.Changing, URL: s.web.URL, Home: s.web.Layout.Home}
	for _, site := range s.t.Sites {
		name := site.Site.Name
		result, err := report.Sites[name], s.failed[name]
		if err == nil {
			err = resultError(result)
		}
		if err == nil {
			err = errors.Join(s.amiss[name], report.Amiss[name])
		}
		var about fieldError
		errors.As(err, &about)
		switch {
		case err == nil:
			told.Served++
		case errors.Is(err, errSuperseded):
			told.Newer = append(told.Newer, name)
		default:
			told.Failed = append(told.Failed, upkeep.FieldError{Object: "site/" + name, Field: about.field, Rule: strings.TrimPrefix(advised(err), about.field+": ")})
		}
	}
	if len(s.left) > 0 {
		told.Left = s.left
		told.Failed = append(told.Failed, upkeep.FieldError{Object: upkeep.KindServer + "/" + s.r.o.Server, Rule: failed(0, s.leftWhy).Error + "; all else was done"})
	}
	for _, one := range s.gone {
		name := strings.TrimPrefix(one.Object, upkeep.KindSite+"/")
		if result, known := report.Sites[name]; !s.t.Verify && (!known || result.State == upkeep.JobDone) {
			told.Removed = append(told.Removed, name)
		}
	}
	slices.Sort(told.Removed)
	if report.Down != nil {
		told.Failed = append(told.Failed, upkeep.FieldError{Object: upkeep.KindServer + "/" + s.r.o.Server, Rule: "nothing is answered: " + advised(report.Down)})
	}
	for _, err := range []error{report.Blocked, report.Amiss[""]} {
		if err != nil {
			told.Failed = append(told.Failed, upkeep.FieldError{Object: upkeep.KindServer + "/" + s.r.o.Server, Rule: advised(err)})
		}
	}
	size, left, most := 0, 0, maxMended
	if s.t.Verify {
		most = maxDrift
	}
	for _, d := range append(s.drift, report.Drift...) {
		if d.Want == nil && d.WantRights == "" && d.Site == "" {
			told.Strays = append(told.Strays, d.Path)
			continue
		}
		if d.Have == nil && d.Want == nil && d.WantRights == "" {
			continue // it is known of and gone already
		}
		if told.Differ++; size > most {
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

// advised is an error with what to do next, of several that were joined each with its own.
func advised(err error) string {
	if several, is := err.(interface{ Unwrap() []error }); is {
		var plain, all []string
		for _, one := range several.Unwrap() {
			plain, all = append(plain, one.Error()), append(all, advised(one))
		}
		if err.Error() == strings.Join(plain, "\n") { // else it says more than its parts
			return strings.Join(all, "; ")
		}
	}
	text := plainText(err.Error())
	var hint *upkeep.HintError
	if errors.As(err, &hint) {
		text += "; " + plainText(hint.Hint)
	}
	return text
}

// driftText is how a file differs. It is kept with the job and shown to who may
// look at jobs, so hashes of passwords and values of environments are not in it.
func driftText(d webserver.Drift) string {
	if d.Passwords {
		d.Have, d.Want = hidePasswords(d.Have), hidePasswords(d.Want)
	}
	d.Have, d.Want = hideEnvironment(d.Have), hideEnvironment(d.Want)
	want := " (declared)"
	if d.Want == nil && d.WantRights == "" {
		want = " (of a site that is not declared here, or not needed)"
	}
	text := string(diff.Diff(d.Path+" (on disk)", d.Have, d.Path+want, d.Want))
	if d.WantRights == "" {
		return text
	}
	if text == "" {
		text = fmt.Sprintf("--- %s (on disk)\n+++ %[1]s (declared)\n", d.Path)
	}
	return fmt.Sprintf("%s@@ mode and owner @@\n-%s\n+%s\n", text, d.HaveRights, d.WantRights)
}

// environmentLine is a line of Apache or nginx that hands a value to programs. One
// that begins with a dollar sign is nginx's own.
var environmentLine = lazy.Regexp(`(?mi)^(\s*(?:SetEnv|fastcgi_param)\s+\S+\s+)([^$\s].*)$`)

func hideEnvironment(text []byte) []byte {
	if len(text) == 0 {
		return text // nil is a file that is not there
	}
	return environmentLine().ReplaceAllFunc(text, func(line []byte) []byte {
		part := environmentLine().FindSubmatch(line)
		return fmt.Appendf(nil, "%s%s", part[1], upkeep.HiddenHash(string(part[2])))
	})
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
