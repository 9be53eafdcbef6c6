package webserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/vhost"
)

// FPM is a php-fpm that has the pools of sites.
type FPM struct {
	// Program is such as /usr/sbin/php-fpm8.2, Config its main configuration, which
	// includes the folder of pools, and PIDFile where its master writes its number.
	Program, Config, PIDFile string
}

// test has php-fpm read its configuration with these pools in place of those of
// the folder: one that is invalid stops all of them. Nothing that is tested is yet
// where php-fpm, or one that is started meanwhile, reads.
func (f *FPM) test(ctx context.Context, folder string, files []string, scratch string) error {
	text, err := os.ReadFile(f.Config)
	if err != nil {
		return fmt.Errorf("reading php-fpm's configuration: %w", err)
	}
	lines := fpmInclude(folder).FindAllIndex(text, -1)
	if len(lines) != 1 {
		return upkeep.WithHint(fmt.Errorf("%s includes %s %d times, and should do so once", f.Config, folder, len(lines)), "it needs this line: include="+folder+"/*.conf")
	}
	var includes []byte
	for _, file := range files {
		includes = fmt.Appendf(includes, "include=%s\n", file)
	}
	copied := filepath.Join(scratch, "php-fpm.conf")
	if err := writeScratch(copied, slices.Concat(text[:lines[0][0]], includes, text[lines[0][1]:])); err != nil {
		return err
	}
	out, output, err := run(ctx, nil, f.Program, "-t", "-y", copied)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return &TestError{Message: sanitise(out + output)}
}

// fpmInclude matches the line as people write it.
func fpmInclude(folder string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^[ \t]*include[ \t]*=[ \t]*"?` + regexp.QuoteMeta(folder) + `/\*\.conf"?[ \t]*$`)
}

// reload has the running php-fpm take its pools anew.
func (f *FPM) reload() error { return signal(f.PIDFile, f.Program, unix.SIGUSR2) }

// isPool reports whether php-fpm reads the file.
func isPool(path string) bool { return strings.HasPrefix(path, vhost.FolderFPM+"/") }

// runsPHP reports whether the site has a pool.
func (c *change) runsPHP() bool {
	return slices.ContainsFunc(c.files, func(f vhost.File) bool { return isPool(f.Path) })
}

// pool is the write of a change's pool; nil when that does not change.
func (c *change) pool() *write {
	for i := range c.writes {
		if isPool(c.writes[i].file.Path) {
			return &c.writes[i]
		}
	}
	return nil
}

// testPools has php-fpm test the pools that are staged, beside those that are in
// place. Sites whose pools it does not accept fail, by themselves, and so do those
// with new pools where it cannot be asked.
func (r *round) testPools(ctx context.Context) error {
	var with []*change
	for _, c := range r.live() {
		if c.pool() != nil {
			with = append(with, c)
		}
	}
	if len(with) == 0 {
		return nil
	}
	if r.o.PHP == nil {
		for _, c := range with {
			c.fail(&vhost.ValueError{Field: "php", Value: "on", Rule: "cannot be had: this server's policy names no php-fpm"})
		}
		return nil
	}
	fail := func(c *change, err error) {
		c.fail(err)
		c.field = "php"
	}
	folder := r.openSockets()
	for _, c := range with {
		if err := cmp.Or(folder, r.freeSocket(c.site)); err != nil {
			fail(c, err)
		}
	}
	with = slices.DeleteFunc(with, func(c *change) bool { return c.err != nil })
	try := func(set []*change) error {
		files, err := r.poolFiles(set)
		if err != nil {
			return err
		}
		return r.o.PHP.test(ctx, r.layout.FPM, files, r.o.State)
	}
	err := culprits(with, try, func(c *change, e *TestError) { fail(c, fmt.Errorf("php-fpm does not accept its pool: %s", e.Message)) })
	if err != nil && ctx.Err() == nil {
		for _, c := range with {
			fail(c, err)
		}
		return nil
	}
	return err
}

// poolFiles are the pools as they will be when of the changes that write some only
// a set is made.
func (r *round) poolFiles(set []*change) ([]string, error) {
	names, err := readable(r.layout.FPM)
	if err == nil {
		err = r.oddPools()
	}
	if err != nil {
		return nil, err
	}
	paths := make(map[string]string, len(names))
	for _, name := range names {
		paths[name] = filepath.Join(r.layout.FPM, name)
	}
	for _, c := range r.live() {
		for _, path := range c.removes {
			if isPool(path) {
				delete(paths, base(path))
			}
		}
	}
	for _, c := range set {
		w := c.pool()
		paths[base(w.file.Path)] = w.temp
	}
	files := make([]string, 0, len(paths))
	for _, path := range paths {
		files = append(files, path)
	}
	slices.Sort(files)
	return files, nil
}

// reloadPools has php-fpm take its pools anew where that is called for: also when
// an earlier round could not have it do so. If it does not run, the sites that
// need it fail, and no others; it reads what is in place when it starts.
func (r *round) reloadPools(ctx context.Context) {
	var need []*change
	gone := r.whole != nil && slices.ContainsFunc(r.whole.strays, isPool)
	for _, c := range r.live() {
		if c.runsPHP() && (c.unproven || c.pool() != nil) && !c.samePool() {
			need = append(need, c)
		}
		gone = gone || slices.ContainsFunc(c.removes, isPool)
	}
	if r.o.PHP == nil || len(need) == 0 && !gone {
		return
	}
	if len(need) == 0 && r.lastPool(ctx) {
		return
	}
	err := r.openSockets()
	if err == nil {
		err = r.o.PHP.reload()
	}
	if errors.Is(err, errNotRunning) && !r.phpAway {
		err = untilRunning(ctx, r.o.Patience, r.o.PHP.reload)
	}
	if r.phpAway = errors.Is(err, errNotRunning); r.phpAway {
		// Not the error that says so of the web server: such sites are tried again when that is back.
		err = fmt.Errorf("it does not run: %s names no process of it", r.o.PHP.PIDFile)
	}
	if err == nil {
		return
	}
	err = fmt.Errorf("reloading php-fpm: %w", err)
	if r.phpAway {
		err = upkeep.WithHint(err, "start php-fpm, which then reads the pool, and retry the job; where it does not start, its log says why")
	}
	for _, c := range need {
		c.fail(err)
		c.field = "php"
	}
	if len(need) == 0 {
		r.o.Logger.Warn("php-fpm was not reloaded after pools were removed", "err", err)
	}
}

// lastPool reports whether php-fpm would not start with what is left, as without
// any pool; a reload would end it, so it keeps the removed pools until it is
// started anew.
func (r *round) lastPool(ctx context.Context) bool {
	files, err := r.poolFiles(nil)
	if err == nil {
		err = r.o.PHP.test(ctx, r.layout.FPM, files, r.o.State)
	}
	if err != nil {
		r.o.Logger.Warn("php-fpm goes on with pools that were removed: it does not accept what is left", "err", err)
	}
	return err != nil
}
