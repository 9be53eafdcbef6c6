package names

import (
	"slices"
	"sort"
	"strings"
	"time"

	"upkeep"
)

// Claim is a name that a site has. A wildcard is "*.example.test".
type Claim struct{ Name, Site, Account string }

// Claims are the names of a site as claims.
func Claims(site upkeep.Site) []Claim {
	var claims []Claim
	for _, name := range site.Names() {
		claims = append(claims, Claim{name, site.Name, site.Account})
	}
	return claims
}

// Tree is what is claimed in a part of the name space, and what has been given
// away in it.
type Tree struct {
	claims      map[string]Claim
	backwards   []string // of all claims, sorted
	delegations map[string]upkeep.Delegation
}

// NewTree makes a tree of claims. Of two claims of one name the first counts.
func NewTree(claims []Claim, delegations []upkeep.Delegation) *Tree {
	t := &Tree{claims: make(map[string]Claim, len(claims)), delegations: make(map[string]upkeep.Delegation, len(delegations))}
	for _, c := range claims {
		if _, taken := t.claims[c.Name]; !taken {
			t.claims[c.Name] = c
			t.backwards = append(t.backwards, Backwards(c.Name))
		}
	}
	slices.Sort(t.backwards)
	for _, d := range delegations {
		t.delegations[d.Name] = d
	}
	return t
}

// below calls f for each claim that lies below a name, until it returns false.
func (t *Tree) below(name string, f func(Claim) bool) {
	from := Backwards(name)
	for _, b := range t.backwards[sort.SearchStrings(t.backwards, from):] {
		if !strings.HasPrefix(b, from) {
			return
		}
		if b != from && !f(t.claims[Forwards(b)]) {
			return
		}
	}
}

// Backwards is a name with its labels in reverse, each with a dot behind it:
// "test.example." What lies below a name begins with that; as text compared byte
// by byte it is the range up to [Beyond].
func Backwards(name string) string {
	labels := strings.Split(name, ".")
	slices.Reverse(labels)
	return strings.Join(labels, ".") + "."
}

// Forwards is the reverse of [Backwards].
func Forwards(backwards string) string {
	labels := strings.Split(strings.TrimSuffix(backwards, "."), ".")
	slices.Reverse(labels)
	return strings.Join(labels, ".")
}

// Beyond is the first text behind all that lies below a name written backwards.
func Beyond(backwards string) string { return strings.TrimSuffix(backwards, ".") + "/" } // "/" follows "."

// Above are the names that a name lies below, the nearest first. It does not lie
// below itself, and a wildcard lies below the name that it is of.
func Above(name string) []string {
	var above []string
	for {
		_, rest, more := strings.Cut(name, ".")
		if !more {
			return above
		}
		above, name = append(above, rest), rest
	}
}

// delegated looks for a delegation that lets an account use a name: found says
// that there is one, valid that it has not ended. Without a known end in the
// future there is none that is valid: one whose end cannot be read has ended.
func (t *Tree) delegated(name, account string, now time.Time) (d upkeep.Delegation, found, valid bool) {
	for _, at := range append([]string{name}, Above(name)...) {
		one, given := t.delegations[at]
		if !given || one.Account != account {
			continue
		}
		until, err := time.Parse(time.RFC3339, one.Until)
		if one.Until == "" || err == nil && now.Before(until) {
			return one, true, true
		}
		d, found = one, true
	}
	return d, found, false
}
