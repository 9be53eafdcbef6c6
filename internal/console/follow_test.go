package console

import (
	"html"
	"strings"
	"testing"
	"time"

	"upkeep"
)

// The way of a change is told from its job alone: what is done, where it is, what
// comes, and what it failed for.
func TestStepsOfAChange(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		job  upkeep.Job
		want string
	}{
		{upkeep.Job{State: upkeep.JobPending}, "done now todo todo: it waits for its turn"},
		{upkeep.Job{State: upkeep.JobRunning, Started: now, Progress: "writing the virtual host"}, "done done now todo: writing the virtual host"},
		{upkeep.Job{State: upkeep.JobDone, Started: now, Finished: now}, "done done done done: just now"},
		{upkeep.Job{State: upkeep.JobFailed, Started: now, Error: "the disk is full"}, "done done failed todo: the disk is full"},
		{upkeep.Job{State: upkeep.JobFailed, Error: "job 3 failed"}, "done failed todo todo: job 3 failed"},
		{upkeep.Job{State: upkeep.JobSuperseded}, "done failed todo todo: it was superseded"},
	} {
		tt.job.Created, tt.job.Server = now.Add(-time.Minute), "web1"
		var states []string
		says := ""
		for _, s := range steps(tt.job, now)[:] {
			states = append(states, s.State)
			if s.Says != "" && s.Text != "saved" {
				says = s.Says
			}
		}
		if got := strings.Join(states, " ") + ": " + says; got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.job, got, tt.want)
		}
	}
}

// What a server refused is named as the form names it, and the form is one step away.
func TestFailuresNameTheirField(t *testing.T) {
	for path, want := range map[string]string{"php": "PHP", "php.children": "Processes at a time", "redirects[1].to": "Redirects", "error_pages.404": "Error pages", "aliases[0]": "Further names", "protect[0].path": "", "": "", "a.b.c": ""} {
		if got := siteField(path); got != want {
			t.Errorf("%s is called %q, want %q", path, got, want)
		}
	}
	h := twoCustomers()
	h.jobs[0].Field, h.jobs[0].Started = "redirects[1].to", past(time.Minute)
	a := house(t, typical(), h).Public()
	for page, want := range map[string]string{"/jobs/1": `<a href="/sites/acme.test/edit">“Redirects”</a> of the site's form, the field redirects[1].to`, "/sites/acme.test": `<a href="/sites/acme.test/edit">“Redirects”</a> of its form`} {
		if body := html.UnescapeString(ask(a, "eve", "GET", page, "").Body.String()); !strings.Contains(body, want) {
			t.Errorf("%s does not say %q: %s", page, want, body)
		}
	}
}

// Who drains a member reads on its page when it may be stopped.
func TestDrainsAreFollowed(t *testing.T) {
	a := house(t, typical(), twoCustomers()).Public()
	if body := ask(a, "ada", "GET", "/pools/mail", "").Body.String(); strings.Count(body, "not yet to be stopped: the old TTL, 12s more") != 1 {
		t.Errorf("the page of staff says %s", body)
	}
	if body := ask(a, "", "GET", "/pools/mail", "").Body.String(); strings.Contains(body, "to be stopped") {
		t.Error("strangers are told, too")
	}
}

// A customer sees first what waits and what failed of its own, and on the page of a
// site how far its last change has come.
func TestCustomerSeesWhatIsPending(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h)
	body := html.UnescapeString(ask(a.Public(), "eve", "GET", "/sites", "").Body.String())
	if !strings.Contains(body, "What waits, failed or is to be read") || !strings.Contains(body, "the disk is full") || strings.Contains(body, secretOfOther) {
		t.Errorf("its first page is %s", body)
	}
	body = html.UnescapeString(ask(a.Public(), "eve", "GET", "/sites/acme.test", "").Body.String())
	if !strings.Contains(body, "How the last change gets there") || !strings.Contains(body, `<li class="failed">`) || !strings.Contains(body, "taken by web1") {
		t.Errorf("the page of its site is %s", body)
	}
	if body := ask(a.Public(), "ada", "GET", "/sites", "").Body.String(); strings.Contains(body, "What waits") {
		t.Error("staff is shown what customers are")
	}
}

