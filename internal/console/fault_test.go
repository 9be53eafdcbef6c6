package console

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/chromedp/chromedp"
	"golang.org/x/net/html"

	"upkeep/internal/testkit/browser"
)

// A form that cannot be read is not done in part, and its sender is told why, and what
// became of what was typed.
func TestFormsThatCannotBeRead(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h).Public()
	for name, tt := range map[string]struct {
		who, kind, body string
		status          int
		says            []string
	}{
		"bad encoding": {"ada", formType, "name=%zz", 400, []string{`invalid URL escape "%zz"`, "Nothing was done."}},
		"semicolons":   {"ada", formType, "name=a;email=b", 400, []string{"semicolon"}},
		"too large":    {"ada", formType, "name=" + strings.Repeat("a", maxForm), 413, []string{"1 MB (1,048,576 bytes)", "upkeep apply", "go back in your browser"}},
		"files":        {"ada", "multipart/form-data; boundary=x", "--x--", 415, []string{"multipart/form-data", formType}},
		"no type":      {"ada", "a form", "name=a", 415, []string{"a form"}},
		"a customer's": {"eve", formType, "name=%zz", 400, []string{`"%zz"`}},
	} {
		path := "/accounts"
		if tt.who == "eve" {
			path = "/sites/new"
		}
		r := httptest.NewRequest("POST", path, strings.NewReader(tt.body))
		r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1234"
		r.Header.Set("Content-Type", tt.kind)
		r.AddCookie(&http.Cookie{Name: "upkeep", Value: tt.who})
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		text := html.UnescapeString(w.Body.String())
		if w.Code != tt.status || !strings.Contains(text, `<a href="`+path+`">Back</a>`) {
			t.Errorf("%s: answers %d: %s", name, w.Code, text)
		}
		for _, want := range tt.says {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is not said: %s", name, want, text)
			}
		}
	}
	if done := h.did(); len(done) > 0 {
		t.Errorf("done is %q", done)
	}
}

// From a page that says what went wrong there is a way on without scripts: to the same
// page once more, or to the one nearest to where a form was sent.
func TestWaysOnFromFaults(t *testing.T) {
	a := house(t, typical(), twoCustomers()).Public()
	for _, tt := range []struct{ who, method, path, form, way string }{
		{"ada", "GET", "/pools/gone?x=1", "", `<noscript><p><a href="/pools/gone?x=1">Try again</a></p></noscript>`},
		{"ada", "POST", "/jobs/99999/retry", "x=y", `<a href="/jobs/99999">Back</a>`},
		{"ada", "POST", "/pools/web/force", "member=192.0.2.99&state=down", `<a href="/pools/web">Back</a>`},
		{"ada", "POST", "/users/ada/remove", "x=y", `<a href="/users">Back</a>`},
		{"eve", "POST", "/unfreeze", "x=y", `<p><a href="/sites">My sites</a></p>`},
	} {
		w := ask(a, tt.who, tt.method, tt.path, tt.form)
		refreshes := strings.Contains(w.Body.String(), `http-equiv="refresh"`)
		if w.Code < 400 || !strings.Contains(w.Body.String(), tt.way) || refreshes != (tt.method == "GET") {
			t.Errorf("%s %s answers %d: %s", tt.method, tt.path, w.Code, w.Body)
		}
	}
}

// An address with a number in it that is none leads to nothing, by every route that has
// one: that is not upkeep's fault, and nothing for its log.
func TestNumbersThatAreNone(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h)
	tried := 0
	for _, pattern := range a.Routes() {
		if !strings.Contains(pattern, "{id}") {
			continue
		}
		for _, id := range []string{"x", "1e9", "9223372036854775808", "%00", "%FF", "..%2F1"} {
			method, path := target(strings.ReplaceAll(pattern, "{id}", id))
			tried++
			if w := ask(a.Public(), "ada", method, path, ""); w.Code < 400 || w.Code >= 500 {
				t.Errorf("%s %s answers %d: %s", method, path, w.Code, w.Body)
			}
		}
	}
	if tried < 60 {
		t.Errorf("%d addresses were tried", tried)
	}
	if done := h.did(); len(done) > 0 {
		t.Errorf("done is %q", done)
	}
}

// What a filter cannot be is said, with the rest of the filter kept.
func TestFiltersThatAreNone(t *testing.T) {
	a := house(t, typical(), twoCustomers()).Public()
	for _, tt := range []struct{ path, says, keeps string }{
		{"/jobs?state=zzz&state=failed&server=web1", `State "zzz" must be one of pending, running, done`, `name="server" value="web1"`},
		{"/events?kind=zzz&object=pool%2Fweb", `Kind "zzz" must be one of declared, verdict`, `name="object" value="pool/web"`},
		{"/sites?state=%3Cb%3E&q=acme", `State "<b>" must be one of failed, pending, suspended, live`, `name="q" value="acme"`},
	} {
		w := ask(a, "ada", "GET", tt.path, "")
		text := html.UnescapeString(w.Body.String())
		if w.Code != http.StatusUnprocessableEntity || !strings.Contains(text, tt.says) || !strings.Contains(text, tt.keeps) || strings.Contains(text, "data-live>") {
			t.Errorf("%s answers %d: %s", tt.path, w.Code, text)
		}
	}
	if w := ask(a, "ada", "GET", "/jobs?state=zzz&state=failed", ""); !strings.Contains(w.Body.String(), `value="failed" checked`) {
		t.Errorf("the rest of the states is not kept: %s", w.Body)
	}
	if w := ask(a, "ada", "GET", "/jobs?state=&state=failed", ""); w.Code != http.StatusOK {
		t.Errorf("without a state it answers %d", w.Code)
	}
}

