package zone

import (
	"fmt"
	"os"

	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/testkit"
)

// These tests hold what BIND was seen to do, each on a real named.

// rndc reload succeeds although the zone then fails to load.
func TestBindRollsBackWhatNamedRefuses(t *testing.T) {
	lab := newBindLab(t, bindSetup{
		named: testkit.NamedConfig{Options: "max-records-per-type 3;"},
		bind:  BindOptions{Settle: time.Second},
	})
	before := lab.publish(t, "192.0.2.1", "192.0.2.2")
	tooMany := lab.content("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
	lab.refused(t, tooMany, "named did not load serial", "were put back", "look into named's log")
	after := lab.served(t)
	if !SerialLess(before, after) {
		t.Errorf("serial %d after %d: what was put back must come after what failed", after, before)
	}
	lab.proven(t, after, "192.0.2.1", "192.0.2.2")
	disk := lab.whole(t)
	if text := string(disk.ips.text); strings.Contains(text, "192.0.2.4") {
		t.Errorf("the refused addresses are still in place:\n%s", text)
	}
	// A retry of the same does not stir named again.
	log := lab.Log()
	lab.refused(t, tooMany, "named did not load serial")
	if lab.Log() != log {
		t.Errorf("the retry reached named:\n%s", strings.TrimPrefix(lab.Log(), log))
	}
	lab.publish(t, "192.0.2.2", "192.0.2.3")
	// The zone can be loaded from what is on disk.
	lab.Restart(t)
	lab.proven(t, lab.served(t), "192.0.2.2", "192.0.2.3")
}

// A secondary transfers the zone only when the serial has risen.
func TestBindSecondaryFollows(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{
		Options: "notify-delay 0; allow-transfer { any; };",
		Config:  `zone "example.test" { type primary; file "{dir}/db.example.test"; also-notify { 127.0.0.1 port 1; }; };`,
	}})
	secondary := testkit.StartNamed(t, testkit.NamedConfig{
		Config: fmt.Sprintf(`zone "example.test" { type secondary; file "{dir}/db"; primaries { 127.0.0.1 port %s; }; };`,
			strings.TrimPrefix(lab.Addr, "127.0.0.1:")),
	})
	lab.Write(t, "named.conf", strings.ReplaceAll(lab.read(t, "named.conf"), "port 1;", "port "+strings.TrimPrefix(secondary.Addr, "127.0.0.1:")+";"))
	lab.Control(t, "reconfig")
	for _, set := range [][]string{{"192.0.2.1"}, {"192.0.2.2"}, {"192.0.2.1", "192.0.2.2"}} {
		serial := lab.publish(t, set...)
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status := Prove(t.Context(), secondary.Addr, "example.test", serial, poolSets(set...))
			return status.InSync, status.Error
		})
	}
}

// Without a NOTIFY of named's own, or with one that it holds back, the listed
// secondaries follow upkeep's.
func TestBindNudgesSecondaries(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{
		Options: "allow-transfer { any; };",
		Config:  `zone "example.test" { type primary; file "{dir}/db.example.test"; notify no; };`,
		Files:   map[string]string{"inc/soa.include": "$TTL 60\n@ IN SOA ns1 hostmaster 7 86400 86400 864000 60\n"},
	}})
	secondary := testkit.StartNamed(t, testkit.NamedConfig{
		Config: fmt.Sprintf(`zone "example.test" { type secondary; file "{dir}/db"; primaries { 127.0.0.1 port %s; }; };`,
			strings.TrimPrefix(lab.Addr, "127.0.0.1:")),
	})
	eventuallyServes(t, secondary.Addr, 7)
	lab.zone.SOA.Refresh, lab.zone.SOA.Retry = upkeep.Duration(upkeep.Day), upkeep.Duration(upkeep.Day)
	lab.zone.Servers = []string{lab.Addr, secondary.Addr, "127.0.0.1:1"}
	for _, set := range [][]string{{"192.0.2.1"}, {"192.0.2.2"}, {"192.0.2.3"}} {
		serial := lab.publish(t, set...)
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status := Prove(t.Context(), secondary.Addr, "example.test", serial, poolSets(set...))
			return status.InSync, status.Error
		})
	}
}

