package webserver

import (
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// write makes a file of a customer.
func (w *world) write(path, text string, mode os.FileMode) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) expect(method, host, path string, status int, body string) http.Header {
	w.t.Helper()
	got, text, header := w.request(method, host, path, nil)
	if got != status || !strings.Contains(text, body) {
		w.t.Errorf("%s %s%s: %d %q, want %d and %q", method, host, path, got, text, status, body)
	}
	return header
}

// TestFields asks a real Apache for what each field of a site means.
func TestFields(t *testing.T) {
	w := newWorld(t)
	in := w.input("example.test", 1)
	in.Site.Aliases = []string{"shop.example.test"}
	in.Site.ErrorPages = map[string]string{"404": "/missing.html", "403": "turned away\n", "405": "<p>no"}
	in.Site.Index = []string{"start.html", "index.html"}
	in.Site.Canonical = "bare"
	in.Site.Wildcard = true
	in.Site.CGI = true
	in.Site.Protect = []upkeep.Protection{{Path: "/private", Realm: "members", Users: map[string]string{
		"bob": "$2y$05$fQgXi675osPgH8eM1eqS4.b8RjSKTtKcGubHhYfXyjlowhctca3DG"}}}
	in.Site.Redirects = []upkeep.Redirect{
		{From: "/old", To: "https://other.test/new", Status: 301}, {From: "/exact", Exact: true, To: "/to%20there?a=1&b=2"},
		{From: "/a.b c", Exact: true, To: "https://x.test/a%25b"}, {From: "/gone", Status: 410}, {From: "/gone-exact", Exact: true, Status: 410},
	}
	in.Site.Headers = map[string]string{"X-Frame-Options": "DENY", "X-Odd": `50% "off" \n %t`, "Last-Modified": ""}
	in.Site.Environment = map[string]string{"APP_MODE": `say "hi" \ 100% $1`}
	w.write(filepath.Join(in.DocumentRoot(), "missing.html"), "not here", 0o644)
	w.write(filepath.Join(in.DocumentRoot(), "private", "x.html"), "members only", 0o644)
	w.write(filepath.Join(in.SiteFolder(), "cgi-bin", "env"), "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s' \"$APP_MODE\"\n", 0o755)
	w.mustApply(in)

	w.expect("GET", "example.test", "/", 200, "page of example.test")
	w.expect("GET", "EXAMPLE.test", "/", 200, "page of example.test")
	w.expect("GET", "shop.example.test", "/", 200, "page of example.test")
	w.expect("GET", "any.example.test", "/", 200, "page of example.test")
	w.expect("GET", "example.test", "/nowhere", 404, "not here")
	w.expect("GET", "example.test", "/cgi-bin/env", 200, `say "hi" \ 100% $1`)
	w.expect("GET", "unknown.test", "/", 421, "")
	w.expect("DELETE", "example.test", "/", 403, "turned away")
	if h := w.expect("GET", "example.test", "/.well-known/upkeep/pages/403.txt", 200, "turned away"); h.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("the text of an error page is %s", h.Get("Content-Type"))
	}

	if h := w.expect("GET", "www.example.test", "/a%20b/c%3Fd?x=1%26y", 307, ""); h.Get("Location") != "http://example.test:"+port(w)+"/a%20b/c%3fd?x=1%26y" {
		t.Errorf("the canonical name is at %s", h.Get("Location"))
	}
	for path, want := range map[string]string{
		"/old/deep%20x": "https://other.test/new/deep%20x", "/exact": "http://example.test:" + port(w) + "/to%20there?a=1&b=2", "/a.b%20c": "https://x.test/a%25b",
	} {
		status, _, h := w.get("example.test", path)
		if got := h.Get("Location"); got != want || status/100 != 3 {
			t.Errorf("%s leads to %q with %d, want %q", path, got, status, want)
		}
	}
	w.expect("GET", "example.test", "/exact/not", 404, "")
	w.expect("GET", "example.test", "/aXb%20c", 404, "")
	w.expect("GET", "example.test", "/gone/x", 410, "")
	w.expect("GET", "example.test", "/gone-exact", 410, "")

	for _, path := range []string{"/", "/nowhere"} {
		_, _, h := w.get("example.test", path)
		if len(h.Values("X-Frame-Options")) != 1 || h.Get("X-Frame-Options") != "DENY" || h.Get("X-Odd") != `50% "off" \n %t` || h.Get("Last-Modified") != "" {
			t.Errorf("headers of %s: %v", path, h)
		}
	}

	w.expect("GET", "example.test", "/private/x.html", 401, "")
	w.expect("GET", "example.test", "//private/./x.html", 401, "")
	login := func(r *http.Request) { r.SetBasicAuth("bob", "secret") }
	if status, body, _ := w.request("GET", "example.test", "/private/x.html", login); status != 200 || body != "members only" {
		t.Errorf("with the password: %d %q", status, body)
	}

	// Denied addresses see the text of the error page and nothing else, password or not.
	in.Generation, in.Site.Deny = 2, []upkeep.Network{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
	w.mustApply(in)
	w.expect("GET", "example.test", "/", 403, "turned away")
	if status, _, _ := w.request("GET", "example.test", "/private/x.html", login); status != 403 {
		t.Errorf("a denied address with a password: %d", status)
	}
	in.Generation, in.Site.Deny, in.Site.Allow = 3, nil, []upkeep.Network{{Prefix: netip.MustParsePrefix("192.0.2.1/32")}}
	w.mustApply(in)
	w.expect("GET", "example.test", "/", 403, "turned away")
	in.Generation, in.Site.Allow = 4, []upkeep.Network{{Prefix: netip.MustParsePrefix("127.0.0.1/32")}}
	w.mustApply(in)
	w.expect("GET", "example.test", "/", 200, "page of")

	in.Generation, in.Suspended = 5, true
	w.mustApply(in)
	for _, host := range []string{"example.test", "www.example.test", "any.example.test"} {
		w.expect("GET", host, "/private/x.html", 503, "This site is suspended")
	}

	log := filepath.Join(w.options.Layout.LogFolder("example.test"), "access.log")
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), `"GET /gone-exact HTTP/1.1" 410`) && strings.Contains(string(text), "any.example.test") == false, string(text)
	})
	if info, err := os.Stat(log); err != nil || info.Mode().Perm()&0o007 != 0 {
		// The folder keeps others out, whatever the mode of the file is.
		folder, err := os.Stat(filepath.Dir(log))
		if err != nil || folder.Mode().Perm()&0o007 != 0 {
			t.Errorf("others may read the log: %v %v", folder.Mode(), err)
		}
	}
}

