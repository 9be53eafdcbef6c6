package zone

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// includedZone is the zone file of the bind tests: the form into which an
// operator's file is brought.
const includedZone = `$INCLUDE "{dir}/inc/soa.include"
$INCLUDE "{dir}/inc/ips.include"
@    IN NS ns1
ns1  IN A  192.0.2.53
mail IN A  192.0.2.25
`

const primaryZone = `zone "example.test" { type primary; file "{dir}/db.example.test"; };`

// bindLab is a real named with a zone in include form and a publisher for it.
type bindLab struct {
	*testkit.Named
	bind *Bind
	pub  *BindPublisher
	zone upkeep.Zone
	said []string // notices
}

// bindSetup says what differs from the ordinary lab.
type bindSetup struct {
	named testkit.NamedConfig
	edit  func(n *testkit.Named, z *upkeep.Zone)
	bind  BindOptions
}

func newBindLab(t *testing.T, s bindSetup) *bindLab {
	t.Helper()
	files := map[string]string{
		"db.example.test": includedZone,
		"inc/soa.include": "$TTL 60\n@ IN SOA ns1 hostmaster (\n 7 ; Serial\n 300 60 86400 60 )\n",
		"inc/ips.include": "@ IN A 192.0.2.1\n",
	}
	for name, text := range s.named.Files {
		files[name] = text
	}
	s.named.Files = files
	if s.named.Config == "" {
		s.named.Config = primaryZone
	}
	lab := &bindLab{Named: testkit.StartNamed(t, s.named)}
	lab.zone = upkeep.Zone{Name: "example.test", Publishers: []upkeep.Publisher{{
		Type: upkeep.PublishBind, ZoneFile: lab.Path("db.example.test"), IncludeDir: lab.Path("inc"), RNDC: lab.RNDC, Server: lab.Addr,
	}}, Servers: []string{lab.Addr}}
	if s.edit != nil {
		s.edit(lab.Named, &lab.zone)
	}
	lab.zone = lab.zone.WithDefaults()
	s.bind.Notice = func(zone, what, why string) { lab.said = append(lab.said, zone+": "+what+": "+why) }
	lab.bind = NewBind(s.bind)
	lab.pub = lab.publisher(t, lab.zone)
	return lab
}

func (l *bindLab) publisher(t *testing.T, z upkeep.Zone) *BindPublisher {
	t.Helper()
	pub, err := l.bind.Publisher(z, z.Publishers[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pub.Close(); err != nil {
			t.Error(err)
		}
	})
	return pub
}

func (l *bindLab) content(addrs ...string) Content {
	return Content{Zone: l.zone, Sets: poolSets(addrs...)}
}

// poolSets is what a pool at "@" and "*" publishes.
func poolSets(addrs ...string) []AddressSet {
	var list []netip.Addr
	for _, addr := range addrs {
		list = append(list, netip.MustParseAddr(addr))
	}
	return []AddressSet{{Owner: "@", TTL: time.Minute, Addresses: list}, {Owner: "*", TTL: time.Minute, Addresses: list}}
}

// publish publishes and demands that the server answers with it.
func (l *bindLab) publish(t *testing.T, addrs ...string) uint32 {
	t.Helper()
	serial, err := l.pub.Publish(t.Context(), l.content(addrs...))
	if err != nil {
		t.Fatalf("publishing %v: %v\nnamed says\n%s", addrs, err, l.Log())
	}
	l.proven(t, serial, addrs...)
	return serial
}

func (l *bindLab) proven(t *testing.T, serial uint32, addrs ...string) {
	t.Helper()
	if status := Prove(context.Background(), l.Addr, "example.test", serial, poolSets(addrs...)); !status.InSync {
		t.Fatalf("%v under serial %d: not in sync: %s", addrs, serial, status.Error)
	}
}

// refused demands that publishing fails with an error that says all the texts,
// its hint included.
func (l *bindLab) refused(t *testing.T, c Content, texts ...string) {
	t.Helper()
	_, err := l.pub.Publish(t.Context(), c)
	demandError(t, err, texts...)
}

func demandError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("there was no error")
	}
	said := err.Error()
	var hint *upkeep.HintError
	if errors.As(err, &hint) {
		said += "\nhint: " + hint.Hint
	}
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("the error does not say %q: %s", text, said)
		}
	}
}

func (l *bindLab) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(l.Path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// served asks the server for the serial of the zone.
func (l *bindLab) served(t *testing.T) uint32 {
	t.Helper()
	serial, err := ServedSerial(t.Context(), l.Addr, "example.test")
	if err != nil {
		t.Fatal(err)
	}
	return serial
}

// whole demands that both include files are as upkeep wrote them, together.
func (l *bindLab) whole(t *testing.T) pair {
	t.Helper()
	disk, err := readPair(l.Path("inc"))
	if err != nil {
		t.Fatal(err)
	}
	if !disk.whole() {
		t.Fatalf("the include files do not go together:\n%s\n%s", disk.soa.text, disk.ips.text)
	}
	return disk
}

func TestBindPublishes(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	first := lab.publish(t, "192.0.2.1", "192.0.2.2", "2001:db8::1")
	second := lab.publish(t, "192.0.2.2")
	if !SerialLess(first, second) {
		t.Errorf("serial %d after %d", second, first)
	}
	before := lab.Log()
	if again := lab.publish(t, "192.0.2.2"); again != second {
		t.Errorf("publishing the same again gave serial %d after %d", again, second)
	}
	if after := lab.Log(); strings.Contains(strings.TrimPrefix(after, before), "reload") {
		t.Errorf("publishing the same again reloaded the zone:\n%s", strings.TrimPrefix(after, before))
	}
}
