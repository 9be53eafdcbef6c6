package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/google/renameio/v2"

	"upkeep"
	"upkeep/internal/agent"
	"upkeep/internal/job"
	"upkeep/internal/link"
	"upkeep/internal/policy"
	"upkeep/internal/webserver"
)

// localServer is the name of the agent in upkeep up.
const localServer = "local"

// local is the agent inside upkeep up: it acts as the user who started it, with
// everything below the data folder, and serves sites by an Apache of its own.
type local struct {
	root   *agent.Root
	front  *agent.Front
	web    *agent.Web
	apache *webserver.PrivateApache
	notes  []string // for the person who started it
	// last is a file with the address that sites were last made for.
	last string
}

// openLocal starts the agent, and an Apache when there is one to start.
func (p *process) openLocal(ctx context.Context, apache string) (l *local, err error) {
	l = &local{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	data, err := filepath.Abs(p.data)
	if err != nil {
		return l, err
	}
	dir, state := filepath.Join(data, localServer), filepath.Join(data, localServer, "agent")
	switch {
	case apache == "none":
		l.notes = append(l.notes, "no sites are served: --apache none")
	case webserver.FindApache() == "":
		l.notes = append(l.notes, "no sites are served: no Apache is installed (apt-get install apache2)")
	default:
		var note string
		if dir, note, err = sitesFolder(data); err != nil {
			return l, err
		}
		if note != "" {
			l.notes = append(l.notes, note)
		}
		if err := l.openApache(ctx, dir, state, apache, p); err != nil {
			return l, err
		}
	}
	rules := policy.ForUser(dir, l.apache != nil)
	options := agent.Options{
		Server: localServer, Key: p.keys.SigningKey().Public().(ed25519.PublicKey), Policy: rules, State: state,
		Version: version(), Logger: p.log, Now: time.Now, Web: l.web,
	}
	if l.root, err = agent.New(options); err != nil {
		return l, err
	}
	l.front = agent.NewFront(l.root, version(), p.log)
	l.notes = append(l.notes, fmt.Sprintf("server %s is this process, as user id %d: accounts have no system users here", localServer, os.Geteuid()))
	return l, nil
}

func (l *local) openApache(ctx context.Context, dir, state, address string, p *process) error {
	var err error
	l.last = filepath.Join(state, "address")
	if address == "auto" {
		first := 8080
		if last, err := netip.ParseAddrPort(l.lastAddress()); err == nil {
			first = int(last.Port())
		}
		l.apache, err = apacheOnFreePort(ctx, dir, first)
	} else {
		l.apache, err = webserver.Private(ctx, dir, address)
	}
	if err != nil {
		return err
	}
	address = l.apache.Address
	layout, url := webserver.PrivateLayout(dir, address), "http://"+address
	applier, err := webserver.Open(ctx, webserver.Options{
		Server: l.apache, Layout: layout, State: filepath.Join(state, "web"), Address: address, URL: url, Logger: p.log,
	})
	if err != nil {
		return err
	}
	l.web = &agent.Web{Applier: applier, Server: l.apache, Layout: layout, URL: url}
	return nil
}

// apacheOnFreePort starts an Apache on the first port that it gets: between a look
// and its start somebody else may take one.
func apacheOnFreePort(ctx context.Context, dir string, first int) (*webserver.PrivateApache, error) {
	for {
		port, err := freePortFrom(first)
		if err != nil {
			return nil, err
		}
		apache, err := webserver.Private(ctx, dir, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil || ctx.Err() != nil {
			return apache, err
		}
		if still, _ := freePortFrom(port); still == port {
			return apache, err // the port is not what it failed for
		}
		first = port + 1
	}
}

// lastAddress is the address that sites were last made for, "" for none.
func (l *local) lastAddress() string {
	text, err := os.ReadFile(l.last)
	if err != nil {
		return ""
	}
	return string(text)
}

// settle has sites made anew where the web server has another address than it had
// when they were made: it is in their files, and in what is told of them.
func (l *local) settle(ctx context.Context, jobs *job.Dispatcher) error {
	if l.apache == nil || l.lastAddress() == l.apache.Address {
		return nil
	}
	if l.lastAddress() != "" {
		if _, err := jobs.Regenerate(ctx, localServer, "upkeep"); err != nil {
			return err
		}
	}
	return renameio.WriteFile(l.last, []byte(l.apache.Address), 0o600)
}

// freePortFrom finds a port of the loopback address that nobody has.
func freePortFrom(first int) (int, error) {
	for port := first; port < first+100; port++ {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, upkeep.WithHint(fmt.Errorf("no port from %d to %d is free for the Apache of server %s", first, first+99, localServer), "choose an address with --apache ADDR")
}

// run links the agent to control until ctx ends.
func (l *local) run(ctx context.Context, p *process) error {
	for ctx.Err() == nil {
		control, side := link.Pipe()
		done := make(chan struct{})
		go func() { l.front.Serve(side); close(done) }()
		ended := make(chan error, 1)
		go func() { ended <- p.hub.Attach(localServer, control) }()
		select {
		case <-ctx.Done():
		case <-done:
		}
		_ = control.Close() // ends both
		<-done
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

func (l *local) close() error {
	var errs []error
	if l.front != nil {
		errs = append(errs, l.front.Close())
	}
	if l.root != nil {
		errs = append(errs, l.root.Close())
	}
	if l.web != nil {
		errs = append(errs, l.web.Applier.Close())
	}
	if l.apache != nil {
		errs = append(errs, l.apache.Close())
	}
	return errors.Join(errs...)
}

// declareLocal makes the server of this process one that sites can name.
func (p *process) declareLocal(ctx context.Context) error {
	server := upkeep.Server{Name: localServer, Roles: []string{upkeep.RoleWeb, upkeep.RoleFiles}}
	found, err := p.watch.Objects(ctx, upkeep.KindServer, localServer)
	if err == nil && len(found) > 0 {
		if is, yes := found[0].Object.(upkeep.Server); yes && slices.Contains(is.Roles, upkeep.RoleWeb) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, upkeep.ErrNotFound) {
		return err
	}
	_, err = p.watch.Apply(ctx, "upkeep", []upkeep.Object{server}, false)
	return err
}
