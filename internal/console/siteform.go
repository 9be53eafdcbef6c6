package console

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"upkeep"
	"upkeep/internal/names"
)

// choices are what the form for a site offers.
type choices struct {
	Accounts []string // for staff; a customer has one and is not asked
	Web      []string // servers
	Files    []string // servers, for staff
	New      bool
}

// none is whether there is no account to choose.
func (c choices) none() bool { return c.Accounts != nil && len(c.Accounts) == 0 }

// siteForm is the form for a site.
func siteForm(s upkeep.Site, c choices) []group {
	var who []field
	if c.New {
		who = append(who, field{Name: "name", Label: "Name", Kind: "text", Value: s.Name, Hint: "Such as example.org. Other scripts than Latin are taken too."})
	}
	if c.Accounts != nil {
		who = append(who, field{Name: "account", Label: "Account", Kind: "choose", Options: owners(c.Accounts, s.Account), Hint: "Who owns it."})
	}
	who = append(who, field{Name: "servers", Label: "Web servers", Kind: "many", Options: options(c.Web, s.Servers...)})
	if len(c.Files) > 0 {
		who = append(who, field{Name: "files", Label: "Files are on", Kind: "choose", Options: append([]option{{"", "each web server", s.Files == ""}}, options(c.Files, s.Files)...)})
	}
	called := []field{
		{Name: "aliases", Label: "Further names", Kind: "area", Value: strings.Join(s.Aliases, "\n"), Hint: "One a line."},
		{Name: "www", Label: "www." + orElse(s.Name, "NAME") + " too", Kind: "tick", On: s.WWW == nil || *s.WWW},
		{Name: "wildcard", Label: "every name below it that nobody else has", Kind: "tick", On: s.Wildcard},
		{Name: "canonical", Label: "Visitors of the other name", Kind: "choose", Options: []option{{"", "are answered there", s.Canonical == ""}, {"bare", "are sent to the name without www", s.Canonical == "bare"}, {"www", "are sent to www", s.Canonical == "www"}}},
		{Name: "canonical_status", Label: "by status", Kind: "choose", Options: numbers(s.CanonicalStatus, 0, 301, 302, 307, 308)},
	}
	pages := []field{
		{Name: "root", Label: "Folder of the pages", Kind: "text", Value: s.Root, Hint: "Below htdocs, such as public; empty for htdocs itself."},
		{Name: "index", Label: "Page of a folder", Kind: "text", Value: strings.Join(s.Index, " "), Hint: "Names that are tried, such as index.html index.php."},
		{Name: "error_pages", Label: "Error pages", Kind: "area", Value: codes(s.ErrorPages), Hint: "One a line: 404 /missing.html, or 404 and a text. A line that begins with a space goes on with the one before."},
		{Name: "redirects", Label: "Redirects", Kind: "area", Value: redirects(s.Redirects), Hint: "One a line: /old https://example.org/new 301. With the word exact, what follows /old is not taken along."},
		{Name: "subof", Label: "Sub-site of", Kind: "text", Value: s.SubOf, Hint: "Another site of the same account whose folder this one lives in."},
	}
	var php upkeep.PHP
	if s.PHP != nil {
		php = *s.PHP
	}
	programs := []field{
		{Name: "php", Label: "PHP", Kind: "tick", On: s.PHP != nil},
		{Name: "php.children", Label: "Processes at a time", Kind: "number", Value: number0(php.Children), Hint: "5 when empty."},
		{Name: "php.memory", Label: "Memory of each, in MiB", Kind: "number", Value: number0(php.Memory), Hint: "128 when empty."},
		{Name: "cgi", Label: "programs in cgi-bin", Kind: "tick", On: s.CGI},
		{Name: "environment", Label: "Environment", Kind: "area", Value: pairs(s.Environment, "="), Hint: "One a line: NAME=value."},
	}
	guards := []field{
		{Name: "deny", Label: "Refuse these addresses", Kind: "area", Value: networks(s.Deny), Hint: "One a line: 192.0.2.1 or 2001:db8::/32."},
		{Name: "allow", Label: "Refuse all but these", Kind: "area", Value: networks(s.Allow)},
		{Name: "methods", Label: "Methods", Kind: "text", Value: strings.Join(s.Methods, " "), Hint: "GET HEAD POST when empty."},
		{Name: "headers", Label: "Headers", Kind: "area", Value: pairs(s.Headers, ": "), Hint: "One a line: Name: value. An empty value takes one away."},
		{Name: "suspended", Label: "suspended: it answers 503 and keeps everything", Kind: "tick", On: s.Suspended},
	}
	return []group{
		{Title: "Site", Fields: who, Open: true}, {Title: "Names", Fields: called, Open: c.New}, {Title: "Pages", Fields: pages},
		{Title: "Programs", Fields: programs, Open: s.PHP != nil || s.CGI}, {Title: "Visitors", Fields: guards, Open: s.Suspended},
	}
}

