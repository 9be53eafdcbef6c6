package probe

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// serve runs a TCP server on loopback that does f with each connection, and
// returns its port.
func serve(t *testing.T, f func(net.Conn)) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				f(conn)
			}()
		}
	}()
	return port(t, listener.Addr())
}

// readRequest reads a request to the end of its header.
func readRequest(conn net.Conn) string {
	var text strings.Builder
	for in := bufio.NewReader(conn); ; {
		line, err := in.ReadString('\n')
		text.WriteString(line)
		if err != nil || line == "\r\n" {
			return text.String()
		}
	}
}

// answering serves the same text to everybody.
func answering(t *testing.T, text string) int {
	return serve(t, func(conn net.Conn) {
		readRequest(conn)
		_, _ = io.WriteString(conn, text)
	})
}

// trickling serves a text, and then a piece of it for ever, byte by byte.
func trickling(t *testing.T, start, piece string) int {
	return serve(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, start)
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for {
			for i := range len(piece) {
				if _, err := io.WriteString(conn, piece[i:i+1]); err != nil {
					return
				}
				<-pace.C
			}
		}
	})
}

// flooding serves a text, and then a piece of it for ever, as fast as it goes.
func flooding(t *testing.T, start, piece string) int {
	piece = strings.Repeat(piece, 1+4096/len(piece))
	return serve(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, start)
		for {
			if _, err := io.WriteString(conn, piece); err != nil {
				return
			}
		}
	})
}

func web(port int, edit func(*upkeep.Check)) upkeep.Check {
	c := upkeep.Check{Type: upkeep.CheckHTTP, Port: port, Interval: every(30 * time.Second), Timeout: every(15 * time.Second)}
	if edit != nil {
		edit(&c)
	}
	return c
}

