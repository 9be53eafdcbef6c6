package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/store"
)

const tokenBody = `{"name":"backup","scope":"read","expires":"2027-01-01T00:00:00Z"}`

// post makes a token with a key, and has the face of the world answer.
func (w *world) post(path, key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	return answer(w.face, r, "Authorization", "Bearer "+testToken, "Content-Type", "application/json", keyHeader, key)
}

// A request that is sent again with its key does nothing again and is answered as
// before, whatever the answer holds.
func TestSameKeySameAnswer(t *testing.T) {
	w := newWorld(t)
	const at = "/api/v1/users/ada/tokens"
	first := w.post(at, `"8e03978e-40d5-43e8-bc93-6894a57f9324"`, tokenBody)
	again := w.post(at, "8e03978e-40d5-43e8-bc93-6894a57f9324", tokenBody) // without the quotes
	if first.Code != http.StatusCreated || again.Code != first.Code || again.Body.String() != first.Body.String() ||
		again.Header().Get("Content-Type") != first.Header().Get("Content-Type") || !strings.Contains(first.Body.String(), "upkeep_secret-1") {
		t.Errorf("first %d %s, again %d %s", first.Code, first.Body, again.Code, again.Body)
	}
	if first.Header().Get("Idempotency-Replayed") != "" || again.Header().Get("Idempotency-Replayed") != "true" {
		t.Error("it is not told that an answer is one of before")
	}
	if other := w.post(at, "another", tokenBody); other.Body.String() == first.Body.String() {
		t.Error("another key has the same answer")
	}
	if len(w.users.did) != 2 {
		t.Errorf("it was done %d times: %q", len(w.users.did), w.users.did)
	}
	for _, kept := range w.answers.all { // what the database has
		if strings.Contains(string(kept.Answer), "secret") || strings.Contains(kept.Request, "backup") {
			t.Error("who has the database can read an answer, or a request")
		}
	}
}

// A key is for one request: for another, whatever differs, nothing is done.
func TestSameKeyOtherRequest(t *testing.T) {
	w := newWorld(t)
	w.post("/api/v1/users/ada/tokens", "one", tokenBody)
	for name, answer := range map[string]*httptest.ResponseRecorder{
		"another body":  w.post("/api/v1/users/ada/tokens", "one", strings.Replace(tokenBody, "backup", "other", 1)),
		"another path":  w.post("/api/v1/users/eve/tokens", "one", tokenBody),
		"another query": w.post("/api/v1/users/ada/tokens?a=b", "one", tokenBody),
	} {
		if answer.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, answer.Code, answer.Body)
		}
	}
	if len(w.users.did) != 1 {
		t.Errorf("it was done: %q", w.users.did)
	}
}

// What failed was not done, so it may be tried again with its key.
func TestKeysOfFailuresAreFree(t *testing.T) {
	w := newWorld(t)
	w.users.fail = errSome
	if got := w.post("/api/v1/users/ada/tokens", "one", tokenBody); got.Code != http.StatusInternalServerError {
		t.Errorf("the failure is answered with %d", got.Code)
	}
	w.users.fail = nil
	if got := w.post("/api/v1/users/ada/tokens", "one", tokenBody); got.Code != http.StatusCreated {
		t.Errorf("after it: %d %s", got.Code, got.Body)
	}
}

// After a kill between the change and its answer it is known that it was done.
func TestAnswerThatWasLost(t *testing.T) {
	w := newWorld(t)
	if got := w.post("/api/v1/users/ada/tokens", "one", tokenBody); got.Code != http.StatusCreated {
		t.Fatal(got.Body)
	}
	for id, kept := range w.answers.all {
		kept.Answer = nil
		w.answers.all[id] = kept
	}
	got := w.post("/api/v1/users/ada/tokens", "one", tokenBody)
	if got.Code != http.StatusConflict || !strings.Contains(got.Body.String(), "was done") || len(w.users.did) != 1 {
		t.Errorf("%d %s, done %q", got.Code, got.Body, w.users.did)
	}
}

