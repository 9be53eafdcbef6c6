package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upkeep"
	"upkeep/internal/store"
)

var hostingTests = []test{
	{"sites come back, and rules around them hold", sitesComeBack},
	{"what is used is not deleted", usedNotDeleted},
	{"servers keep the roles that sites need", rolesKept},
	{"servers stay as zones need them", zonesNeedServers},
	{"sub-sites go with their site", subSites},
	{"a name has one site", nameHasOneSite},
	{"names move within one change", namesMove},
	{"the domain of an account is its own", domainsAreOwn},
	{"ends of delegations are told once", endsTold},
	{"reserved names stay free", reservedNames},
	{"names that look like others are warned of", lookalikesWarned},
	{"accounts get numbers that nobody had", accountNumbers},
	{"two writers get different numbers", numbersOfTwoWriters},
	{"earlier generations are kept", generationsKept},
	{"generations of sites are never given twice", siteGenerations},
	{"a dry run changes nothing", dryRun},
	{"many sites in one change", manySites},
	{"one thing is found", oneObject},
	{"all of a kind are as they are now", allOfAKind},
}

func acme() upkeep.Account { return upkeep.Account{Name: "acme"} }

func server(name string, roles ...string) upkeep.Server {
	return upkeep.Server{Name: name, Roles: roles}
}

// site is one without www, so that each has the names that are given.
func site(account, name string, aliases ...string) upkeep.Site {
	no := false
	return upkeep.Site{Name: name, Account: account, Servers: []string{"web1"}, WWW: &no, Aliases: aliases}
}

// ground declares what sites need: accounts acme and bob, servers web1, web2 and nfs1.
func ground(t *testing.T, s *store.Store) {
	t.Helper()
	put(t, s, acme(), upkeep.Account{Name: "bob"}, server("web1", "web"), server("web2", "web"), server("nfs1", "files"))
}

// refused holds that a change breaks the rules of one field, and says so.
func refused(t *testing.T, s *store.Store, change store.Change, object, field, says string) {
	t.Helper()
	_, err := s.Apply(ctx, "tester", change)
	var invalid *upkeep.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Fields) != 1 || invalid.Fields[0].Object != object || invalid.Fields[0].Field != field || !strings.Contains(invalid.Fields[0].Rule, says) {
		t.Errorf("refused with %v, want %s: %s: ...%s...", err, object, field, says)
	}
}

func sitesComeBack(t *testing.T, open func() *store.Store) {
	s := open()
	full := site("acme", "example.test", "shop.example.test", "xn--mller-kva.test")
	full.WWW, full.Wildcard, full.PHP = nil, true, &upkeep.PHP{Memory: 64}
	full.ErrorPages, full.Headers = map[string]string{"404": "/missing.html", "503": "it's \"late\" ? \n"}, map[string]string{"X-A": `"b" ? 'c'`}
	refused(t, s, store.Change{Put: []upkeep.Object{server("web1", "web"), full}}, "site/example.test", "account", "none of that name exists")
	refused(t, s, store.Change{Put: []upkeep.Object{acme(), full}}, "site/example.test", "servers[0]", "none of that name exists")
	refused(t, s, store.Change{Put: []upkeep.Object{acme(), full, server("web1", "dns")}}, "site/example.test", "servers[0]", "role web")
	refused(t, s, store.Change{Put: []upkeep.Object{upkeep.Delegation{Name: "a.test", Account: "bob"}}}, "delegation/a.test", "account", "none")
	// In any order.
	put(t, s, full, acme(), server("web1", "web"), upkeep.Delegation{Name: "a.test", Account: "acme"})
	for _, s := range []*store.Store{s, open()} {
		got, err := s.Object(ctx, store.RefOf(full))
		must(t, err)
		if diff := cmp.Diff(upkeep.Declared{Generation: 1, Object: full}, got); diff != "" {
			t.Error(diff)
		}
		if got := generations(t, s); got != "account/acme:1 delegation/a.test:1 server/web1:1 site/example.test:1" {
			t.Error(got)
		}
		if faults, err := s.Faults(ctx); err != nil || len(faults) > 0 {
			t.Errorf("faults %v, %v", faults, err)
		}
	}
	if again := put(t, s, full, acme(), server("web1", "web")); len(again.Events) != 0 || len(again.Altered) != 0 {
		t.Errorf("put again: %+v", again)
	}
}

