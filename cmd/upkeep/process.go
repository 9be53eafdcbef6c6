package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	"github.com/spf13/pflag"

	"upkeep"
	"upkeep/internal/api"
	"upkeep/internal/console"
	"upkeep/internal/datadir"
	"upkeep/internal/hosting"
	"upkeep/internal/job"
	"upkeep/internal/link"
	"upkeep/internal/link/authority"
	"upkeep/internal/metrics"
	"upkeep/internal/notify"
	"upkeep/internal/people"
	"upkeep/internal/probe"
	"upkeep/internal/store"
	"upkeep/internal/watch"
	"upkeep/internal/zone"
)

// settings are what up and serve take, by flag or environment.
type settings struct {
	data string // data folder
	db   string // postgres://..., or "" for SQLite in the data folder
	dns  string // address of the DNS server, UDP and TCP; "" for none
	http string // address of the API and the status page; "" for none
	beat string // UDP address for heartbeats; "" for none
	// agents is where agents of other servers connect; "" takes none.
	agents string

	httpHosts   []string // names by which browsers may address http
	httpPrivate truth    // "true": nothing is shown without the token
}

// flags adds the settings to a verb, each with its environment variable.
func (s *settings) flags(flags *pflag.FlagSet, dns, http, beat string) {
	flags.StringVar(&s.db, "db", os.Getenv("UPKEEP_DB"), "`URL` of a PostgreSQL database, postgres://...; without it SQLite in the data folder ($UPKEEP_DB)")
	flags.StringVar(&s.dns, "dns", fromEnv("UPKEEP_DNS", dns), "answer DNS at this `ADDR`, UDP and TCP; empty for not at all ($UPKEEP_DNS)")
	flags.StringVar(&s.http, "http", fromEnv("UPKEEP_HTTP", http), "serve the status page and the API at this `ADDR`; empty for not at all ($UPKEEP_HTTP)")
	flags.StringVar(&s.beat, "beat", fromEnv("UPKEEP_BEAT", beat), "take heartbeats at this UDP `ADDR`; empty for not at all ($UPKEEP_BEAT)")
	flags.StringVar(&s.agents, "agents", fromEnv("UPKEEP_AGENTS", ""), "let agents of other servers connect at this `ADDR`; empty for none ($UPKEEP_AGENTS)")
	var hosts []string
	if names := os.Getenv("UPKEEP_HTTP_HOST"); names != "" {
		hosts = strings.Split(names, ",")
	}
	flags.StringSliceVar(&s.httpHosts, "http-host", hosts, "let browsers address --http by this `NAME`, beside addresses, localhost and this machine's name; may be repeated ($UPKEEP_HTTP_HOST)")
	s.httpPrivate = truth(fromEnv("UPKEEP_HTTP_PRIVATE", "false"))
	flags.Var(&s.httpPrivate, "http-private", "show the status page and metrics to nobody without the token ($UPKEEP_HTTP_PRIVATE)")
	flags.Lookup("http-private").NoOptDefVal = "true"
}

// truth is a flag of true or false that may come from the environment, where it
// can be neither: that is found when it is used, and is then wrong usage. Its type
// is that of a switch, so that help shows no value to give.
type truth string

func (t *truth) String() string         { return string(*t) }
func (t *truth) Set(value string) error { *t = truth(value); return nil }
func (t *truth) Type() string           { return "bool" }

func fromEnv(name, otherwise string) string {
	if value, set := os.LookupEnv(name); set {
		return value
	}
	return otherwise
}

// process is control: all of its parts in one process.
type process struct {
	settings // addresses as they were bound
	log      *slog.Logger
	watch    *watch.Watch
	notifier *notify.Notifier
	jobs     *job.Dispatcher
	hub      *link.Hub
	keys     *authority.Authority
	public   net.Listener // of agents; nil for none
	local    *local       // the agent in this process; nil for none
	people   *people.People
	desk     *hosting.Desk
	servers  []server
	lost     <-chan struct{} // closed when another process has taken the database over
	closers  []func() error  // in the order of opening; run backwards
}

