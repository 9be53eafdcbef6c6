package article

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/task"
)

func TestUnserialize(t *testing.T) {
	good := map[string]any{
		`N;`:                         nil,
		`b:1;`:                       true,
		`i:-42;`:                     int64(-42),
		`d:0.5;`:                     0.5,
		`s:5:"a"b;c";`:               `a"b;c`,
		`s:4:"öö";`:                  "öö",
		`a:0:{}`:                     []entry{},
		`a:1:{i:404;s:2:"/x";}`:      []entry{{"404", "/x"}},
		`a:2:{s:1:"a";N;i:1;a:0:{}}`: []entry{{"a", nil}, {"1", []entry{}}},
	}
	for text, want := range good {
		if got, err := unserialize(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, %v; want %#v", text, got, err, want)
		}
	}
	for _, text := range []string{
		``, `i:`, `i:1`, `i:x;`, `b:2;`, `N;N;`, `s:9:"short";`, `s:-1:"";`, `s:99999999999:"";`, `a:1:{}`, `a:1:{i:1;}`, `a:99999:{}`,
		`a:1:{a:0:{}i:1;}`, `a:1:{N;i:1;}`, `O:8:"stdClass":0:{}`, `C:1:"x":0:{}`, `R:1;`, `r:1;`,
		strings.Repeat(`a:1:{i:0;`, 50) + "N;" + strings.Repeat("}", 50),
	} {
		if got, err := unserialize(text); err == nil {
			t.Errorf("%s: got %#v, want an error", text, got)
		}
	}
}

