package upkeep

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func goodPool() Pool {
	return Pool{
		Name: "web", Zones: []string{"a.test"}, Records: []string{"@", "*.eu"}, Check: Check{Type: CheckTCP, Port: 80},
		Members: []Member{{Address: netip.MustParseAddr("192.0.2.1")}, {Address: netip.MustParseAddr("2001:db8::1")}},
	}
}

func goodZone() Zone {
	return Zone{Name: "a.test", Publishers: []Publisher{{Type: PublishTransfer}}, Servers: []string{"192.0.2.53:53", "[2001:db8::53]:53", "ns1.example.org:53"}}
}

// fieldsOf names the fields that broken rules are about.
func fieldsOf(broken []FieldError) []string {
	var fields []string
	for _, b := range broken {
		fields = append(fields, b.Field)
	}
	slices.Sort(fields)
	return fields
}

func TestPoolRules(t *testing.T) {
	if broken := goodPool().Validate(); len(broken) > 0 {
		t.Fatal(broken)
	}
	seconds := func(n int) Duration { return Duration(time.Duration(n) * time.Second) }
	rate := func(n int, per time.Duration) Rate { return Rate{Count: n, Per: per} }
	addr := netip.MustParseAddr
	for _, one := range []struct {
		field  string
		change func(p *Pool)
	}{
		{"name", func(p *Pool) { p.Name = "" }},
		{"name", func(p *Pool) { p.Name = "Web" }},
		{"name", func(p *Pool) { p.Name = "a/b" }},
		{"name", func(p *Pool) { p.Name = strings.Repeat("a", 64) }},
		{"zones", func(p *Pool) { p.Zones = nil }},
		{"zones", func(p *Pool) { p.Zones = make([]string, MaxZones+1) }},
		{"zones[0]", func(p *Pool) { p.Zones = []string{"a..test"} }},
		{"zones[1]", func(p *Pool) { p.Zones = []string{"a.test", "a.test"} }},
		{"records", func(p *Pool) { p.Records = nil }},
		{"records", func(p *Pool) { p.Records = make([]string, MaxNames+1) }},
		{"records[0]", func(p *Pool) { p.Records = []string{"$INCLUDE"} }},
		{"records[0]", func(p *Pool) { p.Records = []string{"www\nevil"} }},
		{"records[0]", func(p *Pool) { p.Records = []string{"a.*"} }},
		{"records[1]", func(p *Pool) { p.Records = []string{"www", "www"} }},
		{"ttl", func(p *Pool) { p.TTL = Duration(1500 * time.Millisecond) }},
		{"ttl", func(p *Pool) { p.TTL = -seconds(1) }},
		{"degraded_ttl", func(p *Pool) { p.DegradedTTL = Duration(8 * Day) }},
		{"members", func(p *Pool) { p.Members = nil }},
		{"members", func(p *Pool) { p.Members = make([]Member, MaxMembers+1) }},
		{"members[0].address", func(p *Pool) { p.Members[0].Address = netip.Addr{} }},
		{"members[0].address", func(p *Pool) { p.Members[0].Address = addr("224.0.0.1") }},
		{"members[0].address", func(p *Pool) { p.Members[0].Address = addr("0.0.0.0") }},
		{"members[0].address", func(p *Pool) { p.Members[0].Address = addr("255.255.255.255") }},
		{"members[0].address", func(p *Pool) { p.Members[0].Address = addr("::ffff:192.0.2.1") }},
		{"members[0].address", func(p *Pool) { p.Members[0].Address = addr("fe80::1%eth0") }},
		{"members[1].address", func(p *Pool) { p.Members[1] = p.Members[0] }},
		{"members[0].check_address", func(p *Pool) { p.Members[0].CheckAddress = "a b" }},
		{"members[0].check_address", func(p *Pool) { p.Members[0].CheckAddress = "www.a.test" }},
		{"members[0].check_port", func(p *Pool) { p.Members[0].CheckPort = 70000 }},
		{"members[0].check_port", func(p *Pool) { p.Check, p.Members[0].CheckPort = Check{Type: CheckPing}, 80 }},
		{"check.type", func(p *Pool) { p.Check.Type = "telepathy" }},
		{"check.port", func(p *Pool) { p.Check.Port = 0 }},
		{"check.port", func(p *Pool) { p.Check.Port = 65536 }},
		{"check.path", func(p *Pool) { p.Check.Path = "/" }},
		{"check.interval", func(p *Pool) { p.Check.Interval = Duration(49 * time.Millisecond) }},
		{"check.interval", func(p *Pool) { p.Check.Interval = Duration(61 * time.Minute) }},
		{"check.timeout", func(p *Pool) { p.Check.Timeout = seconds(1) }},
		{"check.timeout", func(p *Pool) { p.Check.Timeout = -1 }},
		{"check.min_span", func(p *Pool) { p.Check.MinSpan = -1 }},
		{"check.max_false", func(p *Pool) { p.Check.MaxFalse = rate(61, time.Hour) }},
		{"check.max_false", func(p *Pool) { p.Check.Fall, p.Check.MaxFalse = 3, rate(1, Year) }},
		{"check.fall", func(p *Pool) { p.Check.Rise = 3 }},
		{"check.fall", func(p *Pool) { p.Check.Fall = 1001 }},
		{"check.query", func(p *Pool) { p.Check = Check{Type: CheckDNS} }},
		{"check.query", func(p *Pool) { p.Check = Check{Type: CheckDNS, Query: "a b"} }},
		{"check.command", func(p *Pool) { p.Check = Check{Type: CheckExec} }},
		{"check.command[1]", func(p *Pool) { p.Check = Check{Type: CheckExec, Command: []string{"a", "b\x00"}} }},
		{"check.key_file", func(p *Pool) { p.Check = Check{Type: CheckHeartbeat} }},
		{"check.method", func(p *Pool) { p.Check = Check{Type: CheckHTTP, Method: "GET /"} }},
		{"check.path", func(p *Pool) { p.Check = Check{Type: CheckHTTP, Path: "/a\r\nHost: b"} }},
		{"check.host", func(p *Pool) { p.Check = Check{Type: CheckHTTP, Host: "a\r\nb"} }},
		{"check.header.X", func(p *Pool) { p.Check = Check{Type: CheckHTTP, Header: map[string]string{"X": "a\nb"}} }},
		{"check.body", func(p *Pool) { p.Check = Check{Type: CheckHTTP, Body: "("} }},
		{"check.max_body", func(p *Pool) { p.Check = Check{Type: CheckHTTP, MaxBody: MaxBody + 1} }},
		{"check.redirects", func(p *Pool) { p.Check = Check{Type: CheckHTTP, Redirects: 11} }},
		{"check.ca_file", func(p *Pool) { p.Check = Check{Type: CheckHTTPS, CAFile: "x", TLSVerify: new(bool)} }},
		{"policy.fail_open", func(p *Pool) { p.Policy.FailOpen = "wide" }},
		{"policy.fixed", func(p *Pool) { p.Policy.FailOpen = FailOpenFixed }},
		{"policy.fixed", func(p *Pool) { p.Policy.Fixed = []netip.Addr{addr("192.0.2.9")} }},
		{"policy.fixed[1]", func(p *Pool) {
			p.Policy.FailOpen, p.Policy.Fixed = FailOpenFixed, []netip.Addr{addr("192.0.2.9"), addr("192.0.2.9")}
		}},
		{"policy.anchors[0]", func(p *Pool) { p.Policy.Anchors = []netip.Addr{addr("224.0.0.1")} }},
		{"policy.anchors", func(p *Pool) { p.Policy.Anchors = make([]netip.Addr, MaxAnchors+1) }},
		{"policy.healthy_fraction", func(p *Pool) { p.Policy.HealthyFraction = 1.01 }},
		{"policy.healthy_fraction", func(p *Pool) { p.Policy.HealthyFraction = math.NaN() }},
		{"policy.mass_failure", func(p *Pool) { p.Policy.MassFailure = -0.1 }},
		{"policy.add_window", func(p *Pool) { window := Duration(2 * time.Hour); p.Policy.AddWindow = &window }},
		{"policy.probation", func(p *Pool) { p.Policy.Probation = -1 }},
		{"policy.probation_max", func(p *Pool) { p.Policy.ProbationMax = seconds(1) }},
	} {
		p := goodPool()
		one.change(&p)
		if got := fieldsOf(p.Validate()); !slices.Equal(slices.Compact(got), []string{one.field}) {
			t.Errorf("fields %v, want %s: %v", got, one.field, p.Validate())
		}
	}
}

