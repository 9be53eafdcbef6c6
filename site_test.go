package upkeep

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const hash = "$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"

func goodSite() Site {
	yes := true
	return Site{
		Name: "example.test", Account: "acme", Servers: []string{"web1", "web2"}, Files: "nfs1",
		Aliases: []string{"shop.example.test", "xn--mller-kva.test"}, WWW: &yes, Wildcard: true, Root: "web/public", CGI: true, PHP: &PHP{Children: 3},
		ErrorPages: map[string]string{"404": "/missing.html", "503": "Back soon: 100% sure, says \"Bob\".\n"},
		Index:      []string{"index.php"}, Methods: []string{"GET", "POST"},
		Deny:    []Network{{netip.MustParsePrefix("192.0.2.0/24")}, {netip.MustParsePrefix("2001:db8::/32")}},
		Protect: []Protection{{Path: "/private", Realm: "Members only", Users: map[string]string{"bob@example.test": hash}}},
		Headers: map[string]string{"X-Frame-Options": "DENY", "Content-Security-Policy": `default-src 'self' "x"; img-src *`, "X-Powered-By": ""},
		Redirects: []Redirect{{From: "/old", To: "https://other.test:8443/new?a=b&c=%20#d"}, {From: "/a", To: "/b", Exact: true, Status: 301},
			{From: "/gone", Status: 410}},
		Environment: map[string]string{"APP_MODE": `it's "live"`}, Canonical: "bare", CanonicalStatus: 301,
	}
}

func TestSiteGood(t *testing.T) {
	for name, s := range map[string]Site{
		"full":      goodSite(),
		"least":     {Name: "example.test", Account: "acme", Servers: []string{"web1"}},
		"sub":       {Name: "a.blog.example.test", Account: "acme", Servers: []string{"web1"}, SubOf: "example.test"},
		"www":       {Name: "www.example.test", Account: "acme", Servers: []string{"web1"}},
		"www alias": {Name: "example.test", Account: "acme", Servers: []string{"web1"}, Aliases: []string{"www.example.test"}, Canonical: "www"},
		"defaults":  goodSite().WithDefaults(),
	} {
		if broken := s.Validate(); len(broken) > 0 {
			t.Errorf("%s: %v", name, broken)
		}
		if broken := s.WithDefaults().Validate(); len(broken) > 0 {
			t.Errorf("%s with defaults: %v", name, broken)
		}
		if twice := s.WithDefaults().WithDefaults(); !reflect.DeepEqual(twice, s.WithDefaults()) {
			t.Errorf("%s: defaults of defaults differ: %+v", name, twice)
		}
	}
}