func usedNotDeleted(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	one := site("acme", "example.test")
	put(t, s, one, upkeep.Delegation{Name: "x.test", Account: "bob"})
	web1, account, bob := store.RefOf(server("web1")), store.RefOf(acme()), store.Ref{Kind: "account", Name: "bob"}
	conflict := func(change store.Change, says string) {
		t.Helper()
		if _, err := s.Apply(ctx, "tester", change); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want ...%s...", err, says)
		}
	}
	conflict(store.Change{Delete: []store.Ref{web1}}, "site example.test still uses server web1")
	conflict(store.Change{Delete: []store.Ref{account}}, "site example.test still uses account acme")
	conflict(store.Change{Delete: []store.Ref{bob}}, "delegation x.test still uses account bob")
	conflict(store.Change{Put: []upkeep.Object{one}, Delete: []store.Ref{account}}, "still uses account acme") // put as it is
	altered := one
	altered.CGI = true
	refused(t, s, store.Change{Put: []upkeep.Object{altered}, Delete: []store.Ref{account}}, "site/example.test", "account", "none of that name")
	given := one
	given.Account = "bob"
	refused(t, s, store.Change{Put: []upkeep.Object{given}}, "site/example.test", "account", "belongs to account acme")
	moved := one
	moved.Servers = []string{"web2"}
	_, err := s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{moved}, Delete: []store.Ref{web1}})
	must(t, err)
	_, err = s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{account, store.RefOf(one), {Kind: "server", Name: "web2"}}})
	must(t, err)
	if got := generations(t, s); got != "account/bob:1 delegation/x.test:1 server/nfs1:1" {
		t.Error(got)
	}
	if _, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{account}}); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("deleting what was deleted: %v", err)
	}
}

func rolesKept(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	one := site("acme", "example.test")
	one.Files = "nfs1"
	put(t, s, one)
	refused(t, s, store.Change{Put: []upkeep.Object{server("web1", "dns")}}, "server/web1", "roles", "site example.test needs")
	refused(t, s, store.Change{Put: []upkeep.Object{server("nfs1", "web")}}, "server/nfs1", "roles", "must keep files")
	put(t, s, server("web1", "dns", "web"), server("web2", "dns"))
	one.Servers = []string{"web2"}
	refused(t, s, store.Change{Put: []upkeep.Object{one}}, "site/example.test", "servers[0]", "role web")
	put(t, s, one, server("web2", "web"), server("web1", "dns")) // what needed it moves away
}

func zonesNeedServers(t *testing.T, open func() *store.Store) {
	s := open()
	published := func(agents ...string) upkeep.Zone {
		z := upkeep.Zone{Name: "example.test"}
		for i, agent := range agents {
			z.Publishers = append(z.Publishers, upkeep.Publisher{Type: upkeep.PublishBind, Agent: agent, IncludeDir: fmt.Sprintf("/etc/bind/%d", i), View: fmt.Sprintf("v%d", i)})
		}
		return z
	}
	one := published("dns1", "dns1")
	refused(t, s, store.Change{Put: []upkeep.Object{published("dns1")}}, "zone/example.test", "publishers[0].agent", "none of that name exists")
	refused(t, s, store.Change{Put: []upkeep.Object{published("dns1"), server("dns1", "web")}}, "zone/example.test", "publishers[0].agent", "role dns")
	put(t, s, one, server("dns1", "dns"))
	put(t, s, server("dns2", "dns"))
	refused(t, s, store.Change{Put: []upkeep.Object{server("dns1", "web")}}, "server/dns1", "roles", "must keep dns, which zone example.test needs")
	dns1 := store.Ref{Kind: "server", Name: "dns1"}
	if _, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{dns1}}); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "zone example.test still uses server dns1") {
		t.Errorf("deleting a server that publishes: %v", err)
	}
	put(t, s, published("dns2"))
	_, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{dns1}})
	must(t, err)
	_, err = s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{store.RefOf(one), {Kind: "server", Name: "dns2"}}})
	must(t, err)
}

