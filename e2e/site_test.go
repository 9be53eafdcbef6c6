package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/nameserver"
	"upkeep/internal/testkit/netlab"
)

const zoneName = "example.test"

// site is one operator's world: a monitor on which upkeep runs, name servers,
// members, and a client that asks.
type site struct {
	t       testing.TB
	net     *netlab.Network
	dir     string
	monitor *netlab.Host
	client  *netlab.Host
	members []*member
	// servers are the name servers that are not upkeep, the primary first where
	// it is one of them.
	servers []*nameserver.Server
	// asked is every name server's address, upkeep's own included.
	asked    []string
	eyes     []*eye
	data     string   // upkeep's data folder
	flags    []string // of upkeep serve
	upkeep   *testkit.Process
	document string // as last applied
}

var secondaryKinds = []string{nameserver.BIND, nameserver.NSD, nameserver.Knot}

// newSite makes a network with a monitor, a client, an anchor, four hosts for
// name servers and some members that serve. Nothing else runs yet.
func newSite(t testing.TB, members int) *site {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "ip", "nsenter", "nft", "named-checkzone", "rndc", nameserver.BIND, nameserver.NSD, nameserver.Knot)
	names := []string{"monitor", "client", "anchor", "ns1", "ns2", "ns3", "ns4"}
	for i := range members {
		names = append(names, fmt.Sprintf("m%d", i+1))
	}
	network, err := netlab.New(names...)
	testkit.NeedThat(t, "network namespaces", err)
	s := &site{t: t, net: network, dir: t.TempDir(), monitor: network.Host("monitor"), client: network.Host("client")}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	s.data = s.path("data")
	if err := os.Mkdir(s.path("include"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range members {
		m := &member{Host: network.Host(fmt.Sprintf("m%d", i+1))}
		m.serve(t)
		t.Cleanup(m.close)
		s.members = append(s.members, m)
	}
	return s
}

func (s *site) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) write(name, text string) {
	s.t.Helper()
	s.must(os.WriteFile(s.path(name), []byte(text), 0o600))
}

// nameserver runs a server on a host until the test ends.
func (s *site) nameserver(kind, host string, zones ...nameserver.Zone) *nameserver.Server {
	s.t.Helper()
	server, err := nameserver.New(kind, s.net.Host(host), s.path(host), zones...)
	s.must(err)
	s.servers = append(s.servers, server)
	s.asked = append(s.asked, server.Addr())
	s.t.Cleanup(func() {
		server.Kill()
		if s.t.Failed() {
			log := server.Process().Log()
			s.t.Logf("%s on %s, the end of its log:\n%s", kind, host, log[max(0, len(log)-1500):])
		}
	})
	return server
}

// secondaries runs a BIND, an NSD and a Knot that follow the primary.
func (s *site) secondaries(primary *netlab.Host, key *nameserver.Key) []*netlab.Host {
	s.t.Helper()
	var hosts []*netlab.Host
	for i, kind := range secondaryKinds {
		server := s.nameserver(kind, fmt.Sprintf("ns%d", i+2), nameserver.Zone{Name: zoneName, Primary: primary, Key: key})
		hosts = append(hosts, server.Host)
	}
	return hosts
}

func (s *site) secondaryHosts() []*netlab.Host {
	return []*netlab.Host{s.net.Host("ns2"), s.net.Host("ns3"), s.net.Host("ns4")}
}

// owners are the names at which the pool web is published.
var owners = []string{"@", "*", "www"}

// names are names that must answer as the pool web does.
var names = []string{zoneName, "anything." + zoneName, "www." + zoneName}