// A NOTIFY that is lost is sent again before it holds a removal up.
func TestBindNudgesAgain(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{
		Options: "allow-transfer { any; };",
		Config:  `zone "example.test" { type primary; file "{dir}/db.example.test"; notify no; };`,
		Files:   map[string]string{"inc/soa.include": "$TTL 60\n@ IN SOA ns1 hostmaster 7 86400 86400 864000 60\n"},
	}})
	secondary := testkit.StartNamed(t, testkit.NamedConfig{
		Config: fmt.Sprintf(`zone "example.test" { type secondary; file "{dir}/db"; primaries { 127.0.0.1 port %s; }; };`,
			strings.TrimPrefix(lab.Addr, "127.0.0.1:")),
	})
	eventuallyServes(t, secondary.Addr, 7)
	lossy := newLossyNotify(t, secondary.Addr)
	lab.zone.SOA.Refresh, lab.zone.SOA.Retry = upkeep.Duration(upkeep.Day), upkeep.Duration(upkeep.Day)
	lab.zone.Servers = []string{lab.Addr, lossy.addr}
	least := time.Hour // of the times that the lost ones cost: the machine may be busy
	for _, set := range [][]string{{"192.0.2.1"}, {"192.0.2.2"}, {"192.0.2.3"}, {"192.0.2.4"}} {
		lossy.lose()
		serial := lab.publish(t, set...)
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status := Prove(t.Context(), secondary.Addr, "example.test", serial, poolSets(set...))
			return status.InSync, status.Error
		})
		least = min(least, lossy.cost(t))
	}
	if least > 200*time.Millisecond {
		t.Errorf("a lost NOTIFY costs %s at least", least)
	}
}

// A secondary that is told of two changes within half a second asks for the second
// one when the half second is over: named sends its queries for serials in batches,
// ten of them in half a second by default (serial-query-rate 20). A higher rate has
// shorter batches.
func TestBindSecondaryAsksAtOnce(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{
		Options: "allow-transfer { any; };",
		Config:  `zone "example.test" { type primary; file "{dir}/db.example.test"; notify no; };`,
		Files:   map[string]string{"inc/soa.include": "$TTL 60\n@ IN SOA ns1 hostmaster 7 86400 86400 864000 60\n"},
	}})
	secondary := testkit.StartNamed(t, testkit.NamedConfig{
		Options: "serial-query-rate 1000;",
		Config: fmt.Sprintf(`zone "example.test" { type secondary; file "{dir}/db"; primaries { 127.0.0.1 port %s; }; };`,
			strings.TrimPrefix(lab.Addr, "127.0.0.1:")),
	})
	eventuallyServes(t, secondary.Addr, 7)
	lab.zone.SOA.Refresh, lab.zone.SOA.Retry = upkeep.Duration(upkeep.Day), upkeep.Duration(upkeep.Day)
	lab.zone.Servers = []string{lab.Addr, secondary.Addr}
	follow := func(address string) time.Duration {
		serial := lab.publish(t, address)
		began := time.Now()
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status := Prove(t.Context(), secondary.Addr, "example.test", serial, poolSets(address))
			return status.InSync, status.Error
		})
		return time.Since(began)
	}
	least := time.Hour // the machine may be busy
	for i := range 4 {
		first := follow(fmt.Sprintf("192.0.2.%d", 2*i+1))
		least = min(least, max(first, follow(fmt.Sprintf("192.0.2.%d", 2*i+2))))
	}
	if least > 150*time.Millisecond {
		t.Errorf("one of two changes is followed after %s at least", least)
	}
}

// lossyNotify is a name server by a path that loses a NOTIFY when asked to.
type lossyNotify struct {
	addr string

	mu    sync.Mutex
	loses bool
	lost  time.Time // when one was
	again time.Time // when the one after it came
}

