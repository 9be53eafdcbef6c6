package upkeep

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Hosting is what changed things of [HostingKinds] are checked against: what
// they name and what names them, as it would be after the change. What is not in
// it does not exist.
type Hosting struct {
	Accounts map[string]Account
	Servers  map[string]Server
	// Sites are those that changed ones are sub-sites of, and the sub-sites of
	// changed ones.
	Sites map[string]Site
	// Needs has, for roles of changed servers, what needs them, such as
	// "site example.test".
	Needs map[Need]string
}

// Need is a role of a server.
type Need struct{ Server, Role string }

// CheckHosting returns the rules that changed things break between them and
// around them.
func CheckHosting(changed []Object, around Hosting) []Conflict {
	var found []Conflict
	subs := map[string][]Site{}
	for _, name := range slices.Sorted(maps.Keys(around.Sites)) {
		sub := around.Sites[name]
		subs[sub.SubOf] = append(subs[sub.SubOf], sub)
	}
	for _, object := range changed {
		var r rules
		switch o := object.(type) {
		case Site:
			around.checkSite(&r, o)
			for _, sub := range subs[o.Name] {
				for _, broken := range subRules(sub, o) {
					r.add(broken.Field, broken.Value, "does not go with its sub-site %s, whose %s %s", sub.Name, broken.Field, broken.Rule)
				}
			}
		case Delegation:
			around.account(&r, o.Account)
		case Server:
			for _, role := range Roles {
				if what, needed := around.Needs[Need{o.Name, role}]; needed && !slices.Contains(o.Roles, role) {
					r.add("roles", strings.Join(o.Roles, ", "), "must keep %s, which %s needs", role, what)
				}
			}
		}
		for _, field := range r.fields {
			found = append(found, Conflict{object, field})
		}
	}
	return found
}

func (h Hosting) account(r *rules, name string) {
	if _, exists := h.Accounts[name]; !exists {
		r.add("account", name, "must be a declared account; none of that name exists")
	}
}

func (h Hosting) checkSite(r *rules, s Site) {
	h.account(r, s.Account)
	for i, name := range s.Servers {
		h.server(r, fmt.Sprintf("servers[%d]", i), name, RoleWeb)
	}
	if s.Files != "" {
		h.server(r, "files", s.Files, RoleFiles)
	}
	if s.SubOf == "" {
		return
	}
	parent, exists := h.Sites[s.SubOf]
	if !exists {
		r.add("subof", s.SubOf, "must be a declared site; none of that name exists")
		return
	}
	for _, broken := range subRules(s, parent) {
		r.add(broken.Field, broken.Value, "%s", broken.Rule)
	}
}

func (h Hosting) server(r *rules, field, name, role string) {
	server, exists := h.Servers[name]
	if !exists {
		r.add(field, name, "must be a declared server; none of that name exists")
	} else if !slices.Contains(server.Roles, role) {
		r.add(field, name, "must be a server with role %s; it has %s", role, strings.Join(server.Roles, ", "))
	}
}

// subRules are what a sub-site breaks beside the site whose folder it lives in:
// that folder must be there, and be its own account's.
func subRules(sub, parent Site) []FieldError {
	var r rules
	switch {
	case parent.Account != sub.Account:
		// Whose the other is, is not told to somebody who only guessed a name.
		r.add("subof", sub.SubOf, "must be a site of the same account")
	case parent.SubOf != "":
		r.add("subof", sub.SubOf, "must not be a sub-site itself; name %s instead", parent.SubOf)
	case parent.Files != sub.Files:
		r.add("files", sub.Files, "must be that of the other site, %q, since it lives in its folder", parent.Files)
	case sub.Files == "":
		for i, server := range sub.Servers {
			if !slices.Contains(parent.Servers, server) {
				r.add(fmt.Sprintf("servers[%d]", i), server, "must be a server of %s, since it lives in its folder", sub.SubOf)
			}
		}
	}
	return r.fields
}
