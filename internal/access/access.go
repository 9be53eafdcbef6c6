// Package access says who may do what. It is pure: who somebody is was found out
// by others, and what belongs to whom is handed in.
//
// Every route of the API and of the pages has a rule in one table, see rules.go; a
// route without one cannot be registered.
package access

import (
	"context"
	"fmt"
	"slices"

	"upkeep"
)

// Caller is who sent a request.
type Caller struct {
	// Who is written into events: "uid 0 (root)", "token", "user ada", or the
	// address of somebody who may only look on.
	Who string
	// Staff sees and does everything.
	Staff bool
	// Account is whose things a customer sees and changes.
	Account string
	// ReadOnly takes away what changes anything, whatever else is given.
	ReadOnly bool
	// User is the name that somebody signed in with; empty for the rest. SignIn is
	// the one that this request came by, 0 for none.
	User   string
	SignIn int64
	// Token is the token of a user that this request came by, 0 for none; WithUsers
	// says that it may see to users, as who came in another way may.
	Token     int64
	WithUsers bool
}

// SeesToUsers reports whether a caller may say who may sign in, and how.
func (c Caller) SeesToUsers() bool { return c.Token == 0 || c.WithUsers }

// CheckToken says whether a caller may give a user a token, or take one back: a
// token sees to those of its own user, unless it may see to users. How long one is
// good, and for what, is checked by the store, which knows the token that it is made with.
func CheckToken(c Caller, user string) error {
	if c.SeesToUsers() || c.User == user {
		return nil
	}
	return upkeep.WithHint(fmt.Errorf("%w: your token may see to tokens of %s alone", upkeep.ErrRefused, c.User), "make one with scope "+upkeep.ScopeUsers)
}

// Known reports whether the caller is more than a stranger.
func (c Caller) Known() bool { return c.Staff || c.Account != "" }

// Owns reports whether what belongs to an account is the caller's to see. What
// belongs to none is the operator's.
func (c Caller) Owns(account string) bool {
	return c.Staff || c.Account != "" && c.Account == account
}

type contextKey struct{}

// With puts the caller into the context of a request.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// From is the caller of a request; a stranger where none was put in.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(contextKey{}).(Caller)
	return c
}

// Change is a site as it would be, with what it is: nil for one that is not
// declared.
type Change struct {
	Is    *upkeep.Site
	Would upkeep.Site
}

// CheckRemoval says whether a caller may remove a site. Removed and declared anew, a
// suspended one would answer again.
func CheckRemoval(c Caller, site upkeep.Site) []upkeep.FieldError {
	if c.Staff || !site.Suspended {
		return nil
	}
	return []upkeep.FieldError{{Object: upkeep.KindSite + "/" + site.Name, Field: "suspended", Value: "true", Rule: "a suspended site is for staff to remove"}}
}

// CheckSites says what a caller may not do to sites. Names, accounts and servers
// are checked by the store, for everybody. Servers that are for staff to choose are
// given by name; a site that is on one stays there.
func CheckSites(c Caller, changes []Change, staffOnly []string) []upkeep.FieldError {
	var broken []upkeep.FieldError
	if c.Staff {
		return nil
	}
	for _, change := range changes {
		add := func(field, value, rule string) {
			broken = append(broken, upkeep.FieldError{Object: upkeep.KindSite + "/" + change.Would.Name, Field: field, Value: value, Rule: rule})
		}
		if !c.Owns(change.Would.Account) {
			add("account", change.Would.Account, "must be your own, "+c.Account)
			continue
		}
		// The store would refuse it too, and say whose it is.
		if change.Is != nil && !c.Owns(change.Is.Account) {
			add("name", change.Would.Name, "is taken")
			continue
		}
		if change.Is != nil && change.Is.Suspended && !change.Would.Suspended {
			add("suspended", "false", "is for staff to lift")
		}
		var is upkeep.Site
		if change.Is != nil {
			is = *change.Is
		}
		for i, server := range change.Would.Servers {
			if slices.Contains(staffOnly, server) && !slices.Contains(is.Servers, server) {
				add(fmt.Sprintf("servers[%d]", i), server, "is for staff to choose")
			}
		}
		if change.Would.Files != is.Files {
			add("files", change.Would.Files, "is for staff to change")
		}
	}
	return broken
}
