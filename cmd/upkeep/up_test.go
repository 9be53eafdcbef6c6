package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep/internal/testkit"
)

// A terminal that is closed ends upkeep up in good order.
func TestUpEndsOnHangup(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "zone.yaml")
	if err := os.WriteFile(file, []byte("{kind: zone, name: example.test, publishers: [{type: transfer}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startUpkeep(t, nil, "up", "--data", filepath.Join(dir, "data"), "-f", file, "--dns", "", "--http", "", "--beat", "", "--apache", "none")
	testkit.Eventually(t, time.Minute, func() (bool, string) { return strings.Contains(p.Log(), "upkeep is up"), p.Log() })
	p.Signal(t, syscall.SIGHUP)
	if err := p.Wait(); err != nil || !strings.Contains(p.Log(), "stopped; what was declared") {
		t.Errorf("%v\n%s", err, p.Log())
	}
}

// Whoever is refused a zone is told of once.
func TestUpTellsARefusedTransferOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "zone.yaml")
	if err := os.WriteFile(file, []byte("{kind: zone, name: example.test, publishers: [{type: transfer, allow_transfer: [192.0.2.1/32]}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	net127, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	address := net127 + ".1:" + port
	p := startUpkeep(t, nil, "up", "--data", filepath.Join(dir, "data"), "-f", file, "--dns", address, "--http", "", "--beat", "", "--apache", "none")
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		return strings.Contains(p.Log(), "every server answers serial"), p.Log()
	})
	answer, _, err := (&dns.Client{Net: "tcp", Timeout: 30 * time.Second}).Exchange(new(dns.Msg).SetAxfr("example.test."), address)
	if err != nil || answer.Rcode != dns.RcodeRefused {
		t.Fatalf("asking for the zone: %v, %v", answer, err)
	}
	testkit.Eventually(t, time.Minute, func() (bool, string) { return strings.Contains(p.Log(), "refused a zone transfer"), p.Log() })
	p.Signal(t, syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(p.Log(), "refused a zone transfer"); n != 1 {
		t.Errorf("it is told %d times:\n%s", n, p.Log())
	}
}
