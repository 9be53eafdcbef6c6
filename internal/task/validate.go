package task

import (
	"fmt"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"upkeep"
	"upkeep/internal/lazy"
)

// Bounds of payloads. They are far above what is needed; what lies beyond is a
// mistake or an attack.
const (
	maxPath  = 300 // bytes, so that it fits into the object of a job
	maxDepth = 16
	maxSites = 100_000 // of one server
	maxSets  = 10_000  // of one zone
	maxZones = 100_000 // that share include files
)

// broken collects broken rules.
type broken []upkeep.FieldError

func (b *broken) add(field, value, rule string, args ...any) {
	if len(value) > 80 {
		value = strings.ToValidUTF8(value[:77], "") + "..."
	}
	*b = append(*b, upkeep.FieldError{Field: field, Value: value, Rule: fmt.Sprintf(rule, args...)})
}

// below adds what is wrong with something inside, under the name of the field it
// is in.
func (b *broken) below(field string, fields []upkeep.FieldError) {
	for _, f := range fields {
		f.Field = strings.TrimSuffix(field+"."+f.Field, ".")
		*b = append(*b, f)
	}
}

func (b *broken) account(field, name string) {
	if !upkeep.ValidAccount(name) {
		b.add(field, name, "must be the name of an account")
	}
}

func (b *broken) generation(n int64) {
	if n < 1 {
		b.add("generation", fmt.Sprint(n), "must be 1 or more")
	}
}

// mode is octal without set-user-id, set-group-id and sticky bits, and never
// writable by everybody.
var mode = lazy.Regexp(`^0[0-7][0-7][0145]$`)

func (t Mkdir) Validate() []upkeep.FieldError {
	var b broken
	if !upkeep.ValidObject(t.Root) {
		b.add("root", t.Root, "must be the name of a root in the agent's policy")
	}
	if !relative(t.Path) {
		b.add("path", t.Path, "must be a relative path of plain names, without . and .., of at most %d bytes and %d names", maxPath, maxDepth)
	}
	if t.Owner != "root" && !upkeep.ValidAccount(t.Owner) {
		b.add("owner", t.Owner, "must be an account or root")
	}
	// A folder that is one account's and lets in the group of another has no use,
	// and is a way to hand out what is not one's own.
	if t.Group != "root" && t.Group != WebGroup && (t.Group != t.Owner || !upkeep.ValidAccount(t.Group)) {
		b.add("group", t.Group, "must be that of the owner, root or %s", WebGroup)
	}
	switch {
	case !mode().MatchString(t.Mode):
		b.add("mode", t.Mode, "must be octal such as 0750, without set-id bits and not writable by all")
	case t.Owner == "root" && strings.ContainsRune("2367", rune(t.Mode[2])):
		b.add("mode", t.Mode, "must not let a group write into a folder that is root's")
	}
	return b
}

// WebGroup stands for the group that the web server runs as, whatever it is
// called on the server.
const WebGroup = "web"

// relative reports whether p is a clean path of plain names below where it is
// used.
func relative(p string) bool {
	if p == "" || path.Clean(p) != p || len(p) > maxPath || strings.Count(p, "/") >= maxDepth {
		return false
	}
	for name := range strings.SplitSeq(p, "/") {
		if !plainName().MatchString(name) {
			return false
		}
	}
	return true
}

