package zone

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// A zone that named begins to sign later has a serial of its own from then on;
// that must not be taken for somebody else's publish again and again.
func TestBindZoneBecomesSigned(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	lab.publish(t, "192.0.2.1")
	lab.Write(t, "named.conf", strings.Replace(lab.read(t, "named.conf"), `db.example.test";`, `db.example.test"; dnssec-policy default; inline-signing yes;`, 1))
	lab.Control(t, "reconfig")
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		status, err := lab.pub.askStatus(t.Context())
		return err == nil && status.signed != 0, fmt.Sprintf("%+v, %v", status, err)
	})
	lab.publish(t, "192.0.2.2")
	log := lab.Log()
	for range 3 {
		lab.publish(t, "192.0.2.2")
	}
	if strings.Contains(strings.TrimPrefix(lab.Log(), log), "'reload") {
		t.Error("publishing the same again reloaded the zone")
	}
}

// A dead secondary costs one short wait, and then none for a while.
func TestSilence(t *testing.T) {
	dead, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	lives := zoneServer(t, nil, "example.test. 60 SOA ns1 host 100 1 1 1 1")
	at := []ServedAt{{lives, "example.test"}, {dead.LocalAddr().String(), "example.test"}}
	s := silence{until: map[string]time.Time{}}
	now := time.Now()
	for i, later := range []time.Duration{0, time.Second, silentFor - 1} {
		serials, complete := s.ask(t.Context(), at, now.Add(later))
		if len(serials) != 1 || serials[0] != 100 || complete {
			t.Errorf("time %d: serials %v, complete %v", i, serials, complete)
		}
	}
	count := 0
	buffer := make([]byte, 512)
	for {
		if err := dead.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := dead.ReadFrom(buffer); err != nil {
			break
		}
		count++
	}
	if count != 1 {
		t.Errorf("the dead server was asked %d times", count)
	}
}

// Include files that include each other, or spread without end, are refused in
// good time and memory.
func TestAssembleHostile(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"itself":      {map[string]string{"db": "$INCLUDE {dir}/db\n"}, "nest more than"},
		"each other":  {map[string]string{"db": "$INCLUDE {dir}/a\n", "a": "$include \"{dir}/b\"\n", "b": "$Include {dir}/a ; x\n"}, "nest more than"},
		"doubling":    {map[string]string{"db": "$INCLUDE {dir}/a\n$INCLUDE {dir}/a\n", "a": strings.Repeat("$INCLUDE {dir}/b\n", 400), "b": strings.Repeat("$INCLUDE {dir}/c\n", 400), "c": "; c\n"}, "more than 1000 include files"},
		"missing":     {map[string]string{"db": "$INCLUDE {dir}/nothing\n"}, "no such file"},
		"a directory": {map[string]string{"db": "$INCLUDE {dir}\n"}, "not a regular file"},
		"no text":     {map[string]string{"db": "$INCLUDE\n$INCLUDE (\n"}, "not closed"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(strings.ReplaceAll(text, "{dir}", dir)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			a, err := assemble(newBindPlace(upkeep.Publisher{ZoneFile: filepath.Join(dir, "db"), IncludeDir: dir}), nil, nil)
			defer a.remove()
			demandError(t, err, c.want)
		})
	}
}

// Relative includes count from the nearest directory above that fits, and paths
// inside a chroot from the chroot.
func TestAssembleFindsIncludes(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{
		"etc/bind/zones/db":   "$INCLUDE \"etc/inc/soa.include\"\n$INCLUDE /etc/inc/ips.include\n$INCLUDE more\n@ NS ns1\n",
		"etc/bind/zones/more": "ns1 A 192.0.2.53\n", "etc/inc/other": "",
	} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	place := newBindPlace(upkeep.Publisher{ZoneFile: "/etc/bind/zones/db", IncludeDir: "/etc/inc", Chroot: root})
	c, err := Content{Zone: testZone(), Sets: poolSets("192.0.2.1")}.Normal()
	if err != nil {
		t.Fatal(err)
	}
	ips := renderIPs(c)
	a, err := assemble(place, ips, renderSOA(c.Zone, soaSpellings(c.Zone)[0], 7, ips))
	defer a.remove()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.includesBoth(); err != nil {
		t.Error(err)
	}
	testkit.Need(t, "named-checkzone")
	if err := a.check(t.Context(), nil, "example.test"); err != nil {
		t.Error(err)
	}
}

