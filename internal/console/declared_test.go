package console

import (
	"fmt"
	"html"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/declare"
)

// documents are things that are declared, one of each kind.
func documents(t testing.TB) []upkeep.Declared {
	t.Helper()
	var all []upkeep.Declared
	for _, text := range beginnings(time.Now()) {
		objects, err := declare.Read("", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if objects[0].ObjectKind() != upkeep.KindAccount { // of which there are some
			all = append(all, upkeep.Declared{Generation: 4, Object: objects[0]})
		}
	}
	return all
}

// What there is to begin with is in order, of each kind, and is read by the page itself.
func TestBeginnings(t *testing.T) {
	all := beginnings(time.Now())
	if kinds := slices.Sorted(maps.Keys(all)); !slices.Equal(kinds, slices.Sorted(slices.Values(writtenKinds))) {
		t.Errorf("there are beginnings of %v, and the kinds are %v", kinds, writtenKinds)
	}
	for kind, text := range all {
		if _, err := readDocument(text, kind, ""); err != nil {
			t.Errorf("what a %s begins with is refused: %v", kind, err)
		}
		if removalSays[kind] == "" {
			t.Errorf("nothing is said of removing a %s", kind)
		}
	}
}

// A name that is taken is said so, and a line of a file keeps its tabs on the page.
func TestWordsOfForms(t *testing.T) {
	h := twoCustomers()
	h.things = []upkeep.Declared{{Generation: 1, Object: upkeep.Account{Name: "shop"}}}
	a := house(t, typical(), h)
	if w := ask(a.Public(), "ada", "POST", "/accounts", "name=shop"); w.Code != 422 || !strings.Contains(w.Body.String(), "exists already") || strings.Contains(w.Body.String(), "generation") {
		t.Errorf("an account that is there: %d\n%s", w.Code, w.Body.String())
	}
	if lines := diffLines("+\tOptions\x1b[2J\tNone\n"); len(lines) != 1 || lines[0].Text != "+\tOptions\\x1b[2J\tNone" {
		t.Errorf("got %q", lines)
	}
	if none := (choices{Accounts: []string{}}); !none.none() || (choices{}).none() {
		t.Error("only staff can be told that there is no account")
	}
	if w := ask(a.Public(), "ada", "GET", "/sites/new", ""); w.Code != 200 || strings.Contains(w.Body.String(), "there is none yet") {
		t.Errorf("a new site where there are accounts: %d", w.Code)
	}
}

// Customers are offered no server that is for staff to choose, but where their site is
// on it already; staff are offered all.
func TestServersThatAreOffered(t *testing.T) {
	h := twoCustomers()
	h.servers = append(h.servers, upkeep.AgentStatus{Name: "inner", Roles: []string{upkeep.RoleWeb}, StaffOnly: true})
	a := house(t, typical(), h)
	offered := func(who, path string) bool {
		w := ask(a.Public(), who, "GET", path, "")
		if w.Code != 200 || !strings.Contains(w.Body.String(), `value="web1"`) {
			t.Fatalf("%s asks for %s: %d\n%s", who, path, w.Code, w.Body.String())
		}
		return strings.Contains(w.Body.String(), `value="inner"`)
	}
	if !offered("ada", "/sites/new") || offered("eve", "/sites/new") || offered("eve", "/sites/acme.test/edit") {
		t.Error("a server for staff to choose is offered to a customer, or not to staff")
	}
	h.sites[0].Servers = []string{"web1", "inner"} // acme.test
	if !offered("eve", "/sites/acme.test/edit") {
		t.Error("the server that a site is on cannot be kept")
	}
}

// What staff suspended is for staff to remove: declared anew, it would answer again.
func TestSuspendedSiteStays(t *testing.T) {
	h := twoCustomers()
	h.sites[0].Suspended = true // acme.test
	a := house(t, typical(), h)
	w := ask(a.Public(), "eve", "POST", "/sites/acme.test/remove", "generation=3")
	if w.Code != 409 || !strings.Contains(w.Body.String(), "is for staff to remove") || slices.Contains(h.did(), "user eve deletes [site/acme.test]") {
		t.Errorf("a customer removes a suspended site: %d, %v\n%s", w.Code, h.did(), w.Body.String())
	}
	if w := ask(a.Public(), "eve", "DELETE", "/api/v1/objects/site/acme.test", ""); w.Code != 422 || !strings.Contains(w.Body.String(), "is for staff to remove") {
		t.Errorf("a customer removes a suspended site by the API: %d\n%s", w.Code, w.Body.String())
	}
	if w := ask(a.Public(), "ada", "POST", "/sites/acme.test/remove", "generation=3"); w.Code != 303 || !slices.Contains(h.did(), "user ada deletes [site/acme.test]") {
		t.Errorf("staff removes a suspended site: %d, %v", w.Code, h.did())
	}
}

// A site without a name is told the rule of names, and not held beside a site that is
// another's.
func TestSiteWithoutAName(t *testing.T) {
	a := house(t, typical(), twoCustomers())
	w := ask(a.Public(), "eve", "POST", "/sites/new", "name=&servers=web1")
	if body := html.UnescapeString(w.Body.String()); w.Code != 422 || !strings.Contains(body, "ust be a host name") || strings.Contains(body, "s taken") {
		t.Errorf("a site without a name: %d\n%s", w.Code, body)
	}
}

// A document is changed by the page as by the command line: what is wrong is said
// beside its line, what it changes is shown first, and what was typed stays.
func TestDocuments(t *testing.T) {
	h := twoCustomers()
	h.things = documents(t)
	a := house(t, typical(), h)
	post := func(path, text, do string) (int, string) {
		w := ask(a.Public(), "ada", "POST", path, url.Values{"generation": {"4"}, "text": {text}, "do": {do}}.Encode())
		return w.Code, html.UnescapeString(w.Body.String()) + w.Header().Get("Location")
	}
	page := html.UnescapeString(ask(a.Public(), "ada", "GET", "/declared/pool/web", "").Body.String())
	_, text, _ := strings.Cut(page, "<textarea")
	_, text, _ = strings.Cut(text, ">\n")
	text, _, _ = strings.Cut(text, "</textarea>")
	if !strings.HasPrefix(text, "kind: pool\nname: web\n") {
		t.Fatalf("the page has the document %q", text)
	}
	for _, tt := range []struct{ was, is, want string }{
		{"ttl: 1m", "ttl: soon", `<code>ttl: soon</code><span class="fault">ttl: `},
		{"type: tcp", "type: telepathy", `telepathy`},
		{"kind: pool", "kind: zone", `is not a field`},
		{"name: web", "name: other", `<code>name: other</code><span class="fault">name: "other" must stay web: make another one`},
		{"name: web", "name: web\nbanana: 1</textarea><script>", `banana: is not a field`},
		{"kind: pool", "kind: account\nname: acme\n---\nkind: pool", `there is to be one document, and there are 2`},
		{text, "", `there is to be one document, and there are 0`},
		{text, strings.Repeat("[", 5000), "span class=\"fault\""},
	} {
		code, body := post("/declared/pool/web", strings.Replace(text, tt.was, tt.is, 1), "save")
		if code != 422 || !strings.Contains(body, tt.want) || !strings.Contains(body, tt.is) || !strings.Contains(body, "Nothing was changed") {
			t.Errorf("%q instead of %q answers %d without %q: %s", tt.is, tt.was, code, tt.want, body)
		}
	}
	if code, body := post("/declare/receiver", "kind: receiver\nname: x\ntype: exec\ncommand: [./hook.sh]\n", "save"); code != 422 || !strings.Contains(body, "must begin with /") {
		t.Errorf("a relative path answers %d: %s", code, body)
	}
	if code, body := post("/declare/pool", text, "save"); code != 412 && code != 422 {
		t.Errorf("one that is there already is made anew: %d %s", code, body)
	}
	changed := strings.Replace(text, "ttl: 1m", "ttl: 2m", 1)
	if code, body := post("/declared/pool/web", changed, "preview"); code != 200 || !strings.Contains(body, `<span class="removed">-ttl: 1m</span>`) || !strings.Contains(body, `<span class="added">+ttl: 2m</span>`) {
		t.Errorf("what it would change answers %d: %s", code, body)
	}
	if done := h.did(); len(done) > 0 {
		t.Fatalf("before it is saved, done is %q", done)
	}
	h.things[slices.IndexFunc(h.things, func(d upkeep.Declared) bool { return d.Object.ObjectKind() == upkeep.KindPool })].Generation = 5
	if code, body := post("/declared/pool/web", changed, "save"); code != 412 || !strings.Contains(body, "Somebody else changed it") || !strings.Contains(body, `name="generation" value="5"`) || !strings.Contains(body, "ttl: 2m") || len(h.did()) > 0 {
		t.Errorf("changed meanwhile it answers %d, done is %q: %s", code, h.did(), body)
	}
	h.things[slices.IndexFunc(h.things, func(d upkeep.Declared) bool { return d.Object.ObjectKind() == upkeep.KindPool })].Generation = 4
	if code, to := post("/declared/pool/web", strings.ReplaceAll(changed, "\n", "\r\n"), "save"); code != 303 || !strings.HasSuffix(to, "/pools/web") || len(h.did()) != 1 || !strings.HasPrefix(h.did()[0], `user ada applies {"name":"web"`) {
		t.Errorf("saving answers %d %s, done is %q", code, to, h.did())
	}
}

func TestDeclaredPages(t *testing.T) {
	h := twoCustomers()
	h.things = documents(t)
	a := house(t, typical(), h)
	for _, kind := range writtenKinds {
		name := map[string]string{upkeep.KindPool: "web", upkeep.KindZone: "example.test", upkeep.KindReceiver: "ops", upkeep.KindServer: "web1", upkeep.KindAccount: "acme", upkeep.KindDelegation: "blog.example.test"}[kind]
		path := "/declared/" + kind + "/" + name
		if w := ask(a.Public(), "ada", "GET", "/declared?kind="+kind, ""); w.Code != 200 || !strings.Contains(w.Body.String(), path) {
			t.Errorf("the list of %ss answers %d without %s: %s", kind, w.Code, path, w.Body)
		}
		for _, page := range []string{path, path + "/remove", "/declare/" + kind} {
			if w := ask(a.Public(), "ada", "GET", page, ""); w.Code != 200 {
				t.Errorf("%s answers %d", page, w.Code)
			}
		}
		if w := ask(a.Public(), "ada", "POST", path+"/remove", "generation=4"); w.Code != 303 || !slices.Contains(h.did(), fmt.Sprintf("user ada deletes [%s/%s]", kind, name)) {
			t.Errorf("removing %s answers %d, done is %q", path, w.Code, h.did())
		}
	}
	for _, path := range []string{"/declared/site/acme.test", "/declare/site", "/declare/banana", "/declared?kind=site", "/declared/pool/none", "/declared/banana/web"} {
		if w := ask(a.Public(), "ada", "GET", path, ""); w.Code != 404 {
			t.Errorf("%s answers %d", path, w.Code)
		}
	}
	if w := ask(a.Public(), "rob", "GET", "/declared/pool/web", ""); w.Code != 200 || strings.Contains(w.Body.String(), `value="save"`) {
		t.Errorf("who may only read is shown %d %s", w.Code, w.Body)
	}
	if now := time.Now(); summary(upkeep.Delegation{Account: "acme", Until: "2020-01-01T00:00:00Z"}, now) != "to acme, ended 1 Jan 2020 00:00" && now.Location() == time.UTC {
		t.Error("a delegation that has ended is said to go on")
	}
}
