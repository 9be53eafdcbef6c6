package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"upkeep/internal/beat"
	"upkeep/internal/systemd"
)

func newBeat(a *app) *cobra.Command {
	b := beatVerb{app: a}
	c := &cobra.Command{
		Use:   "beat --to HOST:PORT --key FILE [flags] [-- COMMAND ARG...]",
		Short: "Send heartbeats from a member",
		Long: `Send heartbeats from this member to the upkeep that awaits them (a check of
type heartbeat, and upkeep serve --beat ADDR there). Missing beats are the
fastest way to know that a machine is gone.

Stopped in good order (SIGTERM, SIGINT, SIGHUP) it says goodbye, and the member
is taken out at once. Killed, it goes silent, and the check decides.

Beats are signed with the member's key, and one that was recorded counts for
nothing when it is sent again. Clocks need not agree. Answers of the receiver,
one a minute, must be able to come back to the sender.

With a command after --, beats say that the member is well only while the
command exits with status 0. It is run without a shell, never twice at once, and
killed with what it started when its time is over.`,
		Example: `  upkeep beat --to monitor.example.test:8054 --key /etc/upkeep/beat.key --interval 100ms
  upkeep beat --to 192.0.2.53:8054 --key /etc/upkeep/beat.key -- curl -fsS http://127.0.0.1/`,
		Args: b.args,
		RunE: func(c *cobra.Command, args []string) error { return b.run(c.Context(), args) },
	}
	flags := c.Flags()
	flags.StringArrayVar(&b.to, "to", nil, "send to this `HOST:PORT`; may be given several times, and each gets every beat")
	flags.StringVar(&b.key, "key", "", "`FILE` with this member's key, as beat keygen writes it; of mode 0600")
	flags.StringVar(&b.as, "as", "", "beat as this member, when the key file holds several: its `ADDRESS` as published")
	flags.DurationVar(&b.interval, "interval", time.Second, "`TIME` between beats, 50ms to 1h; that of the check")
	flags.DurationVar(&b.every, "command-interval", 5*time.Second, "`TIME` between runs of the command")
	flags.DurationVar(&b.timeout, "command-timeout", 4*time.Second, "`TIME` that a run of the command may take")
	c.AddCommand(newBeatKeygen(a))
	return c
}

type beatVerb struct {
	*app
	to             []string
	key, as        string
	interval       time.Duration
	every, timeout time.Duration
}

// args lets a command stand after "--" and nothing before it.
func (b *beatVerb) args(c *cobra.Command, args []string) error {
	before := args
	if dash := c.ArgsLenAtDash(); dash >= 0 {
		before = args[:dash]
	}
	return noArgs(c, before)
}

func (b *beatVerb) run(ctx context.Context, command []string) error {
	switch {
	case len(b.to) == 0:
		return &usageError{err: errors.New("--to is required: the address that the receiver has in its --beat")}
	case b.key == "":
		return &usageError{err: errors.New("--key is required: this member's key file"), hint: "make one with: upkeep beat keygen ADDRESS"}
	}
	log := slog.New(slog.NewTextHandler(b.err, nil))
	manager := systemd.FromEnvironment(os.Getenv)
	options := beat.SenderOptions{
		To: b.to, KeyFile: b.key, As: b.as, Interval: b.interval, Logger: log,
		Ready: func() {
			if err := manager.Notify(systemd.Ready, systemd.Status("beating to "+strings.Join(b.to, ", "))); err != nil {
				log.Warn("telling the service manager", "err", err)
			}
		},
	}
	if len(command) > 0 {
		options.Command = &beat.Command{Argv: command, Every: b.every, Timeout: b.timeout, Env: systemd.Environment(os.Environ())}
	}
	sender, err := beat.NewSender(options)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	leave := context.AfterFunc(ctx, func() {
		if err := manager.Notify(systemd.Stopping); err != nil {
			log.Warn("telling the service manager", "err", err)
		}
	})
	defer leave()
	log.Info("starting to beat", "as", sender.ID(), "to", b.to, "interval", b.interval)
	return sender.Run(ctx)
}

func newBeatKeygen(a *app) *cobra.Command {
	k := keygenVerb{app: a}
	c := &cobra.Command{
		Use:   "keygen ADDRESS...",
		Short: "Make the keys that heartbeats are signed with",
		Long: `Make a key for each member, named by its address as published (or by its
check_address). The receiver's file holds a line for every member; a member gets
a file with its own line alone, so that it cannot beat for another.

Without flags the lines are printed.`,
		Example: `  upkeep beat keygen --key /etc/upkeep/beat.keys --members ./keys 192.0.2.1 192.0.2.2
  scp ./keys/192.0.2.1.key root@192.0.2.1:/etc/upkeep/beat.key`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{err: errors.New("keygen needs the address of at least one member")}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return k.run(args) },
	}
	c.Flags().StringVar(&k.key, "key", "", "add the keys to this `FILE` of the receiver; what it holds stays")
	c.Flags().StringVar(&k.members, "members", "", "write each member's own file into this `FOLDER`, as ADDRESS.key")
	return c
}

type keygenVerb struct {
	*app
	key, members string
}

func (k *keygenVerb) run(ids []string) (err error) {
	made, err := beat.NewCredentials(ids)
	if err != nil {
		return &usageError{err: err}
	}
	if k.key == "" && k.members == "" {
		_, err := k.out.Write(beat.FormatKeys(made...))
		return err
	}
	var written []string
	defer func() {
		if err != nil { // a member's key that the receiver does not know is of no use
			for _, path := range written {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	if k.members != "" {
		if err := os.MkdirAll(k.members, 0o700); err != nil {
			return fmt.Errorf("making the folder of members' keys: %w", err)
		}
		for _, c := range made {
			path := filepath.Join(k.members, c.ID+".key")
			if err := beat.WriteKeys(path, c); err != nil {
				if errors.Is(err, fs.ErrExist) {
					return fmt.Errorf("%w; remove it if this member is to get a new key", err)
				}
				return err
			}
			written = append(written, path)
		}
	}
	if k.key != "" {
		if err := beat.AddKeys(k.key, made...); err != nil {
			return err
		}
		fmt.Fprintf(k.out, "%s: %d added\n", k.key, len(made))
	}
	for _, path := range written {
		fmt.Fprintln(k.out, path)
	}
	return nil
}
