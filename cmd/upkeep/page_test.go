package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"upkeep/internal/testkit"
	"upkeep/internal/testkit/browser"
)

// An open status page of the real program changes by itself when a member dies
// and when it comes back.
func TestStatusPageFollowsTheMembers(t *testing.T) {
	tab := browser.Open(t)
	network, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	listen := func(host string) net.Listener {
		listener, err := net.Listen("tcp", network+host+":"+port)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		t.Cleanup(func() { listener.Close() })
		return listener
	}
	listen(".1")
	second := listen(".2")
	dir := t.TempDir()
	file := filepath.Join(dir, "web.yaml")
	documents := strings.NewReplacer("NET", network, "PORT", port).Replace(`
kind: zone
name: example.test
publishers: [{type: transfer}]
---
kind: pool
name: web
zones: [example.test]
records: [www]
members: [NET.1, NET.2]
check: {type: tcp, port: PORT, interval: 100ms}
policy: {probation: 100ms, add_window: 0s}
status: {public: true, title: Our shop}
`)
	if err := os.WriteFile(file, []byte(documents), 0o644); err != nil {
		t.Fatal(err)
	}
	page := network + ".80:" + port
	startUpkeep(t, []string{"UPKEEP_BEAT="}, "up", "-f", file, "--data", filepath.Join(dir, "data"), "--dns", network+".53:"+port, "--http", page)
	testkit.Eventually(t, patience, func() (bool, string) {
		conn, err := net.Dial("tcp", page)
		if err != nil {
			return false, err.Error()
		}
		conn.Close()
		return true, ""
	})
	row := `//section[@id="pool-web"]//tr[th[contains(., "` + network + `.2")]]`
	tab.Do(
		chromedp.Navigate("http://"+page+"/"),
		chromedp.WaitReady(chromedp.CSS(`html[data-following=yes]`)),
		chromedp.WaitVisible(`//h1[contains(., "All is well: web publishes every one of its 2 members.")]`),
	)
	browser.Ask[bool](tab, "window.kept = true")
	second.Close()
	tab.Do(
		chromedp.WaitVisible(`//h1[contains(., "web needs a look.")]`),
		chromedp.WaitVisible(row+`//td[@data-name="State" and contains(., "down")]`),
		chromedp.WaitVisible(row+`//td[@data-name="In DNS" and contains(., "no")]`),
		chromedp.WaitVisible(row+`//td[@data-name="Reason" and contains(., "refused")]`),
		chromedp.WaitVisible(`//ol[@class="log"]//li[contains(., "publishing 1 of 2")]`),
	)
	listen(".2")
	tab.Do(
		chromedp.WaitVisible(`//h1[contains(., "All is well")]`),
		chromedp.WaitVisible(row+`//td[@data-name="In DNS" and contains(., "yes")]`),
	)
	if !browser.Ask[bool](tab, "window.kept === true") {
		t.Error("the page was loaded anew rather than changed")
	}
	if shots := os.Getenv("UPKEEP_SHOTS"); shots != "" {
		tab.Picture(filepath.Join(shots, "real.png"))
	}
	// Anybody may see that, without the addresses.
	tab.Do(
		chromedp.Navigate("http://"+page+"/status/web"),
		chromedp.WaitVisible(`//h1[text()="All 2 answer"]`),
		chromedp.WaitVisible(`//tr[contains(., "1 of 2 did not answer")]/td[@data-name="Ended"]/time`),
	)
	if told := browser.Ask[string](tab, "document.documentElement.outerHTML"); strings.Contains(told, network) || !strings.Contains(told, "Our shop") {
		t.Errorf("the public status page is %s", told)
	}
	tab.Do(chromedp.Navigate("about:blank")) // lets go of the stream
	if complaints := tab.Complaints(); len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
	seenElsewhere(t, tab, "http://"+page+"/status/web")
}

// seenElsewhere shows the badge of a status page on a page of another site, and reads
// the feed.
func seenElsewhere(t *testing.T, tab *browser.Tab, status string) {
	t.Helper()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!DOCTYPE html><link rel="icon" href="data:,"><title>Shop</title><p>We are <img src="%s/badge.svg" alt="how we are">`, status)
	}))
	t.Cleanup(other.Close)
	tab.Do(chromedp.Navigate(other.URL), chromedp.WaitVisible("//img"))
	if width := browser.Ask[float64](tab, `document.images[0].complete && document.images[0].naturalWidth`); width < 50 {
		t.Errorf("the badge is %v pixels wide on another site's page", width)
	}
	if shots := os.Getenv("UPKEEP_SHOTS"); shots != "" {
		tab.Picture(filepath.Join(shots, "badge.png"))
	}
	tab.Do(chromedp.Navigate(status))
	tab.Do(chromedp.Navigate(browser.Ask[string](tab, `document.querySelector("link[type='application/atom+xml']").href`)))
	// Chromium shows a feed as text.
	feed := browser.Ask[string](tab, `(() => {
		const feed = new DOMParser().parseFromString(document.body.innerText, "application/xml");
		const all = name => feed.getElementsByTagNameNS("http://www.w3.org/2005/Atom", name);
		return [all("feed").length, all("title")[0]?.textContent, all("entry").length, feed.querySelectorAll("parsererror").length].join(" ");
	})()`)
	if feed != "1 Our shop 1 0" {
		t.Errorf("the feed is %q", feed)
	}
}