// bindPrimary runs a BIND primary whose zone includes what upkeep writes into
// dir, with three secondaries, and returns the zone's document. The zone starts
// with every member published.
func (s *site) bindPrimary(dir string, serial uint32) string {
	s.t.Helper()
	ips := &strings.Builder{}
	for _, owner := range owners {
		for _, m := range s.members {
			fmt.Fprintf(ips, "%s 60 IN A %s\n", owner, m.Addr)
		}
	}
	s.must(os.WriteFile(filepath.Join(dir, "ips.include"), []byte(ips.String()), 0o644))
	s.must(os.WriteFile(filepath.Join(dir, "soa.include"), fmt.Appendf(nil, "$TTL 300\n@ IN SOA ns1 hostmaster %d 300 60 86400 60\n", serial), 0o644))
	ns1 := s.net.Host("ns1")
	text := fmt.Sprintf("$INCLUDE \"%s/soa.include\"\n$INCLUDE \"%[1]s/ips.include\"\n@ IN NS ns1\nns1 IN A %s\n", dir, ns1.Addr)
	primary := s.nameserver(nameserver.BIND, "ns1", nameserver.Zone{Name: zoneName, Text: text, Notify: s.secondaryHosts()})
	s.secondaries(ns1, nil)
	return fmt.Sprintf(`kind: zone
name: %s
publishers:
  - {type: bind, zone_file: %s, include_dir: %s, server: "%s", rndc: [%s]}
servers: [%s]
`, zoneName, filepath.Join(primary.Dir, "db."+zoneName), dir, primary.Addr(), strings.Join(primary.RNDC(), ", "), s.quotedServers())
}

func (s *site) quotedServers() string {
	quoted := make([]string, len(s.asked))
	for i, server := range s.asked {
		quoted[i] = `"` + server + `"`
	}
	return strings.Join(quoted, ", ")
}

// checkTCP is the check of most scenarios: quick, and otherwise as by default.
const checkTCP = "{type: tcp, port: 8080, interval: 200ms}"

// policy makes members return soon, and has the anchor decide on who is cut off.
func (s *site) policy() string {
	return fmt.Sprintf("{probation: 1s, probation_max: 1s, add_window: 1s, anchors: [%s]}", s.net.Host("anchor").Addr)
}

// pool is the document of a pool of all members.
func (s *site) pool(name, check string, owners ...string) string {
	list := make([]string, len(s.members))
	for i, m := range s.members {
		list[i] = m.Addr.String()
	}
	quoted := `"` + strings.Join(owners, `", "`) + `"`
	return fmt.Sprintf("---\nkind: pool\nname: %s\nzones: [%s]\nrecords: [%s]\nmembers: [%s]\ncheck: %s\npolicy: %s\n",
		name, zoneName, quoted, strings.Join(list, ", "), check, s.policy())
}

// serve starts upkeep on the monitor and waits until it can be spoken to.
func (s *site) serve(flags ...string) {
	s.t.Helper()
	s.flags = flags
	s.start()
	s.awaitUp()
}

// start starts upkeep on the monitor with the flags of last time.
func (s *site) start() {
	s.t.Helper()
	argv := append([]string{upkeepProgram(s.t), "serve", "--data", s.data}, s.flags...)
	s.upkeep = testkit.Command{Argv: s.monitor.Argv(argv...), Dir: s.dir}.Start(s.t)
}

func (s *site) awaitUp() {
	s.t.Helper()
	testkit.Eventually(s.t, 60*time.Second, func() (bool, string) {
		_, err := s.control().Pools(context.Background())
		if !s.upkeep.Running() {
			s.t.Fatalf("upkeep ended:\n%s", s.upkeep.Log())
		}
		return err == nil, fmt.Sprint(err)
	})
}

// control speaks to the running upkeep over its socket.
func (s *site) control() *client.Client { return client.OverSocket(s.data) }

// run runs a verb of upkeep to its end.
func (s *site) run(verb ...string) (output string, exit int) {
	s.t.Helper()
	cmd := exec.Command(upkeepProgram(s.t), append(verb, "--data", s.data)...)
	cmd.Dir = s.dir
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		s.t.Fatal(err)
	}
	return both.String(), cmd.ProcessState.ExitCode()
}

// apply applies a document and expects it to be taken.
func (s *site) apply(document string) {
	s.t.Helper()
	s.document = document
	s.write("upkeep.yaml", document)
	if output, exit := s.run("apply", "-f", s.path("upkeep.yaml")); exit != 0 {
		s.t.Fatalf("apply: exit %d\n%s\n%s", exit, output, document)
	}
}

// watch begins to watch every server; none may ever answer nothing from here on.
func (s *site) watch() {
	s.t.Helper()
	for _, server := range s.asked {
		s.eyes = append(s.eyes, watchServer(s.t, s.client, server, addrs(s.members), names...))
	}
}

