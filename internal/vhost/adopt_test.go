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
		"an exact redirect more": func(s *upkeep.Site) {
			s.Redirects = append(slices.Clone(s.Redirects), upkeep.Redirect{From: "/a.b (1)", Exact: true, To: `https://other.test/x%20y?a=$1&b=c`, Status: 303})
		},
		"an exact one that is gone": func(s *upkeep.Site) {
			s.Redirects = append(slices.Clone(s.Redirects), upkeep.Redirect{From: "/more", Exact: true, Status: 410})
		},
		"no exact redirects": func(s *upkeep.Site) {
			s.Redirects = slices.DeleteFunc(slices.Clone(s.Redirects), func(r upkeep.Redirect) bool { return r.Exact })
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
		"", "# by hand", "Include /etc/passwd", `CustomLog "|/bin/sh" x`, "DocumentRoot /etc", "SetEnv LD_PRELOAD /x", "SetEnv APP_ENV x", "RewriteEngine Off", `RewriteRule "^/a.b$" - "[G,L]"`, `RewriteRule "^/a" - "[G,L]"`, `RewriteRule "^/a$" "/b$1" "[R=302,L,NE]"`, `RewriteRule "^/a$" /b "[P]"`,
		`RewriteRule "^/a$" /b "[G,L]"`, `RewriteRule "^/a$" - "[R=410,L,NE]"`, `RewriteRule "^/a$ - "[G,L]"`, "Redirect 204 /.well-known/upkeep/x", "ErrorDocument 404 /.well-known/upkeep/pages/x",
		`ErrorDocument 404 "text"`, "ErrorDocument 404", "Require all granted", "Require not ip", "Redirect /x /y", "Redirect 302 /x", "Header set X y", "Header always append X y", "ServerAlias", `ServerAlias "x`, "ServerName x.test", "<VirtualHost *:80>", "Require ip not-one",
	} {
		if site, err := Adopt(testInput(fullSite()).Site, nil, []string{"\t" + line}); err == nil {
			t.Errorf("%q becomes %+v", line, site)
		} else if line == "# by hand" && !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// adoptable are the directives whose lines stand for fields that are adopted.
var adoptable = []directive{dServerAlias, dDirectoryIndex, dRequire, dErrorDocument, dRedirect, dHeader, dRewriteEngine, dRewriteRule, "<RequireAny>", "</RequireAny>"}

// frozen is a site without what is adopted.
func frozen(s upkeep.Site) upkeep.Site {
	s.Aliases, s.WWW, s.Index, s.Methods, s.Deny, s.Allow, s.ErrorPages, s.Redirects, s.Headers, s.CanonicalStatus = nil, nil, nil, nil, nil, nil, nil, nil, nil, 0
	return s
}

// FuzzAdopt holds that no line has it panic or change what it was handed, that nothing
// changes but what lines stand for, and that a change of any field is read back from the
// lines that it changes into what those are written from.
func FuzzAdopt(f *testing.F) {
	f.Add("\tServerAlias a.test b.test", "\tServerAlias a.test")
	f.Add("\tErrorDocument 404 \"/a \\\"b\"", "Redirect 302 /old x")
	f.Add("Header always set X \"50%%\"", "Require not ip 192.0.2.1")
	f.Add("RewriteRule \"^/exact$\" \"http://example.test/to\\%20there\" \"[R=301,L,NE]\"", "RewriteRule \"^/a\\.b$\" - \"[G,L]\"")
	for _, text := range []string{"/a.b", "x%20y", `50% "off" \n`, "a.test", "203.0.113.0/24", "https://x.test/$1?%41"} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		before, copied := testInput(fullSite()).Site, testInput(fullSite()).Site
		adopted, err := Adopt(before, []string{one}, []string{other})
		if diff := cmp.Diff(copied, before, cmp.Comparer(func(a, b upkeep.Network) bool { return a == b })); diff != "" {
			t.Fatalf("what was handed in changes: %s", diff)
		}
		if err == nil && writable(adopted) {
			if diff := cmp.Diff(frozen(before), frozen(adopted)); diff != "" {
				t.Errorf("%q and %q change other fields: %s", one, other, diff)
			}
			gone, came := edits(t, before, adopted)
			for _, line := range append(gone, came...) {
				if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); !slices.Contains(adoptable, directive(name)) {
					t.Errorf("%q and %q change the line %q", one, other, line)
				}
			}
		}
		for field, edited := range fieldEdits(one, other) {
			if !writable(edited) {
				continue
			}
			gone, came := edits(t, before, edited)
			adopted, err := Adopt(before, gone, came)
			if err != nil {
				t.Errorf("%s of %q and %q: %v", field, one, other, err)
			} else if diff := cmp.Diff(exactText(t, edited), exactText(t, adopted)); diff != "" {
				t.Errorf("%s of %q and %q: %s", field, one, other, diff)
			}
		}
	})
}

// writable reports whether upkeep takes a site as a document and writes it.
func writable(site upkeep.Site) bool {
	if len(site.Validate()) > 0 {
		return false
	}
	_, err := Apache{}.Site(testInput(site))
	return err == nil
}

// fieldEdits are sites with one field that was changed to hold the texts.
func fieldEdits(one, other string) map[string]upkeep.Site {
	edited := map[string]upkeep.Site{}
	for field, edit := range map[string]func(*upkeep.Site){
		"aliases":       func(s *upkeep.Site) { s.Aliases = append(slices.Clone(s.Aliases), one) },
		"index":         func(s *upkeep.Site) { s.Index = []string{one, other} },
		"error_pages":   func(s *upkeep.Site) { s.ErrorPages = with(s.ErrorPages, "404", "/"+one) },
		"headers":       func(s *upkeep.Site) { s.Headers = with(s.Headers, "X-Frame-Options", one) },
		"a header more": func(s *upkeep.Site) { s.Headers = with(s.Headers, one, other) },
		"exact redirects": func(s *upkeep.Site) {
			s.Redirects = append(slices.Clone(s.Redirects), upkeep.Redirect{From: "/" + one, To: other, Exact: true})
		},
		"what is gone": func(s *upkeep.Site) {
			s.Redirects = append(slices.Clone(s.Redirects), upkeep.Redirect{From: "/" + one, Exact: true, Status: 410})
		},
		"redirects": func(s *upkeep.Site) {
			s.Redirects = append(slices.Clone(s.Redirects), upkeep.Redirect{From: "/r", To: other})
		},
		"deny": func(s *upkeep.Site) {
			var n upkeep.Network
			if n.UnmarshalText([]byte(one)) == nil {
				s.Deny = []upkeep.Network{n}
			}
		},
	} {
		site := testInput(fullSite()).Site
		edit(&site)
		edited[field] = site
	}
	return edited
}
