package webserver

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// onBoth runs a test with each web server: one declaration means the same on all.
func onBoth(t *testing.T, test func(t *testing.T, server func(testing.TB) *world)) {
	for name, server := range map[string]func(testing.TB) *world{"apache": newWorld, "nginx": newNginxWorld} {
		t.Run(name, func(t *testing.T) { test(t, server) })
	}
}

var bob = map[string]string{"bob": "$2y$05$fQgXi675osPgH8eM1eqS4.b8RjSKTtKcGubHhYfXyjlowhctca3DG"}

func asBob(r *http.Request) { r.SetBasicAuth("bob", "secret") }

// The text of a script is nobody's, however it is reached: with the password, as an
// index, as an error page, with a method that is not the site's.
func TestScriptsAreNeverShown(t *testing.T) {
	onBoth(t, func(t *testing.T, server func(testing.TB) *world) {
		w, start := phpWorld(t, server)
		start()
		w.open()
		in := w.input("example.test", 1)
		in.Site.PHP = &upkeep.PHP{}
		in.Site.Index = []string{"start.php", "index.html"}
		in.Site.ErrorPages = map[string]string{"404": "/missing.php", "403": "/turned-away.php"}
		in.Site.Methods = []string{"GET", "POST"}
		for _, path := range []string{"/admin.php", "/in/start.php", "/in/deep.php/", "/members", "/.htsecret", "/in/.htsecret.php", "/with space.php"} {
			in.Site.Protect = append(in.Site.Protect, upkeep.Protection{Path: path, Users: bob})
		}
		for _, path := range []string{
			"start.php", "admin.php", "missing.php", "turned-away.php", "in/start.php", "in/deep.php", "members/start.php", "members/x.php", ".htsecret", "in/.htsecret.php", "with space.php", "free.php",
		} {
			w.write(filepath.Join(in.DocumentRoot(), path), `<?php /* SOURCE */ echo "ran ", $_SERVER["SCRIPT_NAME"];`, 0o644)
		}
		w.mustApply(in)
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status, body, _ := w.get("example.test", "/free.php")
			return status == 200 && body == "ran /free.php", fmt.Sprint(status, body)
		})
		for _, one := range []struct {
			path    string
			out, in int // status without and with the password
			body    string
		}{
			{"/admin.php", 401, 200, "ran /admin.php"},
			{"//./admin.php?x=1", 401, 200, "ran /admin.php"},
			{"/%61dmin.php", 401, 200, "ran /admin.php"},
			{"/admin.php/x.php", 401, 404, ""},
			{"/with%20space.php", 401, 200, "ran /with space.php"},
			{"/in/deep.php", 401, 200, "ran /in/deep.php"},
			{"/in/", 401, 200, "ran /in/start.php"},
			{"/in/start.php", 401, 200, "ran /in/start.php"},
			{"/members/", 401, 200, "ran /members/start.php"},
			{"/members/x.php", 401, 200, "ran /members/x.php"},
			{"/.htsecret", 401, 403, ""},
			{"/in/.htsecret.php", 401, 403, ""},
			{"/", 200, 200, "ran /start.php"},
			{"/nowhere", 404, 404, "ran /missing.php"},
		} {
			for _, method := range []string{"GET", "POST", "PUT"} {
				status, body, _ := w.request(method, "example.test", one.path, nil)
				if strings.Contains(body, "SOURCE") || method == "GET" && status != one.out && status != 403 {
					t.Errorf("%s %s: %d %q, want %d", method, one.path, status, body, one.out)
				}
				status, body, _ = w.request(method, "example.test", one.path, asBob)
				if strings.Contains(body, "SOURCE") || method == "GET" && (status != one.in || !strings.Contains(body, one.body)) || method == "PUT" && status/100 == 2 {
					t.Errorf("%s %s as bob: %d %q, want %d %q", method, one.path, status, body, one.in, one.body)
				}
			}
		}
		// Nor where PHP is turned off, and the scripts are left.
		in.Generation, in.Site.PHP = 2, nil
		in.Site.Redirects = []upkeep.Redirect{{From: "/old.php", To: "https://example.test/new"}, {From: "/older.php", Exact: true, To: "https://example.test/new"}}
		w.mustApply(in)
		w.expect("GET", "example.test", "/old.php", 302, "")
		w.expect("GET", "example.test", "/older.php", 302, "")
		for _, path := range []string{"/free.php", "/admin.php", "//./admin.php?x=1", "/%61dmin.php", "/in/deep.php", "/in/", "/members/", "/members/x.php", "/with%20space.php", "/", "/nowhere"} {
			status, body, _ := w.request("GET", "example.test", path, asBob)
			if strings.Contains(body, "SOURCE") || status == 200 && path != "/" {
				t.Errorf("%s without PHP: %d %q", path, status, body)
			}
		}
	})
}