// removals counts the removals seen at any server so far.
func (s *site) removals() int {
	n := 0
	for _, e := range s.eyes {
		n += e.removals()
	}
	return n
}

func (s *site) status(pool string) upkeep.PoolStatus {
	s.t.Helper()
	output, exit := s.run("pool", "status", pool, "-o", "json")
	var status upkeep.PoolStatus
	if err := json.Unmarshal([]byte(output), &status); exit != 0 || err != nil {
		s.t.Fatalf("pool status %s: exit %d, %v\n%s", pool, exit, err, output)
	}
	return status
}

// expect waits until every server answers with exactly these addresses at every
// name, and upkeep itself says so too.
func (s *site) expect(want ...netip.Addr) {
	s.t.Helper()
	s.expectAt("web", names, want)
}

func (s *site) expectAt(pool string, names []string, want []netip.Addr) {
	s.t.Helper()
	want = slices.SortedFunc(slices.Values(want), netip.Addr.Compare)
	for _, server := range s.asked {
		for _, name := range names {
			testkit.Eventually(s.t, 90*time.Second, func() (bool, string) {
				got, err := nameserver.Addresses(s.client, server, name)
				if err != nil || !slices.Equal(got, want) {
					return false, fmt.Sprintf("%s at %s: %v, %v; wanted %v\n%s", name, server, got, err, want, s.says(pool))
				}
				return true, ""
			})
		}
	}
	testkit.Eventually(s.t, 30*time.Second, func() (bool, string) {
		status, err := s.control().Pool(context.Background(), pool)
		if err != nil {
			return false, err.Error()
		}
		published := slices.SortedFunc(slices.Values(status.Published), netip.Addr.Compare)
		text, _ := json.MarshalIndent(status, "", " ")
		return slices.Equal(published, want) && allInSync(status), string(text)
	})
}

// says is what upkeep makes of a pool, for the messages of failing tests.
func (s *site) says(pool string) string {
	status, err := s.control().Pool(context.Background(), pool)
	if err != nil {
		return err.Error()
	}
	text, _ := json.MarshalIndent(status, "", " ")
	return string(text)
}

func allInSync(status upkeep.PoolStatus) bool {
	for _, zone := range status.Zones {
		for _, server := range zone.Servers {
			if !server.InSync || server.Serial != zone.Serial {
				return false
			}
		}
	}
	return len(status.Zones) > 0
}

// whole asserts what must hold after every scenario: nothing wrong was ever
// answered, serials agree and never went back, includes are whole, and what was
// declared is unchanged.
func (s *site) whole() {
	s.t.Helper()
	for _, e := range s.eyes {
		for _, fault := range e.seen() {
			s.t.Error(fault)
		}
	}
	// Another pool of the zone may be publishing: agreement is waited for.
	testkit.Eventually(s.t, 60*time.Second, func() (bool, string) {
		status, err := s.control().Pool(context.Background(), "web")
		if err != nil || len(status.Zones) != 1 {
			return false, fmt.Sprint(status, err)
		}
		for _, server := range s.asked {
			serial, err := nameserver.Serial(s.client, server, zoneName)
			if err != nil || serial != status.Zones[0].Serial {
				return false, fmt.Sprintf("%s answers serial %d, %v; upkeep says %d", server, serial, err, status.Zones[0].Serial)
			}
		}
		return true, ""
	})
	s.includesWhole()
	output, exit := s.run("apply", "-f", s.path("upkeep.yaml"))
	if exit != 0 || strings.Contains(output, "changed") && !strings.Contains(output, "unchanged") || strings.Contains(output, "created") {
		s.t.Errorf("what was declared is not there any more: exit %d\n%s", exit, output)
	}
}

// includesWhole asserts that the primary would load its zone if it started now.
func (s *site) includesWhole() {
	s.t.Helper()
	file := s.path("ns1", "db."+zoneName)
	if _, err := os.Stat(file); err != nil {
		return // no include files in this scenario
	}
	if output, err := exec.Command("named-checkzone", "-q", zoneName, file).CombinedOutput(); err != nil {
		full, _ := exec.Command("named-checkzone", zoneName, file).CombinedOutput()
		s.t.Errorf("the primary could not load its zone: %v\n%s%s", err, output, full)
	}
}
