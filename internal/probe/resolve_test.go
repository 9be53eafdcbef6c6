package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upkeep"
)

// directory is a resolver that says what the test puts in.
type directory struct {
	mu      sync.Mutex
	addrs   []netip.Addr
	err     error
	delay   time.Duration
	lookups int
}

func (d *directory) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	d.mu.Lock()
	d.lookups++
	delay := d.delay
	d.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]netip.Addr(nil), d.addrs...), d.err
}

func (d *directory) say(err error, addrs ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.addrs = err, nil
	for _, a := range addrs {
		d.addrs = append(d.addrs, netip.MustParseAddr(a))
	}
}

func TestResolution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &directory{delay: time.Second}
		n := newNames(d)
		defer n.close()
		gone := &net.DNSError{Err: "no such host\x1b", Name: "x", IsNotFound: true}
		d.say(gone)
		r := n.watch("www.example.test", netip.Addr{})
		if again := n.watch("www.example.test", netip.Addr{}); again != r {
			t.Error("a name is looked up twice")
		}
		expect := func(what, addr, reason string, known bool) {
			t.Helper()
			synctest.Wait()
			a, why, k := r.current()
			if k != known || why != reason || a.IsValid() != (addr != "") || addr != "" && a != netip.MustParseAddr(addr) {
				t.Errorf("%s: %v, %q, %v; want %s, %q, %v", what, a, why, k, addr, reason, known)
			}
		}
		expect("before the first lookup is over", "", "", false)
		time.Sleep(1500 * time.Millisecond)
		expect("no such name", "", "no address for www.example.test: no such host", true)
		d.say(nil, "::ffff:192.0.2.1", "192.0.2.2")
		time.Sleep(10 * time.Second)
		expect("found", "192.0.2.1", "", true)
		d.say(nil, "192.0.2.2", "192.0.2.1")
		time.Sleep(time.Minute)
		expect("rotated", "192.0.2.1", "", true)
		d.say(nil, "192.0.2.3")
		time.Sleep(time.Minute)
		expect("moved", "192.0.2.3", "", true)
		d.say(errors.New("broken"))
		time.Sleep(time.Minute)
		expect("the last good answer stands", "192.0.2.3", "", true)
		d.mu.Lock()
		d.delay = time.Hour
		d.mu.Unlock()
		time.Sleep(time.Minute)
		expect("silent name servers", "192.0.2.3", "", true)
		n.leave(r)
		n.leave(r)
		synctest.Wait()
		before := d.lookups
		time.Sleep(time.Hour)
		if d.lookups != before {
			t.Error("a name is looked up that nobody needs")
		}
	})
}

// TestNames has a target that is a name.
func TestNames(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := tcp(port(t, listener.Addr()), time.Second)
	d := &directory{}
	d.say(nil, "127.0.0.1")
	same(t, "found", onceWith(t, Options{Resolver: d}, "www.example.test", c),
		Result{OK: true, Addr: netip.MustParseAddr("127.0.0.1")})
	d.say(&net.DNSError{Err: "x", IsNotFound: true})
	same(t, "not found", onceWith(t, Options{Resolver: d}, "www.example.test", c),
		Result{Void: true, Reason: "no address for www.example.test: no such host"})
}

// TestNamesDelayNobody has name servers that do not answer.
func TestNamesDelayNobody(t *testing.T) {
	e := newEngine(t, Options{Resolver: &directory{delay: time.Hour}})
	named, plain := newObserver(), newObserver()
	c := upkeep.Check{Type: upkeep.CheckPing, Interval: every(50 * time.Millisecond)}
	e.Set(map[Key]Spec{
		"named": {Target: "www.example.test", Check: c, Observe: named.observe},
		"plain": {Target: "127.0.0.1", Check: c, Observe: plain.observe},
	})
	if r := plain.wait(t, 5); !r.OK {
		t.Errorf("got %+v", r)
	}
	if all := named.all(); len(all) != 0 {
		t.Errorf("a name that was not looked up yet has results: %+v", all)
	}
}

// TestNamesKnownFromAnEarlierLife starts while name servers fail.
func TestNamesKnownFromAnEarlierLife(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := tcp(port(t, listener.Addr()), time.Second)
	d := &directory{}
	d.say(&net.DNSError{Err: "x", IsTimeout: true})
	e, o := newEngine(t, Options{Resolver: d}), newObserver()
	known := netip.MustParseAddr("127.0.0.1")
	e.Set(map[Key]Spec{"named": {Target: "www.example.test", Known: known, Check: c, Observe: o.observe}})
	o.wait(t, 1)
	same(t, "asked where it was", o.all()[0], Result{OK: true, Addr: known})
}
