package console

import (
	"errors"
	"fmt"
	"html"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
)

// formOf is what a browser sends of a form that nobody changed.
func formOf(groups []group) url.Values {
	form := url.Values{}
	for _, g := range groups {
		for _, f := range g.Fields {
			switch f.Kind {
			case "tick":
				if f.On {
					form.Set(f.Name, "on")
				}
			case "choose", "many":
				for _, o := range f.Options {
					if o.On {
						form.Add(f.Name, o.Value)
					}
				}
			default:
				form.Set(f.Name, strings.ReplaceAll(f.Value, "\n", "\r\n"))
			}
		}
	}
	return form
}

// A receiver that goes through its form comes out as it was, with what is not shown.
func TestFormKeepsReceivers(t *testing.T) {
	none, wait := upkeep.Duration(0), upkeep.Duration(90*time.Second)
	for i, r := range []upkeep.Receiver{
		{Name: "a", Type: upkeep.ReceiverEmail, To: []string{"a@b.test", "Ops <c@d.test>"}, From: "u@b.test", SMTP: "mail.b.test:587", TLS: upkeep.MailStartTLS, Username: "u", PasswordFile: "/etc/p", CAFile: "/etc/ca"},
		{Name: "a", Type: upkeep.ReceiverEmail, To: []string{"a@b.test"}, From: "u@b.test", SMTP: "mail.b.test:587"},
		{Name: "a", Type: upkeep.ReceiverWebhook, URLFile: "/etc/u", Template: "{\"text\": {{json .Title}}}\n\n", Header: map[string]string{"Authorization": "Key 123", "X-Empty": ""}, SecretFile: "/etc/s", TokenFile: "/etc/t",
			Timeout: wait, Events: []string{upkeep.EventVerdict, upkeep.EventWarning}, Pools: []string{"web-*", "with space"}, GroupWait: &none, MinInterval: upkeep.Duration(time.Second), Repeat: upkeep.Duration(upkeep.Day), MaxAge: upkeep.Duration(30 * upkeep.Day)},
		{Name: "a", Type: upkeep.ReceiverExec, Command: []string{"/bin/page", "", "two\nlines", "  x "}, GroupWait: &wait},
	} {
		groups, err := receiverGroups(nil, t.Context(), r, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			for _, f := range g.Fields {
				if strings.Contains(f.Value, "Key 123") {
					t.Errorf("field %s shows the value of a header", f.Name)
				}
			}
		}
		got, err := receiverOf(formOf(groups), r, false)
		if err != nil {
			t.Error(err)
		}
		if !reflect.DeepEqual(got, upkeep.Object(r)) {
			t.Errorf("receiver %d comes out as\n%+v, not\n%+v", i, got, r)
		}
	}
}

