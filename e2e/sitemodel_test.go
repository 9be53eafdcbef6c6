package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"upkeep"
	"upkeep/internal/testkit"
)

// A user of protected paths: bcrypt of the password.
const (
	knownUser     = "alice"
	knownPassword = "secret"
	knownHash     = "$2y$05$Ud.N4/E1iXzGrcVFq9r0gux1iOuiN/Dm8UT7rCD3/x0B0DGOh0cfq"
)

// edit changes one field of a site at random, so that it stays valid.
type edit struct {
	field string
	do    func(*rand.Rand, *upkeep.Site)
}

// edits has one for every field that a site has, but for its name and for subof,
// which is given when a site is made. Servers, account and suspended are changed
// by verbs of their own.
var edits = []edit{
	{"aliases", func(r *rand.Rand, s *upkeep.Site) {
		s.Aliases = nil
		for i := range r.IntN(4) {
			s.Aliases = append(s.Aliases, fmt.Sprintf("a%d-%d.%s", i, r.IntN(3), s.Name))
		}
	}},
	{"www", func(r *rand.Rand, s *upkeep.Site) {
		s.WWW = nil
		if r.IntN(2) == 0 {
			s.WWW, s.Canonical, s.CanonicalStatus = new(false), "", 0
		}
	}},
	{"wildcard", func(_ *rand.Rand, s *upkeep.Site) { s.Wildcard = !s.Wildcard }},
	{"root", func(r *rand.Rand, s *upkeep.Site) {
		s.Root = pick(r, "", "public", "web/public")
	}},
	// No cgi: these servers are shared and have no suexec, so it is refused there.
	{"error_pages", func(r *rand.Rand, s *upkeep.Site) {
		s.ErrorPages = map[string]string{}
		if r.IntN(3) > 0 {
			s.ErrorPages["404"] = pick(r, "/missing.html", `Not "here": 100 % sure, $5`, "Two\nlines")
		}
		if r.IntN(2) > 0 {
			s.ErrorPages["403"] = "Nothing to see here yet."
		}
	}},
	{"index", func(r *rand.Rand, s *upkeep.Site) {
		s.Index = pick(r, nil, []string{"start.html"}, []string{"home.html", "index.html"})
	}},
	{"deny", func(r *rand.Rand, s *upkeep.Site) {
		s.Deny = pick(r, nil, networks("192.0.2.0/24"), networks("192.0.2.7", "198.51.100.0/24", "2001:db8::/32"))
	}},
	{"allow", func(r *rand.Rand, s *upkeep.Site) {
		s.Allow = pick(r, nil, networks("10.53.0.0/24"), networks("10.53.0.2", "2001:db8::1"))
	}},
	{"methods", func(r *rand.Rand, s *upkeep.Site) {
		s.Methods = pick(r, nil, []string{"GET", "HEAD"}, []string{"GET", "HEAD", "OPTIONS"})
	}},
	{"protect", func(r *rand.Rand, s *upkeep.Site) {
		users := map[string]string{knownUser: knownHash}
		s.Protect = pick(r, nil, []upkeep.Protection{{Path: "/", Users: users}}, []upkeep.Protection{{Path: "/private", Realm: "staff only", Users: users}})
	}},
	{"canonical", func(r *rand.Rand, s *upkeep.Site) {
		s.Canonical, s.CanonicalStatus = "", 0
		if s.HasWWW() {
			s.Canonical, s.CanonicalStatus = pick(r, "bare", "www"), pick(r, 0, 301, 308)
		}
	}},
	{"redirects", func(r *rand.Rand, s *upkeep.Site) {
		s.Redirects = pick(r, nil,
			[]upkeep.Redirect{{From: "/old", To: "https://elsewhere.invalid/new", Status: pick(r, 0, 301, 308)}},
			[]upkeep.Redirect{{From: "/gone", Exact: true, To: "https://elsewhere.invalid/x%20y", Status: 303}, {From: "/old", To: "https://elsewhere.invalid/"}})
	}},
	{"headers", func(r *rand.Rand, s *upkeep.Site) {
		s.Headers = pick(r, nil, map[string]string{"X-Kept": fmt.Sprintf(`so "it" is %d %% (100)`, r.IntN(100))}, map[string]string{"X-Kept": "1", "X-Powered-By": ""})
	}},
	{"environment", func(r *rand.Rand, s *upkeep.Site) {
		s.Environment = pick(r, nil, map[string]string{"APP_MODE": fmt.Sprintf("mode %d", r.IntN(100))})
	}},
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func networks(texts ...string) []upkeep.Network {
	var all []upkeep.Network
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr := netip.MustParseAddr(text)
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		all = append(all, upkeep.Network{Prefix: prefix})
	}
	return all
}

// page is what a site shows of itself.
func page(s upkeep.Site) string { return "the page of " + s.Name + "\n" }

// missingPage is what it shows for /missing.html.
func missingPage(s upkeep.Site) string { return "not at " + s.Name + "\n" }

// cgiProgram says as whom it runs.
const cgiProgram = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nI am %s\\n' $(id -u)\n"

