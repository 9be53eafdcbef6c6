package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/browser"
)

// keyring is a browser with a device that keeps passkeys, before a real upkeep.
type keyring struct {
	*testing.T
	tab    *browser.Tab
	device *browser.Authenticator
	up     *client.Client
	page   string // as the browser writes it
	log    func() string
}

const keyringPassword = "a password for tests"

// onEach runs a test with each database, for ada of staff.
func onEach(t *testing.T, run func(*keyring)) {
	for name, db := range map[string]func(*testing.T) []string{
		"SQLite":   func(*testing.T) []string { return nil },
		"Postgres": func(t *testing.T) []string { return []string{"--db", testkit.Postgres(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			// The path of the control socket is limited to 107 bytes.
			data, err := os.MkdirTemp("", "upkeep-key-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(data) })
			p := startUpkeep(t, nil, append([]string{"serve", "--data", data, "--dns", "", "--beat", "", "--http", "127.0.0.1:0"}, db(t)...)...)
			k := &keyring{T: t, up: client.OverSocket(data), log: p.Log}
			testkit.Eventually(t, patience, func() (bool, string) {
				at := regexp.MustCompile(`http://127\.0\.0\.1:(\d+)/setup`).FindStringSubmatch(p.Log())
				if at != nil {
					k.page = "http://localhost:" + at[1]
				}
				return at != nil, p.Log()
			})
			if err := k.up.AddUser(t.Context(), wire.NewUser{Name: "ada", Role: upkeep.UserStaff, Password: keyringPassword}); err != nil {
				t.Fatal(err)
			}
			k.tab = browser.Open(t)
			k.device = k.tab.Authenticator()
			run(k)
		})
	}
}

// signIn signs in with the password.
func (k *keyring) signIn() {
	k.Helper()
	k.tab.Do(chromedp.Navigate(k.page + "/signin?next=/me"))
	k.tab.Fill(`form[action="/signin"]`, "name", "ada", "password", keyringPassword)
	k.tab.Click(`form[action="/signin"] button`, `//h2[contains(., "Passkeys")]`)
}

func (k *keyring) signOut() {
	k.Helper()
	k.tab.Click(`form[action="/signout"] button`, `//div[@class="person"]/a[@href="/signin"]`)
}

// add adds a passkey on the page of one's own name.
func (k *keyring) add(label, password, then string) {
	k.Helper()
	const form = `form[action="/me/passkeys"]`
	k.tab.Do(chromedp.Navigate(k.page + "/me"))
	k.tab.Fill(form, "label", label, "present", password)
	k.tab.Click(form+" button", then)
}

// enter presses the button of the sign-in, and waits for what comes of it.
func (k *keyring) enter(then string) {
	k.Helper()
	k.tab.Do(chromedp.Navigate(k.page + "/signin?next=/me"))
	k.tab.Click(`form[action="/signin/passkey"] button`, then)
}

const (
	isIn      = `//div[@class="person"]/a[@href="/me" and contains(., "ada")]`
	isRefused = `//p[@role="alert" and contains(., "was not accepted")]`
	isUnknown = `//p[@role="alert" and contains(., "not one of upkeep")]`
)

// The way of a passkey in a real browser, with a device of its own: it is added by
// who knows the password, signs in, is removed, and is good no more.
func TestPasskeyInABrowser(t *testing.T) {
	onEach(t, func(k *keyring) {
		k.signIn()
		k.add("laptop", "wrong password", `//p[@role="alert" and contains(., "is wrong")]`)
		if n := len(k.device.Credentials()); n > 0 {
			k.Fatalf("the device made %d passkeys without the password", n)
		}
		k.add("laptop", keyringPassword, `//tr[th[contains(., "laptop")]]/td[contains(., "localhost")]`)
		kept := k.device.Credentials()
		if len(kept) != 1 || !kept[0].IsResidentCredential || kept[0].RpID != "localhost" || len(kept[0].UserHandle) != 32 {
			k.Fatalf("the device has %+v", kept)
		}
		k.add("laptop again", keyringPassword, `//p[@role="alert" and contains(., "has a passkey of yours already")]`)
		k.signOut()
		k.enter(isIn)
		k.signOut()
		k.enter(isIn)
		keys, err := k.up.Passkeys(k.Context(), "ada")
		if err != nil || len(keys) != 1 || keys[0].Name != "laptop" || keys[0].Seen.IsZero() {
			k.Fatalf("kept are %+v, %v", keys, err)
		}
		k.tab.Do(chromedp.Navigate(k.page + "/me"))
		k.tab.Click(`form[action^="/me/passkeys/"][action$="/remove"] button`, `//section[h2[contains(., "Passkeys")]]/p[contains(., "None.")]`)
		k.signOut()
		k.enter(isUnknown)
		for _, complaint := range k.tab.Complaints() {
			if !strings.Contains(complaint, "422") { // of what was refused
				k.Errorf("the browser complains: %s", complaint)
			}
		}
		said := ""
		entries, err := k.up.Audit(k.Context(), client.AuditFilter{Object: "user/ada", Limit: 100})
		for _, e := range entries {
			said += e.Who + ": " + e.What + "; "
		}
		if err != nil || !strings.Contains(said, "user ada: passkey 1 added; ") || !strings.Contains(said, "user ada: passkey 1 removed; ") {
			k.Errorf("the audit log says %s, %v", said, err)
		}
	})
}

// What is not to get in does not: a device that verified nobody, that counts
// backwards, and of one who was removed. A lock, which strangers can bring about, is no
// reason to refuse one.
func TestPasskeysThatAreRefused(t *testing.T) {
	onEach(t, func(k *keyring) {
		k.signIn()
		k.add("laptop", keyringPassword, `//tr[th[contains(., "laptop")]]`)
		k.signOut()
		k.enter(isIn)
		k.signOut()

		k.device.Verified(false) // the browser itself gives up then
		k.enter(`//p[@role="alert" and contains(., "Nothing was shown")]`)
		k.device.Verified(true)
		k.device.Unverified(true)
		k.enter(isRefused)
		k.device.Unverified(false)

		id := k.device.Credentials()[0].CredentialID
		k.device.Count(id, 0)
		k.enter(isRefused)
		events, err := k.up.Events(k.Context(), client.EventFilter{Object: "user/ada", Kind: upkeep.EventWarning})
		if err != nil || len(events) != 1 || !strings.Contains(events[0].What, "may have been copied") {
			k.Errorf("told is %+v, %v", events, err)
		}
		k.device.Count(id, 100)
		k.enter(isIn)
		k.signOut()

		for i := range 6 {
			password := "guess"
			if i == 5 { // ada is locked
				password = keyringPassword
			}
			// Anew each time: what the last answer says would be taken for the next one's.
			k.tab.Do(chromedp.Navigate(k.page + "/signin"))
			k.tab.Fill(`form[action="/signin"]`, "name", "ada", "password", password)
			k.tab.Click(`form[action="/signin"] button`, `//p[@role="alert" and contains(., "is wrong")]`)
		}
		k.enter(isIn)
		k.signOut()
		if err := k.up.RemoveUser(k.Context(), "ada"); err != nil {
			k.Fatal(err)
		}
		k.enter(isUnknown)
	})
}

// visitor is a program with the cookies of a browser.
type visitor struct {
	*keyring
	http http.Client
}

func (k *keyring) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		k.Fatal(err)
	}
	return &visitor{k, http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// send sends a form, and returns the answer's status and text.
func (v *visitor) send(path string, form url.Values) (int, string) {
	v.Helper()
	resp, err := v.http.PostForm(v.page+path, form)
	if err != nil {
		v.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// show has the device answer what a program was asked, on the page that is open.
func (v *visitor) show(options string) string {
	v.Helper()
	var told struct{ PublicKey json.RawMessage }
	if err := json.Unmarshal([]byte(options), &told); err != nil {
		v.Fatalf("%s: %v", options, err)
	}
	return browser.Ask[string](v.tab, `(async () => { try { return JSON.stringify(await navigator.credentials.get({
		publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(`+string(told.PublicKey)+`) })) } catch (e) { return "no: " + e } })()`)
}

// Another page gets nothing that upkeep takes, not even one of this machine, to which
// browsers give the passkeys of all its ports; and what was taken once is not again.
func TestPasskeyOnAnotherPage(t *testing.T) {
	onEach(t, func(k *keyring) {
		k.signIn()
		k.add("laptop", keyringPassword, `//tr[th[contains(., "laptop")]]`)
		k.signOut()
		v := k.visitor()
		ask := func() string {
			k.Helper()
			status, options := v.send("/signin/passkey/options", nil)
			if status != 200 {
				k.Fatalf("asking is answered %d: %s", status, options)
			}
			return options
		}
		evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<!doctype html><p>Win!") }))
		defer evil.Close()
		_, port, err := net.SplitHostPort(evil.Listener.Addr().String())
		if err != nil {
			k.Fatal(err)
		}
		k.tab.Do(chromedp.Navigate("http://localhost:" + port))
		answer := v.show(ask())
		if !strings.Contains(answer, `"signature"`) {
			k.Fatalf("the other page gets nothing to try: %s", answer)
		}
		if status, text := v.send("/signin/passkey", url.Values{"answer": {answer}}); status != 422 || !strings.Contains(text, "was not accepted") {
			k.Errorf("what another page got is answered %d: %s", status, text)
		}
		testkit.Eventually(k, patience, func() (bool, string) { // the log comes through a pipe
			return strings.Contains(k.log(), "Error validating origin"), "the log does not say why: " + k.log()
		})

		k.tab.Do(chromedp.Navigate(k.page + "/signin"))
		answer = v.show(ask())
		at, err := url.Parse(k.page)
		if err != nil {
			k.Fatal(err)
		}
		shown := v.http.Jar.Cookies(at)
		if status, text := v.send("/signin/passkey", url.Values{"answer": {answer}}); status != 303 {
			k.Fatalf("the page of upkeep itself is answered %d: %s", status, text)
		}
		thief := k.visitor() // has both the answer and the cookie
		thief.http.Jar.SetCookies(at, shown)
		if status, text := thief.send("/signin/passkey", url.Values{"answer": {answer}}); status != 422 || !strings.Contains(text, "was sent twice") {
			k.Errorf("sent again it is answered %d: %s", status, text)
		}
		if status, text := k.visitor().send("/signin/passkey", url.Values{"answer": {answer}}); status != 422 {
			k.Errorf("without the cookie it is answered %d: %s", status, text)
		}
		for _, cookie := range v.http.Jar.Cookies(at) {
			if strings.HasSuffix(cookie.Name, "-passkey") {
				k.Errorf("the browser keeps %s", cookie.Name)
			}
		}
		// By an address there are none, and the page says why.
		byAddress := strings.Replace(k.page, "localhost", "127.0.0.1", 1)
		k.tab.Do(chromedp.Navigate(byAddress+"/signin"), chromedp.WaitVisible(`//p[contains(., "Passkeys belong to a name")]`))
		if shown := browser.Ask[bool](k.tab, `document.querySelector("form[data-passkey]") !== null`); shown {
			k.Error("there is a button nevertheless")
		}
	})
}
