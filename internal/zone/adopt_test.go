package zone

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// articleZone is a typical file with round robin, in the form that people write.
const articleZone = `$TTL 6400       ; max TTL
@       IN      SOA ns1.example.test. hostmaster.example.test. (
                                201305140       ; Serial
                                28800           ; Refresh
                                7200            ; Retry
                                604800          ; Expire
                                600 )           ; TTL Minimum
@               IN      A       192.0.2.1 ; rack 4
@               IN      A       192.0.2.2
@               IN      A       192.0.2.3
*               IN      A       192.0.2.1
*               IN      A       192.0.2.2
*               IN      A       192.0.2.3
ns1             IN      A       192.0.2.53
ns2             IN      A       192.0.2.54
@               IN      NS      ns1
@               IN      NS      ns2
www             IN      CNAME   @
`

const articleAdopted = `$INCLUDE "{dir}/soa.include"
$TTL 6400       ; max TTL
$INCLUDE "{dir}/ips.include"
; 192.0.2.1: rack 4
ns1             IN      A       192.0.2.53
ns2             IN      A       192.0.2.54
@               IN      NS      ns1
@               IN      NS      ns2
www             IN      CNAME   @
`

func adoptPool(records ...string) upkeep.Pool {
	return upkeep.Pool{
		Name: "web", Zones: []string{"example.test"}, Records: records,
		Members: []upkeep.Member{{Address: addrs("192.0.2.1")[0]}, {Address: addrs("192.0.2.2")[0]}, {Address: addrs("192.0.2.3")[0]}, {Address: addrs("2001:db8::1")[0]}},
		Check:   upkeep.Check{Type: upkeep.CheckPing},
	}
}

// adoptOptions writes the text as a zone file into a fresh directory.
func adoptOptions(t *testing.T, text string, pool upkeep.Pool) AdoptOptions {
	t.Helper()
	testkit.Need(t, "named-checkzone")
	dir := t.TempDir()
	file := filepath.Join(dir, "db.example.test")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "{dir}", dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	return AdoptOptions{
		Zone: upkeep.Zone{Name: "example.test"}, Pool: pool,
		// Port 1: no server is asked by accident.
		Publisher: upkeep.Publisher{Type: upkeep.PublishBind, ZoneFile: file, IncludeDir: dir, Server: "127.0.0.1:1"},
		Now:       func() time.Time { return time.Unix(1800000000, 0) },
	}
}

func TestAdoptArticle(t *testing.T) {
	o := adoptOptions(t, articleZone, adoptPool("@", "*"))
	plan, err := Adopt(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(articleAdopted, "{dir}", o.Publisher.IncludeDir); string(plan.New) != want {
		t.Errorf("the new file is\n%s\nwant\n%s", plan.New, want)
	}
	for _, line := range []string{"-@               IN      A       192.0.2.2\n", "+$INCLUDE ", " @               IN      NS      ns1\n"} {
		if !strings.Contains(plan.Diff, line) {
			t.Errorf("the diff has no line %q:\n%s", line, plan.Diff)
		}
	}
	want := upkeep.SOA{MName: "ns1.example.test", RName: "hostmaster.example.test", Refresh: upkeep.Duration(8 * time.Hour),
		Retry: upkeep.Duration(2 * time.Hour), Expire: upkeep.Duration(7 * upkeep.Day), Minimum: upkeep.Duration(10 * time.Minute)}
	if plan.Declared.SOA != want || plan.Declared.TTL != upkeep.Duration(6400*time.Second) {
		t.Errorf("declared %+v, TTL %s", plan.Declared.SOA, plan.Declared.TTL)
	}
	before, err := os.ReadFile(o.Publisher.ZoneFile)
	if err != nil {
		t.Fatal(err)
	}
	backup, err := plan.Apply(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(backup); err != nil || !bytes.Equal(kept, before) {
		t.Errorf("the backup is\n%s\n%v", kept, err)
	}
	disk, err := readPair(o.Publisher.IncludeDir)
	if err != nil || !disk.whole() {
		t.Fatalf("the include files are not whole: %v", err)
	}
	if serial, _, _ := disk.soa.soa(); serial != 1800000000 {
		t.Errorf("serial %d", serial)
	}
	// A second time there is nothing left to adopt, and nothing changes.
	if _, err := Adopt(t.Context(), o); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "already") {
		t.Errorf("adopting again: %v", err)
	}
	if _, err := plan.Apply(t.Context()); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("applying again: %v", err)
	}
}

