package webserver

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// newNginxWorld is a world with an nginx of the operator's own.
func newNginxWorld(t testing.TB) *world {
	t.Helper()
	testkit.Need(t, "nginx")
	program, err := testkit.Find("nginx")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "upkeep-web-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	w := &world{t: t, dir: dir}
	w.options = Options{Layout: PrivateLayout(dir, address), State: filepath.Join(dir, "state"), Address: address, URL: "http://" + address}
	user := ""
	if os.Geteuid() == 0 {
		user = "user www-data;"
	}
	for _, folder := range []string{"etc", "scratch", "tmp", "logs", "sites", "home", "run"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	server := &Nginx{Program: program, Config: dir + "/etc/nginx.conf", Include: w.options.Layout.Include, PIDFile: dir + "/nginx.pid", Scratch: dir + "/scratch"}
	w.write(dir+"/etc/mime", "types { text/html html; }\n", 0o644)
	w.write(server.Config, fmt.Sprintf(`%s
worker_processes 1; daemon off; pid %s; error_log %s/logs/nginx.log;
events { worker_connections 64; }
http {
	include mime; access_log off;
	client_body_temp_path %[3]s/tmp; proxy_temp_path %[3]s/tmp; fastcgi_temp_path %[3]s/tmp; uwsgi_temp_path %[3]s/tmp; scgi_temp_path %[3]s/tmp;
	include %[4]s/*.conf;
	server { listen %[5]s; server_name hand.test "made.test"; }
}
`, user, server.PIDFile, dir, server.Include, address), 0o644)
	process := testkit.Start(t, program, "-c", server.Config)
	t.Cleanup(func() { process.Stop(5 * time.Second) })
	w.options.Server = server
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		_, err := server.Process()
		return err == nil && listens(address), fmt.Sprint(err, process.Log())
	})
	w.open()
	t.Cleanup(func() { _ = w.Applier.Close() })
	return w
}

// TestNginx goes through the same doors as Apache does.
func TestNginx(t *testing.T) {
	w := newNginxWorld(t)
	in := w.input("example.test", 1)
	in.Site.Wildcard, in.Site.Canonical = true, "bare"
	in.Site.ErrorPages = map[string]string{"404": "/missing.html", "403": "turned away\n"}
	in.Site.Protect = []upkeep.Protection{{Path: "/private", Users: map[string]string{
		"bob": "$2y$05$fQgXi675osPgH8eM1eqS4.b8RjSKTtKcGubHhYfXyjlowhctca3DG"}}}
	in.Site.Redirects = []upkeep.Redirect{
		{From: "/old", To: "https://other.test/new", Status: 301}, {From: "/exact", Exact: true, To: "/to%20there?a=1&b=2", Status: 308},
		{From: "/a.b c", Exact: true, To: "https://x.test/a%25b"}, {From: "/gone", Status: 410},
	}
	in.Site.Headers = map[string]string{"X-Frame-Options": "DENY", "X-Odd": `50% "off" \n; }`}
	w.write(filepath.Join(in.DocumentRoot(), "missing.html"), "not here", 0o644)
	w.write(filepath.Join(in.DocumentRoot(), "private", "x.html"), "members only", 0o644)
	w.mustApply(in)
	w.expect("GET", "example.test", "/", 200, "page of example.test")
	w.expect("GET", "any.example.test", "/", 200, "page of example.test")
	w.expect("GET", "example.test", "/nowhere", 404, "not here")
	w.expect("DELETE", "example.test", "/", 403, "turned away")
	w.expect("GET", "unknown.test", "/", 421, "")
	w.expect("GET", "example.test", "/gone/x", 410, "")
	w.expect("GET", "example.test", "/goner", 404, "")
	w.expect("GET", "example.test", "/private/x.html", 401, "")
	w.expect("GET", "example.test", "/private", 401, "")
	if status, body, _ := w.request("GET", "example.test", "/private/x.html", func(r *http.Request) { r.SetBasicAuth("bob", "secret") }); status != 200 || body != "members only" {
		t.Errorf("with the password: %d %q", status, body)
	}
	for path, want := range map[string]string{
		"/old/deep%20x%0aSet-Cookie:x?q=1": "https://other.test/new/deep%20x%0aSet-Cookie:x?q=1",
		"/exact":                           "http://example.test:" + port(w) + "/to%20there?a=1&b=2", "/a.b%20c": "https://x.test/a%25b",
	} {
		status, _, h := w.get("example.test", path)
		if got := h.Get("Location"); got != want || status/100 != 3 {
			t.Errorf("%s leads to %q with %d, want %q", path, got, status, want)
		}
	}
	if h := w.expect("GET", "www.example.test", "/a%20b?x=1", 307, ""); h.Get("Location") != "http://example.test:"+port(w)+"/a%20b?x=1" {
		t.Errorf("the canonical name is at %s", h.Get("Location"))
	}
	if _, _, h := w.get("example.test", "/nowhere"); h.Get("X-Frame-Options") != "DENY" || h.Get("X-Odd") != `50% "off" \n; }` {
		t.Errorf("headers: %v", h)
	}

	in.Generation, in.Site.Deny = 2, []upkeep.Network{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
	w.mustApply(in)
	w.expect("GET", "example.test", "/", 403, "turned away")
	in.Generation, in.Suspended = 3, true
	w.mustApply(in)
	w.expect("GET", "www.example.test", "/private/x.html", 503, "This site is suspended")

	for _, site := range []upkeep.Site{{CGI: true}, {Headers: map[string]string{"X": "$host"}}, {Headers: map[string]string{"X": ""}}} {
		bad := w.input("bad.test", 1)
		bad.Site.CGI, bad.Site.Headers = site.CGI, site.Headers
		if r := w.apply(bad); r.State != upkeep.JobFailed || r.Field == "" {
			t.Errorf("%+v: %+v", site, r)
		}
	}
	if r := w.apply(w.input("made.test", 1)); r.State != upkeep.JobFailed || r.Field != "name" {
		t.Errorf("a name of the operator's: %+v", r)
	}
	if got := w.Stats().Foreign; !slices.Equal(got, []string{"hand.test", "made.test"}) {
		t.Errorf("foreign names are %q", got)
	}
	w.sync([]vhost.Input{w.input("other.test", 1)})
	if status, _, _ := w.get("example.test", "/"); status != 421 {
		t.Errorf("a site that is gone answers %d", status)
	}
	if v, err := w.options.Server.Version(t.Context()); err != nil || !strings.HasPrefix(v, "nginx/") {
		t.Errorf("%q, %v", v, err)
	}
}

// A name that is longer than nginx has room for is refused by its field, with what helps.
func TestNginxLongName(t *testing.T) {
	w := newNginxWorld(t)
	long := strings.Repeat("long", 15) + "." + strings.Repeat("name", 15) + ".test"
	inAlias := w.input("short.test", 1)
	inAlias.Site.Aliases = []string{"shop." + long}
	for field, in := range map[string]vhost.Input{"name": w.input(long, 1), "aliases": inAlias} {
		r := w.apply(in)
		var hint *upkeep.HintError
		if r.State != upkeep.JobFailed || r.Field != field || !errors.As(r.Err, &hint) || !strings.Contains(r.Err.Error(), "could not build server_names_hash, you should increase") {
			t.Errorf("%s: %+v", field, r)
		}
	}
	w.mustApply(w.input("example.test", 1))
}
