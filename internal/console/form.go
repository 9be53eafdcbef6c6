package console

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"

	"upkeep"
	"upkeep/internal/lazy"
)

// field is one field of a form, as its template draws it.
type field struct {
	Name, Label, Hint string
	Kind              string // text, number, area, tick, choose, many
	Value             string
	On                bool // of a tick
	Options           []option
	Fault             string
}

// said is what is wrong with a field, by its name.
type said struct{ Name, Text string }

// Said is what is wrong with the field.
func (f field) Said() said { return said{f.Name, f.Fault} }

// Of is what is wrong with the field of a name.
func (f faults) Of(name string) said { return said{name, f[name]} }

type option struct {
	Value, Label string
	On           bool
}

// group is some fields under a heading. A closed one is shown when somebody asks for
// it, or when something in it is wrong.
type group struct {
	Title  string
	Fields []field
	Open   bool
}

// indices are those in paths of fields, such as "aliases[1]".
var indices = lazy.Regexp(`\[\d+\]`)

// besideFields puts faults beside the fields that they are about, and the rest, with the
// names of their fields, under "".
func besideFields(groups []group, f faults) (rest []string) {
	at := map[string]*field{}
	for i := range groups {
		for j := range groups[i].Fields {
			at[groups[i].Fields[j].Name] = &groups[i].Fields[j]
		}
	}
	for _, path := range sortedFaults(f) {
		text := f[path]
		name := indices().ReplaceAllString(path, "")
		whole := name
		for at[name] == nil && strings.Contains(name, ".") {
			name = name[:strings.LastIndexByte(name, '.')]
		}
		to := at[name]
		if to == nil {
			if path != "" {
				text = path + ": " + text
			}
			rest = append(rest, text)
			continue
		}
		if whole != name {
			text = strings.TrimPrefix(whole, name+".") + ": " + text
		}
		if to.Fault != "" {
			text = to.Fault + " " + text
		}
		to.Fault = text
	}
	for i := range groups {
		for _, one := range groups[i].Fields {
			groups[i].Open = groups[i].Open || one.Fault != ""
		}
	}
	return rest
}

// lines are those of a text area that are not empty.
func lines(form url.Values, name string) []string {
	var all []string
	for line := range strings.Lines(form.Get(name)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// words are those of a text, however they are set apart.
func words(form url.Values, name string) []string {
	return strings.FieldsFunc(form.Get(name), func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\r' || r == '\t' })
}

// siteLabels are the labels of the form for a site, by the names of its fields.
var siteLabels = sync.OnceValue(func() map[string]string {
	labels := map[string]string{}
	for _, g := range siteForm(upkeep.Site{}, choices{New: true, Accounts: []string{}, Files: []string{""}}) {
		for _, f := range g.Fields {
			labels[f.Name] = f.Label
		}
	}
	return labels
})

// siteField is what the form for a site calls a field by its path, such as
// "redirects[1].to"; empty for one that it does not have.
func siteField(path string) string {
	name := indices().ReplaceAllString(path, "")
	for siteLabels()[name] == "" && strings.Contains(name, ".") {
		name = name[:strings.LastIndexByte(name, '.')]
	}
	return siteLabels()[name]
}

func sortedFaults(f faults) []string { return slices.Sorted(maps.Keys(f)) }