// Each of these zones is adopted, and named reads the same records as before
// (Adopt itself compares them).
func TestAdopt(t *testing.T) {
	const head = "$TTL 300\n@ IN SOA ns1 hostmaster 7 300 60 86400 60\n"
	for name, c := range map[string]struct {
		text    string
		records []string
		want    string // the new text; "" for whatever it is
	}{
		"blank owner after an address": {
			text: head + "@ IN A 192.0.2.1\n\tIN A 192.0.2.2\n\tIN NS ns1 ; ours\n\tIN MX 10 mail\nns1 IN A 192.0.2.53\nmail IN A 192.0.2.25\n",
			want: "$INCLUDE \"{dir}/soa.include\"\n$TTL 300\n$INCLUDE \"{dir}/ips.include\"\n@\tIN NS ns1 ; ours\n\tIN MX 10 mail\nns1 IN A 192.0.2.53\nmail IN A 192.0.2.25\n",
		},
		"blank owner right after the SOA": {
			text: head + "  NS ns1\n  A 192.0.2.1\n  TXT \"a ; b ( c\" ; d\nns1 A 192.0.2.53\n",
			want: "$INCLUDE \"{dir}/soa.include\"\n$TTL 300\n$INCLUDE \"{dir}/ips.include\"\n@  NS ns1\n  TXT \"a ; b ( c\" ; d\nns1 A 192.0.2.53\n",
		},
		"addresses between records of another owner": {
			text: head + "@ NS ns1\nns1 A 192.0.2.53\nwww A 192.0.2.1\n TXT \"kept\"\n AAAA 2001:db8::1\n MX 0 .\n", records: []string{"@", "www"},
			want: "$INCLUDE \"{dir}/soa.include\"\n$TTL 300\n$INCLUDE \"{dir}/ips.include\"\n@ NS ns1\nns1 A 192.0.2.53\nwww TXT \"kept\"\n MX 0 .\n",
		},
		"origins": {
			text: "$ORIGIN test.\n$TTL 300\nexample IN SOA ns1.example hostmaster.example 7 300 60 86400 60\n  NS ns1.example\n  A 192.0.2.1\n$ORIGIN example.test.\nns1 A 192.0.2.53\n* A 192.0.2.2\n$ORIGIN sub.example.test.\n TXT \"of the wildcard\"\nwww A 192.0.2.1\n",
		},
		"no $TTL":                    {text: "@ IN SOA ns1 hostmaster 7 300 60 86400 77\n@ NS ns1\nns1 A 192.0.2.53\n@ A 192.0.2.1\n"},
		"no $TTL, SOA with its own":  {text: "@ 99 IN SOA ns1 hostmaster 7 300 60 86400 77\n@ NS ns1\nns1 A 192.0.2.53\n@ A 192.0.2.1\n"},
		"$TTL changes later":         {text: head + "@ NS ns1\n$TTL 1d\nns1 A 192.0.2.53\n@ A 192.0.2.1\nx A 192.0.2.77\n"},
		"parentheses and classes":    {text: head + "@ ( IN\n NS ns1 )\nns1 300 IN A 192.0.2.53\n@ IN 1h A ( 192.0.2.1 ) ; first\nEXAMPLE.TEST. 2h IN A 192.0.2.2\n*.Example.TEST. a 192.0.2.3\n"},
		"an address at several TTLs": {text: head + "@ NS ns1\nns1 A 192.0.2.53\n@ 30 A 192.0.2.1\n@ 30 A 192.0.2.2\n"},
		"CRLF":                       {text: strings.ReplaceAll(head+"@ NS ns1\nns1 A 192.0.2.53\n@ A 192.0.2.1\n", "\n", "\r\n")},
		"no last line break":         {text: head + "@ NS ns1\nns1 A 192.0.2.53\n@ A 192.0.2.1"},
		"$GENERATE elsewhere":        {text: head + "@ NS ns1\nns1 A 192.0.2.53\n@ A 192.0.2.1\n$GENERATE 1-5 host$ A 192.0.2.$\n"},
		"no address yet":             {text: head + "@ NS ns1\nns1 A 192.0.2.53\n"},
		"comments all over": {
			text: "; head\n\n" + head + "; before\n@ NS ns1\n; between\n@ A 192.0.2.1 ; one\n;; after\nns1 A 192.0.2.53\n; end",
			want: "; head\n\n$INCLUDE \"{dir}/soa.include\"\n$TTL 300\n$INCLUDE \"{dir}/ips.include\"\n; before\n@ NS ns1\n; between\n; 192.0.2.1: one\n;; after\nns1 A 192.0.2.53\n; end",
		},
		"quotes and escapes": {text: head + "@ NS ns1\nns1 A 192.0.2.53\n@ A 192.0.2.1\na\\;b TXT \"x\\\"y\" \"; no comment\"\nfirst\\.last RP . .\n"},
		"the SOA spread out": {text: "$TTL 300\n@ IN SOA (\n ns1 ; primary\n hostmaster ; mailbox\n 7 300 60\n 86400 60 ; done\n)\n@ NS ns1\nns1 A 192.0.2.53\n@ A 192.0.2.1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.records == nil {
				c.records = []string{"@", "*"}
			}
			o := adoptOptions(t, c.text, adoptPool(c.records...))
			plan, err := Adopt(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.ReplaceAll(c.want, "{dir}", o.Publisher.IncludeDir); want != "" && string(plan.New) != want {
				t.Errorf("the new file is\n%s\nwant\n%s", plan.New, want)
			}
			for line := range strings.Lines(string(plan.New)) {
				if strings.Contains(c.text, "\r\n") != strings.HasSuffix(line, "\r\n") {
					t.Errorf("line %q ends otherwise than the file's", line)
				}
			}
		})
	}
}

