package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"upkeep/internal/systemd"
)

func newServe(a *app) *cobra.Command {
	s := serveVerb{app: a}
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run for real, as a service",
		Long: `Run as a service: the same as up without its try-out conveniences. Nothing is
applied at the start; declare things with upkeep apply. Under systemd it tells
when it is ready and feeds the watchdog while its loop turns.

Every flag can be given in the environment. SIGHUP re-reads nothing: declared
things live in the database, and flags are those of the start.`,
		Example: "  upkeep serve --data /var/lib/upkeep --dns 192.0.2.53:53 --http 127.0.0.1:8053\n" +
			"  upkeep serve --agents :8055      # sites on other servers, see upkeep server add",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return s.run(c.Context()) },
	}
	c.Flags().StringVar(&s.level, "log", fromEnv("UPKEEP_LOG", "info"), "log from this `LEVEL` up: debug, info, warn, error ($UPKEEP_LOG)")
	s.flags(c.Flags(), "", "127.0.0.1:8053", "")
	return c
}

type serveVerb struct {
	*app
	settings
	level string
}

func (s *serveVerb) run(ctx context.Context) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.level)); err != nil {
		return &usageError{err: fmt.Errorf("--log %q must be debug, info, warn or error", s.level)}
	}
	s.settings.data = s.app.data
	if s.settings.data == "" {
		_, standard := defaultFolders()
		s.settings.data = fromEnv("UPKEEP_DATA", standard)
	}
	log := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: level}))
	p, err := open(ctx, s.settings, log)
	if err != nil {
		return err
	}
	manager := systemd.FromEnvironment(os.Getenv)
	err = p.run(ctx, func(ctx context.Context) error {
		log.Info("serving", "data", p.data, "dns", p.dns, "http", p.http, "beat", p.beat, "version", version())
		if setup := p.setup(); setup != "" {
			log.Warn("there is no user yet: whoever opens this address makes the first one", "setup", setup)
		}
		return s.attend(ctx, p, manager, log)
	})
	log.Info("stopped", "err", err)
	return err
}

// attend tells the service manager how things are until ctx ends.
func (s *serveVerb) attend(ctx context.Context, p *process, manager systemd.Notifier, log *slog.Logger) error {
	if err := manager.Notify(systemd.Ready, systemd.Status("checking")); err != nil {
		log.Warn("telling the service manager", "err", err)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	beat := time.Duration(1<<63 - 1)
	if every := manager.WatchdogEvery(); every > 0 {
		beat = every
	}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return manager.Notify(systemd.Stopping)
		case <-hangup:
			log.Warn("SIGHUP re-reads nothing: declared things live in the database; change them with upkeep apply")
		case <-ticker.C:
			// A loop that stands still is not fed for: the manager then restarts it.
			if still := time.Since(p.watch.Alive()); still < beat {
				if err := manager.Notify(systemd.Alive); err != nil {
					log.Warn("telling the service manager", "err", err)
				}
			}
		}
	}
}
