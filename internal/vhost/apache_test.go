package vhost

import (
	"bytes"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
)

var update = flag.Bool("update", false, "write the golden files anew")

var testLayout = Layout{
	Include: "/etc/apache2/hosted.d", Pages: "/var/lib/upkeep/web/pages", Auth: "/var/lib/upkeep/web/auth", FPM: "/etc/php/8.2/fpm/pool.d/upkeep",
	Sockets: "/run/upkeep/php", Logs: "/var/log/upkeep/sites", Home: "/home", Listen: "*:80", Group: -1,
	Pipe: []string{"/usr/bin/upkeep", "logs", "--dir=/var/log/upkeep/sites"},
}

const testHash = "$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"

func testInput(site upkeep.Site) Input {
	if site.Name == "" {
		site.Name = "example.test"
	}
	if site.Account == "" {
		site.Account = "acme"
	}
	return Input{Site: site, Generation: 7, UID: 20001, Suspended: site.Suspended, Layout: testLayout}
}

func network(s string) upkeep.Network { return upkeep.Network{Prefix: netip.MustParsePrefix(s)} }

// fullSite has every field.
func fullSite() upkeep.Site {
	return upkeep.Site{
		Aliases: []string{"shop.example.test", "other.test"}, Wildcard: true, Root: "web/public", CGI: true, PHP: &upkeep.PHP{Children: 3, Memory: 64},
		ErrorPages: map[string]string{"404": "/missing.html", "403": "Go away.\n", "500": "<h1>%{file:/etc/passwd} ${HOME}</h1>"},
		Index:      []string{"index.php", "index.html"},
		Deny:       []upkeep.Network{network("192.0.2.0/24"), network("2001:db8::/32")}, Allow: []upkeep.Network{network("198.51.100.7/32")},
		Methods:   []string{"GET", "PUT"},
		Protect:   []upkeep.Protection{{Path: "/private", Realm: "members, only", Users: map[string]string{"bob": testHash, "alice": testHash}}},
		Canonical: "bare", CanonicalStatus: 308,
		Redirects: []upkeep.Redirect{
			{From: "/old", To: "https://other.test/new?a=1&b=%20c"}, {From: "/exact", Exact: true, To: "/to%20there", Status: 301},
			{From: "/gone", Status: 410}, {From: "/gone-exact", Exact: true, Status: 410},
		},
		Headers:     map[string]string{"X-Frame-Options": "DENY", "X-Odd": `50% "off" \n`, "X-Powered-By": ""},
		Environment: map[string]string{"APP_MODE": `say "hi" 100%`, "EMPTY": ""},
	}
}

var goldenSites = map[string]upkeep.Site{
	"minimal":   {},
	"full":      fullSite(),
	"www":       {Canonical: "www"},
	"suspended": {Suspended: true, Canonical: "bare", Wildcard: true},
	"sub":       {Name: "blog.example.test", SubOf: "example.test", WWW: new(bool)},
}

// golden compares all files, in one text.
func golden(t *testing.T, name string, files []File) {
	t.Helper()
	var b bytes.Buffer
	for _, f := range files {
		b.WriteString("== " + f.Path + " " + f.Mode.String() + "\n")
		if mode, group := Rights(f.Path); mode != f.Mode || group != f.Group {
			t.Errorf("by its path, %s would have mode %s and the web server's group %v", f.Path, mode, group)
		}
		b.Write(f.Text)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, b.String())
	}
}

func TestApacheGolden(t *testing.T) {
	for name, site := range goldenSites {
		t.Run(name, func(t *testing.T) {
			in := testInput(site)
			files, err := Apache{}.Site(in)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "apache-"+name+".golden", files)
			again, err := Apache{}.Site(in)
			if err != nil || len(again) != len(files) {
				t.Fatal(len(again), err)
			}
			for i := range files {
				if !bytes.Equal(files[i].Text, again[i].Text) {
					t.Errorf("%s is another the second time", files[i].Path)
				}
			}
		})
	}
	for name, piped := range map[string]bool{"default": false, "default-piped": true} {
		l := testLayout
		l.Piped = piped
		files, err := Apache{}.Default(l)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "apache-"+name+".golden", files)
	}
}

