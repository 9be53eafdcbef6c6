package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"upkeep/internal/api/client"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/nameserver"
)

// The folder of the includes is full: nothing can be published, the old files
// stay whole, upkeep says so, and it carries on by itself once there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	dir := s.smallDisk("32k")
	zone := s.bindPrimary(dir, 1)
	s.watch()
	s.serve("--http", "")
	s.apply(zone + s.pool("web", checkTCP, owners...))
	s.expect(addrs(s.members)...)

	filler := s.fill(dir)
	before := s.read(filepath.Join(dir, "ips.include"))
	m := s.members[1]
	m.close()
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		return strings.Contains(s.says("web"), "no space left"), s.says("web")
	})
	if now := s.read(filepath.Join(dir, "ips.include")); now != before {
		t.Errorf("the include changed on a full disk:\n%s", now)
	}
	s.includesWhole()
	// A primary that restarts now must load what is there.
	s.servers[0].Kill()
	s.must(s.servers[0].Start())
	// So must upkeep.
	s.upkeep.Kill()
	s.start()
	s.awaitUp()
	s.includesWhole()

	s.must(os.Remove(filler))
	s.expect(addrs(s.members, m)...)
	m.serve(t)
	s.expect(addrs(s.members)...)
	s.whole()
}

// The data folder is full: members are taken out and put back all the same, and
// what was declared is still there when there is room again.
func TestDataFolderFull(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	disk := s.smallDisk("16m")
	s.data = filepath.Join(disk, "data")
	zone := s.bindPrimary(s.path("include"), 1)
	s.watch()
	s.serve("--http", "")
	s.apply(zone + s.pool("web", checkTCP, owners...))
	s.expect(addrs(s.members)...)
	filler := s.fill(disk)
	// Changes of declared things are refused, and refused whole.
	if output, exit := s.run("delete", "pool", "web"); exit == 0 {
		t.Errorf("a pool was deleted on a full disk: %s", output)
	}
	m := s.members[2]
	m.close()
	s.expect(addrs(s.members, m)...)
	m.serve(t)
	s.expect(addrs(s.members)...)
	m.close()
	s.expect(addrs(s.members, m)...)
	s.must(os.Remove(filler))
	s.whole()
	s.upkeep.Kill()
	s.start()
	s.awaitUp()
	s.expect(addrs(s.members, m)...)
	m.serve(t)
	s.expect(addrs(s.members)...)
	s.whole()
}

// smallDisk mounts a tmpfs of a size for the test.
func (s *site) smallDisk(size string) string {
	s.t.Helper()
	sweepDisks()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("upkeep-disk-%d-%d", os.Getpid(), time.Now().UnixNano()))
	s.must(os.Mkdir(dir, 0o755))
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
	if err != nil {
		_ = os.Remove(dir)
	}
	testkit.NeedThat(s.t, "mounting a tmpfs", err)
	s.t.Cleanup(func() {
		_ = syscall.Unmount(dir, syscall.MNT_DETACH) // named may still have its folder open
		_ = os.Remove(dir)
	})
	return dir
}

// sweepDisks unmounts what a test binary left behind that was killed.
func sweepDisks() {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for _, m := range regexp.MustCompile(`tmpfs (\S*/upkeep-disk-(\d+)-\d+) `).FindAllStringSubmatch(string(mounts), -1) {
		if _, err := os.Stat("/proc/" + m[2]); os.IsNotExist(err) {
			_ = syscall.Unmount(m[1], syscall.MNT_DETACH)
			_ = os.Remove(m[1])
		}
	}
}

// fill writes a file until there is no room left.
func (s *site) fill(dir string) string {
	s.t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	s.must(err)
	block := make([]byte, 512)
	for err == nil {
		_, err = file.Write(block)
	}
	if !strings.Contains(err.Error(), "no space left") {
		s.t.Fatal(err)
	}
	s.must(file.Close())
	return path
}

func (s *site) read(path string) string {
	s.t.Helper()
	text, err := os.ReadFile(path)
	s.must(err)
	return string(text)
}

