package console

import (
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api"
)

func TestSignInPages(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h).Public()
	if w := ask(a, "", "GET", "/sites?q=x", ""); w.Code != 303 || w.Header().Get("Location") != "/signin?next="+url.QueryEscape("/sites?q=x") {
		t.Errorf("a page of users leads a stranger to %d %s", w.Code, w.Header())
	}
	w := ask(a, "", "POST", "/signin", "name=eve&password=wrong&next=/jobs")
	if body := html.UnescapeString(w.Body.String()); w.Code != 422 || !strings.Contains(body, "The name or the password is wrong.") || !strings.Contains(body, `value="eve"`) || len(w.Result().Cookies()) > 0 {
		t.Errorf("a wrong password answers %d: %s", w.Code, body)
	}
	for next, want := range map[string]string{"/jobs": "/jobs", "//evil.test/": "/", "https://evil.test": "/", `/\evil.test`: "/", "javascript:alert(1)": "/", "": "/", "/a\r\nSet-Cookie: x": "/", "/jobs?before=3#x": "/jobs?before=3#x"} {
		w := ask(a, "", "POST", "/signin", url.Values{"name": {" Eve "}, "password": {"right"}, "next": {next}}.Encode())
		cookies := w.Result().Cookies()
		if w.Code != 303 || w.Header().Get("Location") != want || len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode || cookies[0].Name != "upkeep" {
			t.Errorf("signing in with next %q answers %d %s", next, w.Code, w.Header())
		}
	}
	w = ask(a, "eve", "POST", "/signout", "")
	if cookies := w.Result().Cookies(); w.Code != 303 || len(cookies) != 1 || cookies[0].MaxAge >= 0 || !slices.Contains(h.did(), "user eve signs eve out of 2") {
		t.Errorf("signing out answers %d %v, done is %q", w.Code, w.Header(), h.did())
	}
}

// What is typed is not to be read on its way, and a cookie of TLS is for TLS alone.
func TestSignInIsPrivate(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h, func(o *api.Options) { o.Hosts = []string{"up.example.test"} }).Public()
	send := func(remote, proto, cookie, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", path, strings.NewReader("name=eve&password=right"))
		r.Host, r.RemoteAddr = "up.example.test", remote
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if proto != "" {
			r.Header.Set("X-Forwarded-Proto", proto)
			r.Header.Set("X-Forwarded-For", "203.0.113.9, 198.51.100.7")
		}
		if cookie != "" {
			r.AddCookie(&http.Cookie{Name: cookie, Value: "eve"})
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w
	}
	if w := send("198.51.100.7:1234", "", "", "/signin"); w.Code != 403 || strings.Contains(w.Body.String(), "<input type=\"password\"") {
		t.Errorf("from elsewhere without TLS: %d %s", w.Code, w.Body)
	}
	w := send("127.0.0.1:1234", "https", "", "/signin")
	if cookies := w.Result().Cookies(); w.Code != 303 || len(cookies) != 1 || cookies[0].Name != "__Host-upkeep" || !cookies[0].Secure || cookies[0].Path != "/" || cookies[0].Domain != "" {
		t.Errorf("through a proxy with TLS: %d %s", w.Code, w.Header())
	}
	if !slices.Contains(h.did(), "eve signs in from 198.51.100.7") {
		t.Errorf("the address that the proxy saw is not the one that counts: %q", h.did())
	}
	if w := send("127.0.0.1:1234", "https", "upkeep", "/me/signout"); w.Code != 401 {
		t.Errorf("a cookie without its prefix over TLS answers %d", w.Code)
	}
	if w := send("127.0.0.1:1234", "https", "__Host-upkeep", "/me/signout"); w.Code != 303 {
		t.Errorf("with its prefix it answers %d", w.Code)
	}
}

