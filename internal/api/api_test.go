package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api/wire"
	"upkeep/internal/store"
)

func TestErrorsBecomeProblems(t *testing.T) {
	invalid := &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "ttl", Value: "0.5s", Rule: "must be whole seconds", File: "a.yaml", Line: 3, Column: 6}}}
	for _, tt := range []struct {
		err    error
		status int
		is     error
	}{
		{invalid, 422, nil},
		{fmt.Errorf("applying: %w", invalid), 422, nil},
		{fmt.Errorf("pool web: %w", upkeep.ErrNotFound), 404, upkeep.ErrNotFound},
		{upkeep.WithHint(fmt.Errorf("zone x: %w", upkeep.ErrConflict), "delete the pool first"), 409, upkeep.ErrConflict},
		{fmt.Errorf("no: %w", upkeep.ErrRefused), 403, upkeep.ErrRefused},
		{errSome, 500, nil},
	} {
		f := &fake{fail: tt.err}
		r := httptest.NewRequest("DELETE", "/api/v1/objects/pool/web", nil)
		w := answer(newTestAPI(t, f).Public(), r, "Authorization", "Bearer "+testToken)
		var p wire.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("%v: %v in %s", tt.err, err, w.Body)
		}
		if w.Code != tt.status || p.Status != tt.status || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v answers %d %s %s", tt.err, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		if tt.is != nil && !error(&p).(interface{ Is(error) bool }).Is(tt.is) {
			t.Errorf("%v is not %v any more after its way", tt.err, tt.is)
		}
		if tt.status == 422 && (len(p.Errors) != 1 || p.Errors[0] != invalid.Fields[0]) {
			t.Errorf("the broken rule came as %+v", p.Errors)
		}
		if tt.status == 409 && p.Hint != "delete the pool first" {
			t.Errorf("the hint came as %q", p.Hint)
		}
	}
}

// What went wrong inside is not told to strangers.
func TestFaultsAreNotToldToStrangers(t *testing.T) {
	f := &fake{fail: errSome}
	a := newTestAPI(t, f)
	if w := answer(a.Public(), httptest.NewRequest("GET", "/api/v1/pools", nil)); w.Code != 500 || strings.Contains(w.Body.String(), "fire") {
		t.Errorf("a stranger is told %d %s", w.Code, w.Body)
	}
	if w := answer(a.Public(), httptest.NewRequest("GET", "/api/v1/pools", nil), "Authorization", "Bearer "+testToken); !strings.Contains(w.Body.String(), "fire") {
		t.Errorf("the operator is told only %s", w.Body)
	}
}

func TestAFaultInOneRequestStaysThere(t *testing.T) {
	f := &fake{panics: true}
	a := newTestAPI(t, f)
	if w := answer(a.Public(), httptest.NewRequest("GET", "/api/v1/pools", nil)); w.Code != 500 {
		t.Errorf("a fault answers %d %s", w.Code, w.Body)
	}
	if w := answer(a.Public(), httptest.NewRequest("GET", "/api/v1/zones", nil)); w.Code != 200 {
		t.Errorf("after a fault the next request answers %d", w.Code)
	}
}

func TestBadRequests(t *testing.T) {
	big := strings.Repeat("x", wire.MaxBody+1)
	for _, tt := range []struct {
		name, method, path, contentType, body string
		want                                  int
		says                                  string
	}{
		{"too large", "POST", "/api/v1/apply", "application/yaml", big, 413, "too large"},
		{"form, curl's default", "POST", "/api/v1/apply", "application/x-www-form-urlencoded", "kind: pool", 415, "--data-binary"},
		{"no content type", "POST", "/api/v1/apply", "", "kind: pool", 415, "application/yaml"},
		{"broken content type", "POST", "/api/v1/apply", "application/yaml; charset=\"", "kind: pool", 415, ""},
		{"broken JSON", "POST", "/api/v1/apply", "application/json", `{"sources":[`, 400, "sources"},
		{"unknown JSON field", "POST", "/api/v1/apply", "application/json", `{"sauces":[]}`, 400, "sauces"},
		{"no document", "POST", "/api/v1/apply", "application/json", `{"sources":[]}`, 422, "no document"},
		{"relative base", "POST", "/api/v1/apply?base=etc", "application/yaml", "kind: pool", 422, "absolute"},
		{"relative base in JSON", "POST", "/api/v1/apply", "application/json", `{"sources":[{"text":"kind: pool","base":"etc"}]}`, 422, "absolute"},
		{"empty body", "POST", "/api/v1/apply", "application/yaml", "", 400, "required"},
		{"unknown parameter", "POST", "/api/v1/apply?dryrun=true", "application/yaml", "kind: pool", 422, "dryrun"},
		{"unknown parameter of a list", "GET", "/api/v1/pools?nmae=web", "", "", 422, "nmae"},
		{"wrong boolean", "POST", "/api/v1/apply?dry_run=maybe", "application/yaml", "kind: pool", 422, "dry_run"},
		{"unknown kind", "GET", "/api/v1/objects/house", "", "", 422, "kind"},
		{"limit too high", "GET", "/api/v1/events?limit=100000", "", "", 422, "limit"},
		{"limit no number", "GET", "/api/v1/events?limit=ten", "", "", 422, "limit"},
		{"negative after", "GET", "/api/v1/events?after=-1", "", "", 422, "after"},
		{"time that is none", "GET", "/api/v1/events?since=yesterday", "", "", 422, "since"},
		{"kind of event", "GET", "/api/v1/events?kind=rumour", "", "", 422, "kind"},
		{"state", "POST", "/api/v1/pools/web/members/192.0.2.1/force", "application/json", `{"state":"gone"}`, 422, "state"},
		{"no state", "POST", "/api/v1/pools/web/members/192.0.2.1/force", "application/json", `{}`, 422, `{"field":"body.state","rule":"is required"}`},
		{"unknown field", "POST", "/api/v1/pools/web/members/192.0.2.1/force", "application/json", `{"state":"up","reason":"x"}`, 422, "reason"},
		{"force as a form", "POST", "/api/v1/pools/web/members/192.0.2.1/force", "application/x-www-form-urlencoded", "state=up", 415, ""},
		{"broken glob", "POST", "/api/v1/pools/web/members/192.0.2.%5B/force", "application/json", `{"state":"up"}`, 422, "member"},
		{"nothing there", "GET", "/api/v1/nothing", "", "", 404, "openapi"},
		{"no API at the root", "GET", "/api", "", "", 404, ""},
		{"wrong method", "PUT", "/api/v1/pools", "", "", 405, "GET"},
		{"name too long", "GET", "/api/v1/pools/" + strings.Repeat("a", 64), "", "", 422, "name"},
		{"path upwards", "GET", "/api/v1/objects/pool/..%2f..%2fetc", "", "", 404, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{}
			r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
			if tt.contentType != "" {
				r.Header.Set("Content-Type", tt.contentType)
			}
			w := answer(newTestAPI(t, f).Public(), r, "Authorization", "Bearer "+testToken)
			if w.Code != tt.want || !strings.Contains(w.Body.String(), tt.says) {
				t.Errorf("answers %d, want %d with %q:\n%.500s", w.Code, tt.want, tt.says, w.Body)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type %q", got)
			}
			if len(f.applied)+len(f.forced)+len(f.who) > 0 {
				t.Error("something was done nevertheless")
			}
		})
	}
}

