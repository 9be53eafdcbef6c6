package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/beat"
	"upkeep/internal/testkit"
)

const ms = time.Millisecond

// beatBench is an engine that takes heartbeats, and a member that can send them.
type beatBench struct {
	t      *testing.T
	engine *Engine
	addr   string
	keys   string
	check  upkeep.Check
	specs  map[Key]Spec
	own    map[string]beat.Credential
}

func newBeatBench(t *testing.T, interval time.Duration, ids ...string) *beatBench {
	t.Helper()
	b := &beatBench{
		t: t, addr: fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), keys: filepath.Join(t.TempDir(), "keys"),
		specs: map[Key]Spec{}, own: map[string]beat.Credential{},
	}
	made, err := beat.NewCredentials(ids)
	if err != nil {
		t.Fatal(err)
	}
	if err := beat.WriteKeys(b.keys, made...); err != nil {
		t.Fatal(err)
	}
	for _, c := range made {
		b.own[c.ID] = c
	}
	b.check = upkeep.Check{Type: upkeep.CheckHeartbeat, KeyFile: b.keys, Interval: every(interval)}.WithDefaults()
	b.restart()
	return b
}

// restart begins with an engine that remembers nothing, at the same address.
func (b *beatBench) restart() {
	if b.engine != nil {
		_ = b.engine.Close()
	}
	b.engine = newEngine(b.t, Options{HeartbeatListen: b.addr})
	b.engine.Set(b.specs)
}

func (b *beatBench) watch(id string) *observer {
	o := newObserver()
	b.specs[KeyOf(id, b.check)] = Spec{Target: id, Name: id, Check: b.check, Observe: o.observe}
	b.engine.Set(b.specs)
	return o
}

// send runs a sender for the member; the function it returns stops it.
func (b *beatBench) send(id string, interval time.Duration, command ...string) (stop func()) {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "key")
	if err := beat.WriteKeys(path, b.own[id]); err != nil {
		b.t.Fatal(err)
	}
	o := beat.SenderOptions{To: []string{b.addr}, KeyFile: path, Interval: interval}
	if len(command) > 0 {
		o.Command = &beat.Command{Argv: command, Every: 100 * ms, Timeout: 10 * time.Second}
	}
	s, err := beat.NewSender(o)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

// until waits for a result that fits.
func until(t *testing.T, o *observer, what string, fits func(Result) bool) Result {
	t.Helper()
	deadline := time.After(20 * time.Second)
	seen := 0
	for {
		for all := o.all(); seen < len(all); seen++ {
			if fits(all[seen]) {
				return all[seen]
			}
		}
		select {
		case <-o.came:
		case <-deadline:
			all := o.all()
			t.Fatalf("no result that is %s; have %d, the last being %v", what, len(all), all[max(0, len(all)-5):])
		}
	}
}

func (o *observer) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.results = nil
}

func isOK(r Result) bool      { return r.OK }
func isSilence(r Result) bool { return !r.OK && !r.Refused && !r.Goodbye && !r.Void }

// wire is a member whose datagrams the test makes and keeps.
type wire struct {
	t       *testing.T
	conn    net.Conn
	session *beat.Session
	began   time.Time
}