func TestZoneRules(t *testing.T) {
	if broken := goodZone().Validate(); len(broken) > 0 {
		t.Fatal(broken)
	}
	for _, one := range []struct {
		field  string
		change func(z *Zone)
	}{
		{"name", func(z *Zone) { z.Name = "" }},
		{"name", func(z *Zone) { z.Name = "A.test" }},
		{"name", func(z *Zone) { z.Name = "a.test." }},
		{"name", func(z *Zone) { z.Name = "a.test\"\n$INCLUDE /etc/shadow" }},
		{"publishers", func(z *Zone) { z.Publishers = nil }},
		{"publishers", func(z *Zone) { z.Publishers = append(z.Publishers, z.Publishers[0]) }},
		{"publishers", func(z *Zone) { z.Publishers = make([]Publisher, MaxPublishers+1) }},
		{"publishers[0].type", func(z *Zone) { z.Publishers[0].Type = "pigeon" }},
		{"publishers[0].key", func(z *Zone) { z.Publishers[0].Key = "k" }},
		{"publishers[0].secondaries[0]", func(z *Zone) { z.Publishers[0].Secondaries = []string{"192.0.2.1"} }},
		{"publishers[0].secondaries[0]", func(z *Zone) { z.Publishers[0].Secondaries = []string{"192.0.2.1:0"} }},
		{"publishers[0].tsig", func(z *Zone) { z.Publishers[0].TSIG = "a\"b" }},
		{"publishers[0].include_dir", func(z *Zone) { z.Publishers[0] = Publisher{Type: PublishBind} }},
		{"publishers[0].include_dir", func(z *Zone) { z.Publishers[0] = Publisher{Type: PublishBind, IncludeDir: "a\nb"} }},
		{"publishers[0].server", func(z *Zone) { z.Publishers[0] = Publisher{Type: PublishUpdate, Key: "k"} }},
		{"publishers[0].key", func(z *Zone) { z.Publishers[0] = Publisher{Type: PublishUpdate, Server: "192.0.2.1:53"} }},
		{"servers", func(z *Zone) { z.Servers = make([]string, MaxServers+1) }},
		{"servers[0]", func(z *Zone) { z.Servers = []string{"192.0.2.1:99999"} }},
		{"servers[1]", func(z *Zone) { z.Servers = []string{"192.0.2.1:53", "192.0.2.1:53"} }},
		{"records[0].name", func(z *Zone) { z.Records = []Record{{Name: "a b", Type: "A", Value: "192.0.2.1"}} }},
		{"records[0].type", func(z *Zone) { z.Records = []Record{{Name: "a", Type: "HINFO", Value: "x"}} }},
		{"records[0].value", func(z *Zone) { z.Records = []Record{{Name: "a", Type: "TXT", Value: "x\n$INCLUDE /etc/shadow"}} }},
		{"records[0].value", func(z *Zone) { z.Records = []Record{{Name: "a", Type: "TXT"}} }},
		{"records[0].ttl", func(z *Zone) { z.Records = []Record{{Name: "a", Type: "TXT", Value: "x", TTL: -1}} }},
		{"records[1]", func(z *Zone) {
			z.Records = []Record{{Name: "a", Type: "A", Value: "192.0.2.1"}, {Name: "a", Type: "A", Value: "192.0.2.1", TTL: Duration(time.Minute)}}
		}},
		{"ttl", func(z *Zone) { z.TTL = Duration(366 * Day) }},
		{"soa.mname", func(z *Zone) { z.SOA.MName = "a b" }},
		{"soa.rname", func(z *Zone) { z.SOA.RName = "a@b.test" }},
		{"soa.minimum", func(z *Zone) { z.SOA.Minimum = 1 }},
	} {
		z := goodZone()
		one.change(&z)
		if got := fieldsOf(z.Validate()); !slices.Equal(slices.Compact(got), []string{one.field}) {
			t.Errorf("fields %v, want %s: %v", got, one.field, z.Validate())
		}
	}
}

