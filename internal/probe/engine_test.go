package probe

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

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

// TestSetKeepsTheSchedule sees that members that stay are not disturbed.
func TestSetKeepsTheSchedule(t *testing.T) {
	e := newEngine(t, Options{})
	c := upkeep.Check{Type: upkeep.CheckPing, Interval: every(time.Hour)}
	first, second := newObserver(), newObserver()
	key := KeyOf("127.0.0.1", c)
	e.Set(map[Key]Spec{key: {Target: "127.0.0.1", Check: c, Observe: first.observe}})
	first.wait(t, 1)
	m := e.members[key]
	place := func() [2]time.Duration {
		m.loop.mu.Lock()
		defer m.loop.mu.Unlock()
		return [2]time.Duration{m.due, m.slotAt}
	}
	before := place()
	for i := range 100 {
		other := fmt.Sprintf("127.0.1.%d", i+1)
		e.Set(map[Key]Spec{
			key:             {Target: "127.0.0.1", Check: c, Observe: second.observe},
			KeyOf(other, c): {Target: other, Check: c, Observe: newObserver().observe},
		})
	}
	if e.members[key] != m || place() != before {
		t.Error("a member that stays lost its place")
	}
	e.Kick(key)
	second.wait(t, 1)
	if n := len(first.all()); n != 1 {
		t.Errorf("the old observer was called %d times", n)
	}
}

// TestKeyOf tells apart what differs and nothing else.
func TestKeyOf(t *testing.T) {
	c := upkeep.Check{Type: upkeep.CheckHTTP}
	written := c.WithDefaults()
	if KeyOf("a", c) != KeyOf("a", written) {
		t.Error("a default that is written out makes another key")
	}
	other := c
	other.Path = "/x"
	if KeyOf("a", c) == KeyOf("a", other) || KeyOf("a", c) == KeyOf("b", c) {
		t.Error("different measurements share a key")
	}
}

// TestDefinitionsAreShared sees that what is common is kept once and given up
// with its last member.
func TestDefinitionsAreShared(t *testing.T) {
	e := newEngine(t, Options{})
	c := upkeep.Check{Type: upkeep.CheckHTTP, Body: "x", Interval: every(time.Hour)}
	specs := map[Key]Spec{}
	for i := range 10 {
		target := fmt.Sprintf("127.0.0.%d", i+1)
		specs[KeyOf(target, c)] = Spec{Target: target, Check: c, Observe: newObserver().observe}
	}
	e.Set(specs)
	if len(e.defs) != 1 {
		t.Errorf("%d definitions", len(e.defs))
	}
	e.Set(nil)
	if len(e.defs) != 0 || len(e.members) != 0 {
		t.Errorf("%d definitions and %d members are left", len(e.defs), len(e.members))
	}
}

// mixed is a member of each check type that is asked, with targets that answer
// and targets that do not.
func mixed(t *testing.T, observe func(Key) func(Result) Next) map[Key]Spec {
	t.Helper()
	open := serve(t, func(conn net.Conn) {
		readRequest(conn)
		_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	})
	silent := serve(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	specs := map[Key]Spec{}
	add := func(target string, c upkeep.Check) {
		c.Interval, c.Timeout = every(50*time.Millisecond), every(40*time.Millisecond)
		key := KeyOf(target, c)
		specs[key] = Spec{Target: target, Name: target, Check: c, Observe: observe(key)}
	}
	for i := range 20 {
		target := fmt.Sprintf("127.0.0.%d", i+1)
		add(target, upkeep.Check{Type: upkeep.CheckPing})
		add(target, upkeep.Check{Type: upkeep.CheckTCP, Port: open})
		add("127.0.0.1", upkeep.Check{Type: upkeep.CheckHTTP, Port: open, Path: fmt.Sprintf("/%d", i)})
		add("127.0.0.1", upkeep.Check{Type: upkeep.CheckHTTP, Port: silent, Path: fmt.Sprintf("/%d", i)})
		add("127.0.0.1", upkeep.Check{Type: upkeep.CheckHTTPS, Port: silent, Path: fmt.Sprintf("/%d", i)})
		add("127.0.0.1", upkeep.Check{Type: upkeep.CheckDNS, Port: silent, Query: fmt.Sprintf("x%d.example.test", i)})
	}
	add("localhost", upkeep.Check{Type: upkeep.CheckTCP, Port: open})
	add("127.0.0.1", upkeep.Check{Type: upkeep.CheckExec, Command: []string{"/bin/sleep", "10"}})
	return specs
}

// TestSetOften sets and unsets members 10,000 times while they are probed, with
// probes in flight all the time. No observer hears of a probe once its key is
// gone, none is called from two goroutines at once, and nothing is left behind.
func TestSetOften(t *testing.T) {
	goroutines := goleak.IgnoreCurrent()
	descriptors := openFiles(t)
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wanted, inside sync.Map // by key
	var results atomic.Int64
	all := mixed(t, func(key Key) func(Result) Next {
		return func(Result) Next {
			results.Add(1)
			if _, ok := wanted.Load(key); !ok {
				t.Errorf("%s was observed although it is gone", key)
			}
			if _, taken := inside.LoadOrStore(key, true); taken {
				t.Errorf("%s was observed twice at once", key)
			}
			inside.Delete(key)
			return Next{After: time.Millisecond, Timeout: 20 * time.Millisecond}
		}
	})
	keys := slices.Collect(maps.Keys(all))
	random := rand.New(rand.NewPCG(1, 2))
	specs := map[Key]Spec{}
	for range 10_000 {
		// A few come and a few go.
		for range 1 + random.IntN(4) {
			key := keys[random.IntN(len(keys))]
			if _, there := specs[key]; there {
				delete(specs, key)
			} else {
				specs[key] = all[key]
				wanted.Store(key, true)
			}
		}
		e.Set(specs)
		wanted.Range(func(key, _ any) bool {
			if _, there := specs[key.(Key)]; !there {
				wanted.Delete(key)
			}
			return true
		})
	}
	if results.Load() == 0 {
		t.Error("nothing was probed meanwhile")
	}
	if s := e.Stats(); s.Strays > 0 {
		t.Logf("answers of members that were gone: %d", s.Strays)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	wanted.Clear()
	if err := e.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	e.Set(all) // of no effect
	goleak.VerifyNone(t, goroutines, goleak.IgnoreAnyFunction("upkeep/internal/probe.serve.func2"),
		goleak.IgnoreAnyFunction("upkeep/internal/probe.serve.func2.1"))
	eventually(t, "all descriptors are closed", func() bool { return openFiles(t) <= descriptors+2 /* the servers' */ })
}

// openFiles counts the descriptors of this process that are not the far ends of
// connections, which the test's own servers close in their own time.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
