package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/examples"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

func newUp(a *app) *cobra.Command {
	u := upVerb{app: a}
	c := &cobra.Command{
		Use:   "up [-f FILE]",
		Short: "Try it: everything in one process, without root, until Ctrl-C",
		Long: `Run everything in one process until Ctrl-C: checks, decisions, a DNS server of
its own and the status page, with all state in one data folder. Where apache2 is
installed, an Apache of upkeep's own serves the sites that are declared for
server "local", on a high port of 127.0.0.1, with their files in the data folder.

With -f the documents in FILE are applied at the start. Without it, and with
nothing declared yet, a quick start is: one zone that upkeep answers for itself
and a pool of three members. --demo also plays these members, and stops and
starts one of them in turn, so that there is something to see.`,
		Example: "  upkeep up --demo\n  upkeep up -f examples/quickstart.yaml --data /tmp/try\n  upkeep up -f examples/sites.yaml",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return u.run(c.Context()) },
	}
	c.Flags().StringArrayVarP(&u.files, "file", "f", nil, filesHelp)
	c.Flags().StringVar(&u.apache, "apache", fromEnv("UPKEEP_APACHE", "auto"), "serve sites by an Apache of upkeep's own at this `ADDR`: auto for a free port of 127.0.0.1 from 8080 up, none for not at all ($UPKEEP_APACHE)")
	c.Flags().BoolVar(&u.demo, "demo", false, "play the members of the quick start, stopping one in turn")
	u.flags(c.Flags(), "127.0.0.1:5301", "127.0.0.1:8053", "127.0.0.1:8054")
	return c
}

type upVerb struct {
	*app
	settings
	files  []string
	demo   bool
	apache string
}

func (u *upVerb) run(ctx context.Context) error {
	// A terminal that is closed ends it in good order; under nohup it goes on.
	if !signal.Ignored(syscall.SIGHUP) {
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	var given []wire.Source
	if len(u.files) > 0 {
		var err error
		if given, err = u.sources(u.files); err != nil {
			return err
		}
	}
	u.settings.data = u.app.data
	if u.settings.data == "" {
		standard, _ := defaultFolders()
		u.settings.data = fromEnv("UPKEEP_DATA", standard)
	}
	log := slog.New(slog.NewTextHandler(u.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p, err := open(ctx, u.settings, log)
	if err != nil {
		return err
	}
	if p.local, err = p.openLocal(ctx, u.apache); err != nil {
		return errors.Join(err, p.close())
	}
	p.onClose(p.local.close)
	events, cancel := p.watch.Subscribe()
	defer cancel()
	err = p.run(ctx, func(ctx context.Context) error { return u.greet(ctx, p, given, events) })
	if err == nil {
		fmt.Fprintln(u.out, "stopped; what was declared and learned is kept in "+upkeep.Printable(p.data))
	}
	return err
}

// greet applies what was given, says what to try, and prints what happens.
func (u *upVerb) greet(ctx context.Context, p *process, given []wire.Source, events <-chan upkeep.Event) error {
	if err := p.declareLocal(ctx); err != nil {
		return u.unlessStopped(ctx, err)
	}
	if err := p.local.settle(ctx, p.jobs); err != nil {
		return u.unlessStopped(ctx, err)
	}
	control := client.OverSocket(p.data)
	pools, err := control.Pools(ctx)
	if err != nil {
		return u.unlessStopped(ctx, err)
	}
	if given == nil && len(pools) == 0 {
		given = []wire.Source{{File: "quickstart.yaml", Text: string(examples.Quickstart)}}
	}
	if given != nil {
		result, err := control.Apply(ctx, given, false)
		if err != nil {
			return u.unlessStopped(ctx, err)
		}
		for _, warning := range result.Warnings {
			fmt.Fprintln(u.err, "warning:", upkeep.Printable(warning))
		}
	}
	declared, err := p.watch.Objects(ctx, upkeep.KindPool, "")
	if err != nil {
		return u.unlessStopped(ctx, err)
	}
	sites, err := p.watch.Objects(ctx, upkeep.KindSite, "")
	if err != nil {
		return u.unlessStopped(ctx, err)
	}
	fmt.Fprint(u.out, welcome(p.settings, p.setup(), declared, sites, p.local))
	if u.demo {
		if err := playDemo(ctx, declared, u.out); err != nil {
			return err
		}
	}
	printEvents(ctx, u.out, events)
	return nil
}

// unlessStopped drops an error that came of Ctrl-C.
func (u *upVerb) unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// welcome says what is listened on and what to try next.
func welcome(s settings, setup string, pools, sites []upkeep.Declared, l *local) string {
	var b strings.Builder
	fmt.Fprintf(&b, "upkeep is up; its state is in %s\n", upkeep.Printable(s.data))
	line := func(label, text string) { fmt.Fprintf(&b, "  %-6s %s\n", label, upkeep.Printable(text)) }
	if s.dns != "" {
		line("DNS", s.dns)
	}
	if s.http != "" {
		line("page", "http://"+s.http+"/")
	}
	if setup != "" {
		line("users", setup+" makes the first")
	}
	if l.apache != nil {
		line("sites", "http://"+l.apache.Address+"/")
	}
	for _, note := range l.notes {
		line("note", note)
	}
	if len(pools) > 0 {
		pool := pools[0].Object.(upkeep.Pool)
		if s.dns != "" {
			line("try", digLine(s.dns, pool))
		}
		line("try", program()+" pool why "+pool.Name+dataFlag(s.data))
	}
	if l.apache != nil && len(sites) > 0 {
		name := sites[0].Object.ObjectName()
		line("try", "curl -H 'Host: "+name+"' http://"+l.apache.Address+"/")
		line("try", program()+" site show "+name+dataFlag(s.data))
	}
	b.WriteString("Ctrl-C stops it. What happens:\n")
	return b.String()
}

// program is how the reader started this one.
func program() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/upkeep"
	}
	return "upkeep"
}

func dataFlag(data string) string {
	if standard, _ := defaultFolders(); data == standard {
		return ""
	}
	return " --data " + data
}

func digLine(server string, pool upkeep.Pool) string {
	at := strings.LastIndexByte(server, ':')
	owner := strings.Replace(upkeep.Absolute(pool.Records[len(pool.Records)-1], pool.Zones[0]), "*", "anything", 1)
	return fmt.Sprintf("dig @%s -p %s %s +short", strings.Trim(server[:at], "[]"), server[at+1:], owner)
}

// printEvents writes a line for each event until ctx ends.
func printEvents(ctx context.Context, out io.Writer, events <-chan upkeep.Event) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if !open {
				return
			}
			line := e.At.Local().Format("15:04:05.000") + "  " + e.Object + "  " + e.What
			if e.Why != "" {
				line += " (" + e.Why + ")"
			}
			fmt.Fprintln(out, upkeep.Printable(line))
		}
	}
}