func TestRulesBetween(t *testing.T) {
	zone := goodZone()
	other := zone
	other.Name = "b.test"
	withRecord := zone
	withRecord.Records = []Record{{Name: "@", Type: "A", Value: "192.0.2.7"}}
	second := goodPool()
	second.Name, second.Records = "mail", []string{"@"}
	looping := goodPool()
	looping.Members[0].CheckAddress = "www.b.test"
	sub := zone
	sub.Name = "sub." + zone.Name
	below := goodPool()
	below.Records = []string{"@", "www.sub"}
	inSub := goodPool()
	inSub.Name, inSub.Zones, inSub.Records = "sub", []string{sub.Name}, []string{"@", "*"}
	for name, one := range map[string]struct {
		objects []Object
		field   string
	}{
		"in another's zone":     {[]Object{zone, sub, below}, "records[1]"},
		"in the inner zone":     {[]Object{zone, sub, goodPool(), inSub}, ""},
		"all is well":           {[]Object{goodPool(), zone}, ""},
		"no zone":               {[]Object{goodPool(), other}, "zones[0]"},
		"two pools at one name": {[]Object{zone, goodPool(), second}, "records[0]"},
		"a record in the way":   {[]Object{withRecord, goodPool()}, "records[0]"},
		"a loop of zones":       {[]Object{zone, other, looping}, "members[0].check_address"},
	} {
		found := CheckAll(one.objects)
		if one.field == "" && len(found) > 0 || one.field != "" && (len(found) != 1 || found[0].Field != one.field) {
			t.Errorf("%s: %v, want %q", name, found, one.field)
		}
	}
}

