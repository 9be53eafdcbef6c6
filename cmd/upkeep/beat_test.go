package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"upkeep/internal/beat"
	"upkeep/internal/testkit"
)

// TestProcess is not a test: it is upkeep itself, for tests that need a process
// of it to kill.
func TestProcess(*testing.T) {
	args, is := os.LookupEnv("UPKEEP_TEST_ARGS")
	if !is {
		return
	}
	os.Exit(run(strings.Split(args, "\n"), os.Stdin, os.Stdout, os.Stderr))
}

// startUpkeep runs a verb in a process of its own.
func startUpkeep(t *testing.T, env []string, args ...string) *testkit.Process {
	t.Helper()
	return testkit.Command{
		Argv: []string{os.Args[0], "-test.run=^TestProcess$"},
		Env:  append(append(os.Environ(), "UPKEEP_TEST_ARGS="+strings.Join(args, "\n")), env...),
	}.Start(t)
}

// receiver hears beats on a real socket.
type receiver struct {
	addr string
	mu   sync.Mutex
	last []beat.Heard
}

func newReceiver(t *testing.T, c beat.Credential) *receiver {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r := &receiver{addr: conn.LocalAddr().String()}
	roll := beat.NewRoll()
	roll.SetKeys([]beat.Credential{c})
	began := time.Now()
	go func() {
		buf := make([]byte, 2*beat.Size)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			heard := roll.Receive(time.Since(began), buf[:n])
			if heard.Reply != nil {
				_, _ = conn.WriteToUDPAddrPort(heard.Reply, from)
			}
			if heard.Outcome == beat.Accepted {
				r.mu.Lock()
				r.last = append(r.last, heard)
				r.mu.Unlock()
			}
		}
	}()
	return r
}

func (r *receiver) heard() []beat.Heard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]beat.Heard(nil), r.last...)
}

func (r *receiver) await(t *testing.T, n int) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		heard := r.heard()
		return len(heard) >= n, fmt.Sprintf("%d beats", len(heard))
	})
}

func goodbyes(heard []beat.Heard) (n int) {
	for _, h := range heard {
		if h.Health.State == beat.Goodbye {
			n++
		}
	}
	return n
}

func beatKey(t *testing.T) (beat.Credential, string) {
	t.Helper()
	c := beat.Credential{ID: "192.0.2.1", Secret: beat.NewSecret()}
	path := filepath.Join(t.TempDir(), "beat.key")
	if err := beat.WriteKeys(path, c); err != nil {
		t.Fatal(err)
	}
	return c, path
}

func TestBeatSaysGoodbyeWhenStopped(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		c, key := beatKey(t)
		r := newReceiver(t, c)
		p := startUpkeep(t, nil, "beat", "--to", r.addr, "--key", key, "--interval", "50ms")
		r.await(t, 3)
		p.Signal(t, signal)
		if err := p.Wait(); err != nil {
			t.Errorf("%s: %v", signal, err)
		}
		heard := r.heard()
		if goodbyes(heard) == 0 || heard[len(heard)-1].Health.State != beat.Goodbye {
			t.Errorf("%s: no goodbye at the end of %d beats", signal, len(heard))
		}
		if !strings.Contains(p.Log(), "said goodbye") {
			t.Errorf("%s: the log does not say so:\n%s", signal, p.Log())
		}
	}
}

func TestBeatIsSilentWhenKilled(t *testing.T) {
	c, key := beatKey(t)
	r := newReceiver(t, c)
	p := startUpkeep(t, nil, "beat", "--to", r.addr, "--key", key, "--interval", "50ms")
	r.await(t, 3)
	p.Kill()
	if n := goodbyes(r.heard()); n != 0 {
		t.Errorf("%d goodbyes from a process that was killed", n)
	}
}

