package zone

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/testkit"
)

const dynamicZoneFile = `$TTL 60
@    IN SOA ns1 hostmaster 7 300 60 86400 60
@    IN NS  ns1
ns1  IN A   192.0.2.53
mail IN A   192.0.2.25
alias IN CNAME mail
`

const updateKey = `key "upkeep" { algorithm hmac-sha256; secret "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"; };` + "\n"

// updateLab is a real named with a dynamic zone and a publisher for it.
type updateLab struct {
	*testkit.Named
	zone   upkeep.Zone
	key    string // key file of the publisher
	memory *processMemory
	pub    *UpdatePublisher
	said   []string
}

func newUpdateLab(t *testing.T) *updateLab {
	t.Helper()
	lab := &updateLab{memory: &processMemory{}}
	lab.Named = testkit.StartNamed(t, testkit.NamedConfig{
		Files: map[string]string{"db.example.test": dynamicZoneFile, "db.fixed.test": strings.ReplaceAll(dynamicZoneFile, "alias", "other")},
		Config: updateKey + `key "weak" { algorithm hmac-sha256; secret "d2Vhay13ZWFrLXdlYWstd2Vhay13ZWFr"; };
zone "example.test" { type primary; file "{dir}/db.example.test"; update-policy { grant upkeep zonesub A AAAA; grant local-ddns zonesub any; }; };
zone "fixed.test" { type primary; file "{dir}/db.fixed.test"; };`,
	})
	lab.key = lab.keyFile(t, updateKey)
	lab.zone = upkeep.Zone{Name: "example.test", Servers: []string{lab.Addr}, Publishers: []upkeep.Publisher{{
		Type: upkeep.PublishUpdate, Server: lab.Addr, Key: lab.key,
	}}}.WithDefaults()
	lab.restart(t)
	return lab
}

func (l *updateLab) keyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// restart makes a new publisher, as a new process would, with what was saved.
func (l *updateLab) restart(t *testing.T) {
	t.Helper()
	pub, err := NewUpdate(l.zone, l.zone.Publishers[0], UpdateOptions{Memory: l.memory, Notice: func(zone, what, why string) {
		l.said = append(l.said, what+": "+why)
	}})
	if err != nil {
		t.Fatal(err)
	}
	l.pub = pub
}

// members are those of the pool of the update tests.
var members = addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1")

func addrs(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func (l *updateLab) content(owners []string, published ...string) Content {
	c := Content{Zone: l.zone}
	for _, owner := range owners {
		c.Sets = append(c.Sets, AddressSet{Owner: owner, TTL: time.Minute, Addresses: addrs(published...), Members: members})
	}
	return c
}

var apexAndAll = []string{"@", "*", "www"}

func (l *updateLab) publish(t *testing.T, c Content) uint32 {
	t.Helper()
	serial, err := l.pub.Publish(t.Context(), c)
	if err != nil {
		t.Fatalf("publishing: %v", err)
	}
	if status := Prove(context.Background(), l.Addr, "example.test", serial, c.Sets); !status.InSync {
		t.Fatalf("not in sync: %s", status.Error)
	}
	return serial
}

// nsupdate changes the zone as somebody else would.
func (l *updateLab) nsupdate(t *testing.T, change func(m *dns.Msg)) {
	t.Helper()
	key, err := ReadKeyFile(l.key)
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	m.SetUpdate("example.test.")
	change(m)
	rcode, err := target{l.Addr, "example.test", key}.send(t.Context(), m)
	if err != nil || rcode != dns.RcodeSuccess {
		t.Fatalf("changing the zone: %s, %v", dns.RcodeToString[rcode], err)
	}
}

func rr(t *testing.T, text string) []dns.RR {
	t.Helper()
	record, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return []dns.RR{record}
}

func TestUpdatePublishes(t *testing.T) {
	lab := newUpdateLab(t)
	first := lab.publish(t, lab.content(apexAndAll, "192.0.2.1", "192.0.2.2", "2001:db8::1"))
	second := lab.publish(t, lab.content(apexAndAll, "192.0.2.2"))
	if !SerialLess(first, second) {
		t.Errorf("serial %d after %d", second, first)
	}
	if again := lab.publish(t, lab.content(apexAndAll, "192.0.2.2")); again != second {
		t.Errorf("publishing the same again raised the serial from %d to %d", second, again)
	}
	lab.restart(t)
	if again := lab.publish(t, lab.content(apexAndAll, "192.0.2.2")); again != second {
		t.Errorf("publishing the same after a restart raised the serial from %d to %d", second, again)
	}
	// An owner that leaves the pool leaves the zone, and the wildcard answers.
	third := lab.publish(t, lab.content([]string{"@", "*"}, "192.0.2.3"))
	lab.publish(t, lab.content([]string{"@", "*"}, "192.0.2.3"))
	want := []AddressSet{{Owner: "www", TTL: time.Minute, Addresses: addrs("192.0.2.3")}}
	if status := Prove(t.Context(), lab.Addr, "example.test", third, want); !status.InSync {
		t.Errorf("www was left behind: %s", status.Error)
	}
	// Everything else in the zone is untouched.
	if status := Prove(t.Context(), lab.Addr, "example.test", third, []AddressSet{{Owner: "mail", TTL: time.Minute, Addresses: addrs("192.0.2.25")}}); !status.InSync {
		t.Errorf("mail was changed: %s", status.Error)
	}
	if len(lab.said) > 0 {
		t.Errorf("notices: %q", lab.said)
	}
}

func TestUpdateNoticesForeignWriter(t *testing.T) {
	lab := newUpdateLab(t)
	lab.publish(t, lab.content(apexAndAll, "192.0.2.1", "192.0.2.2"))
	lab.nsupdate(t, func(m *dns.Msg) { m.Insert(rr(t, "www.example.test. 60 A 203.0.113.9")) })
	serial, err := lab.pub.Publish(t.Context(), lab.content(apexAndAll, "192.0.2.2"))
	if !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "203.0.113.9") || !strings.Contains(err.Error(), "www.example.test A") {
		t.Fatalf("the error is %v", err)
	}
	// The other owners are published all the same; what is foreign stays.
	for owner, want := range map[string][]netip.Addr{
		"@": addrs("192.0.2.2"), "*": addrs("192.0.2.2"), "www": addrs("192.0.2.1", "192.0.2.2", "203.0.113.9"),
	} {
		if status := Prove(t.Context(), lab.Addr, "example.test", serial, []AddressSet{{Owner: owner, TTL: time.Minute, Addresses: want}}); !status.InSync {
			t.Errorf("%s: %s", owner, status.Error)
		}
	}
	// Once the foreign address is gone the records are taken back.
	lab.nsupdate(t, func(m *dns.Msg) { m.Remove(rr(t, "www.example.test. 60 A 203.0.113.9")) })
	lab.publish(t, lab.content(apexAndAll, "192.0.2.2"))
}

func (l *updateLab) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(l.Path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
