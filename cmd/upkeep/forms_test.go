package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"upkeep/internal/testkit/browser"
)

// Staff whose browser runs no scripts makes a receiver by its form, is told beside a
// field what is wrong with it, has it really told, and gives and ends a delegation.
func TestFormsWithoutScripts(t *testing.T) {
	network, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, network, port)
	s.declare("kind: account\nname: acme\n")
	told := filepath.Join(t.TempDir(), "told.json")
	set := func(field, value string) {
		t.Helper()
		if browser.Ask[string](s.tab, `document.querySelector("form.form [name=`+field+`]").value = "`+value+`"`) != value {
			t.Fatalf("the field %s does not take %s", field, value)
		}
	}
	s.tab.Do(browser.Scriptless(), chromedp.Navigate(s.page+"/declared?kind=receiver"), chromedp.Click(`//a[text()="New receiver"]`))
	s.tab.Fill("form.form", "name", "pager")
	set("type", "exec")
	s.tab.Do(chromedp.Click(`//summary[text()="Program"]`))
	s.tab.Click(`button[value="save"]`, `//label[.//textarea[@name="command" and @aria-invalid]]//span[@class="fault" and contains(., "Is required for an exec receiver")]`)
	s.tab.Fill("form.form", "command", "/usr/bin/tee\n"+told)
	s.tab.Click(`button[value="preview"]`, `//section[@id="preview"]//span[@class="added" and contains(., "name: pager")]`)
	s.tab.Click(`button[value="save"]`, `//th/a[text()="pager"]`)
	s.tab.Do(chromedp.Click(`//th/a[text()="pager"]`), chromedp.WaitVisible(chromedp.CSS(`form[action="/receivers/pager/test"] button`)))
	s.tab.Click(`form[action="/receivers/pager/test"] button`, `//section[@id="tested"]/h2[text()="The test message was taken"]`)
	text, err := os.ReadFile(told)
	if err != nil || !strings.Contains(string(text), `"test":true`) {
		t.Errorf("the receiver was told %s, %v", text, err)
	}
	set("command", "/bin/false")
	s.tab.Click(`button[value="save"]`, `//th/a[text()="pager"]`)
	s.tab.Do(chromedp.Click(`//th/a[text()="pager"]`), chromedp.WaitVisible(chromedp.CSS(`form[action="/receivers/pager/test"] button`)))
	s.tab.Click(`form[action="/receivers/pager/test"] button`, `//section[@id="tested"][h2[text()="The test message was not taken"]]/p[@class="fault" and contains(., "exit status 1")]`)
	s.tab.Click(`a.danger`, `//h1[contains(., "Remove the receiver pager?")]`)
	s.tab.Click(`button.danger`, `//p[contains(., "There is no receiver yet.")]`)

	s.tab.Do(chromedp.Navigate(s.page+"/declared?kind=delegation"), chromedp.Click(`//a[text()="New delegation"]`))
	s.tab.Fill("form.form", "name", "blog.example.test", "until", "soon")
	set("account", "acme")
	s.tab.Click(`button[value="save"]`, `//label[.//input[@name="until" and @value="soon"]]//span[@class="fault" and contains(., "must be a time such as")]`)
	set("until", "2099-01-31")
	s.tab.Click(`button[value="save"]`, `//tr[th/a[text()="blog.example.test"]]/td[contains(., "to acme, until")]`)
	s.tab.Do(chromedp.Click(`//th/a[text()="blog.example.test"]`))
	s.tab.Do(chromedp.WaitVisible(`//input[@name="until" and @value="2099-01-31T00:00:00Z"]`))
	s.tab.Click(`form[action="/delegations/blog.example.test/end"] button`, `//tr[th/a[text()="blog.example.test"]]/td[contains(., "to acme, ended")]`)
	s.complains("422", "502")
}