func (b *beatBench) wire(c beat.Credential) *wire {
	b.t.Helper()
	conn, err := net.Dial("udp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	return &wire{t: b.t, conn: conn, session: beat.NewSession(c, 50*ms), began: time.Now()}
}

func (w *wire) make(h beat.Health) []byte { return w.session.Beat(time.Since(w.began), h) }

func (w *wire) send(datagrams ...[]byte) {
	w.t.Helper()
	for _, datagram := range datagrams {
		if _, err := w.conn.Write(datagram); err != nil && !errors.Is(err, net.ErrClosed) {
			w.t.Log(err) // refused, while the engine restarts
		}
	}
}

// answer reads one datagram from the receiver; nil when there is none.
func (w *wire) answer(wait time.Duration) []byte {
	w.t.Helper()
	if err := w.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		w.t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, err := w.conn.Read(buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// greet makes the session known to the receiver.
func (w *wire) greet() {
	w.t.Helper()
	testkit.Eventually(w.t, 20*time.Second, func() (bool, string) {
		w.send(w.make(beat.Health{}))
		return w.session.Hear(w.answer(200*ms)) == beat.BeatNow, "no challenge came"
	})
	w.send(w.make(beat.Health{}))
}

func TestHeartbeat(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	o := b.watch("192.0.2.1")
	stop := b.send("192.0.2.1", 50*ms)
	r := until(t, o, "ok", isOK)
	if r.At.IsZero() || r.RTT != 0 || r.Warning != "" || r.Reason != "" {
		t.Errorf("got %+v", r)
	}
	o.forget()
	stop()
	r = until(t, o, "a goodbye", func(r Result) bool { return r.Goodbye })
	if r.OK || r.Reason != "its heartbeat was stopped in good order" {
		t.Errorf("got %+v", r)
	}
	r = until(t, o, "silence", isSilence)
	if !strings.Contains(r.Reason, "said goodbye") {
		t.Errorf("got %+v", r)
	}
	goodbyes := 0
	for _, r := range o.all() {
		if r.Goodbye {
			goodbyes++
		}
	}
	if goodbyes != 1 {
		t.Errorf("%d goodbyes were reported", goodbyes)
	}
	o.forget()
	b.send("192.0.2.1", 50*ms)
	until(t, o, "ok again", isOK)
	if results := b.engine.Stats().Results; results.OK == 0 || results.Goodbye != 1 || results.Silent == 0 {
		t.Errorf("results %+v", results)
	}
	if stats := b.engine.Stats().Beats; stats.Outcomes[beat.Accepted] == 0 || stats.Outcomes[beat.Challenged] == 0 || stats.Lost != 0 {
		t.Errorf("stats %+v", stats)
	}
}

func TestHeartbeatNeverBegun(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	r := until(t, b.watch("192.0.2.1"), "silence", isSilence)
	if !strings.HasPrefix(r.Reason, "no heartbeat since this check began") {
		t.Errorf("got %+v", r)
	}
}

// TestHeartbeatMissed counts the failures that silence makes: one an interval.
func TestHeartbeatMissed(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	o := b.watch("192.0.2.1")
	w := b.wire(b.own["192.0.2.1"])
	w.greet()
	until(t, o, "ok", isOK)
	var silent []Result
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		silent = nil
		for _, r := range o.all() {
			if isSilence(r) && strings.HasPrefix(r.Reason, "no heartbeat for ") {
				silent = append(silent, r)
			}
		}
		return len(silent) >= 10, fmt.Sprint(silent)
	})
	for i := 1; i < len(silent); i++ {
		// Reports are never closer than the schedule; later they may be.
		if gap := silent[i].At.Sub(silent[0].At); gap < time.Duration(i)*50*ms-30*ms {
			t.Errorf("miss %d came %s after the first", i, gap)
		}
	}
}

func TestHeartbeatNotWell(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	o := b.watch("192.0.2.1")
	flag := filepath.Join(t.TempDir(), "well")
	b.send("192.0.2.1", 50*ms, "test", "-e", flag)
	r := until(t, o, "refused", func(r Result) bool { return r.Refused })
	if r.OK || r.Goodbye || r.Reason != "not well: its own command exited with status 1" {
		t.Errorf("got %+v", r)
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, o, "ok", isOK)
}

// TestHeartbeatReplay plays everything that a member ever sent to a receiver that
// was restarted, and to one that was not, after the member died.
func TestHeartbeatReplay(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	o := b.watch("192.0.2.1")
	w := b.wire(b.own["192.0.2.1"])
	w.greet()
	var recorded [][]byte
	for range 30 {
		datagram := w.make(beat.Health{})
		recorded = append(recorded, datagram)
		w.send(datagram)
	}
	recorded = append(recorded, w.make(beat.Health{})) // one that never arrived before the restart
	until(t, o, "ok", isOK)
	until(t, o, "silence", func(r Result) bool { return strings.HasPrefix(r.Reason, "no heartbeat for ") })

	accepted := b.engine.Stats().Beats.Outcomes[beat.Accepted]
	w.send(recorded[:30]...)
	b.awaitOutcome(beat.Replayed, 30)
	if got := b.engine.Stats().Beats.Outcomes[beat.Accepted]; got != accepted {
		t.Errorf("%d replayed beats were accepted", got-accepted)
	}

	b.restart()
	o.forget()
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		w.send(recorded...)
		outcomes := b.engine.Stats().Beats.Outcomes
		return outcomes[beat.Challenged] >= 100, fmt.Sprint(outcomes)
	})
	until(t, o, "silence", isSilence)
	if outcomes := b.engine.Stats().Beats.Outcomes; outcomes[beat.Accepted] != 0 {
		t.Errorf("a recorded beat was accepted after the restart: %v", outcomes)
	}
	for _, r := range o.all() {
		if r.OK {
			t.Errorf("the dead member was called alive: %+v", r)
		}
	}
}

