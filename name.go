package upkeep

import (
	"strings"

	"upkeep/internal/lazy"
)

// objectName is what a declared thing that is not a zone may be called.
var objectName = lazy.Regexp(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidName reports whether s is a host or domain name in presentation form
// without a final dot: labels of 1 to 63 letters, digits, hyphens and
// underscores, 253 octets at most (RFC 1035 section 2.3.4, RFC 8552 for the
// underscore). Escapes are not accepted, so a valid name can stand in a zone
// file as it is.
func ValidName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

func validLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for _, c := range []byte(label) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
		if !ok {
			return false
		}
	}
	return true
}

// ValidOwner reports whether s names a record inside a zone: "@", a relative
// name, or a wildcard such as "*" or "*.eu" (RFC 4592).
func ValidOwner(s string) bool {
	if s == "@" || s == "*" {
		return true
	}
	return ValidName(strings.TrimPrefix(s, "*."))
}

// Absolute joins an owner as declared with its zone: "@" in "example.test" is
// "example.test", "www" is "www.example.test". Both are without a final dot
// and come back in lower case.
func Absolute(owner, zone string) string {
	if owner == "@" {
		return strings.ToLower(zone)
	}
	return strings.ToLower(owner + "." + zone)
}

// Within reports whether name is zone or lies below it.
func Within(name, zone string) bool {
	name, zone = strings.ToLower(strings.TrimSuffix(name, ".")), strings.ToLower(zone)
	return name == zone || strings.HasSuffix(name, "."+zone)
}

// ValidHost reports whether s is a host name that a site can have: in A-labels
// and lower case, of two labels or more, letters, digits and hyphens only
// (RFC 1123 section 2.1), and not something that reads as an address: its last
// label has a letter.
func ValidHost(s string) bool {
	if !ValidName(s) || strings.ContainsRune(s, '_') || s != strings.ToLower(s) {
		return false
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	return len(last) < len(s) && strings.ContainsFunc(last, func(c rune) bool { return c >= 'a' && c <= 'z' })
}

// OwnDomain is what the names lie in that upkeep gives to what is nobody's, such as
// the web server that answers for unknown names (RFC 6761 section 6.4). No site has
// one of these: that server would answer for it.
const OwnDomain = "upkeep.invalid"

// ValidObject reports whether s can name a declared thing that is neither zone,
// site nor domain: lower-case letters, digits and hyphens, at most 63.
func ValidObject(s string) bool { return objectName().MatchString(s) }
