package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"upkeep"
)

// hookServer keeps what is posted to it.
type hookServer struct {
	*httptest.Server
	mu      sync.Mutex
	headers []http.Header
	bodies  []string
}

func serveHook(t *testing.T, secure bool, answer http.HandlerFunc) *hookServer {
	t.Helper()
	s := &hookServer{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.headers = append(s.headers, r.Header.Clone())
		s.bodies = append(s.bodies, r.Method+" "+r.URL.Path+" "+string(body))
		s.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	})
	if secure {
		s.Server = httptest.NewUnstartedServer(handler)
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		s.StartTLS()
	} else {
		s.Server = httptest.NewServer(handler)
	}
	t.Cleanup(s.Close)
	return s
}

func (s *hookServer) got() (headers []http.Header, bodies []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]http.Header(nil), s.headers...), append([]string(nil), s.bodies...)
}

func private(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func post(t *testing.T, r upkeep.Receiver) error {
	t.Helper()
	r.Name, r.Type = "chat", upkeep.ReceiverWebhook
	for _, f := range r.Validate() {
		t.Errorf("invalid: %v", f)
	}
	r = r.WithDefaults()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.Timeout))
	defer cancel()
	return newWebhook(r, slog.New(slog.DiscardHandler)).send(ctx, testMessage("chat", "monitor", time.Unix(1000, 0)))
}

func TestWebhook(t *testing.T) {
	s := serveHook(t, false, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	err := post(t, upkeep.Receiver{
		URLFile: private(t, s.URL+"/hook/s3cret\n"), SecretFile: private(t, "key\n"), TokenFile: private(t, "tok"),
		Header: map[string]string{"X-Team": "ops"},
	})
	if err != nil {
		t.Fatal(err)
	}
	headers, bodies := s.got()
	method, body, _ := strings.Cut(bodies[0], "{")
	body = "{" + body
	if method != "POST /hook/s3cret " {
		t.Errorf("got %q", method)
	}
	var m Message
	if err := json.Unmarshal([]byte(body), &m); err != nil || !m.Test || m.Receiver != "chat" || len(m.Events) != 1 {
		t.Errorf("%v: %s", err, body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Team": "ops", "Authorization": "Bearer tok", "Upkeep-Message": "chat/test-1000000",
	} {
		if got := headers[0].Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	stamp, rest, _ := strings.Cut(strings.TrimPrefix(headers[0].Get("Upkeep-Signature"), "t="), ",v1=")
	mac := hmac.New(sha256.New, []byte("key"))
	mac.Write([]byte(stamp + "." + body))
	if rest != hex.EncodeToString(mac.Sum(nil)) {
		t.Errorf("signature %q does not fit", headers[0].Get("Upkeep-Signature"))
	}
}

func TestWebhookTemplate(t *testing.T) {
	s := serveHook(t, false, nil)
	if err := post(t, upkeep.Receiver{URL: s.URL, Template: `{"text": {{json .Title}}, "n": {{len .Events}}}`}); err != nil {
		t.Fatal(err)
	}
	if _, bodies := s.got(); bodies[0] != `POST / {"text": "a test of receiver chat", "n": 1}` {
		t.Errorf("got %s", bodies[0])
	}
	if err := post(t, upkeep.Receiver{URL: s.URL, Template: `{"text": {{.Title}}}`}); err == nil || !strings.Contains(err.Error(), "valid JSON") {
		t.Errorf("broken JSON: %v", err)
	}
	plain := upkeep.Receiver{URL: s.URL, Template: "{{.Title}}", Header: map[string]string{"content-type": "text/plain"}}
	if err := post(t, plain); err != nil {
		t.Errorf("plain text: %v", err)
	}
	long := upkeep.Receiver{URL: s.URL, Template: `"{{range 1000}}{{range 1000}}xxxxxxxxxxxxxxxxxxxx{{end}}{{end}}"`}
	if err := post(t, long); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("long: %v", err)
	}
}

func TestWebhookFailures(t *testing.T) {
	var hops atomic.Int32
	elsewhere := serveHook(t, false, nil)
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string // "" for success
	}{
		"status": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, "no\r\nroom\x1b")
		}, "HTTP 500: no  room?"},
		"other host": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "redirect to another host"},
		"to GET": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, "turn the message into a question"},
		"loop":   {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusPermanentRedirect) }, "more than 3 redirects"},
		"same host": {func(w http.ResponseWriter, r *http.Request) {
			if hops.Add(1) == 1 {
				http.Redirect(w, r, "/moved", http.StatusPermanentRedirect)
			}
		}, ""},
		"huge answer": {func(w http.ResponseWriter, _ *http.Request) {
			for range 1000 {
				if _, err := w.Write(make([]byte, 100_000)); err != nil {
					return
				}
			}
		}, ""},
		"huge header": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, "posting to"},
		"hangs":       {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveHook(t, false, tt.answer)
			err := post(t, upkeep.Receiver{URL: s.URL + "/?key=s3cret", Timeout: upkeep.Duration(time.Second)})
			switch {
			case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			case err != nil && strings.Contains(err.Error(), "s3cret"):
				t.Errorf("the error shows the URL: %v", err)
			}
		})
	}
	if _, bodies := elsewhere.got(); len(bodies) != 0 {
		t.Errorf("another host was told: %q", bodies)
	}
}

