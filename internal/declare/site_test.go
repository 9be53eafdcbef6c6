package declare

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upkeep"
)

const sites = `kind: account
name: acme
---
kind: server
name: web1
roles: [web]
---
kind: site
name: example.test
account: acme
servers: [web1]
aliases: [shop.example.test]
error_pages: {404: /missing.html}
deny: [192.0.2.0/24, "2001:db8::/32"]
---
kind: site
name: Größe.test.
account: acme
servers: [web1]
www: false
php: {}
allow: [192.0.2.1]
protect:
  - {path: /, users: {bob: "$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"}}
redirects: [{from: /a, to: "https://日本.test/b"}]
`

func TestReadSites(t *testing.T) {
	got, err := Read("x.yaml", []byte(sites))
	if err != nil {
		t.Fatal(err)
	}
	no := false
	network := func(s string) upkeep.Network { return upkeep.Network{Prefix: netip.MustParsePrefix(s)} }
	want := []upkeep.Object{
		upkeep.Account{Name: "acme"}, upkeep.Server{Name: "web1", Roles: []string{"web"}},
		upkeep.Site{Name: "example.test", Account: "acme", Servers: []string{"web1"}, Aliases: []string{"shop.example.test"},
			ErrorPages: map[string]string{"404": "/missing.html"}, Deny: []upkeep.Network{network("192.0.2.0/24"), network("2001:db8::/32")}},
		upkeep.Site{Name: "xn--gre-6ka8i.test", Account: "acme", Servers: []string{"web1"}, WWW: &no, PHP: &upkeep.PHP{},
			Allow:     []upkeep.Network{network("192.0.2.1/32")},
			Protect:   []upkeep.Protection{{Path: "/", Users: map[string]string{"bob": "$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"}}},
			Redirects: []upkeep.Redirect{{From: "/a", To: "https://xn--wgv71a.test/b"}}},
	}
	if diff := cmp.Diff(want, got, comparable); diff != "" {
		t.Error(diff)
	}
	var text bytes.Buffer
	if err := Write(&text, got...); err != nil {
		t.Fatal(err)
	}
	again, err := Read("y.yaml", text.Bytes())
	if diff := cmp.Diff(got, again, comparable); err != nil || diff != "" {
		t.Errorf("%v\n%s\n%s", err, text.Bytes(), diff)
	}
}

func TestReadBadSites(t *testing.T) {
	_, err := Read("x.yaml", []byte(`kind: site
name: xn--a.test
account: root
servers: []
error_pages: {200: /x, 404: 404, 503: "%{file:/etc/passwd}"}
deny: [192.0.2.1/24, all]
aliases: [größe..test, EXAMPLE.test, example.test.]
methods: []
php: {children: 0}
---
kind: site
name: other.test
htdocs: /srv
---
kind: account
name: acme
uid: 0
---
kind: site
name: Example.Test
account: acme
servers: [web1]
---
kind: site
name: example.test.
account: acme
servers: [web1]
`))
	for _, part := range []string{
		`x.yaml:2:7: name: "xn--a.test": must be a host name; this is not one by the rules for scripts other than ASCII (UTS 46): invalid label`,
		`x.yaml:3:10: account: "root": is a name that systems use themselves; take another`,
		`x.yaml:4:10: servers: is required: the web servers that answer for the site`,
		`x.yaml:5:20: error_pages.200: "/x": must be for an HTTP status of 400 to 511 that web servers know, such as 404`,
		`x.yaml:5:29: error_pages.404: "404": must be text`, `error_pages.503`, `x.yaml:6:8: deny[0]: "192.0.2.1/24": has bits set behind its length: write 192.0.2.0/24`,
		`deny[1]: "all": must be an address or a prefix`, `x.yaml:7:11: aliases[0]`, `aliases[2]: "example.test": is given twice`,
		`x.yaml:8:10: methods: cannot be empty or zero; leave it out for the default, [GET, HEAD, POST]`, `php.children: "0": cannot be`,
		`x.yaml:13:1: htdocs: is not a field`, `x.yaml:25:7: name: "example.test": site example.test is declared twice; the first time in line 20`,
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v\nlacks %s", err, part)
		}
	}
}