func TestKeysThatAreNone(t *testing.T) {
	w := newWorld(t)
	for _, key := range []string{`"`, `"abc`, `a b`, `""`, strings.Repeat("k", maxKey+1), "a\x7fb", `"a\"b"`, "ä"} {
		got := w.post("/api/v1/users/ada/tokens", key, tokenBody)
		if got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), keyHeader) {
			t.Errorf("%q: %d %s", key, got.Code, got.Body)
		}
	}
	if len(w.users.did) > 0 {
		t.Errorf("it was done: %q", w.users.did)
	}
}

// Keys are each caller's own, and go with what the caller is.
func TestKeysOfOthers(t *testing.T) {
	w := newWorld(t)
	a := newTestAPI(t, &w.control, func(o *Options) { o.Users, o.Answers = &w.users, &w.answers })
	handler := a.whole(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(access.From(r.Context()).Who)) })
	for _, who := range []access.Caller{{Who: "user eve", Account: "acme"}, {Who: "user eve", Account: "other"}, {Who: "user ada", Staff: true}} {
		r := httptest.NewRequest(http.MethodPost, "/x", nil)
		got := answer(handler, r.WithContext(access.With(r.Context(), who)), keyHeader, "one")
		if got.Body.String() != who.Who || got.Header().Get("Idempotency-Replayed") != "" {
			t.Errorf("%+v is answered %s", who, got.Body)
		}
	}
}

// Of two at a time one waits outside.
func TestSameKeyAtOnce(t *testing.T) {
	w := newWorld(t)
	a := newTestAPI(t, &w.control, func(o *Options) { o.Answers = &w.answers })
	begun, end := make(chan struct{}), make(chan struct{})
	handler := a.whole(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-end
		w.WriteHeader(http.StatusCreated)
	})
	send := func() *httptest.ResponseRecorder {
		return answer(handler, httptest.NewRequest(http.MethodPost, "/x", nil), keyHeader, "one")
	}
	first := make(chan int)
	go func() { first <- send().Code }()
	<-begun
	if got := send(); got.Code != http.StatusConflict || got.Header().Get("Retry-After") == "" {
		t.Errorf("the second is answered %d %s", got.Code, got.Body)
	}
	close(end)
	if code := <-first; code != http.StatusCreated {
		t.Errorf("the first is answered %d", code)
	}
	if got := send(); got.Code != http.StatusCreated || got.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("after its end: %d %s", got.Code, got.Body)
	}
}

// noAnswers cannot be asked.
type noAnswers struct{ fakeAnswers }

func (noAnswers) RequestFor(context.Context, string, string) (store.Requested, error) {
	return store.Requested{}, errSome
}

// Where it is not known whether something was done, nothing is done.
func TestKeysWithoutADatabase(t *testing.T) {
	w := newWorld(t)
	w.face = newTestAPI(t, &w.control, func(o *Options) { o.Users, o.Answers = &w.users, &noAnswers{} }).Public()
	if got := w.post("/api/v1/users/ada/tokens", "one", tokenBody); got.Code != http.StatusServiceUnavailable || len(w.users.did) > 0 {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}

// Bodies are read to their end, or nothing is done.
func TestBodiesThatBreakOff(t *testing.T) {
	w := newWorld(t)
	r := httptest.NewRequest(http.MethodPost, "/api/v1/apply", brokenBody{})
	got := answer(w.face, r, "Authorization", "Bearer "+testToken, "Content-Type", "application/yaml")
	if got.Code != http.StatusBadRequest || len(w.control.who) > 0 {
		t.Errorf("%d %s, %v", got.Code, got.Body, w.control.who)
	}
}

type brokenBody struct{}

func (brokenBody) Read(text []byte) (int, error) {
	return copy(text, "kind: pool\n"), upkeep.ErrRefused
}
