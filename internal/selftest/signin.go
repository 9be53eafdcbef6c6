package selftest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"upkeep/internal/lazy"
)

// signInAttacks are what somebody does who has no password, or the wrong one for what
// is wanted.
var signInAttacks = []Attack{
	{
		Name: "sign-in", Lesson: "panels that count wrong passwords by address alone, and believe a header about it",
		Tries: "guesses passwords from many addresses, and has the sign-in lead to another host",
		Holds: "who guesses is slowed down, so that not even the right password gets in; the way leads to pages of upkeep's",
		Do:    guessing,
	},
	{
		Name: "stolen-sign-in", Lesson: "session fixation; forms that any page can send",
		Tries: "gives a browser its cookie beforehand, sends forms from pages of other hosts, and goes on with a cookie that was signed out",
		Holds: "each sign-in has a cookie of its own, which no script and no other host's page can use, and which ends with it",
		Do:    stolenSignIn,
	},
	{
		Name: "forged-passkeys", Lesson: "verifiers that leave out one of the checks of Web Authentication, section 7.2",
		Tries: "signs in as a neighbour by passkeys that another device signed, that were used before, or that were shown to another host, and by devices at which nobody was",
		Holds: "they are refused, between sign-ins by the neighbour's own that are taken",
		Do:    forgedPasskeys,
	},
	{
		Name: "customer-beyond", Lesson: "Froxlor CVE-2026-41232: whose something is was asked of the wrong half",
		Tries: "as a customer, by token and by browser, uses every kind of route that is staff's, and asks for what is a neighbour's",
		Holds: "it is refused what is staff's, and a neighbour's things are not there",
		Do:    customerBeyond,
	},
}

// user is somebody who may sign in.
type user struct{ name, password, token string }

// customer makes a user of an account.
func (w *World) customer(ctx context.Context, account string) (user, error) {
	u := user{name: fmt.Sprintf("user-%d", w.serial.Add(1)), password: rand.Text()}
	var err error
	u.token, err = w.Admit(ctx, u.name, account, u.password)
	return u, err
}

// speak sends a request to control; of the headers each is "Name: value".
func (w *World) speak(ctx context.Context, method, path, body string, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+w.Closed[0]+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Close = true
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return answer{resp.StatusCode, resp.Header, string(text)}, err
}

const formType = "Content-Type: application/x-www-form-urlencoded"

// signIn returns the cookie that a sign-in gives, "" where it is refused.
func (w *World) signIn(ctx context.Context, u user, password string, fields url.Values, headers ...string) (cookie string, got answer, err error) {
	form := url.Values{"name": {u.name}, "password": {password}}
	for name, values := range fields {
		form[name] = values
	}
	got, err = w.speak(ctx, "POST", "/signin", form.Encode(), append(headers, formType)...)
	if err != nil {
		return "", got, err
	}
	cookies := (&http.Response{Header: got.header}).Cookies()
	if got.status != http.StatusSeeOther || len(cookies) == 0 {
		return "", got, nil
	}
	return cookies[0].Name + "=" + cookies[0].Value, got, nil
}

// expectIn holds that a cookie is that of somebody who is signed in, or is not.
func (w *World) expectIn(ctx context.Context, cookie string, want bool, words string) error {
	got, err := w.speak(ctx, "GET", "/me", "", "Cookie: "+cookie)
	if err != nil {
		return err
	}
	if in := got.status == http.StatusOK; in != want {
		return fmt.Errorf("with a cookie that was %s, somebody is signed in: %v", words, in)
	}
	return nil
}

func guessing(ctx context.Context, w *World) error {
	u, err := w.customer(ctx, victim)
	if err != nil {
		return err
	}
	for _, next := range []string{"//evil.test", "https://evil.test/", `/\evil.test`, "/\t/evil.test", "javascript:alert(1)", "evil.test", "/%0d%0aX-Pwned: 1"} {
		cookie, got, err := w.signIn(ctx, u, u.password, url.Values{"next": {next}})
		if err != nil {
			return err
		}
		to, err := url.Parse(got.header.Get("Location"))
		if cookie == "" || err != nil || to.Host != "" || !strings.HasPrefix(to.Path, "/") || strings.HasPrefix(to.Path, "//") || got.header.Get("X-Pwned") != "" {
			return fmt.Errorf("a sign-in that is to lead to %q is answered with status %d and leads to %q", next, got.status, got.header.Get("Location"))
		}
	}
	// Not by address, nor by what is said to be one.
	for i := range 8 {
		cookie, _, err := w.signIn(ctx, u, fmt.Sprintf("wrong password %d", i), nil, fmt.Sprintf("X-Forwarded-For: 198.51.100.%d", i))
		if err != nil {
			return err
		}
		if cookie != "" {
			return errors.New("a wrong password is taken")
		}
	}
	cookie, _, err := w.signIn(ctx, u, u.password, nil, "X-Forwarded-For: 203.0.113.1")
	if err != nil {
		return err
	}
	if cookie != "" {
		return errors.New("after eight wrong passwords from eight addresses the ninth is looked at")
	}
	// A list of names, from one address.
	for i := range 40 {
		_, got, err := w.signIn(ctx, user{name: fmt.Sprintf("nobody-%d", i)}, "password", nil, "X-Forwarded-For: 192.0.2.1")
		if err != nil {
			return err
		}
		if strings.Contains(got.body, "oo many tries") {
			return nil
		}
	}
	return errors.New("forty names were tried from one address, and nobody was slowed down")
}

