package vhost

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upkeep"
)

// What is edited in a file as upkeep would write it is read back into the fields that
// it would be written from.
func TestAdopt(t *testing.T) {
	for name, edit := range map[string]func(*upkeep.Site){
		"an alias more":    func(s *upkeep.Site) { s.Aliases = append(slices.Clone(s.Aliases), "more.test") },
		"other aliases":    func(s *upkeep.Site) { s.Aliases = []string{"first.test", "other.test"} },
		"no alias":         func(s *upkeep.Site) { s.Aliases = nil },
		"another page":     func(s *upkeep.Site) { s.ErrorPages = with(s.ErrorPages, "404", "/by-hand.html") },
		"a page more":      func(s *upkeep.Site) { s.ErrorPages = with(s.ErrorPages, "410", "/gone.html") },
		"index":            func(s *upkeep.Site) { s.Index = []string{"start.html", "index.html"} },
		"a denied address": func(s *upkeep.Site) { s.Deny = append(slices.Clone(s.Deny), network("203.0.113.9/32")) },
		"other addresses":  func(s *upkeep.Site) { s.Allow = []upkeep.Network{network("2001:db8:1::/48")} },
		"methods":          func(s *upkeep.Site) { s.Methods = []string{"GET", "POST", "DELETE"} },
		"a redirect more": func(s *upkeep.Site) {
			s.Redirects = append(slices.Clone(s.Redirects), upkeep.Redirect{From: "/by-hand", To: "https://other.test/", Status: 307})
		},
		"a header":          func(s *upkeep.Site) { s.Headers = with(s.Headers, "X-Hand", `100% "sure" \`+"x") },
		"another header":    func(s *upkeep.Site) { s.Headers = with(s.Headers, "X-Frame-Options", "SAMEORIGIN") },
		"several at a time": func(s *upkeep.Site) { s.Index, s.Methods = []string{"a.html"}, []string{"GET"} },
		"www that is no name": func(s *upkeep.Site) {
			if s.Canonical == "" {
				s.WWW = new(bool)
			}
		},
		"another status": func(s *upkeep.Site) {
			if s.Canonical != "" {
				s.CanonicalStatus = 301
			}
		},
		"a redirect less": func(s *upkeep.Site) {
			if len(s.Redirects) > 0 {
				s.Redirects = s.Redirects[1:]
			}
		},
		"another redirect": func(s *upkeep.Site) {
			if len(s.Redirects) > 0 {
				s.Redirects = append([]upkeep.Redirect{{From: "/old", To: "/elsewhere", Status: 301}}, s.Redirects[1:]...)
			}
		},
	} {
		for base, site := range map[string]upkeep.Site{"minimal": {}, "full": fullSite()} {
			site = testInput(site).Site
			edited := site
			edit(&edited)
			gone, came := edits(t, site, edited)
			before := exactText(t, site)
			adopted, err := Adopt(site, gone, came)
			if err != nil {
				t.Errorf("%s of a %s site: %v", name, base, err)
				continue
			}
			if diff := cmp.Diff(exactText(t, edited), exactText(t, adopted)); diff != "" {
				t.Errorf("%s of a %s site: %s", name, base, diff)
			}
			if exactText(t, site) != before {
				t.Errorf("%s of a %s site changes what was handed in", name, base)
			}
		}
	}
}

func with(m map[string]string, name, text string) map[string]string {
	more := map[string]string{name: text}
	for key, value := range m {
		if key != name {
			more[key] = value
		}
	}
	return more
}

// exactText is the file of a site's exact names, without what says which version it is.
func exactText(t *testing.T, site upkeep.Site) string {
	t.Helper()
	files, err := Apache{}.Site(testInput(site))
	if err != nil {
		t.Fatal(err)
	}
	text := string(files[0].Text)
	text = strings.ReplaceAll(text, tokenPath(files[0].Text), "TOKEN")
	return text[strings.IndexByte(text, '\n')+1:]
}

// edits are the lines that are in one file and not in the other.
func edits(t *testing.T, before, after upkeep.Site) (gone, came []string) {
	t.Helper()
	was, is := strings.Split(exactText(t, before), "\n"), strings.Split(exactText(t, after), "\n")
	only := func(some, others []string) []string {
		return slices.DeleteFunc(slices.Clone(some), func(line string) bool { return slices.Contains(others, line) })
	}
	return only(was, is), only(is, was)
}

// What stands for no field is refused, whatever it is.
func TestAdoptRefuses(t *testing.T) {
	for _, line := range []string{
		"", "# by hand", "Include /etc/passwd", `CustomLog "|/bin/sh" x`, "DocumentRoot /etc", "SetEnv LD_PRELOAD /x", "Redirect 204 /.well-known/upkeep/x", "ErrorDocument 404 /.well-known/upkeep/pages/x",
		`ErrorDocument 404 "text"`, "ErrorDocument 404", "Require all granted", "Require not ip", "Redirect /x /y", "Redirect 302 /x", "Header set X y", "Header always append X y", "ServerAlias", `ServerAlias "x`, "ServerName x.test", "<VirtualHost *:80>", "Require ip not-one",
	} {
		if site, err := Adopt(testInput(fullSite()).Site, nil, []string{"\t" + line}); err == nil {
			t.Errorf("%q becomes %+v", line, site)
		} else if line == "# by hand" && !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// FuzzAdopt holds that no line has it panic, and that of what it takes nothing is
// written that upkeep would not write of a field.
func FuzzAdopt(f *testing.F) {
	f.Add("\tServerAlias a.test b.test", "\tServerAlias a.test")
	f.Add("\tErrorDocument 404 \"/a \\\"b\"", "Redirect 302 /old x")
	f.Add("Header always set X \"50%%\"", "Require not ip 192.0.2.1")
	f.Fuzz(func(t *testing.T, gone, came string) {
		site, err := Adopt(testInput(fullSite()).Site, []string{gone}, []string{came})
		if err != nil {
			return
		}
		files, err := Apache{}.Site(testInput(site))
		if err != nil || len(site.Validate()) > 0 {
			return // as of any document
		}
		if strings.Contains(string(files[0].Text), "${") && strings.Count(string(files[0].Text), "${") > 1 {
			t.Errorf("%q and %q become %s", gone, came, files[0].Text)
		}
	})
}
