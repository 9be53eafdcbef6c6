package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/lazy"
	"upkeep/internal/vhost"
)

// adoption takes what was edited in files of sites into what is declared.
type adoption struct {
	*app
	up       *client.Client
	patience time.Duration
	apache   map[string]bool   // servers that have it
	sites    map[string]string // by their files
	texts    map[string]string // by their folders
}

// edited is the file of a site that differs from what is declared.
type edited struct{ server, site, path, diff string }

// adopt declares what verifications have found edited, site by site. What stands for
// no field is refused, and stays as it is on the server.
func (a *app) adopt(ctx context.Context, names []string, patience time.Duration) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	if names, err = a.webServers(ctx, up, names); err != nil || len(names) == 0 {
		return err
	}
	jobs, err := a.syncAll(ctx, up, "verify", names, patience)
	if err != nil {
		return err
	}
	if err := a.synced(ctx, up, "verify", jobs); err != statusError(exitFailed) {
		return err // all is as declared
	}
	d := adoption{app: a, up: up, patience: patience, apache: map[string]bool{}, sites: map[string]string{}, texts: map[string]string{}}
	if err := d.look(ctx); err != nil {
		return err
	}
	found, others, err := d.found(ctx, jobs)
	if err != nil {
		return err
	}
	var unserved []error
	for _, name := range slices.Sorted(maps.Keys(found)) {
		var kept *adoptedError
		switch err := d.one(ctx, name, found[name]); {
		case errors.As(err, &kept):
			unserved = append(unserved, kept)
		case err != nil:
			others = append(others, hinted(fmt.Errorf("site/%s is not adopted: %w", name, err)))
		}
	}
	const again = "upkeep site show NAME says what failed; when that is put right: upkeep regenerate"
	switch {
	case len(others)+len(unserved) == 0:
		return nil
	case len(others) == 0:
		return upkeep.WithHint(errors.Join(unserved...), again)
	case len(unserved) > 0:
		unserved = append(unserved, errors.New(again))
	}
	return upkeep.WithHint(errors.Join(append(others, unserved...)...), "declare what was meant, with upkeep get site NAME -o yaml and upkeep apply -f -, or put it back with upkeep verify --overwrite")
}

// hinted is an error whose hint is in its text, as one of several that have one in
// common.
func hinted(err error) error {
	if hint := hintOf(err); hint != "" {
		return fmt.Errorf("%w; %s", err, hint)
	}
	return err
}

// adoptedError says what is still wrong with a site that is declared as it was edited.
type adoptedError struct {
	site string
	err  error
}

func (e *adoptedError) Error() string {
	return fmt.Sprintf("site/%s is declared as it was edited, and not served so yet: %s", e.site, e.err)
}

func (e *adoptedError) Unwrap() error { return e.err }

// look learns which servers have Apache, and which files are whose.
func (d *adoption) look(ctx context.Context) error {
	servers, err := d.up.Servers(ctx)
	if err != nil {
		return err
	}
	for _, s := range servers {
		d.apache[s.Name] = s.Facts != nil && strings.HasPrefix(s.Facts.WebServer, "Apache")
	}
	declared, err := d.up.Objects(ctx, upkeep.KindSite, "")
	if err != nil {
		return err
	}
	for _, one := range declared {
		for _, file := range vhost.Files(one.Name) {
			if strings.HasPrefix(file, vhost.FolderSites+"/") {
				d.sites[path.Base(file)] = one.Name
			}
		}
		for _, folder := range vhost.Folders(one.Name) {
			d.texts[path.Base(folder)] = one.Name
		}
	}
	return nil
}

// found are the files that differ, by site, and why others are not looked at.
func (d *adoption) found(ctx context.Context, jobs []upkeep.Job) (map[string][]edited, []error, error) {
	bySite, others := map[string][]edited{}, []error(nil)
	for _, job := range jobs {
		full, err := d.up.Job(ctx, job.ID) // the stream leaves results out
		if err != nil {
			return nil, nil, err
		}
		result, err := syncResult(full)
		if err != nil {
			return nil, nil, err
		}
		for file, diff := range result.Drift {
			site := d.sites[path.Base(file)]
			if site == "" || !d.apache[job.Server] {
				others = append(others, fmt.Errorf("%s on %s %s: %w", upkeep.Printable(file), job.Server, d.unlike(file, site), upkeep.ErrRefused))
				continue
			}
			bySite[site] = append(bySite[site], edited{job.Server, site, file, diff})
		}
		if left := len(result.Strays) + len(result.Failed); left > 0 {
			others = append(others, fmt.Errorf("%s has %s that no site has, or that failed: %w", job.Server, count(left, "thing"), upkeep.ErrRefused))
		}
	}
	return bySite, others, nil
}

// unlike says why what was edited in a file is not taken from it; site is that whose
// virtual host it has, if it has one's.
func (d *adoption) unlike(file, site string) string {
	folder := path.Base(path.Dir(file))
	switch {
	case site != "":
		return "is not an Apache file; only those can be adopted"
	case d.texts[folder] != "":
		return fmt.Sprintf("has a text of error_pages or of another field of site/%s, which is not read back from there", d.texts[folder])
	}
	return "is not the Apache file of a site"
}