// A publisher that an agent carries out leaves to the server's policy what runs
// and is asked there.
func TestAgentPublisher(t *testing.T) {
	good := Publisher{Type: PublishBind, Agent: "dns1", IncludeDir: "/etc/bind/upkeep", ZoneFile: "/etc/bind/db.a.test"}
	zone := func(publishers ...Publisher) Zone { return Zone{Name: "a.test", Publishers: publishers} }
	with := func(change func(*Publisher)) Publisher {
		p := good
		change(&p)
		return p
	}
	inside := with(func(p *Publisher) { p.View, p.IncludeDir = "inside", "/etc/bind/inside" })
	for field, one := range map[string]Zone{
		"":                          zone(good, inside),
		"publishers[0].rndc":        zone(with(func(p *Publisher) { p.RNDC = []string{"/usr/sbin/rndc"} })),
		"publishers[0].checkzone":   zone(with(func(p *Publisher) { p.Checkzone = []string{"true"} })),
		"publishers[0].chroot":      zone(with(func(p *Publisher) { p.Chroot = "/chroot" })),
		"publishers[0].server":      zone(with(func(p *Publisher) { p.Server = "192.0.2.53:53" })),
		"publishers[0].agent":       zone(with(func(p *Publisher) { p.Agent = "Dns 1" })),
		"publishers[0].zone_file":   zone(with(func(p *Publisher) { p.ZoneFile = "db.a.test" })),
		"publishers[0].include_dir": zone(with(func(p *Publisher) { p.IncludeDir = "/etc/bind/../cron.d" })),
		"publishers[1].agent":       zone(good, with(func(p *Publisher) { p.IncludeDir = "/elsewhere" })),
	} {
		found := one.Validate()
		if field == "" && len(found) > 0 || field != "" && (len(found) != 1 || found[0].Field != field) {
			t.Errorf("%s: %v", field, found)
		}
	}
	update := zone(Publisher{Type: PublishUpdate, Server: "192.0.2.53:53", Key: "/key", Agent: "dns1"})
	if found := update.Validate(); len(found) != 1 || found[0].Field != "publishers[0].agent" {
		t.Errorf("an update through an agent: %v", found)
	}

	here := with(func(p *Publisher) { p.Agent = "" })
	other := Zone{Name: "b.test", Publishers: []Publisher{here}, TTL: Duration(time.Hour)}
	for name, one := range map[string]struct {
		objects []Object
		field   string
	}{
		"all is well":                  {[]Object{zone(good), Server{Name: "dns1", Roles: []string{RoleWeb, RoleDNS}}}, ""},
		"no server":                    {[]Object{zone(good)}, "publishers[0].agent"},
		"a server without the role":    {[]Object{Server{Name: "dns1", Roles: []string{RoleWeb}}, zone(good)}, "publishers[0].agent"},
		"the same folder, elsewhere":   {[]Object{Server{Name: "dns1", Roles: []string{RoleDNS}}, zone(good), other}, ""},
		"the same folder, by two here": {[]Object{Server{Name: "dns1", Roles: []string{RoleDNS}}, zone(good, with(func(p *Publisher) { p.View = "v" }))}, "publishers[1].include_dir"},
	} {
		found := CheckAll(one.objects)
		if one.field == "" && len(found) > 0 || one.field != "" && (len(found) != 1 || found[0].Field != one.field) {
			t.Errorf("%s: %v, want %q", name, found, one.field)
		}
	}
}

