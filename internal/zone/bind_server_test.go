package zone

import (
	"net"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// A bind publisher whose server is left out is doubted only where nothing answers
// for the zone at the default, and the line to write is given.
func TestDoubtServer(t *testing.T) {
	closed, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.LocalAddr().String()
	closed.Close()
	var named string
	lab := newBindLab(t, bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) { named, z.Publishers[0].Server = n.Addr, "" }})

	z := lab.zone
	z.Servers = []string{nobody, named}
	doubts := func(z upkeep.Zone, standard string) string {
		return strings.Join(doubtZone(t.Context(), z, standard), "\n")
	}
	if said := doubts(z, nobody); !strings.Contains(said, "zone example.test: ") || !strings.Contains(said, nobody+" does not answer") ||
		!strings.Contains(said, `write server: "`+named+`"`) {
		t.Errorf("said %q", said)
	}
	if said := doubts(z, named); said != "" {
		t.Errorf("where it answers: %q", said)
	}
	z.Servers = nil
	if said := doubts(z, nobody); !strings.Contains(said, `server: "ADDRESS:PORT"`) {
		t.Errorf("without servers: %q", said)
	}
	// One that is said and wrong is doubted as well; one of an agent is root's there.
	z.Publishers, z.Servers = []upkeep.Publisher{{Type: upkeep.PublishBind, Server: nobody}, {Type: upkeep.PublishTransfer}, {Type: upkeep.PublishBind, Agent: "ns1"}}, []string{named}
	if said := doubts(z, named); !strings.Contains(said, "server of its bind publisher is "+nobody+", which does not answer") ||
		!strings.Contains(said, `write server: "`+named+`"`) {
		t.Errorf("of a server that was said: %q", said)
	}
	z.Publishers = z.Publishers[1:2]
	if said := doubts(z, nobody); said != "" {
		t.Errorf("of a zone that has no bind publisher: %q", said)
	}
}

// What a document leaves out and the zone has is said before it becomes the
// default, with the line that keeps it.
func TestUnsaidSOAIsSaid(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{Files: map[string]string{
		"inc/soa.include": "$TTL 7200\n@ IN SOA dns root.mail 7 3600 600 604800 900\n",
	}}})
	z := upkeep.Zone{Name: lab.zone.Name, Publishers: lab.zone.Publishers}
	said := strings.Join(doubtZone(t.Context(), z, ""), "\n")
	for _, want := range []string{
		"soa.refresh would become 5m instead of 1h", "ttl would become 1h instead of 2h",
		"write soa: {mname: dns.example.test, rname: root.mail.example.test, refresh: 1h, retry: 10m, expire: 168h, minimum: 15m} and ttl: 2h",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("said %q, without %q", said, want)
		}
	}
	z.TTL = upkeep.Duration(time.Minute) // chosen, so no news
	z.SOA = upkeep.SOA{MName: "dns.example.test", RName: "other.example.test", Refresh: 1, Retry: 1, Expire: 1, Minimum: 1}
	if said := doubtZone(t.Context(), z, ""); len(said) > 0 {
		t.Errorf("of fields that are all said: %q", said)
	}
}
