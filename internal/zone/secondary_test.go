package zone

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/testkit"
)

const keySecret = "h3nVdgB4zyTDlFRbEPZcXpQbDoXNFZpGpTOvbLNUVmQ="

// followed is what a name server answers for the zone: its serial and the
// addresses of www.
func followed(server netip.AddrPort) (serial uint32, addresses []string, err error) {
	client := &dns.Client{Timeout: 500 * time.Millisecond}
	soa, _, err := client.Exchange(new(dns.Msg).SetQuestion("example.test.", dns.TypeSOA), server.String())
	if err != nil {
		return 0, nil, err
	}
	if len(soa.Answer) != 1 {
		return 0, nil, fmt.Errorf("SOA is answered with %s", dns.RcodeToString[soa.Rcode])
	}
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		m, _, err := client.Exchange(new(dns.Msg).SetQuestion("www.example.test.", qtype), server.String())
		if err != nil {
			return 0, nil, err
		}
		for _, rr := range m.Answer {
			addresses = append(addresses, dns.Field(rr, 1))
		}
	}
	slices.Sort(addresses)
	return soa.Answer[0].(*dns.SOA).Serial, addresses, nil
}

// follows waits until the secondary answers the serial and the addresses.
func follows(t *testing.T, s *testkit.Secondary, serial uint32, addresses ...string) {
	t.Helper()
	slices.Sort(addresses)
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		got, set, err := followed(s.Addr)
		return err == nil && got == serial && slices.Equal(set, addresses),
			fmt.Sprintf("it answers serial %d with %v, %v; want %d with %v", got, set, err, serial, addresses)
	})
}

func TestSecondariesFollow(t *testing.T) {
	for _, kind := range []string{"named", "nsd", "knotd"} {
		for _, signed := range []bool{false, true} {
			name := kind
			if signed {
				name += " with TSIG"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				testSecondary(t, kind, signed)
			})
		}
	}
}

func testSecondary(t *testing.T, kind string, signed bool) {
	journal := &MemoryJournal{}
	s := startServer(t, ServerOptions{Journal: journal})
	at := s.Addr()
	config := testkit.SecondaryConfig{Kind: kind, Zone: "example.test", Primary: at}
	settings := upkeep.Publisher{}
	if signed {
		config.KeyName, config.KeySecret = "transfer.example", keySecret
		settings.TSIG = filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(settings.TSIG, []byte(goodKey), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secondary := testkit.StartSecondary(t, config)
	settings.Secondaries = []string{secondary.Addr.String()}
	p := mustPublisher(t, s, settings)

	changes := [][]string{
		{"192.0.2.1", "192.0.2.2", "2001:db8::1"}, {"192.0.2.1", "2001:db8::1"}, {"192.0.2.1", "192.0.2.2", "192.0.2.3"}, {"192.0.2.3"}, {"2001:db8::2", "192.0.2.3"},
	}
	for _, addresses := range changes {
		follows(t, secondary, mustPublish(t, p, webContent(addresses...)), addresses...)
	}
	if stats := s.Stats("example.test"); stats.Full != 1 || stats.Incremental != uint64(len(changes)-1) || stats.Refused > 3 {
		t.Errorf("transfers were %+v, want one whole and %d incremental", stats, len(changes)-1)
	}
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		status := s.Secondaries("example.test")
		return len(status) == 1 && status[0].Tries == 0 && status[0].Error == "" && status[0].Serial != 0, fmt.Sprintf("secondaries: %+v", status)
	})

	// A restarted primary goes on where it stopped: the secondary is sent what
	// has changed, not the zone.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := startServer(t, ServerOptions{Journal: journal, Listen: []string{at.String()}})
	p = mustPublisher(t, again, settings)
	follows(t, secondary, mustPublish(t, p, webContent("192.0.2.9")), "192.0.2.9")
	if stats := again.Stats("example.test"); stats.Full != 0 || stats.Incremental != 1 {
		t.Errorf("transfers after a restart were %+v, want one incremental", stats)
	}
}

