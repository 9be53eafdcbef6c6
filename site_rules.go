package upkeep

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"upkeep/internal/lazy"
)

// Bounds of a site, far above what real ones have: no site makes the
// configuration of a server that others share large or slow.
const (
	MaxSiteServers = 64
	MaxAliases     = 500
	MaxAddresses   = 5000 // that are denied, or allowed
	MaxErrorText   = 4096 // bytes
	MaxHeaders     = 50
	MaxEnvironment = 100
	MaxRedirects   = 500
	MaxProtections = 20
	MaxUsers       = 200 // of one protection
	maxURL         = 2048
	maxSitePath    = 1024
	maxSubfolders  = 8
)

// Validate holds a site to what can be written into the configuration of Apache
// and nginx and mean nothing more there. Every text field has a positive list of
// what it may hold. None may hold "$", which begins variables of nginx and of
// Apache ("${NAME}" is filled in from root's environment); "%{", which begins
// expressions of Apache, functions that read files among them; a backslash,
// which at the end of a line takes the next one with it; or a control character.
func (s Site) Validate() []FieldError {
	var r rules
	s.checkNames(&r)
	s.checkPlaces(&r)
	s.checkServing(&r)
	s.checkAccess(&r)
	s.checkRedirects(&r)
	s.checkHeaders(&r)
	s.checkEnvironment(&r)
	return r.fields
}

func (s Site) checkNames(r *rules) {
	switch {
	case !ValidHost(s.Name):
		r.add("name", s.Name, "must be a host name such as example.test")
	case len("www."+s.Name) > 253 && s.HasWWW():
		r.add("name", s.Name, "is too long for www. before it; write www: false")
	case len("*."+s.Name) > 253 && s.Wildcard:
		r.add("name", s.Name, "is too long for *. before it")
	}
	if s.WWW != nil && *s.WWW && strings.HasPrefix(s.Name, "www.") {
		r.add("www", *s.WWW, "is not possible: the name begins with www itself")
	}
	r.account("account", s.Account)
	if r.atMost("aliases", len(s.Aliases), MaxAliases) {
		return
	}
	for i, alias := range s.Aliases {
		at := fmt.Sprintf("aliases[%d]", i)
		switch {
		case strings.HasPrefix(alias, "*"):
			r.add(at, alias, "cannot be a wildcard; wildcard: true adds *.%s", s.Name)
		case !ValidHost(alias):
			r.add(at, alias, "must be a host name such as shop.example.test")
		case alias == s.Name:
			r.add(at, alias, "is the name of the site itself")
		case slices.Contains(s.Aliases[:i], alias):
			r.add(at, alias, "is given twice")
		}
	}
	s.checkCanonical(r)
}

func (s Site) checkCanonical(r *rules) {
	switch {
	case s.Canonical == "":
		if s.CanonicalStatus != 0 {
			r.add("canonical_status", s.CanonicalStatus, "has no use without canonical")
		}
		return
	case s.Canonical != "bare" && s.Canonical != "www":
		r.add("canonical", s.Canonical, "must be bare or www")
	case !slices.Contains(s.Names(), "www."+s.Name):
		r.add("canonical", s.Canonical, "needs the name www.%s, which the site does not have", s.Name)
	}
	if s.CanonicalStatus != 0 && !slices.Contains([]int{301, 302, 307, 308}, s.CanonicalStatus) {
		r.add("canonical_status", s.CanonicalStatus, "must be 301, 302, 307 or 308")
	}
}

