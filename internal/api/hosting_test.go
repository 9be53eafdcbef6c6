package api

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"upkeep"
)

func hostingAPI(t *testing.T, f *fakeHosting) http.Handler {
	t.Helper()
	return newTestAPI(t, &fake{}, func(o *Options) { o.Jobs, o.Sites, o.Servers = f, f, f }).Public()
}

// TestHostingNeedsTheToken asks for everything about sites, jobs and servers
// without a token: none of it is for strangers, not even to look at.
func TestHostingNeedsTheToken(t *testing.T) {
	f := &fakeHosting{}
	face := hostingAPI(t, f)
	for _, route := range []string{
		"GET /api/v1/jobs", "POST /api/v1/jobs", "GET /api/v1/jobs/1", "POST /api/v1/jobs/1/retry", "POST /api/v1/jobs/1/cancel", "POST /api/v1/jobs/1/read",
		"GET /api/v1/jobs/stream", "GET /api/v1/sites", "GET /api/v1/sites/a.test", "GET /api/v1/sites/a.test/history", "POST /api/v1/sites/a.test/undo",
		"POST /api/v1/sites/preview", "GET /api/v1/servers", "POST /api/v1/servers/web1/invitation", "POST /api/v1/servers/web1/revoke",
		"POST /api/v1/servers/web1/regenerate", "POST /api/v1/servers/web1/verify", "GET /api/v1/images",
	} {
		method, path, _ := strings.Cut(route, " ")
		if w := answer(face, httptest.NewRequest(method, path, nil)); w.Code != http.StatusUnauthorized {
			t.Errorf("%s answers %d without a token: %s", route, w.Code, w.Body)
		}
	}
	if len(f.asked) > 0 {
		t.Errorf("something was done for a stranger: %v", f.asked)
	}
}

func TestHostingRequests(t *testing.T) {
	f := &fakeHosting{jobs: []upkeep.Job{{ID: 7, Kind: "mkdir", State: upkeep.JobPending}}}
	face := hostingAPI(t, f)
	const document = "kind: site\nname: a.test\naccount: acme\nservers: [web1]\n"
	for _, request := range []struct {
		route, body string
		status      int
		answer      string
		asked       string
	}{
		{"POST /api/v1/jobs", `{"kind":"mkdir","server":"web1","payload":{"a":1}}`, 201, `"id":7`, "token mkdir on web1"},
		{"POST /api/v1/jobs", `{"kind":"mkdir","shell":"rm"}`, 422, "shell", ""},
		{"POST /api/v1/jobs/7/cancel", "", 200, `"id":7`, "token cancel"},
		{"POST /api/v1/jobs/x/cancel", "", 422, "id", ""},
		{"GET /api/v1/jobs/0", "", 422, "id", ""},
		{"POST /api/v1/jobs/7/remove", "", 404, "", ""},
		{"GET /api/v1/jobs?limit=5000", "", 422, "limit", ""},
		{"GET /api/v1/jobs?state=lost", "", 422, "state", ""},
		{"GET /api/v1/sites/a.test/history", "", 200, `"deleted":true`, ""},
		{"POST /api/v1/sites/a.test/undo", `{"generation":3}`, 200, `"generation":3`, "token undo a.test"},
		{"POST /api/v1/sites/a.test/undo", `{"generation":-1}`, 422, "generation", ""},
		{"POST /api/v1/sites/preview", document, 200, `"id":7`, "token preview a.test"},
		{"POST /api/v1/servers/web1/invitation", "", 200, "token-of-web1", "token invite web1"},
		{"GET /api/v1/images?server=vm1", "", 200, `"path":"web1.img","size":4294967296`, " images of vm1"},
		{"POST /api/v1/servers/web1/revoke", "", 204, "", "token revoke web1"},
		{"POST /api/v1/servers/web1/verify", "", 201, `"id":7`, "token verify web1"},
	} {
		f.asked = nil
		method, path, _ := strings.Cut(request.route, " ")
		kind := "application/json"
		if strings.HasSuffix(path, "preview") {
			kind = "application/yaml"
		}
		w := answer(face, httptest.NewRequest(method, path, strings.NewReader(request.body)), "Authorization", "Bearer "+testToken, "Content-Type", kind)
		if w.Code != request.status || !strings.Contains(w.Body.String(), request.answer) {
			t.Errorf("%s %s: %d %s, want %d with %s", request.route, request.body, w.Code, w.Body, request.status, request.answer)
		}
		if request.asked != "" && !slices.Contains(f.asked, request.asked) || request.asked == "" && len(f.asked) > 0 {
			t.Errorf("%s %s: asked for %q, want %q", request.route, request.body, f.asked, request.asked)
		}
	}
	w := answer(face, httptest.NewRequest("GET", "/api/v1/jobs?state=failed,done&server=web1&before=9&limit=3", nil), "Authorization", "Bearer "+testToken)
	if w.Code != 200 || f.filter.Server != "web1" || f.filter.Before != 9 || f.filter.Limit != 3 || !slices.Equal(f.filter.States, []upkeep.JobState{upkeep.JobFailed, upkeep.JobDone}) {
		t.Errorf("%d %s; the filter is %+v", w.Code, w.Body, f.filter)
	}
}

// TestFollowJobs sends those jobs that were asked for, and ends when its reader
// has fallen behind.
func TestFollowJobs(t *testing.T) {
	f := &fakeHosting{changes: make(chan *upkeep.Job, 3)}
	f.changes <- &upkeep.Job{ID: 1, Server: "web1", State: upkeep.JobRunning}
	f.changes <- &upkeep.Job{ID: 2, Server: "web2", State: upkeep.JobDone}
	f.changes <- &upkeep.Job{ID: 3, Server: "web1", State: upkeep.JobDone}
	close(f.changes)
	w := answer(hostingAPI(t, f), httptest.NewRequest("GET", "/api/v1/jobs/stream?server=web1&state=done", nil), "Authorization", "Bearer "+testToken)
	text := w.Body.String()
	if !strings.Contains(text, `"id":3`) || strings.Contains(text, `"id":1`) || strings.Contains(text, `"id":2`) || !strings.HasPrefix(text, ": listening\n") {
		t.Errorf("the stream is %s", text)
	}
}