// transferred asks for the zone as a secondary would.
func transferred(t *testing.T, s *Server, m *dns.Msg, key Key) ([]dns.RR, error) {
	t.Helper()
	transfer := &dns.Transfer{DialTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second}
	if !key.IsZero() {
		transfer.TsigSecret = key.Secrets()
		m.SetTsig(key.Name, key.Algorithm, fudge, time.Now().Unix())
	}
	envelopes, err := transfer.In(m, s.Addr().String())
	if err != nil {
		return nil, err
	}
	var records []dns.RR
	for e := range envelopes {
		if e.Error != nil {
			return records, e.Error
		}
		records = append(records, e.RR...)
	}
	return records, nil
}

func axfr() *dns.Msg { return new(dns.Msg).SetAxfr("example.test.") }

func TestTransfersAreRefusedByDefault(t *testing.T) {
	var mu sync.Mutex
	var told []string
	s := startServer(t, ServerOptions{Notice: func(zone, what, why string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, zone+" "+what+": "+why)
	}})
	key, err := ParseKey([]byte(goodKey))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(goodKey), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := ParseKey([]byte(strings.Replace(goodKey, "h3nV", "AAAA", 1)))
	if err != nil {
		t.Fatal(err)
	}
	here := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	tests := []struct {
		name     string
		settings upkeep.Publisher
		key      Key
		allowed  bool
	}{
		{"nobody is listed", upkeep.Publisher{}, Key{}, false},
		{"another address is listed", upkeep.Publisher{AllowTransfer: elsewhere}, Key{}, false},
		{"the address is listed", upkeep.Publisher{AllowTransfer: here}, Key{}, true},
		{"the address is a secondary's", upkeep.Publisher{Secondaries: []string{"127.0.0.1:9"}}, Key{}, true},
		{"a key is wanted", upkeep.Publisher{AllowTransfer: here, TSIG: file}, Key{}, false},
		{"the key is given", upkeep.Publisher{AllowTransfer: here, TSIG: file}, key, true},
		{"another secret", upkeep.Publisher{AllowTransfer: here, TSIG: file}, other, false},
		{"a key that is not known", upkeep.Publisher{AllowTransfer: here}, key, false},
		{"the key without the address", upkeep.Publisher{AllowTransfer: elsewhere, TSIG: file}, key, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPublisher(t, s, tt.settings)
			mustPublish(t, p, webContent("192.0.2.1"))
			records, err := transferred(t, s, axfr(), tt.key)
			if tt.allowed && (err != nil || len(records) != 6) {
				t.Errorf("the transfer gave %d records, %v", len(records), err)
			}
			if !tt.allowed && (err == nil || len(records) > 0) {
				t.Errorf("the transfer gave %v", records)
			}
		})
	}
	mu.Lock()
	defer mu.Unlock()
	for _, why := range []string{"neither among the publisher's secondaries", "not signed with the publisher's key", "the signature of the request is not good"} {
		text := "example.test refused a zone transfer to 127.0.0.1: "
		if n := len(slices.DeleteFunc(slices.Clone(told), func(s string) bool { return !strings.HasPrefix(s, text) || !strings.Contains(s, why) })); n != 1 {
			t.Errorf("%d notices say that %s: %q", n, why, told)
		}
	}
}