// plainFolder is a name of a folder or file that no program reads anything into:
// no leading dot or hyphen, no blanks, no quotes.
var plainFolder = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`)

func (s Site) checkPlaces(r *rules) {
	if len(s.Servers) == 0 {
		r.add("servers", nil, "is required: the web servers that answer for the site")
	}
	if !r.atMost("servers", len(s.Servers), MaxSiteServers) {
		for i, server := range s.Servers {
			at := fmt.Sprintf("servers[%d]", i)
			if !ValidObject(server) {
				r.add(at, server, "must be the name of a server")
			} else if slices.Contains(s.Servers[:i], server) {
				r.add(at, server, "is given twice")
			}
		}
	}
	if s.Files != "" && !ValidObject(s.Files) {
		r.add("files", s.Files, "must be the name of a server")
	}
	switch {
	case s.SubOf == "":
	case !ValidHost(s.SubOf):
		r.add("subof", s.SubOf, "must be the name of another site")
	case s.SubOf == s.Name:
		r.add("subof", s.SubOf, "is the site itself")
	case !Within(s.Name, s.SubOf):
		r.add("subof", s.SubOf, "must be a site whose name this one lies below, as blog.example.test lies below example.test")
	}
	if s.Root == "" {
		if root := s.WithDefaults().Root; root != "" && !plainFolder().MatchString(root) && Within(s.Name, s.SubOf) {
			r.add("root", nil, "is required: %s is too long for the name of a folder", root)
		}
		return
	}
	folders := strings.Split(s.Root, "/")
	if len(folders) > maxSubfolders || slices.ContainsFunc(folders, func(f string) bool { return !plainFolder().MatchString(f) }) {
		r.add("root", s.Root, "must be at most %d folders below htdocs, such as public or web/public; "+
			"each of letters, digits, dots, hyphens and underscores, and not beginning with a dot", maxSubfolders)
	}
}

// errorCodes are the statuses that a page can be set for. Apache refuses its
// whole configuration for one that it does not know (seen with 2.4.71).
var errorCodes = strings.Fields(`400 401 402 403 404 405 406 407 408 409 410 411 412 413 414 415 416 417 421 422 423 424 426 428 429 431 451
	500 501 502 503 504 505 506 507 508 510 511`)

// requestMethods are those of RFC 9110 section 9, RFC 5789 and RFC 4918 without
// CONNECT and TRACE, which serve proxies and attacks on cookies.
var requestMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
	"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK"}

func (s Site) checkServing(r *rules) {
	if s.PHP != nil {
		if s.PHP.Children < 0 || s.PHP.Children > 100 {
			r.add("php.children", s.PHP.Children, "must be 1 to 100")
		}
		if s.PHP.Memory != 0 && (s.PHP.Memory < 8 || s.PHP.Memory > 4096) {
			r.add("php.memory", s.PHP.Memory, "must be 8 to 4096 MiB")
		}
	}
	for _, code := range slices.Sorted(maps.Keys(s.ErrorPages)) {
		checkErrorPage(r, code, s.ErrorPages[code])
	}
	if !r.atMost("index", len(s.Index), 20) {
		for i, name := range s.Index {
			at := fmt.Sprintf("index[%d]", i)
			switch {
			case name == "disabled": // which is a word of Apache's DirectoryIndex
				r.add(at, name, "cannot be the name of an index")
			case !plainFolder().MatchString(name):
				r.add(at, name, "must be the name of a file such as index.html")
			case slices.Contains(s.Index[:i], name):
				r.add(at, name, "is given twice")
			}
		}
	}
	if r.atMost("methods", len(s.Methods), len(requestMethods)) {
		return
	}
	for i, method := range s.Methods {
		at := fmt.Sprintf("methods[%d]", i)
		if !slices.Contains(requestMethods, method) {
			r.add(at, method, "must be one of %s", strings.Join(requestMethods, ", "))
		} else if slices.Contains(s.Methods[:i], method) {
			r.add(at, method, "is given twice")
		}
	}
	if len(s.Methods) > 0 && !slices.Contains(s.Methods, "GET") {
		r.add("methods", strings.Join(s.Methods, ", "), "must hold GET, which every server answers (RFC 9110 section 9.1)")
	}
}

func checkErrorPage(r *rules, code, page string) {
	at := "error_pages." + code
	switch {
	case !slices.Contains(errorCodes, code):
		r.add(at, page, "must be for an HTTP status of 400 to 511 that web servers know, such as 404")
	case strings.HasPrefix(page, "/"):
		r.sitePath(at, page)
	case strings.HasPrefix(page, "http://"), strings.HasPrefix(page, "https://"):
		r.add(at, page, "must be the path of a page of the site, or a text; a URL would be shown as text")
	case looksLikePath().MatchString(page):
		r.add(at, page, "must be a text, or a path, which begins with /")
	case strings.TrimSpace(page) == "":
		r.add(at, page, "must be the path of a page of the site, such as /missing.html, or a text")
	case len(page) > MaxErrorText:
		r.add(at, page, "must be at most %d bytes", MaxErrorText)
	case hasControl(strings.NewReplacer("\n", "", "\t", "").Replace(page)) || !utf8.ValidString(page):
		r.add(at, page, "must be text without control characters but line ends and tabs")
	case expands(page):
		r.add(at, page, `must not hold %%{ or ${, which web servers would fill in`)
	}
}

// looksLikePath is a word that nobody would have visitors read: the name of a page,
// or where one is from here.
var looksLikePath = lazy.Regexp(`^\.{1,2}/\S*$|^\S+\.(html?|php)$`)

// expands reports whether Apache would take part of a text for something to fill
// in.
func expands(s string) bool { return strings.Contains(s, "%{") || strings.Contains(s, "${") }

// pathBytes are what a path of a site may be made of. Percent signs are left
// out, since web servers compare decoded paths; stars, brackets, question marks
// and parentheses, since they match more than themselves in some directives.
var pathBytes = lazy.Regexp(`^/[A-Za-z0-9._~@:+,=/-]*$`)

// sitePath checks a path of a site as requests have it.
func (r *rules) sitePath(field, path string) {
	switch {
	case !pathBytes().MatchString(path) || len(path) > maxSitePath:
		r.add(field, path, "must be a path that begins with / and holds at most %d letters, digits and - . _ ~ @ : + , = /", maxSitePath)
	case strings.Contains(path, "//") || slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return s == "." || s == ".." }):
		r.add(field, path, "must not hold //, /./ or /../: requests are compared without them")
	}
}
