package names

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"upkeep"
)

func TestASCII(t *testing.T) {
	for name, want := range map[string]string{
		"example.test": "example.test", "Example.TEST.": "example.test", "größe.test": "xn--gre-6ka8i.test", "straße.test": "xn--strae-oqa.test",
		"GRÖßE.test": "xn--gre-6ka8i.test", "XN--GRE-6KA8I.test": "xn--gre-6ka8i.test", "日本。test。": "xn--wgv71a.test", "пример.рф": "xn--e1afmkfd.xn--p1ai",
		"ｅｘａｍｐｌｅ.test": "example.test", // full width
		// Plain mistakes are for validation to explain.
		"a_b.test": "a_b.test", "*.Test": "*.test", "a..b": "a..b", "": "", ".": "", "x.test\"": "x.test\"",
	} {
		got, err := ASCII(name)
		if err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{
		"xn--a.test", "xn--.test", "xn--example-.test", "größe..test", "größe\n.test", "grö_ße.test", "-größe.test", "größe-.test", "a\u200db.test", "\u00ad.test",
		"ö\xff.test", strings.Repeat("ö", 70) + ".test", strings.Repeat("a.", 2000), "א1a.test", "ö/x.test", "xn--ls8h\x00.test", "ab--größe.test",
	} {
		if got, err := ASCII(name); err == nil && upkeep.ValidHost(got) {
			t.Errorf("%q is taken as %q", name, got)
		}
	}
}

func TestShown(t *testing.T) {
	for name, want := range map[string]string{
		"example.test": "example.test", "xn--gre-6ka8i.test": "xn--gre-6ka8i.test (größe.test)", "*.xn--gre-6ka8i.test": "*.xn--gre-6ka8i.test (*.größe.test)",
		"*.test": "*.test", "xn--a.test": "xn--a.test", "": "", "a\x1b[2J.test": upkeep.Printable("a\x1b[2J.test"),
	} {
		if got := Shown(name); got != want {
			t.Errorf("%q is shown as %q, want %q", name, got, want)
		}
	}
}

func TestCanonical(t *testing.T) {
	site := upkeep.Site{Name: "Größe.Test.", Aliases: []string{"SHOP.test", "日本.test"}, SubOf: "Test.",
		Redirects: []upkeep.Redirect{{From: "/Ä", To: "https://größe.test:81/ä"}, {From: "/b", To: "/ö"}, {From: "/c", To: "https://A.test/B"}}}
	got, broken := Canonical(site)
	want := upkeep.Site{Name: "xn--gre-6ka8i.test", Aliases: []string{"shop.test", "xn--wgv71a.test"}, SubOf: "test",
		Redirects: []upkeep.Redirect{{From: "/Ä", To: "https://xn--gre-6ka8i.test:81/ä"}, {From: "/b", To: "/ö"}, {From: "/c", To: "https://A.test/B"}}}
	if diff := cmp.Diff(upkeep.Object(want), got); diff != "" || len(broken) > 0 {
		t.Errorf("%s%v", diff, broken)
	}
	if site.Aliases[0] != "SHOP.test" || site.Redirects[0].To != "https://größe.test:81/ä" {
		t.Error("the site itself was changed")
	}
	site.Name, site.Aliases, site.Redirects = "xn--a.test", []string{"a.test", "ö..test"}, []upkeep.Redirect{{To: "http://ö..test/"}}
	got, broken = Canonical(site)
	var fields []string
	for _, b := range broken {
		fields = append(fields, b.Field)
	}
	if want := []string{"name", "aliases[1]", "redirects[0].to"}; !slices.Equal(fields, want) || got.ObjectName() != "xn--a.test" {
		t.Errorf("%v: %v", got, broken)
	}
	if got, _ := Canonical(upkeep.Delegation{Name: "Größe.test"}); got.ObjectName() != "xn--gre-6ka8i.test" {
		t.Error(got)
	}
	if zone := (upkeep.Zone{Name: "Example.test"}); !cmp.Equal(zone, func() upkeep.Object { o, _ := Canonical(zone); return o }()) {
		t.Error("a zone was changed")
	}
}

// FuzzASCII holds that what is kept is kept as it is, and that a name that passes
// validation means to every reader what it meant to the one who wrote it.
func FuzzASCII(f *testing.F) {
	for _, seed := range []string{"example.test", "größe.test", "xn--gre-6ka8i.test", "日本。test", "a\u200db.test", "xn--a", "*.x.test", "\xff", "ⓐ.test", "a\n.test"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		kept, err := ASCII(name)
		if err != nil {
			return
		}
		if !upkeep.ValidHost(kept) {
			return
		}
		if again, err := ASCII(kept); err != nil || again != kept {
			t.Fatalf("%q is kept as %q and then as %q, %v", name, kept, again, err)
		}
		if strings.ContainsAny(kept, " \"'\\${}%\n\r\x00/") {
			t.Fatalf("%q is kept as %q", name, kept)
		}
		if s := Skeleton(kept); s != Skeleton(s) && isASCII(s) {
			t.Fatalf("the skeleton of %q is %q, whose own is %q", kept, s, Skeleton(s))
		}
	})
}

