package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upkeep"
)

// pipes is a listener of connections inside the process, whose time a synctest
// bubble makes pass.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

// serveBubble serves an API inside a synctest bubble until the returned function is called.
func serveBubble(t *testing.T, a *API) (*pipes, func()) {
	p := newPipes()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, p, a.Public(), slog.New(slog.DiscardHandler)) }()
	return p, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	}
}

// A client that sends its request a byte now and then is hung up on, whoever it is and
// whatever it asks for: also where nobody reads what it sends.
func TestSlowSendersAreHungUpOn(t *testing.T) {
	for name, request := range map[string]string{
		"header": "GET /api/v1/pools HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		"body": "POST /api/v1/apply HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + testToken +
			"\r\nContent-Type: application/yaml\r\nContent-Length: 1000000\r\n\r\nkind: ",
		"refused":      "POST /api/v1/apply HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nkind: ",
		"unread":       "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
		"chunked":      "GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
		"other host":   "POST /signin HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 1000\r\n\r\n",
		"other origin": "POST /signin HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\nContent-Length: 1000\r\n\r\n",
		"no route":     "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
		"form":         "POST /signin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nname=",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, stop := serveBubble(t, newTestAPI(t, &fake{}, func(o *Options) { o.Page = formPages{} }))
				defer stop()
				conn := p.dial()
				defer conn.Close()
				written := make(chan struct{})
				go func() {
					defer close(written)
					io.WriteString(conn, request)
					for {
						time.Sleep(time.Second) // of the bubble's clock
						if _, err := conn.Write([]byte("x")); err != nil {
							return
						}
					}
				}()
				ended := make(chan struct{})
				go func() { io.Copy(io.Discard, conn); close(ended) }()
				select {
				case <-ended:
				case <-time.After(time.Minute):
					t.Error("after a minute the connection is still held open")
				}
				conn.Close()
				<-written
			})
		})
	}
}

// formPages takes a form, and has work with it for longer than it may take to come.
type formPages struct{ fakePages }

func (formPages) Routes() map[string]http.Handler {
	return map[string]http.Handler{"POST /signin": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(bodyTime + 10*time.Second): // of the bubble's clock
			fmt.Fprint(w, "done for "+r.PostForm.Get("name"))
		case <-r.Context().Done():
			fmt.Fprint(w, "given up")
		}
	})}
}

// What came in time may be worked with for longer than it had to come, and the
// connection is good for more.
func TestWorkMayTakeLongerThanTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := serveBubble(t, newTestAPI(t, &fake{}, func(o *Options) { o.Page = formPages{} }))
		defer stop()
		conn := p.dial()
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for range 2 {
			r := httptest.NewRequest("POST", "http://localhost/signin", strings.NewReader("name=ada"))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			go r.Write(conn)
			response, err := http.ReadResponse(answers, r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != http.StatusOK || string(body) != "done for ada" {
				t.Errorf("it is answered with %d %q, %v", response.StatusCode, body, err)
			}
		}
	})
}

// follow opens an event stream and returns its lines.
func follow(t *testing.T, conn net.Conn, query string, header ...string) *bufio.Scanner {
	t.Helper()
	r := httptest.NewRequest("GET", "http://localhost/api/v1/events/stream"+query, nil)
	r.Header.Set("Authorization", "Bearer "+testToken)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	go r.Write(conn)
	response, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil || response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("opening a stream: %v %+v", err, response)
	}
	return bufio.NewScanner(response.Body)
}

// read returns the next line that starts with one of the prefixes.
func read(t *testing.T, lines *bufio.Scanner, prefixes ...string) string {
	t.Helper()
	for lines.Scan() {
		for _, prefix := range prefixes {
			if strings.HasPrefix(lines.Text(), prefix) {
				return lines.Text()
			}
		}
	}
	t.Fatalf("the stream ended: %v", lines.Err())
	return ""
}

func someEvent(id int64) upkeep.Event {
	return upkeep.Event{ID: id, Kind: upkeep.EventVerdict, Object: "pool/web/192.0.2.1", What: fmt.Sprint("event ", id)}
}

func TestStreamResumesWhereItStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		for id := int64(1); id <= 2*batch+10; id++ {
			f.events = append(f.events, someEvent(id))
		}
		p, stop := serveBubble(t, newTestAPI(t, f))
		defer stop()
		conn := p.dial()
		defer conn.Close()
		lines := follow(t, conn, "?after=1", "Last-Event-ID", "5")
		for id := int64(6); id <= 2*batch+10; id++ {
			if got, want := read(t, lines, "id:"), fmt.Sprintf("id: %d", id); got != want {
				t.Fatalf("%s, want %s", got, want)
			}
		}
		read(t, lines, ": listening")
		f.happen(someEvent(5000))
		if got := read(t, lines, "id:"); got != "id: 5000" {
			t.Errorf("the live event came as %s", got)
		}
	})
}

