package nameserver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"upkeep/internal/testkit"
	"upkeep/internal/testkit/nameserver"
	"upkeep/internal/testkit/netlab"
)

func zoneText(serial uint32, address string) string {
	return fmt.Sprintf("$TTL 60\n@ SOA ns1 hostmaster %d 300 60 86400 60\n@ NS ns1\nns1 A 10.53.0.1\nwww A %s\n", serial, address)
}

// Each kind of server follows a BIND primary, through a stop and a kill.
func TestSecondariesFollow(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "ip", "nsenter", "nft", "rndc", nameserver.BIND, nameserver.NSD, nameserver.Knot)
	network, err := netlab.New("ns1", "ns2", "ns3", "ns4")
	testkit.NeedThat(t, "network namespaces", err)
	t.Cleanup(func() { _ = network.Close() })
	ns1 := network.Host("ns1")
	start := func(kind, host string, zone nameserver.Zone) *nameserver.Server {
		t.Helper()
		s, err := nameserver.New(kind, network.Host(host), filepath.Join(t.TempDir(), host), zone)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Kill() })
		return s
	}
	primary := start(nameserver.BIND, "ns1", nameserver.Zone{
		Name: "example.test", Text: zoneText(1, "192.0.2.1"),
		Notify: []*netlab.Host{network.Host("ns2"), network.Host("ns3"), network.Host("ns4")},
	})
	secondary := nameserver.Zone{Name: "example.test", Primary: ns1}
	servers := []*nameserver.Server{primary}
	for host, kind := range map[string]string{"ns2": nameserver.BIND, "ns3": nameserver.NSD, "ns4": nameserver.Knot} {
		servers = append(servers, start(kind, host, secondary))
	}
	see := func(serial uint32, address string) {
		t.Helper()
		for _, s := range servers {
			testkit.Eventually(t, 60*time.Second, func() (bool, string) {
				got, err := nameserver.Serial(ns1, s.Addr(), "example.test")
				if err != nil {
					return false, err.Error() + "\n" + s.Process().Log()
				}
				addrs, err := nameserver.Addresses(ns1, s.Addr(), "www.example.test")
				state := fmt.Sprintf("%s: serial %d, %v, %v", s.Kind, got, addrs, err)
				return got == serial && len(addrs) == 1 && addrs[0].String() == address, state
			})
		}
	}
	see(1, "192.0.2.1")
	for _, s := range servers[1:] {
		s.Stop()
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(primary.Dir, "db.example.test"), []byte(zoneText(2, "192.0.2.2")), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ns1.Run(append(primary.RNDC(), "reload", "example.test")...); err != nil {
		t.Fatal(err)
	}
	see(2, "192.0.2.2")
	primary.Kill()
	if err := primary.Start(); err != nil {
		t.Fatal(err)
	}
	see(2, "192.0.2.2")
}