func TestPublic(t *testing.T) {
	for name, want := range map[string]bool{
		"co.uk": true, "com": true, "foo.ck": true, "xn--p1ai": true, // рф
		"example.co.uk": false, "test": false, "example.test": false, "www.ck": false, "github.io": false, "internal": false,
	} {
		if Public(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	for name, want := range map[string]bool{"github.io": true, "blogspot.com": true, "acme.github.io": false, "co.uk": false, "example.test": false, "test": false, "com": false} {
		if Shared(name) != want {
			t.Errorf("%s is shared: %v", name, !want)
		}
	}
}

func TestSkeleton(t *testing.T) {
	for a, b := range map[string]string{
		"example.test":      "ехаmрle.test", // Cyrillic е х а р
		"paypal.test":       "раураӏ.test",
		"example1.test":     "examplel.test",
		"google.test":       "g00gle.test",
		"modern.test":       "modem.test",
		"wow.test":          "vvovv.test",
		"muller.test":       "müller.test",
		"alpha.test":        "αlphα.test",
		"xn--mller-kva.de":  "muller.de",
		"facebook.test":     "ƒaceƅook.test",
		"www.example.test":  "www.examрle.test",
		"bücher.example.de": "bucher.example.de",
	} {
		same := Skeleton(a) == Skeleton(b)
		if want := !strings.Contains(b, "ƅ"); same != want { // which is not in the table: it is short
			t.Errorf("%s is %s and %s is %s", a, Skeleton(a), b, Skeleton(b))
		}
	}
	for a, b := range map[string]string{"example.test": "sample.test", "a.test": "b.test", "clog.test": "dog.test", "example.test ": "exa.mple.test"} {
		if Skeleton(a) == Skeleton(b) {
			t.Errorf("%s looks like %s", a, b)
		}
	}
	for letter, ascii := range lookalikes {
		if letter < utf8.RuneSelf || !isASCII(ascii) || ascii == "" {
			t.Errorf("%q stands for %q", letter, ascii)
		}
	}
}

func TestBackwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		label := rapid.StringMatching(`[a-z0-9-]{1,3}|\*`)
		a := strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "a"), ".")
		b := strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "b"), ".")
		if Forwards(Backwards(a)) != a {
			t.Fatal(a)
		}
		from, x := Backwards(a), Backwards(b)
		if within := x >= from && x < Beyond(from); within != upkeep.Within(b, a) {
			t.Fatalf("%s within %s: %v", b, a, within)
		}
		if slices.Contains(Above(b), a) != (upkeep.Within(b, a) && a != b) {
			t.Fatalf("above %s: %v", b, Above(b))
		}
	})
}

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// world is a small control: what is declared, and the rules over it.
type world struct {
	sites       map[string]upkeep.Site
	delegations []upkeep.Delegation
	reserved    []string
	now         time.Time
}

func (w *world) put(site upkeep.Site) []upkeep.FieldError {
	var claims []Claim
	held := map[Claim]bool{}
	for name, other := range w.sites {
		for _, c := range Claims(other) {
			held[Claim{c.Name, "", c.Account}] = true
			if name != site.Name {
				claims = append(claims, c)
			}
		}
	}
	rules := Rules{Tree: NewTree(append(claims, Claims(site)...), w.delegations), Reserved: w.reserved, Now: w.now,
		Held: func(account, name string) bool { return held[Claim{name, "", account}] }}
	broken := rules.Check(site)
	if len(broken) == 0 {
		w.sites[site.Name] = site
	}
	return broken
}

