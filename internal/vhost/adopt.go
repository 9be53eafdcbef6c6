package vhost

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"upkeep"
)

// Adopt reads what somebody has edited in the Apache file of a site back into its
// fields: gone are the lines of upkeep's that are not there any more, came those
// that are there instead. A line that stands for no field is an error. What is
// returned is no more than likely; that the files made of it are those that were
// edited is for the caller to see.
func Adopt(site upkeep.Site, gone, came []string) (upkeep.Site, error) {
	a := adoption{site: site, lists: map[string]*listEdit{}, at: len(site.Redirects)}
	a.site.ErrorPages, a.site.Headers = maps.Clone(site.ErrorPages), maps.Clone(site.Headers)
	a.site.Redirects = slices.Clone(site.Redirects)
	for _, side := range []struct {
		lines []string
		came  bool
	}{{gone, false}, {came, true}} {
		for _, line := range side.lines {
			if err := a.line(line, side.came); err != nil {
				return site, err
			}
		}
	}
	return a.site, a.finish()
}

// adoption is a site whose edited lines are being read.
type adoption struct {
	site  upkeep.Site
	lists map[string]*listEdit // by field
	at    int                  // where redirects go that came
	root  bool                 // the one that is gone is that of the canonical name
}

// listEdit are the words of a field's lines that are gone, and that came.
type listEdit struct{ gone, came []string }