func TestBeatTellsTheServiceManager(t *testing.T) {
	c, key := beatKey(t)
	r := newReceiver(t, c)
	socket := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	read := func() string {
		buf := make([]byte, 500)
		if err := manager.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := manager.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	p := startUpkeep(t, []string{"NOTIFY_SOCKET=" + socket}, "beat", "--to", r.addr, "--key", key, "--interval", "50ms")
	if got, want := read(), "READY=1\nSTATUS=beating to "+r.addr; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.Signal(t, syscall.SIGTERM)
	if got := read(); got != "STOPPING=1" {
		t.Errorf("got %q", got)
	}
}

func TestBeatWithCommand(t *testing.T) {
	c, key := beatKey(t)
	r := newReceiver(t, c)
	startUpkeep(t, nil, "beat", "--to", r.addr, "--key", key, "--interval", "50ms", "--", "test", "-e", "/nonexistent; true")
	r.await(t, 1)
	if got := r.heard()[0].Health; got.State != beat.NotWell {
		t.Errorf("got %+v", got)
	}
}

func TestBeatWrongUsage(t *testing.T) {
	_, key := beatKey(t)
	open := filepath.Join(t.TempDir(), "open.key")
	if err := os.WriteFile(open, beat.FormatKeys(beat.Credential{ID: "192.0.2.1"}), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"beat"}, exitUsage, "--to is required"},
		{[]string{"beat", "--to", "127.0.0.1:1"}, exitUsage, "--key is required"},
		{[]string{"beat", "--to", "127.0.0.1:1", "--key", key, "stray"}, exitUsage, `takes no argument such as "stray"`},
		{[]string{"beat", "--to", "127.0.0.1", "--key", key}, exitFailed, "must be HOST:PORT"},
		{[]string{"beat", "--to", "127.0.0.1:1", "--key", open}, exitFailed, "hint: chmod 600 " + open},
		{[]string{"beat", "--to", "127.0.0.1:1", "--key", key, "--interval", "1ms"}, exitFailed, "must be 50ms to 1h"},
		{[]string{"beat", "keygen"}, exitUsage, "at least one member"},
		{[]string{"beat", "keygen", "no good"}, exitUsage, "not an address or a host name"},
	} {
		var out, errs bytes.Buffer
		status := run(tt.args, nil, &out, &errs)
		if status != tt.status || !strings.Contains(errs.String(), tt.want) {
			t.Errorf("%q: status %d, %q; want %d with %q", tt.args, status, errs.String(), tt.status, tt.want)
		}
	}
}

func TestBeatKeygen(t *testing.T) {
	upkeep := func(args ...string) (string, int) {
		var out bytes.Buffer
		status := run(append([]string{"beat", "keygen"}, args...), nil, &out, &out)
		return out.String(), status
	}
	text, status := upkeep("192.0.2.1")
	if printed, err := beat.ParseKeys("-", []byte(text)); status != 0 || err != nil || len(printed) != 1 {
		t.Errorf("status %d, %v: %s", status, err, text)
	}

	dir := t.TempDir()
	keys, members := filepath.Join(dir, "beat.keys"), filepath.Join(dir, "members")
	text, status = upkeep("--key", keys, "--members", members, "192.0.2.1", "2001:db8::1")
	if status != 0 || strings.Contains(text, "=") {
		t.Fatalf("status %d, or a secret was printed: %s", status, text)
	}
	all, err := beat.ReadKeys(keys)
	if err != nil || len(all) != 2 {
		t.Fatalf("got %v, %v", all, err)
	}
	for _, c := range all {
		own, err := beat.ReadKeys(filepath.Join(members, c.ID+".key"))
		if err != nil || len(own) != 1 || own[0] != c {
			t.Errorf("%s: got %v, %v", c.ID, own, err)
		}
	}

	// A second key for a member is refused, and nothing is left of the attempt.
	before, _ := os.ReadFile(keys)
	if text, status := upkeep("--key", keys, "--members", filepath.Join(dir, "again"), "192.0.2.3", "192.0.2.1"); status != exitFailed {
		t.Errorf("status %d: %s", status, text)
	}
	if text, status := upkeep("--key", keys, "--members", members, "192.0.2.4", "192.0.2.1"); status != exitFailed || !strings.Contains(text, "remove it if") {
		t.Errorf("status %d: %s", status, text)
	}
	if after, _ := os.ReadFile(keys); !bytes.Equal(before, after) {
		t.Errorf("the receiver's file was changed:\n%s", after)
	}
	for _, pattern := range []string{"again/*", "members/192.0.2.4*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) != 0 {
			t.Errorf("left over: %v", left)
		}
	}
}
