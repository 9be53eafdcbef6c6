package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"upkeep/internal/testkit"
	"upkeep/internal/testkit/nameserver"
	"upkeep/internal/testkit/netlab"
)

const (
	zoneName = "example.test"
	poolName = "www." + zoneName
	service  = 8080 // port of the members
)

// stage is the network on which one contender runs: a client that asks, a
// monitor with the primary name server, a secondary, and three members.
type stage struct {
	*netlab.Network
	dir       string
	upkeep    string
	client    *netlab.Host
	dns       *netlab.Host
	secondary *netlab.Host
	members   []*member
	processes []*testkit.Process
}

// member is a host with a listening service, or with a process that beats.
type member struct {
	host     *netlab.Host
	listener net.Listener
	beat     func() (*testkit.Process, error) // nil for members that are probed
	beating  *testkit.Process
}

func newStage(dir, upkeep string) (*stage, error) {
	network, err := netlab.New("client", "dns", "secondary", "m1", "m2", "m3")
	if err != nil {
		return nil, err
	}
	s := &stage{
		Network: network, dir: dir, upkeep: upkeep,
		client: network.Host("client"), dns: network.Host("dns"), secondary: network.Host("secondary"),
	}
	for _, name := range []string{"m1", "m2", "m3"} {
		s.members = append(s.members, &member{host: network.Host(name)})
	}
	return s, os.MkdirAll(dir, 0o755)
}

// close ends everything that runs on the stage.
func (s *stage) close() {
	for _, p := range s.processes {
		p.Kill()
	}
	for _, m := range s.members {
		if m.listener != nil {
			_ = m.listener.Close()
		}
		if m.beating != nil {
			m.beating.Kill()
		}
	}
	_ = s.Close()
}

// start runs a program on a host until the stage closes.
func (s *stage) start(host *netlab.Host, argv ...string) (*testkit.Process, error) {
	p, err := testkit.Command{Argv: host.Argv(argv...), Dir: s.dir}.Launch()
	if err == nil {
		s.processes = append(s.processes, p)
	}
	return p, err
}

// ended reports whether a program of the stage has ended, which none should.
func (s *stage) ended() bool {
	for _, p := range s.processes {
		if !p.Running() {
			return true
		}
	}
	return false
}

// named runs BIND on a host.
func (s *stage) named(host *netlab.Host, zones ...nameserver.Zone) (*nameserver.Server, error) {
	server, err := nameserver.New(nameserver.BIND, host, s.dir+"/named-"+host.Name, zones...)
	if err == nil {
		s.processes = append(s.processes, server.Process())
	}
	return server, err
}

func (s *stage) addresses() []netip.Addr {
	addrs := make([]netip.Addr, len(s.members))
	for i, m := range s.members {
		addrs[i] = m.host.Addr
	}
	return addrs
}

// list joins the members' addresses.
func (s *stage) list(format, between string) string {
	items := make([]string, len(s.members))
	for i, addr := range s.addresses() {
		items[i] = fmt.Sprintf(format, addr)
	}
	return strings.Join(items, between)
}

// revive brings a member back from any death.
func (m *member) revive() error {
	if err := m.host.Heal(); err != nil {
		return err
	}
	if m.beat != nil {
		if m.beating != nil && m.beating.Running() {
			return nil
		}
		var err error
		m.beating, err = m.beat()
		return err
	}
	if m.listener != nil {
		return nil
	}
	listener, err := m.host.Listen("tcp", fmt.Sprintf(":%d", service))
	if err != nil {
		return err
	}
	m.listener = listener
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return nil
}

// deaths are the ways in which a member dies.
var deaths = map[string]func(m *member) error{
	"path dropped": func(m *member) error { return m.host.Blackhole() },
	"listener closed": func(m *member) error {
		err := m.listener.Close()
		m.listener = nil
		return err
	},
	"process killed": func(m *member) error { return syscall.Kill(m.beating.PID(), syscall.SIGKILL) },
	"goodbye":        func(m *member) error { return syscall.Kill(m.beating.PID(), syscall.SIGTERM) },
}

// await polls until the condition holds.
func await(what string, patience time.Duration, holds func() bool) error {
	for end := time.Now().Add(patience); !holds(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s: not so after %s", what, patience)
		}
	}
	return nil
}
