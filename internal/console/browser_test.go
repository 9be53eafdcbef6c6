package console

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upkeep"
	"upkeep/internal/testkit/browser"
)

// Every page fits its window at every width, with nothing sticking out and
// nothing for the browser to complain of, its content security policy included.
// UPKEEP_SHOTS names a folder to keep pictures in.
func TestPagesFitTheirWindow(t *testing.T) {
	b := browser.Open(t)
	shots, schemes := os.Getenv("UPKEEP_SHOTS"), []string{"light"} // colours move nothing
	if shots != "" {
		schemes = append(schemes, "dark")
	}
	for name, scene := range map[string]struct {
		f    *fake
		path string
	}{
		"empty":    {&fake{}, "/"},
		"healthy":  {healthy(), "/"},
		"typical":  {typical(), "/"},
		"broken":   {broken(), "/"},
		"crowded":  {crowded(), "/"},
		"pool":     {typical(), "/pools/web"},
		"bigpool":  {crowded(), "/pools/anycast-of-everything-that-has-a-really-long-name-for-a-pool-ok"},
		"events":   {crowded(), "/events"},
		"notfound": {&fake{}, "/pools/gone"},
		"hostile":  {hostile(), "/"},
		"status":   {published(), "/status/web"},
		"outage":   {outage(), "/status/web"},
	} {
		server := httptest.NewServer(handler(t, scene.f))
		for _, width := range []int64{360, 780, 1000, 1280} {
			for _, colours := range schemes {
				b.Do(chromedp.EmulateViewport(width, 900), browser.Scheme(colours), chromedp.Navigate(server.URL+scene.path), chromedp.WaitReady(chromedp.CSS("footer")))
				overflow := browser.Ask[float64](b, "document.documentElement.scrollWidth - innerWidth")
				wide := browser.Ask[[]string](b, `[...document.querySelectorAll("main *")].filter(e => !e.closest("svg") && !e.closest("thead") && e.getBoundingClientRect().right > innerWidth + 1).slice(0, 3).map(e => e.outerHTML.slice(0, 90))`)
				// A cell whose text is wider than itself lies over its neighbour.
				wide = append(wide, browser.Ask[[]string](b, `[...document.querySelectorAll("tbody th, tbody td")].filter(e => e.scrollWidth > e.clientWidth + 1).slice(0, 3).map(e => e.outerHTML.slice(0, 90))`)...)
				if overflow > 0 || len(wide) > 0 {
					t.Errorf("%s at %d in %s: %v pixels too wide: %.300q", name, width, colours, overflow, wide)
				}
				if shots != "" {
					b.Picture(filepath.Join(shots, fmt.Sprintf("%s-%d-%s.png", name, width, colours)))
				}
			}
		}
		b.Do(chromedp.Navigate("about:blank")) // lets go of the stream
		server.Close()
	}
	for _, complaint := range b.Complaints() {
		if !strings.Contains(complaint, "404") { // of the page that is not found
			t.Errorf("the browser complains: %s", complaint)
		}
	}
}

// An open page follows by itself what happens, keeps its scroll position and
// the keyboard's focus, and shows a page of another shape as that.
func TestPageFollowsByItself(t *testing.T) {
	b := browser.Open(t)
	f := healthy()
	server := httptest.NewServer(handler(t, f))
	defer server.Close()
	b.Do(
		chromedp.Navigate(server.URL),
		chromedp.WaitVisible(`//h1[contains(., "All is well")]`),
		chromedp.WaitReady(chromedp.CSS(`html[data-following=yes]`)),
	)
	browser.Ask[bool](b, `window.kept = true; document.querySelector("#pool-web h2 a").focus(); true`)
	f.change(func() {
		m := &f.pools[0].Members[1]
		m.Verdict, m.Published, m.ChangedAt, m.Reason = upkeep.Down, false, time.Now(), "connection refused"
		f.pools[0].Published = f.pools[0].Published[:2]
	})
	b.Do(
		chromedp.WaitVisible(`//h1[contains(., "web needs a look")]`),
		chromedp.WaitVisible(`//tr[@id="m-192-0-2-12"]//td[contains(., "connection refused")]`),
	)
	if !browser.Ask[bool](b, "window.kept === true") {
		t.Error("the page was loaded anew rather than changed")
	}
	if focus := browser.Ask[string](b, `document.activeElement.getAttribute("href") || ""`); focus != "/pools/web" {
		t.Errorf("the keyboard's focus went to %q", focus)
	}
	f.change(func() { f.pools = append(f.pools, pool("mail", member("192.0.2.21"))) })
	b.Do(chromedp.WaitVisible(chromedp.CSS("#pool-mail")))
	f.change(func() { f.pools = f.pools[:1] })
	b.Do(chromedp.WaitNotPresent(chromedp.CSS("#pool-mail")))
	b.Do(chromedp.Navigate("about:blank"))
	if c := b.Complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %q", c)
	}
}
