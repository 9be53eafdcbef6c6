package api

import (
	"net/http/httptest"
	"strings"
	"testing"

	"upkeep"
)

// A change that names what was read is not made to anything else.
func TestIfMatch(t *testing.T) {
	const document = "{kind: account, name: acme}"
	for _, tt := range []struct {
		name, method, path, match, body string
		want                            int
	}{
		{"no condition", "POST", "/api/v1/apply", "", document, 200},
		{"what was read", "POST", "/api/v1/apply", `"1"`, document, 200},
		{"an older one", "POST", "/api/v1/apply", `"7"`, document, 412},
		{"an older one, tried out", "POST", "/api/v1/apply?dry_run=true", `"7"`, document, 412},
		{"two things", "POST", "/api/v1/apply", `"1"`, document + "\n---\n{kind: account, name: bob}", 400},
		{"no ETag", "POST", "/api/v1/apply", "1", document, 400},
		{"any", "POST", "/api/v1/apply", "*", document, 200},
		{"any, of two things", "POST", "/api/v1/apply", "*", document + "\n---\n{kind: account, name: bob}", 400},
		{"a weak one", "POST", "/api/v1/apply", `W/"1"`, document, 412},
		{"one of another's making", "POST", "/api/v1/apply", `"a,b"`, document, 412},
		{"several", "POST", "/api/v1/apply", `"2" , "1"`, document, 200},
		{"several, with holes", "POST", "/api/v1/apply", `, W/"1",, "1" , "a,b", "7",`, document, 200},
		{"several that it is not", "POST", "/api/v1/apply", `"2","3"`, document, 412},
		{"several without commas", "POST", "/api/v1/apply", `"1" "2"`, document, 400},
		{"several without an end", "POST", "/api/v1/apply", `"1", "2`, document, 400},
		{"several of what is not there", "POST", "/api/v1/apply", `"1", "2"`, "{kind: account, name: bob}", 412},
		{"deleting any", "DELETE", "/api/v1/objects/account/acme", "*", "", 204},
		{"deleting one of several", "DELETE", "/api/v1/objects/account/acme", `"7", "1"`, "", 204},
		{"deleting none of several", "DELETE", "/api/v1/objects/account/acme", `"7", "8"`, "", 412},
		{"deleting any that is not there", "DELETE", "/api/v1/objects/account/bob", "*", "", 404},
		{"going back from any", "POST", "/api/v1/sites/example.test/undo", "*", `{"generation": 0}`, 200},
		{"deleting what was read", "DELETE", "/api/v1/objects/account/acme", `"1"`, "", 204},
		{"deleting an older one", "DELETE", "/api/v1/objects/account/acme", `"7"`, "", 412},
		{"going back from what was read", "POST", "/api/v1/sites/example.test/undo", `"2"`, `{"generation": 0}`, 200},
		{"going back from an older one", "POST", "/api/v1/sites/example.test/undo", `"7"`, `{"generation": 0}`, 412},
		{"going back without an ETag", "POST", "/api/v1/sites/example.test/undo", "7", `{"generation": 0}`, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{applied: []upkeep.Object{upkeep.Account{Name: "acme"}}}
			r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
			r.Header.Set("Authorization", "Bearer "+testToken)
			r.Header.Set("Content-Type", "application/yaml")
			if strings.HasSuffix(tt.path, "/undo") {
				r.Header.Set("Content-Type", "application/json")
			}
			if tt.match != "" {
				r.Header.Set("If-Match", tt.match)
			}
			w := answer(newTestAPI(t, f).Public(), r)
			if w.Code != tt.want {
				t.Errorf("got %d, want %d: %s", w.Code, tt.want, w.Body)
			}
			if tt.want >= 400 && len(f.who) > 0 {
				t.Error("it was done nevertheless")
			}
			if weak := strings.Contains(w.Body.String(), "send it without the W/"); weak != (tt.want == 412 && strings.Contains(tt.match, "W/")) {
				t.Errorf("it is %t that it tells of a weak ETag: %s", weak, w.Body)
			}
		})
	}
	for _, tt := range []struct {
		name, match, noneMatch, body string
		want                         int
	}{
		{"what is not there", "", "*", document, 412}, // all things of the fake have a generation
		{"an ETag that it is not", "", `"7"`, document, 400},
		{"two that are not there", "", "*", document + "\n---\n{kind: account, name: bob}", 400},
		{"both", `"1"`, "*", document, 400},
		{"in the body, as it is", "", "", `{"sources":[{"text":"{kind: account, name: acme}"}],"still":[{"kind":"account","name":"acme","generation":1}]}`, 200},
		{"in the body, an older one", "", "", `{"sources":[{"text":"{kind: account, name: acme}"}],"still":[{"kind":"account","name":"acme","generation":7}]}`, 412},
		{"in the body, of another thing", "", "", `{"sources":[{"text":"{kind: account, name: acme}"}],"still":[{"kind":"server","name":"web1","generation":0}]}`, 422},
	} {
		f := &fake{}
		r := httptest.NewRequest("POST", "/api/v1/apply", strings.NewReader(tt.body))
		media := "application/yaml"
		if strings.HasPrefix(tt.body, `{"sources"`) {
			media = "application/json"
		}
		w := answer(newTestAPI(t, f).Public(), r, "Authorization", "Bearer "+testToken, "Content-Type", media, "If-Match", tt.match, "If-None-Match", tt.noneMatch)
		if w.Code != tt.want || tt.want >= 400 && len(f.who) > 0 {
			t.Errorf("%s: got %d, want %d: %s; done by %v", tt.name, w.Code, tt.want, w.Body, f.who)
		}
	}
	f := &fake{}
	a := newTestAPI(t, f)
	for _, step := range []struct{ method, path, body string }{{"POST", "/api/v1/apply", document}, {"GET", "/api/v1/objects/account/acme", ""}} {
		r := httptest.NewRequest(step.method, step.path, strings.NewReader(step.body))
		r.Header.Set("Authorization", "Bearer "+testToken)
		r.Header.Set("Content-Type", "application/yaml")
		w := answer(a.Public(), r)
		if step.method == "GET" && w.Header().Get("ETag") != `"1"` {
			t.Errorf("the ETag is %q: %d %s", w.Header().Get("ETag"), w.Code, w.Body)
		}
	}
}