// server is a listener with what answers on it.
type server struct {
	listener net.Listener
	handler  http.Handler
}

// open opens everything and decides nothing yet. On an error nothing stays open.
func open(ctx context.Context, s settings, log *slog.Logger) (p *process, err error) {
	p = &process{settings: s, log: log}
	private, err := strconv.ParseBool(string(s.httpPrivate))
	if err != nil {
		return p, &usageError{err: fmt.Errorf("--http-private %q must be true or false", s.httpPrivate)}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	folder, err := datadir.Open(s.data)
	if err != nil {
		return p, err
	}
	p.onClose(folder.Close)
	db := s.db
	if db == "" {
		db = folder.Database()
	}
	kept, err := store.Open(ctx, db)
	if err != nil {
		return p, err
	}
	p.onClose(kept.Close)
	hold, err := kept.Hold(ctx)
	if err != nil {
		return p, err
	}
	p.lost = hold.Lost()
	p.onClose(hold.Release)
	if err := p.openAgents(ctx, folder, kept); err != nil {
		return p, err
	}
	dns, err := p.openDNS(kept, folder.Spare())
	if err != nil {
		return p, err
	}
	engine, err := probe.New(probe.Options{Logger: log, HeartbeatListen: s.beat})
	if err != nil {
		return p, fmt.Errorf("starting the probe engine: %w", err)
	}
	p.onClose(engine.Close)
	meter := metrics.New(version(), log)
	if err := p.openHTTP(folder, func(token string) (*api.API, error) {
		p.watch, err = watch.New(ctx, watch.Config{
			Store: kept, Prober: engine, Publisher: p.publishers(ctx, dns), DNS: p.dns, Log: log, Meter: meter,
		})
		if err != nil {
			return nil, err
		}
		p.desk = p.newDesk(kept)
		kept.Follow(p.desk)
		if err := p.jobs.Start(ctx); err != nil {
			return nil, err
		}
		meter.Collect(p.watch, engine)
		p.notifier = notify.New(notify.Options{Store: told{kept}, Status: p.watch, Notice: p.watch.Notice, Logger: log})
		meter.CollectNotifier(p.notifier)
		p.people, err = people.New(ctx, people.Options{Users: kept.Users(), Log: log, Announce: p.watch.Announce})
		if err != nil {
			return nil, err
		}
		page, err := console.New(console.Options{Observer: p.watch, Recorder: p.watch, People: p.people, Log: log, Version: version(), Private: private,
			Hosting: &console.Hosting{Bounds: api.NewBounds(p.watch, p.desk, p.jobs), Jobs: p.jobs, Servers: p.desk, Connected: p.desk.Connected, Forcer: p.watch, Users: p.people, Audit: kept, Notifier: p.notifier}})
		if err != nil {
			return nil, err
		}
		return api.New(api.Options{
			Declarer: p.watch, Observer: p.watch, Forcer: p.watch, Recorder: p.watch, Notifier: p.notifier,
			Jobs: p.jobs, Sites: p.desk, Servers: p.desk, People: p.people, Users: p.people, Answers: kept, Audit: kept,
			Log: log, Version: version(), Token: token, Private: private, Hosts: s.httpHosts, Metrics: meter.Handler(), Page: page, Alive: p.watch.Alive,
		})
	}); err != nil {
		return p, err
	}
	return p, nil
}

func (p *process) onClose(f func() error) { p.closers = append(p.closers, f) }

// close ends what open opened, last first.
func (p *process) close() error {
	var errs []error
	for _, s := range p.servers {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, f := range slices.Backward(p.closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// openDNS binds the DNS server, if there is to be one, and puts the address
// that it got into p.dns.
func (p *process) openDNS(kept *store.Store, spare string) (*zone.Server, error) {
	if p.dns == "" {
		return nil, nil
	}
	// No zone is answered before p.watch is there.
	notice := func(name, what, why string) { p.watch.Notice("zone/"+name, what, why) }
	dns, err := zone.NewServer(zone.ServerOptions{Listen: []string{p.dns}, Journal: kept, Spare: spare, Logger: p.log, Notice: notice})
	if err != nil {
		return nil, upkeep.WithHint(fmt.Errorf("answering DNS at %s: %w", p.dns, err),
			"choose another address with --dns; ports below 1024 need root or CAP_NET_BIND_SERVICE")
	}
	p.onClose(dns.Close)
	p.dns = dns.Addr().String()
	return dns, nil
}

// openHTTP binds the control socket and, with an address, the TCP side. The
// sockets are taken before build starts anything that would have to be stopped.
func (p *process) openHTTP(folder *datadir.Dir, build func(token string) (*api.API, error)) error {
	token, err := ensureToken(filepath.Join(folder.Path(), "token"))
	if err != nil {
		return err
	}
	control, err := api.ListenControl(folder.Socket())
	if err != nil {
		return err
	}
	p.servers = append(p.servers, server{listener: control})
	if p.http != "" {
		public, err := net.Listen("tcp", p.http)
		if err != nil {
			return upkeep.WithHint(fmt.Errorf("serving the status page at %s: %w", p.http, err), "choose another address with --http")
		}
		p.http = public.Addr().String()
		p.servers = append(p.servers, server{listener: public})
	}
	a, err := build(token)
	if err != nil {
		return err
	}
	for i, face := range []http.Handler{a.Control(), a.Public()}[:len(p.servers)] {
		p.servers[i].handler = face
	}
	return nil
}

// setup is where the first user is made in a browser, "" when there are users or no
// pages. What is listened on may be any address; this machine is one of them.
func (p *process) setup() string {
	token := p.people.Setup()
	if token == "" || p.http == "" {
		return ""
	}
	return "http://" + reachable(p.http) + "/setup?token=" + token
}

// reachable is an address at which this machine reaches what listens at one.
func reachable(listen string) string {
	at, err := netip.ParseAddrPort(listen)
	if err != nil || !at.Addr().IsUnspecified() {
		return listen
	}
	host := "127.0.0.1"
	if at.Addr().Is6() && !at.Addr().Is4In6() {
		host = "localhost" // one that listens on :: takes both, unless it was told otherwise
	}
	return net.JoinHostPort(host, strconv.Itoa(int(at.Port())))
}

// ensureToken reads the API token, making it at the first start.
func ensureToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(text))) > 0 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the API token: %w", err)
	}
	token := rand.Text()
	if err := renameio.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing the API token: %w", err)
	}
	return token, nil
}

// run decides and serves until ctx ends or a server fails, then closes
// everything. Ready is called once requests are answered.
func (p *process) run(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	failures := make(chan error, len(p.servers)+5)
	part := func(f func() error) {
		parts.Go(func() {
			if err := f(); err != nil {
				failures <- err
				cancel()
			}
		})
	}
	part(func() error { return p.watch.Run(ctx) })
	part(func() error { return p.notifier.Run(ctx) })
	part(func() error { return wake(ctx, p.watch, p.notifier) })
	for _, s := range p.servers {
		part(func() error { return api.Serve(ctx, s.listener, s.handler, p.log) })
	}
	part(func() error { return p.desk.Attend(ctx, p.watch.Subscribe) })
	if p.local != nil {
		part(func() error { return p.local.run(ctx, p) })
	}
	if p.public != nil {
		part(func() error { return p.hub.Serve(ctx, p.public) })
	}
	part(func() error { return ready(ctx) })
	part(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-p.lost:
			return fmt.Errorf("another upkeep has taken the database over: %w", upkeep.ErrConflict)
		}
	})
	<-ctx.Done()
	parts.Wait()
	close(failures)
	var errs []error
	for err := range failures {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, p.close())...)
}