func newLossyNotify(t *testing.T, server string) *lossyNotify {
	l := &lossyNotify{}
	started := make(chan struct{})
	relay := &dns.Server{Net: "udp", Addr: "127.0.0.1:0", NotifyStartedFunc: func() { close(started) }}
	relay.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
	relay.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		if m.Opcode == dns.OpcodeNotify && l.loseOne() {
			return
		}
		if answer, err := dns.Exchange(m, server); err == nil {
			_ = w.WriteMsg(answer)
		}
	})
	go func() { _ = relay.ListenAndServe() }()
	<-started
	t.Cleanup(func() { _ = relay.Shutdown() })
	l.addr = relay.PacketConn.LocalAddr().String()
	return l
}

// lose has the next NOTIFY lost.
func (l *lossyNotify) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loses, l.lost, l.again = true, time.Time{}, time.Time{}
}

func (l *lossyNotify) loseOne() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.loses:
		l.loses, l.lost = false, time.Now()
		return true
	case l.again.IsZero():
		l.again = time.Now()
	}
	return false
}

// cost is the time from the NOTIFY that was lost to the next one.
func (l *lossyNotify) cost(t *testing.T) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost.IsZero() || l.again.IsZero() {
		t.Fatal("no NOTIFY was lost, or it was not sent again")
	}
	return l.again.Sub(l.lost)
}

// Under inline signing a raw serial that does not rise is not loaded at all,
// and the signed serial runs ahead of the file.
func TestBindInlineSigning(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{
		Config: `zone "example.test" { type primary; file "{dir}/db.example.test"; dnssec-policy default; inline-signing yes; };`,
	}})
	var last uint32
	for _, set := range [][]string{{"192.0.2.1"}, {"192.0.2.2"}, {"192.0.2.1", "192.0.2.2"}} {
		serial := lab.publish(t, set...)
		if last != 0 && !SerialLess(last, serial) {
			t.Errorf("serial %d after %d", serial, last)
		}
		last = serial
	}
	log := lab.Log()
	lab.publish(t, "192.0.2.1", "192.0.2.2")
	if strings.Contains(strings.TrimPrefix(lab.Log(), log), "'reload") {
		t.Error("publishing the same again reloaded the zone")
	}
}

// named reloads only files that are newer than those that it has loaded.
func TestBindClockSetBack(t *testing.T) {
	var mu sync.Mutex
	offset := time.Duration(0)
	lab := newBindLab(t, bindSetup{bind: BindOptions{Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(offset)
	}}})
	last := lab.publish(t, "192.0.2.1")
	for i, back := range []time.Duration{-time.Hour, -time.Hour, -365 * upkeep.Day, time.Hour, 0} {
		mu.Lock()
		offset = back
		mu.Unlock()
		serial := lab.publish(t, fmt.Sprintf("192.0.2.%d", i+2))
		if !SerialLess(last, serial) {
			t.Errorf("with the clock at %s: serial %d after %d", back, serial, last)
		}
		last = serial
	}
}