func TestStatusHasTheAgreedNames(t *testing.T) {
	f := &fake{}
	f.pools = append(f.pools, webPool())
	w := answer(newTestAPI(t, f).Public(), httptest.NewRequest("GET", "/api/v1/pools/web", nil))
	var got struct {
		Published []string
		Members   []struct {
			Address, Verdict, Admin, Reason string
			Published                       bool
		}
		Zones []struct {
			Name    string
			Serial  uint32
			Servers []struct {
				Address string
				Serial  uint32
				InSync  bool `json:"in_sync"`
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Published[0] != "192.0.2.1" || got.Members[0].Verdict != "up" || got.Members[0].Admin != "auto" || !got.Members[0].Published ||
		got.Zones[0].Name != "example.test" || got.Zones[0].Serial != 7 || !got.Zones[0].Servers[0].InSync {
		t.Errorf("the status came as %s", w.Body)
	}
	if strings.Contains(w.Body.String(), "$schema") {
		t.Errorf("huma's $schema member is back: %s", w.Body)
	}
}

func TestForceSaysWhoAndWhy(t *testing.T) {
	f := &fake{}
	r := httptest.NewRequest("POST", "/api/v1/pools/web/members/192.0.2.*/force", strings.NewReader(`{"state":"drain","why":"new kernel"}`))
	w := answer(newTestAPI(t, f).Public(), r, "Authorization", "Bearer "+testToken, "Content-Type", "application/json")
	want := upkeep.Override{Pool: "web", Member: "192.0.2.*", State: "drain", Why: "new kernel", Who: "token"}
	if w.Code != 200 || len(f.forced) != 1 || f.forced[0] != want {
		t.Errorf("answers %d, forced %+v", w.Code, f.forced)
	}
}

func TestHealth(t *testing.T) {
	looped := time.Now()
	a := newTestAPI(t, &fake{}, func(o *Options) { o.Alive = func() time.Time { return looped } })
	if w := answer(a.Public(), httptest.NewRequest("GET", "/healthz", nil)); w.Code != 200 {
		t.Errorf("a living loop answers %d", w.Code)
	}
	looped = looped.Add(-2 * stalled)
	if w := answer(a.Public(), httptest.NewRequest("GET", "/healthz", nil)); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a loop that stands still answers %d", w.Code)
	}
}

func TestDeletingSeveral(t *testing.T) {
	f := &fake{}
	a := newTestAPI(t, f)
	for body, want := range map[string]int{
		`{"objects":[{"kind":"pool","name":"web"},{"kind":"zone","name":"example.test"}]}`: http.StatusNoContent,
		`{"objects":[]}`:                http.StatusUnprocessableEntity,
		`{}`:                            http.StatusUnprocessableEntity,
		`{"objects":[{"kind":"pool"}]}`: http.StatusUnprocessableEntity,
		`{"objects":[{"kind":"cat","name":"web"}]}`:      http.StatusUnprocessableEntity,
		`{"objects":[{"kind":"pool","name":"web"}]`:      http.StatusBadRequest,
		`{"objects":[{"kind":"pool","name":"w"}],"x":1}`: http.StatusUnprocessableEntity,
	} {
		r := httptest.NewRequest("POST", "/api/v1/delete", strings.NewReader(body))
		w := answer(a.Public(), r, "Authorization", "Bearer "+testToken, "Content-Type", "application/json")
		if w.Code != want {
			t.Errorf("%s answers %d, want %d: %s", body, w.Code, want, w.Body)
		}
	}
	if want := []store.Ref{{Kind: "pool", Name: "web"}, {Kind: "zone", Name: "example.test"}}; !slices.Equal(f.deleted, want) {
		t.Errorf("deleted: %v, want %v", f.deleted, want)
	}
}

func httptestGet(path string) *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }
