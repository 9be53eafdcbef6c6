package webserver

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/vhost"
)

// whole is a request about all sites of the server.
type whole struct {
	wanted []Wanted
	// keep are names of sites that are left as they are.
	keep   []string
	verify bool
	// partial says that there may be more sites: nothing is too much.
	partial bool
	// strays are files that belong to no site and were made by upkeep.
	strays []string
	report chan Report
	tending
}

// Wanted is a site as a server is to serve it.
type Wanted struct {
	Name       string
	Generation int64
	// Key stands for the input: two inputs with the same one are the same. It is ""
	// where nobody can tell.
	Key string
	// Input is asked for where the site is not served so already.
	Input func() (vhost.Input, error)
	// UID is whose its logs are to read; 0 where nobody can tell without the input.
	UID int
}

// wantedOf are inputs as what is wanted.
func wantedOf(inputs []vhost.Input) []Wanted {
	wanted := make([]Wanted, len(inputs))
	for i, in := range inputs {
		wanted[i] = Wanted{Name: in.Site.Name, Generation: in.Generation, Input: func() (vhost.Input, error) { return in, nil }}
	}
	return wanted
}

// Report is what became of all sites.
type Report struct {
	Sites map[string]Result
	// Drift is where the disk differed from what is declared. A sync has fixed
	// it; a verification has left it.
	Drift []Drift
	// Err is about the server as a whole.
	Err error
	// Down is why nothing is answered at all, whatever the files are like.
	Down error
	// Blocked is why no change would reach the web server.
	Blocked error
	// Amiss is, by site or "" for what is nobody's, what is not as upkeep made it and
	// cannot be put right without asking.
	Amiss map[string]error
}

// Drift is one file that was not as it should be.
type Drift struct {
	Site, Path string // Path is where it is on the server
	// Have is nil for a missing file, Want for one that should not be there.
	Have, Want []byte
	// HaveRights and WantRights are mode and owner, where these differ; "" where not.
	HaveRights, WantRights string
	// Passwords is set for a file of NAME:HASH lines, which are not to be shown.
	Passwords bool
}

// Sync makes the server serve these sites and no others: files are made anew,
// what is the same is left alone, strays are removed. The sites whose names are in
// keep are left as they are. With verify it compares and changes nothing.
func (a *Applier) Sync(ctx context.Context, inputs []vhost.Input, verify bool, keep ...string) Report {
	return a.askWhole(ctx, &whole{wanted: wantedOf(inputs), keep: keep, verify: verify})
}

// Bring is [Applier.Sync] of what is wanted, without verify.
func (a *Applier) Bring(ctx context.Context, wanted []Wanted, keep ...string) Report {
	return a.askWhole(ctx, &whole{wanted: wanted, keep: keep})
}

// Preview compares what is there of some sites with how they would be.
func (a *Applier) Preview(ctx context.Context, inputs []vhost.Input) Report {
	return a.askWhole(ctx, &whole{wanted: wantedOf(inputs), verify: true, partial: true})
}

func (a *Applier) askWhole(ctx context.Context, w *whole) Report {
	w.report = make(chan Report, 1)
	select {
	case a.queue <- &request{whole: w}:
	case <-a.stopped:
		return Report{Err: errClosed}
	case <-ctx.Done():
		return Report{Err: ctx.Err()}
	}
	select {
	case report := <-w.report:
		return report
	case <-a.stopped:
		return Report{Err: errClosed}
	case <-ctx.Done():
		return Report{Err: ctx.Err()}
	}
}

// collectWhole adds a change for each site that is wanted, unless it is served so
// already, and for each that is there and is not.
func (r *round) collectWhole() {
	if r.whole == nil {
		return
	}
	bySite := make(map[string]*change, len(r.changes))
	for _, c := range r.changes {
		bySite[c.site] = c
	}
	wanted := make(map[string]bool, len(r.whole.wanted))
	for i := range r.whole.wanted {
		w := &r.whole.wanted[i]
		wanted[w.Name] = true
		before, c := r.manifest.Sites[w.Name], bySite[w.Name]
		switch {
		case c == nil && r.serves(w, before):
			r.unchanged = append(r.unchanged, w)
		case c == nil:
			c = &change{site: w.Name, before: before}
			bySite[c.site] = c
			r.changes = append(r.changes, c)
			fallthrough
		case w.Generation >= c.generation:
			r.want(c, w)
		}
	}
	for site, before := range r.manifest.Sites {
		if !r.whole.partial && !wanted[site] && !slices.Contains(r.whole.keep, site) && bySite[site] == nil {
			r.changes = append(r.changes, &change{site: site, before: before, generation: before.Generation})
		}
	}
}

// want makes a change one to what is wanted, whatever it was before.
func (r *round) want(c *change, w *Wanted) {
	c.generation, c.key, c.account, c.result, c.err = w.Generation, r.key(w.Key), "", "", nil
	if c.compareRecord(); c.result != "" {
		return
	}
	in, err := w.Input()
	if err != nil {
		c.fail(err)
		return
	}
	c.input = &in
}