// Every field that is refused says so to who cannot see it, and which text tells why.
func TestRefusedFieldsAreMarked(t *testing.T) {
	for _, tt := range []struct {
		path, form string
		unset      bool
		fields     []string
	}{
		{"/accounts", "name=root&email=nobody", false, []string{"name", "email"}},
		{"/users", "name=A&password=short&account=none", false, []string{"name", "password"}},
		{"/users/oda/password", "password=short", false, []string{"password"}},
		{"/servers", "name=Web+2&role=cooking", false, []string{"name"}},
		{"/signin", "name=eve&password=wrong", false, []string{"name", "password"}},
		{"/setup", "token=token&name=ada&password=long+enough&again=other", true, []string{"again"}},
		{"/me/tokens", "name=&scope=all&days=3000", false, []string{"days"}},
		{"/receivers/new", "name=No+Name&type=email&do=save", false, []string{"name"}},
	} {
		h := twoCustomers()
		h.unset(tt.unset)
		who := "ada"
		if tt.unset || tt.path == "/signin" {
			who = ""
		}
		w := ask(house(t, typical(), h).Public(), who, "POST", tt.path, tt.form)
		marked := describedFields(t, w.Body.String())
		for _, field := range tt.fields {
			if marked[field] == "" {
				t.Errorf("%s answers %d and does not mark %s: marked are %q", tt.path, w.Code, field, marked)
			}
		}
	}
}

// describedFields are the fields of a page that are marked as wrong, with the texts that
// they point to.
func describedFields(t *testing.T, page string) map[string]string {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	texts, marked := map[string]string{}, map[string]string{}
	walk := func(each func(n *html.Node, get func(string) string)) {
		for n := range root.Descendants() {
			each(n, func(key string) string {
				for _, one := range n.Attr {
					if one.Key == key {
						return one.Val
					}
				}
				return ""
			})
		}
	}
	walk(func(n *html.Node, get func(string) string) {
		if id := get("id"); id != "" && n.FirstChild != nil {
			if texts[id] != "" {
				t.Errorf("two elements have the id %s", id)
			}
			texts[id] = n.FirstChild.Data
		}
	})
	walk(func(_ *html.Node, get func(string) string) {
		if get("aria-invalid") == "true" {
			marked[get("name")] = texts[get("aria-describedby")]
		}
	})
	return marked
}

// A form that stops coming is told apart from one that is wrong.
func TestFormsThatDoNotEnd(t *testing.T) {
	h := twoCustomers()
	r := httptest.NewRequest("POST", "/accounts", io.MultiReader(strings.NewReader("name=acme"), iotest.ErrReader(os.ErrDeadlineExceeded)))
	r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1234"
	r.Header.Set("Content-Type", formType)
	r.AddCookie(&http.Cookie{Name: "upkeep", Value: "ada"})
	w := httptest.NewRecorder()
	house(t, typical(), h).Public().ServeHTTP(w, r)
	if w.Code != http.StatusRequestTimeout || !strings.Contains(w.Body.String(), "did not come within 30s") || len(h.did()) > 0 {
		t.Errorf("it answers %d, done is %q: %s", w.Code, h.did(), w.Body)
	}
}

// A browser that sends more than a form may have shows the answer, and not that the
// connection ended: it is heard out, up to a bound.
func TestLargeFormInABrowser(t *testing.T) {
	server := httptest.NewServer(house(t, typical(), twoCustomers()).Public())
	defer server.Close()
	origin := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	tab := browser.Open(t)
	tab.Do(browser.Cookie("upkeep", "ada", origin), chromedp.Navigate(origin+"/declare/pool"), chromedp.WaitReady(chromedp.CSS("footer")))
	browser.Ask[bool](tab, `(() => {
		document.documentElement.dataset.left = "yes";
		document.querySelector("textarea[name=text]").value = "# more than there may be\n".repeat(200000);
		document.querySelector("button[value=save]").click();
		return true;
	})()`)
	tab.Do(chromedp.WaitReady(chromedp.CSS("html:not([data-left]) footer")))
	if text := browser.Ask[string](tab, `document.querySelector("main").innerText`); !strings.Contains(text, "1 MB (1,048,576 bytes)") {
		t.Errorf("the browser shows %q", text)
	}
	tab.Do(chromedp.NavigateBack(), chromedp.WaitReady(chromedp.CSS("textarea[name=text]")))
	if size := browser.Ask[float64](tab, `document.querySelector("textarea[name=text]").value.length`); size < 4e6 {
		t.Errorf("of what was typed, %v characters are left", size)
	}
}