func FuzzUnserialize(f *testing.F) {
	f.Add(`a:2:{s:1:"a";N;i:1;a:1:{i:0;d:1.5;}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := unserialize(text); err != nil && !strings.Contains(err.Error(), "serialised form") {
			t.Errorf("an error without its context: %v", err)
		}
	})
}

// FuzzReadDump wants what is taken over of any dump to keep the rules of what is declared.
func FuzzReadDump(f *testing.F) {
	f.Add("CREATE TABLE `upkeep` (`id` int, KEY `x` (`id`)); INSERT INTO `upkeep` VALUES (1),(NULL);")
	f.Add("INSERT INTO virtual_hosts (id, server) VALUES (1, 'a\\'b''c')")
	dump, err := os.ReadFile("testdata/dump.sql")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(dump))
	f.Fuzz(func(t *testing.T, text string) {
		tables, err := ReadDump(strings.NewReader(text))
		if err != nil {
			return
		}
		plan, err := tables.Convert(Options{Servers: []string{"web"}, Canonical: true})
		if err != nil {
			return
		}
		for _, one := range plan.Objects() {
			if broken := one.Validate(); len(broken) > 0 {
				t.Errorf("%+v breaks %v", one, broken)
			}
		}
		for _, job := range plan.Jobs {
			if broken := job.Validate(); len(broken) > 0 {
				t.Errorf("%+v breaks %v", job, broken)
			}
		}
	})
}

// TestDump takes over a dump as mariadb-dump writes it, with rows that are well
// and rows that carry what an attacker or a slip may have put there.
func TestDump(t *testing.T) {
	file, err := os.Open("testdata/dump.sql")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tables, err := ReadDump(file)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := tables.Convert(Options{Servers: []string{"web1"}, Canonical: true, CGI: true})
	if err != nil {
		t.Fatal(err)
	}
	var network upkeep.Network
	networks := func(texts ...string) (all []upkeep.Network) {
		for _, text := range texts {
			if err := network.UnmarshalText([]byte(text)); err != nil {
				t.Fatal(err)
			}
			all = append(all, network)
		}
		return all
	}
	wantSites := []upkeep.Site{
		{Name: "example.test", Account: "acme", Servers: []string{"web1"}, CGI: true, Canonical: "bare", CanonicalStatus: 307,
			ErrorPages: map[string]string{"404": "/missing.html"}, Deny: networks("192.0.2.7", "198.51.0.0/16", "203.0.113.0/24"),
			Environment: map[string]string{"APP_ENV": "live"}},
		{Name: "shop.example.test", Account: "acme", Servers: []string{"web1"}, CGI: true, Canonical: "bare", CanonicalStatus: 307, SubOf: "example.test"},
	}
	if !reflect.DeepEqual(plan.Sites, wantSites) {
		t.Errorf("got sites\n%+v, want\n%+v", plan.Sites, wantSites)
	}
	if want := []upkeep.Account{{Name: "acme"}}; !reflect.DeepEqual(plan.Accounts, want) {
		t.Errorf("got accounts %+v, want %+v", plan.Accounts, want)
	}
	wantJobs := []task.Payload{
		task.Mkdir{Root: "home", Path: "acme/backup", Owner: "acme", Group: "web", Mode: "0750"},
		task.Notification{Account: "acme", Text: "jobs pending notification (since 2010-03-09)"},
	}
	if !reflect.DeepEqual(plan.Jobs, wantJobs) {
		t.Errorf("got jobs %+v, want %+v", plan.Jobs, wantJobs)
	}
	notes := strings.Join(plan.Notes, "\n")
	for _, want := range []string{
		`row 1: error page "500" is left out`, `row 1: firewall entry "evil.test" is left out`,
		`row 3: user "root"`, `row 4: site`, `row 14: mkdir "/etc/cron.d" is left out: it is not below /home`,
		`row 15: mkdir "/home/acme/../../etc" is left out`, `row 16: job of type "shell"`,
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note with %q in\n%s", want, notes)
		}
	}
}

// TestNamesOfOtherScripts takes a name as apply does, and a sub-site below it; a
// user whose only site cannot be taken over becomes no account.
func TestNamesOfOtherScripts(t *testing.T) {
	tables, err := ReadDump(strings.NewReader("INSERT INTO virtual_hosts (id, user, server, subof) VALUES " +
		"(1, 'acme', 'Größe.test.', 0), (2, 'acme', 'shop.GRÖSSE.test', 1), (3, 'acme', 'shop.größe.test', 1), (4, 'eve', 'a_b.test', 0);\n" +
		"INSERT INTO upkeep (id, status, type, data) VALUES (5, 'pending', 'mkdir', 'a:3:{s:4:\"user\";s:3:\"eve\";s:5:\"group\";s:3:\"eve\";s:4:\"path\";s:10:\"/home/eve/\";}')"))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := tables.Convert(Options{Servers: []string{"web1"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Sites) != 3 || plan.Sites[0].Name != "xn--gre-6ka8i.test" || plan.Sites[1].SubOf != "" ||
		plan.Sites[2].Name != "shop.xn--gre-6ka8i.test" || plan.Sites[2].SubOf != plan.Sites[0].Name {
		t.Errorf("got sites %+v, with notes %q", plan.Sites, plan.Notes)
	}
	if want := []upkeep.Account{{Name: "acme"}}; !reflect.DeepEqual(plan.Accounts, want) || len(plan.Jobs) != 0 {
		t.Errorf("got accounts %+v and jobs %+v", plan.Accounts, plan.Jobs)
	}
}

// TestDumpOnThePage imports what the page on sites shows, and leaves nothing out.
func TestDumpOnThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/sites.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```sql\n")
	text, _, found := strings.Cut(text, "```")
	if !found {
		t.Fatal("the page shows no dump")
	}
	tables, err := ReadDump(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := tables.Convert(Options{Servers: []string{"web1"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Notes) > 0 || len(plan.Accounts) != 1 || len(plan.Sites) != 2 || plan.Sites[1].SubOf != "example.test" || len(plan.Jobs) != 2 ||
		len(plan.Sites[0].Deny) != 1 || plan.Sites[0].ErrorPages["404"] != "/missing.html" || plan.Sites[0].Environment["APP_ENV"] != "live" {
		t.Errorf("got %+v", plan)
	}
}

func TestDumpErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "neither a table",
		"SELECT 'x":                     "a string has no end",
		"/* no end":                     "a comment has no end",
		"INSERT INTO upkeep VALUES (1)": "CREATE TABLE must come first",
		"INSERT INTO upkeep (id, uid) VALUES (1)":                           "fewer values",
		"INSERT INTO upkeep (id) VALUES (1, 2)":                             "more values",
		"INSERT INTO upkeep (id) VALUES (now())":                            "not a plain value",
		"CREATE TABLE upkeep (`id` int);\nINSERT INTO upkeep VALUE (1), 2;": "line 2",
	} {
		if _, err := ReadDump(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
	}
}

// Users whom the script's rule would make one account are refused, both named; the
// operator can say what they become.
func TestUsersOfOneAccount(t *testing.T) {
	read := func(mkdir string) Tables {
		t.Helper()
		tables, err := ReadDump(strings.NewReader("INSERT INTO virtual_hosts (id, user, server, subof) VALUES " +
			"(1, 'c3.imp', 'one.test', 0), (2, 'c3imp', 'two.test', 0), (3, 'c3imp', 'three.test', 0), (4, 'a=b', 'four.test', 0);\n" +
			"INSERT INTO upkeep (id, status, type, data) VALUES (5, 'pending', 'mkdir', 'a:3:{s:4:\"user\";s:5:\"" + mkdir + "\";s:5:\"group\";s:5:\"c3imp\";s:4:\"path\";s:15:\"/home/c3imp/bak\";}')"))
		if err != nil {
			t.Fatal(err)
		}
		return tables
	}
	options := Options{Servers: []string{"web1"}}
	plan, err := read("c3imp").Convert(options)
	if err == nil || !strings.Contains(err.Error(), `the users "c3.imp", "c3imp" would all become account c3imp`) || len(plan.Objects()) > 0 {
		t.Fatalf("got %v, with %+v", err, plan.Sites)
	}
	var hint *upkeep.HintError
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--account USER=NAME") {
		t.Errorf("no hint in %v", err)
	}
	for _, one := range []struct {
		accounts map[string]string
		want     string // accounts of the sites
		jobs     int
	}{
		{map[string]string{"c3.imp": "other"}, "other c3imp c3imp ab", 1},
		{map[string]string{"c3.imp": "c3imp"}, "c3imp c3imp c3imp ab", 1},
		{map[string]string{"c3.imp": "c3imp", "c3imp": "other"}, "c3imp other other ab", 0}, // the folder was the other's
		{map[string]string{"c3.imp": "other", "a=b": "third"}, "other c3imp c3imp third", 1},
	} {
		options.Accounts = one.accounts
		plan, err := read("c3imp").Convert(options)
		if err != nil {
			t.Errorf("%v: %v", one.accounts, err)
			continue
		}
		var got []string
		for _, site := range plan.Sites {
			got = append(got, site.Account)
		}
		if strings.Join(got, " ") != one.want || len(plan.Jobs) != one.jobs {
			t.Errorf("%v: got %q and jobs %+v", one.accounts, got, plan.Jobs)
		}
	}
	for _, accounts := range []map[string]string{{"nobody.there": "x"}, {"c3.imp": "Not A Name"}, {"c3.imp": "a", "a=b": "c3imp", "c3imp": ""}} {
		options.Accounts = accounts
		if _, err := read("c3imp").Convert(options); err == nil {
			t.Errorf("%v was taken", accounts)
		}
	}
}

// A row for www.NAME is a site, with the names that it then can have, and the site
// NAME does without that one.
func TestWWWOfItsOwn(t *testing.T) {
	tables, err := ReadDump(strings.NewReader("INSERT INTO virtual_hosts (id, user, server, subof) VALUES " +
		"(1, 'acme', 'www.alone.test', 0), (2, 'acme', 'both.test', 0), (3, 'acme', 'www.both.test', 0), (4, 'acme', 'usual.test', 0);"))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := tables.Convert(Options{Servers: []string{"web1"}, Canonical: true})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, site := range plan.Sites {
		if broken := site.Validate(); len(broken) > 0 {
			t.Error(broken)
		}
		got = append(got, strings.Join(site.Names(), "+")+" "+site.Canonical)
	}
	if want := []string{"www.alone.test ", "both.test ", "www.both.test ", "usual.test+www.usual.test bare"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q; notes %q", got, want, plan.Notes)
	}
}