// The wall clock of the running upkeep steps back an hour, and forward again:
// serials rise all the same, nothing is removed by it, and dead members are
// found as before.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	zone := s.bindPrimary(s.path("include"), 1)
	s.watch()
	s.serve("--http", "")
	s.apply(zone + s.pool("web", checkTCP, owners...))
	s.expect(addrs(s.members)...)
	for i, step := range []time.Duration{-time.Hour, 2 * time.Hour, -3 * time.Hour} {
		s.allUp(t)
		before := s.removals()
		testkit.NeedThat(t, "stepping the clock of a process", testkit.StepClock(s.upkeep.PID(), step))
		<-time.After(3 * time.Second) // fifteen checks of each member
		if n := s.removals() - before; n != 0 {
			t.Errorf("%d removals by a step of %s; %s", n, step, s.says("web"))
		}
		m := s.members[i]
		m.close()
		s.expect(addrs(s.members, m)...)
		s.whole()
		m.serve(t)
		s.expect(addrs(s.members)...)
		s.whole()
	}
	// A restart brings the true clock back: as after a step of three hours.
	s.upkeep.Kill()
	s.start()
	s.awaitUp()
	s.expect(addrs(s.members)...)
	s.members[0].close()
	s.expect(addrs(s.members, s.members[0])...)
	s.whole()
}

// The zone's serial is ahead of the clock, as with YYYYMMDDnn numbers: it goes
// on rising by one.
func TestSerialAheadOfTheClock(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	const ahead = 2026112301
	zone := s.bindPrimary(s.path("include"), ahead)
	s.watch()
	s.serve("--http", "")
	s.apply(zone + s.pool("web", checkTCP, owners...))
	s.expect(addrs(s.members)...)
	m := s.members[0]
	m.close()
	s.expect(addrs(s.members, m)...)
	m.serve(t)
	s.expect(addrs(s.members)...)
	s.whole()
	serial, err := nameserver.Serial(s.client, s.asked[0], zoneName)
	s.must(err)
	if serial <= ahead || serial > ahead+20 {
		t.Errorf("serial %d after %d", serial, ahead)
	}
}

// drain --wait returns when no server answers with the member any more and the
// time that caches may keep it has passed.
func TestDrainWaits(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	zone := s.bindPrimary(s.path("include"), 1)
	s.watch()
	s.serve("--http", "")
	const ttl = 3 * time.Second
	s.apply(zone + strings.Replace(s.pool("web", checkTCP, owners...), "check:", "ttl: 3s\ncheck:", 1))
	s.expect(addrs(s.members)...)
	m := s.members[2]
	output, exit := s.run("pool", "drain", "web", m.Addr.String(), "--wait")
	returned := time.Now()
	if exit != 0 {
		t.Fatalf("exit %d: %s", exit, output)
	}
	for _, e := range s.eyes {
		if since := returned.Sub(e.lastWith(m)); since < ttl {
			t.Errorf("%s answered with the drained member %s before drain --wait returned, with a TTL of %s", e.server, since, ttl)
		}
	}
	s.expect(addrs(s.members, m)...)
	s.whole()
	if state := s.status("web").Members[2]; state.Verdict.String() != "up" || state.Admin != "drain" {
		t.Errorf("the drained member is shown as %s, admin %s", state.Verdict, state.Admin)
	}
	// It outlives a restart, and ends.
	s.upkeep.Kill()
	s.start()
	s.awaitUp()
	s.expect(addrs(s.members, m)...)
	if output, exit := s.run("pool", "undrain", "web", m.Addr.String()); exit != 0 {
		t.Fatalf("undrain: exit %d: %s", exit, output)
	}
	s.expect(addrs(s.members)...)
	s.whole()
}

// upkeep answers for the zone itself, and BIND, NSD and Knot follow it by signed
// transfers, through a restart in good order and a kill.
func TestOwnPrimary(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4)
	key := &nameserver.Key{Name: "transfer", Secret: "dXBrZWVwIHRlc3QgdHJhbnNmZXIga2V5IDAxMjM0NTY="}
	s.write("transfer.key", key.Text())
	own := s.monitor.Addr.String() + ":53"
	s.secondaries(s.monitor, key)
	var notified []string
	for _, server := range s.servers {
		notified = append(notified, `"`+server.Addr()+`"`)
	}
	s.asked = append(s.asked, own)
	zone := fmt.Sprintf(`kind: zone
name: %s
publishers:
  - {type: transfer, secondaries: [%s], tsig: %s}
servers: [%s]
records:
  - {name: ns1, type: A, value: %s}
  - {name: "@", type: NS, value: ns1}
  - {name: "@", type: MX, value: 10 mail}
  - {name: mail, type: A, value: 10.53.0.9}
`, zoneName, strings.Join(notified, ", "), s.path("transfer.key"), s.quotedServers(), s.monitor.Addr)
	s.serve("--http", "", "--dns", own)
	s.apply(zone + s.pool("web", checkTCP, owners...))
	s.expect(addrs(s.members)...)
	s.watch()
	for i, stop := range []func(){func() {}, func() { s.upkeep.Stop(20 * time.Second) }, s.upkeepKill} {
		m := s.members[i]
		m.close()
		s.expect(addrs(s.members, m)...)
		stop()
		if !s.upkeep.Running() {
			s.start()
			s.awaitUp()
		}
		m.serve(t)
		s.expect(addrs(s.members)...)
		s.whole()
	}
	// A secondary that comes back late catches up.
	s.servers[0].Stop()
	s.members[0].close()
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		got, err := nameserver.Addresses(s.client, own, names[0])
		return err == nil && len(got) == len(s.members)-1, fmt.Sprint(got, err)
	})
	s.must(s.servers[0].Start())
	s.expect(addrs(s.members, s.members[0])...)
	// Nobody else gets the zone.
	if output, err := s.client.Run("dig", "@"+s.monitor.Addr.String(), zoneName, "AXFR", "+time=2", "+tries=1"); strings.Contains(output, "SOA") {
		t.Errorf("a stranger may transfer the zone: %v\n%s", err, output)
	}
}