func TestRules(t *testing.T) {
	no := false
	site := func(account, name string, aliases ...string) upkeep.Site {
		return upkeep.Site{Name: name, Account: account, WWW: &no, Aliases: aliases}
	}
	wild := func(s upkeep.Site) upkeep.Site { s.Wildcard = true; return s }
	www := func(s upkeep.Site) upkeep.Site { s.WWW = nil; return s }
	acme := wild(site("acme", "example.test", "alias.test"))
	delegation := func(name, account, until string) upkeep.Delegation {
		return upkeep.Delegation{Name: name, Account: account, Until: until}
	}
	for _, one := range []struct {
		name        string
		there       []upkeep.Site
		delegations []upkeep.Delegation
		site        upkeep.Site
		field, says string // "" for no error
	}{
		{"first", nil, nil, acme, "", ""},
		{"again", []upkeep.Site{acme}, nil, acme, "", ""},
		{"another's name", []upkeep.Site{acme}, nil, site("bob", "alias.test"), "name", "belongs to site example.test of account acme"},
		{"another's name as an alias", []upkeep.Site{acme}, nil, site("bob", "b.test", "c.test", "example.test"), "aliases[1]", "site example.test of account acme"},
		{"own name twice", []upkeep.Site{acme}, nil, site("acme", "a.test", "alias.test"), "aliases[0]", "site example.test of account acme"},
		{"another's www", []upkeep.Site{www(site("acme", "a.test"))}, nil, site("bob", "www.a.test"), "name", "site a.test of account acme"},
		{"www of another", []upkeep.Site{site("acme", "www.a.test")}, nil, www(site("bob", "a.test")), "name", "has www.a.test below it"},
		{"below another's", []upkeep.Site{acme}, nil, site("bob", "x.y.example.test"), "name", "account bob needs a delegation of x.y.example.test"},
		{"below another's alias", []upkeep.Site{acme}, nil, site("bob", "b.test", "x.alias.test"), "aliases[0]", "lies below alias.test, the domain of site example.test of account acme"},
		{"wildcard below another's", []upkeep.Site{acme}, nil, wild(site("bob", "x.example.test")), "name", "lies below example.test"},
		{"below one's own", []upkeep.Site{acme}, nil, www(wild(site("acme", "x.example.test"))), "", ""},
		{"above another's", []upkeep.Site{site("bob", "x.example.test")}, nil, acme, "name", "has x.example.test below it, a name of site x.example.test of account bob"},
		{"above another's by an alias", []upkeep.Site{site("bob", "x.y.alias.test")}, nil, acme, "aliases[0]", "account bob; that account needs a delegation of x.y.alias.test"},
		{"above another's wildcard", []upkeep.Site{wild(site("bob", "x.example.test"))}, nil, acme, "name", "below it"},
		{"delegated", []upkeep.Site{acme}, []upkeep.Delegation{delegation("x.example.test", "bob", "")}, www(site("bob", "x.example.test")), "", ""},
		{"below what is delegated", []upkeep.Site{acme}, []upkeep.Delegation{delegation("x.example.test", "bob", "2027-01-01T00:00:00Z")}, wild(site("bob", "y.x.example.test")), "", ""},
		{"beside what is delegated", []upkeep.Site{acme}, []upkeep.Delegation{delegation("x.example.test", "bob", "")}, site("bob", "xx.example.test"), "name", "needs a delegation of xx.example.test"},
		{"delegated to another", []upkeep.Site{acme}, []upkeep.Delegation{delegation("x.example.test", "carol", "")}, site("bob", "x.example.test"), "name", "needs a delegation"},
		{"delegation that ended", []upkeep.Site{acme}, []upkeep.Delegation{delegation("x.example.test", "bob", "2026-11-26T12:00:00Z")}, site("bob", "x.example.test"), "name", "ended on 2026-11-26T12:00:00Z"},
		{"delegation with an end that cannot be read", []upkeep.Site{acme}, []upkeep.Delegation{delegation("x.example.test", "bob", "soon")}, site("bob", "x.example.test"), "name", "ended on soon"},
		{"ended, but a wider one has not", []upkeep.Site{acme}, []upkeep.Delegation{delegation("x.example.test", "bob", "2020-01-01T00:00:00Z"), delegation("example.test", "bob", "")}, site("bob", "x.example.test"), "", ""},
		{"above what was delegated", []upkeep.Site{site("bob", "x.example.test")}, []upkeep.Delegation{delegation("x.example.test", "bob", "")}, acme, "", ""},
		{"public suffix", nil, nil, site("acme", "co.uk"), "name", "public suffix"},
		{"suffix of a company", nil, nil, site("acme", "github.io"), "name", "account acme needs a delegation of github.io"},
		{"suffix of a company by a wildcard", nil, nil, wild(site("acme", "github.io")), "name", "public suffix"},
		{"suffix of a company as an alias", nil, nil, site("acme", "a.test", "github.io"), "aliases[0]", "public suffix"},
		{"below a suffix of a company", nil, nil, site("acme", "acme.github.io"), "", ""},
		{"suffix of a company that is a customer", nil, []upkeep.Delegation{delegation("github.io", "acme", "")}, wild(site("acme", "github.io")), "", ""},
		{"suffix of a company, delegated to another", nil, []upkeep.Delegation{delegation("github.io", "bob", "")}, site("acme", "github.io"), "name", "public suffix"},
		{"suffix of a company that was taken before", []upkeep.Site{site("acme", "github.io")}, nil, site("acme", "github.io"), "", ""},
		{"public suffix as an alias", nil, nil, site("acme", "a.test", "co.uk"), "aliases[0]", "public suffix"},
		{"reserved", nil, nil, site("acme", "panel.operator.test"), "name", "reserved"},
		{"below what is reserved", nil, nil, site("acme", "a.test", "x.panel.operator.test"), "aliases[0]", "reserved"},
		{"above what is reserved", nil, nil, site("acme", "operator.test"), "", ""},
		{"over what is reserved", nil, nil, wild(site("acme", "operator.test")), "wildcard", "would answer for panel.operator.test"},
		{"www of what is reserved", nil, nil, www(site("acme", "own.test")), "www", "reserved"},
	} {
		t.Run(one.name, func(t *testing.T) {
			w := world{sites: map[string]upkeep.Site{}, delegations: one.delegations, reserved: []string{"panel.operator.test", "www.own.test"}, now: now}
			for _, s := range one.there {
				w.sites[s.Name] = s
			}
			broken := w.put(one.site)
			if one.field == "" && len(broken) > 0 {
				t.Fatal(broken)
			}
			if one.field != "" && (len(broken) == 0 || broken[0].Field != one.field || !strings.Contains(broken[0].Rule, one.says)) {
				t.Errorf("%v, want %s: ...%s...", broken, one.field, one.says)
			}
			for _, b := range broken {
				told := Discreet(b.Rule, one.site.Account)
				for _, s := range one.there {
					if s.Account != one.site.Account && (strings.Contains(told, "account "+s.Account) || strings.Contains(told, "site "+s.Name)) {
						t.Errorf("account %s is told: %s", one.site.Account, told)
					}
					if s.Account == one.site.Account && told != b.Rule {
						t.Errorf("of its own account %s is told: %s", one.site.Account, told)
					}
				}
			}
		})
	}
}