func subSites(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	parent, sub := site("acme", "example.test"), site("acme", "blog.example.test")
	sub.SubOf = parent.Name
	refused(t, s, store.Change{Put: []upkeep.Object{sub}}, "site/blog.example.test", "subof", "none of that name")
	put(t, s, sub, parent)
	moved, follows := parent, sub
	moved.Servers, follows.Servers = []string{"web2"}, []string{"web2"}
	refused(t, s, store.Change{Put: []upkeep.Object{moved}}, "site/example.test", "servers[0]", "sub-site blog.example.test")
	refused(t, s, store.Change{Put: []upkeep.Object{follows}}, "site/blog.example.test", "servers[0]", "its folder")
	put(t, s, moved, follows)
	if _, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{store.RefOf(parent)}}); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("a site with a sub-site: %v", err)
	}
	_, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{store.RefOf(parent), store.RefOf(sub)}})
	must(t, err)
}

func nameHasOneSite(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	one := site("acme", "example.test", "alias.test")
	one.WWW, one.Wildcard = nil, true
	put(t, s, one)
	owner := "site example.test of account acme"
	for name, field := range map[string]string{"alias.test": "name", "www.example.test": "name"} {
		refused(t, s, store.Change{Put: []upkeep.Object{site("bob", name)}}, "site/"+name, field, owner)
	}
	refused(t, s, store.Change{Put: []upkeep.Object{site("bob", "b.test", "c.test", "example.test")}}, "site/b.test", "aliases[1]", owner)
	refused(t, s, store.Change{Put: []upkeep.Object{site("acme", "b.test", "example.test")}}, "site/b.test", "aliases[0]", owner)
	// Two in one change: the later is to blame.
	refused(t, s, store.Change{Put: []upkeep.Object{site("bob", "b.test", "x.test"), site("acme", "a.test", "x.test")}}, "site/a.test", "aliases[0]", "site b.test of account bob")
	if got := generations(t, s); strings.Contains(got, "b.test") {
		t.Errorf("left %s", got)
	}
}

func namesMove(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	put(t, s, site("acme", "a.test", "x.test", "y.test"), site("acme", "b.test"))
	put(t, s, site("acme", "b.test", "x.test"), site("acme", "a.test", "y.test"))
	put(t, s, site("acme", "b.test", "y.test"), site("acme", "a.test", "x.test")) // exchanged
	_, err := s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{site("bob", "x.test")}, Delete: []store.Ref{{Kind: "site", Name: "a.test"}}})
	must(t, err)
	put(t, s, site("bob", "a.test"))
	refused(t, s, store.Change{Put: []upkeep.Object{site("bob", "c.test", "y.test")}}, "site/c.test", "aliases[0]", "site b.test of account acme")
	if faults, err := s.Faults(ctx); err != nil || len(faults) > 0 {
		t.Errorf("faults %v, %v", faults, err)
	}
}