func port(w *world) string {
	return w.options.Address[strings.LastIndexByte(w.options.Address, ':')+1:]
}

// Links lead only to what belongs to their owner, also where the folder of the
// pages is one.
func TestLinksOfCustomers(t *testing.T) {
	testkit.NeedRoot(t)
	w := newWorld(t)
	victim := w.input("victim.test", 1)
	secret := filepath.Join(victim.SiteFolder(), "secret.txt")
	w.write(secret, "secret of victim", 0o644)
	chown := func(path string, uid int) {
		t.Helper()
		if err := os.Lchown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	chown(secret, 20001)
	w.mustApply(victim)
	evil := w.input("evil.test", 1)
	evil.UID = 20002
	link := filepath.Join(evil.DocumentRoot(), "x.txt")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	chown(link, 20002)
	w.mustApply(evil)
	w.expect("GET", "evil.test", "/x.txt", 403, "")
	// After the site was applied, its owner makes htdocs itself a link.
	if err := os.Rename(evil.DocumentRoot(), evil.DocumentRoot()+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim.SiteFolder(), evil.DocumentRoot()); err != nil {
		t.Fatal(err)
	}
	chown(evil.DocumentRoot(), 20002)
	chown(victim.SiteFolder(), 20001)
	w.expect("GET", "evil.test", "/secret.txt", 403, "")
	// And asks for it to be applied again.
	evil.Generation = 2
	if r := w.apply(evil); r.State != upkeep.JobFailed || r.Field != "root" {
		t.Errorf("a folder that is a link: %+v", r)
	}
}

// TestProgramsNeedTheirOwnUser has an Apache of many users and no suexec: a site
// with programs fails, for they would run as the web server and read every
// neighbour's files; its neighbours do not.
func TestProgramsNeedTheirOwnUser(t *testing.T) {
	w := newWorld(t)
	if err := w.Applier.Close(); err != nil {
		t.Fatal(err)
	}
	w.options.Layout.OneUser = false
	w.open()
	programs, plain := w.input("programs.test", 1), w.input("plain.test", 1)
	programs.Site.CGI = true
	w.mustApply(plain)
	result := w.apply(programs)
	if result.State != upkeep.JobFailed || result.Field != "cgi" || !strings.Contains(result.Err.Error(), "Suexec") {
		t.Errorf("a site with programs: %+v", result)
	}
	w.expect("GET", "plain.test", "/", 200, "page of plain.test")
	w.expect("GET", "programs.test", "/", 421, "")
}