// siteOf puts what a form says over a site: what has no field in it stays.
func siteOf(form url.Values, s upkeep.Site, c choices) (upkeep.Site, error) {
	invalid := &upkeep.InvalidError{}
	wrong := func(name, value, rule string) {
		invalid.Fields = append(invalid.Fields, upkeep.FieldError{Field: name, Value: value, Rule: rule})
	}
	if c.New {
		s.Name = strings.TrimSpace(form.Get("name"))
	}
	if c.Accounts != nil {
		s.Account = form.Get("account")
	}
	s.Servers = slices.Clone(form["servers"])
	if len(c.Files) > 0 {
		s.Files = form.Get("files")
	}
	s.Aliases = words(form, "aliases")
	if on := form.Get("www") != ""; s.WWW == nil && !on || s.WWW != nil && *s.WWW != on {
		s.WWW = &on
	}
	s.Wildcard, s.CGI, s.Suspended = form.Get("wildcard") != "", form.Get("cgi") != "", form.Get("suspended") != ""
	s.Canonical, s.Root, s.SubOf = form.Get("canonical"), strings.TrimSpace(form.Get("root")), strings.TrimSpace(form.Get("subof"))
	s.Index, s.Methods = words(form, "index"), words(form, "methods")
	count := func(name string) int {
		text := strings.TrimSpace(form.Get(name))
		if text == "" {
			return 0
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			wrong(name, text, "must be a number")
		}
		return n
	}
	s.CanonicalStatus = count("canonical_status")
	if s.Canonical == "" {
		s.CanonicalStatus = 0
	}
	children, memory := count("php.children"), count("php.memory")
	s.PHP = nil
	if form.Get("php") != "" {
		s.PHP = &upkeep.PHP{Children: children, Memory: memory}
	}
	s.Deny, s.Allow = networksOf(form, "deny", wrong), networksOf(form, "allow", wrong)
	s.ErrorPages = codesOf(lines(form, "error_pages"), wrong)
	s.Redirects = redirectsOf(lines(form, "redirects"), wrong)
	s.Headers = pairsOf(lines(form, "headers"), "headers", ":", "must be Name: value", wrong)
	s.Environment = pairsOf(lines(form, "environment"), "environment", "=", "must be NAME=value", wrong)
	if len(invalid.Fields) > 0 {
		invalid.Fields = append(invalid.Fields, alsoWrong(s)...)
		return s, invalid
	}
	return s, nil
}

// alsoWrong is what is wrong with what of a site could be read: who sent the form is to
// be told of all at once.
func alsoWrong(s upkeep.Site) []upkeep.FieldError {
	object, broken := names.Canonical(s)
	if len(broken) > 0 {
		return broken
	}
	return object.(upkeep.Site).Validate() // as it was
}

type wrongFunc func(name, value, rule string)

func networks(all []upkeep.Network) string {
	texts := make([]string, len(all))
	for i, n := range all {
		texts[i] = n.String()
	}
	return strings.Join(texts, "\n")
}

func networksOf(form url.Values, name string, wrong wrongFunc) []upkeep.Network {
	var all []upkeep.Network
	for _, text := range words(form, name) {
		var n upkeep.Network
		if err := n.UnmarshalText([]byte(text)); err != nil {
			wrong(name, "", err.Error())
			continue
		}
		all = append(all, n)
	}
	return all
}

