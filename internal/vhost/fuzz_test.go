package vhost

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// reader has a real Apache say what it reads in a file.
type reader struct {
	apache, dir string
	layout      Layout
}

func newReader(t testing.TB) *reader {
	t.Helper()
	testkit.Need(t, "apache2")
	apache, err := testkit.Find("apache2")
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{apache: apache, dir: t.TempDir()}
	at := func(name string) string {
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	r.layout = Layout{Include: at("sites"), Pages: at("pages"), Auth: at("auth"), FPM: at("fpm"), Sockets: at("run"), Logs: at("logs"), Home: at("home"), Listen: "*:80", Group: -1}
	at("home/acme/example.test/htdocs")
	at("logs/example.test")
	return r
}

var modules = []string{
	"mpm_event", "authn_core", "authn_file", "authz_core", "authz_host", "authz_user", "auth_basic", "alias", "dir", "env", "headers", "rewrite", "info", "proxy", "proxy_fcgi",
}

// read returns what Apache makes of a file: its virtual hosts with their names,
// and every directive with its arguments as it has stored them.
func (r *reader) read(t testing.TB, text []byte) (hosts, directives []string) {
	t.Helper()
	site := filepath.Join(r.dir, "site.conf")
	config := "ServerRoot " + r.dir + "\nServerName localhost\nListen 127.0.0.1:9\nErrorLog " + r.dir + "/error.log\nLogFormat %h upkeep\n"
	for _, name := range modules {
		config += "LoadModule " + name + "_module /usr/lib/apache2/modules/mod_" + name + ".so\n"
	}
	config += "<VirtualHost *:80>\nServerName " + UnknownHost + "\n</VirtualHost>\nInclude " + site + "\n"
	for path, text := range map[string]string{site: string(text), filepath.Join(r.dir, "main.conf"): config} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.apache, "-t", "-D", "DUMP_VHOSTS", "-D", "DUMP_CONFIG", "-f", filepath.Join(r.dir, "main.conf"))
	cmd.Env = []string{"SECRET=very-secret", "HOME=/very-secret"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("Apache refuses what was written: %v\n%s\n%s", err, out, text)
	}
	if strings.Contains(string(out), "very-secret") {
		t.Fatalf("a variable of the environment is in the configuration:\n%s", out)
	}
	vhosts, dump, _ := strings.Cut(string(out), "# In file: "+site)
	for _, m := range regexp.MustCompile(`(?m)(?:namevhost|alias) (\S+)`).FindAllStringSubmatch(vhosts, -1) {
		if m[1] != UnknownHost {
			hosts = append(hosts, m[1])
		}
	}
	for line := range strings.Lines(dump) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// A section without arguments is shown with a blank.
		directives = append(directives, strings.NewReplacer("<RequireAll >", "<RequireAll>", "<RequireAny >", "<RequireAny>").Replace(line))
	}
	return hosts, directives
}

