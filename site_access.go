package upkeep

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"upkeep/internal/lazy"
)

func (s Site) checkAccess(r *rules) {
	checkNetworks(r, "deny", s.Deny)
	checkNetworks(r, "allow", s.Allow)
	if r.atMost("protect", len(s.Protect), MaxProtections) {
		return
	}
	paths := map[string]bool{}
	for i, p := range s.Protect {
		at := fmt.Sprintf("protect[%d]", i)
		r.sitePath(at+".path", p.Path)
		path := strings.TrimSuffix(p.Path, "/") // with it or without, the same is protected
		if paths[path] {
			r.add(at+".path", p.Path, "is protected twice")
		}
		paths[path] = true
		if p.Realm != "" && !realm().MatchString(p.Realm) {
			r.add(at+".realm", p.Realm, "must be at most 64 letters, digits, blanks and - . _ , : ! ( )")
		}
		checkUsers(r, at+".users", p.Users)
	}
}

func checkNetworks(r *rules, field string, networks []Network) {
	if r.atMost(field, len(networks), MaxAddresses) {
		return
	}
	seen := make(map[Network]bool, len(networks))
	for i, n := range networks {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case !n.IsValid() || n.Masked() != n.Prefix || n.Addr().Is4In6():
			r.add(at, n, "must be an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32")
		case seen[n]:
			r.add(at, n, "is given twice")
		}
		seen[n] = true
	}
}

var (
	// realm is a text that needs no escape within quotes.
	realm = lazy.Regexp(`^[A-Za-z0-9_.,:!()-]([A-Za-z0-9 _.,:!()-]{0,62}[A-Za-z0-9_.,:!()-])?$`)
	// userName is a name before the colon of a password file: it holds none, and
	// does not begin with what marks a comment there.
	userName = lazy.Regexp(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$`)
	// bcrypt is a hash as htpasswd -B and PHP make them: two digits of cost, 22
	// characters of salt, 31 of hash.
	bcrypt = lazy.Regexp(`^\$2[yb]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)
)

// Bounds of a hash's cost. Every request costs a web server that many rounds, as
// a power of two: 12 are a quarter of a second.
const minCost, maxCost = 5, 12

func checkUsers(r *rules, field string, users map[string]string) {
	if len(users) == 0 {
		r.add(field, nil, "is required: user names with their hashes, as htpasswd -nB NAME prints them")
	}
	if r.atMost(field, len(users), MaxUsers) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(users)) {
		at := field + "." + name
		if !userName().MatchString(name) {
			r.add(at, name, "must be a user name of letters, digits and . _ @ + -, at most 64")
			continue
		}
		hash := bcrypt().FindStringSubmatch(users[name])
		if hash == nil { // and what was given, perhaps a password, is not shown
			r.add(at, nil, "must be a bcrypt hash ($2y$ or $2b$); make one with: htpasswd -nB %s", name)
			continue
		}
		if cost, err := strconv.Atoi(hash[1]); err != nil || cost < minCost || cost > maxCost {
			r.add(at, nil, "has a bcrypt cost of %s; it must be %d to %d, since each request is that much work", hash[1], minCost, maxCost)
		}
	}
}

func (s Site) checkRedirects(r *rules) {
	if r.atMost("redirects", len(s.Redirects), MaxRedirects) {
		return
	}
	type match struct {
		from  string
		exact bool
	}
	seen := map[match]bool{}
	for i, d := range s.Redirects {
		at := fmt.Sprintf("redirects[%d]", i)
		r.sitePath(at+".from", d.From)
		if seen[match{d.From, d.Exact}] {
			r.add(at+".from", d.From, "is redirected twice")
		}
		seen[match{d.From, d.Exact}] = true
		d.validate(r, at)
	}
}

func (d Redirect) validate(r *rules, at string) {
	if d.Status != 0 && !slices.Contains([]int{301, 302, 303, 307, 308, 410}, d.Status) {
		r.add(at+".status", d.Status, "must be 301, 302, 303, 307, 308 or 410")
	}
	switch {
	case d.Status == 410 && d.To != "":
		r.add(at+".to", d.To, "has no use with status 410, which sends nobody on")
	case d.Status == 410:
	case d.To == "":
		r.add(at+".to", nil, "is required: a URL such as https://example.test/new, or a path of the site")
	default:
		if rule := targetRule(d.To); rule != "" {
			r.add(at+".to", d.To, "%s", rule)
		} else if d.loops() {
			r.add(at+".to", d.To, "lies below %s, which is redirected: requests would go round for ever", d.From)
		}
	}
}

// loops reports whether the path that is redirected to is itself redirected by
// the same rule.
func (d Redirect) loops() bool {
	to, _, _ := strings.Cut(d.To, "#")
	to, _, _ = strings.Cut(to, "?")
	if d.Exact {
		return to == d.From
	}
	return to == d.From || strings.HasPrefix(to, strings.TrimSuffix(d.From, "/")+"/")
}

var (
	// target is what follows the authority of a URL: the characters of RFC 3986
	// section 2 less quotes, dollars, brackets and braces, and with whole
	// percent-encodings only.
	target = lazy.Regexp(`^([A-Za-z0-9._~:/?#@!&()*+,;=-]|%[0-9A-Fa-f]{2})*$`)
	// encodedControl is a control character that some program may decode.
	encodedControl = lazy.Regexp(`%([01][0-9A-Fa-f]|7[Ff])`)
	// authority is host and port, without user information.
	authority = lazy.Regexp(`^https?://([A-Za-z0-9.-]+)(:[0-9]{1,5})?([/?#].*)?$`)
)

// targetRule is what a redirect's target breaks, looked at as it will be sent,
// byte for byte, and nowhere decoded; "" when nothing.
func targetRule(to string) string {
	url := authority().FindStringSubmatch(to)
	switch {
	case len(to) > maxURL:
		return fmt.Sprintf("must be at most %d bytes", maxURL)
	case !target().MatchString(to):
		return "must be made of the characters of URLs (RFC 3986) alone, without quotes, blanks, $, brackets and braces; write others as %XX"
	case encodedControl().MatchString(to):
		return "must not hold an encoded control character"
	case strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//"):
		return ""
	case url == nil:
		return "must be a URL that begins with http:// or https:// and a host, without user name or password, or a path that begins with one /"
	case !ValidName(url[1]):
		return "must have a host that is a name or an IPv4 address"
	case url[2] != "" && !validPort(url[2][1:]):
		return "must have a port of 1 to 65535"
	}
	return ""
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