// one declares what was edited in the files of a site, if these are what upkeep makes
// of that.
func (d *adoption) one(ctx context.Context, name string, files []edited) error {
	server := files[0].server
	if slices.ContainsFunc(files, func(f edited) bool { return f.server != server }) {
		return fmt.Errorf("it was edited on several servers: %w", upkeep.ErrConflict)
	}
	site, generation, err := declaredThing[upkeep.Site](ctx, d.up, upkeep.KindSite, name)
	if err != nil {
		return err
	}
	// An edit in one of two files that say the same is found out below.
	gone, came, err := editedLines(files[0].diff)
	if err != nil {
		return err
	}
	gone, came = withoutVersion(gone), withoutVersion(came)
	if len(gone)+len(came) == 0 {
		return &adoptedError{name, fmt.Errorf("nothing differs on %s but the generation that %s says, which is not the one that is declared", server, path.Base(files[0].path))}
	}
	next, err := vhost.Adopt(site, gone, came)
	if err != nil {
		return err
	}
	if err := d.prove(ctx, files, next); err != nil {
		return err
	}
	result, err := d.declareIf(ctx, d.up, generation, next)
	if err != nil {
		return err
	}
	d.changes(result)
	if err := d.awaitSite(ctx, d.up, name, d.patience); err != nil {
		return &adoptedError{name, err}
	}
	return nil
}

// prove holds that the files that a server has of a site are what is made of it as it
// would be, but for the lines that say which version of them it is.
func (d *adoption) prove(ctx context.Context, files []edited, site upkeep.Site) error {
	server := files[0].server
	text, err := documents(site)
	if err != nil {
		return err
	}
	looks, err := d.preview(ctx, d.up, []wire.Source{{File: "what was edited", Text: text}}, d.patience)
	if err != nil {
		return withoutPlaces(err)
	}
	for _, l := range looks {
		if l.Server != server {
			continue
		}
		if len(l.Failed) > 0 {
			return l.Failed[0]
		}
		for _, file := range slices.Sorted(maps.Keys(l.Drift)) {
			line, how, err := differing(l.Drift[file])
			switch {
			case err != nil:
				return err
			case line != "" && !slices.ContainsFunc(files, func(f edited) bool { return f.path == file }):
				return upkeep.WithHint(fmt.Errorf("%s is a file of the site, too, and does not have the same edit (%q is where it differs): %w", file, line, upkeep.ErrRefused),
					"edit both files alike")
			case how == missing:
				return upkeep.WithHint(fmt.Errorf("upkeep would write %q as well, which %s does not have: %w", line, file, upkeep.ErrRefused), "add that line there")
			case how == elsewhere:
				return fmt.Errorf("%q does not stand in %s where, or not indented as, upkeep would write it: %w", line, file, upkeep.ErrRefused)
			case line != "":
				return fmt.Errorf("%q in %s would not be written so: %w", line, file, upkeep.ErrRefused)
			}
		}
		return nil
	}
	return fmt.Errorf("%s does not answer for it any more: %w", server, upkeep.ErrConflict)
}

// editedLines are the lines that a diff has of what is declared and not on disk, and
// of what is on disk instead.
func editedLines(diff string) (gone, came []string, err error) {
	inside := false // a line of the file may look like one of those at the top of a diff
	for line := range strings.Lines(diff) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "@@"):
			inside = true
		case !inside:
		case strings.HasPrefix(line, "+"):
			gone = append(gone, line[1:])
		case strings.HasPrefix(line, "-"):
			came = append(came, line[1:])
		}
	}
	if len(came) == 0 && slices.ContainsFunc(gone, func(line string) bool { return strings.Contains(line, "<VirtualHost") }) {
		return nil, nil, upkeep.WithHint(fmt.Errorf("its file is not there: %w", upkeep.ErrRefused), "to stop serving it: upkeep site suspend or remove")
	}
	return gone, came, nil
}

// ofVersion are the lines that each version of a file has its own of.
var ofVersion = lazy.Regexp(`^(# made by upkeep, .*|\s*Redirect 204 /\.well-known/upkeep/[0-9a-f]{32})$`)

func withoutVersion(lines []string) []string {
	return slices.DeleteFunc(lines, func(line string) bool { return ofVersion().MatchString(line) })
}

// How a line differs.
const (
	written   = iota // it is on the disk and not declared
	missing          // it is declared and not on the disk
	elsewhere        // it is both, at another place
)

// differing is the first line by which the two sides of a diff differ, "" where it is
// only in what says their version.
func differing(diff string) (line string, how int, err error) {
	gone, came, err := editedLines(diff)
	if err != nil {
		return "", written, err
	}
	gone, came = trimmed(withoutVersion(gone)), trimmed(withoutVersion(came))
	for _, one := range came {
		if !slices.Contains(gone, one) {
			return one, written, nil
		}
	}
	for _, one := range gone {
		if !slices.Contains(came, one) {
			return one, missing, nil
		}
	}
	if len(came) > 0 {
		return came[0], elsewhere, nil
	}
	return "", written, nil
}

func trimmed(lines []string) []string {
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return lines
}