func (a *adoption) line(line string, came bool) error {
	words, err := confWords(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	known := false
	switch words[0] {
	case "<RequireAny>", "</RequireAny>": // stands around what is allowed
		known = true
	case string(dRewriteEngine): // stands before exact redirects
		known = len(words) == 2 && words[1] == "On"
	case string(dRewriteRule):
		known = a.exact(rewriteWords(line), came)
	case string(dSetEnv):
		return fmt.Errorf("%q is of environment, whose values are not shown in diffs: %w", strings.TrimSpace(line), upkeep.ErrRefused)
	case string(dServerAlias):
		known = a.list("aliases", words[1:], came)
	case string(dDirectoryIndex):
		known = a.list("index", words[1:], came)
	case string(dRequire):
		known = a.require(words[1:], came)
	case string(dErrorDocument):
		known = a.errorPage(words[1:], came)
	case string(dRedirect):
		known = a.redirect(words[1:], came)
	case string(dHeader):
		known = a.header(words[1:], came)
	}
	if !known {
		return fmt.Errorf("%q stands for no field of a site: %w", strings.TrimSpace(line), upkeep.ErrRefused)
	}
	return nil
}

func (a *adoption) list(field string, words []string, came bool) bool {
	e := a.lists[field]
	if e == nil {
		e = &listEdit{}
		a.lists[field] = e
	}
	to := &e.gone
	if came {
		to = &e.came
	}
	for _, word := range words {
		if !slices.Contains(*to, word) { // a line may stand in several places
			*to = append(*to, word)
		}
	}
	return len(words) > 0
}

func (a *adoption) require(words []string, came bool) bool {
	switch {
	case len(words) > 1 && words[0] == "method":
		return a.list("methods", words[1:], came)
	case len(words) > 1 && words[0] == "ip":
		return a.list("allow", words[1:], came)
	case len(words) > 2 && words[0] == "not" && words[1] == "ip":
		return a.list("deny", words[2:], came)
	}
	return false
}

func (a *adoption) errorPage(words []string, came bool) bool {
	if len(words) != 2 || !strings.HasPrefix(words[1], "/") || strings.HasPrefix(words[1], tokenFolder) && came {
		return false
	}
	code := words[0]
	if !came {
		delete(a.site.ErrorPages, code)
		return true
	}
	if a.site.ErrorPages == nil {
		a.site.ErrorPages = map[string]string{}
	}
	a.site.ErrorPages[code] = words[1]
	return true
}

func (a *adoption) redirect(words []string, came bool) bool {
	status := 0
	if len(words) > 1 {
		status, _ = strconv.Atoi(words[0]) // 0 is none
	}
	if status == 0 || len(words) != 3 && (status != 410 || len(words) != 2) || strings.HasPrefix(words[1], tokenFolder) {
		return false
	}
	r := upkeep.Redirect{From: words[1], Status: status}
	if len(words) == 3 {
		r.To = words[2]
	}
	at := slices.IndexFunc(a.site.Redirects, func(o upkeep.Redirect) bool { return redirectBase(o.From) == redirectBase(r.From) && !o.Exact })
	// The first of the two lines that a redirect to a folder has; the second says it all.
	first := r.From != "/" && strings.HasSuffix(r.From, "/") && strings.HasSuffix(r.To, "/")
	switch {
	case first:
	case !came && at < 0:
		a.root = a.site.Canonical != "" && r.From == "/"
		return a.root
	case !came:
		a.without(at)
	case a.root && r.From == "/":
		a.site.CanonicalStatus = status
	default:
		a.with(r)
	}
	return true
}

// without takes a redirect away; what comes instead goes there.
func (a *adoption) without(at int) {
	a.at = min(a.at, at)
	a.site.Redirects = slices.Delete(a.site.Redirects, at, at+1)
}

func (a *adoption) with(r upkeep.Redirect) {
	a.at = min(a.at, len(a.site.Redirects))
	a.site.Redirects = slices.Insert(a.site.Redirects, a.at, r)
	a.at++
}

// exact reads the rule of an exact redirect: the reverse of [apacheSite.exactRedirect].
func (a *adoption) exact(words []string, came bool) bool {
	if len(words) != 4 || !strings.HasPrefix(words[1], "^/") || !strings.HasSuffix(words[1], "$") {
		return false
	}
	from, plain := unescaped(words[1][1:len(words[1])-1], `\.+*?()|[]{}^$`)
	r := upkeep.Redirect{From: from, Exact: true, Status: 410}
	if words[3] != "[G,L]" {
		status, is := strings.CutSuffix(strings.TrimPrefix(words[3], "[R="), ",L,NE]")
		to, fixed := unescaped(words[2], `\$%`)
		r.Status, _ = strconv.Atoi(status) // 0 is none
		r.To, plain = to, plain && is && fixed && r.Status != 0 && r.Status != 410
	} else if words[2] != "-" {
		return false
	}
	if !plain {
		return false
	}
	if came {
		a.with(r)
		return true
	}
	at := slices.IndexFunc(a.site.Redirects, func(o upkeep.Redirect) bool {
		path, err := redirectOf("", o)
		return o.Exact && err == nil && path == from
	})
	if at >= 0 {
		a.without(at)
	}
	return at >= 0
}

// unescaped takes the backslashes out that stand before some signs. It is not plain
// where one of these stands alone, or a backslash before another.
func unescaped(text, signs string) (plain string, is bool) {
	var out []byte
	for i := 0; i < len(text); i++ {
		special := strings.IndexByte(signs, text[i]) >= 0
		if text[i] == '\\' {
			if i++; i >= len(text) || strings.IndexByte(signs, text[i]) < 0 {
				return "", false
			}
		} else if special {
			return "", false
		}
		out = append(out, text[i])
	}
	return string(out), true
}

// rewriteWords reads a line as mod_rewrite does: see [rewrite].
func rewriteWords(line string) (words []string) {
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimLeft(rest, " \t") {
		end, word := strings.IndexAny(rest, " \t"), ""
		if rest[0] == '"' {
			rest = rest[1:]
			end = strings.IndexByte(rest, '"')
			if end < 0 {
				return nil
			}
			word, rest = rest[:end], rest[end+1:]
		} else if end < 0 {
			word, rest = rest, ""
		} else {
			word, rest = rest[:end], rest[end:]
		}
		words = append(words, word)
	}
	return words
}

// header reads one of the two lines that a header has.
func (a *adoption) header(words []string, came bool) bool {
	switch {
	case len(words) == 3 && words[0] == "onsuccess" && words[1] == "unset":
		return true
	case len(words) < 3 || words[0] != "always" || !(words[1] == "set" && len(words) == 4 || words[1] == "unset" && len(words) == 3):
		return false
	case !came:
		delete(a.site.Headers, words[2])
		return true
	}
	if a.site.Headers == nil {
		a.site.Headers = map[string]string{}
	}
	text := ""
	if len(words) == 4 {
		text = headerText.Replace(words[3])
	}
	a.site.Headers[words[2]] = text
	return true
}

// headerText is the reverse of [headerFormat].
var headerText = strings.NewReplacer(`%%`, `%`, `\\`, `\`)

// finish puts lists in the place of what they were.
func (a *adoption) finish() error {
	s := &a.site
	for field, e := range a.lists {
		switch field {
		case "aliases":
			a.aliases(e)
		case "index":
			s.Index = spliced(s.Index, e)
		case "methods":
			s.Methods = spliced(s.Methods, e)
		case "deny", "allow":
			list := &s.Deny
			if field == "allow" {
				list = &s.Allow
			}
			texts := make([]string, len(*list))
			for i, n := range *list {
				texts[i] = n.String()
			}
			networks := []upkeep.Network{}
			for _, text := range spliced(texts, e) {
				var n upkeep.Network
				if err := n.UnmarshalText([]byte(text)); err != nil {
					return fmt.Errorf("%s: %w", field, err)
				}
				networks = append(networks, n)
			}
			*list = networks
		}
	}
	return nil
}

// aliases also turns www.NAME on or off, which is no alias.
func (a *adoption) aliases(e *listEdit) {
	www := "www." + a.site.Name
	had, has := slices.Contains(e.gone, www), slices.Contains(e.came, www)
	if had != has {
		a.site.WWW = nil
		if had {
			a.site.WWW = new(bool)
		}
	}
	for _, list := range []*[]string{&e.gone, &e.came} {
		*list = slices.DeleteFunc(*list, func(name string) bool { return name == www })
	}
	a.site.Aliases = spliced(a.site.Aliases, e)
}

// spliced is a list with what came in the place of what is gone.
func spliced(list []string, e *listEdit) []string {
	var before, after []string
	for _, word := range list {
		switch {
		case slices.Contains(e.gone, word):
			before, after = append(before, after...), nil
		case slices.Contains(e.came, word):
		default:
			after = append(after, word)
		}
	}
	if !slices.ContainsFunc(list, func(word string) bool { return slices.Contains(e.gone, word) }) {
		before, after = after, nil // what comes without that goes to the end
	}
	return slices.Concat(before, e.came, after)
}

// confWords reads a line of Apache's configuration as ap_getword_conf does: the
// reverse of [appendQuoted].
func confWords(line string) ([]string, error) {
	var words []string
	for rest := line; rest != ""; rest = strings.TrimLeft(rest, " \t") {
		quote := rest[0]
		if quote != '"' && quote != '\'' {
			end := strings.IndexAny(rest, " \t")
			if end < 0 {
				end = len(rest)
			}
			words, rest = append(words, rest[:end]), rest[end:]
			continue
		}
		var word []byte
		i := 1
		for ; i < len(rest) && rest[i] != quote; i++ {
			if rest[i] == '\\' && i+1 < len(rest) && (rest[i+1] == quote || rest[i+1] == '\\') {
				i++
			}
			word = append(word, rest[i])
		}
		if i >= len(rest) {
			return nil, fmt.Errorf("%q has a quote that does not end: %w", line, upkeep.ErrRefused)
		}
		words, rest = append(words, string(word)), rest[i+1:]
	}
	if len(words) == 0 {
		return []string{""}, nil
	}
	return words, nil
}
