package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"upkeep/internal/api/client"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/browser"
)

// The whole way of a customer on the real program and a real Apache: the first user
// is made with the address that was printed, staff makes an account and a user of
// it, the customer makes a site and sees it become live, is refused what is staff's,
// and is led to the sign-in when somebody signs it out.
func TestCustomerMakesASite(t *testing.T) {
	testkit.Need(t, "apache2")
	tab := browser.Open(t)
	network, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, folder := range []string{dir, filepath.Dir(dir)} { // the web server's user passes them
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, page := filepath.Join(dir, "data"), network+".80:"+port
	p := startUpkeep(t, []string{"UPKEEP_BEAT="}, "up", "--data", data, "--dns", network+".53:"+port, "--http", page, "--apache", network+".90:"+port)
	var setup string
	testkit.Eventually(t, patience, func() (bool, string) {
		setup = regexp.MustCompile(`http://\S+/setup\?token=\w+`).FindString(p.Log())
		return setup != "", p.Log()
	})
	const password = "a password for tests"
	tab.Do(chromedp.Navigate(setup))
	tab.Fill("form.form", "name", "ada", "password", password, "again", password)
	tab.Click("form.form button", `//a[@href="/me" and contains(., "ada")]`)

	tab.Do(chromedp.Navigate("http://" + page + "/accounts"))
	tab.Fill("form.form", "name", "acme", "email", "eve@acme.test")
	tab.Click("form.form button", `//th[contains(., "acme")]`)
	tab.Do(chromedp.Navigate("http://" + page + "/users"))
	tab.Fill("form.form", "name", "eve", "password", password)
	browser.Ask[bool](tab, `document.querySelector("select[name=account]").value = "acme"; true`)
	tab.Click("form.form button.main", `//tr[th[contains(., "eve")]]/td[contains(., "account acme")]`)
	tab.Click(`form[action="/signout"] button`, `//a[@href="/signin"]`)

	tab.Do(chromedp.Navigate("http://" + page + "/sites"))
	tab.Fill("form.form", "name", "eve", "password", password)
	tab.Click("form.form button", `//h1[contains(., "My sites")]`)
	tab.Do(chromedp.Navigate("http://" + page + "/sites/new"))
	const evil = `"><script>document.title = "taken over"</script><img src=x onerror="document.title = 'taken over'">`
	tab.Fill("form.form", "name", "Shop.Example.Test")
	browser.Ask[bool](tab, `for (const d of document.querySelectorAll("details")) d.open = true; true`)
	tab.Fill("form.form", "error_pages", "404 "+evil)
	tab.Click(`button[value="preview"]`, `//section[@id="preview"]//pre[contains(., "ServerName")]`)
	tab.Click(`button[value="save"]`, `//h1[contains(., "shop.example.test")]`)
	tab.Do(chromedp.WaitVisible(`//section[@id="headline"]//p[@class="reason" and contains(., "live")]`), // by itself
		chromedp.WaitVisible(`//section[@id="jobs"]//tr[th[contains(., "site.apply")]]/td[contains(., "done")]`))
	if status, text, err := ask("http://"+network+".90:"+port+"/nothing", "shop.example.test"); err != nil || status != 404 || !strings.Contains(text, "taken over") {
		t.Errorf("the site answers %d %s, %v", status, text, err)
	}
	for _, path := range []string{"/sites/shop.example.test/edit", "/sites/shop.example.test/history", "/jobs"} {
		tab.Do(chromedp.Navigate("http://"+page+path), chromedp.WaitReady(chromedp.CSS("footer")))
		if title := browser.Ask[string](tab, "document.title"); strings.Contains(title, "taken over") {
			t.Errorf("a script of a customer's ran on %s", path)
		}
	}
	tab.Do(chromedp.Navigate("http://"+page+"/servers"), chromedp.WaitVisible(`//p[contains(., "This is for staff.")]`))

	tab.Do(chromedp.Navigate("http://"+page+"/sites"), chromedp.WaitReady(chromedp.CSS(`html[data-following=yes]`)))
	if err := client.OverSocket(data).SignUserOut(t.Context(), "eve"); err != nil {
		t.Fatal(err)
	}
	tab.Do(chromedp.WaitVisible(`//h1[contains(., "Sign in")]`)) // by itself
	tab.Do(chromedp.Navigate("about:blank"))
	for _, complaint := range tab.Complaints() {
		if !strings.Contains(complaint, "403") { // of the page that is staff's
			t.Errorf("the browser complains: %s", complaint)
		}
	}
	// What was typed as a password is nowhere as it was typed.
	err = filepath.WalkDir(data, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte(password)) {
			t.Errorf("%s holds the password", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(p.Log(), password) {
		t.Error("the password was printed")
	}
}

// Staff that opens no terminal declares a zone and a pool, which is answered by DNS, and
// has an image made and grown, on the real program.
func TestStaffNeedsNoTerminal(t *testing.T) {
	testkit.Need(t, "mke2fs", "e2fsck", "resize2fs")
	tab := browser.Open(t)
	network, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, folder := range []string{dir, filepath.Dir(dir)} { // or the server's files would be kept elsewhere
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, page := filepath.Join(dir, "data"), network+".80:"+port
	p := startUpkeep(t, []string{"UPKEEP_BEAT="}, "up", "--data", data, "--dns", network+".53:"+port, "--http", page)
	var setup string
	testkit.Eventually(t, patience, func() (bool, string) {
		setup = regexp.MustCompile(`http://\S+/setup\?token=\w+`).FindString(p.Log())
		return setup != "", p.Log()
	})
	tab.Do(chromedp.Navigate(setup))
	tab.Fill("form.form", "name", "ada", "password", "a password for tests", "again", "a password for tests")
	tab.Click("form.form button", `//a[@href="/me" and contains(., "ada")]`)
	write := func(path, text, button, then string) {
		t.Helper()
		tab.Do(chromedp.Navigate("http://"+page+path), chromedp.WaitVisible(chromedp.CSS("textarea")))
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		browser.Ask[bool](tab, `document.querySelector("textarea").value = `+string(quoted)+`; true`)
		tab.Click(`button[value="`+button+`"]`, then)
	}
	write("/declare/zone", "kind: zone\nname: page.test\npublishers: [{type: transfer}]\n", "save", `//bdi[text()="page.test"]`)
	pool := "kind: pool\nname: shop\nzones: [page.test]\nrecords: [www]\nttl: 5m\nmembers: [192.0.2.7]\ncheck: {type: tcp, port: 9}\n"
	write("/declare/pool", strings.Replace(pool, "page.test", "none.test", 1), "save", `//ol[@class="wrong"]/li[@value="3" and contains(., "must be a declared zone")]`)
	write("/declare/pool", pool, "preview", `//section[@id="preview"]//span[@class="added" and text()="+ttl: 5m"]`)
	tab.Click(`button[value="save"]`, `//h1[text()="shop"]`)
	tab.Do(chromedp.WaitVisible(`//section[@id="zones"]//td[contains(., "yes")]`)) // proven, by itself
	tab.Click(`a.danger`, `//h1[contains(., "Remove the pool shop?")]`)
	tab.Click(`button.danger`, `//h1[text()="Declared"]`)
	tab.Do(chromedp.WaitNotPresent(`//th[contains(., "shop")]`))

	write("/declared/server/local", "kind: server\nname: local\nroles: [web, files, images]\n", "save", `//tr[th[contains(., "local")]]/td[contains(., "images")]`)
	tab.Do(chromedp.Navigate("http://"+page+"/images/local/create"), chromedp.WaitVisible(chromedp.CSS("form.form")))
	tab.Fill("form.form", "root", "images", "path", "one.img", "size", "16M")
	browser.Ask[bool](tab, `document.querySelector("select[name=fs]").value = "ext4"; true`)
	tab.Click(`button[value="preview"]`, `//section[@id="preview"]//p[contains(., "images/one.img of 16M is made on local, with ext4")]`)
	done := `//section[@id="headline"]//p[@class="reason" and contains(., "done")]`
	tab.Click(`button[value="run"]`, done) // by itself
	tab.Do(chromedp.Navigate("http://"+page+"/images"), chromedp.WaitVisible(chromedp.CSS(`form[action="/images/look"]`)))
	tab.Click(`form[action="/images/look"] button`, `//th/a[text()="images/one.img"]`)
	tab.Do(chromedp.Click(chromedp.CSS("table.images th a")), chromedp.WaitVisible(`//a[text()="Grow"]`))
	tab.Click(`a[href*="/grow?"]`, `//h1[contains(., "grow")]`)
	tab.Fill("form.form", "to", "24M")
	tab.Click(`button[value="run"]`, done)
	info, err := os.Stat(filepath.Join(data, "local", "images", "one.img"))
	if err != nil || info.Size() != 24<<20 {
		t.Errorf("the image is %+v, %v", info, err)
	}
	tab.Do(chromedp.Navigate("about:blank"))
	for _, complaint := range tab.Complaints() {
		if !strings.Contains(complaint, "422") { // of what was wrong with the document
			t.Errorf("the browser complains: %s", complaint)
		}
	}
}
