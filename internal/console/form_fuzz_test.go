package console

import (
	"net/url"
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
		root, err := xhtml.Parse(strings.NewReader(w.Body.String()))
		if err != nil {
			t.Fatal(err)
		}
		scripts := 0
		for node := range root.Descendants() {
			if node.Type == xhtml.ElementNode && node.Data == "script" {
				scripts++
			}
			for _, attribute := range node.Attr {
				if strings.HasPrefix(attribute.Key, "on") || attribute.Key == "style" {
					t.Errorf("%q makes an attribute %s", body, attribute.Key)
				}
			}
		}
		if scripts > 1 {
			t.Errorf("%q makes %d scripts", body, scripts)
		}
	})
}