// codes are error pages, a line each; further lines of a text are indented.
func codes(pages map[string]string) string {
	var all []string
	for _, code := range slices.Sorted(maps.Keys(pages)) {
		all = append(all, code+" "+strings.ReplaceAll(pages[code], "\n", "\n "))
	}
	return strings.Join(all, "\n")
}

func codesOf(lines []string, wrong wrongFunc) map[string]string {
	pages, last := map[string]string{}, ""
	for _, line := range lines {
		if text, more := strings.CutPrefix(line, " "); more && last != "" {
			pages[last] += "\n" + text
			continue
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		code, text, found := strings.Cut(strings.TrimSpace(line), " ")
		if _, twice := pages[code]; !found || twice {
			wrong("error_pages", line, "must be a status and a page or a text, each status once")
			continue
		}
		pages[code], last = strings.TrimSpace(text), code
	}
	return some(pages)
}

func redirects(all []upkeep.Redirect) string {
	texts := make([]string, len(all))
	for i, r := range all {
		parts := []string{r.From}
		if r.To != "" {
			parts = append(parts, r.To)
		}
		if r.Status != 0 {
			parts = append(parts, strconv.Itoa(r.Status))
		}
		if r.Exact {
			parts = append(parts, "exact")
		}
		texts[i] = strings.Join(parts, " ")
	}
	return strings.Join(texts, "\n")
}

func redirectsOf(lines []string, wrong wrongFunc) []upkeep.Redirect {
	var all []upkeep.Redirect
	for _, line := range lines {
		parts := strings.Fields(line)
		if len(parts) == 0 {
			continue
		}
		r := upkeep.Redirect{From: parts[0]}
		for _, part := range parts[1:] {
			status, err := strconv.Atoi(part)
			switch {
			case part == "exact":
				r.Exact = true
			case err == nil && r.Status == 0:
				r.Status = status
			case r.To == "":
				r.To = part
			default:
				wrong("redirects", line, "must be a path, where it leads, and perhaps a status and the word exact")
			}
		}
		all = append(all, r)
	}
	return all
}

func pairs(all map[string]string, between string) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		texts = append(texts, name+between+all[name])
	}
	return strings.Join(texts, "\n")
}

func pairsOf(lines []string, field, between, rule string, wrong wrongFunc) map[string]string {
	all := map[string]string{}
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, value, found := strings.Cut(line, between)
		name = strings.TrimSpace(name)
		if _, twice := all[name]; !found || twice {
			wrong(field, "", "the line of "+strconv.Quote(upkeep.Printable(name))+" "+rule+", each name once")
			continue
		}
		if between == ":" {
			value = strings.TrimSpace(value)
		}
		all[name] = value
	}
	return some(all)
}

// some is a map that has something in it, or none: documents leave out what is
// empty.
func some(all map[string]string) map[string]string {
	if len(all) == 0 {
		return nil
	}
	return all
}

// owners are options of which none is chosen beforehand where there are several: what is
// another's by mistake, that one sees.
func owners(accounts []string, on string) []option {
	made := options(accounts, on)
	if on == "" && len(accounts) > 1 {
		made = append([]option{{"", "choose one", true}}, made...)
	}
	return made
}

func options(all []string, on ...string) []option {
	made := make([]option, 0, len(all))
	for _, one := range all {
		made = append(made, option{one, one, slices.Contains(on, one)})
	}
	for _, one := range on { // what is declared stays to be seen
		if one != "" && !slices.Contains(all, one) {
			made = append(made, option{one, one, true})
		}
	}
	return made
}

func numbers(on int, all ...int) []option {
	made := make([]option, len(all))
	for i, n := range all {
		made[i] = option{fmt.Sprint(n), fmt.Sprint(n), n == on}
		if n == 0 {
			made[i] = option{"", "307, which browsers do not keep", on == 0}
		}
	}
	return made
}

func number0(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
