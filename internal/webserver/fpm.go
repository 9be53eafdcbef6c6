package webserver

import (
	"context"
	"errors"
	"fmt"
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

// test has php-fpm read its configuration: one invalid pool stops all of them.
func (f *FPM) test(ctx context.Context) error {
	out, output, err := run(ctx, nil, f.Program, "-t", "-y", f.Config)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	return &TestError{Message: sanitise(out + output)}
}

// reload has the running php-fpm take its pools anew.
func (f *FPM) reload() error { return signal(f.PIDFile, f.Program, unix.SIGUSR2) }

// pools moves pools into place, has php-fpm test them, and reload. Pools that it
// does not accept are taken back, and their sites fail.
func (r *round) pools(ctx context.Context) error {
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
	place := func(set []*change) error {
		for _, c := range with {
			w, text := c.pool(), c.pool().before
			if slices.Contains(set, c) {
				text = w.file.Text
			}
			if w.temp != "" { // from here on the file is in its place, or not at all
				if err := removeAll(w.temp); err != nil {
					return err
				}
				w.temp = ""
			}
			if err := r.restore(w.file, text); err != nil {
				return err
			}
		}
		return nil
	}
	try := func(set []*change) error {
		if err := place(set); err != nil {
			return err
		}
		return r.o.PHP.test(ctx)
	}
	err := culprits(with, try, func(c *change, e *TestError) {
		c.fail(fmt.Errorf("php-fpm does not accept its pool: %s", e.Message))
		c.field = "php"
	})
	accepted := slices.DeleteFunc(slices.Clone(with), func(c *change) bool { return c.err != nil || err != nil })
	if err = errors.Join(err, place(accepted)); err != nil || len(accepted) == 0 {
		return err
	}
	if err := untilRunning(ctx, r.o.Patience, r.o.PHP.reload); err != nil {
		for _, c := range accepted {
			c.fail(upkeep.WithHint(fmt.Errorf("reloading php-fpm: %w", err), "start php-fpm, and retry the job"))
			c.field = "php"
		}
		return place(nil)
	}
	return nil
}

// pool is the write of a change's pool; nil when that does not change.
func (c *change) pool() *write {
	for i := range c.writes {
		if strings.HasPrefix(c.writes[i].file.Path, vhost.FolderFPM+"/") {
			return &c.writes[i]
		}
	}
	return nil
}