// The log can be cut to one thing and one kind, and stays so on the next page.
func TestEventsAreChosen(t *testing.T) {
	f := crowded()
	a := house(t, f, twoCustomers())
	body := html.UnescapeString(ask(a.Public(), "", "GET", "/events?object=/pool/customer-0040/&kind=verdict", "").Body.String())
	if n := strings.Count(body, `class="object"`); n != 100 || strings.Contains(body, "customer-0080") || !strings.Contains(body, `value="pool/customer-0040"`) || !strings.Contains(body, `<option value="verdict" selected>`) {
		t.Errorf("%d events of the pool are shown: %.3000s", n, body)
	}
	if body := html.UnescapeString(ask(a.Public(), "", "GET", "/events?kind=verdict", "").Body.String()); !strings.Contains(body, "/events?before=3801&kind=verdict") {
		t.Errorf("the next page has another choice: %.3000s", body[len(body)-1000:])
	}
	if body := ask(a.Public(), "", "GET", "/events?kind=banana&object=pool/none", "").Body.String(); !strings.Contains(body, "Nothing like that has happened") {
		t.Errorf("of a pool that there is not, this is told: %s", body)
	}
}

func TestPageOfAZone(t *testing.T) {
	h := twoCustomers()
	h.things = documents(t)
	for i, d := range h.things {
		if zone, is := d.Object.(upkeep.Zone); is {
			zone.Records = []upkeep.Record{{Name: "mail", Type: "MX", Value: "10 mx.example.test."}}
			h.things[i].Object = zone
		}
	}
	a := house(t, typical(), h)
	body := html.UnescapeString(ask(a.Public(), "ada", "GET", "/zones/example.test", "").Body.String())
	for _, want := range []string{"/pools/web", "192.0.2.11, 192.0.2.12", "10 mx.example.test.", "1795465266", "181ms after the publish", "every server answers serial", "/declared/zone/example.test/remove"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %q: %s", want, body)
		}
	}
	if w := ask(a.Public(), "ada", "GET", "/zones/none.test", ""); w.Code != 404 {
		t.Errorf("a zone that there is not answers %d", w.Code)
	}
}

func TestAuditPages(t *testing.T) {
	h := twoCustomers()
	for i := range 150 {
		h.audits = append(h.audits, upkeep.AuditEntry{ID: int64(150 - i), At: past(time.Minute), Who: "user ada", Object: "account/acme", What: "suspended <b>",
			Before: []byte(`{"name":"acme"}`), After: []byte(`{"name":"acme","suspended":true}`)})
	}
	h.audits[3].Object, h.audits[3].Who, h.audits[3].Before, h.audits[3].After = "user/eve", "token", nil, []byte(`{"role":"customer"}`)
	h.audits[4].Object, h.audits[4].After = "account/gone", nil
	a := house(t, typical(), h)
	for path, wants := range map[string][]string{
		"/audit":               {"suspended <b>", "/audit/150", "user/eve", "/audit?before=51"},
		"/audit?who=token":     {"user/eve"},
		"/audit?before=51":     {"/audit/50", "Newest"},
		"/audit/150":           {`<span class="added">+suspended: true</span>`, "/audit?object=account%2Facme"},
		"/audit/147":           {"What it is since", "{\n  \"role\": \"customer\"\n}"},
		"/audit/146":           {`<span class="removed">-name: acme</span>`},
		"/audit?object=site/x": {"None."},
	} {
		w := ask(a.Public(), "ada", "GET", path, "")
		for _, want := range wants {
			if body := html.UnescapeString(w.Body.String()); w.Code != 200 || !strings.Contains(body, want) || strings.Contains(w.Body.String(), "<b>") {
				t.Errorf("%s answers %d without %q: %s", path, w.Code, want, body)
			}
		}
	}
	if body := ask(a.Public(), "ada", "GET", "/audit?who=token", "").Body.String(); strings.Contains(body, "user ada</td>") {
		t.Error("changes by others are shown")
	}
	for _, path := range []string{"/audit/7000", "/audit/x"} {
		if w := ask(a.Public(), "ada", "GET", path, ""); w.Code != 404 {
			t.Errorf("%s answers %d", path, w.Code)
		}
	}
}
