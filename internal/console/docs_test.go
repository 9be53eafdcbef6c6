package console

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"upkeep/internal/api"
)

// TestDocs wants every operation of the API on its page, with a command that uses it
// and links that lead somewhere; and from nowhere else anything.
func TestDocs(t *testing.T) {
	a := house(t, typical(), twoCustomers())
	for _, who := range []string{"", "eve", "ada"} {
		w := ask(a.Public(), who, "GET", "/docs/api", "")
		page := w.Body.String()
		if w.Code != http.StatusOK || w.Header().Get("Content-Security-Policy") != policy {
			t.Fatalf("to %q it answers %d, with policy %q", who, w.Code, w.Header().Get("Content-Security-Policy"))
		}
		for _, pattern := range a.Routes() {
			method, path, _ := strings.Cut(pattern, " ")
			if strings.HasPrefix(path, "/api/") && path != "/api/v1/openapi.json" && !strings.Contains(page, "<h3><code>"+method+" "+path+"</code></h3>") {
				t.Errorf("%s is not on the page", pattern)
			}
		}
		ids := map[string]bool{"main": true}
		for _, id := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(page, -1) {
			if ids[id[1]] && id[1] != "main" {
				t.Errorf("two things are at #%s", id[1])
			}
			ids[id[1]] = true
		}
		for _, link := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page, -1) {
			if !ids[link[1]] {
				t.Errorf("the link to #%s leads nowhere", link[1])
			}
		}
		if found := regexp.MustCompile(`(src|href)="(https?:)?//[^"]*"`).FindString(page); found != "" {
			t.Errorf("the page loads or leads elsewhere: %s", found)
		}
		if n := strings.Count(page, "curl "); n < strings.Count(string(api.Document()), `"operationId"`) {
			t.Errorf("there are %d examples", n)
		}
	}
}
