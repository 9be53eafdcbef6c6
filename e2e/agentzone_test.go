package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/nameserver"
)

const agentPort = 8055

// dnsAgent is an agent on the host of the primary, as root, in two processes.
type dnsAgent struct {
	t       *testing.T // for as long as which it runs
	s       *site
	primary *nameserver.Server
	policy  string
	process *testkit.Process
}

// agentPrimary runs a BIND primary as bindPrimary does, on a machine of its own
// with an agent that has joined and is not started yet. It returns the zone's
// document too.
func (s *site) agentPrimary(t *testing.T) (*dnsAgent, string) {
	s.t.Helper()
	for _, dir := range []string{filepath.Dir(s.dir), s.dir, s.path("include")} {
		s.must(os.Chmod(dir, 0o755))
	}
	document := s.bindPrimary(s.path("include"), 1)
	a := &dnsAgent{t: t, s: s, primary: s.servers[0], policy: s.path("policy.yaml")}
	// The same publisher, but for what the policy has.
	_, after, _ := strings.Cut(document, "servers:")
	document = fmt.Sprintf("kind: zone\nname: %s\npublishers:\n  - {type: bind, agent: dns1, zone_file: %s, include_dir: %s}\nservers:%s",
		zoneName, filepath.Join(a.primary.Dir, "db."+zoneName), s.path("include"), after)
	a.allow(s.path("include"))
	return a, document
}

// join has the agent join the upkeep that runs.
func (a *dnsAgent) join() {
	a.s.t.Helper()
	output, exit := a.s.run("server", "add", "dns1", "--role", "dns", "-o", "json")
	var invitation struct{ Token string }
	if err := json.Unmarshal([]byte(output), &invitation); exit != 0 || err != nil {
		a.s.t.Fatalf("server add: exit %d, %v\n%s", exit, err, output)
	}
	_, err := a.primary.Host.Run(upkeepProgram(a.s.t), "join", fmt.Sprintf("https://%s:%d", a.s.monitor.Addr, agentPort), invitation.Token, "--data", a.s.path("agent"))
	a.s.must(err)
}

// allow writes the policy with an include folder.
func (a *dnsAgent) allow(include string) {
	a.s.t.Helper()
	rndc := a.primary.RNDC()
	var err error
	rndc[0], err = testkit.Find(rndc[0])
	a.s.must(err)
	checkzone, err := testkit.Find("named-checkzone")
	a.s.must(err)
	var notify []string
	for _, host := range a.s.secondaryHosts() {
		notify = append(notify, `"`+host.Addr.String()+`:53"`)
	}
	a.s.must(os.WriteFile(a.policy, fmt.Appendf(nil, `kinds: [zone.publish, server.facts]
zones: {include_dirs: [%s], zone_dirs: [%s], rndc: [%s], checkzone: [%s], server: "%s", notify: [%s]}
front: nobody
`, include, a.primary.Dir, strings.Join(rndc, ", "), checkzone, a.primary.Addr(), strings.Join(notify, ", ")), 0o600))
}

func (a *dnsAgent) start() {
	a.s.t.Helper()
	argv := []string{upkeepProgram(a.s.t), "agent", "--data", a.s.path("agent"), "--policy", a.policy}
	a.process = testkit.Command{Argv: a.primary.Host.Argv(argv...), Dir: "/"}.Start(a.t)
}

// expectProblem waits until the zone's publisher says why it does not succeed.
func (a *dnsAgent) expectProblem(words string) {
	a.s.t.Helper()
	testkit.Eventually(a.s.t, 60*time.Second, func() (bool, string) {
		output, _ := a.s.run("zone", "status", zoneName)
		return strings.Contains(output, words), output
	})
}

func (a *dnsAgent) jobs() []upkeep.Job {
	a.s.t.Helper()
	output, exit := a.s.run("job", "list", "--kind", "zone.publish", "-o", "json")
	var jobs []upkeep.Job
	if err := json.Unmarshal([]byte(output), &jobs); exit != 0 || err != nil {
		a.s.t.Fatalf("job list: exit %d, %v\n%s", exit, err, output)
	}
	return jobs
}

func (a *dnsAgent) serial() uint32 {
	a.s.t.Helper()
	serial, err := nameserver.Serial(a.s.client, a.primary.Addr(), zoneName)
	a.s.must(err)
	return serial
}