// A reader that had seen no event when it was cut off misses none either.
func TestStreamResumesFromTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{events: []upkeep.Event{someEvent(1)}}
		p, stop := serveBubble(t, newTestAPI(t, f))
		defer stop()
		conn := p.dial()
		defer conn.Close()
		if got := read(t, follow(t, conn, "", "Last-Event-ID", "0"), "id:", ": listening"); got != "id: 1" {
			t.Errorf("it begins with %s", got)
		}
	})
}

// After a database was put back from a copy, readers have seen higher ids than there
// are: what happens from then on is told to them all the same.
func TestStreamGoesOnAfterALaterEventThanThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{events: []upkeep.Event{someEvent(1), someEvent(2)}}
		p, stop := serveBubble(t, newTestAPI(t, f))
		defer stop()
		conn := p.dial()
		defer conn.Close()
		lines := follow(t, conn, "", "Last-Event-ID", "9000")
		if first := read(t, lines, "id:", ": listening"); first != ": listening" {
			t.Errorf("it begins with %s", first)
		}
		f.happen(someEvent(3))
		if got := read(t, lines, "id:", ": alive"); got != "id: 3" {
			t.Errorf("after the next event there is %s", got)
		}
	})
}

// A reader that was cut off because it was slow gets what it missed, once.
func TestStreamCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		p, stop := serveBubble(t, newTestAPI(t, f))
		defer stop()
		conn := p.dial()
		defer conn.Close()
		lines := follow(t, conn, "?object=pool/web")
		read(t, lines, ": listening")
		f.happen(someEvent(1))
		read(t, lines, "id: 1")
		f.cutOff()
		f.happen(someEvent(2))
		other := someEvent(3)
		other.Object = "pool/webmail"
		f.happen(other)
		read(t, lines, "id: 2")
		read(t, lines, ": listening")
		f.happen(someEvent(4))
		if got := read(t, lines, "id:"); got != "id: 4" {
			t.Errorf("after catching up comes %s", got)
		}
	})
}

func TestStreamSaysThatItIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := serveBubble(t, newTestAPI(t, &fake{}))
		defer stop()
		conn := p.dial()
		defer conn.Close()
		lines := follow(t, conn, "")
		began := time.Now()
		for range 20 { // far longer than any write timeout
			read(t, lines, ": alive")
		}
		if passed := time.Since(began); passed != 20*heartbeat {
			t.Errorf("20 signs of life came in %s", passed)
		}
	})
}

// A reader that takes nothing any more is let go.
func TestStreamLetsGoOfWhoDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		p, stop := serveBubble(t, newTestAPI(t, f))
		defer stop()
		conn := p.dial()
		defer conn.Close()
		read(t, follow(t, conn, ""), ": listening")
		time.Sleep(heartbeat + writeTimeout + time.Second) // of the bubble's clock; nobody reads
		synctest.Wait()
		if _, err := conn.Write([]byte("x")); err == nil {
			t.Error("the connection is still open")
		}
	})
}

// Two lines in one text must not become two fields of the protocol.
func TestHostileTextStaysOneEvent(t *testing.T) {
	w := httptest.NewRecorder()
	e := someEvent(1)
	e.What = "x\n\nid: 99\ndata: forged\r\rdata: forged"
	if err := NewStream(w).Event(e); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(w.Body.String(), "\n"); n != 3 || strings.Contains(w.Body.String(), "\r") {
		t.Errorf("it became %q", w.Body)
	}
}

// Without the token events of pools and zones are shown, and no others: of the
// page and the API alike.
func TestEventsWithoutTheToken(t *testing.T) {
	f := &fake{}
	for i, object := range []string{"pool/web/192.0.2.1", "zone/a.test", "site/a.test", "server/web1", "database", "poolside"} {
		f.events = append(f.events, upkeep.Event{ID: int64(i + 1), Kind: upkeep.EventWarning, Object: object, What: "of " + object})
	}
	a := newTestAPI(t, f)
	read := func(path, auth string) string {
		t.Helper()
		r := httptest.NewRequest("GET", path, nil)
		if auth != "" {
			r.Header.Set("Authorization", auth)
		}
		w := answer(a.Public(), r)
		if w.Code != http.StatusOK {
			t.Fatalf("%s answers %d: %s", path, w.Code, w.Body)
		}
		return w.Body.String()
	}
	for path, want := range map[string]bool{"/api/v1/events": true, "/api/v1/events?object=site/a.test": false} {
		said := read(path, "")
		if strings.Contains(said, "of site") || strings.Contains(said, "of server") || strings.Contains(said, "of database") || strings.Contains(said, "of poolside") {
			t.Errorf("%s shows a stranger %s", path, said)
		}
		if strings.Contains(said, "of pool/web") != want || strings.Contains(said, "of zone") != want {
			t.Errorf("%s shows %s", path, said)
		}
	}
	if said := read("/api/v1/events", "Bearer "+testToken); !strings.Contains(said, "of site") || !strings.Contains(said, "of database") {
		t.Errorf("with the token: %s", said)
	}
}