func TestSiteDefaults(t *testing.T) {
	s := Site{Name: "a.blog.example.test", SubOf: "example.test", PHP: &PHP{Memory: 64}, Canonical: "www",
		Protect: []Protection{{Path: "/"}}, Redirects: []Redirect{{From: "/a"}, {From: "/b", Status: 410}}}
	got := s.WithDefaults()
	want := s
	yes := true
	want.WWW, want.Root, want.Index, want.Methods = &yes, "a.blog", []string{"index.html", "index.php"}, []string{"GET", "HEAD", "POST"}
	want.PHP, want.CanonicalStatus = &PHP{5, 64}, 307
	want.Protect, want.Redirects = []Protection{{Path: "/", Realm: "restricted"}}, []Redirect{{From: "/a", Status: 302}, {From: "/b", Status: 410}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if s.Protect[0].Realm != "" || s.Redirects[0].Status != 0 || s.PHP.Children != 0 {
		t.Error("the site itself was changed")
	}
	if www := (Site{Name: "www.example.test"}).WithDefaults().WWW; *www {
		t.Error("www.www.example.test")
	}
}

func TestSiteRules(t *testing.T) {
	yes, no := true, false
	many := func(n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("a%d.test", i)
		}
		return list
	}
	table := func(n int, key func(int) string, value string) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[key(i)] = value
		}
		return m
	}
	prefix := netip.MustParsePrefix
	redirect := func(d Redirect) func(*Site) { return func(s *Site) { s.Redirects = []Redirect{d} } }
	protect := func(p Protection) func(*Site) { return func(s *Site) { s.Protect = []Protection{p} } }
	header := func(name, value string) func(*Site) {
		return func(s *Site) { s.Headers = map[string]string{name: value} }
	}
	variable := func(name, value string) func(*Site) {
		return func(s *Site) { s.Environment = map[string]string{name: value} }
	}
	users := map[string]string{"bob": hash}
	for _, one := range []struct {
		field  string
		change func(*Site)
	}{
		{"name", func(s *Site) { *s = Site{Name: "localhost", Account: "acme", Servers: []string{"web1"}} }},
		{"name", func(s *Site) { s.Name = "Example.test" }},
		{"name", func(s *Site) { s.Name = "example.test." }},
		{"name", func(s *Site) { s.Name = "*.test" }},
		{"name", func(s *Site) { s.Name = "a_b.test" }},
		{"name", func(s *Site) { s.Name = "a..test" }},
		{"name", func(s *Site) { s.Name = "größe.test" }},
		{"name", func(s *Site) { s.Name = "192.0.2.1" }},
		{"name", func(s *Site) { s.Name = "x.test\"" }},
		{"name", func(s *Site) { s.Name = "x.test\nServerAlias *" }},
		{"name", func(s *Site) { s.Name = strings.Repeat(strings.Repeat("a", 61)+".", 4) + "tt" }},
		{"name", func(s *Site) {
			s.Name, s.WWW = strings.Repeat(strings.Repeat("a", 62)+".", 4)+"t", &no
			s.Canonical, s.CanonicalStatus = "", 0
		}},
		{"www", func(s *Site) { s.Name, s.Canonical, s.CanonicalStatus = "www.example.test", "", 0 }},
		{"account", func(s *Site) { s.Account = "" }},
		{"account", func(s *Site) { s.Account = "root" }},
		{"account", func(s *Site) { s.Account = "a/../b" }},
		{"aliases", func(s *Site) { s.Aliases = many(MaxAliases + 1) }},
		{"aliases[0]", func(s *Site) { s.Aliases = []string{"*.example.test"} }},
		{"aliases[0]", func(s *Site) { s.Aliases = []string{"${X}.test"} }},
		{"aliases[0]", func(s *Site) { s.Aliases = []string{s.Name} }},
		{"aliases[1]", func(s *Site) { s.Aliases = []string{"a.test", "a.test"} }},
		{"servers", func(s *Site) { s.Servers = nil }},
		{"servers", func(s *Site) { s.Servers = many(MaxSiteServers + 1) }},
		{"servers[0]", func(s *Site) { s.Servers = []string{"web1.example.test"} }},
		{"servers[1]", func(s *Site) { s.Servers = []string{"web1", "web1"} }},
		{"files", func(s *Site) { s.Files = "../x" }},
		{"subof", func(s *Site) { s.SubOf = "other.test" }},
		{"subof", func(s *Site) { s.SubOf = "example.test" }},
		{"subof", func(s *Site) { s.SubOf = "test" }},
		{"root", func(s *Site) { s.Root = "/etc" }},
		{"root", func(s *Site) { s.Root = "a/../b" }},
		{"root", func(s *Site) { s.Root = "a//b" }},
		{"root", func(s *Site) { s.Root = "a/" }},
		{"root", func(s *Site) { s.Root = ".git" }},
		{"root", func(s *Site) { s.Root = "a b" }},
		{"root", func(s *Site) { s.Root = `a"b` }},
		{"root", func(s *Site) { s.Root = "a\x00b" }},
		{"root", func(s *Site) { s.Root = "a/b/c/d/e/f/g/h/i" }},
		{"php.children", func(s *Site) { s.PHP = &PHP{Children: 101} }},
		{"php.children", func(s *Site) { s.PHP = &PHP{Children: -1} }},
		{"php.memory", func(s *Site) { s.PHP = &PHP{Memory: 7} }},
		{"php.memory", func(s *Site) { s.PHP = &PHP{Memory: 1 << 20} }},
		{"error_pages.200", func(s *Site) { s.ErrorPages = map[string]string{"200": "/x"} }},
		{"error_pages.418", func(s *Site) { s.ErrorPages = map[string]string{"418": "/x"} }},
		{"error_pages.404 x", func(s *Site) { s.ErrorPages = map[string]string{"404 x": "/x"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": ""} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "missing.html"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "../missing"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": " \n"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "%{file:/etc/passwd}"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "a ${SECRET}"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "a\x1b[2Jb"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "a\xffb"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "https://x.test/"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": strings.Repeat("x", MaxErrorText+1)} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "/../x"} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "/x\""} }},
		{"error_pages.404", func(s *Site) { s.ErrorPages = map[string]string{"404": "//evil.test/x"} }},
		{"index", func(s *Site) { s.Index = many(21) }},
		{"index[0]", func(s *Site) { s.Index = []string{"/etc/passwd"} }},
		{"index[0]", func(s *Site) { s.Index = []string{"disabled"} }},
		{"index[0]", func(s *Site) { s.Index = []string{"$uri"} }},
		{"index[1]", func(s *Site) { s.Index = []string{"a.html", "a.html"} }},
		{"methods[1]", func(s *Site) { s.Methods = []string{"GET", "TRACE"} }},
		{"methods[1]", func(s *Site) { s.Methods = []string{"GET", "get"} }},
		{"methods[1]", func(s *Site) { s.Methods = []string{"GET", "GET"} }},
		{"methods", func(s *Site) { s.Methods = []string{"POST"} }},
		{"deny", func(s *Site) { s.Deny = make([]Network, MaxAddresses+1) }},
		{"deny[0]", func(s *Site) { s.Deny = []Network{{}} }},
		{"deny[0]", func(s *Site) { s.Deny = []Network{{prefix("192.0.2.1/24")}} }},
		{"deny[0]", func(s *Site) { s.Deny = []Network{{prefix("::ffff:192.0.2.0/120")}} }},
		{"allow[1]", func(s *Site) { s.Allow = []Network{{prefix("10.0.0.0/8")}, {prefix("10.0.0.0/8")}} }},
		{"protect", func(s *Site) { s.Protect = make([]Protection, MaxProtections+1) }},
		{"protect[0].path", protect(Protection{Path: "private", Users: users})},
		{"protect[0].path", protect(Protection{Path: "/a*", Users: users})},
		{"protect[0].path", protect(Protection{Path: "/a%2fb", Users: users})},
		{"protect[0].path", protect(Protection{Path: "/a/./b", Users: users})},
		{"protect[0].path", protect(Protection{Path: "/\">", Users: users})},
		{"protect[1].path", func(s *Site) { s.Protect = []Protection{{Path: "/", Users: users}, {Path: "/", Users: users}} }},
		{"protect[1].path", func(s *Site) { s.Protect = []Protection{{Path: "/p", Users: users}, {Path: "/p/", Users: users}} }},
		{"protect[0].realm", protect(Protection{Path: "/", Realm: `a"b`, Users: users})},
		{"protect[0].realm", protect(Protection{Path: "/", Realm: `trailing\`, Users: users})},
		{"protect[0].realm", protect(Protection{Path: "/", Realm: "%{HTTP_HOST}", Users: users})},
		{"protect[0].users", protect(Protection{Path: "/"})},
		{"protect[0].users", protect(Protection{Path: "/", Users: table(MaxUsers+1, func(i int) string { return fmt.Sprint("u", i) }, hash)})},
		{"protect[0].users.a:b", protect(Protection{Path: "/", Users: map[string]string{"a:b": hash}})},
		{"protect[0].users.#a", protect(Protection{Path: "/", Users: map[string]string{"#a": hash}})},
		{"protect[0].users.a\nb", protect(Protection{Path: "/", Users: map[string]string{"a\nb": hash}})},
		{"protect[0].users.bob", protect(Protection{Path: "/", Users: map[string]string{"bob": "secret"}})},
		{"protect[0].users.bob", protect(Protection{Path: "/", Users: map[string]string{"bob": "$apr1$x$y"}})},
		{"protect[0].users.bob", protect(Protection{Path: "/", Users: map[string]string{"bob": hash + "\nroot:x"}})},
		{"protect[0].users.bob", protect(Protection{Path: "/", Users: map[string]string{"bob": strings.Replace(hash, "$05$", "$31$", 1)}})},
		{"canonical", func(s *Site) { s.Canonical = "always" }},
		{"canonical", func(s *Site) { s.WWW = &no }},
		{"canonical", func(s *Site) { s.Name, s.WWW = "www.example.test", nil }},
		{"canonical_status", func(s *Site) { s.Canonical = "" }},
		{"canonical_status", func(s *Site) { s.CanonicalStatus = 303 }},
		{"redirects", func(s *Site) { s.Redirects = make([]Redirect, MaxRedirects+1) }},
		{"redirects[0].from", redirect(Redirect{From: "old", To: "/"})},
		{"redirects[0].from", redirect(Redirect{From: "/(.*)", To: "/x"})},
		{"redirects[1].from", func(s *Site) { s.Redirects = []Redirect{{From: "/a", To: "/b"}, {From: "/a", To: "/c"}} }},
		{"redirects[0].status", redirect(Redirect{From: "/a", To: "/b", Status: 200})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "/b", Status: 410})},
		{"redirects[0].to", redirect(Redirect{From: "/a"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "/a/b"})},
		{"redirects[0].to", redirect(Redirect{From: "/", To: "/x"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "/a?b", Exact: true})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "//evil.test/"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: `/\evil.test/`})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "javascript:alert(1)"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "ftp://a.test/"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https:///x"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://user:pw@a.test/"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://user%0a@a.test/"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://a.test/%0aSet-Cookie"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://a.test/\nX"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://a.test/%"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://a.test/%{HTTP_HOST}"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://${SECRET}.test/"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://a.test/$1"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: `https://a.test/"`})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: `https://a.test/\`})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://-a.test/"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://a.test:99999/"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://größe.test/"})},
		{"redirects[0].to", redirect(Redirect{From: "/a", To: "https://a.test/" + strings.Repeat("x", maxURL)})},
		{"headers", func(s *Site) { s.Headers = table(MaxHeaders+1, func(i int) string { return fmt.Sprint("X-", i) }, "x") }},
		{"headers.X A", header("X A", "x")},
		{"headers.X:", header("X:", "x")},
		{"headers.", header("", "x")},
		{"headers.$X", header("$X", "x")},
		{"headers.Transfer-Encoding", header("Transfer-Encoding", "chunked")},
		{"headers.content-length", header("content-length", "0")},
		{"headers.Connection", header("Connection", "")},
		{"headers.X", header("X", "a\r\nSet-Cookie: b")},
		{"headers.X", header("X", " a")},
		{"headers.X", header("X", "a ")},
		{"headers.X", header("X", "größe")},
		{"headers.X", header("X", "%{SECRET}e")},
		{"headers.X", header("X", "${SECRET}")},
		{"headers.X", header("X", "$host")},
		{"headers.X", header("X", `a\`)},
		{"headers.X", header("X", strings.Repeat("x", maxFieldText+1))},
		{"headers.x", func(s *Site) { s.Headers = map[string]string{"X": "1", "x": "2"} }},
		{"environment", func(s *Site) {
			s.Environment = table(MaxEnvironment+1, func(i int) string { return fmt.Sprint("X", i) }, "x")
		}},
		{"environment.a", variable("a", "x")},
		{"environment._A", variable("_A", "x")},
		{"environment.A=B", variable("A=B", "x")},
		{"environment.LD_PRELOAD", variable("LD_PRELOAD", "x")},
		{"environment.HTTP_PROXY", variable("HTTP_PROXY", "x")},
		{"environment.PHP_ADMIN_VALUE", variable("PHP_ADMIN_VALUE", "open_basedir=/")},
		{"environment.PATH", variable("PATH", "x")},
		{"environment.REMOTE_USER", variable("REMOTE_USER", "x")},
		{"environment.A", variable("A", "x\ny")},
		{"environment.A", variable("A", "$HOME")},
		{"environment.A", variable("A", `x\`)},
		{"environment.A", variable("A", "x\xff")},
	} {
		s := goodSite()
		_ = yes
		one.change(&s)
		broken := s.Validate()
		if got := fieldsOf(broken); !slices.Equal(slices.Compact(got), []string{one.field}) {
			t.Errorf("fields %v, want %s: %v", got, one.field, broken)
		}
	}
}

// Whatever hostile text a field gets, a site that is accepted holds nothing that
// a web server would read more into.
func TestSiteHoldsNothingActive(t *testing.T) {
	pieces := []string{"a", "/", "%{", "${", "$", "\\", "\n", "\r", "\x00", "\x7f", "\"", "'", ";", "{", "}", "#", " ", "%0a", "%25", "..", ".", "*", "é", "\u2028",
		"x.test", "https://", "//", "@", ":", "404", "|", "`", "<", ">", "&", "1", "A", "-", "_", hash}
	text := func(t *rapid.T, at string) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 4).Draw(t, at), "")
	}
	rapid.Check(t, func(t *rapid.T) {
		s := goodSite()
		one := text(t, "text")
		field := rapid.IntRange(0, 13).Draw(t, "field")
		quotes := false // where quotes are part of what people say
		switch field {
		case 0:
			s.Name = one
		case 1:
			s.Aliases = []string{one}
		case 2:
			s.Root = one
		case 3:
			s.ErrorPages = map[string]string{text(t, "code"): one}
			quotes = true
		case 4:
			s.Index = []string{one}
		case 5:
			s.Methods = []string{"GET", one}
		case 6:
			s.Protect = []Protection{{Path: one, Users: map[string]string{"a": hash}}}
		case 7:
			s.Protect = []Protection{{Path: "/", Realm: one, Users: map[string]string{"a": hash}}}
		case 8:
			s.Protect = []Protection{{Path: "/", Users: map[string]string{one: hash}}}
		case 9:
			s.Protect = []Protection{{Path: "/", Users: map[string]string{"a": one}}}
		case 10:
			s.Redirects = []Redirect{{From: one, To: "/elsewhere"}}
		case 11:
			s.Redirects = []Redirect{{From: "/elsewhere", To: one}}
		case 12:
			s.Headers = map[string]string{text(t, "name"): one}
			quotes = true
		case 13:
			s.Environment = map[string]string{text(t, "name"): one}
			quotes = true
		}
		if len(s.Validate()) > 0 {
			return
		}
		if strings.Contains(one, "%{") || strings.Contains(one, "${") || strings.HasSuffix(one, `\`) && field != 3 {
			t.Fatalf("field %d takes %q", field, one)
		}
		if hasControl(strings.ReplaceAll(one, "\n", "")) || field != 3 && strings.Contains(one, "\n") {
			t.Fatalf("field %d takes control characters: %q", field, one)
		}
		if !quotes && strings.ContainsAny(one, "\"'`<>") || field != 3 && field != 9 && strings.Contains(one, "$") {
			t.Fatalf("field %d takes %q", field, one)
		}
		for _, name := range s.Names() {
			if !ValidHost(strings.TrimPrefix(name, "*.")) {
				t.Fatalf("name %q", name)
			}
		}
	})
}

// FuzzSite holds that no document of a site makes validation fail in another way
// than by errors, and that what it accepts is the same when stored.
func FuzzSite(f *testing.F) {
	for _, s := range []Site{goodSite(), {}, {Name: "a.example.test", SubOf: "example.test", Account: "acme", Servers: []string{"web1"}}} {
		text, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		object, err := DecodeObject(KindSite, text)
		if err != nil {
			return
		}
		s := object.(Site)
		if len(s.Validate()) > 0 {
			return
		}
		if broken := s.WithDefaults().Validate(); len(broken) > 0 {
			t.Fatalf("defaults break rules: %v", broken)
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		read, err := DecodeObject(KindSite, again)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := json.Marshal(read); err != nil || string(twice) != string(again) {
			t.Fatalf("%s\nstored and read is\n%s, %v", again, twice, err)
		}
		names := s.Names()
		if sorted := slices.Sorted(slices.Values(names)); len(slices.Compact(sorted)) != len(names) {
			t.Fatalf("a name twice: %v", names)
		}
	})
}

func TestNetworkText(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "192.0.2.1/32": "192.0.2.1", "192.0.2.0/24": "192.0.2.0/24", "2001:DB8::/32": "2001:db8::/32",
		"::1": "::1", "::ffff:192.0.2.1": "192.0.2.1", "0.0.0.0/0": "0.0.0.0/0",
		"192.0.2.1/24": "", "fe80::1%eth0": "", "192.0.2": "", "192.0.2.0/33": "", "": "", "all": "", "192.0.2.0-192.0.2.9": "",
	} {
		var n Network
		err := n.UnmarshalText([]byte(text))
		if (err == nil) != (want != "") || err == nil && n.String() != want {
			t.Errorf("%q is %q, %v; want %q", text, n, err, want)
		}
	}
}

func TestOtherHostingRules(t *testing.T) {
	account := Account{Name: "acme", Email: "web@example.test", UID: MinUID}
	server := Server{Name: "web1", Roles: []string{RoleWeb, RoleFiles}}
	delegation := Delegation{Name: "blog.example.test", Account: "bob", Until: "2027-01-31T12:00:00Z"}
	for _, object := range []Object{account, server, delegation} {
		if broken := object.Validate(); len(broken) > 0 {
			t.Error(broken)
		}
	}
	for i, one := range []struct {
		object Object
		field  string
	}{
		{Account{Name: "a"}, "name"}, {Account{Name: "Acme"}, "name"}, {Account{Name: "1acme"}, "name"}, {Account{Name: "www-data"}, "name"},
		{Account{Name: "acme-"}, "name"}, {Account{Name: "acme\n"}, "name"}, {Account{Name: strings.Repeat("a", 32)}, "name"},
		{Account{Name: "acme", Email: "Bob <bob@example.test>"}, "email"}, {Account{Name: "acme", Email: "a@b.test\nBcc: x"}, "email"},
		{Account{Name: "acme", Email: "|/bin/sh@b.test"}, "email"}, {Account{Name: "acme", Email: "-oX@b.test"}, "email"}, {Account{Name: "acme", Email: "a@b@c.test"}, "email"},
		{Account{Name: "acme", UID: 1000}, "uid"}, {Account{Name: "acme", UID: 60000}, "uid"}, {Account{Name: "acme", UID: -1}, "uid"},
		{Server{Name: "web1"}, "roles"}, {Server{Name: "Web", Roles: []string{RoleWeb}}, "name"}, {Server{Name: "web1", Roles: []string{"god"}}, "roles[0]"},
		{Server{Name: "web1", Roles: []string{RoleWeb, RoleWeb}}, "roles[1]"}, {Server{Name: "web1", Roles: make([]string, 9)}, "roles"},
		{Delegation{Name: "blog", Account: "bob"}, "name"}, {Delegation{Name: "a.test", Account: "root"}, "account"},
		{Delegation{Name: "a.test", Account: "bob", Until: "tomorrow"}, "until"},
	} {
		if got := fieldsOf(one.object.Validate()); !slices.Equal(got, []string{one.field}) {
			t.Errorf("%d: fields %v, want %s", i, got, one.field)
		}
	}
}

func TestCheckHosting(t *testing.T) {
	site := Site{Name: "example.test", Account: "acme", Servers: []string{"web1"}}
	sub := Site{Name: "blog.example.test", Account: "acme", Servers: []string{"web1"}, SubOf: "example.test"}
	mounted := Site{Name: "example.test", Account: "acme", Servers: []string{"web1"}, Files: "nfs1"}
	around := Hosting{
		Accounts: map[string]Account{"acme": {}, "bob": {}},
		Servers:  map[string]Server{"web1": {Roles: []string{RoleWeb}}, "web2": {Roles: []string{RoleWeb}}, "nfs1": {Roles: []string{RoleFiles}}},
		Sites:    map[string]Site{"example.test": site, "blog.example.test": sub, "deep.example.test": {Name: "deep.example.test", SubOf: "blog.example.test"}},
		Needs:    map[Need]string{{"web1", RoleWeb}: "site example.test"},
	}
	with := func(s Site, change func(*Site)) Site { change(&s); return s }
	for i, one := range []struct {
		object Object
		fields []string
	}{
		{site, nil}, {sub, nil},
		{with(site, func(s *Site) { s.Account = "carol" }), []string{"account", "subof"}},
		{with(site, func(s *Site) { s.Servers = []string{"web1", "web9"} }), []string{"servers[1]"}},
		{with(site, func(s *Site) { s.Servers = []string{"web1", "nfs1"} }), []string{"servers[1]"}},
		{with(site, func(s *Site) { s.Servers = []string{"web2"} }), []string{"servers[0]"}}, // where its sub-site would be left alone
		{with(site, func(s *Site) { s.Account = "bob" }), []string{"subof"}},
		{with(sub, func(s *Site) { s.Servers = []string{"web2"} }), []string{"servers[0]"}},
		{with(sub, func(s *Site) { s.Account = "bob" }), []string{"subof"}},
		{with(sub, func(s *Site) { s.Files = "nfs1" }), []string{"files"}},
		{with(sub, func(s *Site) { s.Name, s.SubOf = "x.none.test", "none.test" }), []string{"subof"}},
		{with(sub, func(s *Site) { s.Name, s.SubOf = "x.blog.example.test", "blog.example.test" }), []string{"subof"}},
		{mounted, []string{"files"}},
		{with(mounted, func(s *Site) { s.Name, s.Files = "other.test", "nfs1" }), nil},
		{with(mounted, func(s *Site) { s.Name, s.Files = "other.test", "web1" }), []string{"files"}},
		{Delegation{Name: "x.test", Account: "bob"}, nil},
		{Delegation{Name: "x.test", Account: "carol"}, []string{"account"}},
		{Server{Name: "web1", Roles: []string{RoleWeb}}, nil},
		{Server{Name: "web1", Roles: []string{RoleDNS}}, []string{"roles"}},
		{Server{Name: "web2", Roles: []string{RoleDNS}}, nil},
		{Account{Name: "dave"}, nil},
	} {
		here := around
		here.Sites = maps.Clone(around.Sites)
		if s, is := one.object.(Site); is {
			here.Sites[s.Name] = s
			if s.Name == "blog.example.test" {
				delete(here.Sites, "deep.example.test")
			}
		}
		var fields []string
		for _, conflict := range CheckHosting([]Object{one.object}, here) {
			fields = append(fields, conflict.Field)
		}
		slices.Sort(fields)
		if !slices.Equal(fields, one.fields) {
			t.Errorf("%d: %+v breaks %v, want %v", i, one.object, fields, one.fields)
		}
	}
}