// TestBindOnAnotherMachine has upkeep publish through the agent on a BIND
// primary, with three secondaries, while the agent, the primary and control go
// away and come back.
func TestBindOnAnotherMachine(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5)
	a, zone := s.agentPrimary(t)
	s.watch()
	s.serve("--http", "", "--agents", fmt.Sprintf("%s:%d", s.monitor.Addr, agentPort))
	a.join()
	pool := s.pool("web", checkTCP, owners...)

	// Before the agent was ever there.
	s.apply(zone + pool)
	a.expectProblem("the agent on dns1 is not connected: what is to be published waits for it as job")

	// What the policy does not have is refused there, and said here.
	a.allow(s.path("elsewhere"))
	a.start()
	a.expectProblem("does not have \"" + s.path("include") + "\" among the include_dirs of zones")
	a.process.Kill()
	a.allow(s.path("include"))
	a.start()
	s.expect(addrs(s.members)...)
	if failed := slices.DeleteFunc(a.jobs(), func(j upkeep.Job) bool { return j.State != upkeep.JobFailed }); len(failed) > 0 {
		t.Errorf("what failed was tried again as other jobs: %+v", failed)
	}

	for _, scenario := range []struct {
		name string
		run  func(t *testing.T, s *site, a *dnsAgent)
	}{
		{"a member dies", agentMemberDies},
		{"the agent is killed", agentKilled},
		{"named is down", agentNamedDown},
		{"control is killed", agentControlKilled},
		{"the include folder is open to others", agentOpenFolder},
		{"a document asks for more than the policy allows", agentHostileDocument},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			outer := s.t
			s.t = t
			defer func() { s.t = outer }()
			scenario.run(t, s, a)
			s.expect(addrs(s.members)...)
			s.whole()
		})
		if t.Failed() {
			t.Logf("upkeep:\n%s\nagent:\n%s", s.upkeep.Log(), a.process.Log())
			return
		}
	}
}

func agentMemberDies(t *testing.T, s *site, _ *dnsAgent) {
	m := s.members[0]
	m.close()
	s.expect(addrs(s.members, m)...)
	t.Logf("answered by all %s after its last good probe", s.status("web").Failover)
	m.serve(t)
}

// What changed meanwhile is published once the agent is back, the newest alone.
func agentKilled(t *testing.T, s *site, a *dnsAgent) {
	s.allUp(t)
	serial := a.serial()
	a.process.Kill()
	x, y := s.members[1], s.members[2]
	x.close()
	a.expectProblem("the agent on dns1 is not connected since")
	y.close()
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		return len(s.status("web").Published) == len(s.members)-2, s.says("web")
	})
	if now := a.serial(); now != serial {
		t.Errorf("serial %d became %d without an agent", serial, now)
	}
	if waiting := slices.DeleteFunc(a.jobs(), func(j upkeep.Job) bool { return j.State.Ended() }); len(waiting) != 1 {
		t.Errorf("%d jobs wait: %+v", len(waiting), waiting)
	}
	a.start()
	s.expect(addrs(s.members, x, y)...)
	x.serve(t)
	y.serve(t)
}

func agentNamedDown(t *testing.T, s *site, a *dnsAgent) {
	s.allUp(t)
	a.primary.Kill()
	m := s.members[3]
	m.close()
	a.expectProblem("job ")
	s.must(a.primary.Start())
	s.expect(addrs(s.members, m)...)
	m.serve(t)
}

// A start of control finds everything as it should be, and changes nothing.
func agentControlKilled(t *testing.T, s *site, a *dnsAgent) {
	s.allUp(t)
	s.expect(addrs(s.members)...)
	serial := a.serial()
	s.upkeep.Kill()
	s.t = a.t // it outlives this scenario
	s.start()
	s.awaitUp()
	s.t = t
	testkit.Eventually(t, 60*time.Second, func() (bool, string) {
		zones, err := s.control().Zones(context.Background())
		if err != nil || len(zones) != 1 {
			return false, fmt.Sprint(zones, err)
		}
		p := zones[0].Publishers[0]
		return p.Error == "" && p.Serial == serial && p.Agent == "dns1", fmt.Sprintf("%+v", zones[0])
	})
	if now := a.serial(); now != serial {
		t.Errorf("serial %d became %d by a restart of control", serial, now)
	}
}

func agentOpenFolder(t *testing.T, s *site, a *dnsAgent) {
	s.allUp(t)
	s.must(os.Chmod(s.path("include"), 0o777))
	m := s.members[4]
	m.close()
	a.expectProblem("may be written to by others")
	s.must(os.Chmod(s.path("include"), 0o755))
	s.expect(addrs(s.members, m)...)
	m.serve(t)
}

func agentHostileDocument(t *testing.T, s *site, a *dnsAgent) {
	good := s.document
	for _, hostile := range []struct{ old, new, words string }{
		{"include_dir: " + s.path("include"), "include_dir: /etc/cron.d", "include_dirs of zones"},
		{"zone_file: " + a.primary.Dir + "/db." + zoneName, "zone_file: /etc/shadow", "zone_dirs, whose zone files may be read"},
	} {
		s.apply(strings.Replace(good, hostile.old, hostile.new, 1))
		a.expectProblem(hostile.words)
	}
	if _, err := os.Stat("/etc/cron.d/ips.include"); err == nil {
		t.Error("a file was written outside the policy")
	}
	s.apply(good)
}
