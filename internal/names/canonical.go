// Package names knows what host names are: how people write them and how they
// are kept, which nobody can have, which look like another one, and who may use
// which beside what others have.
//
// It is pure: what there is in the database is handed to it.
package names

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"upkeep"
)

// profile is UTS 46 as browsers follow it (non-transitional: ß stays ß), with
// the rules of STD 3 for ASCII and those for right-to-left scripts.
var profile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(true), idna.BidiRule(),
	idna.CheckHyphens(true), idna.CheckJoiners(true), idna.VerifyDNSLength(true))

// longest bounds what is looked at: a name of 253 letters that are four bytes
// each, and the dots.
const longest = 1200

// ASCII is a name as it is kept: A-labels, lower case, no final dot. What is
// wrong with the letters, digits and dots of a plain one is left to validation.
func ASCII(name string) (string, error) {
	name = strings.TrimSuffix(name, ".")
	if len(name) > longest {
		return "", fmt.Errorf("must be a host name of at most 253 characters")
	}
	lower := strings.ToLower(name)
	if isASCII(name) && !strings.Contains(lower, "xn--") {
		return lower, nil
	}
	if !utf8.ValidString(name) {
		return "", fmt.Errorf("must be text in UTF-8")
	}
	kept, err := profile.ToASCII(name)
	if err != nil {
		return "", fmt.Errorf("must be a host name; this is not one by the rules for scripts other than ASCII (UTS 46): %s", strings.TrimPrefix(err.Error(), "idna: "))
	}
	return strings.TrimSuffix(kept, "."), nil // a full stop of another script may be the last one
}

// Unicode is a name as people read it; one whose A-labels are broken comes back
// as it is.
func Unicode(name string) string {
	text, err := profile.ToUnicode(name)
	if err != nil {
		return name
	}
	return text
}

// Shown is a name for people: as it is kept, with the form that they read in
// brackets where it has another. That form alone could be taken for another name.
func Shown(name string) string {
	host, wild := strings.CutPrefix(name, "*.")
	text := Unicode(host)
	if text == host {
		return upkeep.Printable(name)
	}
	if wild {
		text = "*." + text
	}
	return fmt.Sprintf("%s (%s)", upkeep.Printable(name), upkeep.Printable(text))
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c >= utf8.RuneSelf })
}

// Canonical is an object with its host names as they are kept, to be called
// before it is validated. A name that has no such form stays as it is and comes
// with an error. Objects without host names stay as they are.
func Canonical(object upkeep.Object) (upkeep.Object, []upkeep.FieldError) {
	var broken []upkeep.FieldError
	kept := func(field, name string) string {
		ascii, err := ASCII(name)
		if err != nil {
			broken = append(broken, upkeep.FieldError{Field: field, Value: upkeep.Printable(name[:min(len(name), 80)]), Rule: err.Error()})
			return name
		}
		return ascii
	}
	switch o := object.(type) {
	case upkeep.Delegation:
		o.Name = kept("name", o.Name)
		return o, broken
	case upkeep.Site:
		o.Name, o.SubOf = kept("name", o.Name), kept("subof", o.SubOf)
		aliases := o.Aliases
		o.Aliases = nil
		for i, alias := range aliases {
			o.Aliases = append(o.Aliases, kept(fmt.Sprintf("aliases[%d]", i), alias))
		}
		redirects := o.Redirects
		o.Redirects = nil
		for i, redirect := range redirects {
			redirect.To = keptURL(redirect.To, func(host string) string { return kept(fmt.Sprintf("redirects[%d].to", i), host) })
			o.Redirects = append(o.Redirects, redirect)
		}
		return o, broken
	}
	return object, nil
}

// keptURL replaces the host of a URL that has other letters than ASCII in it;
// all else is validation's.
func keptURL(url string, kept func(string) string) string {
	for _, scheme := range []string{"https://", "http://"} {
		rest, is := strings.CutPrefix(url, scheme)
		if !is {
			continue
		}
		end := strings.IndexAny(rest, "/?#:@")
		if end < 0 {
			end = len(rest)
		}
		if host := rest[:end]; !isASCII(host) {
			return scheme + kept(host) + rest[end:]
		}
	}
	return url
}

// Public reports whether a name is one below which the public registers domains,
// such as co.uk: nobody has it as a whole. Names that no registry lists, such as
// those below test, are nobody's in particular.
func Public(name string) bool {
	suffix, official := publicsuffix.PublicSuffix(name)
	return official && suffix == name
}

// Shared reports whether a name is in the private section of the list of public
// suffixes, such as github.io: a company gives names below it to its customers.
func Shared(name string) bool {
	suffix, official := publicsuffix.PublicSuffix(name)
	return !official && suffix == name && strings.Contains(suffix, ".") // without a dot it is in no section
}
