package vhost

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"upkeep"
)

// checked is a site whose values have been looked at, one by one: what both
// kinds of web servers are made from.
type checked struct {
	in          Input
	names       names
	pages       []errorPage
	protections []protection
	methods     []string
	index       []string
	headers     []string // names, sorted
	environment []string
	deny, allow []string
}

func check(in Input) (*checked, error) {
	s := &checked{in: in}
	steps := []func() error{
		in.check,
		func() (err error) { s.names, err = namesOf(in.Site); return },
		func() (err error) { s.pages, err = errorPages(in.Site); return },
		func() (err error) { s.protections, err = protectionsOf(in.Site); return },
		func() (err error) { s.methods, err = methodsOf(in.Site); return },
		func() (err error) { s.index, err = indexOf(in.Site); return },
		func() (err error) { s.headers, err = headersOf(in.Site); return },
		func() (err error) { s.environment, err = environmentOf(in.Site); return },
		func() (err error) { s.deny, err = networks("deny", in.Site.Deny); return },
		func() (err error) { s.allow, err = networks("allow", in.Site.Allow); return },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// redirectOf checks a redirect and returns the path that it is from, decoded.
func redirectOf(field string, r upkeep.Redirect) (from string, err error) {
	if from, err = urlPath(field+".from", r.From); err != nil || r.Status == 410 {
		return from, err
	}
	if err := target(field+".to", r.To); err != nil {
		return "", err
	}
	if status := cmp.Or(r.Status, 302); !slices.Contains(redirectStatuses, status) {
		return "", refuse(field+".status", strconv.Itoa(status), "must be 301, 302, 303, 307, 308 or 410")
	}
	return from, nil
}

// Below the path of a redirect, the rest of what was asked for is joined to its
// target by one slash, whichever of the two ends in one. Joined bare, the rest
// could go on with the name of the host: "https://other.test" and "evil.test" for
// a path /.evil.test.

// redirectBase is the path of a redirect without its final slash: "/a" has all that
// "/a/" has, and is itself sent on; "" for "/".
func redirectBase(from string) string { return strings.TrimSuffix(from, "/") }

// sharedFiles are those that any web server uses: texts of error pages and
// password files.
func sharedFiles(in Input, pages []errorPage, protections []protection) []File {
	var files []File
	for _, page := range pages {
		if page.path == "" {
			files = append(files, File{Path: FolderPages + "/" + shortName(in.Site.Name) + "/" + page.file(), Text: []byte(page.text), Mode: 0o644})
		}
	}
	for _, p := range protections {
		files = append(files, File{Path: p.file, Text: p.text, Mode: 0o640, Group: true})
	}
	return files
}
