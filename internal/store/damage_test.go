package store_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/store"
)

// What somebody writes into the database past upkeep spoils no other row, is
// named, and can be replaced and deleted.
func TestDamagedSites(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string, raw *sql.DB) {
		ctx, s := context.Background(), opener(t, dsn)()
		apply := func(change store.Change) store.Applied {
			t.Helper()
			applied, err := s.Apply(ctx, "tester", change)
			if err != nil {
				t.Error(err)
			}
			return applied
		}
		site := func(account, name string, aliases ...string) upkeep.Site {
			return upkeep.Site{Name: name, Account: account, Servers: []string{"web1"}, Aliases: aliases}
		}
		good := []upkeep.Object{upkeep.Account{Name: "acme"}, upkeep.Account{Name: "bob"}, upkeep.Server{Name: "web1", Roles: []string{"web"}},
			site("acme", "good.test"), site("acme", "text.test"), site("acme", "field.test"), site("acme", "rule.test")}
		apply(store.Change{Put: good})
		for _, statement := range []string{
			`UPDATE objects SET document = '{"name":' WHERE name = 'text.test'`,
			`UPDATE objects SET document = '{"name":"field.test","account":"acme","servers":["web1"],"include":"/etc/passwd"}' WHERE name = 'field.test'`,
			`UPDATE objects SET document = '{"name":"rule.test","account":"acme","servers":["web1"],"headers":{"X":"%{file:/etc/shadow}"}}' WHERE name = 'rule.test'`,
			`INSERT INTO objects VALUES ('site', 'mask.test', 1, '{"name":"good.test","account":"bob","servers":["web1"]}', 1, 'thief', false)`,
			`INSERT INTO objects VALUES ('site', 'thief.test', 1, '{"name":"thief.test","account":"bob","servers":["web1"],"aliases":["www.good.test"],"www":false}', 1, 'thief', false)`,
			`INSERT INTO objects VALUES ('site', 'ghost.test', 1, '{"name":"ghost.test","account":"bob","servers":["web1"]}', 1, 'thief', false)`,
			`INSERT INTO objects VALUES ('account', 'root', 1, '{"name":"root","uid":0}', 1, 'thief', false)`,
			`INSERT INTO objects VALUES ('house', 'x', 1, '{}', 1, 'thief', false)`,
		} {
			exec(t, raw, statement)
		}
		declared, err := s.Objects(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var read []string
		for _, d := range declared {
			read = append(read, store.RefOf(d.Object).String())
		}
		want := "account/acme account/bob account/root server/web1 site/ghost.test site/good.test site/rule.test site/thief.test"
		if got := strings.Join(read, " "); got != want {
			t.Errorf("read %s\nwant %s", got, want)
		}
		checkFaults(t, s, map[string]string{
			"account/root": "systems use themselves", "site/text.test": "unexpected EOF", "site/field.test": "include", "site/rule.test": "headers.X",
			"site/mask.test": "it is about site/good.test", "site/thief.test": "www.good.test is registered to site good.test", "site/ghost.test": "ghost.test is not registered",
		})
		if _, err := s.Object(ctx, store.Ref{Kind: "site", Name: "text.test"}); err == nil || !strings.Contains(err.Error(), "site/text.test") {
			t.Errorf("a row that cannot be read: %v", err)
		}
		// What jobs are made from says the same, and finds nothing wrong with others.
		var refs []store.Ref
		for _, name := range []string{"good.test", "text.test", "rule.test", "mask.test", "thief.test", "ghost.test"} {
			refs = append(refs, store.Ref{Kind: "site", Name: name})
		}
		found, err := s.Declared(ctx, refs)
		if err != nil || len(found) != len(refs) {
			t.Fatalf("%d found, %v", len(found), err)
		}
		all, err := s.All(ctx, upkeep.KindSite)
		if err != nil || len(all) != 7 {
			t.Fatalf("%d sites, %v", len(all), err)
		}
		for _, one := range all {
			if (one.Err == nil) != (one.Ref.Name == "good.test") {
				t.Errorf("%s: %v", one.Ref, one.Err)
			}
		}
		for ref, one := range found {
			if (one.Err == nil) != (ref.Name == "good.test") || one.Ref != ref {
				t.Errorf("%s: %v", ref, one.Err)
			}
		}
		// Others go on, the damaged can be replaced and deleted.
		changed := site("acme", "good.test", "more.test")
		if applied := apply(store.Change{Put: []upkeep.Object{changed, site("acme", "text.test")}}); applied.Results[1].Action != store.Changed || applied.Altered[1].Old != nil {
			t.Errorf("replaced: %+v", applied)
		}
		apply(store.Change{Delete: []store.Ref{{Kind: "site", Name: "field.test"}, {Kind: "site", Name: "mask.test"}, {Kind: "site", Name: "thief.test"}, {Kind: "site", Name: "ghost.test"}, {Kind: "account", Name: "root"}}})
		apply(store.Change{Put: []upkeep.Object{site("acme", "rule.test"), site("acme", "field.test"), site("bob", "ghost.test")}})
		checkFaults(t, s, nil)
	})
}

func checkFaults(t *testing.T, s *store.Store, want map[string]string) {
	t.Helper()
	faults, err := s.Faults(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults {
		says, expected := want[fault.Ref.String()]
		if !expected || !strings.Contains(fault.Err.Error(), says) {
			t.Errorf("%s: %v, want ...%s...", fault.Ref, fault.Err, says)
		}
	}
	if len(faults) != len(want) {
		t.Errorf("%d faults, want %d: %v", len(faults), len(want), faults)
	}
}

// A value that is not of its column's type is refused by the database itself: one
// row with a word for a number would fail every query that reads it.
func TestTypesAreKept(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string, raw *sql.DB) {
		ctx, s := context.Background(), opener(t, dsn)()
		if _, err := s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{upkeep.Account{Name: "acme"}}}); err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{
			`UPDATE objects SET generation = 'x'`, `UPDATE objects SET generation = 1.5`, `UPDATE objects SET generation = NULL`, `UPDATE objects SET deleted = 'maybe'`,
			`INSERT INTO objects VALUES ('account', 'evil', 'x', '{}', 1, 'thief', false)`, `UPDATE uids SET uid = 'root'`,
			`INSERT INTO jobs (account, server, kind, object, generation, state, payload, attempts, drops, progress, percent, error, field, result, who, created, started, finished)
				VALUES ('a', 'b', 'c', 'd', 'x', 'pending', '', 0, 0, '', 0, '', '', '', '', 1, 0, 0)`,
			`INSERT INTO site_state VALUES ('a', 'b', 'x', '', '', '', '', 1)`,
		} {
			if _, err := raw.ExecContext(ctx, statement); err == nil && !strings.Contains(statement, "1.5") { // which PostgreSQL rounds
				t.Errorf("taken: %s", statement)
			}
		}
		if faults, err := s.Faults(ctx); err != nil || len(faults) > 0 {
			t.Errorf("%v, %v", faults, err)
		}
	})
}