// plainName is a name of a folder that no program reads anything into: no
// leading dot or hyphen, no blanks, nothing that a shell or a configuration
// would take for more than itself.
var plainName = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}$`)

// Validate checks that the account and its number are ones that upkeep gives.
func (t Tenant) Validate() []upkeep.FieldError {
	var b broken
	b.account("account", t.Account)
	if t.UID < upkeep.MinUID || t.UID > upkeep.MaxUID {
		b.add("uid", fmt.Sprint(t.UID), "must be %d to %d", upkeep.MinUID, upkeep.MaxUID)
	}
	return b
}

func (t SiteApply) Validate() []upkeep.FieldError {
	b := broken(owned(t.Site, t.Tenant, t.Generation))
	if t.Hold < 0 || t.Hold > MaxHold {
		b.add("hold", strconv.Itoa(t.Hold), "must be 0 to 10000 milliseconds")
	}
	return b
}

func (t SiteFiles) Validate() []upkeep.FieldError { return owned(t.Site, t.Tenant, t.Generation) }

func owned(site upkeep.Site, tenant Tenant, generation int64) []upkeep.FieldError {
	b := broken(site.Validate())
	b.below("tenant", tenant.Validate())
	if site.Account != tenant.Account {
		b.add("tenant.account", tenant.Account, "must be the site's account")
	}
	b.generation(generation)
	return b
}

func (t SiteRemove) Validate() []upkeep.FieldError {
	var b broken
	if !upkeep.ValidHost(t.Name) {
		b.add("name", t.Name, "must be a host name")
	}
	b.account("account", t.Account)
	b.generation(t.Generation)
	return b
}

func (t SiteSync) Validate() []upkeep.FieldError {
	var b broken
	if t.Partial && !t.Verify {
		b.add("partial", "true", "must go with verify: a part of the sites would have all others removed")
	}
	if len(t.Sites) > maxSites {
		b.add("sites", fmt.Sprint(len(t.Sites)), "may have at most %d elements", maxSites)
		return b
	}
	for i, name := range t.Changing {
		if !t.Verify || !slices.Contains(t.Keep, name) {
			b.add(fmt.Sprintf("changing[%d]", i), name, "must be one of keep, and go with verify")
		}
	}
	names := make(map[string]int, len(t.Sites))
	for i, site := range t.Sites {
		at := fmt.Sprintf("sites[%d]", i)
		if first, twice := names[site.Site.Name]; twice {
			b.add(at+".site.name", site.Site.Name, "is there twice, first as sites[%d]", first)
		}
		names[site.Site.Name] = i
		if t.Known(i) {
			continue
		}
		for _, field := range site.Validate() {
			field.Object = site.Object()
			field.Field = strings.TrimSuffix(at+"."+field.Field, ".")
			b = append(b, field)
		}
	}
	return b
}

func (t ZonePublish) Validate() []upkeep.FieldError {
	var b broken
	b.below("zone", t.Zone.Validate())
	if t.Publisher.Type != upkeep.PublishBind {
		b.add("publisher.type", t.Publisher.Type, "must be %s: no other needs an agent", upkeep.PublishBind)
	}
	if !slices.ContainsFunc(t.Zone.Publishers, func(p upkeep.Publisher) bool { return reflect.DeepEqual(p, t.Publisher) }) {
		b.add("publisher", "", "must be one of the zone's")
	}
	if len(t.Sets) > maxSets {
		b.add("sets", fmt.Sprint(len(t.Sets)), "may have at most %d elements", maxSets)
		return b
	}
	if len(t.Sharing) > maxZones {
		b.add("sharing", fmt.Sprint(len(t.Sharing)), "may have at most %d elements", maxZones)
		return b
	}
	for i, name := range t.Sharing {
		if !upkeep.ValidName(name) {
			b.add(fmt.Sprintf("sharing[%d]", i), name, "must be the name of a zone")
		}
	}
	for i, set := range t.Sets {
		set.validate(&b, fmt.Sprintf("sets[%d]", i))
	}
	return b
}

func (s Set) validate(b *broken, at string) {
	if !upkeep.ValidOwner(s.Owner) {
		b.add(at+".owner", s.Owner, `must be "@", a name relative to the zone, or a wildcard`)
	}
	if s.TTL < 0 || s.TTL > 365*24*3600 {
		b.add(at+".ttl", fmt.Sprint(s.TTL), "must be 0 to %d seconds", 365*24*3600)
	}
	if len(s.Addresses) > 2*upkeep.MaxAnswer {
		b.add(at+".addresses", fmt.Sprint(len(s.Addresses)), "may have at most %d elements", 2*upkeep.MaxAnswer)
		return
	}
	for i, text := range s.Addresses {
		if addr, err := netip.ParseAddr(text); err != nil || !upkeep.Publishable(addr) {
			b.add(fmt.Sprintf("%s.addresses[%d]", at, i), text, "must be a unicast IPv4 or IPv6 address")
		}
	}
}

func (t Notification) Validate() []upkeep.FieldError {
	var b broken
	b.account("account", t.Account)
	if t.Text == "" || len(t.Text) > 4096 {
		b.add("text", "", "must be 1 to 4096 bytes")
	}
	if strings.ContainsFunc(t.Text, func(c rune) bool { return c < 0x20 && c != '\n' || c >= 0x7f && c < 0xa0 }) {
		b.add("text", "", "must not hold control characters")
	}
	return b
}

func (ServerFacts) Validate() []upkeep.FieldError { return nil }
func (ServerPurge) Validate() []upkeep.FieldError { return nil }