func (b *beatBench) awaitOutcome(outcome beat.Outcome, n uint64) {
	b.t.Helper()
	testkit.Eventually(b.t, 20*time.Second, func() (bool, string) {
		outcomes := b.engine.Stats().Beats.Outcomes
		return outcomes[outcome] >= n, fmt.Sprintf("%s: %v", outcome, outcomes)
	})
}

func TestHeartbeatRefusesOthers(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1", "192.0.2.2")
	o := b.watch("192.0.2.1")
	b.watch("192.0.2.2")
	b.wire(b.own["192.0.2.2"]).greet() // so the receiver is open and knows both

	mine := b.own["192.0.2.1"]
	for name, tt := range map[string]struct {
		datagram []byte
		want     beat.Outcome
	}{
		"another member's key": {beat.NewSession(beat.Credential{ID: mine.ID, Secret: b.own["192.0.2.2"].Secret}, time.Second).Beat(0, beat.Health{}), beat.Forged},
		"unknown member":       {beat.NewSession(beat.Credential{ID: "192.0.2.9", Secret: mine.Secret}, time.Second).Beat(0, beat.Health{}), beat.Stranger},
		"cut short":            {beat.NewSession(mine, time.Second).Beat(0, beat.Health{})[:beat.Size-1], beat.Malformed},
		"too long":             {append(beat.NewSession(mine, time.Second).Beat(0, beat.Health{}), make([]byte, 1000)...), beat.Malformed},
		"nothing":              {nil, beat.Malformed},
		"noise":                {[]byte(strings.Repeat("UKB1", beat.Size/4)), beat.Malformed},
	} {
		before := b.engine.Stats().Beats.Outcomes[tt.want]
		w := b.wire(mine)
		w.send(tt.datagram)
		b.awaitOutcome(tt.want, before+1)
		if answer := w.answer(100 * ms); answer != nil {
			t.Errorf("%s: was answered with %d bytes", name, len(answer))
		}
	}
	for _, r := range o.all() {
		if !isSilence(r) {
			t.Errorf("got %+v", r)
		}
	}
}

