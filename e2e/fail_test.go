package e2e

import (
	"testing"
	"time"

	"upkeep/internal/testkit"
)

// A BIND primary that includes what upkeep writes, followed by BIND, NSD and
// Knot; five members that fail one after the other in every way.
func TestMembersFail(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5)
	zone := s.bindPrimary(s.path("include"), 1)
	s.watch()
	s.serve("--http", "")
	s.apply(zone + s.pool("web", checkTCP, owners...) + s.pool("app", "{type: http, port: 8080, interval: 200ms}", "app"))
	s.expect(addrs(s.members)...)
	for _, scenario := range []struct {
		name string
		run  func(t *testing.T, s *site)
	}{
		{"closed listener", closedListener},
		{"black hole", blackHole},
		{"half-dead", halfDead},
		{"two at once", twoAtOnce},
		{"all dead", allDead},
		{"a fifth of the packets lost", lossy},
		{"uplink cut", uplinkCut},
		{"primary restarted mid-publish", primaryRestarted},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			outer := s.t
			s.t = t
			defer func() { s.t = outer }()
			scenario.run(t, s)
			s.expect(addrs(s.members)...)
			s.whole()
		})
		if t.Failed() {
			t.Logf("upkeep:\n%s", s.upkeep.Log())
			return // what follows would only repeat it
		}
	}
}

func closedListener(t *testing.T, s *site) {
	m := s.members[0]
	m.close()
	s.expect(addrs(s.members, m)...)
	s.whole()
	m.serve(t)
}

func blackHole(_ *testing.T, s *site) {
	m := s.members[1]
	s.must(m.Blackhole())
	s.expect(addrs(s.members, m)...)
	s.whole()
	s.must(m.Heal())
}

// A member that accepts connections and never answers is alive for TCP and dead
// for HTTP.
func halfDead(_ *testing.T, s *site) {
	m := s.members[2]
	m.setMute(true)
	s.expectAt("app", []string{"app." + zoneName}, addrs(s.members, m))
	s.expect(addrs(s.members)...)
	s.whole()
	m.setMute(false)
	s.expectAt("app", []string{"app." + zoneName}, addrs(s.members))
}

func twoAtOnce(t *testing.T, s *site) {
	a, b := s.members[0], s.members[4]
	a.close()
	s.must(b.Blackhole())
	s.expect(addrs(s.members, a, b)...)
	s.whole()
	a.serve(t)
	s.must(b.Heal())
}

// With nobody left all members are answered, which the watching eyes hold it to.
func allDead(t *testing.T, s *site) {
	for _, m := range s.members {
		m.close()
	}
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		for _, m := range s.status("web").Members {
			if m.Verdict.String() != "down" {
				return false, s.says("web")
			}
		}
		return true, ""
	})
	s.expect(addrs(s.members)...)
	s.whole()
	for _, m := range s.members {
		m.serve(t)
	}
}

func lossy(t *testing.T, s *site) {
	s.allUp(t)
	before := s.removals()
	for _, m := range s.members {
		s.must(m.Lose(0.2, 0))
	}
	<-time.After(15 * time.Second) // the scenario itself: what may happen in it is nothing
	if n := s.removals() - before; n != 0 {
		t.Errorf("%d removals of living members; %s", n, s.says("web"))
	}
	// A member that dies under loss is found all the same.
	m := s.members[3]
	s.must(m.Blackhole())
	s.expect(addrs(s.members, m)...)
	for _, m := range s.members {
		s.must(m.Heal())
	}
}

// The monitor loses every member and its anchor but still reaches the name
// servers: it could publish, and must not.
func uplinkCut(t *testing.T, s *site) {
	s.allUp(t)
	before := s.removals()
	s.must(s.monitor.Cut(append(s.secondaryHosts(), s.net.Host("ns1"))...))
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		return s.status("web").Frozen != "", s.says("web")
	})
	<-time.After(5 * time.Second)
	if n := s.removals() - before; n != 0 {
		t.Errorf("%d removals while cut off; %s", n, s.says("web"))
	}
	s.must(s.monitor.Heal())
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		return s.status("web").Frozen == "", s.says("web")
	})
	s.allUp(t)
	if n := s.removals() - before; n != 0 {
		t.Errorf("%d removals after the cut; %s", n, s.says("web"))
	}
	// It works again.
	m := s.members[0]
	m.close()
	s.expect(addrs(s.members, m)...)
	m.serve(t)
}

// The primary goes away and comes back around each publish, in good order and
// killed.
func primaryRestarted(t *testing.T, s *site) {
	primary := s.servers[0]
	m := s.members[2]
	for i := range 6 {
		gone := make(chan error, 1)
		go func() {
			<-time.After(time.Duration(i) * 60 * time.Millisecond)
			if i%2 == 0 {
				primary.Kill()
			} else {
				primary.Stop()
			}
			gone <- primary.Start()
		}()
		if i%2 == 0 {
			m.close()
		} else {
			m.serve(t)
		}
		s.must(<-gone)
	}
	m.close()
	s.expect(addrs(s.members, m)...)
	m.serve(t)
}

// allUp waits until no member is on probation or in doubt, and nothing is on its
// way to a server any more.
func (s *site) allUp(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, 60*time.Second, func() (bool, string) {
		status := s.status("web")
		for _, m := range status.Members {
			if m.Verdict.String() != "up" || !m.Published {
				return false, s.says("web")
			}
		}
		return status.Frozen == "" && allInSync(status), s.says("web")
	})
}