// writePages has the owner of a site put pages where the server has made folders
// for it, and nowhere else.
func (h *hosting) writePages(s upkeep.Site, account string) error {
	full := s.WithDefaults()
	servers, folder := full.Servers, full.Name
	if full.Files != "" {
		servers = []string{full.Files}
	}
	if full.SubOf != "" {
		folder = full.SubOf
	}
	for _, server := range servers {
		home := h.machine(server).path(filepath.Join("home", account, folder))
		files := map[string]string{
			filepath.Join("htdocs", full.Root, full.Index[0]):  page(s),
			filepath.Join("htdocs", full.Root, "missing.html"): missingPage(s),
		}
		if s.CGI && s.SubOf == "" {
			files["cgi-bin/whoami"] = cgiProgram
		}
		for name, text := range files {
			// No folder is made here: that they are there is upkeep's to see to.
			// It comes into its place whole: visitors ask for it meanwhile.
			file := filepath.Join(home, name)
			err := testkit.WriteProgram(file+".new", []byte(text)) // one of them is run for visitors
			if err == nil {
				owner := ownerOf(filepath.Dir(file))
				err = os.Chown(file+".new", owner, owner)
			}
			if err == nil {
				err = os.Rename(file+".new", file)
			}
			if err != nil {
				return fmt.Errorf("%s: the folders of %s: %w", server, s.Name, err)
			}
		}
	}
	return nil
}

// ownerOf is the number of the user whose folder it is, -1 when there is none.
func ownerOf(path string) int {
	info, err := os.Stat(path)
	if err != nil {
		return -1
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// faults says how the answers of a site on one machine differ from what is
// declared, as a visitor sees it.
func (h *hosting) faults(m *machine, s upkeep.Site, suspended bool, others map[string]string) []string {
	v := &visit{h: h, m: m, site: s.WithDefaults()}
	v.main = s.Name
	if s.Canonical == "www" {
		v.main = "www." + s.Name
	}
	for _, name := range s.Names() {
		if wild, is := strings.CutPrefix(name, "*."); is {
			if name = "anything-else." + wild; others[name] != "" {
				continue
			}
		}
		switch {
		case suspended:
			v.expect(name, "/", true, 503, "")
		case s.Canonical != "" && name != v.main && (name == s.Name || name == "www."+s.Name):
			v.location(name, "/a/b", v.site.CanonicalStatus, "http://"+v.main+"/a/b")
		default:
			v.expect(name, "/", true, 200, page(s))
		}
	}
	if !suspended {
		v.fields()
	}
	return v.found
}

// visit asks one machine for one site.
type visit struct {
	h     *hosting
	m     *machine
	site  upkeep.Site
	main  string
	found []string
}

func (v *visit) fault(format string, args ...any) {
	v.found = append(v.found, fmt.Sprintf("%s on %s: ", v.site.Name, v.m.Name)+fmt.Sprintf(format, args...))
}

// expect asks for a path; an empty body is any.
func (v *visit) expect(name, path string, password bool, status int, body string) answer {
	got, err := v.h.ask(v.m, http.MethodGet, name, path, password)
	if err != nil || got.status != status || body != "" && got.body != body {
		v.fault("http://%s%s answers %d %q, %v; wanted %d %q", name, path, got.status, got.body[:min(len(got.body), 200)], err, status, body)
	}
	return got
}

func (v *visit) location(name, path string, status int, to string) {
	got := v.expect(name, path, true, status, "")
	if got.header.Get("Location") != to {
		v.fault("http://%s%s sends on to %q, wanted %q", name, path, got.header.Get("Location"), to)
	}
}

// fields checks each field that a visitor can see.
func (v *visit) fields() {
	s := v.site
	for name, want := range s.Headers {
		if got := v.expect(v.main, "/", true, 200, "").header; want != "" && got.Get(name) != want {
			v.fault("header %s is %q, wanted %q", name, got.Get(name), want)
		}
	}
	switch text := s.ErrorPages["404"]; {
	case strings.HasPrefix(text, "/"):
		v.expect(v.main, "/not-there", true, 404, missingPage(s))
	case text != "":
		v.expect(v.main, "/not-there", true, 404, text)
	default:
		v.expect(v.main, "/not-there", true, 404, "")
	}
	for _, p := range s.Protect {
		v.expect(v.main, p.Path, false, 401, "")
	}
	for _, r := range s.Redirects {
		v.location(v.main, r.From, r.Status, r.To)
	}
	if got, err := v.h.ask(v.m, http.MethodPost, v.main, "/", true); err != nil || (got.status == 200) != slices.Contains(s.Methods, "POST") {
		v.fault("POST answers %d, %v; methods are %v", got.status, err, s.Methods)
	}
	if s.CGI && s.SubOf == "" {
		server := v.m
		if s.Files != "" {
			server = v.h.machine(s.Files)
		}
		owner := ownerOf(server.path(filepath.Join("home", s.Account, s.Name, "cgi-bin")))
		if owner < upkeep.MinUID {
			v.fault("cgi-bin belongs to %d", owner)
		}
		v.expect(v.main, "/cgi-bin/whoami", true, 200, fmt.Sprintf("I am %d\n", owner))
	}
}