func TestWebhookAsksForPause(t *testing.T) {
	s := serveHook(t, false, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if got := later(post(t, upkeep.Receiver{URL: s.URL})); got != 2*time.Minute {
		t.Errorf("got %s", got)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "-1": 0, "x": 0, "99999999": 24 * time.Hour, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

func TestWebhookVerifiesTLS(t *testing.T) {
	s := serveHook(t, true, nil)
	if err := post(t, upkeep.Receiver{URL: s.URL}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := post(t, upkeep.Receiver{URL: s.URL, CAFile: ca}); err != nil {
		t.Errorf("its own CA: %v", err)
	}
}

func TestPreflight(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	hook := func(f func(*upkeep.Receiver)) upkeep.Receiver {
		r := upkeep.Receiver{Name: "chat", Type: upkeep.ReceiverWebhook, URL: "https://chat.example.test/"}
		f(&r)
		return r
	}
	for name, tt := range map[string]struct {
		receiver upkeep.Receiver
		want     string
	}{
		"ok":            {hook(func(r *upkeep.Receiver) { r.Template = `{"t": {{json .}}, "p": {{json (join ", " .Problems)}}}` }), ""},
		"no json":       {hook(func(r *upkeep.Receiver) { r.Template = `{"t": "{{.Title}}"}` }), "template: the template does not make valid JSON; write texts with json"},
		"unknown field": {hook(func(r *upkeep.Receiver) { r.Template = `{"t": {{json .Tittle}}}` }), "template: filling in the template"},
		"first event":   {hook(func(r *upkeep.Receiver) { r.Template = `{"t": {{json (index .Events 0).What}}}` }), "template: filling in the template"}, // a reminder has none
		"growing text": {hook(func(r *upkeep.Receiver) {
			r.Template = `{{$s := "x"}}{{range 100}}{{$s = print $s $s}}{{end}}{{json $s}}`
		}), "template: filling in the template"},
		"open secret":    {hook(func(r *upkeep.Receiver) { r.SecretFile = open }), "secret_file: " + open + " has mode 0644"},
		"missing token":  {hook(func(r *upkeep.Receiver) { r.TokenFile = "/nonexistent" }), "token_file: open /nonexistent"},
		"url file":       {hook(func(r *upkeep.Receiver) { r.URL, r.URLFile = "", private(t, "gopher://x") }), "url_file: must be an http or https URL"},
		"ca":             {hook(func(r *upkeep.Receiver) { r.CAFile = open }), "ca_file: reading CA file: " + open + " holds no PEM"},
		"program":        {upkeep.Receiver{Name: "run", Type: upkeep.ReceiverExec, Command: []string{"/nonexistent"}}, "command: "},
		"invalid":        {upkeep.Receiver{Name: "run", Type: upkeep.ReceiverExec}, ""},
		"program exists": {execReceiver("run"), ""},
	} {
		var got []string
		for _, f := range Preflight(tt.receiver) {
			got = append(got, f.Field+": "+f.Rule)
		}
		if text := strings.Join(got, "\n"); (tt.want == "") != (text == "") || !strings.HasPrefix(text, tt.want) {
			t.Errorf("%s: got %q, want %q", name, text, tt.want)
		}
	}
}