func TestAdoptRefuses(t *testing.T) {
	const head = "$TTL 300\n@ IN SOA ns1 hostmaster 7 300 60 86400 60\n@ NS ns1\nns1 A 192.0.2.53\n"
	for name, c := range map[string]struct {
		text    string
		records []string
		also    map[string]string // further files by name
		want    []string
	}{
		"an address that is no member": {text: head + "@ A 192.0.2.1\n@ A 203.0.113.7\n", want: []string{"not members of pool web: example.test A 203.0.113.7", "add them to the pool"}},
		"an alias":                     {text: head + "www CNAME @\n@ A 192.0.2.1\n", records: []string{"@", "www"}, want: []string{"www.example.test is an alias", "delete the alias"}},
		"$GENERATE at the owner":       {text: head + "$GENERATE 1-3 @ A 192.0.2.$\n", want: []string{"comes from elsewhere", "$GENERATE"}},
		"an address in another file":   {text: head + "$INCLUDE \"{dir}/more\"\n", also: map[string]string{"more": "@ A 192.0.2.1\n"}, want: []string{"comes from elsewhere"}},
		"the SOA in another file":      {text: "$TTL 300\n$INCLUDE \"{dir}/more\"\n@ NS ns1\nns1 A 192.0.2.53\n", also: map[string]string{"more": "@ SOA ns1 hostmaster 7 300 60 86400 60\n"}, want: []string{"no SOA record in this file"}},
		"a journal":                    {text: head, also: map[string]string{"db.example.test.jnl": "x"}, want: []string{"named writes this file itself", "rndc sync"}},
		"signed": {
			text: head + "@ RRSIG SOA 8 2 300 20300101000000 20200101000000 1 example.test. AAAA\n", want: []string{"the zone file is signed"},
		},
		"not valid before":     {text: head + "x A 300.1.2.3\n", want: []string{"bad dotted quad", "fix the zone file first", "db.example.test:5"}},
		"raw format":           {text: "\x00\x00\x00\x02" + head, want: []string{"raw or map format"}},
		"RFC 1035 TTLs":        {text: "@ 99 IN SOA ns1 hostmaster 7 300 60 86400 60\n@ 55 NS ns1\nns1 A 192.0.2.53\n@ A 192.0.2.1\n", want: []string{"would change other records", "$TTL line"}},
		"a mailbox with a dot": {text: strings.Replace(head, "hostmaster", `first\.last`, 1), want: []string{"rname", "declare another soa.rname"}},
		"another zone":         {text: strings.Replace(head, "@ IN SOA", "example.org. IN SOA", 1), want: []string{"fix the zone file first"}},
		"a parenthesis open":   {text: head + "@ TXT ( \"a\"\n", want: []string{"not closed"}},
		"the include files of later serial": {
			text: strings.Replace(head, " 7 300", " 1799999999 300", 1), also: map[string]string{"use": "shared"}, want: []string{"which is later", "include_dir of its own"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.records == nil {
				c.records = []string{"@", "*"}
			}
			o := adoptOptions(t, c.text, adoptPool(c.records...))
			for file, text := range c.also {
				if file == "use" {
					shareIncludes(t, o.Publisher.IncludeDir, 1700000000)
					continue
				}
				if err := os.WriteFile(filepath.Join(o.Publisher.IncludeDir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Adopt(t.Context(), o)
			demandError(t, err, c.want...)
		})
	}
}

// shareIncludes writes include files as another zone has them in use.
func shareIncludes(t *testing.T, dir string, serial uint32) {
	t.Helper()
	c, err := Content{Zone: upkeep.Zone{Name: "other.test"}.WithDefaults(), Sets: poolSets("192.0.2.2")}.Normal()
	if err != nil {
		t.Fatal(err)
	}
	disk, err := readPair(dir)
	if err != nil {
		t.Fatal(err)
	}
	ips := renderIPs(c)
	if err := disk.replace(ips, renderSOA(c.Zone, soaSpellings(c.Zone)[3], serial, ips), time.Now()); err != nil {
		t.Fatal(err)
	}
}

// Files that other zones use already are left as they are.
func TestAdoptIntoSharedIncludes(t *testing.T) {
	o := adoptOptions(t, articleZone, adoptPool("@", "*"))
	shareIncludes(t, o.Publisher.IncludeDir, 1700000000)
	before, err := readPair(o.Publisher.IncludeDir)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Adopt(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(plan.Notes, func(n string) bool { return strings.Contains(n, "are in use already") }) {
		t.Errorf("notes: %q", plan.Notes)
	}
	if _, err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := readPair(o.Publisher.IncludeDir); err != nil || !after.sameText(before.ips.text, before.soa.text) {
		t.Errorf("the include files have changed: %v", err)
	}
}

// A zone that runs already would have its declared SOA and TTL at once.
func TestAdoptOfADeclaredZone(t *testing.T) {
	o := adoptOptions(t, articleZone, adoptPool("@", "*"))
	o.Zone.Publishers = []upkeep.Publisher{{Type: upkeep.PublishBind, ZoneFile: o.Publisher.ZoneFile, IncludeDir: o.Publisher.IncludeDir}}
	o.Live = true
	_, err := Adopt(t.Context(), o)
	if !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("the kind of %v", err)
	}
	demandError(t, err, "declared already", "soa.refresh would become 5m instead of 8h", "ttl would become 1h instead of",
		"soa: {refresh: 8h, retry: 2h, expire: 168h, minimum: 10m} and ttl: 1h46m40s first")
	day := func(hours int) upkeep.Duration { return upkeep.Duration(time.Duration(hours) * time.Hour) }
	o.Zone.SOA = upkeep.SOA{Refresh: day(8), Retry: day(2), Expire: day(7 * 24), Minimum: upkeep.Duration(5 * time.Minute)}
	o.Zone.TTL = upkeep.Duration(6400 * time.Second)
	plan, err := Adopt(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"soa.minimum is 10m in the zone file and 5m as declared", "addresses of example.test have a TTL of 1h46m40s in the zone file and of 1m in pool web"} {
		if !slices.Contains(plan.Notes, want) {
			t.Errorf("no note %q in %q", want, plan.Notes)
		}
	}
}

// A dynamic zone is told by named itself.
func TestAdoptDynamic(t *testing.T) {
	n := testkit.StartNamed(t, testkit.NamedConfig{
		Files:  map[string]string{"db": strings.ReplaceAll(articleZone, "201305140", "7")},
		Config: `zone "example.test" { type primary; file "{dir}/db"; update-policy local; };`,
	})
	_, err := Adopt(t.Context(), AdoptOptions{
		Zone: upkeep.Zone{Name: "example.test"}, Pool: adoptPool("@", "*"),
		Publisher: upkeep.Publisher{ZoneFile: n.Path("db"), IncludeDir: n.Dir, RNDC: n.RNDC, Server: n.Addr},
	})
	demandError(t, err, "is dynamic", "publisher of type update")
}

// The whole way: a running named with an ordinary zone file, adopted, published,
// restarted; owner and mode of the zone file stay, and at no time is there
// another answer than a good one.
func TestAdoptThenPublish(t *testing.T) {
	testkit.NeedRoot(t)
	n := testkit.StartNamed(t, testkit.NamedConfig{
		User: "bind", Chroot: true,
		Files:  map[string]string{"etc/bind/db": articleZone, "var/bind/.keep": ""},
		Config: `zone "example.test" { type primary; file "/etc/bind/db"; };`,
	})
	if err := os.Chmod(n.Path("etc/bind/db"), 0o640); err != nil {
		t.Fatal(err)
	}
	p := upkeep.Publisher{Type: upkeep.PublishBind, ZoneFile: "/etc/bind/db", IncludeDir: "/var/bind", Chroot: n.Dir, RNDC: n.RNDC, Server: n.Addr}
	plan, err := Adopt(t.Context(), AdoptOptions{Zone: upkeep.Zone{Name: "example.test", Servers: []string{n.Addr}}, Pool: adoptPool("@", "*"), Publisher: p})
	if err != nil {
		t.Fatal(err)
	}
	before := statOf(t, n.Path("etc/bind/db"))
	if _, err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := statOf(t, n.Path("etc/bind/db")); after != before {
		t.Errorf("owner and mode are %s, were %s", after, before)
	}
	// Even without a publish the zone loads, with the answers of before.
	n.Restart(t)
	serial, err := ServedSerial(t.Context(), n.Addr, "example.test")
	if err != nil {
		t.Fatal(err)
	}
	if status := Prove(t.Context(), n.Addr, "example.test", serial, poolSets("192.0.2.1", "192.0.2.2", "192.0.2.3")); !status.InSync {
		t.Errorf("after the restart: %s", status.Error)
	}
	z := plan.Declared.WithDefaults()
	pub, err := NewBind(BindOptions{}).Publisher(z, z.Publishers[0])
	if err != nil {
		t.Fatal(err)
	}
	next, err := pub.Publish(t.Context(), Content{Zone: z, Sets: poolSets("192.0.2.3")})
	if err != nil {
		t.Fatal(err)
	}
	if status := Prove(t.Context(), n.Addr, "example.test", next, poolSets("192.0.2.3")); !status.InSync {
		t.Errorf("after the publish: %s", status.Error)
	}
}

func statOf(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	uid, gid := ownerOf(info)
	return fmt.Sprintf("%d:%d %s", uid, gid, fs.FileMode(info.Mode()))
}

// TestAdoptRandom adopts zone files put together at random from lines that are
// hard on an editor. Adopt compares the records before and after by itself, so
// every one of them must go through.
func TestAdoptRandom(t *testing.T) {
	lines := []string{
		"@ A 192.0.2.1\n", " A 192.0.2.2\n", "\tAAAA 2001:db8::1 ; six\n", "* IN A 192.0.2.3\n", "www A ( 192.0.2.1 )\n", "WWW 60 IN A 192.0.2.2\n",
		" TXT \"a\"\n", " 90 TXT ( \"b\"\n \"c;\" ; d\n )\n", "mail MX 5 ns1\n", "\n", "; a comment\n", "   ; another\n",
		"$ORIGIN sub.example.test.\n", "$ORIGIN example.test.\n", "$TTL 100\n", "$TTL 2h\n", "*.example.test. A 192.0.2.1\n", "x\\@y TXT \"\\\"\"\n",
	}
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 1))
		text := "$TTL 300\n@ IN SOA ns1 hostmaster 7 300 60 86400 60\n@ NS ns1.example.test.\nns1 A 192.0.2.53\n"
		for range r.IntN(30) {
			text += lines[r.IntN(len(lines))]
		}
		if _, err := Adopt(t.Context(), adoptOptions(t, text, adoptPool("@", "*", "www"))); err != nil {
			t.Errorf("seed %d: %v\n%s", seed, err, text)
		}
	}
}

