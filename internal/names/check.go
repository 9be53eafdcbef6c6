package names

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/lazy"
)

// Rules are what a site's names are held to.
type Rules struct {
	// Tree has all claims at, above and below the names, as they would be after
	// the change, the site's own among them.
	Tree *Tree
	// Held are the names that the site's account had before the change. For
	// others it is asked what they would take from other accounts.
	Held func(account, name string) bool
	// Reserved are names that no site may have or lie below, such as control's own.
	Reserved []string
	Now      time.Time
}

// Check returns what a site's names break: each error says which rule, and who
// has what stands in the way. The domain of an account is every name that one of
// its sites has, with all that lies below it. Within, only the account itself
// has names; others need a [upkeep.Delegation] that covers theirs.
func (r Rules) Check(site upkeep.Site) []upkeep.FieldError {
	var broken []upkeep.FieldError
	for _, name := range site.Names() {
		if len(broken) > 0 && broken[0].Field == "name" && !slices.Contains(site.Aliases, name) {
			continue // www and wildcard share the fate of the name
		}
		if rule := r.rule(site, name); rule != "" {
			field, value := fieldOf(site, name)
			broken = append(broken, upkeep.FieldError{Field: field, Value: value, Rule: rule})
		}
	}
	return broken
}

// fieldOf is the field that a name comes from, with what stands there.
func fieldOf(site upkeep.Site, name string) (field, value string) {
	switch i := slices.Index(site.Aliases, name); {
	case name == site.Name:
		return "name", name
	case i >= 0:
		return fmt.Sprintf("aliases[%d]", i), name
	case strings.HasPrefix(name, "*."):
		return "wildcard", name
	}
	return "www", name
}

func (r Rules) rule(site upkeep.Site, name string) string {
	base, wild := strings.CutPrefix(name, "*.")
	if Public(base) {
		return "is a public suffix, below which everybody may register domains; take one of these"
	}
	// The company itself may be a customer here: who has the name is for the operator to say.
	if Shared(base) && !r.Held(site.Account, name) {
		if _, _, valid := r.Tree.delegated(base, site.Account, r.Now); !valid {
			return fmt.Sprintf("is a public suffix, below which a company gives names to its customers; account %s needs a delegation of %s", site.Account, base)
		}
	}
	for _, reserved := range append(slices.Clip(r.Reserved), upkeep.OwnDomain) {
		switch {
		case upkeep.Within(base, reserved):
			return "is reserved for the operator of this upkeep"
		case wild && upkeep.Within(reserved, base):
			return fmt.Sprintf("would answer for %s, which is reserved for the operator of this upkeep", reserved)
		}
	}
	holder, known := r.Tree.claims[name]
	if !known {
		// Only a mistake of a caller leaves the site's own claims out.
		return "could not be checked against the names of others, and is refused for that"
	}
	if holder.Site != site.Name {
		return "belongs to " + whose(holder) + " already; a name has one site only"
	}
	// A site that answers nowhere takes nothing from anybody: one whose delegation
	// has ended can still be suspended.
	if rule := r.above(site.Account, name); rule != "" && !(site.Suspended && r.Held(site.Account, name)) {
		return rule
	}
	// Exact names go before wildcards, whoever has them: *.example.test takes
	// nothing from the names below it that somebody was given.
	if wild || r.Held(site.Account, name) {
		return ""
	}
	return r.below(site.Account, name)
}

func whose(c Claim) string { return fmt.Sprintf("site %s of account %s", c.Site, c.Account) }

// told is what whose says.
var told = lazy.Regexp(`site \S+ of account ([a-z0-9-]+)`)

// Discreet is a rule as it is told to an account: whose a name is, if it is not its
// own, is left out.
func Discreet(rule, account string) string {
	return told().ReplaceAllStringFunc(rule, func(text string) string {
		if told().FindStringSubmatch(text)[1] == account {
			return text
		}
		return "another account"
	})
}

// above is broken by a name that lies in the domain of another account without
// its leave.
func (r Rules) above(account, name string) string {
	for _, above := range Above(name) {
		for _, holder := range []string{above, "*." + above} {
			claim, claimed := r.Tree.claims[holder]
			if !claimed || claim.Account == account {
				continue
			}
			base := strings.TrimPrefix(name, "*.")
			d, found, valid := r.Tree.delegated(base, account, r.Now)
			switch {
			case valid:
			case found:
				return fmt.Sprintf("lies below %s, the domain of %s; the delegation of %s to account %s ended on %s", holder, whose(claim), d.Name, account, d.Until)
			default:
				return fmt.Sprintf("lies below %s, the domain of %s; account %s needs a delegation of %s", holder, whose(claim), account, base)
			}
		}
	}
	return ""
}

// below is broken by a new name above those of another account, which would all
// be in the domain of this one.
func (r Rules) below(account, name string) string {
	rule := ""
	r.Tree.below(name, func(c Claim) bool {
		base := strings.TrimPrefix(c.Name, "*.")
		if c.Account == account || base == name {
			return true
		}
		if _, arranged, _ := r.Tree.delegated(base, c.Account, r.Now); arranged {
			return true
		}
		rule = fmt.Sprintf("has %s below it, a name of %s; that account needs a delegation of %s first", c.Name, whose(c), base)
		return false
	})
	return rule
}

// Lookalike is the warning about a name that can be taken for one of another
// account.
func Lookalike(site upkeep.Site, name string, other Claim) string {
	return fmt.Sprintf("site %s: %s looks like %s, a name of %s", site.Name, Shown(name), other.Name, whose(other))
}
