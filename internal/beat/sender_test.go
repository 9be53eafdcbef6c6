package beat

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"upkeep/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// desk is a receiver on a real socket.
type desk struct {
	t    *testing.T
	conn *net.UDPConn
	addr string
	done chan struct{}

	mu     sync.Mutex
	roll   *Roll
	keys   []Credential
	heard  []Heard
	count  [Outcomes]int
	deaf   int // answers to be lost from now on
	beats  [][]byte
	opened time.Time
}

func openDesk(t *testing.T, listen string, keys ...Credential) *desk {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", listen)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, conn: conn, addr: conn.LocalAddr().String(), done: make(chan struct{}), keys: keys, opened: time.Now()}
	d.restart()
	go d.run()
	t.Cleanup(d.close)
	return d
}

func (d *desk) close() {
	_ = d.conn.Close()
	<-d.done
}

// restart forgets everything, as a receiver that is started anew.
func (d *desk) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roll = NewRoll()
	d.roll.SetKeys(d.keys)
}

func (d *desk) rekey(keys ...Credential) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys = keys
	d.roll.SetKeys(keys)
}

func (d *desk) run() {
	defer close(d.done)
	buf := make([]byte, 2*Size)
	for {
		n, from, err := d.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		d.mu.Lock()
		heard := d.roll.Receive(time.Since(d.opened), buf[:n])
		d.beats = append(d.beats, append([]byte(nil), buf[:n]...))
		d.count[heard.Outcome]++
		if heard.Outcome == Accepted {
			d.heard = append(d.heard, heard)
		}
		deaf := d.deaf > 0 && heard.Reply != nil
		if deaf {
			d.deaf--
		}
		d.mu.Unlock()
		if heard.Reply != nil && !deaf {
			_, _ = d.conn.WriteToUDPAddrPort(heard.Reply, from)
		}
	}
}

func (d *desk) accepted() []Heard {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Heard(nil), d.heard...)
}

// await waits for n more accepted beats and returns the last.
func (d *desk) await(n int) Heard {
	d.t.Helper()
	n += len(d.accepted())
	testkit.Eventually(d.t, 20*time.Second, func() (bool, string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.heard) >= n, fmt.Sprintf("%d beats of %d, outcomes %v", len(d.heard), n, d.count)
	})
	heard := d.accepted()
	return heard[len(heard)-1]
}

// awaitHealth waits for a beat that says h.
func (d *desk) awaitHealth(h Health) {
	d.t.Helper()
	testkit.Eventually(d.t, 20*time.Second, func() (bool, string) {
		heard := d.accepted()
		if len(heard) == 0 {
			return false, "no beat"
		}
		last := heard[len(heard)-1].Health
		return last == h, fmt.Sprintf("%+v", last)
	})
}