// A restored backup is older than what named has loaded: rndc says "up-to-date".
func TestBindRestoredBackup(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	lab.publish(t, "192.0.2.1")
	disk := lab.whole(t)
	lab.publish(t, "192.0.2.2")
	// The files of before come back with the dates of before, and another
	// process has named load nothing of them.
	for _, f := range []include{disk.ips, disk.soa} {
		if err := os.WriteFile(f.path, f.text, 0o644); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-240 * time.Hour)
		if err := os.Chtimes(f.path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	lab.publish(t, "192.0.2.1")
	lab.publish(t, "192.0.2.2")
}

// Files that are ready under a serial that named has not loaded, but dated
// before what it has: the reload itself must be repeated with newer files.
func TestBindReadyButOld(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	serial := lab.publish(t, "192.0.2.1")
	disk := lab.whole(t)
	c, err := lab.content("192.0.2.2").Normal()
	if err != nil {
		t.Fatal(err)
	}
	ips := renderIPs(c)
	_, names, _ := disk.soa.soa()
	old := time.Now().Add(-240 * time.Hour)
	for path, text := range map[string][]byte{disk.ips.path: ips, disk.soa.path: renderSOA(c.Zone, names, serial+5, ips)} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if got := lab.publish(t, "192.0.2.2"); got != serial+5 {
		t.Errorf("serial %d, want %d: the files needed no change", got, serial+5)
	}
}

// An owner name does not carry out of an include.
func TestBindBlankOwnerAfterInclude(t *testing.T) {
	broken := strings.Replace(includedZone, "@    IN NS ns1", "     IN NS ns1", 1)
	lab := newBindLab(t, bindSetup{})
	serial := lab.publish(t, "192.0.2.1")
	lab.Write(t, "db.example.test", broken)
	disk := lab.whole(t)
	lab.refused(t, lab.content("192.0.2.2"), "no current owner name", lab.Path("db.example.test")+":3", "nothing was written")
	if now := lab.whole(t); string(now.ips.text) != string(disk.ips.text) {
		t.Error("the include files were changed")
	}
	lab.proven(t, serial, "192.0.2.1")
	// The fault mended, the next attempt succeeds.
	lab.Write(t, "db.example.test", includedZone)
	lab.publish(t, "192.0.2.2")
}

// A missing include keeps the old data at a reload and kills the zone at a
// restart.
func TestBindMissingInclude(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"empty":   func(path string) error { return os.Truncate(path, 0) },
	} {
		for _, file := range []string{SOAInclude, IPsInclude, "both"} {
			t.Run(name+" "+file, func(t *testing.T) {
				lab := newBindLab(t, bindSetup{})
				spoilt := []string{file}
				if file == "both" {
					spoilt = []string{SOAInclude, IPsInclude}
				}
				lab.publish(t, "192.0.2.1")
				for _, file := range spoilt {
					if err := spoil(lab.Path("inc/" + file)); err != nil {
						t.Fatal(err)
					}
				}
				lab.publish(t, "192.0.2.1")
				lab.whole(t)
				for _, file := range spoilt {
					if err := spoil(lab.Path("inc/" + file)); err != nil {
						t.Fatal(err)
					}
				}
				lab.Restart(t)
				lab.publish(t, "192.0.2.1")
			})
		}
	}
}

// named refuses the whole zone when a name has more than 100 records of a type.
func TestBindHundredRecords(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	var hundred []string
	for i := range 100 {
		hundred = append(hundred, fmt.Sprintf("198.51.100.%d", i))
	}
	lab.publish(t, hundred...)
	lab.refused(t, lab.content(append(hundred, "192.0.2.1")...), "more than 100 addresses")
	// IPv4 and IPv6 are counted apart.
	lab.publish(t, append(hundred, "2001:db8::1")...)
	// With an address of its own the zone file makes it 101.
	lab.Write(t, "db.example.test", includedZone+"@ IN A 192.0.2.99\n")
	_, err := lab.pub.Publish(t.Context(), lab.content(hundred...))
	demandError(t, err, "too many records")
}

// A dynamic zone ignores its include files and will write over the zone file.
func TestBindDynamicZone(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{
		Config: `zone "example.test" { type primary; file "{dir}/db.example.test"; update-policy local; };`,
	}})
	before := lab.read(t, "inc/"+IPsInclude)
	lab.refused(t, lab.content("192.0.2.2"), "is dynamic", "publisher of type update")
	if after := lab.read(t, "inc/"+IPsInclude); after != before {
		t.Error("the include file was written all the same")
	}
}

// A zone that becomes dynamic later is noticed by the reload.
func TestBindZoneBecomesDynamic(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	lab.publish(t, "192.0.2.1")
	lab.Write(t, "named.conf", strings.Replace(lab.read(t, "named.conf"), `db.example.test";`, `db.example.test"; update-policy local;`, 1))
	lab.Control(t, "reconfig")
	lab.refused(t, lab.content("192.0.2.2"), "is dynamic", "publisher of type update")
	lab.refused(t, lab.content("192.0.2.2"), "is dynamic")
}

