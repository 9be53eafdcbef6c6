package webserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// world is an Apache with an applier, for a test.
type world struct {
	t      testing.TB
	dir    string
	apache *PrivateApache
	*Applier
	options Options
}

const testAccount = "acme"

func newWorld(t testing.TB) *world {
	t.Helper()
	testkit.Need(t, "apache2")
	// Unlike t.TempDir, a folder that the server's own user may enter.
	dir, err := os.MkdirTemp("", "upkeep-web-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	address := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	w.apache, err = Private(t.Context(), dir, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "logs", "apache.log"))
			t.Logf("Apache's log:\n%s", log)
		}
		if err := w.apache.Close(); err != nil {
			t.Error(err)
		}
	})
	w.options = Options{Server: w.apache, Layout: PrivateLayout(dir, address), State: filepath.Join(dir, "state"), Address: address, URL: "http://" + address}
	w.options.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.open()
	t.Cleanup(func() { _ = w.Applier.Close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.Applier, err = Open(context.Background(), w.options); err != nil {
		w.t.Fatal(err)
	}
}

// input makes a site's folders, and what is to be applied for it.
func (w *world) input(name string, generation int64) vhost.Input {
	w.t.Helper()
	in := vhost.Input{Site: upkeep.Site{Name: name, Account: testAccount}, Generation: generation, UID: 20001, Layout: w.options.Layout}
	if err := os.MkdirAll(in.DocumentRoot(), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in.DocumentRoot(), "index.html"), []byte("page of "+name+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return in
}

func (w *world) apply(in vhost.Input) Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	return w.Apply(ctx, Request{Input: in})
}

func (w *world) mustApply(in vhost.Input) {
	w.t.Helper()
	if r := w.apply(in); r.State != upkeep.JobDone {
		w.t.Fatalf("%s: %s: %v (field %q)", in.Site.Name, r.State, r.Err, r.Field)
	}
}

// get asks for a page by its host.
func (w *world) get(host, path string) (status int, body string, header http.Header) {
	w.t.Helper()
	return w.request(http.MethodGet, host, path, nil)
}

func (w *world) request(method, host, path string, edit func(*http.Request)) (int, string, http.Header) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.options.Address+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Host, req.Close = host, true
	if edit != nil {
		edit(req)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

func (w *world) answers(host string) {
	w.t.Helper()
	status, body, _ := w.get(host, "/")
	if want := "page of " + strings.TrimPrefix(host, "www.") + "\n"; status != 200 || body != want {
		w.t.Errorf("%s answers %d %q, want %q", host, status, body, want)
	}
}

func TestApply(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.input("example.test", 1))
	w.answers("example.test")
	w.answers("www.example.test")
	if status, _, _ := w.get("unknown.test", "/"); status != 421 {
		t.Errorf("an unknown name is answered with %d, want 421", status)
	}
	before := w.Stats()
	w.mustApply(w.input("example.test", 1))
	if after := w.Stats(); after.Writes != before.Writes || after.Reloads != before.Reloads || after.Tests != before.Tests {
		t.Errorf("applying the same again: %+v, before it %+v", after, before)
	}
	ctx := t.Context()
	if r := w.Remove(ctx, "example.test", "another", 2); r.State != upkeep.JobFailed || !errors.Is(r.Err, upkeep.ErrRefused) {
		t.Errorf("another account's removal: %+v", r)
	}
	if r := w.Remove(ctx, "example.test", testAccount, 2); r.State != upkeep.JobDone {
		t.Fatalf("removing: %v", r.Err)
	}
	if status, _, _ := w.get("example.test", "/"); status != 421 {
		t.Errorf("a removed site is answered with %d, want 421", status)
	}
}
