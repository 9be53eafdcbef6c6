package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"upkeep/internal/testkit"
)

// Members that beat: a goodbye, a killed sender, a silent path and a command
// that fails each take a member out; a restart of upkeep takes none.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4)
	own := s.monitor.Addr.String() + ":53"
	to := s.monitor.Addr.String() + ":8054"
	s.asked = []string{own}
	keygen := []string{"beat", "keygen", "--key", s.path("beats.key"), "--members", s.path("keys")}
	for _, m := range s.members {
		keygen = append(keygen, m.Addr.String())
	}
	s.must(os.MkdirAll(s.path("keys"), 0o700))
	if output, exit := s.run(keygen...); exit != 0 {
		t.Fatalf("keygen: exit %d: %s", exit, output)
	}
	beat := func(m *member, command ...string) *testkit.Process {
		t.Helper()
		argv := append([]string{upkeepProgram(t), "beat", "--to", to, "--key", s.path("keys", m.Addr.String()+".key"),
			"--interval", "100ms", "--command-interval", "200ms", "--command-timeout", "150ms"}, command...)
		return testkit.Command{Argv: m.Argv(argv...)}.Start(t)
	}
	s.serve("--http", "", "--dns", own, "--beat", to)
	s.apply(fmt.Sprintf(`kind: zone
name: %s
publishers: [{type: transfer}]
servers: ["%s"]
records: [{name: ns1, type: A, value: %s}, {name: "@", type: NS, value: ns1}]
`, zoneName, own, s.monitor.Addr) + s.pool("web", "{type: heartbeat, key_file: "+s.path("beats.key")+", interval: 100ms}", owners...))
	well := s.path("well")
	s.must(os.WriteFile(well, nil, 0o600))
	senders := []*testkit.Process{beat(s.members[0]), beat(s.members[1]), beat(s.members[2]), beat(s.members[3], "--", "test", "-e", well)}
	s.expect(addrs(s.members)...)
	s.allUp(t)
	s.watch()

	s.must(syscall.Kill(senders[0].PID(), syscall.SIGTERM))
	s.expect(addrs(s.members, s.members[0])...)
	if reason := s.status("web").Members[0].Reason; !strings.Contains(reason, "goodbye") {
		t.Errorf("after a goodbye the reason is: %s", reason)
	}
	beat(s.members[0])
	s.expect(addrs(s.members)...)

	senders[1].Kill()
	s.expect(addrs(s.members, s.members[1])...)
	beat(s.members[1])
	s.expect(addrs(s.members)...)

	s.must(s.members[2].Blackhole())
	s.expect(addrs(s.members, s.members[2])...)
	s.must(s.members[2].Heal())
	s.expect(addrs(s.members)...)

	s.must(os.Remove(well))
	s.expect(addrs(s.members, s.members[3])...)
	s.must(os.WriteFile(well, nil, 0o600))
	s.expect(addrs(s.members)...)
	s.allUp(t)

	before := s.removals()
	s.upkeep.Kill()
	s.start()
	s.awaitUp()
	s.allUp(t)
	<-time.After(3 * time.Second) // thirty beats of each member
	if n := s.removals() - before; n != 0 {
		t.Errorf("%d removals by a restart of upkeep: %s", n, s.says("web"))
	}
	s.whole()
}
