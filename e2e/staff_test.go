package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upkeep/internal/testkit"
	"upkeep/internal/testkit/browser"
)

// process runs the program.
func process(t *testing.T, argv ...string) *testkit.Process {
	t.Helper()
	return testkit.Command{Argv: append([]string{upkeepProgram(t)}, argv...), Dir: "/"}.Start(t)
}

// Staff adds a server on the page, runs on it what the page says, and sees it come.
func TestStaffAddsAServer(t *testing.T) {
	testkit.NeedRoot(t) // whose policy an agent reads
	tab := browser.Open(t)
	dir := t.TempDir()
	for _, folder := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	page := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	p := process(t, "up", "--data", filepath.Join(dir, "data"), "--dns", "", "--beat", "", "--apache", "none", "--http", page, "--agents", fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)))
	var setup string
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		setup = regexp.MustCompile(`http://\S+/setup\?token=\w+`).FindString(p.Log())
		return setup != "", p.Log()
	})
	tab.Do(chromedp.Navigate("http://"+page+"/signin"), chromedp.WaitVisible(`//p[contains(., "There is no user yet.")]`))
	if fields := browser.Ask[float64](tab, `document.querySelectorAll("input").length`); fields > 0 {
		t.Errorf("where there is no user, the sign-in has %v fields", fields)
	}
	tab.Do(chromedp.Navigate(setup))
	tab.Fill("form.form", "name", "ada", "password", "a password for tests", "again", "a password for tests")
	tab.Click("form.form button", `//a[@href="/me" and contains(., "ada")]`)

	joins(t, tab, page, dir)
	tab.Do(chromedp.Navigate("about:blank"))
	if complaints := tab.Complaints(); len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
}

// joins makes a second server one of upkeep's by what its page says.
func joins(t *testing.T, tab *browser.Tab, page, dir string) {
	t.Helper()
	tab.Do(chromedp.Navigate("http://" + page + "/servers"))
	tab.Fill("form.form", "name", "vm1")
	tab.Do(chromedp.Click(chromedp.CSS(`input[name="role"][value="images"]`)))
	tab.Click("form.form button.main", `//section[@role="status"]//code[contains(., "upkeep join https://")]`)
	command := strings.Fields(browser.Ask[string](tab, `document.querySelector("section[role=status] code").textContent`))
	tab.Do(chromedp.Navigate("http://"+page+"/servers"), chromedp.WaitReady(chromedp.CSS(`html[data-following=yes]`)),
		chromedp.WaitVisible(`//tr[th[contains(., "vm1")]]/td[contains(., "not connected")]`))

	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte("kinds: [image.list]\nimages: {roots: {vms: "+dir+"}, max_size: 1G}\nfront: nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := []string{"--data", filepath.Join(dir, "agent"), "--policy", policy}
	join := process(t, append(command[1:], agent[:2]...)...)
	testkit.Eventually(t, time.Minute, func() (bool, string) { return strings.Contains(join.Log(), "vm1"), join.Log() })
	process(t, append([]string{"agent"}, agent...)...)
	tab.Do(chromedp.WaitVisible(`//tr[th[contains(., "vm1")]]/td[@data-name="Agent" and contains(., "connected") and not(contains(., "not connected"))]`)) // by itself
}
