package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"upkeep"
)

// demoPause is how long the demo leaves its members as they are.
const demoPause = 15 * time.Second

// playDemo serves a page on every member of the first pool that is on this
// machine, and stops and starts one of them in turn until ctx ends.
func playDemo(ctx context.Context, pools []upkeep.Declared, out io.Writer) error {
	if len(pools) == 0 {
		return fmt.Errorf("playing members: no pool is declared")
	}
	pool := pools[0].Object.(upkeep.Pool).WithDefaults()
	var members []*demoMember
	for _, m := range pool.Members {
		member := &demoMember{address: net.JoinHostPort(m.Target(), strconv.Itoa(pool.Check.Port))}
		if err := member.start(); err != nil {
			return upkeep.WithHint(fmt.Errorf("playing member %s: %w", m.Address, err),
				"--demo needs a pool whose members are free addresses of this machine, such as the quick start's")
		}
		members = append(members, member)
	}
	go func() {
		for turn := 0; ; turn++ {
			m := members[turn/2%len(members)]
			select {
			case <-ctx.Done():
				for _, m := range members {
					m.stop()
				}
				return
			case <-time.After(demoPause):
			}
			if turn%2 == 0 {
				fmt.Fprintf(out, "%s  demo  stopping %s\n", time.Now().Format("15:04:05.000"), m.address)
				m.stop()
				continue
			}
			fmt.Fprintf(out, "%s  demo  starting %s\n", time.Now().Format("15:04:05.000"), m.address)
			if err := m.start(); err != nil {
				fmt.Fprintln(out, "demo:", err)
			}
		}
	}()
	return nil
}

// demoMember is a web server that stands in for a member.
type demoMember struct {
	address string
	server  *http.Server
}

func (m *demoMember) start() error {
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		return err
	}
	m.server = &http.Server{
		ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "hello from", m.address)
		}),
	}
	go m.server.Serve(l) // ends with stop
	return nil
}

func (m *demoMember) stop() { m.server.Close() }