func (s *site) upkeepKill() { s.upkeep.Kill() }

// upkeep sends dynamic updates to a BIND that BIND, NSD and Knot follow. Another
// writer changes the same name: that is reported and not overwritten blindly,
// while names of others are left alone.
func TestForeignWriter(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	key := nameserver.Key{Name: "update", Secret: "dXBrZWVwIHRlc3QgdXBkYXRlIGtleSAwMTIzNDU2Nzg="}
	s.write("update.key", key.Text())
	ns1 := s.net.Host("ns1")
	text := fmt.Sprintf("$TTL 60\n@ SOA ns1 hostmaster 1 300 60 86400 60\n@ NS ns1\nns1 A %s\nother A 10.53.0.99\n", ns1.Addr)
	primary := s.nameserver(nameserver.BIND, "ns1", nameserver.Zone{Name: zoneName, Text: text, Notify: s.secondaryHosts(), Key: &key})
	s.secondaries(ns1, nil)
	zone := fmt.Sprintf("kind: zone\nname: %s\npublishers:\n  - {type: update, server: \"%s\", key: %s}\nservers: [%s]\n",
		zoneName, primary.Addr(), s.path("update.key"), s.quotedServers())
	s.serve("--http", "")
	s.apply(zone + s.pool("web", checkTCP, owners...))
	s.expect(addrs(s.members)...)
	s.watch()
	m := s.members[0]
	m.close()
	s.expect(addrs(s.members, m)...)
	m.serve(t)
	s.expect(addrs(s.members)...)
	s.whole()

	update := func(commands string) {
		t.Helper()
		cmd := exec.Command("nsupdate", "-k", s.path("update.key"))
		cmd.Args = s.client.Argv(cmd.Args...)
		cmd.Path, _ = testkit.Find("nsenter")
		cmd.Stdin = strings.NewReader(fmt.Sprintf("server %s\nzone %s\n%s\nsend\n", ns1.Addr, zoneName, commands))
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nsupdate: %v\n%s", err, output)
		}
	}
	// A foreign name is none of upkeep's business.
	update("update add mail.example.test 60 A 10.53.0.98")
	m.close()
	s.expect(addrs(s.members, m)...)
	m.serve(t)
	s.expect(addrs(s.members)...)
	for name, want := range map[string]string{"mail": "10.53.0.98", "other": "10.53.0.99"} {
		got, err := nameserver.Addresses(s.client, primary.Addr(), name+"."+zoneName)
		if err != nil || len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// A foreign address at a name of the pool is reported. (The eyes would call
	// it nobody's address.)
	for _, e := range s.eyes {
		for _, fault := range e.seen() {
			t.Error(fault)
		}
		e.stop()
	}
	s.eyes = nil
	update("update add www.example.test 60 A 10.53.0.97")
	m.close()
	testkit.Eventually(t, 60*time.Second, func() (bool, string) {
		events, err := s.control().Events(context.Background(), client.EventFilter{Limit: 1000})
		for _, e := range events {
			text := strings.ToLower(e.What + " " + e.Why)
			if strings.Contains(text, "10.53.0.97") || strings.Contains(text, "someone else") || strings.Contains(text, "foreign") || strings.Contains(text, "another writer") {
				return true, ""
			}
		}
		return false, fmt.Sprint(events, err)
	})
}