func stolenSignIn(ctx context.Context, w *World) error {
	u, err := w.customer(ctx, victim)
	if err != nil {
		return err
	}
	cookie, got, err := w.signIn(ctx, u, u.password, nil)
	if err != nil {
		return err
	}
	if text := got.header.Get("Set-Cookie"); cookie == "" || !strings.Contains(text, "HttpOnly") || !strings.Contains(text, "SameSite=Lax") {
		return fmt.Errorf("the sign-in is answered with status %d and the cookie %q", got.status, text)
	}
	name, _, _ := strings.Cut(cookie, "=")
	planted := name + "=" + rand.Text() + rand.Text()
	other, _, err := w.signIn(ctx, u, u.password, nil, "Cookie: "+planted)
	if err != nil {
		return err
	}
	if other == "" || other == planted || other == cookie {
		return fmt.Errorf("a sign-in by a browser with the cookie %q gives it %q", planted, other)
	}
	if err := w.expectIn(ctx, planted, false, "planted"); err != nil {
		return err
	}
	if err := w.expectIn(ctx, cookie, true, "its user's own"); err != nil {
		return err
	}
	if err := w.forge(ctx, u, cookie); err != nil {
		return err
	}
	if err := w.expectIn(ctx, cookie, true, "used by pages of other hosts"); err != nil {
		return err
	}
	if _, err := w.speak(ctx, "POST", "/signout", "", "Cookie: "+cookie, formType); err != nil {
		return err
	}
	return w.expectIn(ctx, cookie, false, "signed out")
}

// forge sends what a page of another host can have a browser send that is signed in.
func (w *World) forge(ctx context.Context, u user, cookie string) error {
	// Sent by upkeep's own page it is taken.
	const made = "name=own&scope=read&days=90"
	if got, err := w.speak(ctx, "POST", "/me/tokens", made, "Cookie: "+cookie, formType, "Origin: http://"+w.Closed[0], "Sec-Fetch-Site: same-origin"); err != nil || got.status >= 400 {
		return errors.Join(err, fmt.Errorf("the user's own form is answered with status %d", got.status))
	}
	for _, origin := range [][]string{
		{"Origin: http://evil.test", "Sec-Fetch-Site: cross-site"}, {"Origin: http://evil.test"}, {"Origin: null", "Sec-Fetch-Site: cross-site"}, {"Origin: null"},
		{"Sec-Fetch-Site: same-site"}, {"Origin: http://" + w.Address, "Sec-Fetch-Site: same-site"},
	} {
		headers := append([]string{"Cookie: " + cookie, formType}, origin...)
		for path, body := range map[string]string{
			"/sites/" + victimSite + "/remove": "name=" + victimSite, "/sites/" + victimSite + "/edit": "servers=" + w.Server + "&do=save", "/signout": "",
			"/me/tokens": made, "/me/password": "present=" + u.password + "&password=another-password&again=another-password",
			"/signin": "name=" + u.name + "&password=" + u.password, "/api/v1/delete": "",
		} {
			got, err := w.speak(ctx, "POST", path, body, headers...)
			if err != nil {
				return err
			}
			if got.status < 400 {
				return fmt.Errorf("%s, sent by a page with %v, is answered with status %d", path, origin, got.status)
			}
		}
	}
	return nil
}

func customerBeyond(ctx context.Context, w *World) error {
	u, err := w.customer(ctx, evil)
	if err != nil {
		return err
	}
	cookie, _, err := w.signIn(ctx, u, u.password, nil)
	if err != nil {
		return err
	}
	if cookie == "" {
		return errors.New("the tenant's own user cannot sign in")
	}
	if err := w.neighbourSeen(ctx); err != nil {
		return err
	}
	for _, by := range []string{"Authorization: Bearer " + u.token, "Cookie: " + cookie} {
		// What is its own it has, or all that follows would show nothing.
		for _, path := range []string{"/api/v1/sites", "/sites", "/api/v1/objects/site/" + evilSite} {
			if got, err := w.speak(ctx, "GET", path, "", by); err != nil || got.status != http.StatusOK || !strings.Contains(got.body, evilSite) {
				return errors.Join(err, fmt.Errorf("%s does not show the tenant's own site to it: status %d", path, got.status))
			}
		}
		for _, ask := range wishes(w) {
			kind := formType
			switch {
			case !strings.HasPrefix(ask.path, "/api/"):
			case strings.HasPrefix(ask.body, "{"):
				kind = "Content-Type: application/json"
			default:
				kind = "Content-Type: application/yaml"
			}
			got, err := w.speak(ctx, ask.method, ask.path, ask.body, by, kind)
			if err != nil {
				return err
			}
			if got.status < 400 && (ask.refused || neighboursRow().MatchString(got.body)) {
				return fmt.Errorf("%s %s by a customer is answered with status %d: %.300q", ask.method, ask.path, got.status, near(got.body, neighboursRow()))
			}
		}
	}
	return nil
}