// What is wrong with a receiver is said beside its field, what else was typed stays,
// and what is saved is the object that a document would be.
func TestFormOfAReceiver(t *testing.T) {
	h := twoCustomers()
	h.things = []upkeep.Declared{{Generation: 4, Object: upkeep.Receiver{Name: "chat", Type: upkeep.ReceiverWebhook, URL: "https://chat.test/", Header: map[string]string{"X-Key": secretOfOther}}}}
	a := house(t, typical(), h).Public()
	post := func(path string, form url.Values) (int, string) {
		w := ask(a, "ada", "POST", path, form.Encode())
		return w.Code, html.UnescapeString(w.Body.String()) + w.Header().Get("Location")
	}
	code, body := post("/receivers/new", url.Values{"name": {"No Name"}, "type": {"email"}, "to": {"ops@example.test\nnobody"}, "from": {"up@example.test"}, "smtp": {"mail"}, "repeat": {"sometimes"}, "pools": {"["}, "do": {"save"}})
	if code != 422 || !strings.Contains(body, `"sometimes" must be a duration such as`) || !strings.Contains(body, "ops@example.test\nnobody</textarea>") || !strings.Contains(body, `value="sometimes"`) {
		t.Errorf("a duration that is none answers %d: %s", code, body)
	}
	code, body = post("/receivers/new", url.Values{"name": {"No Name"}, "type": {"email"}, "to": {"ops@example.test\nnobody"}, "from": {"up@example.test"}, "smtp": {"mail"}, "url": {"https://x.test"}, "pools": {"["}, "events": {"verdict"}, "do": {"save"}})
	for _, want := range []string{`"No Name" must be 1 to 63 lower-case`, `"nobody" must be a mail address`, `"mail" must be host:port`, "is taken by receivers of type webhook, not by email", `"[" must be the name of a pool`, `value="up@example.test"`, `value="verdict" checked`} {
		if !strings.Contains(strings.ReplaceAll(body, "Is taken", "is taken"), want) {
			t.Errorf("the form does not say %q: %s", want, body)
		}
	}
	if code != 422 || strings.Count(body, `aria-invalid="true"`) != 5 || len(h.did()) > 0 {
		t.Errorf("it answers %d with %d fields that are wrong, done is %q", code, strings.Count(body, `aria-invalid="true"`), h.did())
	}
	if code, body := post("/receivers/new", url.Values{"name": {"x"}, "type": {"exec"}, "command": {"./hook.sh"}, "do": {"save"}}); code != 422 || !strings.Contains(body, "must begin with /") {
		t.Errorf("a relative path answers %d: %s", code, body)
	}
	if code, to := post("/receivers/new", url.Values{"name": {"pager"}, "type": {"exec"}, "command": {"/bin/page\r\n--now"}, "group_wait": {"0s"}, "do": {"save"}}); code != 303 || !strings.HasSuffix(to, "/declared?kind=receiver") {
		t.Errorf("a new one answers %d: %s", code, to)
	}
	// What is hidden stays, is not shown anywhere, and is only replaced by what is typed.
	page := ask(a, "ada", "GET", "/receivers/chat/edit", "")
	if page.Code != 200 || strings.Contains(page.Body.String(), secretOfOther) || !strings.Contains(page.Body.String(), "X-Key:") {
		t.Errorf("the form answers %d: %s", page.Code, page.Body)
	}
	form := url.Values{"generation": {"4"}, "type": {"webhook"}, "url": {"https://other.test/"}, "header": {"X-Key:"}, "do": {"preview"}}
	if code, body := post("/receivers/chat/edit", form); code != 200 || strings.Contains(body, secretOfOther) || !strings.Contains(body, `+url: "https://other.test/"`) {
		t.Errorf("what it would change answers %d: %s", code, body)
	}
	form.Set("header", "X-Key: "+secretOfOther+"2")
	if _, body := post("/receivers/chat/edit", form); !strings.Contains(body, `+  X-Key: "(not shown) another one"`) {
		t.Errorf("that the value of a header is another one is not said: %s", body)
	}
	form.Set("header", "X-Key:\nX-New:")
	if code, body := post("/receivers/chat/edit", form); code != 422 || !strings.Contains(body, "The value of X-New is missing") {
		t.Errorf("a header without a value answers %d: %s", code, body)
	}
	form.Set("header", "X-Key:")
	form.Set("do", "save")
	form.Set("generation", "3")
	if code, body := post("/receivers/chat/edit", form); code != 412 || !strings.Contains(body, "Somebody else changed it") || !strings.Contains(body, `name="generation" value="4"`) || !strings.Contains(body, "https://other.test/") || strings.Contains(body, secretOfOther) {
		t.Errorf("changed meanwhile it answers %d: %s", code, body)
	}
	form.Set("generation", "4")
	if code, body := post("/receivers/chat/edit", form); code != 303 {
		t.Errorf("saving answers %d: %s", code, body)
	}
	if done := h.did(); !slices.Equal(done, []string{`user ada applies {"name":"pager","type":"exec","command":["/bin/page","--now"],"group_wait":"0s"}`,
		`user ada applies {"name":"chat","type":"webhook","url":"https://other.test/","header":{"X-Key":"` + secretOfOther + `"}}`}) {
		t.Errorf("done is %q", done)
	}
	if code, body := post("/receivers/new", url.Values{"name": {"chat"}, "type": {"webhook"}, "url": {"https://x.test/"}, "do": {"save"}}); code != 422 || !strings.Contains(body, "is taken") {
		t.Errorf("a name that is taken answers %d: %s", code, body)
	}
	for _, path := range []string{"/receivers/none/edit", "/delegations/none.test/edit", "/receivers/none"} {
		if w := ask(a, "ada", "GET", path, ""); w.Code != 404 {
			t.Errorf("%s answers %d", path, w.Code)
		}
	}
}

