package console

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/testkit"
)

// follow opens a page as a browser of somebody does, and hands out what it is told.
func follow(t *testing.T, server *httptest.Server, who, at, encoding string) (status int, news <-chan told) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/live?at="+url.QueryEscape(at), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	if encoding != "" {
		r.Header.Set("Accept-Encoding", encoding)
	}
	if who != "" {
		r.AddCookie(&http.Cookie{Name: "upkeep", Value: who})
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, nil
	}
	c := make(chan told, 100)
	go func() {
		defer close(c)
		body := io.Reader(response.Body)
		if response.Header.Get("Content-Encoding") == "gzip" {
			if body, err = gzip.NewReader(body); err != nil {
				t.Error(err)
				return
			}
		}
		lines := bufio.NewScanner(body)
		lines.Buffer(nil, 8<<20)
		for lines.Scan() {
			data, is := strings.CutPrefix(lines.Text(), "data: {")
			var one told
			if is && json.Unmarshal([]byte("{"+data), &one) == nil {
				c <- one
			}
		}
	}()
	return response.StatusCode, c
}

// heard is the next that a page is told.
func heard(t *testing.T, news <-chan told) told {
	t.Helper()
	select {
	case one, open := <-news:
		if !open {
			t.Fatal("the stream has ended")
		}
		return one
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was told")
	}
	return told{}
}

// However many have a page open, it is made once for each piece of news, and those
// that see it are told the same: first all of it, then what differs.
func TestOpenPagesAreMadeOnce(t *testing.T) {
	f := healthy()
	server := httptest.NewServer(house(t, f, twoCustomers()).Public())
	defer server.Close()
	defer server.CloseClientConnections()
	var all []<-chan told
	for i := range 20 {
		_, news := follow(t, server, []string{"ada", ""}[i%2], "/", []string{"gzip", "", "br, gzip;q=0.5"}[i%3])
		all = append(all, news)
	}
	for _, news := range all {
		if first := heard(t, news); len(first.Parts) != len(first.IDs) || !strings.Contains(first.Parts["pool-web"], "192.0.2.12") || !strings.Contains(first.Title, "Status") {
			t.Fatalf("first told: %+v", first)
		}
	}
	before := f.asked.Load()
	f.change(func() {
		m := &f.pools[0].Members[1]
		m.Verdict, m.Published, m.Reason = upkeep.Down, false, "connection refused"
		f.pools[0].Published = f.pools[0].Published[:2]
	})
	for _, news := range all {
		next := heard(t, news)
		if !strings.Contains(next.Parts["pool-web"], "connection refused") || next.Parts["log"] != "" || len(next.IDs) < 3 {
			t.Fatalf("then told: %+v", next)
		}
	}
	if made := f.asked.Load() - before; made > 4 { // two views; and one more each, when a stream began late
		t.Errorf("the page was made %d times for 20 readers", made)
	}
}

// Who may not have a page is not told of it, and of what is another's nothing.
func TestOpenPagesAreForWhoMayHaveThem(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h)
	for _, tt := range []struct {
		who, at string
		status  int
		parts   bool
	}{
		{"eve", "/sites", 200, true}, {"eve", "/sites/acme.test", 200, true}, {"eve", "/jobs/1", 200, true},
		{"eve", "/sites/other.test", 200, false}, {"eve", "/jobs/2", 200, false}, {"eve", "/jobs/99", 200, false},
		{"eve", "/servers", 404, false}, {"eve", "/zones", 404, false}, {"eve", "/users", 404, false}, {"eve", "/me", 404, false},
		{"eve", "/live?at=/", 404, false}, {"eve", "//evil.test/", 404, false}, {"eve", "http://evil.test/", 404, false}, {"eve", "", 404, false},
		{"eve", "/sites/new", 200, false}, {"eve", "/../servers", 404, false}, {"eve", "/servers/", 404, false}, {"eve", "/servers%2f", 404, false},
		{"ada", "/servers", 200, true}, {"ada", "/sites/other.test", 200, true}, {"ada", "/jobs?state=failed", 200, true},
		{"", "/", 200, true}, {"", "/sites", 403, false}, {"", "/jobs", 403, false}, {"", "/servers", 403, false},
	} {
		server := httptest.NewServer(a.Public())
		status, news := follow(t, server, tt.who, tt.at, "")
		if status != tt.status {
			t.Errorf("%q is answered %d about %s, want %d", tt.who, status, tt.at, tt.status)
		} else if status == http.StatusOK {
			first := heard(t, news)
			if (len(first.Parts) > 0) != tt.parts || tt.who != "ada" && strings.Contains(fmt.Sprint(first), secretOfOther) {
				t.Errorf("%q is told of %s: %+v", tt.who, tt.at, first)
			}
		}
		server.CloseClientConnections()
		server.Close()
	}
}

