package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/datadir"
	"upkeep/internal/hosting"
	"upkeep/internal/job"
	"upkeep/internal/link"
	"upkeep/internal/link/authority"
	"upkeep/internal/store"
)

// openAgents makes control's end of the links to agents, and the queue of what
// they do. Without an address only the agent in this process is served.
func (p *process) openAgents(ctx context.Context, folder *datadir.Dir, kept *store.Store) error {
	keys, err := authority.Open(filepath.Join(folder.Path(), "link"), time.Now)
	if err != nil {
		return err
	}
	p.keys = keys
	kept.Reserve(p.ownNames()...)
	p.jobs, err = job.New(ctx, job.Config{
		Store: kept, Key: keys.SigningKey(), Log: p.log, Announce: func(events []upkeep.Event) { p.watch.Announce(events) },
	})
	if err != nil {
		return err
	}
	p.onClose(p.jobs.Close)
	p.hub = link.NewHub(link.HubOptions{
		Authority: keys, Roster: kept.Roster(), Log: p.log, Now: time.Now,
		Connected: func(server string, hello link.Hello, conn link.Conn) {
			if err := p.jobs.Serve(ctx, server, hello, conn); err != nil {
				p.log.Debug("a link ended", "server", server, "err", err)
			}
		},
		Report: func(server, sentence string) { p.watch.Notice("server/"+server, sentence, "") },
	})
	p.onClose(p.hub.Close)
	if p.agents == "" {
		return nil
	}
	p.public, err = net.Listen("tcp", p.agents)
	if err != nil {
		return upkeep.WithHint(fmt.Errorf("letting agents connect at %s: %w", p.agents, err), "choose another address with --agents")
	}
	p.agents = p.public.Addr().String()
	return nil
}

// newDesk is where people ask about sites and servers.
func (p *process) newDesk(kept *store.Store) *hosting.Desk {
	d := &hosting.Desk{Store: kept, Jobs: p.jobs, Declarer: p.watch, Inviter: p.keys, Address: p.agents, Notice: p.watch.Notice, Announce: p.watch.Announce}
	if p.public != nil {
		d.Agents = p.hub
	}
	return d
}

// ownNames are the names by which people reach control, which no site may have.
func (p *process) ownNames() []string {
	names := slices.Clone(p.httpHosts)
	if name, err := os.Hostname(); err == nil && strings.ContainsRune(name, '.') {
		names = append(names, name)
	}
	return names
}