func domainsAreOwn(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	put(t, s, site("acme", "example.test"))
	blog := site("bob", "x.blog.example.test")
	refused(t, s, store.Change{Put: []upkeep.Object{blog}}, "site/x.blog.example.test", "name", "domain of site example.test of account acme")
	given := upkeep.Delegation{Name: "blog.example.test", Account: "bob", Until: time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}
	over := given
	over.Until = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	refused(t, s, store.Change{Put: []upkeep.Object{blog, over}}, "site/x.blog.example.test", "name", "ended on")
	put(t, s, blog, given)
	put(t, s, over)
	put(t, s, blog) // as it is
	blog.CGI = true
	refused(t, s, store.Change{Put: []upkeep.Object{blog}}, "site/x.blog.example.test", "name", "ended on")
	_, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{store.RefOf(given)}})
	must(t, err)
	refused(t, s, store.Change{Put: []upkeep.Object{blog}}, "site/x.blog.example.test", "name", "needs a delegation")
	wild := site("acme", "example.test")
	wild.Wildcard = true
	put(t, s, wild) // exact names go before it
	// What lies above somebody else's.
	put(t, s, site("bob", "deep.other.test"))
	refused(t, s, store.Change{Put: []upkeep.Object{site("acme", "other.test")}}, "site/other.test", "name", "a name of site deep.other.test of account bob")
	refused(t, s, store.Change{Put: []upkeep.Object{site("acme", "c.test", "other.test")}}, "site/c.test", "aliases[0]", "deep.other.test")
	both := store.Change{Put: []upkeep.Object{site("acme", "new.test"), site("bob", "x.new.test")}}
	if _, err := s.Apply(ctx, "tester", both); err == nil || !strings.Contains(err.Error(), "domain of site new.test") || !strings.Contains(err.Error(), "has x.new.test below it") {
		t.Errorf("one above the other in one change: %v", err)
	}
	put(t, s, site("acme", "other.test"), upkeep.Delegation{Name: "deep.other.test", Account: "bob"})
}

// endsTold tells of each delegation that ended, with what becomes of the sites that
// are there by it, once, also to the process after.
func endsTold(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	given := upkeep.Delegation{Name: "blog.example.test", Account: "bob", Until: at(time.Hour)}
	later := upkeep.Delegation{Name: "later.test", Account: "bob", Until: at(2 * time.Hour)}
	put(t, s, site("acme", "example.test"), given, later, upkeep.Delegation{Name: "ever.test", Account: "bob"})
	put(t, s, site("bob", "blog.example.test", "a.blog.example.test"), site("bob", "bobs.test"))
	expect := func(want string, until string) {
		t.Helper()
		for i, s := range []*store.Store{s, open()} {
			told, next, err := s.EndedDelegations(ctx)
			must(t, err)
			var got []string
			for _, e := range told {
				got = append(got, e.Object+" "+e.What+": "+e.Why)
				if e.ID == 0 || e.Kind != upkeep.EventWarning {
					t.Errorf("event %+v", e)
				}
			}
			if i == 1 {
				want = "" // by the one before
			}
			if text := strings.Join(got, "\n"); text != want {
				t.Errorf("told %q, want %q", text, want)
			}
			if got := next.UTC().Format(time.RFC3339); got != until {
				t.Errorf("the next look is at %s, want %s", got, until)
			}
		}
	}
	expect("", given.Until)
	given.Until = at(-time.Hour)
	put(t, s, given)
	expect("delegation/blog.example.test the delegation has ended: on "+given.Until+"; account bob can take no names there any more; "+
		"its site blog.example.test stays as it is, and can be suspended or removed, and not be changed otherwise", later.Until)
	later.Until = at(-time.Minute)
	put(t, s, later)
	_, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{store.RefOf(given)}})
	must(t, err)
	expect("delegation/later.test the delegation has ended: on "+later.Until+"; account bob can take no names there any more, and has none", "0001-01-01T00:00:00Z")
	if all := events(t, s, store.EventFilter{Object: "delegation", Kind: upkeep.EventWarning}); len(all) != 2 {
		t.Errorf("stored are %+v", all)
	}
}

func reservedNames(t *testing.T, open func() *store.Store) {
	s := open()
	s.Reserve("Panel.Example.test.")
	ground(t, s)
	refused(t, s, store.Change{Put: []upkeep.Object{site("acme", "panel.example.test")}}, "site/panel.example.test", "name", "reserved")
	refused(t, s, store.Change{Put: []upkeep.Object{site("acme", "a.test", "x.panel.example.test")}}, "site/a.test", "aliases[0]", "reserved")
	refused(t, s, store.Change{Put: []upkeep.Object{site("acme", "co.uk")}}, "site/co.uk", "name", "public suffix")
	put(t, s, site("acme", "example.test"))
}