// TestHeartbeatWithoutKey holds that a slip in a key file is no verdict on members.
func TestHeartbeatWithoutKey(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	if err := os.Chmod(b.keys, 0o644); err != nil {
		t.Fatal(err)
	}
	known, unknown := b.watch("192.0.2.1"), b.watch("192.0.2.2")
	b.send("192.0.2.1", 50*ms)
	void := func(text string) func(Result) bool {
		return func(r Result) bool { return r.Void && strings.Contains(r.Reason, text) }
	}
	until(t, known, "void", void("has mode 0644"))
	if err := os.Chmod(b.keys, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, known, "ok", isOK)
	until(t, unknown, "void", void("holds no key for 192.0.2.2"))
	// A file that went bad leaves the keys as they are.
	if err := os.WriteFile(b.keys, []byte("192.0.2.1"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.awaitOutcome(beat.Accepted, b.engine.Stats().Beats.Outcomes[beat.Accepted]+60)
	known.forget()
	until(t, known, "ok", isOK)
	for _, r := range unknown.all() {
		if isSilence(r) {
			t.Errorf("got %+v", r)
		}
	}
}

func TestHeartbeatSocketTaken(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	other, err := net.ListenPacket("udp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := b.engine.Preflight(b.check); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("preflight: %v", err)
	}
	o := b.watch("192.0.2.1")
	until(t, o, "void", func(r Result) bool { return r.Void && strings.Contains(r.Reason, "address already in use") })
	_ = other.Close()
	b.send("192.0.2.1", 50*ms)
	until(t, o, "ok", isOK)
	for _, r := range o.all() {
		if isSilence(r) && strings.HasPrefix(r.Reason, "no heartbeat for") {
			t.Errorf("got %+v", r)
		}
	}
}

func TestHeartbeatPreflight(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	if err := b.engine.Preflight(b.check); err != nil {
		t.Error(err)
	}
	b.watch("192.0.2.1")
	b.send("192.0.2.1", 50*ms)
	until(t, b.watch("192.0.2.1"), "ok", isOK)
	if err := b.engine.Preflight(b.check); err != nil {
		t.Errorf("while the socket is open: %v", err)
	}
	missing := b.check
	missing.KeyFile = filepath.Join(t.TempDir(), "keys")
	var hint *upkeep.HintError
	if err := b.engine.Preflight(missing); !errors.As(err, &hint) || !strings.Contains(hint.Hint, "upkeep beat keygen") {
		t.Errorf("no key file: %v", err)
	}
	if err := newEngine(t, Options{}).Preflight(b.check); !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--beat") {
		t.Errorf("no address: %v", err)
	}
}

// TestHeartbeatSharedByChecks has one member in two pools with different checks,
// published at another address than it is asked at.
func TestHeartbeatSharedByChecks(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	fast := newObserver()
	b.specs[KeyOf("web.internal.test", b.check)] = Spec{Target: "web.internal.test", Name: "192.0.2.1", Check: b.check, Observe: fast.observe}
	b.check.Interval = every(200 * ms)
	slow := b.watch("192.0.2.1")
	stop := b.send("192.0.2.1", 50*ms)
	until(t, fast, "ok", isOK)
	until(t, slow, "ok", isOK)
	slow.forget()
	fast.forget()
	slow.wait(t, 10)
	if quick, calm := len(fast.all()), len(slow.all()); quick < 2*calm {
		t.Errorf("%d results at 50ms, %d at 200ms: successes are counted at the sender's pace", quick, calm)
	}
	// One of the two goes; the other stays.
	delete(b.specs, KeyOf("web.internal.test", upkeep.Check{Type: upkeep.CheckHeartbeat, KeyFile: b.keys, Interval: every(50 * ms)}))
	b.engine.Set(b.specs)
	fast.forget()
	stop()
	until(t, slow, "a goodbye", func(r Result) bool { return r.Goodbye })
	if got := fast.all(); len(got) != 0 {
		t.Errorf("results after Set took the check away: %v", got)
	}
}

func TestHeartbeatWarnings(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1")
	o := b.watch("192.0.2.1")
	first, second := b.wire(b.own["192.0.2.1"]), b.wire(b.own["192.0.2.1"])
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		first.greet()
		second.greet()
		all := o.all()
		return len(all) > 0 && strings.Contains(all[len(all)-1].Warning, "two senders"), "no warning of rivals"
	})

	slow := b.wire(b.own["192.0.2.1"])
	slow.session = beat.NewSession(b.own["192.0.2.1"], time.Second)
	slow.greet()
	until(t, o, "a warning of the pace", func(r Result) bool {
		return r.OK && strings.Contains(r.Warning, "beats every 1s, slower than the check's interval of 50ms")
	})
	until(t, o, "silence", func(r Result) bool {
		return isSilence(r) && strings.Contains(r.Reason, "its sender beats every 1s")
	})
}