// A scanner with many addresses does not fill the events, and a forged address
// is nobody's.
func TestRefusedTransfersToldAreBounded(t *testing.T) {
	told := 0
	s := startServer(t, ServerOptions{Notice: func(string, string, string) { told++ }})
	mustPublish(t, mustPublisher(t, s, upkeep.Publisher{}), webContent("192.0.2.1"))
	query, err := axfr().Pack()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxRefusedTold {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 53)
		(*listening)(s).Packet(make([]byte, dns.MaxMsgSize), query, from, 0)
		if told != min(i, maxRefusedTold) {
			t.Fatalf("%d notices after %d addresses over UDP and %d over TCP", told, i+1, i)
		}
		if err := (*listening)(s).Stream(query, from, func([]byte) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if told != maxRefusedTold {
		t.Errorf("%d notices", told)
	}
}

func TestLargeTransferIsSignedThroughout(t *testing.T) {
	s := startServer(t, ServerOptions{})
	key, err := ParseKey([]byte(goodKey))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(goodKey), 0o600); err != nil {
		t.Fatal(err)
	}
	p := mustPublisher(t, s, upkeep.Publisher{TSIG: file, AllowTransfer: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	c := webContent("192.0.2.1")
	for i := range 3000 {
		c.Zone.Records = append(c.Zone.Records, upkeep.Record{Name: fmt.Sprintf("host-%d", i), Type: "TXT", Value: `"` + strings.Repeat("x", 200) + `"`})
	}
	mustPublish(t, p, c)
	records, err := transferred(t, s, axfr(), key)
	if err != nil || len(records) != 3006 {
		t.Errorf("the transfer gave %d records, %v", len(records), err)
	}
}

func TestIncrementalTransfers(t *testing.T) {
	s := startServer(t, ServerOptions{})
	p := mustPublisher(t, s, upkeep.Publisher{AllowTransfer: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	var serials []uint32
	for i := range 5 {
		serials = append(serials, mustPublish(t, p, webContent(fmt.Sprintf("192.0.2.%d", i+1))))
	}
	last := serials[4]
	ixfr := func(serial uint32) *dns.Msg {
		return new(dns.Msg).SetIxfr("example.test.", serial, "ns1.", "hostmaster.")
	}
	shape := func(records []dns.RR) (out []string) {
		for _, rr := range records {
			if soa, is := rr.(*dns.SOA); is {
				out = append(out, fmt.Sprintf("%+d", int32(soa.Serial-last)))
			} else if a, is := rr.(*dns.A); is {
				out = append(out, a.A.String())
			}
		}
		return out
	}
	tests := []struct {
		name string
		from uint32
		want string
	}{
		{"current", last, "+0"},
		{"ahead of us", last + 10, "+0"},
		{"one behind", serials[3], "+0 -1 192.0.2.4 +0 192.0.2.5 +0"},
		{"two behind", serials[2], "+0 -2 192.0.2.3 -1 192.0.2.4 -1 192.0.2.4 +0 192.0.2.5 +0"},
		{"further than the journal reaches", serials[0] - 1, "+0 192.0.2.53 192.0.2.5 +0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			records, err := transferred(t, s, ixfr(tt.from), Key{})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(shape(records), " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	// Over UDP the client is shown the current SOA and comes back over TCP.
	m, _, err := new(dns.Client).Exchange(ixfr(serials[0]), s.Addr().String())
	if err != nil || strings.Join(shape(m.Answer), " ") != "+0" {
		t.Errorf("over UDP: %v, %v", m, err)
	}
}

func TestJournalFailureIsReportedAndMended(t *testing.T) {
	journal := &failingJournal{}
	s := startServer(t, ServerOptions{Journal: journal})
	p := mustPublisher(t, s, upkeep.Publisher{})
	mustPublish(t, p, webContent("192.0.2.1", "192.0.2.2"))
	journal.fail.Store(true)
	serial, err := p.Publish(context.Background(), webContent("192.0.2.2"))
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("publishing on a full disk: %v", err)
	}
	if got := ask(t, s, "udp", "www.example.test.", dns.TypeA); len(got.Answer) != 1 {
		t.Errorf("a dead address stays in DNS on a full disk: %v", got.Answer)
	}
	if _, err := p.Publish(context.Background(), webContent("192.0.2.2")); err == nil {
		t.Error("the second try on a full disk reports no error")
	}
	journal.fail.Store(false)
	if again := mustPublish(t, p, webContent("192.0.2.2")); again != serial {
		t.Errorf("saving later raised the serial from %d to %d", serial, again)
	}
	restarted := startServer(t, ServerOptions{Journal: journal})
	mustPublisher(t, restarted, upkeep.Publisher{})
	if got := ask(t, restarted, "udp", "www.example.test.", dns.TypeA); len(got.Answer) != 1 {
		t.Errorf("after a restart the answer is %v", got.Answer)
	}
}

type failingJournal struct {
	MemoryJournal
	fail atomic.Bool
}

func (f *failingJournal) SaveZone(ctx context.Context, zone string, content, delta []byte, keep int) error {
	if f.fail.Load() {
		return fmt.Errorf("writing: disk full")
	}
	return f.MemoryJournal.SaveZone(ctx, zone, content, delta, keep)
}