// What was wrong is said beside its field, and what was typed stays.
func TestFormOfASite(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h).Public()
	form := url.Values{"name": {"../new.test"}, "servers": {"web1"}, "www": {"on"}, "aliases": {"fine.test\nno name"}, "php": {"on"}, "php.children": {"many"}, "deny": {"192.0.2.1\n192.0.2.300"},
		"redirects": {"/a /b 301\nnowhere"}, "error_pages": {"404 gone\n  for good\n500"}, "headers": {"X-A: <b>\"quoted\"</b>"}, "do": {"save"}}
	w := ask(a, "eve", "POST", "/sites/new", form.Encode())
	body := html.UnescapeString(w.Body.String())
	for _, want := range []string{"must be a number", "must be an address or a prefix", "must be a status and a page or a text", `X-A: <b>"quoted"</b>`,
		`"../new.test" must`, // which is told together with what could not even be read
		"fine.test\nno name", `value="many"`, "192.0.2.1\n192.0.2.300", "/a /b 301\nnowhere", "404 gone\n  for good\n500"} {
		if !strings.Contains(body, want) {
			t.Errorf("the form does not say %q", want)
		}
	}
	if w.Code != 422 || len(h.did()) > 0 || strings.Contains(w.Body.String(), "<b>") {
		t.Errorf("it answers %d, and done is %q", w.Code, h.did())
	}
	// Rules of the glossary, beside the fields that they are about.
	form = url.Values{"name": {"new.test"}, "servers": {"web1"}, "redirects": {"/a nowhere"}, "php": {"on"}, "php.children": {"100000"}, "do": {"save"}}
	body = html.UnescapeString(ask(a, "eve", "POST", "/sites/new", form.Encode()).Body.String())
	if strings.Count(body, `aria-invalid="true"`) != 2 || !strings.Contains(body, `<span class="fault" id="fault-redirects">to: "nowhere" must`) {
		t.Errorf("the rules are said elsewhere: %s", body)
	}
	form = url.Values{"name": {"bücher.test"}, "servers": {"web1"}, "account": {"other"}, "suspended": {""}, "www": {"on"}, "do": {"save"}}
	if w := ask(a, "eve", "POST", "/sites/new", form.Encode()); w.Code != 303 || w.Header().Get("Location") != "/sites/xn--bcher-kva.test" {
		t.Errorf("it answers %d %s", w.Code, w.Body)
	}
	if done := h.did(); !slices.Equal(done, []string{`user eve applies {"name":"xn--bcher-kva.test","account":"acme","servers":["web1"]}`}) {
		t.Errorf("done is %q", done)
	}
	if w := ask(a, "eve", "POST", "/sites/new", "name=other.test&servers=web1&www=on&do=save"); w.Code != 422 || !strings.Contains(w.Body.String(), "is taken") {
		t.Errorf("a name of another's answers %d", w.Code)
	}
}

// Staff choose whose a new site or delegation is: none is chosen beforehand.
func TestOwnersAreChosen(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h).Public()
	for page, form := range map[string]string{
		"/sites/new":       "name=new.test&servers=web1&www=on&account=&do=save",
		"/delegations/new": "name=new.test&until=2027-01-31&account=&do=save",
	} {
		if body := ask(a, "ada", "GET", page, "").Body.String(); !strings.Contains(body, `<option value="" selected>choose one</option>`) || !strings.Contains(body, `<option value="other">other`) {
			t.Errorf("%s has an account chosen: %s", page, body)
		}
		w := ask(a, "ada", "POST", page, form)
		if body := w.Body.String(); w.Code != 422 || !strings.Contains(body, `id="fault-account"`) || len(h.did()) > 0 {
			t.Errorf("%s without an account answers %d, and done is %q: %s", page, w.Code, h.did(), body)
		}
	}
}

// Who saves last does not go over what another has saved meanwhile without seeing it.
func TestTwoEditors(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h).Public()
	form := "generation=2&account=acme&servers=web1&www=on&aliases=mine.test&do=save"
	for _, who := range []string{"eve", "ada"} {
		w := ask(a, who, "POST", "/sites/acme.test/edit", form)
		body := html.UnescapeString(w.Body.String())
		if w.Code != 412 || !strings.Contains(body, "Somebody else changed it") || !strings.Contains(body, "user eve changed this site") || !strings.Contains(body, "mine.test</textarea>") || !strings.Contains(body, `name="generation" value="3"`) {
			t.Errorf("%s: it answers %d: %s", who, w.Code, body)
		}
	}
	if done := h.did(); len(done) > 0 {
		t.Errorf("done is %q", done)
	}
	if w := ask(a, "eve", "POST", "/sites/acme.test/edit", strings.Replace(form, "generation=2", "generation=3", 1)); w.Code != 303 {
		t.Errorf("saving it again answers %d", w.Code)
	}
}

