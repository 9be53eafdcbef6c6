package api

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"upkeep/internal/api/apitest"
	"upkeep/internal/api/wire"
)

// TestHostileRequests sends each operation everything that the description knows to
// be wrong, and much that nobody expects: whatever comes is an answer, a refusal
// says which field, and nothing was done that was refused.
func TestHostileRequests(t *testing.T) {
	spec, err := apitest.Read(document)
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for _, op := range spec.Operations() {
		w := newWorld(t)
		for _, r := range spec.Hostile(op) {
			before := w.did()
			got := w.send(r)
			if fault := answerFault(got, r.Field); fault != "" {
				t.Errorf("%s: %s", r.Name, fault)
			}
			if got.Code >= 400 && w.did() != before {
				t.Errorf("%s: it was done although it was refused", r.Name)
			}
			sent++
		}
	}
	if sent < 2000 {
		t.Errorf("only %d requests were made of the description", sent)
	}
	t.Logf("%d requests", sent)
}

// answerFault says what is wrong with an answer: it has to be one, and where a field is
// to blame it has to say so.
func answerFault(got *httptest.ResponseRecorder, field string) string {
	switch {
	case got.Code >= 500:
		return fmt.Sprintf("answers %d: %.300s", got.Code, got.Body)
	case got.Header().Get("X-Injected") != "":
		return "what was sent became a header"
	case got.Code < 400 && field != "":
		return fmt.Sprintf("is taken, with %d", got.Code)
	case got.Code < 400:
		return ""
	}
	var p wire.Problem
	if err := json.Unmarshal(got.Body.Bytes(), &p); err != nil || got.Header().Get("Content-Type") != "application/problem+json" {
		return fmt.Sprintf("the refusal is no problem: %s %.300s", got.Header().Get("Content-Type"), got.Body)
	}
	if p.Status != got.Code || p.Title == "" || p.Detail == "" {
		return fmt.Sprintf("the problem lacks something: %.300s", got.Body)
	}
	if got.Body.Len() > 64<<10 {
		return fmt.Sprintf("the problem has %d bytes", got.Body.Len())
	}
	for _, said := range []string{p.Detail, p.Hint, p.Error()} {
		if strings.ContainsFunc(said, func(c rune) bool { return unicode.IsControl(c) && c != '\n' }) {
			return fmt.Sprintf("the problem has control characters: %q", said)
		}
	}
	for _, e := range p.Errors {
		if e.Rule == "" {
			return fmt.Sprintf("a fault has no rule: %+v", e)
		}
		if field == "" || strings.HasPrefix(e.Field, field) {
			field = ""
		}
	}
	if field != "" {
		return fmt.Sprintf("it does not blame %s: %d %.300s", field, got.Code, got.Body)
	}
	return ""
}

// FuzzRequests goes on from there.
func FuzzRequests(f *testing.F) {
	spec, err := apitest.Read(document)
	if err != nil {
		f.Fatal(err)
	}
	operations := spec.Operations()
	for i, op := range operations {
		for _, r := range append(spec.Hostile(op)[:3], spec.Sample(op)) {
			if len(r.Body) < 1000 && len(r.Target) < 1000 {
				f.Add(i, r.Target, r.Header["Content-Type"], r.Body)
			}
		}
	}
	f.Add(0, "/%00", "", "")
	f.Add(0, "/%1b[2J", "text/\x7f", "\x00")
	f.Fuzz(func(t *testing.T, i int, target, media, body string) {
		if i < 0 || i >= len(operations) || operations[i].Streams() || strings.Contains(target, "/stream") {
			return // nothing to send, or nothing that ends
		}
		if _, err := url.ParseRequestURI(target); err != nil || !strings.HasPrefix(target, "/") || strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return // no server would hand it on
		}
		w := newWorld(t)
		before := w.did()
		got := w.send(apitest.Request{Operation: operations[i], Method: operations[i].Method, Target: target, Header: map[string]string{"Content-Type": media}, Body: body})
		if fault := answerFault(got, ""); fault != "" {
			t.Error(fault)
		}
		if got.Code >= 400 && w.did() != before {
			t.Error("it was done although it was refused")
		}
	})
}