// Every page that has parts to swap can be followed.
func TestPagesWithPartsAreFollowed(t *testing.T) {
	a := house(t, typical(), twoCustomers()).Public()
	for _, pattern := range access.Patterns() {
		method, path := target(pattern)
		path = strings.Replace(path, "other.test", "acme.test", 1)
		if method != http.MethodGet || strings.Contains(path, "/api/") || path == "/live" || pattern == "GET /" {
			continue
		}
		w := ask(a, "ada", method, path, "")
		parts, _ := partsOf(w.Body.Bytes())
		_, follows := concerns[pattern]
		if w.Code != http.StatusOK {
			continue
		}
		if has := len(parts) > 0; has && !follows {
			t.Errorf("%s has parts that are swapped, and cannot be followed", pattern)
		} else if !has && follows {
			t.Errorf("%s can be followed, and has nothing to swap", pattern)
		}
	}
}

// Nothing is left of pages that nobody has open any more.
func TestOpenPagesEnd(t *testing.T) {
	f := healthy()
	c, err := New(Options{Observer: f, Recorder: f, Log: discard, Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(c.routes["GET /live"])
	_, news := follow(t, server, "", "/", "")
	heard(t, news)
	server.CloseClientConnections()
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		c.hub.mu.Lock()
		defer c.hub.mu.Unlock()
		return len(c.hub.pages) == 0 && c.hub.stop == nil, fmt.Sprint(len(c.hub.pages), " pages")
	})
	server.Close()
}

func TestPartsOf(t *testing.T) {
	parts, title := partsOf([]byte(`<!doctype html><title>A &amp; b</title><main><svg><title>no</title></svg>
<section id="a" data-live><section>in <time>3 s ago</time> it</section><br></section>
<div>not</div><p id="b" class="x" data-live>&lt;b&gt;</p></main>`))
	again, _ := partsOf([]byte(`<section id="a" data-live><section>in <time>9 h ago</time> it</section><br></section>`))
	if title != "A & b" || len(parts) != 2 || parts[0].id != "a" || !strings.HasSuffix(parts[0].text, "<br></section>") || parts[1].text != `<p id="b" class="x" data-live>&lt;b&gt;</p>` {
		t.Errorf("%q %+v", title, parts)
	}
	if len(again) != 1 || again[0].sum != parts[0].sum {
		t.Error("an age is taken for news")
	}
	other, _ := partsOf([]byte(`<section id="a" data-live><section>in <time>9 h ago</time> IT</section><br></section>`))
	if other[0].sum == parts[0].sum {
		t.Error("news are taken for an age")
	}
}

// Pages and their files travel packed to who can read that.
func TestPacked(t *testing.T) {
	a := house(t, crowded(), twoCustomers()).Public()
	total := 0
	for _, path := range []string{"/", "/assets/style.css", "/assets/live.js", "/assets/mark.svg"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "localhost"
		r.Header.Set("Accept-Encoding", "br, GZIP")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		total += w.Body.Len()
		plain := get(t, a, path).Body
		unpacked, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(path, err)
		}
		text, err := io.ReadAll(unpacked)
		if err != nil || w.Header().Get("Content-Encoding") != "gzip" || path != "/" && !bytes.Equal(text, plain.Bytes()) || path == "/" && !bytes.HasSuffix(bytes.TrimSpace(text), []byte("</html>")) {
			t.Errorf("%s: %d bytes, %v, %v", path, len(text), w.Header(), err)
		}
	}
	if total > 100_000 {
		t.Errorf("a first visit takes %d bytes", total)
	}
	for accept, want := range map[string]bool{"": false, "identity": false, "gzip;q=0": false, "gzip;q=0.000": false, "gzip; q=0.1": true, "deflate, gzip": true, "xgzip": false} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Encoding", accept)
		if takesGzip(r) != want {
			t.Errorf("%q: %v", accept, !want)
		}
	}
}