// neighbourSeen holds that rows of the neighbour's are known by [neighboursRow] to who
// may see them: to its own user.
func (w *World) neighbourSeen(ctx context.Context) error {
	u, err := w.customer(ctx, victim)
	if err != nil {
		return err
	}
	cookie, _, err := w.signIn(ctx, u, u.password, nil)
	if err != nil {
		return err
	}
	for _, path := range []string{"/api/v1/sites", "/api/v1/jobs", "/api/v1/objects/site", "/sites", "/jobs"} {
		got, err := w.speak(ctx, "GET", path, "", "Cookie: "+cookie)
		if err != nil {
			return err
		}
		if got.status != http.StatusOK || !neighboursRow().MatchString(got.body) {
			return fmt.Errorf("%s is answered with status %d, and does not show the neighbour's own to it", path, got.status)
		}
	}
	return nil
}

// asked is a request of a customer's, and whether it is to be refused: others are to
// show nothing of the neighbour's.
type asked struct {
	method, path, body string
	refused            bool
}

func wishes(w *World) []asked {
	var all []asked
	for _, path := range []string{
		"/api/v1/servers", "/api/v1/users", "/api/v1/images", "/api/v1/users/" + victim + "/tokens", "/api/v1/sites/" + victimSite, "/api/v1/sites/" + victimSite + "/history",
		"/api/v1/objects/account/" + victim, "/api/v1/objects/site/" + victimSite, "/api/v1/objects/server/" + w.Server,
		"/servers", "/users", "/accounts", "/sites/" + victimSite, "/sites/" + victimSite + "/edit", "/sites/" + victimSite + "/history", "/sites/" + victimSite + "/remove",
	} {
		all = append(all, asked{"GET", path, "", true})
	}
	for _, path := range []string{
		"/api/v1/sites", "/api/v1/sites?account=" + victim, "/api/v1/jobs", "/api/v1/jobs?account=" + victim, "/api/v1/objects/site", "/api/v1/objects/account",
		"/api/v1/objects/delegation", "/sites", "/jobs", "/jobs?account=" + victim, "/api/v1/jobs?object=site/" + victimOther,
	} {
		all = append(all, asked{"GET", path, "", false})
	}
	for id := range 12 {
		all = append(all, asked{"GET", fmt.Sprintf("/api/v1/jobs/%d", id+1), "", false})
	}
	stolen := fmt.Sprintf("kind: site\nname: evil-stolen.test\naccount: %s\nservers: [%s]\n", victim, w.Server)
	for _, change := range [][3]string{
		{"POST", "/api/v1/apply", stolen}, {"POST", "/api/v1/apply", "kind: account\nname: evil-more\n"}, {"POST", "/api/v1/apply", "kind: server\nname: evil-web\nroles: [web]\n"},
		{"POST", "/api/v1/apply", fmt.Sprintf("kind: site\nname: %s\naccount: %s\nservers: [%s]\n", victimSite, evil, w.Server)},
		{"POST", "/api/v1/delete", fmt.Sprintf(`{"objects":[{"kind":"site","name":%q}]}`, victimSite)}, {"DELETE", "/api/v1/objects/site/" + victimSite, ""},
		{"POST", "/api/v1/sites/" + victimSite + "/undo", "{}"}, {"POST", "/api/v1/jobs", fmt.Sprintf(`{"kind":"server.facts","server":%q,"payload":{}}`, w.Server)},
		{"POST", "/api/v1/users", `{"name":"evil-staff","role":"staff","password":"a long password of mine"}`}, {"PUT", "/api/v1/users/" + victim + "/password", `{"password":"a long password of mine"}`},
		{"POST", "/api/v1/servers/" + w.Server + "/invitation", ""}, {"POST", "/api/v1/servers/" + w.Server + "/revoke", ""}, {"POST", "/api/v1/servers/" + w.Server + "/regenerate", ""},
		{"POST", "/servers/" + w.Server + "/regenerate", ""}, {"POST", "/sites/" + victimSite + "/remove", "name=" + victimSite}, {"POST", "/sites/" + victimSite + "/undo", "generation=1"},
	} {
		all = append(all, asked{change[0], change[1], change[2], true})
	}
	return all
}

// neighboursRow is how a row of the neighbour's looks in answers and on pages. The
// tenant's own rows hold its name, too, in folders, texts and names that it asked
// for; quotes in those are escaped.
var neighboursRow = lazy.Regexp(`"(account|name)":"` + victim + `|href="/(sites|accounts)/` + victim)

// near is what stands before and after the first match in a text, or its start without
// one.
func near(text string, what *regexp.Regexp) string {
	if at := what.FindStringIndex(text); at != nil {
		return text[max(0, at[0]-150):]
	}
	return text
}