func lookalikesWarned(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	fake := site("bob", "xn--pypal-4ve.test") // with the а of Cyrillic
	if applied := put(t, s, site("acme", "paypal.test"), site("acme", "paypa1.test")); len(applied.Warnings) > 0 {
		t.Errorf("of one account: %q", applied.Warnings)
	}
	applied := put(t, s, fake)
	if len(applied.Warnings) != 1 || !strings.Contains(applied.Warnings[0], "a name of site paypal.test of account acme") && !strings.Contains(applied.Warnings[0], "paypa1.test") {
		t.Errorf("warnings %q", applied.Warnings)
	}
	fake.CGI = true
	if again := put(t, s, fake); len(again.Warnings) > 0 {
		t.Errorf("warned again: %q", again.Warnings)
	}
	applied = put(t, s, site("acme", "rnodern.test"), site("bob", "modern.test"))
	if len(applied.Warnings) != 2 {
		t.Errorf("within one change: %q", applied.Warnings)
	}
}

func accountNumbers(t *testing.T, open func() *store.Store) {
	s := open()
	uid := func(name string) int {
		t.Helper()
		declared, err := s.Object(ctx, store.Ref{Kind: "account", Name: name})
		must(t, err)
		return declared.Object.(upkeep.Account).UID
	}
	put(t, s, acme(), upkeep.Account{Name: "bob", UID: 20005}, upkeep.Account{Name: "carol"})
	if got := []int{uid("acme"), uid("bob"), uid("carol")}; !slices.Equal(got, []int{20000, 20005, 20001}) {
		t.Errorf("numbers %v", got)
	}
	put(t, s, upkeep.Account{Name: "dave"})
	if got := uid("dave"); got != 20006 {
		t.Errorf("after the highest: %d", got)
	}
	if again := put(t, s, acme(), upkeep.Account{Name: "acme2", UID: 20007}); again.Results[0].Action != store.Unchanged {
		t.Errorf("put without its number: %+v", again.Results[0])
	}
	suspended := upkeep.Account{Name: "acme", Suspended: true}
	if changed := put(t, s, suspended); changed.Results[0].Action != store.Changed || uid("acme") != 20000 {
		t.Errorf("changed without its number: %+v, %d", changed.Results[0], uid("acme"))
	}
	refused(t, s, store.Change{Put: []upkeep.Object{upkeep.Account{Name: "eve", UID: 20005}}}, "account/eve", "uid", "number of account bob")
	refused(t, s, store.Change{Put: []upkeep.Object{upkeep.Account{Name: "acme", UID: 30000}}}, "account/acme", "uid", "must be 20000")
	_, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{{Kind: "account", Name: "bob"}, {Kind: "account", Name: "dave"}}})
	must(t, err)
	refused(t, s, store.Change{Put: []upkeep.Object{upkeep.Account{Name: "eve", UID: 20005}}}, "account/eve", "uid", "even when it was deleted")
	put(t, s, upkeep.Account{Name: "eve"}, upkeep.Account{Name: "dave"})
	if got := []int{uid("eve"), uid("dave")}; !slices.Equal(got, []int{20008, 20006}) {
		t.Errorf("a new one and one that comes back: %v", got)
	}
	// The end of the range.
	put(t, s, upkeep.Account{Name: "last", UID: upkeep.MaxUID})
	put(t, s, upkeep.Account{Name: "gap"}, upkeep.Account{Name: "gap2"})
	if got := []int{uid("gap"), uid("gap2")}; !slices.Equal(got, []int{20002, 20003}) {
		t.Errorf("in the gaps: %v", got)
	}
	// Two that want one number.
	refused(t, s, store.Change{Put: []upkeep.Object{upkeep.Account{Name: "one", UID: 25000}, upkeep.Account{Name: "two", UID: 25000}}}, "account/two", "uid", "account one")
}