// What is left out is filled in such that the whole obeys the rules, whatever
// the type of check.
func TestDefaultsObeyTheRules(t *testing.T) {
	for _, kind := range CheckTypes {
		p := goodPool()
		p.Check = map[string]Check{
			CheckPing: {}, CheckTCP: {Port: 80}, CheckHTTP: {}, CheckHTTPS: {}, CheckDNS: {Query: "a.test"}, CheckExec: {Command: []string{"true"}},
			CheckHeartbeat: {KeyFile: "key"},
		}[kind]
		p.Check.Type = kind
		for _, fall := range []int{0, 3} {
			p.Check.Fall = fall
			if broken := p.WithDefaults().Validate(); len(broken) > 0 {
				t.Errorf("%s with fall %d: %v", kind, fall, broken)
			}
		}
	}
	if broken := goodZone().WithDefaults().Validate(); len(broken) > 0 {
		t.Error(broken)
	}
}

// A valid name needs no quoting in a zone file, and is one that DNS can carry.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{"@", "*", "*.eu", "a.test", "_dmarc", "-a", "a.", "a\\.b", "xn--bcher-kva", strings.Repeat("a.", 127) + "a", "é", "a\x00"} {
		f.Add(seed)
	}
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	f.Fuzz(func(t *testing.T, s string) {
		name := ValidName(s)
		if name && (strings.Trim(s, safe) != "" || len(s) > 253 || strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") || strings.Contains(s, "..")) {
			t.Errorf("%q is a valid name", s)
		}
		if owner := ValidOwner(s); owner && !name && s != "@" && s != "*" && !(strings.HasPrefix(s, "*.") && ValidName(s[2:])) {
			t.Errorf("%q is a valid owner", s)
		} else if owner && !Within(Absolute(s, "a.test"), "A.test") {
			t.Errorf("%q is not within its zone", s)
		}
	})
}

func TestDurationsAndRatesReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64().Draw(t, "duration"))
		text, _ := d.MarshalText()
		var got Duration
		if err := got.UnmarshalText(text); err != nil || got != d {
			t.Errorf("%s is read as %s, %v", text, got, err)
		}
		r := Rate{Count: rapid.IntRange(1, 1e6).Draw(t, "count"), Per: time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "per"))}
		text, _ = r.MarshalText()
		var rate Rate
		if err := rate.UnmarshalText(text); err != nil || rate != r {
			t.Errorf("%s is read as %s, %v", text, rate, err)
		}
	})
	for _, bad := range []string{"", "5", "s", "1x", "d", "-1d", "1e400d", "NaNd", "Infy", "300y", "1d12h", "0x10d", "1_0d"} {
		if d, err := ParseDuration(bad); err == nil {
			t.Errorf("%q is read as %s", bad, d)
		}
	}
	for _, bad := range []string{"", "1", "/", "0/1y", "-1/1y", "1/0s", "1/-1s", "1.5/1y", "1/1y/1y", "1/year"} {
		var rate Rate
		if err := rate.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is read as %s", bad, rate)
		}
	}
}

// A field is named by whoever wrote the document: it must not look like a message
// of upkeep's own.
func TestFieldErrorIsOneLine(t *testing.T) {
	e := FieldError{Object: "pool/a\nb", Field: "x\nerror: all is lost", Rule: "is not known"}
	if got := e.Error(); strings.ContainsAny(got, "\n") || !strings.Contains(got, `"x\nerror: all is lost"`) {
		t.Errorf("said %q", got)
	}
}