// FuzzAdopt: whatever the zone file, an edit of it either fails or leaves every
// byte outside the lines that it takes out, and its own output has nothing left
// to move.
func FuzzAdopt(f *testing.F) {
	f.Add([]byte(articleZone))
	f.Add([]byte("$ORIGIN test.\nexample SOA a b (1\n2 3 4 5)\n A 192.0.2.1\n NS x\n$ORIGIN x.test.\n NS y\n"))
	f.Add([]byte("@ SOA a b 1 2 3 4 5\r\n@ A 192.0.2.1 ; x\r\n ; only\r\n TXT \"\\\"\"\r\n"))
	f.Add([]byte("@ SOA a b 1 2 3 4 5"))
	edit := includeEdit{zone: "example.test", owners: poolOwners(adoptPool("@", "*", "www"), "example.test"), ttl: "60", soaPath: "/d/soa.include", ipsPath: "/d/ips.include"}
	f.Fuzz(func(t *testing.T, text []byte) {
		done, err := edit.apply(text)
		if err != nil {
			return
		}
		m, err := cutMaster(done.text)
		if err != nil {
			t.Fatalf("the edited text cannot be read: %v\n%q\nfrom\n%q", err, done.text, text)
		}
		origin := "example.test."
		owner := ""
		for _, e := range m.entries {
			if m.directive(e) == "$ORIGIN" && len(e.words) > 1 {
				origin = absoluteName(m.raw(e.words[1]), origin)
			}
			if len(e.words) == 0 || m.directive(e) != "" {
				continue
			}
			if !e.inherits {
				owner = absoluteName(m.raw(e.words[0]), origin)
			}
			kind, data := m.kind(e)
			if kind == "SOA" || (kind == "A" || kind == "AAAA") && len(data) == 1 && edit.owners[plain(owner)] {
				t.Fatalf("%q was left in\n%q\nfrom\n%q", m.text[e.start:e.end], done.text, text)
			}
		}
		// Every kept byte is the old text's, in the old order.
		rest := text
		for line := range bytes.Lines(done.text) {
			if i := bytes.Index(rest, bytes.TrimRight(line, "\r\n")); i >= 0 {
				rest = rest[i:]
			} else if !bytes.HasPrefix(line, []byte("$")) && !bytes.HasPrefix(line, []byte("; ")) && !endsOldLine(line, text) {
				t.Fatalf("the line %q is new in\n%q\nfrom\n%q", line, done.text, text)
			}
		}
	})
}

// endsOldLine reports whether the line is one of the text with an owner put
// before it.
func endsOldLine(line, text []byte) bool {
	for old := range bytes.Lines(text) {
		if len(old) > 0 && (old[0] == ' ' || old[0] == '\t') && bytes.HasSuffix(bytes.TrimRight(line, "\r\n"), bytes.TrimRight(old, "\r\n")) {
			return true
		}
	}
	return false
}

// Who has lost what the first adoption printed is told it by the second.
func TestAdoptTwice(t *testing.T) {
	o := adoptOptions(t, articleZone, adoptPool("@", "*"))
	plan, err := Adopt(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = Adopt(t.Context(), o)
	demandError(t, err, "it includes ips.include and soa.include already", "soa: {refresh: 8h, retry: 2h, expire: 168h, minimum: 10m} and ttl: 1h46m40s into the zone's document")
	o.Zone = plan.Declared
	_, err = Adopt(t.Context(), o)
	demandError(t, err, "it includes ips.include and soa.include already", "takes the include files over")
	if strings.Contains(fmt.Sprint(err), "soa: {") {
		t.Errorf("it is told what is declared already: %v", err)
	}
}