// TestHeartbeatsThatWaitAreNotMissing blocks the receiver for many intervals: the
// beats that arrived meanwhile must all count before anything is called missing.
func TestHeartbeatsThatWaitAreNotMissing(t *testing.T) {
	b := newBeatBench(t, 50*ms, "192.0.2.1", "192.0.2.2")
	o := b.watch("192.0.2.1")
	b.send("192.0.2.1", 50*ms)
	b.send("192.0.2.2", 50*ms)
	until(t, o, "ok", isOK)

	blocked, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.specs[KeyOf("192.0.2.2", b.check)] = Spec{Target: "192.0.2.2", Name: "192.0.2.2", Check: b.check, Observe: func(r Result) Next {
		if r.OK {
			once.Do(func() {
				close(blocked)
				<-free
			})
		}
		return Next{}
	}}
	b.engine.Set(b.specs)
	select {
	case <-blocked:
	case <-time.After(20 * time.Second):
		t.Fatal("the second member was never heard")
	}
	o.forget()
	before := len(o.all())
	// Long enough for twenty beats to be sent.
	timer := time.NewTimer(time.Second)
	<-timer.C
	if got := len(o.all()); got != before {
		t.Fatalf("the receiver was not blocked: %d results", got)
	}
	close(free)
	o.wait(t, 20)
	for _, r := range o.all() {
		if isSilence(r) && !strings.Contains(r.Reason, "ms") {
			t.Errorf("got %+v", r)
		}
	}
	silent := 0
	for _, r := range o.all() {
		if isSilence(r) {
			silent++
		}
	}
	// The blocked second would have made twenty misses. One may come from the
	// sender itself being late on a busy machine.
	if silent > 3 {
		t.Errorf("%d beats were called missing though they had arrived: %v", silent, o.all())
	}
}

func TestBlindReceiverBlamesNobody(t *testing.T) {
	var got []Result
	l := &listener{results: &Tally{}, interval: 50 * ms, patience: 25 * ms, watched: watched{report: func(r Result) Next { got = append(got, r); return Next{} }}}
	l.heard(time.Second, beat.Heard{Interval: 50 * ms}, false)
	l.missed(time.Second+60*ms, true)
	l.missed(time.Second+110*ms, false)
	if len(got) != 3 || !got[0].OK || !got[1].Void || !isSilence(got[2]) {
		t.Errorf("got %+v", got)
	}
}

// TestLateBeatIsNoLoss: a beat that comes a little after it was called missing
// is told as what it is; one that comes much later is not.
func TestLateBeatIsNoLoss(t *testing.T) {
	var got []Result
	l := &listener{results: &Tally{}, interval: 100 * ms, patience: 50 * ms, watched: watched{report: func(r Result) Next { got = append(got, r); return Next{} }}}
	l.begin(0)
	now := time.Duration(0)
	hear := func(after time.Duration) Result {
		now += after
		for l.due <= now {
			l.missed(l.due, false)
		}
		l.heard(now, beat.Heard{Interval: 100 * ms}, false)
		return got[len(got)-1]
	}
	for range 1000 {
		hear(100 * ms)
	}
	misses := func() (n int) {
		for _, r := range got {
			if isSilence(r) {
				n++
			}
		}
		return n
	}
	if misses() != 0 {
		t.Fatalf("%d beats of a punctual member were missed", misses())
	}
	if r := hear(130 * ms); misses() != 1 || !r.OK || !r.Late {
		t.Errorf("30 ms late: %d missed, then %+v", misses(), r)
	}
	hear(70 * ms) // the next is in time again
	if r := hear(129 * ms); misses() != 1 || r.Late {
		t.Errorf("nearly as late again: %d missed, then %+v", misses(), r)
	}
	hear(71 * ms)
	if r := hear(170 * ms); misses() != 2 || !r.OK || r.Late {
		t.Errorf("later than the patience: %d missed, then %+v", misses(), r)
	}
}

// TestReceiverFromSeveralAddresses has the sender talk to an address that the
// kernel would not choose as the source of an answer.
func TestReceiverFromSeveralAddresses(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "[::]"} {
		b := newBeatBench(t, 50*ms, "192.0.2.1")
		port := testkit.FreePort(t)
		b.addr = fmt.Sprintf("%s:%d", host, port)
		o := b.watch("192.0.2.1")
		b.restart()
		b.addr = fmt.Sprintf("127.0.0.77:%d", port)
		stop := b.send("192.0.2.1", 50*ms)
		until(t, o, "ok by IPv4 at "+host, isOK)
		stop()
		if host == "[::]" {
			o.forget()
			b.addr = fmt.Sprintf("[::1]:%d", port)
			b.send("192.0.2.1", 50*ms)
			until(t, o, "ok by IPv6", isOK)
		}
	}
}
