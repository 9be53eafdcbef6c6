package probe

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"upkeep"
)

// observer collects the results of one member.
type observer struct {
	mu      sync.Mutex
	results []Result
	next    Next
	came    chan struct{} // one token for each result, as far as it holds
}

func newObserver() *observer { return &observer{came: make(chan struct{}, 10_000)} }

func (o *observer) observe(r Result) Next {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.results = append(o.results, r)
	select {
	case o.came <- struct{}{}:
	default:
	}
	return o.next
}

// wait waits for the n-th result from now on and returns it.
func (o *observer) wait(t *testing.T, n int) Result {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for range n {
		select {
		case <-o.came:
		case <-deadline:
			t.Fatalf("no result within 20s; have %v", o.all())
		}
	}
	all := o.all()
	return all[len(all)-1]
}

func (o *observer) all() []Result {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Result(nil), o.results...)
}

func newEngine(t *testing.T, options Options) *Engine {
	t.Helper()
	e, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// once runs one check and returns its first result.
func once(t *testing.T, target string, c upkeep.Check) Result {
	t.Helper()
	return onceWith(t, Options{}, target, c)
}

func onceWith(t *testing.T, options Options, target string, c upkeep.Check) Result {
	t.Helper()
	c = c.WithDefaults()
	e := newEngine(t, options)
	o := newObserver()
	e.Set(map[Key]Spec{KeyOf(target, c): {Target: target, Check: c, Name: target, Observe: o.observe}})
	e.Kick(KeyOf(target, c))
	o.wait(t, 1)
	return o.all()[0]
}

func every(d time.Duration) upkeep.Duration { return upkeep.Duration(d) }

// port is that of a listener's address.
func port(t *testing.T, addr net.Addr) int {
	t.Helper()
	p, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return int(p.Port())
}

func TestTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := upkeep.Check{Type: upkeep.CheckTCP, Port: port(t, listener.Addr()), Interval: every(100 * time.Millisecond)}
	if r := once(t, "127.0.0.1", c); !r.OK || r.RTT <= 0 || r.At.IsZero() {
		t.Errorf("open port: %+v", r)
	}
	listener.Close()
	if r := once(t, "127.0.0.1", c); r.OK || !r.Refused || r.Reason != "connection refused" {
		t.Errorf("closed port: %+v", r)
	}
}

func TestPing(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "127.10.3.4", "::1"} {
		r := once(t, addr, upkeep.Check{Type: upkeep.CheckPing, Interval: every(100 * time.Millisecond)})
		if !r.OK || r.RTT <= 0 || r.RTT > time.Second {
			t.Errorf("%s: %+v", addr, r)
		}
	}
}

func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.URL.Query().Get("status"))
		w.WriteHeader(status)
	}))
	defer server.Close()
	c := upkeep.Check{Type: upkeep.CheckHTTP, Port: port(t, server.Listener.Addr()), Path: "/?status=204"}
	if r := once(t, "127.0.0.1", c); !r.OK || r.RTT <= 0 {
		t.Errorf("204: %+v", r)
	}
	c.Path = "/?status=503"
	if r := once(t, "127.0.0.1", c); r.OK || !r.Refused || r.Reason != "HTTP 503, wanted 200-399" {
		t.Errorf("503: %+v", r)
	}
}
