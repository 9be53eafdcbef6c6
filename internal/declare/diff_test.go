package declare

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upkeep"
)

func TestDiff(t *testing.T) {
	old := upkeep.Pool{Name: "web", Zones: []string{"a.test"}, Records: []string{"www"}, Members: []upkeep.Member{{Address: addr("192.0.2.1")}}}
	old.Check.Type = "ping"
	changed := old
	changed.TTL = upkeep.Duration(time.Minute)
	changed.Members = []upkeep.Member{{Address: addr("192.0.2.1")}, {Address: addr("192.0.2.2")}}
	want := `diff pool/web pool/web
--- pool/web
+++ pool/web
@@ -2,6 +2,7 @@
 name: web
 zones: [a.test]
 records: [www]
-members: [192.0.2.1]
+ttl: 1m
+members: [192.0.2.1, 192.0.2.2]
 check:
   type: ping
`
	if diff := cmp.Diff(want, Diff(old, changed)); diff != "" {
		t.Error(diff)
	}
	if got := Diff(old, old); got != "" {
		t.Errorf("no difference is %q", got)
	}
	if got := Diff(nil, old); !strings.Contains(got, "--- /dev/null") || !strings.Contains(got, "+name: web") {
		t.Errorf("created: %s", got)
	}
	if got := Diff(old, nil); !strings.Contains(got, "+++ /dev/null") || !strings.Contains(got, "-name: web") {
		t.Errorf("deleted: %s", got)
	}
}

func TestResolvePaths(t *testing.T) {
	pool := upkeep.Pool{Name: "web", Check: upkeep.Check{CAFile: "ca.pem", KeyFile: "/etc/key", Command: []string{"./check", "-f", "dir/file"}}}
	zone := upkeep.Zone{Name: "a.test", Publishers: []upkeep.Publisher{
		{TSIG: "../key", RNDC: []string{"rndc", "-c", "rndc.conf"}},
		{ZoneFile: "db", IncludeDir: "inc/", Checkzone: []string{"bin/checkzone"}},
	}}
	gotPool := ResolvePaths(pool, "/etc/upkeep").(upkeep.Pool)
	gotZone := ResolvePaths(zone, "/etc/upkeep").(upkeep.Zone)
	wantPool := upkeep.Pool{Name: "web", Check: upkeep.Check{
		CAFile: "/etc/upkeep/ca.pem", KeyFile: "/etc/key", Command: []string{"/etc/upkeep/check", "-f", "dir/file"}}}
	wantZone := upkeep.Zone{Name: "a.test", Publishers: []upkeep.Publisher{
		{TSIG: "/etc/key", RNDC: []string{"rndc", "-c", "rndc.conf"}},
		{ZoneFile: "/etc/upkeep/db", IncludeDir: "/etc/upkeep/inc", Checkzone: []string{"/etc/upkeep/bin/checkzone"}},
	}}
	if diff := cmp.Diff(wantPool, gotPool, comparable); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(wantZone, gotZone, comparable); diff != "" {
		t.Error(diff)
	}
	// What was given is left as it was.
	if pool.Check.Command[0] != "./check" || zone.Publishers[0].TSIG != "../key" || zone.Publishers[1].Checkzone[0] != "bin/checkzone" {
		t.Errorf("changed what was given: %+v %+v", pool, zone)
	}
}

func TestDiffHidesHashes(t *testing.T) {
	const hash = "$2y$05$Ud.N4/E1iXzGrcVFq9r0gux1iOuiN/Dm8UT7rCD3/x0B0DGOh0cfq"
	site := func(hash string) upkeep.Site {
		return upkeep.Site{Name: "a.test", Account: "acme", Servers: []string{"web1"},
			Protect: []upkeep.Protection{{Path: "/", Users: map[string]string{"ann": hash}}}}
	}
	got := Diff(site(hash), site(strings.Replace(hash, "Ud", "Ue", 1)))
	if strings.Contains(got, "$2y$") || strings.Count(got, "(hidden hash ") != 2 {
		t.Errorf("got %s", got)
	}
}

func TestDiffHidesEnvironment(t *testing.T) {
	site := func(value string) upkeep.Site {
		return upkeep.Site{Name: "example.test", Account: "acme", Servers: []string{"web1"}, Environment: map[string]string{"DB_PASSWORD": value, "MODE": "live"}}
	}
	old := site("open sesame")
	got := Diff(old, site("sesame close"))
	if strings.Contains(got, "sesame") || !strings.Contains(got, "-  DB_PASSWORD: \""+upkeep.HiddenHash("open sesame")) || !strings.Contains(got, "+  DB_PASSWORD: \""+upkeep.HiddenHash("sesame close")) {
		t.Errorf("got %s", got)
	}
	if old.Environment["DB_PASSWORD"] != "open sesame" {
		t.Error("the object itself was changed")
	}
}
