package task

import (
	"path"
	"regexp"
	"strings"

	"upkeep"
)

// mode is octal without set-user-id, set-group-id and sticky bits, and never
// writable by everybody.
var mode = regexp.MustCompile(`^0[0-7][0-7][0145]$`)

func (t Mkdir) Validate() []upkeep.FieldError {
	var broken []upkeep.FieldError
	add := func(field, value, rule string) {
		broken = append(broken, upkeep.FieldError{Field: field, Value: value, Rule: rule})
	}
	if !upkeep.ValidObject(t.Root) {
		add("root", t.Root, "must be the name of a root in the agent's policy")
	}
	if !relative(t.Path) {
		add("path", t.Path, "must be a relative path of plain names, without . and ..")
	}
	if t.Owner != "root" && !upkeep.ValidAccount(t.Owner) {
		add("owner", t.Owner, "must be an account or root")
	}
	if t.Group != "root" && t.Group != WebGroup && !upkeep.ValidAccount(t.Group) {
		add("group", t.Group, "must be an account, root or "+WebGroup)
	}
	if !mode.MatchString(t.Mode) {
		add("mode", t.Mode, "must be octal such as 0750, without set-id bits and not writable by all")
	}
	return broken
}

// WebGroup stands for the group that the web server runs as, whatever it is
// called on the server.
const WebGroup = "web"

// relative reports whether p is a clean path of at most 16 plain names below
// where it is used.
func relative(p string) bool {
	if p == "" || path.Clean(p) != p || len(p) > 1024 || strings.Count(p, "/") > 15 {
		return false
	}
	for name := range strings.SplitSeq(p, "/") {
		if !plainName.MatchString(name) {
			return false
		}
	}
	return true
}

// plainName is a name of a folder that no program reads anything into: no
// leading dot or hyphen, no blanks, nothing that a shell or a configuration
// would take for more than itself.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}$`)

// Validate checks that the account and its number are ones that upkeep gives.
func (t Tenant) Validate() []upkeep.FieldError {
	return upkeep.Account{Name: t.Account, UID: max(t.UID, 1)}.Validate()
}

func (t SiteApply) Validate() []upkeep.FieldError {
	return append(t.Site.Validate(), owned(t.Site, t.Tenant, t.Generation)...)
}

func (t SiteFiles) Validate() []upkeep.FieldError {
	return append(t.Site.Validate(), owned(t.Site, t.Tenant, t.Generation)...)
}

func owned(site upkeep.Site, tenant Tenant, generation int64) []upkeep.FieldError {
	broken := tenant.Validate()
	if site.Account != tenant.Account {
		broken = append(broken, upkeep.FieldError{Field: "tenant.account", Value: tenant.Account, Rule: "must be the site's account"})
	}
	if generation < 1 {
		broken = append(broken, upkeep.FieldError{Field: "generation", Rule: "must be 1 or more"})
	}
	return broken
}

func (t SiteRemove) Validate() []upkeep.FieldError {
	var broken []upkeep.FieldError
	if !upkeep.ValidHost(t.Name) {
		broken = append(broken, upkeep.FieldError{Field: "name", Value: t.Name, Rule: "must be a host name"})
	}
	if !upkeep.ValidAccount(t.Account) {
		broken = append(broken, upkeep.FieldError{Field: "account", Value: t.Account, Rule: "must be an account"})
	}
	return broken
}

func (t SiteSync) Validate() []upkeep.FieldError {
	var broken []upkeep.FieldError
	for _, site := range t.Sites {
		for _, field := range site.Validate() {
			field.Object = site.Object()
			broken = append(broken, field)
		}
	}
	return broken
}

func (t ZonePublish) Validate() []upkeep.FieldError { return t.Zone.Validate() }

func (t Notification) Validate() []upkeep.FieldError {
	var broken []upkeep.FieldError
	if !upkeep.ValidAccount(t.Account) {
		broken = append(broken, upkeep.FieldError{Field: "account", Value: t.Account, Rule: "must be an account"})
	}
	if t.Text == "" || len(t.Text) > 4096 {
		broken = append(broken, upkeep.FieldError{Field: "text", Rule: "must be 1 to 4096 bytes"})
	}
	return broken
}

func (ServerFacts) Validate() []upkeep.FieldError { return nil }