// The owner of a domain gives a part of it away for a time, and stays its owner.
func TestDelegationsLife(t *testing.T) {
	no := false
	w := world{sites: map[string]upkeep.Site{}, now: now, delegations: []upkeep.Delegation{{Name: "x.example.test", Account: "bob", Until: "2026-12-01T00:00:00Z"}}}
	owner := upkeep.Site{Name: "example.test", Account: "acme", Wildcard: true}
	tenant := upkeep.Site{Name: "x.example.test", Account: "bob", WWW: &no}
	for _, s := range []upkeep.Site{owner, tenant, owner} {
		if broken := w.put(s); len(broken) > 0 {
			t.Fatal(broken)
		}
	}
	w.now = now.AddDate(0, 1, 0)
	if broken := w.put(owner); len(broken) > 0 {
		t.Errorf("the owner, who gains nothing: %v", broken)
	}
	if broken := w.put(tenant); len(broken) == 0 || !strings.Contains(broken[0].Rule, "ended") {
		t.Errorf("the tenant, whose time is over: %v", broken)
	}
	tenant.Suspended = true
	if broken := w.put(tenant); len(broken) > 0 {
		t.Errorf("the tenant cannot even be suspended: %v", broken)
	}
	if broken := w.put(upkeep.Site{Name: "new.x.example.test", Account: "bob", WWW: &no, Suspended: true}); len(broken) == 0 {
		t.Error("a new name was had by being suspended")
	}
	tenant.Suspended = false
	if broken := w.put(tenant); len(broken) == 0 {
		t.Error("the tenant is back after its time")
	}
	w.delegations = nil
	if broken := w.put(owner); len(broken) > 0 {
		t.Errorf("the owner, once the delegation is gone: %v", broken)
	}
	owner.Wildcard = false
	if broken := w.put(owner); len(broken) > 0 {
		t.Errorf("the owner, with less than before: %v", broken)
	}
}

