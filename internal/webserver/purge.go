package webserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/vhost"
)

// Purge takes everything of upkeep's from the web server that no site needs: the
// line that includes the folder, and the files that all sites share. It refuses
// while there are sites. Logs stay, and so does what was put aside. A purge that
// was cut off is taken up by the next.
func (a *Applier) Purge(ctx context.Context) error {
	return a.ask(ctx, &request{purge: true}).Err
}

func (a *Applier) purge(ctx context.Context) error {
	if n := len(a.manifest.Sites); n > 0 {
		names := slices.Sorted(maps.Keys(a.manifest.Sites))
		return upkeep.WithHint(fmt.Errorf("%d sites are served here, such as %s: %w", n, names[0], upkeep.ErrRefused),
			"delete them or have other servers serve them, and wait until they have left")
	}
	if includer, can := a.o.Server.(Includer); can {
		if _, err := includer.SetInclude(ctx, false); err != nil {
			return fmt.Errorf("taking out the line that includes %s: %w", a.o.Layout.Include, err)
		}
	}
	pools, err := a.sweepMade()
	if err != nil {
		return err
	}
	if err := a.o.Server.Reload(ctx); err != nil && !errors.Is(err, errNotRunning) {
		return fmt.Errorf("reloading the web server: %w", err)
	}
	if pools && a.o.PHP != nil {
		if err := a.o.PHP.reload(); err != nil && !errors.Is(err, errNotRunning) {
			return fmt.Errorf("reloading php-fpm: %w", err)
		}
	}
	a.tested, a.included = fingerprint{}, nil
	return a.removeFolders()
}

// sweepMade removes what upkeep has made where servers read, and reports whether
// pools were among it.
func (a *Applier) sweepMade() (pools bool, err error) {
	for _, folder := range []string{vhost.FolderSites, vhost.FolderPages, vhost.FolderAuth, vhost.FolderFPM} {
		dir := a.o.Layout.Folder(folder)
		if dir == "" {
			continue
		}
		found, err := strays(dir, folder, nil)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return pools, err
		}
		for _, path := range found {
			if err := removeAll(a.o.Layout.Place(path)); err != nil {
				return pools, err
			}
			pools = pools || folder == vhost.FolderFPM
		}
	}
	return pools, nil
}

// removeFolders removes what is left empty, and what was known of sites.
func (a *Applier) removeFolders() error {
	l := a.o.Layout
	for _, dir := range []string{l.Pages, l.Auth} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			if !strings.HasPrefix(entry.Name(), ".") {
				_ = os.Remove(filepath.Join(dir, entry.Name())) // one that is not empty stays
			}
		}
	}
	for _, dir := range []string{l.Include, l.Pages, l.Auth} {
		_ = os.Remove(dir) // as above
	}
	return removeAll(manifestFile(a.o.State), a.good.file)
}
