package webserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"upkeep/internal/vhost"
)

// confFile is a file that the server reads, by its base name.
type confFile string

func (f confFile) holds(file string) bool { return string(f) == file }

// quarantine tests what is in place. One bad file stops every site, not now but
// at the server's next start; so each that does not pass is put back to its last
// good version or, if that does not pass either, moved out of the server's way.
// It counts as unknown from then on: the next request for its site makes it anew.
func (a *Applier) quarantine(ctx context.Context) error {
	if err := a.surveyAnew(ctx); err != nil {
		return err
	}
	names, err := included(a.o.Layout.Include)
	if err != nil {
		return err
	}
	all := make([]confFile, len(names))
	for i, name := range names {
		all[i] = confFile(name)
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
	if err := culprits(all, try, func(f confFile, e *TestError) {
		a.o.Logger.Error("a file of a site does not pass the web server's test", "file", string(f), "err", e)
		bad = append(bad, f)
	}); err != nil {
		return err
	}
	for _, f := range bad {
		if err := a.takeAside(ctx, string(f)); err != nil {
			return fmt.Errorf("taking %s out of the web server's way: %w", f, err)
		}
	}
	if len(bad) > 0 {
		if err := errors.Join(syncDir(a.o.Layout.Include), a.manifest.save(a.o.State)); err != nil {
			return err
		}
	}
	a.tested = a.survived
	return nil
}

func (a *Applier) takeAside(ctx context.Context, name string) error {
	path := vhost.FolderSites + "/" + name
	place, good := a.o.Layout.Place(path), a.good(path)
	for _, e := range a.manifest.Sites {
		if _, has := e.Files[path]; has {
			e.Proven, e.Generation = false, 0
		}
	}
	text, err := os.ReadFile(good)
	if err == nil {
		var refused *TestError
		err = a.testFiles(ctx, map[string]string{name: good})
		if err == nil {
			return a.restore(vhost.File{Path: path, Mode: 0o600}, text)
		}
		if !errors.As(err, &refused) {
			return err
		}
	}
	if err := ownFolder(a.quarantineDir(), 0o700); err != nil {
		return err
	}
	if text, err = os.ReadFile(place); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(a.quarantineDir(), name), text, 0o600); err != nil {
		return err
	}
	return removeAll(place, good)
}