// A site that goes through its form comes out as it was.
func TestFormKeepsSites(t *testing.T) {
	yes, no := true, false
	networks := func(texts ...string) (all []upkeep.Network) {
		for _, text := range texts {
			var n upkeep.Network
			if err := n.UnmarshalText([]byte(text)); err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
		return all
	}
	for i, site := range []upkeep.Site{
		{Name: "a.test", Account: "acme", Servers: []string{"web1"}},
		{Name: "a.test", Account: "acme", Servers: []string{"web1", "gone1"}, WWW: &no, Files: "files1"},
		{Name: "a.test", Account: "acme", Servers: []string{"web2"}, WWW: &yes, Wildcard: true, CGI: true, Suspended: true, Root: "public", SubOf: "b.test", Canonical: "www", CanonicalStatus: 308},
		{Name: "a.test", Account: "acme", Servers: []string{"web1"}, PHP: &upkeep.PHP{}, Aliases: []string{"b.test", "c.test"}, Index: []string{"index.html", "x.php"}, Methods: []string{"GET"},
			ErrorPages: map[string]string{"404": "/missing.html", "500": "Sorry.\n\n  We are\non it."}, Deny: networks("192.0.2.1", "2001:db8::/32"), Allow: networks("198.51.100.0/24"),
			Redirects: []upkeep.Redirect{{From: "/a", To: "https://b.test/"}, {From: "/b", Status: 410}, {From: "/c", To: "/d", Status: 301, Exact: true}},
			Headers:   map[string]string{"X-A": "b: c", "Server": ""}, Environment: map[string]string{"A": "b=c ", "B": ""},
			Protect: []upkeep.Protection{{Path: "/", Users: map[string]string{"ann": "$2y$x"}}}},
	} {
		c := choices{Accounts: []string{"acme", "other"}, Web: []string{"web1", "web2"}, Files: []string{"files1"}}
		form := url.Values{}
		for _, g := range siteForm(site, c) {
			for _, f := range g.Fields {
				switch f.Kind {
				case "tick":
					if f.On {
						form.Set(f.Name, "on")
					}
				case "choose", "many":
					for _, o := range f.Options {
						if o.On {
							form.Add(f.Name, o.Value)
						}
					}
				default:
					form.Set(f.Name, strings.ReplaceAll(f.Value, "\n", "\r\n")) // as browsers send it
				}
			}
		}
		got, err := siteOf(form, site, c)
		if err != nil {
			t.Error(err)
		}
		slices.Sort(got.Servers)
		want := site
		want.Servers = slices.Sorted(slices.Values(site.Servers))
		if len(got.Aliases)+len(got.Index)+len(got.Methods) == 0 {
			got.Aliases, got.Index, got.Methods = nil, nil, nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("site %d comes out as\n%+v, not\n%+v", i, got, want)
		}
	}
}

func TestStaffPages(t *testing.T) {
	f, h := typical(), twoCustomers()
	a := house(t, f, h).Public()
	for _, step := range []struct {
		path, form string
		status     int
		says, did  string
	}{
		{"/pools/web/force", "member=192.0.2.11&state=drain&why=new+disk", 303, "", ""},
		{"/pools/web/force", "member=192.0.2.11&state=auto", 303, "", ""},
		{"/pools/web/force", "member=192.0.2.99&state=down", 404, "no such member", ""},
		{"/pools/web/force", "member=*&state=down", 404, "no such member", ""},
		{"/pools/web/force", "member=192.0.2.11&state=gone", 422, "", ""},
		{"/pools/nothing/force", "member=192.0.2.11&state=down", 404, "no such pool", ""},
		{"/servers", "name=web2&role=web&role=files", 201, "upkeep join https://192.0.2.1:8055 join-token", "user ada invites web2"},
		{"/servers", "name=&role=cooking", 422, "must be one of", ""},
		{"/servers/web1/verify", "", 303, "", "user ada verifies web1"},
		{"/servers/web1/revoke", "", 303, "", "user ada revokes web1"},
		{"/accounts", "name=root", 422, "is a name that systems use", ""},
		{"/accounts", "name=shop&email=a@b.test", 303, "", `user ada applies {"name":"shop","email":"a@b.test"}`},
		{"/accounts/acme/suspend", "suspended=yes", 409, "", ""}, // the fake's generation is another by now
		{"/users", "name=New&password=long+enough+a+one&account=acme", 303, "", "user ada adds new"},
		{"/users/ada/remove", "", 409, "cannot remove yourself", ""},
		{"/users/oda/remove", "", 303, "", "user ada removes oda"},
		{"/jobs/1/retry", "", 303, "", "job 1 is retried"},
		{"/jobs/3/cancel", "", 303, "", "job 3 is cancelled by user ada"},
		{"/jobs/99/retry", "", 404, "no such job", ""},
		{"/jobs/x/retry", "", 404, "no such job", ""},
		{"/sites/acme.test/remove", "generation=3", 303, "", "user ada deletes [site/acme.test]"},
		{"/sites/acme.test/remove", "", 400, "", ""},
		{"/me/password", "present=wrong&password=long+enough&again=long+enough", 422, "is wrong", ""},
		{"/me/password", "present=right&password=long+enough&again=other", 422, "not the same", ""},
		{"/me/password", "present=right&password=long+enough&again=long+enough", 303, "", "ada has another password"},
		{"/me/factor", "secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJR&code=1&present=right", 422, "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJR", ""},
		{"/me/factor", "secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJR&code=1&present=right", 422, "is the clock of the device right?</span>", ""},
		{"/me/factor", `secret="><script>&code=1&present=right`, 422, "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ", ""},
		{"/me/factor", "secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&code=123456&present=right", 201, "", "ada has the second factor GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"},
		{"/me/factor/drop", "present=right", 303, "", "ada drops the second factor"},
		{"/users/oda/nofactor", "", 303, "", "user ada takes the second factor of oda away"},
		{"/me/passkeys/4/remove", "", 303, "", "user ada removes passkey 4 of ada"},
		{"/me/passkeys/0/remove", "", 404, "no such passkey", ""},
		{"/users/oda/nopasskeys", "", 303, "", "user ada removes passkey 0 of oda"},
		{"/me/tokens", "name=backup&scope=write&days=30", 201, "upkeep_SECRET", "user ada gives ada a token to write"},
		{"/me/tokens", "name=backup&scope=write&days=3000", 422, "400 at most", ""},
	} {
		before := len(h.did())
		w := ask(a, "ada", "POST", step.path, step.form)
		if body := html.UnescapeString(w.Body.String()); w.Code != step.status || !strings.Contains(body, step.says) {
			t.Errorf("%s with %q answers %d, and does not say %q: %s", step.path, step.form, w.Code, step.says, body)
		}
		did := strings.Join(h.did()[before:], "; ")
		if step.did != "" && did != step.did && !strings.HasSuffix(did, "; "+step.did) || step.did == "" && did != "" {
			t.Errorf("%s with %q does %q, want %q", step.path, step.form, did, step.did)
		}
	}
	if want := []string{"user ada forces web/192.0.2.11 drain (new disk), all false", "user ada releases web/192.0.2.11"}; !slices.Equal(f.forced, want) {
		t.Errorf("forced are %q", f.forced)
	}
}

// A token is no way to have others outlive it.
func TestTokensMakeNoTokens(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h).Public()
	for path, form := range map[string]string{"/me/tokens": "name=x&scope=write&days=400", "/me/password": "present=right&password=long+enough&again=long+enough", "/me/signout": "id=all", "/me/passkeys": "label=x&answer=a+new+passkey"} {
		r := httptest.NewRequest("POST", path, strings.NewReader(form))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer eve")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code != 403 || len(h.did()) > 0 {
			t.Errorf("%s with a token answers %d, done is %q", path, w.Code, h.did())
		}
	}
}

// A message waits for its reader and for nothing else: it is unread, and then read.
func TestMessagesAreReadOrUnread(t *testing.T) {
	h := twoCustomers()
	for i, state := range []upkeep.JobState{upkeep.JobPending, upkeep.JobDone} {
		h.jobs = append(h.jobs, upkeep.Job{ID: int64(70 + i), Account: "acme", Kind: upkeep.JobNotification, Object: "site/acme.test", State: state, Text: "web1 moves on Sunday.", Created: past(time.Hour)})
	}
	a := house(t, typical(), h).Public()
	for path, want := range map[string]string{"/jobs/70": "</span>unread", "/jobs/71": "</span>read", "/jobs": "</span>unread</td>"} {
		if w := ask(a, "eve", "GET", path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s answers %d without %q: %s", path, w.Code, want, w.Body)
		}
	}
}
