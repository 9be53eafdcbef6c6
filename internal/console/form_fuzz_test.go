package console

import (
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	xhtml "golang.org/x/net/html"

	"upkeep"
)

// FuzzFormOfASite sends forms that no browser would: whatever comes in, the page has
// the elements of its templates and no others, and what was typed is text.
func FuzzFormOfASite(f *testing.F) {
	f.Add("name=a.test&servers=web1&redirects=%2Fa+%2Fb+301&error_pages=404+x%0A+y&headers=A%3A+b&deny=192.0.2.1&php=on&php.children=5")
	f.Add("redirects=+&error_pages=+%0A+&headers=%0A%0A&environment=%3D&canonical_status=999999999999999999999&aliases=%00%ff")
	f.Add("name=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E&root=..%2F..&index=%3C%2Ftextarea%3E%3Cimg+src%3Dx+onerror%3Dx%3E&do=preview")
	h := twoCustomers()
	h.fail = upkeep.ErrRefused // nothing is kept from one to the next
	a := house(f, typical(), h).Public()
	f.Fuzz(func(t *testing.T, body string) {
		if form, err := url.ParseQuery(body); err == nil {
			form.Del("do")
			body = form.Encode()
		}
		w := ask(a, "eve", "POST", "/sites/new", body)
		if w.Code >= 500 {
			t.Fatalf("%q answers %d: %s", body, w.Code, w.Body)
		}
		plainPage(t, body, w)
	})
}

// FuzzFormsOfStaff does so with the other forms, which staff has.
func FuzzFormsOfStaff(f *testing.F) {
	forms := []string{"/receivers/new", "/receivers/ops/edit", "/receivers/ops/test", "/delegations/new", "/delegations/blog.example.test/edit", "/delegations/blog.example.test/end",
		"/declare/receiver", "/declared/pool/web", "/declared/pool/web/remove", "/servers", "/accounts", "/users", "/pools/web/force", "/me/factor", "/me/tokens", "/images/vm1/create"}
	for i := range forms {
		f.Add(i, "name=x&generation=4&do=save")
		f.Add(i, "name=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E&do=preview&generation=99999999999999999999")
	}
	f.Add(0, "name=ops&type=email&to=a%40b.test%0A%3Cimg+src%3Dx+onerror%3Dx%3E&from=%0D%0ABcc:+x&smtp=[::1]:99999&tls=none&username=%00&password_file=../x")
	f.Add(1, "generation=4&type=webhook&url=http://u:p@x.test/&header=A:+b%0AA:+c%0AHost&template={{.Title&events=banana&events=verdict&pools=[&repeat=-1s&group_wait=1e99d")
	f.Add(1, "generation=4&type=exec&command=%0A%0A+%00%0A/bin/sh&timeout=NaNd&max_age=999999999y&min_interval=%2B5m")
	f.Add(3, "name=%C3%9F.%E2%80%AE.test&account=root&until=9999-99-99")
	f.Add(4, "generation=4&account=acme&until=0000-01-01T00:00:00Z")
	f.Add(7, "generation=4&text=kind:+pool%0Aname:+web%0A---%0A")
	f.Add(12, "member=192.0.2.11&state=drain&why=%3Cb%3E")
	f.Add(13, "present=right&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ%22%3E&code=000000")
	h := twoCustomers()
	h.things = documents(f)
	h.fail = upkeep.ErrRefused
	a := house(f, typical(), h).Public()
	f.Fuzz(func(t *testing.T, i int, body string) {
		if i < 0 || i >= len(forms) {
			return
		}
		w := ask(a, "ada", "POST", forms[i], body)
		if w.Code >= 500 {
			t.Fatalf("%s of %q answers %d: %s", forms[i], body, w.Code, w.Body)
		}
		plainPage(t, body, w)
	})
}

// plainPage holds a page to the elements of its templates.
func plainPage(t *testing.T, body string, w *httptest.ResponseRecorder) {
	t.Helper()
	root, err := xhtml.Parse(strings.NewReader(w.Body.String()))
	if err != nil {
		t.Fatal(err)
	}
	for node := range root.Descendants() {
		script := node.Type == xhtml.ElementNode && node.Data == "script"
		if script && (node.FirstChild != nil || !slices.ContainsFunc(node.Attr, func(a xhtml.Attribute) bool { return a.Key == "src" && strings.HasPrefix(a.Val, "/assets/") })) {
			t.Errorf("%q makes a script", body)
		}
		for _, attribute := range node.Attr {
			if strings.HasPrefix(attribute.Key, "on") || attribute.Key == "style" {
				t.Errorf("%q makes an attribute %s", body, attribute.Key)
			}
		}
	}
}