// As a user of its own, with a directory that named's group may read, upkeep
// needs no root.
func TestBindUnprivileged(t *testing.T) {
	if victim := os.Getenv(killEnv); victim != "" {
		bindOnce(t, victim)
		return
	}
	testkit.NeedRoot(t)
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{User: "bind"}})
	const nobody = 65534
	_, group := ownerOf(mustStat(t, lab.Path("inc")))
	if err := os.Chown(lab.Path("inc"), nobody, int(group)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(lab.Path("inc"), 0o2755); err != nil {
		t.Fatal(err)
	}
	// The test binary, where another user may run it.
	binary := filepath.Join(lab.Dir, "zone.test")
	self, err := os.ReadFile(os.Args[0])
	if err := errors.Join(err, testkit.WriteProgram(binary, self)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestBindUnprivileged$", "-test.count=1")
		cmd.Dir = "/"
		cmd.Env = []string{killEnv + "=" + lab.Dir + " " + lab.Addr, "PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{group}}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		lab.whole(t)
		for _, name := range []string{"inc/ips.include", "inc/soa.include"} {
			info := mustStat(t, lab.Path(name))
			if uid, gid := ownerOf(info); uid != nobody || gid != group || info.Mode().Perm() != 0o644 {
				t.Errorf("%s belongs to %d:%d with mode %s", name, uid, gid, info.Mode())
			}
		}
	}
	lab.proven(t, lab.served(t), "203.0.113.1")
}

func mustStat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func bindOnce(t *testing.T, victim string) {
	z, pub := victimPublisher(t, victim)
	if _, err := pub.Publish(t.Context(), Content{Zone: z, Sets: poolSets("203.0.113.1")}); err != nil {
		t.Fatal(err)
	}
}

// TestCheckThatIsKnown: a removal waits for named-checkzone only where the zone
// may have come to break.
func TestCheckThatIsKnown(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	checked := func(what string, want bool, addrs ...string) {
		t.Helper()
		before := lab.pub.known
		lab.publish(t, addrs...)
		if got := lab.pub.known != before; got != want {
			t.Errorf("%s: checked %t, want %t", what, got, want)
		}
	}
	text, err := os.ReadFile(lab.Path("db.example.test"))
	if err != nil {
		t.Fatal(err)
	}
	edit := func(more string) {
		t.Helper()
		if err := os.WriteFile(lab.Path("db.example.test"), append(slices.Clone(text), more...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	checked("the first", true, "192.0.2.1", "192.0.2.2", "192.0.2.3")
	checked("a removal", false, "192.0.2.1", "192.0.2.3")
	checked("another", false, "192.0.2.3")
	checked("back to what was checked", false, "192.0.2.1", "192.0.2.2", "192.0.2.3")
	checked("an address more", true, "192.0.2.1", "192.0.2.2", "192.0.2.4")
	checked("another family", true, "192.0.2.1", "2001:db8::1")
	checked("less a family", true, "192.0.2.1")
	edit("; a comment\n")
	checked("after an edit", true, "192.0.2.1", "192.0.2.2")
	edit("broken\n")
	if _, err := lab.pub.Publish(t.Context(), lab.content("192.0.2.1")); err == nil {
		t.Error("a removal was published into a zone that somebody broke")
	}
	if lab.pub.known != nil {
		t.Error("after a failure something is taken for known")
	}
	edit("")
	checked("after a failure", true, "192.0.2.1")
}
