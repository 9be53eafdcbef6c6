package webserver

import (
	"fmt"
	"path"
	"strings"

	"upkeep"
)

// foreign are the names that configuration answers which is not upkeep's.
type foreign struct {
	names    map[string]bool
	patterns []string
}

// newForeign makes a set of names. With patterns, those among them that have * or ?
// count for every name that fits them.
func newForeign(names []string, patterns bool) foreign {
	f := foreign{names: make(map[string]bool, len(names))}
	for _, name := range names {
		f.names[name] = true
		if patterns && strings.ContainsAny(name, "*?") && !strings.ContainsAny(name, `[\`) { // which are not special there
			f.patterns = append(f.patterns, name)
		}
	}
	return f
}

// has returns by which name or pattern a name is answered, or "".
func (f foreign) has(name string) string {
	if f.names[name] {
		return name
	}
	for _, pattern := range f.patterns {
		if fits, err := path.Match(pattern, name); err == nil && fits {
			return pattern
		}
	}
	return ""
}

func foreignName(name, by string) error {
	as := ""
	if by != name {
		as = ", as " + by
	}
	return upkeep.WithHint(fmt.Errorf("the name %s is answered by configuration of the web server that is not upkeep's%s", name, as),
		"take the name out there first, or leave it there")
}