// A receiver is tried from its page, which says what became of it.
func TestReceiverIsTried(t *testing.T) {
	h, f := twoCustomers(), typical()
	h.things = documents(t)
	a := house(t, f, h).Public()
	if w := ask(a, "ada", "POST", "/receivers/ops/test", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "The test message was taken") {
		t.Errorf("one that is taken answers %d: %s", w.Code, w.Body)
	}
	f.untold = upkeep.WithHint(errors.New("the server said 403 <b>"), "look at its token")
	w := ask(a, "ada", "POST", "/receivers/ops/test", "")
	if body := html.UnescapeString(w.Body.String()); w.Code != 502 || !strings.Contains(body, "was not taken") || !strings.Contains(body, "The server said 403 <b>.") || !strings.Contains(body, "Look at its token.") || strings.Contains(w.Body.String(), "<b>") {
		t.Errorf("one that is not answers %d: %s", w.Code, body)
	}
	if w := ask(a, "ada", "POST", "/receivers/none/test", ""); w.Code != 404 || f.tried != 2 {
		t.Errorf("one that there is not answers %d, and %d were told", w.Code, f.tried)
	}
}

// A delegation is given until a day, changed, and ended now.
func TestFormOfADelegation(t *testing.T) {
	h := twoCustomers()
	h.things = []upkeep.Declared{{Generation: 4, Object: upkeep.Delegation{Name: "blog.example.test", Account: "acme"}}}
	a := house(t, typical(), h).Public()
	post := func(path, form string) *httptest.ResponseRecorder { return ask(a, "ada", "POST", path, form) }
	if w := post("/delegations/new", "name=no_name&account=acme&until=tomorrow&do=save"); w.Code != 422 || strings.Count(w.Body.String(), `aria-invalid="true"`) != 2 || !strings.Contains(w.Body.String(), `value="tomorrow"`) ||
		!strings.Contains(html.UnescapeString(w.Body.String()), `"tomorrow" must be a time such as`) {
		t.Errorf("one that is wrong answers %d: %s", w.Code, w.Body)
	}
	if w := post("/delegations/new", "name=Shop.example.test&account=acme&until=2027-01-31&do=save"); w.Code != 303 {
		t.Errorf("a new one answers %d: %s", w.Code, w.Body)
	}
	if w := post("/delegations/blog.example.test/edit", "generation=3&account=other&until=&do=save"); w.Code != 412 || !strings.Contains(w.Body.String(), `<option value="other" selected>`) {
		t.Errorf("changed meanwhile it answers %d: %s", w.Code, w.Body)
	}
	if w := post("/delegations/blog.example.test/edit", "generation=4&account=other&until=2027-01-31T12:00:00%2B01:00&do=save"); w.Code != 303 {
		t.Errorf("saving answers %d: %s", w.Code, w.Body)
	}
	if w := post("/delegations/blog.example.test/end", "generation=3"); w.Code != 409 {
		t.Errorf("ending what was changed meanwhile answers %d", w.Code)
	}
	before := time.Now().Add(-time.Second)
	if w := post("/delegations/blog.example.test/end", "generation=4"); w.Code != 303 {
		t.Errorf("ending it answers %d: %s", w.Code, w.Body)
	}
	done := h.did()
	want := []string{`user ada applies {"name":"shop.example.test","account":"acme","until":"2027-01-31T00:00:00Z"}`, `user ada applies {"name":"blog.example.test","account":"other","until":"2027-01-31T12:00:00+01:00"}`}
	if len(done) != 3 || !slices.Equal(done[:2], want) {
		t.Fatalf("done is %q", done)
	}
	var name, account, until string
	fmt.Sscanf(strings.NewReplacer(`"`, " ", ",", " ").Replace(done[2]), "user ada applies { name : %s account : %s until : %s }", &name, &account, &until)
	if end, err := time.Parse(time.RFC3339, until); err != nil || end.Before(before) || end.After(time.Now()) || account != "acme" {
		t.Errorf("ending it does %q", done[2])
	}
	h.things[0].Object = upkeep.Delegation{Name: "blog.example.test", Account: "acme", Until: "2020-01-01T00:00:00Z"}
	if w := ask(a, "ada", "GET", "/delegations/blog.example.test/edit", ""); w.Code != 200 || strings.Contains(w.Body.String(), "End it now") {
		t.Errorf("one that has ended answers %d: %s", w.Code, w.Body)
	}
}