// serves reports whether a site is served as it is wanted already: it has answered
// with files that were made from the same, and nobody has touched these or taken one
// of its names since.
func (r *round) serves(w *Wanted, before *entry) bool {
	if r.verifies() || w.Key == "" || before == nil || !before.Proven || before.Generation != w.Generation || before.Key != r.key(w.Key) || len(before.Files) == 0 {
		return false
	}
	for _, name := range before.Names {
		if r.foreign.has(name) != "" {
			return false
		}
	}
	for path, sum := range before.Files {
		if !r.holdsSum(path, sum) {
			return false
		}
	}
	return true
}

// findStrays looks for files of upkeep's that no site has.
func (w *whole) findStrays(r *round) error {
	if w.partial {
		return nil
	}
	known := map[string]bool{}
	for _, c := range append(slices.Clone(r.changes), r.common) {
		for _, f := range c.files {
			known[f.Path] = true
		}
		for _, path := range c.before.paths() {
			known[path] = true // of no use any more, and removed as such
		}
	}
	for _, site := range r.unchanged {
		for path := range r.manifest.Sites[site.Name].Files {
			known[path] = true
		}
	}
	for _, site := range w.keep {
		for _, path := range r.manifest.Sites[site].paths() {
			known[path] = true
		}
	}
	for _, folder := range []string{vhost.FolderSites, vhost.FolderPages, vhost.FolderAuth, vhost.FolderFPM} {
		dir := r.layout.Folder(folder)
		if dir == "" {
			continue
		}
		found, err := strays(dir, folder, known)
		if err != nil {
			return err
		}
		w.strays = append(w.strays, found...)
	}
	return nil
}

func strays(dir, folder string, known map[string]bool) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		path := folder + "/" + entry.Name()
		switch {
		case known[path]:
		case entry.IsDir() && (folder == vhost.FolderPages || folder == vhost.FolderAuth):
			below, err := strays(filepath.Join(dir, entry.Name()), path, known)
			if err != nil {
				return nil, err
			}
			found = append(found, below...)
		case entry.Type().IsRegular() && (folder != vhost.FolderSites && folder != vhost.FolderFPM || made(filepath.Join(dir, entry.Name()))):
			found = append(found, path)
		}
	}
	return found, nil
}

// made reports whether upkeep has made a configuration file. Others in the same
// folder are somebody else's.
func made(path string) bool {
	text, err := readPlain(path)
	if err != nil {
		return false
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return vhost.Made(line)
}

func (w *whole) sweepStrays(r *round) error {
	for _, path := range w.strays {
		place := r.layout.Place(path)
		if err := removeAll(place); err != nil {
			return err
		}
		r.placed(place)
		r.leave(filepath.Dir(place))
	}
	r.count(func(s *Stats) { s.Writes += len(w.strays) })
	return nil
}

// done reports on all changes.
func (w *whole) done(r *round, cause error) {
	report := Report{Sites: make(map[string]Result, len(r.changes)+len(r.unchanged)), Err: cause, Blocked: r.blocked}
	for _, site := range r.unchanged {
		report.Sites[site.Name] = Result{State: upkeep.JobDone, Generation: site.Generation, URL: r.o.URL}
	}
	if w.verify && !w.partial && !r.running {
		_, report.Down = r.o.Server.Process()
	}
	for _, c := range r.changes {
		report.Sites[c.site] = r.resultOf(c)
		report.Drift = append(report.Drift, r.drift(c)...)
	}
	if r.common != nil {
		report.Drift = append(report.Drift, r.drift(r.common)...)
	}
	for _, path := range w.strays {
		report.Drift = append(report.Drift, Drift{Path: r.layout.Place(path)})
	}
	report.Drift, report.Amiss = append(report.Drift, w.drift...), w.amiss
	w.report <- report
}

func (r *round) drift(c *change) []Drift {
	if c.err != nil && !r.verifies() {
		return nil // which says why it was not put right
	}
	var all []Drift
	for _, w := range c.writes {
		all = append(all, Drift{Site: c.site, Path: w.place, Have: w.before, Want: w.file.Text, HaveRights: w.rights, WantRights: r.wantRights(w), Passwords: strings.HasPrefix(w.file.Path, vhost.FolderAuth+"/")})
	}
	for _, path := range c.removes {
		all = append(all, Drift{Site: c.site, Path: r.layout.Place(path), Have: c.gone[path], Passwords: strings.HasPrefix(path, vhost.FolderAuth+"/")})
	}
	return all
}

// resultOf is what became of a change.
func (r *round) resultOf(c *change) Result {
	switch {
	case c.result != "":
		return Result{State: c.result, Generation: c.before.Generation, URL: r.o.URL}
	case c.err != nil:
		return Result{State: upkeep.JobFailed, Generation: c.generation, Err: c.err, Field: c.field}
	}
	return Result{State: upkeep.JobDone, Generation: c.generation, URL: r.o.URL, Changed: len(c.writes)+len(c.removes) > 0}
}