// A serial written as YYYYMMDDnn is ahead of the Unix time until 2034.
func TestBindSerialAheadOfClock(t *testing.T) {
	const dated = 2034112301
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{Files: map[string]string{
		"inc/soa.include": fmt.Sprintf("$TTL 60\n@ IN SOA ns1 hostmaster %d 300 60 86400 60\n", dated),
	}}})
	for i := range 4 {
		want := uint32(dated + 1 + i)
		if got := lab.publish(t, fmt.Sprintf("192.0.2.%d", i+1)); got != want {
			t.Errorf("serial %d, want %d", got, want)
		}
	}
}

// Two changes within a second need two serials.
func TestBindFrozenClock(t *testing.T) {
	at := time.Unix(1800000000, 0)
	lab := newBindLab(t, bindSetup{bind: BindOptions{Now: func() time.Time { return at }}})
	for i := range 3 {
		want := uint32(1800000000 + i)
		if got := lab.publish(t, fmt.Sprintf("192.0.2.%d", i+1)); got != want {
			t.Errorf("serial %d, want %d", got, want)
		}
	}
}

// A serial that a secondary is ahead with must be gone past too.
func TestBindSecondaryAhead(t *testing.T) {
	ahead := testkit.StartNamed(t, testkit.NamedConfig{
		Files:  map[string]string{"db": "$TTL 60\n@ IN SOA ns1 hostmaster 2000000000 300 60 86400 60\n@ IN NS ns1\nns1 IN A 192.0.2.53\n"},
		Config: `zone "example.test" { type primary; file "{dir}/db"; };`,
	})
	lab := newBindLab(t, bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) { z.Servers = []string{n.Addr, ahead.Addr} }})
	if got := lab.publish(t, "192.0.2.1"); got != 2000000001 {
		t.Errorf("serial %d, want 2000000001", got)
	}
}

// The article's named lives in a chroot, where paths are others than outside,
// and its files belong to the user named.
func TestBindChroot(t *testing.T) {
	testkit.NeedRoot(t)
	for name, paths := range map[string]func(n *testkit.Named) (zoneFile, includeDir string){
		"as named sees them": func(*testkit.Named) (string, string) { return "/var/bind/db.example.test", "/var/bind/inc" },
		"from outside": func(n *testkit.Named) (string, string) {
			return n.Path("var/bind/db.example.test"), n.Path("var/bind/inc")
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab := newBindLab(t, bindSetup{
				named: testkit.NamedConfig{
					User: "bind", Chroot: true,
					Files: map[string]string{
						"var/bind/db.example.test": strings.ReplaceAll(includedZone, "{dir}", "/var/bind") + `$INCLUDE "var/bind/more.inc"` + "\n",
						"var/bind/more.inc":        "more IN A 192.0.2.77\n",
						"var/bind/inc/soa.include": "$TTL 60\n@ IN SOA ns1 hostmaster 7 300 60 86400 60\n",
						"var/bind/inc/ips.include": "@ IN A 192.0.2.1\n",
					},
					Config: `zone "example.test" { type primary; file "/var/bind/db.example.test"; };`,
				},
				edit: func(n *testkit.Named, z *upkeep.Zone) {
					p := &z.Publishers[0]
					p.ZoneFile, p.IncludeDir = paths(n)
					p.Chroot = n.Dir
				},
			})
			if err := os.Chmod(lab.Path("var/bind/inc/ips.include"), 0o640); err != nil {
				t.Fatal(err)
			}
			owner := func(name string) string {
				info, err := os.Stat(lab.Path("var/bind/inc/" + name))
				if err != nil {
					t.Fatal(err)
				}
				uid, gid := ownerOf(info)
				return fmt.Sprintf("%d:%d %s", uid, gid, info.Mode())
			}
			before := owner(IPsInclude)
			if err := os.Remove(lab.Path("var/bind/inc/soa.include")); err != nil {
				t.Fatal(err)
			}
			lab.publish(t, "192.0.2.1", "192.0.2.2")
			lab.publish(t, "192.0.2.2")
			if after := owner(IPsInclude); after != before {
				t.Errorf("owner and mode are %s, were %s", after, before)
			}
			if got, want := owner(SOAInclude), strings.Replace(before, "-rw-r-----", "-rw-r--r--", 1); got != want {
				t.Errorf("owner and mode of the new file are %s, want %s", got, want)
			}
		})
	}
}

