package webserver

import (
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
)

// The rest of a path is joined by a slash, so that nothing goes on with the name of
// the host, and both servers send to the same place.
func TestRedirects(t *testing.T) {
	const host = "https://other.test"
	table := []struct {
		from, to string
		ask      map[string]string // path: where it leads; "" when nowhere
	}{
		{"/", host, map[string]string{
			"/": host + "/", "/foo": host + "/foo", "/.evil.test/x": host + "/.evil.test/x", "/@evil.test": host + "/@evil.test", "/:8080/x": host + "/:8080/x",
			"/foo?q=1": host + "/foo?q=1", "/?q=1": host + "/?q=1", "/a%20b/": host + "/a%20b/"}},
		{"/", host + "/", map[string]string{"/": host + "/", "/foo": host + "/foo", "/foo/": host + "/foo/", "/?q": host + "/?q"}},
		{"/", host + "/new", map[string]string{"/": host + "/new/", "/foo": host + "/new/foo", "/.evil.test": host + "/new/.evil.test", "/foo?q=1": host + "/new/foo?q=1"}},
		{"/", host + "/new/", map[string]string{"/": host + "/new/", "/foo": host + "/new/foo", "/foo?q=1": host + "/new/foo?q=1"}},
		{"/", host + "?to=1", map[string]string{"/.evil.test": host + "?to=1/.evil.test", "/a?q=1": host + "?to=1/a"}},
		{"/a", host, map[string]string{"/a": host, "/a/": host + "/", "/a/.evil.test": host + "/.evil.test", "/a?q=1": host + "?q=1", "/ab": "", "/": ""}},
		{"/a", host + "/", map[string]string{"/a": host + "/", "/a/": host + "/", "/a/b": host + "/b", "/a?q=1": host + "/?q=1", "/a.evil.test": ""}},
		{"/a", host + "/new", map[string]string{"/a": host + "/new", "/a/": host + "/new/", "/a/b": host + "/new/b", "/a/b?q=1": host + "/new/b?q=1", "/ab": ""}},
		{"/a", host + "/new/", map[string]string{"/a": host + "/new/", "/a/": host + "/new/", "/a/b": host + "/new/b", "/a/b?q=1": host + "/new/b?q=1"}},
		{"/a/", host, map[string]string{"/a": host, "/a/": host + "/", "/a/.evil.test": host + "/.evil.test", "/a/b?q=1": host + "/b?q=1", "/a.evil.test": ""}},
		{"/a/", host + "/", map[string]string{"/a": host + "/", "/a/": host + "/", "/a/b": host + "/b"}},
		{"/a/", host + "/new", map[string]string{"/a": host + "/new", "/a/": host + "/new/", "/a/b": host + "/new/b", "/a/b?q=1": host + "/new/b?q=1"}},
		{"/a/", host + "/new/", map[string]string{"/a": host + "/new/", "/a/b": host + "/new/b", "/a/?q=1": host + "/new/?q=1"}},
		{"/a", host + "/new?x=1", map[string]string{"/a": host + "/new?x=1", "/a?q=1": host + "/new?x=1"}},
		{"/.well-known", host, map[string]string{"/.well-known/acme-challenge/x": host + "/acme-challenge/x", "/": ""}},
	}
	onBoth(t, func(t *testing.T, server func(testing.TB) *world) {
		w := server(t)
		in := w.input("example.test", 0)
		for _, one := range table {
			in.Generation++
			in.Site.Redirects = []upkeep.Redirect{{From: one.from, To: one.to}}
			w.mustApply(in) // which has it proven behind the redirect
			for path, want := range one.ask {
				status, _, h := w.get("example.test", path)
				got := h.Get("Location")
				if strings.Contains(got, w.options.Address) || strings.Contains(got, "example.test") {
					got = "" // a folder's slash
				}
				if got != want || want != "" && status != 302 {
					t.Errorf("%s to %s: %s leads to %q with %d, want %q", one.from, one.to, path, got, status, want)
				}
			}
		}
	})
}

// What is gone is told by the page that the site has for it, also where that lies below
// what is gone, and on nginx, which goes on to the page with the request as it was sent.
func TestGone(t *testing.T) {
	onBoth(t, func(t *testing.T, server func(testing.TB) *world) {
		w := server(t)
		in := w.input("example.test", 0)
		for file, text := range map[string]string{"gone.html": "the page of what is gone", "a/gone one.html": "the page of what is gone", "missing.html": "the page of what is not there"} {
			w.write(filepath.Join(in.DocumentRoot(), file), text, 0o644)
		}
		for page, says := range map[string]string{"gone for good": "gone for good", "/gone.html": "the page of what is gone", "/a/gone%20one.html": "the page of what is gone"} {
			for _, r := range []upkeep.Redirect{
				{From: "/", Status: 410}, {From: "/.well-known/", Status: 410}, {From: "/a/", Status: 410}, {From: "/a", Exact: true, Status: 410}, {From: "/gone.htm", Status: 410},
			} {
				in.Generation++
				in.Site.Redirects = []upkeep.Redirect{r}
				in.Site.ErrorPages = map[string]string{"410": page, "404": "/missing.html"}
				w.mustApply(in)
				w.expect("GET", "example.test", strings.TrimSuffix(r.From, "/"), 410, says)
				if !r.Exact {
					w.expect("GET", "example.test", strings.TrimSuffix(r.From, "/")+"/x?y", 410, says)
				}
				if r.From != "/" {
					w.expect("GET", "example.test", "/nowhere", 404, "the page of what is not there")
				}
			}
		}
	})
}
