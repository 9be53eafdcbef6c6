package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"upkeep"
	"upkeep/internal/testkit"
)

// The sessions in testdata/sites have sites served by a real Apache of their own.
func TestSitesSessions(t *testing.T) {
	testkit.Need(t, "apache2")
	p := sessions("testdata/sites")
	p.Setup = setupSites
	p.Cmds["asks"] = cmdAsks
	p.Cmds["page"] = cmdPage
	p.Cmds["edit"] = cmdEdit
	testscript.Run(t, p)
}

// setupSites lets the web server's user into the session's folder, and gives the
// session an address for its web server.
func setupSites(env *testscript.Env) error {
	if err := setupSession(env); err != nil {
		return err
	}
	for _, dir := range []string{env.WorkDir, filepath.Dir(env.WorkDir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	text, err := os.ReadFile("../../examples/sites.yaml")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(env.WorkDir, "sites.yaml"), text, 0o644); err != nil {
		return err
	}
	env.Setenv("UPKEEP_APACHE", strings.Replace(env.Getenv("HTTP"), ".80:", ".90:", 1))
	env.Setenv("SITES_DIR", filepath.Join(env.WorkDir, "data", localServer, "sites"))
	return nil
}

// siteStatus is what a session's upkeep says of a site or, for names that are
// aliases, of the first site that there is: where it is served.
func siteStatus(ts *testscript.TestScript, name string) upkeep.SiteStatus {
	if err := ts.Exec("upkeep", "site", "show", name, "-o", "json"); err == nil {
		var site upkeep.SiteStatus
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &site))
		return site
	}
	return upkeep.SiteStatus{}
}

// webServer is where the session's server answers.
func webServer(ts *testscript.TestScript) string {
	ts.Check(ts.Exec("upkeep", "server", "list", "-o", "json"))
	var servers []upkeep.AgentStatus
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &servers))
	for _, s := range servers {
		if s.Facts != nil && s.Facts.URL != "" {
			return s.Facts.URL
		}
	}
	ts.Fatalf("no server says where it answers")
	return ""
}

// cmdAsks requests a page of a site, which must be answered with a status. Its
// headers and its body are then the standard output: asks 200 example.test /
func cmdAsks(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: asks STATUS NAME PATH")
	}
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	url := webServer(ts) + args[2]
	eventually(ts, "asks "+strings.Join(args, " "), func() (bool, string) {
		got, text, err := ask(url, args[1])
		if err != nil {
			return false, err.Error()
		}
		fmt.Fprint(ts.Stdout(), text)
		return got == status, fmt.Sprintf("%d\n%s", got, text)
	})
}

func ask(url, host string) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	request.Host, request.Close = host, true
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	var b strings.Builder
	for name, values := range response.Header {
		fmt.Fprintf(&b, "%s: %s\n", strings.ToLower(name), strings.Join(values, ", "))
	}
	return response.StatusCode, b.String() + "\n" + string(body), err
}

// cmdPage writes a page of a site: page example.test index.html TEXT.
func cmdPage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: page SITE FILE TEXT")
	}
	root := siteStatus(ts, args[0]).DocumentRoot
	if root == "" {
		ts.Fatalf("nobody says where the pages of %s are", args[0])
	}
	ts.Check(os.WriteFile(filepath.Join(root, args[1]), []byte(args[2]+"\n"), 0o644))
}

// cmdEdit replaces a text in a file: edit FILE OLD NEW, where \n in NEW ends a line.
func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	text, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	changed := bytes.ReplaceAll(text, []byte(args[1]), []byte(strings.ReplaceAll(args[2], `\n`, "\n")))
	if bytes.Equal(text, changed) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), changed, 0o600))
}