// What a caller forgot to hand over is refused, not allowed.
func TestNotFoundIsDenied(t *testing.T) {
	rules := Rules{Tree: NewTree(nil, nil), Held: func(string, string) bool { return true }, Now: now}
	for _, name := range []string{"example.test", "a.b.c.test"} {
		if broken := rules.Check(upkeep.Site{Name: name, Account: "acme"}); len(broken) != 1 || !strings.Contains(broken[0].Rule, "refused") {
			t.Errorf("%s: %v", name, broken)
		}
	}
}

// Whatever accounts try, no name has two sites, and nobody has a name in the
// domain of another without a delegation that was good when it was taken.
func TestNobodyTakesFromOthers(t *testing.T) {
	labels := rapid.SampledFrom([]string{"a", "b", "www", "x"})
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(append(rapid.SliceOfN(labels, 0, 2).Draw(t, "labels"), rapid.SampledFrom([]string{"one.test", "two.test", "a.one.test"}).Draw(t, "top")), ".")
	})
	accounts := rapid.SampledFrom([]string{"acme", "bob", "carol"})
	rapid.Check(t, func(t *rapid.T) {
		w := world{sites: map[string]upkeep.Site{}, now: now}
		given := []upkeep.Delegation{} // ever
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				d := upkeep.Delegation{Name: name.Draw(t, "given"), Account: accounts.Draw(t, "to")}
				if rapid.Bool().Draw(t, "for a time") {
					d.Until = w.now.Add(time.Hour).Format(time.RFC3339)
				}
				given, w.delegations = append(given, d), append(slices.DeleteFunc(w.delegations, func(o upkeep.Delegation) bool { return o.Name == d.Name }), d)
			case 1:
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute)
			case 2:
				delete(w.sites, name.Draw(t, "deleted"))
			default:
				on := rapid.Bool().Draw(t, "www")
				s := upkeep.Site{Name: name.Draw(t, "name"), Account: accounts.Draw(t, "account"), WWW: &on, Wildcard: rapid.Bool().Draw(t, "wildcard"),
					Aliases: rapid.SliceOfNDistinct(name, 0, 2, rapid.ID).Draw(t, "aliases")}
				w.put(s)
			}
			checkWorld(t, w, given)
		}
	})
}

func checkWorld(t *rapid.T, w world, given []upkeep.Delegation) {
	var all []Claim
	for _, s := range w.sites {
		all = append(all, Claims(s)...)
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if a.Name == b.Name {
				t.Fatalf("%v and %v", a, b)
			}
			under, over := a, b
			if strings.Contains(Backwards(over.Name), strings.TrimSuffix(Backwards(under.Name), "*.")) {
				under, over = b, a
			}
			base := strings.TrimPrefix(under.Name, "*.")
			if a.Account == b.Account || !upkeep.Within(base, strings.TrimPrefix(over.Name, "*.")) || base == strings.TrimPrefix(over.Name, "*.") {
				continue
			}
			if !slices.ContainsFunc(given, func(d upkeep.Delegation) bool { return d.Account == under.Account && upkeep.Within(base, d.Name) }) {
				t.Fatalf("%v lies in the domain of %v", under, over)
			}
		}
	}
}

// What upkeep itself uses as a name is nobody's, whatever the operator reserves.
func TestOwnNames(t *testing.T) {
	no := false
	for name, refused := range map[string]bool{"unknown-host.upkeep.invalid": true, "upkeep.invalid": true, "x.example.invalid": false} {
		site := upkeep.Site{Name: name, Account: "acme", WWW: &no}
		broken := Rules{Tree: NewTree(Claims(site), nil), Held: func(string, string) bool { return false }}.Check(site)
		if (len(broken) > 0) != refused {
			t.Errorf("%s: %v", name, broken)
		}
	}
}