// same compares a result but for its times.
func same(t *testing.T, what string, got, want Result) {
	t.Helper()
	if got.OK != (got.RTT > 0) || got.At.IsZero() {
		t.Errorf("%s: OK %v with RTT %v at %v", what, got.OK, got.RTT, got.At)
	}
	got.At, got.RTT = time.Time{}, 0
	if got != want {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func TestHTTPAnswers(t *testing.T) {
	refused := func(reason string) Result { return Result{Refused: true, Reason: reason} }
	for _, c := range []struct {
		name   string
		answer string
		edit   func(*upkeep.Check)
		want   Result
	}{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", nil, Result{OK: true}},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhi", nil, Result{OK: true}},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", nil, Result{OK: true}},
		{"interim", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", nil, Result{OK: true}},
		{"interim for ever", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 20), nil, refused("HTTP 102, wanted 200-399")},
		{"status", "HTTP/1.1 404 Not Found\r\n\r\n", nil, refused("HTTP 404, wanted 200-399")},
		{"status set", "HTTP/1.1 200 OK\r\n\r\n", func(c *upkeep.Check) { c.Status = []upkeep.StatusRange{{From: 204, To: 204}, {From: 500, To: 599}} },
			refused("HTTP 200, wanted 204, 500-599")},
		{"body", "HTTP/1.1 200 OK\r\n\r\nall is well", func(c *upkeep.Check) { c.Body = "^all.*well$" }, Result{OK: true}},
		{"chunked body", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nall \r\n7\r\nis well\r\n0\r\n\r\n",
			func(c *upkeep.Check) { c.Body = "^all is well$" }, Result{OK: true}},
		{"other body", "HTTP/1.1 200 OK\r\n\r\nno", func(c *upkeep.Check) { c.Body = "well" },
			refused(`HTTP 200, but the body's first 2 bytes do not match "well"`)},
		{"body beyond max_body", "HTTP/1.1 200 OK\r\n\r\n12345well", func(c *upkeep.Check) { c.Body, c.MaxBody = "well", 5 },
			refused(`HTTP 200, but the body's first 5 bytes do not match "well"`)},
		{"short body", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nwell", func(c *upkeep.Check) { c.Body = "well" },
			refused("HTTP 200, but its body is not complete: connection closed")},
		{"no answer", "", nil, refused("connected, but no HTTP answer: connection closed")},
		{"half a header", "HTTP/1.1 200 OK\r\nX: y", nil, refused("connected, but no HTTP answer: connection closed")},
		{"another protocol", "SSH-2.0-\x1b[31mevil\r\n", nil,
			refused(`connected, but no HTTP answer: malformed HTTP response "SSH-2.0-\x1b[31mevil"`)},
	} {
		same(t, c.name, once(t, "127.0.0.1", web(answering(t, c.answer), c.edit)), c.want)
	}
}

// TestHTTPRequest looks at what is sent.
func TestHTTPRequest(t *testing.T) {
	got := make(chan string, 1)
	p := serve(t, func(conn net.Conn) {
		got <- readRequest(conn)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	})
	once(t, "127.0.0.1", web(p, nil))
	want := fmt.Sprintf("GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\nConnection: close\r\nUser-Agent: upkeep\r\n\r\n", p)
	if text := <-got; text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	once(t, "127.0.0.1", web(p, func(c *upkeep.Check) {
		c.Method, c.Path, c.Host = "POST", "/a?b=c", "www.example.test"
		c.Header = map[string]string{"user-agent": "mine", "X-A": "b"}
	}))
	want = fmt.Sprintf("POST /a?b=c HTTP/1.1\r\nHost: www.example.test:%d\r\nAccept: */*\r\nConnection: close\r\nContent-Length: 0\r\n"+
		"User-Agent: mine\r\nX-A: b\r\n\r\n", p)
	if text := <-got; text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

// TestHTTPHostile has servers that keep a checker busy: all of them come to an
// end, with a bounded amount read.
func TestHTTPHostile(t *testing.T) {
	soon := func(c *upkeep.Check) { c.Timeout = every(time.Second) }
	silent := func(reason string) Result { return Result{Slow: true, Reason: reason} }
	body := func(c *upkeep.Check) { soon(c); c.Body = "well" }
	for _, c := range []struct {
		name string
		port int
		edit func(*upkeep.Check)
		want Result
	}{
		{"accepts and is silent", serve(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }), soon,
			silent("connected, but no HTTP answer within 1s")},
		{"drips a header", trickling(t, "", "HTTP/1.1 200 OK\r\nX: y"), soon,
			silent("connected, but no HTTP answer within 1s")},
		{"drips a body", trickling(t, "HTTP/1.1 200 OK\r\n\r\n", "x"), body,
			silent("HTTP 200, but its body is not complete within 1s")},
		{"drips a body that nobody asked for", trickling(t, "HTTP/1.1 200 OK\r\n\r\n", "x"), soon, Result{OK: true}},
		{"an endless header", flooding(t, "HTTP/1.1 200 OK\r\n", "X: y\r\n"), nil,
			Result{Refused: true, Reason: "header longer than 65536 bytes"}},
		{"an endless line", flooding(t, "HTTP/1.1 200 ", "O"), nil,
			Result{Refused: true, Reason: "header longer than 65536 bytes"}},
		{"an endless body", flooding(t, "HTTP/1.1 200 OK\r\n\r\n", "x"), func(c *upkeep.Check) { c.Body = "well" },
			Result{Refused: true, Reason: `HTTP 200, but the body's first 10240 bytes do not match "well"`}},
		{"endless chunks of one byte", flooding(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
			func(c *upkeep.Check) { c.Body = "well" },
			Result{Refused: true, Reason: `HTTP 200, but the body's first 10240 bytes do not match "well"`}},
		{"drips a handshake", trickling(t, "", "\x16\x03\x01\x02"), func(c *upkeep.Check) { soon(c); c.Type = upkeep.CheckHTTPS },
			silent("connected, but no TLS handshake within 1s")},
	} {
		same(t, c.name, once(t, "127.0.0.1", web(c.port, c.edit)), c.want)
	}
}

func TestHTTPRedirects(t *testing.T) {
	var secure *httptest.Server
	handler := http.NewServeMux()
	to := func(path, location string, status int) {
		handler.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", strings.ReplaceAll(location, "SECURE", secure.Listener.Addr().String()))
			w.WriteHeader(status)
		})
	}
	handler.HandleFunc("/end", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Method, r.URL.RawQuery) })
	to("/once", "/end?a=b", 302)
	to("/kept", "end", 307)
	to("/twice", "once", 301)
	to("/loop", "/loop", 302)
	to("/away", "http://evil.example.test/", 302)
	to("/mail", "mailto:a@example.test", 302)
	to("/broken", "http://[::1", 302)
	to("/none", "", 302)
	to("/secure", "https://SECURE/end", 302)
	to("/port", "http://127.0.0.1:0/", 302)
	server := httptest.NewServer(handler)
	defer server.Close()
	secure = httptest.NewUnstartedServer(handler)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	refused := func(reason string) Result { return Result{Refused: true, Reason: reason} }
	for _, c := range []struct {
		method, path, body string
		want               Result
	}{
		{"GET", "/once", "^GET a=b$", Result{OK: true}},
		{"POST", "/once", "^GET a=b$", Result{OK: true}},
		{"POST", "/kept", "^POST $", Result{OK: true}},
		{"GET", "/twice", "^GET a=b$", Result{OK: true}},
		{"GET", "/loop", "", refused("more than 3 redirects")},
		{"GET", "/away", "", refused("HTTP 302 to another host, evil.example.test, is not followed")},
		{"GET", "/mail", "", refused(`HTTP 302 with an unusable location "mailto:a@example.test"`)},
		{"GET", "/broken", "", refused(`HTTP 302 with an unusable location "http://[::1"`)},
		{"GET", "/none", "", refused(`HTTP 302 with an unusable location ""`)},
		{"GET", "/port", "", refused(`HTTP 302 with an unusable location "http://127.0.0.1:0/"`)},
		{"GET", "/secure", "", refused("certificate is signed by an unknown authority")},
	} {
		r := once(t, "127.0.0.1", web(port(t, server.Listener.Addr()), func(check *upkeep.Check) {
			check.Method, check.Path, check.Body, check.Redirects = c.method, c.path, c.body, 3
		}))
		same(t, c.method+" "+c.path, r, c.want)
	}
}

func TestHTTPAddressFamilies(t *testing.T) {
	listener, err := net.Listen("tcp6", "[::1]:0")
	testkit.NeedThat(t, "IPv6 on the loopback interface", err)
	var host string
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(
		func(_ http.ResponseWriter, r *http.Request) { host = r.Host })}}
	server.Start()
	defer server.Close()
	p := port(t, listener.Addr())
	same(t, "::1", once(t, "::1", web(p, nil)), Result{OK: true})
	if want := fmt.Sprintf("[::1]:%d", p); host != want {
		t.Errorf("Host: %s, want %s", host, want)
	}
}