func keyFile(t *testing.T, credentials ...Credential) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := WriteKeys(path, credentials...); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a sender; the function it returns stops it and waits.
func start(t *testing.T, o SenderOptions) (stop func()) {
	t.Helper()
	s, err := NewSender(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestSender(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		c := credential("192.0.2.1")
		d := openDesk(t, listen, c)
		ready := make(chan struct{})
		stop := start(t, SenderOptions{
			To: []string{d.addr}, KeyFile: keyFile(t, c), Interval: 50 * ms, Ready: func() { close(ready) },
		})
		<-ready
		if heard := d.await(10); heard.From != c || heard.Health != (Health{}) || heard.Interval != 50*ms {
			t.Errorf("got %+v", heard)
		}
		stop()
		heard := d.accepted()
		if last := heard[len(heard)-1].Health.State; last != Goodbye {
			t.Errorf("the last beat was %d, want a goodbye", last)
		}
		d.mu.Lock()
		if challenged := d.count[Challenged]; challenged != 1 || d.count[Replayed] != 0 {
			t.Errorf("outcomes %v, want one challenge", d.count)
		}
		d.mu.Unlock()
	}
}

func TestSenderToSeveralReceivers(t *testing.T) {
	c := credential("192.0.2.1")
	a, b := openDesk(t, "127.0.0.1:0", c), openDesk(t, "127.0.0.1:0", c)
	dead, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	stop := start(t, SenderOptions{
		To: []string{dead.LocalAddr().String(), a.addr, b.addr}, KeyFile: keyFile(t, c), Interval: 50 * ms,
	})
	a.await(5)
	b.await(5)
	stop()
	for _, d := range []*desk{a, b} {
		d.awaitHealth(Health{State: Goodbye})
	}
}

func TestReceiverRestart(t *testing.T) {
	c := credential("192.0.2.1")
	d := openDesk(t, "127.0.0.1:0", c)
	stop := start(t, SenderOptions{To: []string{d.addr}, KeyFile: keyFile(t, c), Interval: 50 * ms})
	d.await(3)
	d.restart()
	d.await(3)
	d.restart() // and the goodbye comes to one that knows nothing
	stop()
	d.awaitHealth(Health{State: Goodbye})
}

func TestReceiverThatComesLater(t *testing.T) {
	c := credential("192.0.2.1")
	first := openDesk(t, "127.0.0.1:0", c)
	first.close()
	start(t, SenderOptions{To: []string{first.addr}, KeyFile: keyFile(t, c), Interval: 50 * ms})
	openDesk(t, first.addr, c).await(3)
}

func TestSenderRestart(t *testing.T) {
	c := credential("192.0.2.1")
	d := openDesk(t, "127.0.0.1:0", c)
	for range 3 {
		stop := start(t, SenderOptions{To: []string{d.addr}, KeyFile: keyFile(t, c), Interval: 50 * ms})
		d.await(3)
		stop()
		d.awaitHealth(Health{State: Goodbye})
	}
}

func TestGoodbyeIsRepeatedUntilAcknowledged(t *testing.T) {
	c := credential("192.0.2.1")
	d := openDesk(t, "127.0.0.1:0", c)
	stop := start(t, SenderOptions{To: []string{d.addr}, KeyFile: keyFile(t, c), Interval: time.Second})
	d.await(1)
	d.mu.Lock()
	d.deaf = 3
	d.mu.Unlock()
	stop()
	goodbyes := 0
	for _, heard := range d.accepted() {
		if heard.Health.State == Goodbye {
			goodbyes++
		}
	}
	if goodbyes != 4 {
		t.Errorf("%d goodbyes, want one more than the answers that were lost", goodbyes)
	}
}

func TestNewKey(t *testing.T) {
	old, fresh := credential("192.0.2.1"), credential("192.0.2.1")
	d := openDesk(t, "127.0.0.1:0", old)
	path := keyFile(t, old)
	start(t, SenderOptions{To: []string{d.addr}, KeyFile: path, Interval: 50 * ms})
	d.await(2)
	// What cannot be read changes nothing.
	if err := os.WriteFile(path, []byte("half a li"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.await(2)
	if err := os.WriteFile(path, FormatKeys(fresh), 0o600); err != nil {
		t.Fatal(err)
	}
	d.rekey(fresh)
	if heard := d.await(2); heard.From != fresh {
		t.Errorf("got %+v", heard)
	}
}

func TestNewSenderRefuses(t *testing.T) {
	one, two := credential("192.0.2.1"), credential("192.0.2.2")
	single, double := keyFile(t, one), keyFile(t, one, two)
	ok := SenderOptions{To: []string{"127.0.0.1:1"}, KeyFile: single, Interval: time.Second}
	if s, err := NewSender(ok); err != nil || s.ID() != one.ID {
		t.Fatalf("got %v, %v", s, err)
	}
	for want, change := range map[string]func(*SenderOptions){
		"must be 50ms to 1h":              func(o *SenderOptions) { o.Interval = ms },
		"a receiver is required":          func(o *SenderOptions) { o.To = nil },
		`"127.0.0.1" must be HOST:PORT`:   func(o *SenderOptions) { o.To = []string{"127.0.0.1"} },
		`":5301" must be HOST:PORT`:       func(o *SenderOptions) { o.To = []string{":5301"} },
		"port must be 1 to 65535":         func(o *SenderOptions) { o.To = []string{"127.0.0.1:99999"} },
		"is given twice":                  func(o *SenderOptions) { o.To = []string{"a:1", "a:1"} },
		"holds the keys of 2 members":     func(o *SenderOptions) { o.KeyFile = double },
		"holds no key for 192.0.2.3":      func(o *SenderOptions) { o.As = "192.0.2.3" },
		"is not an address":               func(o *SenderOptions) { o.As = "no good" },
		"no such file":                    func(o *SenderOptions) { o.KeyFile = "/nonexistent" },
		"the command must name a program": func(o *SenderOptions) { o.Command = &Command{Every: time.Second, Timeout: time.Second} },
		"command interval 1ms must be":    func(o *SenderOptions) { o.Command = &Command{Argv: []string{"true"}, Every: ms, Timeout: ms} },
		"command timeout 0s must be":      func(o *SenderOptions) { o.Command = &Command{Argv: []string{"true"}, Every: time.Second} },
	} {
		o := ok
		change(&o)
		if _, err := NewSender(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	o := ok
	o.KeyFile, o.As = double, "192.0.2.2"
	if s, err := NewSender(o); err != nil || s.ID() != two.ID {
		t.Errorf("got %v, %v", s, err)
	}
}

func TestCommandDecides(t *testing.T) {
	c := credential("192.0.2.1")
	d := openDesk(t, "127.0.0.1:0", c)
	flag := filepath.Join(t.TempDir(), "well")
	stop := start(t, SenderOptions{
		To: []string{d.addr}, KeyFile: keyFile(t, c), Interval: 50 * ms,
		Command: &Command{Argv: []string{"test", "-e", flag}, Every: 100 * ms, Timeout: 10 * time.Second},
	})
	d.await(1)
	if first := d.accepted()[0].Health; first != (Health{NotWell, CauseExit, 1}) {
		t.Errorf("the first beat says %+v, before the command was asked", first)
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.awaitHealth(Health{})
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	d.awaitHealth(Health{NotWell, CauseExit, 1})
	stop()
	d.awaitHealth(Health{State: Goodbye})
}

func TestCommandOutcomes(t *testing.T) {
	for _, tt := range []struct {
		argv    []string
		timeout time.Duration
		want    Health
	}{
		{[]string{"true"}, time.Minute, Health{}},
		{[]string{"sh", "-c", "exit 255"}, time.Minute, Health{NotWell, CauseExit, 255}},
		{[]string{"sh", "-c", "kill -9 $$"}, time.Minute, Health{NotWell, CauseSignal, 9}},
		{[]string{"sleep", "60"}, 20 * ms, Health{NotWell, CauseTimeout, 0}},
		// A child that ignores TERM and holds the output open ends, too.
		{[]string{"sh", "-c", "trap '' TERM; sleep 60 & wait"}, 20 * ms, Health{NotWell, CauseTimeout, 0}},
		{[]string{"/nonexistent"}, time.Minute, Health{NotWell, CauseNotStarted, 0}},
		// No shell: the text is one argument.
		{[]string{"test", "-n", "; exit 3"}, time.Minute, Health{}},
		{[]string{"sh", "-c", "yes | head -c 1000000"}, time.Minute, Health{}},
	} {
		command := Command{Argv: tt.argv, Timeout: tt.timeout}
		if got := command.run(context.Background(), slog.New(slog.DiscardHandler), Health{}); got != tt.want {
			t.Errorf("%q: got %+v, want %+v", tt.argv, got, tt.want)
		}
	}
}

func TestOutputLine(t *testing.T) {
	var h head
	for _, text := range []string{"\n DISK CRITICAL\x1b[31m \xff", strings.Repeat("x", 2*maxOutput)} {
		if n, err := h.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	}
	if got := h.line(); !strings.HasPrefix(got, "DISK CRITICAL?[31m ?xxx") || len(got) > maxOutput {
		t.Errorf("got %.40q", got)
	}
}
