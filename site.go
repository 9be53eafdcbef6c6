package upkeep

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Site is one virtual host. Everything that is generated for it is a pure
// function of this row; no field is ever a path or a directive.
//
// Its files are on its files server, or on each web server when none is named:
//
//	HOME/ACCOUNT                   root's, 0751: nobody but root makes entries here
//	HOME/ACCOUNT/SITE              the account's, 0750
//	HOME/ACCOUNT/SITE/htdocs       what is served
//	HOME/ACCOUNT/SITE/cgi-bin      when CGI is on
//	HOME/ACCOUNT/SITE/log          a link to its log folder, which is root's
type Site struct {
	// Name is the main server name, in A-labels and lower case.
	Name    string `json:"name"`
	Account string `json:"account"`
	// Servers are the web servers that answer for it, each with role web.
	Servers []string `json:"servers"`
	// Files is the server that holds its files, with role files, where web
	// servers mount them from there.
	Files string `json:"files,omitempty"`

	// Aliases are further names. WWW adds www.NAME, and is on when left out.
	// Wildcard adds *.NAME, behind every exact name of anybody.
	Aliases  []string `json:"aliases,omitempty"`
	WWW      *bool    `json:"www,omitempty"`
	Wildcard bool     `json:"wildcard,omitempty"`
	// SubOf names another site of the account whose folder this one lives in:
	// its pages are in htdocs/ROOT of that site.
	SubOf string `json:"subof,omitempty"`
	// Root is the folder of the pages below htdocs, such as "public"; htdocs
	// itself when left out, and for a sub-site the part of its name before the
	// other's.
	Root string `json:"root,omitempty"`

	// CGI runs programs in cgi-bin as the account's own user, where the server can.
	CGI bool `json:"cgi,omitempty"`
	// PHP runs scripts by php-fpm as the account's own user; off when left out.
	PHP *PHP `json:"php,omitempty"`
	// ErrorPages are what is shown for a status, by its code: the path of a page
	// of the site, such as "/missing.html", or a text of up to 4 KiB.
	ErrorPages map[string]string `json:"error_pages,omitempty"`
	// Index are the names that are tried for a folder; index.html and, with
	// PHP, index.php when left out.
	Index []string `json:"index,omitempty"`

	// Deny refuses these addresses, Allow all but these; with both, Deny wins.
	Deny  []Network `json:"deny,omitempty"`
	Allow []Network `json:"allow,omitempty"`
	// Methods are the request methods that are answered; GET, HEAD and POST when
	// left out.
	Methods []string `json:"methods,omitempty"`
	// Protect asks for a password below a path.
	Protect []Protection `json:"protect,omitempty"`

	// Canonical sends visitors of the other name on: "bare" from www.NAME to
	// NAME, "www" the reverse. CanonicalStatus is 301, 302, 307 (when left out,
	// since browsers do not remember it) or 308.
	Canonical       string     `json:"canonical,omitempty"`
	CanonicalStatus int        `json:"canonical_status,omitempty"`
	Redirects       []Redirect `json:"redirects,omitempty"`
	// Headers are added to every answer; an empty value takes one away.
	Headers map[string]string `json:"headers,omitempty"`
	// Environment is handed to CGI programs and PHP.
	Environment map[string]string `json:"environment,omitempty"`

	// Suspended sites answer 503 and keep everything.
	Suspended bool `json:"suspended,omitempty"`
}

// PHP are the limits of a site's php-fpm pool.
type PHP struct {
	// Children is the most processes at a time, 5 when left out.
	Children int `json:"children,omitempty"`
	// Memory is memory_limit in MiB, 128 when left out.
	Memory int `json:"memory,omitempty"`
}

// Protection asks for a password below a path (RFC 7617).
type Protection struct {
	// Path begins with a slash: "/" for the whole site.
	Path  string `json:"path"`
	Realm string `json:"realm,omitempty"` // "restricted" when left out
	// Users are hashes by user name, as htpasswd -B makes them ($2y$...).
	Users map[string]string `json:"users"`
}

// Redirect sends requests for a path on.
type Redirect struct {
	// From is a path that begins with a slash; what follows it is appended to To
	// unless Exact is set.
	From  string `json:"from"`
	Exact bool   `json:"exact,omitempty"`
	// To is an absolute http or https URL, or a path of the site.
	To     string `json:"to"`
	Status int    `json:"status,omitempty"` // 301, 302 (when left out), 303, 307, 308 or 410
}

func (s Site) ObjectKind() string { return KindSite }
func (s Site) ObjectName() string { return s.Name }

// Names are all names that the site answers to, its main one first, a wildcard
// ("*.example.test") last. Each belongs to one site only.
func (s Site) Names() []string {
	names := []string{s.Name}
	if s.HasWWW() {
		names = append(names, "www."+s.Name)
	}
	for _, alias := range s.Aliases {
		if !slices.Contains(names, alias) {
			names = append(names, alias)
		}
	}
	if s.Wildcard {
		names = append(names, "*."+s.Name)
	}
	return names
}

