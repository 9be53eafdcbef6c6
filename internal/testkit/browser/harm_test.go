package browser

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// What a page does not hold together is found, in a text and in an attribute, with a
// content security policy and without.
func TestHarmIsFound(t *testing.T) {
	for name, page := range map[string]string{"text": "<!doctype html><p>MARKUP</p><footer>", "attribute": `<!doctype html><input value="MARKUP"><footer>`} {
		for _, policy := range []string{"", "default-src 'none'"} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Security-Policy", policy)
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				io.WriteString(w, strings.ReplaceAll(strings.ReplaceAll(page, "MARKUP", Markup), "http-equiv=refresh", "")) // which would leave
			}))
			tab := Open(t)
			tab.Do(chromedp.Navigate(server.URL))
			found := strings.Join(tab.Harm(), "\n")
			for _, want := range []string{"an element: <img", "an attribute onerror"} {
				if !strings.Contains(found, want) {
					t.Errorf("%s with policy %q: %s is not found: %s", name, policy, want, found)
				}
			}
			if ran := regexp.MustCompile(`script \d+ ran`).MatchString(found); ran != (policy == "") {
				t.Errorf("%s with policy %q: that a script ran is found: %v", name, policy, ran)
			}
			if strayed := strings.Join(tab.Strayed("127.0.0.1"), "\n"); !strings.Contains(strayed, "evil.test") && !strings.Contains(strayed, "Content Security Policy") {
				t.Errorf("%s with policy %q: that it strays is not found: %s", name, policy, strayed)
			}
			server.Close()
		}
	}
}
