package webserver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/vhost"
)

// whole is a request about all sites of the server.
type whole struct {
	inputs []vhost.Input
	// keep are names of sites that are left as they are.
	keep   []string
	verify bool
	// partial says that there may be more sites: nothing is too much.
	partial bool
	// strays are files that belong to no site and were made by upkeep.
	strays []string
	report chan Report
}

// Report is what became of all sites.
type Report struct {
	Sites map[string]Result
	// Drift is where the disk differed from what is declared. A sync has mended
	// it; a verification has left it.
	Drift []Drift
	// Err is about the server as a whole.
	Err error
	// Down is why nothing is answered at all, whatever the files are like.
	Down error
}

// Drift is one file that was not as it should be.
type Drift struct {
	Site, Path string // Path is where it is on the server
	// Have is nil for a missing file, Want for one that should not be there.
	Have, Want []byte
	// Passwords is set for a file of NAME:HASH lines, which are not to be shown.
	Passwords bool
}

// Sync makes the server serve these sites and no others: files are made anew,
// what is the same is left alone, strays are removed. The sites whose names are in
// keep are left as they are. With verify it compares and changes nothing.
func (a *Applier) Sync(ctx context.Context, inputs []vhost.Input, verify bool, keep ...string) Report {
	return a.askWhole(ctx, &whole{inputs: inputs, keep: keep, verify: verify})
}

// Preview compares what is there of some sites with how they would be.
func (a *Applier) Preview(ctx context.Context, inputs []vhost.Input) Report {
	return a.askWhole(ctx, &whole{inputs: inputs, verify: true, partial: true})
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

// collectWhole adds a change for each site that is declared, and for each that is
// there and is not. Of several such requests in one round the last counts.
func (r *round) collectWhole(req *request, bySite map[string]*change) {
	if r.whole != nil {
		r.whole.report <- Report{Err: errors.New("another synchronisation was asked for in the same moment")}
	}
	r.whole = req.whole
	declared := make(map[string]bool, len(req.whole.inputs))
	for i := range req.whole.inputs {
		in := &req.whole.inputs[i]
		declared[in.Site.Name] = true
		c := bySite[in.Site.Name]
		if c == nil {
			c = &change{site: in.Site.Name, before: r.manifest.Sites[in.Site.Name]}
			bySite[c.site] = c
			r.changes = append(r.changes, c)
		}
		if in.Generation >= c.generation {
			c.generation, c.input = in.Generation, in
		}
	}
	for site, before := range r.manifest.Sites {
		if !req.whole.partial && !declared[site] && !slices.Contains(req.whole.keep, site) && bySite[site] == nil {
			r.changes = append(r.changes, &change{site: site, before: before, generation: before.Generation})
		}
	}
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
	text, err := os.ReadFile(path)
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
	report := Report{Sites: make(map[string]Result, len(r.changes)), Err: cause}
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
	w.report <- report
}

func (r *round) drift(c *change) []Drift {
	var all []Drift
	for _, w := range c.writes {
		all = append(all, Drift{Site: c.site, Path: w.place, Have: w.before, Want: w.file.Text, Passwords: strings.HasPrefix(w.file.Path, vhost.FolderAuth+"/")})
	}
	for _, path := range c.removes {
		all = append(all, Drift{Site: c.site, Path: r.layout.Place(path)})
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
