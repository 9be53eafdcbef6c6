package webserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"upkeep/internal/vhost"
)

// confFile is a file that the server reads, by its base name.
type confFile string

func (f confFile) holds(file string) bool { return string(f) == file }

// quarantine tests what is in place. One bad file stops every site, not now but
// at the server's next start; so each that does not pass is put back to its last
// good version or, if that does not pass either, moved out of the server's way.
// It counts as unknown from then on: the next request for its site makes it anew.
// A bad file of somebody else's is an error, and stays.
func (a *Applier) quarantine(ctx context.Context) error {
	now, err := a.look()
	if err != nil {
		return err
	}
	if err := now.odd(); err != nil {
		return err
	}
	if err := a.surveyAnew(ctx, now); err != nil {
		return err
	}
	var all []confFile
	for _, name := range slices.Sorted(maps.Keys(now)) {
		all = append(all, confFile(name))
	}
	try := func(set []confFile) error {
		paths := map[string]string{}
		for _, f := range set {
			paths[string(f)] = filepath.Join(a.o.Layout.Include, string(f))
		}
		a.count(func(s *Stats) { s.Tests++; s.FullTests++ })
		return a.testFiles(ctx, paths)
	}
	var bad []confFile
	var others error
	beside := a.beside(now)
	if err := culprits(all, try, func(f confFile, e *TestError) {
		if slices.Contains(beside, filepath.Join(a.o.Layout.Include, string(f))) {
			others = errors.Join(others, a.notOurs(string(f), e))
			return
		}
		a.o.Logger.Error("a file of a site does not pass the web server's test", "file", string(f), "err", e)
		bad = append(bad, f)
	}); err != nil {
		return err
	}
	for _, f := range bad {
		if err := a.takeAside(ctx, string(f)); err != nil {
			return fmt.Errorf("taking %s out of the web server's way: %w", f, err)
		}
		a.placed(filepath.Join(a.o.Layout.Include, string(f)))
	}
	a.noteAstray()
	if len(bad) > 0 {
		if err := errors.Join(syncDir(a.o.Layout.Include), a.manifest.save(a.o.State)); err != nil {
			return err
		}
	}
	if others != nil {
		return others
	}
	a.tested = a.survived
	return nil
}

func (a *Applier) takeAside(ctx context.Context, name string) error {
	path := vhost.FolderSites + "/" + name
	place := a.o.Layout.Place(path)
	edited, err := readPlain(place)
	if err != nil {
		return err
	}
	if err := ownFolder(a.quarantineDir(), 0o700); err != nil {
		return err
	}
	aside := filepath.Join(a.quarantineDir(), name)
	if err := replaceFile(aside, edited, 0o600); err != nil { // it may be all that there is of a person's work
		return err
	}
	text, err := a.passing(ctx, name, path)
	if err != nil {
		return err
	}
	for site, e := range a.manifest.Sites {
		if sum, has := e.Files[path]; has && sum != sumOf(text) {
			e.strayed(site, path, text)
			a.o.Logger.Warn("a site is not served as it is declared until it is applied again", "site", site, "aside", aside)
		}
	}
	if text == nil {
		return removeAll(place)
	}
	return a.restore(vhost.File{Path: path, Mode: 0o600}, text)
}

// strayed notes that a file of a site is not any more what the site was applied
// with; text is what is there, nil for nothing. A wildcard name has a file of its
// own: the others go on being answered without it.
func (e *entry) strayed(site, path string, text []byte) {
	if e.Astray == "" {
		e.InForce = e.Generation
	}
	if path == vhost.Files(site)[0] {
		seal, _ := vhost.Unseal(text) // one that cannot be read has no generation
		e.InForce = seal.Generation
	}
	e.Proven, e.Generation, e.Astray = false, 0, setAside
}

// passing is the last good version of a file, if that passes the server's test
// today; else nil.
func (a *Applier) passing(ctx context.Context, name, path string) ([]byte, error) {
	text, err := a.good.latest(path)
	if err != nil || text == nil {
		return nil, err
	}
	temp, err := stage(filepath.Join(a.o.State, name), text, 0o600, -1)
	if err != nil {
		return nil, err
	}
	err = a.testFiles(ctx, map[string]string{name: temp})
	var refused *TestError
	if errors.As(err, &refused) {
		text, err = nil, nil
	}
	return text, errors.Join(err, removeAll(temp))
}