func TestNginxGolden(t *testing.T) {
	for name, site := range goldenSites {
		site.CGI = false
		if name == "full" {
			site.Headers = map[string]string{"X-Frame-Options": "DENY"}
		}
		files, err := Nginx{}.Site(testInput(site))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "nginx-"+name+".golden", files)
	}
	files, err := Nginx{}.Default(testLayout)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "nginx-default.golden", files)
}

func TestSeal(t *testing.T) {
	files, err := Apache{}.Site(testInput(fullSite()))
	if err != nil {
		t.Fatal(err)
	}
	text := files[0].Text
	if s, err := Unseal(text); err != nil || s.Generation != 7 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := Unseal(bytes.Replace(text, []byte("example"), []byte("exemple"), 1)); err == nil {
		t.Error("a changed file passes")
	}
	if _, err := Unseal([]byte("<VirtualHost *:80>\n")); err == nil {
		t.Error("a file of somebody else's passes")
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	if !Made(line) || Made([]byte("# by hand")) {
		t.Error("Made does not tell our files from others")
	}
}

// Tokens are of one version of one file.
func TestTokens(t *testing.T) {
	seen := map[string]string{}
	for _, change := range []func(*Input){
		func(*Input) {},
		func(in *Input) { in.Generation++ },
		func(in *Input) { in.Site.Name = "other.test" },
		func(in *Input) { in.Site.CGI = true },
		func(in *Input) { in.Suspended = true },
	} {
		in := testInput(upkeep.Site{Wildcard: true})
		change(&in)
		files, err := Apache{}.Site(in)
		if err != nil {
			t.Fatal(err)
		}
		probes := Apache{}.Probes(files)
		if len(probes) != 2 {
			t.Fatalf("%d probes, want one for each file", len(probes))
		}
		if probes[0].Host != in.Site.Name || !strings.HasSuffix(probes[1].Host, "."+in.Site.Name) {
			t.Errorf("probes ask for %q and %q", probes[0].Host, probes[1].Host)
		}
		for _, p := range probes {
			if before, again := seen[p.Path]; again || strings.Contains(p.Path, noToken) {
				t.Errorf("%s is that of %s, too", p.Path, before)
			}
			seen[p.Path] = p.Host
		}
	}
}

// What cannot be written is refused with its field, past all checks of others.
func TestRefused(t *testing.T) {
	long := strings.Repeat("x", 10000)
	for _, one := range []struct {
		name, field string
		site        upkeep.Site
	}{
		{"name with a quote", "name", upkeep.Site{Name: `x.test"`}},
		{"name with a slash", "name", upkeep.Site{Name: "x/../../etc"}},
		{"name with a line end", "name", upkeep.Site{Name: "x.test\nInclude /etc/passwd"}},
		{"name with a variable", "name", upkeep.Site{Name: "${SECRET}.test"}},
		{"wildcard as name", "name", upkeep.Site{Name: "*.test"}},
		{"two dots", "name", upkeep.Site{Name: ".."}},
		{"alias with a bracket", "aliases", upkeep.Site{Aliases: []string{"<x>.test"}}},
		{"alias that is a wildcard", "aliases", upkeep.Site{Aliases: []string{"a.*.test"}}},
		{"account", "account", upkeep.Site{Account: "root"}},
		{"account with dots", "account", upkeep.Site{Account: "../x"}},
		{"root", "root", upkeep.Site{Root: "../../other"}},
		{"root with a pattern", "root", upkeep.Site{Root: "*"}},
		{"hidden root", "root", upkeep.Site{Root: ".git"}},
		{"subof", "subof", upkeep.Site{SubOf: "../x"}},
		{"index", "index", upkeep.Site{Index: []string{"/etc/passwd"}}},
		{"index with blanks", "index", upkeep.Site{Index: []string{"a b"}}},
		{"error code", "error_pages", upkeep.Site{ErrorPages: map[string]string{"404 x": "/x"}}},
		{"error path with a blank", "error_pages.404", upkeep.Site{ErrorPages: map[string]string{"404": "/x y"}}},
		{"error path with an expression", "error_pages.404", upkeep.Site{ErrorPages: map[string]string{"404": "/%{file:/etc/passwd}"}}},
		{"error path upwards", "error_pages.404", upkeep.Site{ErrorPages: map[string]string{"404": "/../x"}}},
		{"long error text", "error_pages.404", upkeep.Site{ErrorPages: map[string]string{"404": long}}},
		{"method", "methods", upkeep.Site{Methods: []string{"GET>"}}},
		{"trace", "methods", upkeep.Site{Methods: []string{"TRACE"}}},
		{"canonical", "canonical", upkeep.Site{Canonical: "x\n"}},
		{"canonical status", "canonical_status", upkeep.Site{Canonical: "bare", CanonicalStatus: 200}},
		{"redirect with a line end", "redirects[0].to", upkeep.Site{Redirects: []upkeep.Redirect{{From: "/x", To: "https://x.test/\nInclude /etc/passwd"}}}},
		{"redirect with an encoded user", "redirects[0].to", upkeep.Site{Redirects: []upkeep.Redirect{{From: "/x", To: "https://user%0a@x.test/"}}}},
		{"redirect with a variable", "redirects[0].to", upkeep.Site{Redirects: []upkeep.Redirect{{From: "/x", To: "http://${SECRET}/"}}}},
		{"redirect to a script", "redirects[0].to", upkeep.Site{Redirects: []upkeep.Redirect{{From: "/x", To: "javascript:alert(1)"}}}},
		{"redirect to a host by two slashes", "redirects[0].to", upkeep.Site{Redirects: []upkeep.Redirect{{From: "/x", To: "//evil.test"}}}},
		{"redirect from nowhere", "redirects[0].from", upkeep.Site{Redirects: []upkeep.Redirect{{From: "x", To: "/"}}}},
		{"redirect from a pattern", "redirects[0].from", upkeep.Site{Redirects: []upkeep.Redirect{{From: "/[x]", To: "/"}}}},
		{"redirect with an encoded line end", "redirects[0]", upkeep.Site{Redirects: []upkeep.Redirect{{From: "/a%0ab", To: "/"}}}},
		{"redirect status", "redirects[0].status", upkeep.Site{Redirects: []upkeep.Redirect{{From: "/x", To: "/", Status: 200}}}},
		{"header name", "headers", upkeep.Site{Headers: map[string]string{"X Y": "z"}}},
		{"framing header", "headers", upkeep.Site{Headers: map[string]string{"transfer-encoding": "chunked"}}},
		{"header with a line end", "headers.X", upkeep.Site{Headers: map[string]string{"X": "a\r\nSet-Cookie: b"}}},
		{"header with an expression", "headers.X", upkeep.Site{Headers: map[string]string{"X": "%{file:/etc/passwd}e"}}},
		{"header that is an expression", "headers.X", upkeep.Site{Headers: map[string]string{"X": "ExPr=file('/etc/passwd')"}}},
		{"header with a backslash at its end", "headers.X", upkeep.Site{Headers: map[string]string{"X": `a\`}}},
		{"long header", "headers.X", upkeep.Site{Headers: map[string]string{"X": long}}},
		{"header of bad UTF-8", "headers.X", upkeep.Site{Headers: map[string]string{"X": "\xff"}}},
		{"environment name", "environment", upkeep.Site{Environment: map[string]string{"A B": "x"}}},
		{"preloaded library", "environment", upkeep.Site{Environment: map[string]string{"LD_PRELOAD": "x"}}},
		{"php settings", "environment", upkeep.Site{Environment: map[string]string{"PHP_ADMIN_VALUE": "x"}}},
		{"environment value", "environment.A", upkeep.Site{Environment: map[string]string{"A": "${SECRET}"}}},
		{"environment with a zero byte", "environment.A", upkeep.Site{Environment: map[string]string{"A": "x\x00y"}}},
		{"no network", "deny", upkeep.Site{Deny: []upkeep.Network{{}}}},
		{"protected pattern", "protect[0].path", upkeep.Site{Protect: []upkeep.Protection{{Path: "/a*"}}}},
		{"realm", "protect[0].realm", upkeep.Site{Protect: []upkeep.Protection{{Path: "/", Realm: `x"`}}}},
		{"user with a colon", "protect[0].users", upkeep.Site{Protect: []upkeep.Protection{{Path: "/", Users: map[string]string{"a:b": testHash}}}}},
		{"user with a line end", "protect[0].users", upkeep.Site{Protect: []upkeep.Protection{{Path: "/", Users: map[string]string{"a\nb": testHash}}}}},
		{"plain password", "protect[0].users.bob", upkeep.Site{Protect: []upkeep.Protection{{Path: "/", Users: map[string]string{"bob": "secret"}}}}},
		{"children", "php.children", upkeep.Site{PHP: &upkeep.PHP{Children: 1 << 30}}},
		{"memory", "php.memory", upkeep.Site{PHP: &upkeep.PHP{Memory: -1}}},
	} {
		t.Run(one.name, func(t *testing.T) {
			files, err := Apache{}.Site(testInput(one.site))
			var value *ValueError
			if !errors.As(err, &value) || len(files) > 0 {
				t.Fatalf("%d files, error %v", len(files), err)
			}
			if value.Field != one.field {
				t.Errorf("the field is %q, want %q: %v", value.Field, one.field, err)
			}
			if len(value.Value) > 100 {
				t.Errorf("%d bytes of the value are repeated", len(value.Value))
			}
		})
	}
}

func TestField(t *testing.T) {
	files, err := Apache{}.Site(testInput(fullSite()))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]bool{}
	for i := range bytes.Count(files[0].Text, []byte("\n")) {
		fields[Apache{}.Field(files[0].Text, i+1)] = true
	}
	for _, want := range []string{
		"name", "aliases", "root", "index", "error_pages", "redirects", "headers", "environment", "methods", "deny", "allow", "protect", "cgi", "php",
	} {
		if !fields[want] {
			t.Errorf("no line is taken to come from %s", want)
		}
	}
}

func TestLongNames(t *testing.T) {
	label := strings.Repeat("a", 60)
	name := label + "." + label + "." + label + "." + label[:50] + ".test"
	in := testInput(upkeep.Site{Name: name, Wildcard: true, PHP: &upkeep.PHP{}, WWW: new(bool), ErrorPages: map[string]string{"404": "x"}})
	files, err := Apache{}.Site(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for part := range strings.SplitSeq(f.Path, "/") {
			if len(part) > 230 { // with room for the temporary name
				t.Errorf("a name of %d bytes: %s", len(part), part)
			}
		}
	}
	if socket := testLayout.Socket(name); len(socket) > 107 {
		t.Errorf("the socket's path has %d bytes", len(socket))
	}
}

func BenchmarkApacheSite(b *testing.B) {
	b.ReportAllocs()
	in := testInput(upkeep.Site{})
	for b.Loop() {
		if _, err := (Apache{}).Site(in); err != nil {
			b.Fatal(err)
		}
	}
}

// A header that no configuration may hold is refused where it is declared, and not
// first by the server that it is to be applied on.
func TestFramingHeadersAreRefusedEarly(t *testing.T) {
	for _, name := range framing {
		site := upkeep.Site{Name: "example.test", Account: "acme", Servers: []string{"web1"}, Headers: map[string]string{name: "x"}}
		if broken := site.Validate(); len(broken) != 1 {
			t.Errorf("%s: %v", name, broken)
		}
	}
}