// Any number of zones include the same two files.
func TestBindSharedIncludes(t *testing.T) {
	const zones = 4
	var config strings.Builder
	files := map[string]string{}
	for i := range zones {
		name := fmt.Sprintf("z%d.test", i)
		fmt.Fprintf(&config, "zone %q { type primary; file \"{dir}/db.%s\"; };\n", name, name)
		files["db."+name] = includedZone
	}
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{Files: files, Config: config.String() + primaryZone}})
	pubs := map[string]*BindPublisher{}
	declared := map[string]upkeep.Zone{}
	for i := range zones {
		z := lab.zone
		z.Name, z.SOA = fmt.Sprintf("z%d.test", i), upkeep.SOA{}
		z.Publishers = slices.Clone(z.Publishers)
		z.Publishers[0].ZoneFile = lab.Path("db." + z.Name)
		z = z.WithDefaults()
		pubs[z.Name], declared[z.Name] = lab.publisher(t, z), z
	}
	for _, set := range [][]string{{"192.0.2.1", "192.0.2.2"}, {"192.0.2.2"}, {"192.0.2.3", "192.0.2.2"}} {
		serials := map[uint32]bool{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for name, pub := range pubs {
			all.Go(func() {
				serial, err := pub.Publish(t.Context(), Content{Zone: declared[name], Sets: poolSets(set...)})
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				if status := Prove(t.Context(), lab.Addr, name, serial, poolSets(set...)); !status.InSync {
					t.Errorf("%s: %s", name, status.Error)
				}
				mu.Lock()
				defer mu.Unlock()
				serials[serial] = true
			})
		}
		all.Wait()
		if len(serials) != 1 {
			t.Errorf("%v was published under %d serials, want one", set, len(serials))
		}
	}
	// Each zone has its own ns1 and hostmaster, so the names are relative.
	if text := lab.read(t, "inc/soa.include"); !strings.Contains(text, " IN SOA ns1 hostmaster ") {
		t.Errorf("the shared SOA is\n%s", text)
	}
}

func TestBindSharedButDifferent(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{
		Files: map[string]string{"db.other.test": includedZone}, Config: primaryZone + `zone "other.test" { type primary; file "{dir}/db.other.test"; };`,
	}})
	other := lab.zone
	other.Name, other.SOA = "other.test", upkeep.SOA{}
	other.Publishers = slices.Clone(other.Publishers)
	other.Publishers[0].ZoneFile = lab.Path("db.other.test")
	other = other.WithDefaults()
	pub := lab.publisher(t, other)
	theirs := Content{Zone: other, Sets: poolSets("203.0.113.1")}
	if _, err := pub.Publish(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	lab.publish(t, "192.0.2.1")
	// Neither has changed its mind, so the one whose turn is over gives way.
	_, err := pub.Publish(t.Context(), theirs)
	demandError(t, err, "zone example.test, which shares include_dir", "same pools")
	lab.publish(t, "192.0.2.1")
	// Different SOA fields cannot be in one file.
	c := lab.content("192.0.2.1")
	c.Zone.SOA.Refresh = upkeep.Duration(time.Hour)
	lab.refused(t, c, "different ttl or soa fields")
}

func ownerOf(info os.FileInfo) (uid, gid uint32) {
	stat := info.Sys().(*syscall.Stat_t)
	return stat.Uid, stat.Gid
}