// HasWWW reports whether www.NAME is one of the names: unless it is turned off,
// or the name begins with www itself.
func (s Site) HasWWW() bool {
	return (s.WWW == nil || *s.WWW) && !strings.HasPrefix(s.Name, "www.")
}

// WithDefaults fills in what was left out. What is stored and shown is what the
// operator wrote; what is generated comes from this.
func (s Site) WithDefaults() Site {
	www := s.HasWWW()
	s.WWW = &www
	if s.SubOf != "" {
		s.Root = orString(s.Root, strings.TrimSuffix(s.Name, "."+s.SubOf))
	}
	if s.PHP != nil {
		s.PHP = &PHP{orInt(s.PHP.Children, 5), orInt(s.PHP.Memory, 128)}
	}
	if len(s.Index) == 0 {
		s.Index = []string{"index.html"}
		if s.PHP != nil {
			s.Index = append(s.Index, "index.php")
		}
	}
	if len(s.Methods) == 0 {
		s.Methods = []string{"GET", "HEAD", "POST"}
	}
	if s.Canonical != "" {
		s.CanonicalStatus = orInt(s.CanonicalStatus, 307)
	}
	s.Protect = slices.Clone(s.Protect)
	for i := range s.Protect {
		s.Protect[i].Realm = orString(s.Protect[i].Realm, "restricted")
	}
	s.Redirects = slices.Clone(s.Redirects)
	for i := range s.Redirects {
		s.Redirects[i].Status = orInt(s.Redirects[i].Status, 302)
	}
	return s
}

// Network is an address or a prefix, as "192.0.2.1" or "2001:db8::/32".
type Network struct{ netip.Prefix }

// UnmarshalText reads an address, which stands for itself alone, or a prefix
// without bits behind its length.
func (n *Network) UnmarshalText(text []byte) error {
	s := string(text)
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		n.Prefix = netip.PrefixFrom(addr, addr.BitLen())
		return nil
	}
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return &networkError{s, "must be an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32"}
	case prefix.Masked() != prefix:
		return &networkError{s, "has bits set behind its length: write " + prefix.Masked().String()}
	}
	n.Prefix = prefix
	return nil
}

// MarshalText writes a prefix of one address as that address.
func (n Network) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

func (n Network) String() string {
	if n.IsSingleIP() {
		return n.Addr().String()
	}
	return n.Prefix.String()
}

// Compare orders networks by address, then by length.
func (n Network) Compare(o Network) int {
	return cmp.Or(n.Addr().Compare(o.Addr()), cmp.Compare(n.Bits(), o.Bits()))
}

type networkError struct{ value, rule string }

func (e *networkError) Error() string { return `"` + Printable(e.value) + `" ` + e.rule }

// States of a site, as people see them.
const (
	SiteLive      = "live"
	SitePending   = "pending"
	SiteFailed    = "failed"
	SiteSuspended = "suspended"
)

// SiteStatus is what is being done about a site.
type SiteStatus struct {
	Name       string `json:"name"`
	Account    string `json:"account"`
	Generation int64  `json:"generation"`
	State      string `json:"state"`
	// Reason is one sentence.
	Reason       string         `json:"reason"`
	DocumentRoot string         `json:"document_root"`
	Names        []string       `json:"names"`
	Servers      []ServedStatus `json:"servers"`
}

// SiteFilter says which sites are wanted; its zero value means all.
type SiteFilter struct {
	// Account is whose they are; Holds is in one of their names, in their account or
	// in the name of one of their servers; State is theirs. Empty for any.
	Account, Holds, State string
	// Skip is how many come before those that are wanted, Limit how many are wanted.
	Skip, Limit int
	// ByName has them in the order of their names alone, of which After leaves out
	// those up to one: so a list that is read in parts misses none that stays, however
	// their states change meanwhile.
	ByName bool
	After  string
}

// SitePage is a part of a list of sites: those that failed first, then those that
// wait, in the order of their names; or by name alone.
type SitePage struct {
	Sites []SiteStatus
	// Counts has how many sites pass the filter but for their state, by state; Of is
	// how many pass all of it.
	Counts map[string]int
	Of     int
	// None says that there is no site at all, whatever the filter.
	None bool
	// Last is the name at which the part ends, of a site that may be gone by now.
	Last string
}

// ServedStatus is what one server serves of a site.
type ServedStatus struct {
	Server     string `json:"server"`
	Generation int64  `json:"generation"` // that it answers with; 0 when none
	URL        string `json:"url"`        // to be asked with the site's name as Host
	State      string `json:"state"`
	Reason     string `json:"reason,omitempty"`
}
