package console

import (
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"upkeep/internal/testkit"
	"upkeep/internal/testkit/browser"
)

// What a camera reads from the page, by day and by night, is the link that stands
// beside the code.
func TestFactorIsReadByACamera(t *testing.T) {
	testkit.Need(t, "zbarimg")
	b := browser.Open(t)
	server := httptest.NewServer(house(t, typical(), twoCustomers()).Public())
	defer server.Close()
	b.Do(chromedp.Navigate(server.URL+"/signin"), chromedp.SendKeys(chromedp.CSS(`input[name=name]`), "ada"), chromedp.SendKeys(chromedp.CSS(`input[name=password]`), "right"),
		chromedp.Click(chromedp.CSS(`form.form button`)), chromedp.WaitVisible(chromedp.CSS(`.person a[href="/me"]`)))
	for _, scheme := range []string{"light", "dark"} {
		b.Do(browser.Scheme(scheme), chromedp.EmulateViewport(360, 900), chromedp.Navigate(server.URL+"/me"), chromedp.WaitVisible(chromedp.CSS("svg.qr")))
		link := browser.Ask[string](b, `document.querySelector("a[href^='otpauth:']").href`)
		picture := filepath.Join(t.TempDir(), scheme+".png")
		b.Picture(picture)
		read, err := exec.Command("zbarimg", "--nodbus", "--quiet", "--raw", picture).Output()
		if got := strings.TrimSpace(string(read)); err != nil || got != link || !strings.Contains(link, "secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ") {
			t.Errorf("%s: it is read as %q, %v; the link is %q", scheme, got, err, link)
		}
	}
}

func TestDrawQR(t *testing.T) {
	if code := drawQR("x"); code == nil || code.Size != 21+8 || !strings.HasPrefix(code.Path, "M4,4h7v1h-7z") {
		t.Errorf("the smallest is %+v", code)
	}
	if code := drawQR(strings.Repeat("é", 3000)); code != nil {
		t.Errorf("more than fits makes one of %d", code.Size)
	}
}
