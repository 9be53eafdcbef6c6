package main

import (
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api"
	"upkeep/internal/api/apitest"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/testkit"
)

// served is an upkeep in a process of its own, which can be killed and started anew.
type served struct {
	*testing.T
	data    string
	process *testkit.Process
	http    *http.Client
}

func newServed(t *testing.T) *served {
	// The path of the control socket is limited to 107 bytes.
	data, err := os.MkdirTemp("", "upkeep-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(data) }) // the process is killed before
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(data, "control.sock"))
	}
	s := &served{T: t, data: data, http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 1}}}
	s.start()
	return s
}

func (s *served) start() {
	s.Helper()
	s.process = startUpkeep(s.T, nil, "serve", "--data", s.data, "--dns", "", "--http", "", "--beat", "")
	testkit.Eventually(s, time.Minute, func() (bool, string) {
		_, err := client.OverSocket(s.data).Pools(s.Context())
		return err == nil, fmt.Sprint(err) + s.process.Log()
	})
}

// apply declares an account with a key.
func (s *served) apply(account, key string) (status int, replayed bool, body string) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://localhost/api/v1/apply", strings.NewReader("{kind: account, name: "+account+"}"))
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/yaml")
	r.Header.Set("Idempotency-Key", key)
	response, err := s.http.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Idempotency-Replayed") == "true", string(text)
}

// A kill of upkeep costs who follows events none of them and none twice; and a
// request that is sent again after it, with its key, does nothing again.
func TestAPIAcrossAKill(t *testing.T) {
	s := newServed(t)
	c := client.OverSocket(s.data)
	if _, err := c.Apply(t.Context(), []wire.Source{{Text: "{kind: account, name: zero}"}}, false); err != nil {
		t.Fatal(err)
	}
	before, err := c.Events(t.Context(), client.EventFilter{Kind: upkeep.EventDeclared})
	if err != nil || len(before) != 1 {
		t.Fatal(before, err)
	}
	var mu sync.Mutex
	var seen []string
	follow, stop := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	go func() {
		followed <- c.Follow(follow, client.EventFilter{Kind: upkeep.EventDeclared, After: before[0].ID}, func(e upkeep.Event) error {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, e.Object)
			return nil
		})
	}()
	sees := func(want ...string) {
		t.Helper()
		testkit.Eventually(t, time.Minute, func() (bool, string) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Equal(seen, want), fmt.Sprint("seen are ", seen)
		})
	}
	status, replayed, first := s.apply("one", "key-1")
	if status != http.StatusOK || replayed || !strings.Contains(first, `"created"`) {
		t.Fatalf("%d %s", status, first)
	}
	sees("account/one")

	s.process.Kill()
	s.http.CloseIdleConnections()
	s.start()
	if status, replayed, again := s.apply("one", "key-1"); status != http.StatusOK || !replayed || again != first {
		t.Errorf("after the kill: %d, replayed %v, %s, want %s", status, replayed, again, first)
	}
	if status, _, text := s.apply("two", "key-1"); status != http.StatusUnprocessableEntity {
		t.Errorf("another request with its key: %d %s", status, text)
	}
	if status, _, text := s.apply("two", "key-2"); status != http.StatusOK {
		t.Errorf("%d %s", status, text)
	}
	sees("account/one", "account/two")
	stop()
	<-followed
	entries, err := c.Audit(t.Context(), client.AuditFilter{Object: "account/one", Limit: 10})
	if err != nil || len(entries) != 1 {
		t.Errorf("the audit log has %+v, %v", entries, err)
	}
}

// What the description of the API knows to be wrong is refused by the real parts too:
// with a field, as no fault of upkeep's own, and without a trace in what is declared
// or in the audit log.
func TestHostileRequestsChangeNothing(t *testing.T) {
	s := newServed(t)
	c := client.OverSocket(s.data)
	if _, err := c.Apply(t.Context(), []wire.Source{{Text: "{kind: account, name: acme}"}}, false); err != nil {
		t.Fatal(err)
	}
	kept := func() string {
		t.Helper()
		entries, err := c.Audit(t.Context(), client.AuditFilter{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		accounts, err := c.Objects(t.Context(), upkeep.KindAccount, "")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(entries, accounts)
	}
	before := kept()
	spec, err := apitest.Read(api.Document())
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for _, op := range spec.Operations() {
		for _, hostile := range spec.Hostile(op) {
			if hostile.Field == "" {
				continue // it may be taken
			}
			r, err := http.NewRequestWithContext(t.Context(), hostile.Method, "http://localhost"+hostile.Target, strings.NewReader(hostile.Body))
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range hostile.Header {
				r.Header.Set(name, value)
			}
			response, err := s.http.Do(r)
			if err != nil {
				if strings.Contains(err.Error(), "invalid header field value") {
					continue // which does not leave the client
				}
				t.Fatalf("%s: %v\n%s", hostile.Name, err, s.process.Log())
			}
			text, err := io.ReadAll(response.Body)
			response.Body.Close()
			if response.StatusCode == http.StatusRequestHeaderFieldsTooLarge {
				continue // which the HTTP server says before anybody is asked
			}
			if err != nil || response.StatusCode < 400 || response.StatusCode >= 500 || response.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %d %.300s, %v", hostile.Name, response.StatusCode, text, err)
			}
			sent++
		}
	}
	if after := kept(); after != before {
		t.Errorf("before: %s\nafter: %s", before, after)
	}
	if sent < 500 {
		t.Errorf("only %d requests were sent", sent)
	}
	t.Logf("%d requests", sent)
}

// wiring are the files that put control together; all others are verbs, which know
// of a running upkeep what its API says.
var wiring = []string{"agents.go", "local.go", "local_folder.go", "notify.go", "process.go", "publishers.go", "serve.go", "up.go", "agentpublisher.go"}

// TestVerbsUseTheAPI keeps verbs from doing what programs could not do too.
func TestVerbsUseTheAPI(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	verbs := 0
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") || slices.Contains(wiring, path) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			switch strings.Trim(spec.Path.Value, `"`) {
			case "upkeep/internal/store", "upkeep/internal/watch", "upkeep/internal/hosting", "upkeep/internal/people", "upkeep/internal/job", "upkeep/internal/api":
				t.Errorf("%s imports %s: what it does goes past the API", path, spec.Path.Value)
			case "upkeep/internal/api/client":
				verbs++
			}
		}
	}
	if verbs < 15 {
		t.Errorf("only %d files speak to a running upkeep", verbs)
	}
}
