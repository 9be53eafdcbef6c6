// Command soak counts how often upkeep takes living members out of DNS while
// their network loses packets at random: it ought to be never. Thirty hosts on a
// network of namespaces lose a fifth of the packets that are sent to them; each
// is checked by ping and by TCP, with a pool for each, once a second. The
// published sets are watched at the DNS server and in the event log.
//
// It needs root, Linux, and the programs that `make deps` installs.
//
//	go run ./bench/soak [-for 1h] [-members 30] [-loss 0.2] [-interval 1s]
//
// A shorter interval scales time: at 100ms, six minutes hold as many checks as
// an hour at the default of one second.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/netlab"
)

const zoneName = "example.test"

func main() {
	s := soak{}
	flag.DurationVar(&s.length, "for", time.Hour, "how long to lose packets")
	flag.DurationVar(&s.warm, "warm", time.Minute, "how long to run without loss first")
	flag.IntVar(&s.count, "members", 30, "hosts that are checked")
	flag.Float64Var(&s.loss, "loss", 0.2, "fraction of the packets to a host that is lost")
	flag.StringVar(&s.interval, "interval", "1s", "between two checks of a member")
	flag.StringVar(&s.program, "upkeep", "", "upkeep program to run; built from this module when left out")
	flag.Parse()
	if err := s.run(); err != nil {
		log.Fatal(err)
	}
}

type soak struct {
	length, warm time.Duration
	count        int
	loss         float64
	interval     string
	program      string

	dir     string
	network *netlab.Network
	members []*netlab.Host
}

func (s *soak) run() (err error) {
	if s.dir, err = os.MkdirTemp("", "upkeep-soak-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(s.dir) }()
	if s.program == "" {
		s.program = filepath.Join(s.dir, "upkeep")
		if output, err := exec.Command("go", "build", "-o", s.program, "upkeep/cmd/upkeep").CombinedOutput(); err != nil {
			return fmt.Errorf("building upkeep: %w\n%s", err, output)
		}
	}
	if err := s.connect(); err != nil {
		return err
	}
	defer func() { _ = s.network.Close() }()
	process, err := s.serve()
	if err != nil {
		return err
	}
	defer process.Kill()
	control := client.OverSocket(s.data())
	if err := s.awaitUp(control); err != nil {
		return fmt.Errorf("%w\n%s", err, process.Log())
	}
	log.Printf("all members are up; %s without loss", s.warm)
	<-time.After(s.warm)
	return s.measure(control)
}

func (s *soak) data() string { return filepath.Join(s.dir, "data") }

// connect makes the network, with a listener on every member.
func (s *soak) connect() (err error) {
	names := []string{"monitor"}
	for i := range s.count {
		names = append(names, fmt.Sprintf("m%d", i+1))
	}
	if s.network, err = netlab.New(names...); err != nil {
		return err
	}
	for _, name := range names[1:] {
		host := s.network.Host(name)
		s.members = append(s.members, host)
		listener, err := host.Listen("tcp", ":8080")
		if err != nil {
			return err
		}
		go accept(listener)
	}
	return nil
}

func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

// serve runs upkeep and declares one pool for each kind of check.
func (s *soak) serve() (*testkit.Process, error) {
	monitor := s.network.Host("monitor")
	process, err := testkit.Command{
		Argv: monitor.Argv(s.program, "serve", "--data", s.data(), "--http", "", "--dns", monitor.Addr.String()+":53"),
		Dir:  s.dir,
	}.Launch()
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(s.members))
	for i, m := range s.members {
		addrs[i] = m.Addr.String()
	}
	text := fmt.Sprintf(`kind: zone
name: %s
publishers: [{type: transfer}]
servers: ["%s:53"]
records: [{name: ns1, type: A, value: %[2]s}, {name: "@", type: NS, value: ns1}]
`, zoneName, monitor.Addr)
	for name, check := range map[string]string{"tcp": "{type: tcp, port: 8080, interval: " + s.interval + "}", "ping": "{type: ping, interval: " + s.interval + "}"} {
		text += fmt.Sprintf("---\nkind: pool\nname: %s\nzones: [%s]\nrecords: [%s]\nmembers: [%s]\ncheck: %s\n", name, zoneName, name, strings.Join(addrs, ", "), check)
	}
	file := filepath.Join(s.dir, "soak.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var output []byte
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-time.After(100 * time.Millisecond) {
		if output, err = exec.Command(s.program, "apply", "--data", s.data(), "-f", file).CombinedOutput(); err == nil {
			return process, nil
		}
	}
	process.Kill()
	return nil, fmt.Errorf("applying: %w\n%s%s", err, output, process.Log())
}

func (s *soak) awaitUp(control *client.Client) error {
	var seen string
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); <-time.After(time.Second) {
		pools, err := control.Pools(context.Background())
		up := 0
		for _, p := range pools {
			for _, m := range p.Members {
				if m.Verdict == upkeep.Up && m.Published {
					up++
				}
			}
		}
		if up == 2*s.count {
			return nil
		}
		seen = fmt.Sprintf("%d of %d members up, %v", up, 2*s.count, err)
	}
	return fmt.Errorf("waiting for the members: %s", seen)
}

// measure loses packets and counts what is said of living members.
func (s *soak) measure(control *client.Client) error {
	ctx := context.Background()
	last, err := newest(ctx, control)
	if err != nil {
		return err
	}
	for _, m := range s.members {
		if err := m.Lose(s.loss, 0); err != nil {
			return err
		}
	}
	began := time.Now()
	counts := map[string]int{}
	for report := began.Add(time.Minute); time.Since(began) < s.length; <-time.After(time.Second) {
		events, err := control.Events(ctx, client.EventFilter{After: last, Limit: 1000})
		if err != nil {
			return err
		}
		for _, e := range events {
			last = max(last, e.ID)
			if e.Kind == upkeep.EventVerdict {
				counts[strings.Split(e.Object, "/")[1]+" "+e.What]++
				log.Printf("%s: %s (%s)", e.Object, e.What, e.Why)
			}
		}
		if time.Now().After(report) {
			log.Printf("after %s: %v", time.Since(began).Round(time.Second), counts)
			report = report.Add(5 * time.Minute)
		}
	}
	return s.report(control, counts, time.Since(began))
}

// newest is the id of the newest event.
func newest(ctx context.Context, control *client.Client) (int64, error) {
	var last int64
	for {
		events, err := control.Events(ctx, client.EventFilter{After: last, Limit: 1000})
		if err != nil || len(events) == 0 {
			return last, err
		}
		for _, e := range events {
			last = max(last, e.ID)
		}
	}
}

// report writes the outcome, with the loss that was learned as a proof that
// packets were lost at all.
func (s *soak) report(control *client.Client, counts map[string]int, length time.Duration) error {
	fmt.Printf("%d members, %.0f %% of the packets to them lost, each checked every %s for %s\n\n", s.count, 100*s.loss, s.interval, length.Round(time.Second))
	fmt.Println("| check | false removals | loss learned, mean |\n|---|---|---|")
	for _, name := range []string{"ping", "tcp"} {
		pool, err := control.Pool(context.Background(), name)
		if err != nil {
			return err
		}
		loss := 0.0
		published := map[netip.Addr]bool{}
		for _, a := range pool.Published {
			published[a] = true
		}
		for _, m := range pool.Members {
			loss += m.Loss / float64(len(pool.Members))
			if !published[m.Address] {
				fmt.Printf("%s: %s is not published: %s\n", name, m.Address, m.Reason)
			}
		}
		fmt.Printf("| %s | %d | %.1f %% |\n", name, counts[name+" down"], 100*loss)
	}
	return nil
}