func numbersOfTwoWriters(t *testing.T, open func() *store.Store) {
	const writers, each = 3, 10
	s, done := open(), make(chan error)
	for w := range writers {
		mine := open()
		go func() {
			for i := range each {
				if _, err := mine.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{upkeep.Account{Name: fmt.Sprintf("w%d-%d", w, i)}}}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range writers {
		must(t, <-done)
	}
	declared, err := s.Objects(ctx, upkeep.KindAccount)
	must(t, err)
	seen := map[int]bool{}
	for _, d := range declared {
		seen[d.Object.(upkeep.Account).UID] = true
	}
	if len(seen) != writers*each || !seen[upkeep.MinUID] || !seen[upkeep.MinUID+writers*each-1] {
		t.Errorf("%d numbers: %v", len(seen), seen)
	}
}

func generationsKept(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	ref := store.Ref{Kind: "site", Name: "example.test"}
	first := site("acme", "example.test", "old.test")
	put(t, s, first)
	for i := range 12 {
		put(t, s, site("acme", "example.test", fmt.Sprintf("a%d.test", i)))
	}
	object, err := s.Generation(ctx, ref, 1)
	must(t, err)
	if diff := cmp.Diff(upkeep.Object(first), object); diff != "" {
		t.Error(diff)
	}
	if applied := put(t, s, object); applied.Results[0].Generation != 14 {
		t.Errorf("put back: %+v", applied.Results)
	}
	_, err = s.Apply(ctx, "remover", store.Change{Delete: []store.Ref{ref}})
	must(t, err)
	versions, err := s.History(ctx, ref)
	must(t, err)
	if len(versions) != 15 || versions[0].Generation != 15 || versions[0].Object != nil || versions[0].Who != "remover" || !cmp.Equal(versions[1].Object, object) || versions[14].At.IsZero() {
		t.Errorf("history %+v", versions)
	}
	for _, generation := range []int64{0, 15, 16} {
		if _, err := s.Generation(ctx, ref, generation); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("generation %d: %v", generation, err)
		}
	}
	_, err = s.PruneEvents(ctx, time.Now().Add(time.Hour))
	must(t, err)
	if versions, err := s.History(ctx, ref); err != nil || len(versions) != store.KeptGenerations || versions[9].Generation != 6 {
		t.Errorf("after pruning %d, %v: %+v", len(versions), err, versions)
	}
}

// Agents remember the generations that they applied, longer than events are kept.
func siteGenerations(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	ref := store.Ref{Kind: "site", Name: "example.test"}
	put(t, s, site("acme", "example.test"))
	applied, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{ref}})
	must(t, err)
	if applied.Results[0].Generation != 2 { // newer than what an agent has
		t.Errorf("deleted: %+v", applied.Results)
	}
	_, err = s.PruneEvents(ctx, time.Now().Add(time.Hour))
	must(t, err)
	if applied := put(t, s, site("acme", "example.test")); applied.Results[0].Generation != 3 || applied.Results[0].Action != store.Created {
		t.Errorf("created again: %+v", applied.Results)
	}
}

func dryRun(t *testing.T, open func() *store.Store) {
	s := open()
	ground(t, s)
	told := 0
	s.Follow(follower(func(context.Context, store.Tx, []store.Altered) error { told++; return nil }))
	before := len(events(t, s, store.EventFilter{}))
	one := site("acme", "example.test")
	applied, err := s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{one, upkeep.Account{Name: "carol"}, acme()}, DryRun: true})
	must(t, err)
	want := []store.Result{{Ref: store.RefOf(one), Action: store.Created, Generation: 1},
		{Ref: store.Ref{Kind: "account", Name: "carol"}, Action: store.Created, Generation: 1}, {Ref: store.RefOf(acme()), Action: store.Unchanged, Generation: 1}}
	if diff := cmp.Diff(want, applied.Results); diff != "" || len(applied.Events) > 0 || len(applied.Altered) != 2 || told > 0 {
		t.Errorf("%s%+v", diff, applied)
	}
	if got := generations(t, s); strings.Contains(got, "site") || strings.Contains(got, "carol") {
		t.Error(got)
	}
	if after := len(events(t, s, store.EventFilter{})); after != before {
		t.Errorf("%d events of nothing", after-before)
	}
	refused(t, s, store.Change{Put: []upkeep.Object{site("carol", "example.test")}, DryRun: true}, "site/example.test", "account", "none of that name")
}

