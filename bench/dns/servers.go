package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/zone"
)

// contender is a server that can be measured.
type contender struct {
	name    string
	program string // to look for; empty for this program itself
	// prepare writes configuration into dir and returns the command that serves
	// at the address in the foreground.
	prepare func(dir string, at netip.AddrPort) ([]string, error)
}

var contenders = []contender{
	{"upkeep", "", prepareUpkeep},
	{"gdnsd", "gdnsd", prepareGdnsd},
	{"BIND", "named", prepareBIND},
	{"PowerDNS", "pdns_server", preparePowerDNS},
}

type server struct {
	name    string
	process *exec.Cmd
	at      netip.AddrPort
	output  *bytes.Buffer
}

func start(ctx context.Context, c contender, dir string) (*server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	at, err := freePort()
	if err != nil {
		return nil, err
	}
	argv, err := c.prepare(dir, at)
	if err != nil {
		return nil, err
	}
	s := &server{name: c.name, process: exec.Command(argv[0], argv[1:]...), at: at, output: &bytes.Buffer{}}
	if c.program == "" {
		s.process.Args = argv[1:]
	}
	s.process.Stdout, s.process.Stderr = s.output, s.output
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	return s, s.await(ctx)
}

// await returns when the server answers as it should.
func (s *server) await(ctx context.Context) error {
	client := &dns.Client{Timeout: time.Second}
	var last error
	for range 200 {
		m, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(asked+".", dns.TypeA), s.at.String())
		if err == nil && len(m.Answer) == len(addresses) {
			return nil
		}
		if last = err; err == nil {
			last = fmt.Errorf("it answers %v", m)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("%w\n%s", last, s.output)
}

func freePort() (netip.AddrPort, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	return listener.Addr().(*net.TCPAddr).AddrPort(), listener.Close()
}

func prepareUpkeep(_ string, at netip.AddrPort) ([]string, error) {
	return []string{"/proc/self/exe", "upkeep-answering", at.String()}, nil
}

// answerAsUpkeep serves the zone as upkeep does, until it is interrupted.
func answerAsUpkeep(at string) error {
	s, err := zone.NewServer(zone.ServerOptions{Listen: []string{at}, Journal: &zone.MemoryJournal{}})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	z := upkeep.Zone{Name: zoneName, Records: []upkeep.Record{{Name: "@", Type: "NS", Value: "ns1"}, {Name: "ns1", Type: "A", Value: "127.0.0.1"}}}
	z = z.WithDefaults()
	p, err := s.Publisher(ctx, z, upkeep.Publisher{Type: upkeep.PublishTransfer})
	if err != nil {
		return err
	}
	set := zone.AddressSet{Owner: "www", TTL: time.Minute}
	for _, addr := range addresses {
		set.Addresses = append(set.Addresses, netip.MustParseAddr(addr))
	}
	if _, err := p.Publish(ctx, zone.Content{Zone: z, Sets: []zone.AddressSet{set}}); err != nil {
		return err
	}
	<-ctx.Done()
	return s.Close()
}

// zoneText is the zone in the form of a zone file.
func zoneText() string {
	return "$TTL 60\n@ SOA ns1 hostmaster 1 300 60 86400 60\n@ NS ns1\nns1 A 127.0.0.1\nwww A " + strings.Join(addresses, "\nwww A ") + "\n"
}

func write(dir, name, text string) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func prepareGdnsd(dir string, at netip.AddrPort) ([]string, error) {
	config := fmt.Sprintf("options => { listen => [%s], dns_port => %d, run_dir => %s/run, state_dir => %[3]s/state, zones_strict_data => false }\n",
		at.Addr(), at.Port(), dir)
	if err := write(dir, "config", config); err != nil {
		return nil, err
	}
	return []string{"gdnsd", "-c", dir, "start"}, write(dir, "zones/"+zoneName, zoneText())
}

func prepareBIND(dir string, at netip.AddrPort) ([]string, error) {
	config := fmt.Sprintf(`options {
	directory "%s"; pid-file none; session-keyfile none; lock-file none;
	listen-on port %d { %s; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; empty-zones-enable no; minimal-responses yes;
};
controls { };
zone "%s" { type primary; file "db"; };
`, dir, at.Port(), at.Addr(), zoneName)
	if err := write(dir, "named.conf", config); err != nil {
		return nil, err
	}
	return []string{"named", "-g", "-c", filepath.Join(dir, "named.conf")}, write(dir, "db", zoneText())
}

func preparePowerDNS(dir string, at netip.AddrPort) ([]string, error) {
	if err := write(dir, "named.conf", fmt.Sprintf("zone \"%s\" { type master; file \"%s/db\"; };\n", zoneName, dir)); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("launch=bind\nbind-config=%s/named.conf\nlocal-address=%s\nlocal-port=%d\nsocket-dir=%[1]s\nguardian=no\ndaemon=no\nreceiver-threads=2\n",
		dir, at.Addr(), at.Port())
	if err := write(dir, "pdns.conf", config); err != nil {
		return nil, err
	}
	return []string{"pdns_server", "--config-dir=" + dir}, write(dir, "db", zoneText())
}