// meant are the lines that were written, as the dump shows them.
func meant(text []byte) []string {
	var lines []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// What Apache reads is what was meant, whatever is in the fields of a site: no
// line joins another, no variable is filled in, nothing becomes a directive. What
// cannot be written so is refused.
func FuzzApacheReads(f *testing.F) {
	for _, hostile := range []string{
		"x", "${SECRET}", "%{file:/etc/passwd}", `x\`, `a" b`, "a'b", "a\nInclude /etc/passwd", "a\r\nb", "#", "<VirtualHost *:80>", "</VirtualHost>", "x\x00y", "é", "\xff",
		"|$/bin/sh -c id", "expr=true", "$1", "%1", "~", "!", "-", "a b", "\t", "${", "$ {", `\${SECRET}`, `%\{x}`, "\\\n", "https://x.test/%0aX", strings.Repeat("y", 9000),
	} {
		f.Add(hostile, hostile)
		f.Add("shop.example.test", hostile)
	}
	r := newReader(f)
	f.Fuzz(func(t *testing.T, name, text string) {
		for field, site := range map[string]upkeep.Site{
			"aliases":     {Aliases: []string{name}},
			"error_pages": {ErrorPages: map[string]string{"404": text, "500": "/" + text}},
			"redirects":   {Redirects: []upkeep.Redirect{{From: "/" + name, To: "https://x.test/" + text}, {From: "/" + text, To: "/x", Exact: true}}},
			"exact":       {Redirects: []upkeep.Redirect{{From: "/x", To: text, Exact: true}}},
			"headers":     {Headers: map[string]string{"X-A": text}},
			"environment": {Environment: map[string]string{"A": text}},
			"protect":     {Protect: []upkeep.Protection{{Path: "/" + text, Realm: name}}},
			"realm":       {Protect: []upkeep.Protection{{Path: "/x", Realm: text}}},
			"index":       {Index: []string{text}},
			"root":        {Root: text},
		} {
			in := Input{Site: site, Generation: 1, UID: 20001, Layout: r.layout}
			in.Site.Name, in.Site.Account = "example.test", "acme"
			files, err := Apache{}.Site(in)
			if err != nil {
				continue
			}
			for _, file := range files {
				if file.Path != exactFile("example.test") {
					continue
				}
				hosts, directives := r.read(t, file.Text)
				if want := append([]string{}, append([]string{"example.test", "www.example.test"}, site.Aliases...)...); !slices.Equal(hosts, want) {
					t.Errorf("%s: the hosts are %q, want %q\n%s", field, hosts, want, file.Text)
				}
				if want := meant(file.Text); !slices.Equal(directives, skipDefines(want)) {
					t.Errorf("%s: Apache reads\n%s\nfrom\n%s", field, strings.Join(directives, "\n"), strings.Join(want, "\n"))
				}
			}
		}
	})
}

// skipDefines leaves out what stands in sections that are not taken, and the
// lines of those that are: Apache does not keep them.
func skipDefines(lines []string) []string {
	var kept []string
	skipping := false
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "<IfDefine UPKEEP_PIPED"), strings.HasPrefix(line, "<IfModule"):
			skipping = true
		case line == "</IfDefine>" || line == "</IfModule>":
			skipping = false
		case strings.HasPrefix(line, "<IfDefine"):
		case !skipping:
			kept = append(kept, line)
		}
	}
	return kept
}

// TestEverythingReads is the same for a site with every field.
func TestEverythingReads(t *testing.T) {
	r := newReader(t)
	in := testInput(fullSite())
	in.Layout = r.layout
	in.Site.CGI = false // has sections that depend on modules
	files, err := Apache{}.Site(in)
	if err != nil {
		t.Fatal(err)
	}
	hosts, directives := r.read(t, files[0].Text)
	if want := []string{"example.test", "shop.example.test", "other.test", "example.test", "www.example.test"}; !slices.Equal(hosts, want) {
		t.Errorf("hosts are %q, want %q", hosts, want)
	}
	if want := skipDefines(meant(files[0].Text)); !slices.Equal(directives, want) {
		t.Errorf("Apache reads\n%s\nfrom\n%s", strings.Join(directives, "\n"), strings.Join(want, "\n"))
	}
}

// FuzzNginxSite holds that nothing that is not quoted leaves the writer.
func FuzzNginxSite(f *testing.F) {
	f.Add("x", "; }")
	f.Add("$host", "\"\\")
	f.Fuzz(func(t *testing.T, name, text string) {
		in := testInput(upkeep.Site{Headers: map[string]string{"X-A": text}, Redirects: []upkeep.Redirect{{From: "/" + name, To: text}}, Index: []string{name}})
		files, err := Nginx{}.Site(in)
		if err != nil {
			return
		}
		depth, quoted := 0, false
		conf := files[0].Text
		for i := 0; i < len(conf); i++ {
			switch c := conf[i]; {
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case !quoted && c == '{':
				depth++
			case !quoted && c == '}':
				depth--
			case c == '\n' && quoted:
				t.Fatalf("a quote is open at the end of a line:\n%s", conf)
			}
		}
		if depth != 0 || quoted {
			t.Fatalf("blocks are open:\n%s", conf)
		}
	})
}
