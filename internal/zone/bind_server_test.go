package zone

import (
	"net"
	"strings"
	"testing"

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
	if said := doubtServer(t.Context(), z, nobody); !strings.Contains(said, "zone example.test: ") || !strings.Contains(said, nobody+" does not answer") ||
		!strings.Contains(said, `write server: "`+named+`"`) {
		t.Errorf("said %q", said)
	}
	if said := doubtServer(t.Context(), z, named); said != "" {
		t.Errorf("where it answers: %q", said)
	}
	z.Servers = nil
	if said := doubtServer(t.Context(), z, nobody); !strings.Contains(said, `server: "ADDRESS:PORT"`) {
		t.Errorf("without servers: %q", said)
	}
	z.Publishers = []upkeep.Publisher{{Type: upkeep.PublishBind, Server: nobody}, {Type: upkeep.PublishTransfer}, {Type: upkeep.PublishBind, Agent: "ns1"}}
	if said := doubtServer(t.Context(), z, nobody); said != "" {
		t.Errorf("of a server that was said: %q", said)
	}
}