func manySites(t *testing.T, open func() *store.Store) {
	const n = 1200 // more than any statement takes
	s := open()
	ground(t, s)
	objects := make([]upkeep.Object, n)
	var refs []store.Ref
	for i := range objects {
		objects[i] = site([]string{"acme", "bob"}[i%2], fmt.Sprintf("site%d.test", i), fmt.Sprintf("alias%d.test", i))
		refs = append(refs, store.RefOf(objects[i]))
	}
	applied := put(t, s, objects...)
	if len(applied.Results) != n || len(applied.Events) != n || len(applied.Altered) != n {
		t.Errorf("%d results, %d events", len(applied.Results), len(applied.Events))
	}
	if again := put(t, s, objects...); len(again.Altered) != 0 {
		t.Errorf("%d changed by nothing", len(again.Altered))
	}
	if declared, err := s.Objects(ctx, upkeep.KindSite); err != nil || len(declared) != n {
		t.Errorf("%d sites, %v", len(declared), err)
	}
	if faults, err := s.Faults(ctx); err != nil || len(faults) > 0 {
		t.Errorf("faults %v, %v", faults, err)
	}
	refused(t, s, store.Change{Put: append(slices.Clone(objects), site("bob", "thief.test", "alias700.test"))}, "site/thief.test", "aliases[0]", "site site700.test of account acme")
	_, err := s.Apply(ctx, "tester", store.Change{Delete: refs})
	must(t, err)
	put(t, s, site("bob", "thief.test", "alias700.test"))
}

func oneObject(t *testing.T, open func() *store.Store) {
	s := open()
	put(t, s, zone("a.test"), acme())
	if got, err := s.Object(ctx, store.Ref{Kind: "zone", Name: "a.test"}); err != nil || got.Generation != 1 || got.Object.ObjectName() != "a.test" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, ref := range []store.Ref{{Kind: "zone", Name: "b.test"}, {Kind: "site", Name: "a.test"}, {Kind: "site", Name: "a\x00'"}, {}} {
		if _, err := s.Object(ctx, ref); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if some, err := s.Objects(ctx, upkeep.PoolKinds...); err != nil || len(some) != 1 {
		t.Errorf("%v, %v", some, err)
	}
}

// allOfAKind reads all things of a kind again and again, by two processes, between
// changes of either: nobody is told of what was before.
func allOfAKind(t *testing.T, open func() *store.Store) {
	s, other := open(), open()
	ground(t, s)
	expect := func(want string) {
		t.Helper()
		for _, s := range []*store.Store{s, other, s} {
			found, err := s.All(ctx, upkeep.KindSite)
			must(t, err)
			got := ""
			for _, one := range found {
				got += fmt.Sprintf("%s:%d:%t ", one.Ref.Name, one.Generation, one.Object.(upkeep.Site).CGI)
				if one.Err != nil {
					t.Error(one.Err)
				}
			}
			if got != want {
				t.Errorf("found %q, want %q", got, want)
			}
		}
	}
	expect("")
	put(t, s, site("acme", "a.test"), site("bob", "b.test"))
	expect("a.test:1:false b.test:1:false ")
	changed := site("acme", "a.test")
	changed.CGI = true
	put(t, other, changed)
	expect("a.test:2:true b.test:1:false ")
	_, err := other.Apply(ctx, "tester", store.Change{Delete: []store.Ref{{Kind: "site", Name: "b.test"}}})
	must(t, err)
	expect("a.test:2:true ")
}
