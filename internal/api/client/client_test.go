package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

// over returns a client of a server that answers as told.
func over(t *testing.T, answer http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	c, err := client.OverTCP(server.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAddresses(t *testing.T) {
	for _, good := range []string{"http://127.0.0.1:8053", "https://upkeep.example.net", "http://[::1]:8053/", "https://example.net/below"} {
		if _, err := client.OverTCP(good, ""); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "127.0.0.1:8053", "ftp://127.0.0.1", "http://", "http://u:p@127.0.0.1", "http://127.0.0.1?x=1", "http://127.0.0.1#x", "http://[::1", "unix:/run/x"} {
		if _, err := client.OverTCP(bad, ""); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	c := client.OverSocket(t.TempDir())
	_, err := c.Pools(t.Context())
	var hinted *upkeep.HintError
	if !errors.Is(err, client.ErrUnreachable) || !errors.As(err, &hinted) || !strings.Contains(hinted.Hint, "upkeep up --data") {
		t.Errorf("without a socket: %v", err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "control.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.OverSocket(folder).Pools(t.Context()); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("with a file in the socket's place: %v", err)
	}
}

// What answers may be anything; the client says so and goes no further.
func TestStrangeAnswers(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"another program": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>no", http.StatusBadGateway) },
		"a login page":    func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>log in") },
		"broken JSON":     func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"pools":[`) },
		"a redirect": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(302)
		},
		"half a problem": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(500)
			io.WriteString(w, `{"title":`)
		},
		"nothing": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		},
	} {
		if pools, err := over(t, answer).Pools(t.Context()); err == nil {
			t.Errorf("%s is taken for an answer: %v", name, pools)
		}
	}
}

// The token is for the server that it was given for and for no other.
func TestTokenIsNotCarriedElsewhere(t *testing.T) {
	var leaked atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		leaked.Store(true)
	}))
	defer other.Close()
	c := over(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	c.Pools(t.Context())
	if leaked.Load() {
		t.Error("the client followed a redirect")
	}
}

func TestNamesStayOnePartOfThePath(t *testing.T) {
	var path string
	c := over(t, func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.EscapedPath()
		io.WriteString(w, "{}")
	})
	c.Release(t.Context(), "web/../../x", "2001:db8::*?/#")
	if want := "/api/v1/pools/web%2F..%2F..%2Fx/members/2001:db8::%2A%3F%2F%23/force"; path != want && path != strings.Replace(want, "%2A", "*", 1) {
		t.Errorf("asked for %s", path)
	}
}

func TestProblemsKeepTheirKind(t *testing.T) {
	for status, kind := range map[int]error{404: upkeep.ErrNotFound, 409: upkeep.ErrConflict, 403: upkeep.ErrRefused, 401: upkeep.ErrRefused} {
		c := over(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"title":"x","status":%d,"detail":"a sentence","hint":"do this","errors":[{"field":"query.limit","value":"7","rule":"m"}]}`, status)
		})
		_, err := c.Pools(t.Context())
		var problem *wire.Problem
		if !errors.Is(err, kind) || !errors.As(err, &problem) || problem.Hint != "do this" || err.Error() != `query.limit: "7": m` {
			t.Errorf("status %d comes as %v", status, err)
		}
	}
}

// A broken stream is taken up again after the last event that came.
func TestFollowGoesOnAfterABreak(t *testing.T) {
	var asked []string
	c := over(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Last-Event-ID"))
		n := len(asked)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, ": alive\n\nid: %d\ndata: {\"id\":%d,\ndata: \"what\":\"two lines\"}\n\n", n, n)
	})
	enough := errors.New("enough")
	var got []int64
	err := c.Follow(t.Context(), client.EventFilter{}, func(e upkeep.Event) error {
		if got = append(got, e.ID); len(got) == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || fmt.Sprint(got) != "[1 2 3]" || strings.Join(asked, ",") != ",1,2" {
		t.Errorf("got %v, asked for what comes after %q, ended with %v", got, asked, err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := over(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, ": listening\n\n")
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	if err := c.Follow(ctx, client.EventFilter{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if err := over(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 500) }).Follow(t.Context(), client.EventFilter{}, nil); err == nil {
		t.Error("a stream that cannot be opened is waited for")
	}
}

func TestConditionsAreSent(t *testing.T) {
	c := over(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("If-Match"); got != `"7"` {
			t.Errorf("If-Match is %q", got)
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusPreconditionFailed)
		_, _ = w.Write([]byte(`{"status":412,"detail":"site/a.test has generation 8, not 7"}`))
	})
	_, err := c.ApplyIf(t.Context(), wire.Source{Text: "x"}, 7)
	if !errors.Is(err, upkeep.ErrChanged) || !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("got %v", err)
	}
}
