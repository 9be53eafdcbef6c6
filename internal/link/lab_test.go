package link

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link/authority"
	"upkeep/internal/link/rostertest"
	"upkeep/internal/testkit"
)

// lab is a control that agents can reach over real sockets.
type lab struct {
	t         *testing.T
	hub       *Hub
	authority *authority.Authority
	roster    *rostertest.Memory
	url       string
	addr      string
	stop      func() // ends Serve and waits for it
	connected chan connection

	mu      sync.Mutex
	offset  time.Duration // of the clock
	reports []string

	away atomic.Bool // the list of certificates
}

// listed is the roster as the hub has it: away at times, as when the database is.
type listed struct {
	*rostertest.Memory
	away *atomic.Bool
}

var errAway = errors.New("the database is away")

func (r listed) UseCertificate(ctx context.Context, server, serial string) error {
	if r.away.Load() {
		return errAway
	}
	return r.Memory.UseCertificate(ctx, server, serial)
}

func (r listed) Certificates(ctx context.Context) ([]upkeep.Certificate, error) {
	if r.away.Load() {
		return nil, errAway
	}
	return r.Memory.Certificates(ctx)
}

func (r listed) Invitation(ctx context.Context, hash string) (upkeep.Invitation, error) {
	if r.away.Load() {
		return upkeep.Invitation{}, errAway
	}
	return r.Memory.Invitation(ctx, hash)
}

// connection is a call of Connected, which lasts until end is closed or the link
// ends.
type connection struct {
	server string
	hello  Hello
	conn   Conn
	end    chan struct{}
	// returned is closed when the call is over.
	returned chan struct{}
}

// testPace finds a dead side within a second.
var testPace = pace{beat: 50 * time.Millisecond, silent: time.Second, write: 10 * time.Second, renew: time.Millisecond}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, roster: rostertest.NewMemory(), connected: make(chan connection, 100)}
	var err error
	if l.authority, err = authority.Open(filepath.Join(t.TempDir(), "link"), l.now); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.addr = listener.Addr().String()
	l.url = "https://" + l.addr
	l.serve(listener)
	t.Cleanup(func() { l.stop() })
	return l
}

// serve starts a control with the keys and the list of the one before.
func (l *lab) serve(listener net.Listener) {
	l.hub = NewHub(HubOptions{
		Authority: l.authority, Roster: listed{l.roster, &l.away}, Connected: l.connect, Report: l.report, Now: l.now, Log: slog.New(slog.DiscardHandler),
	})
	l.hub.pace, l.hub.patient = testPace, time.Second
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- l.hub.Serve(ctx, listener) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			l.t.Errorf("serving agents ended with %v", err)
		}
	})
}

func (l *lab) now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.offset)
}

func (l *lab) setClock(offset time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offset = offset
}

func (l *lab) connect(server string, hello Hello, conn Conn) {
	c := connection{server, hello, conn, make(chan struct{}), make(chan struct{})}
	defer close(c.returned)
	l.connected <- c
	ended := make(chan struct{})
	if w, is := conn.(*wire); is {
		ended = w.done
	}
	select {
	case <-c.end:
	case <-ended:
	}
}

func (l *lab) report(_, sentence string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reports = append(l.reports, sentence)
}

func (l *lab) reported(what string) (found int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sentence := range l.reports {
		if strings.Contains(sentence, what) {
			found++
		}
	}
	return found
}

func (l *lab) invite(server string) string {
	l.t.Helper()
	token, invitation := l.authority.Invite(server, authority.TokenLife)
	if err := l.roster.Invite(l.t.Context(), invitation); err != nil {
		l.t.Fatal(err)
	}
	return token.Text()
}

func (l *lab) options(token string) JoinOptions {
	return JoinOptions{Control: l.url, Token: token, Folder: filepath.Join(l.t.TempDir(), "agent"), Now: l.now}
}

// join makes a server join.
func (l *lab) join(server string) Identity {
	l.t.Helper()
	identity, err := Join(l.t.Context(), l.options(l.invite(server)))
	if err != nil {
		l.t.Fatal(err)
	}
	return identity
}

// agent is a dialer that runs.
type agent struct {
	t      *testing.T
	links  chan Conn
	saved  chan Identity
	states chan State
	stop   func()
}

// agent starts one that says hello and then leaves its link to the test.
func (l *lab) agent(identity Identity) *agent {
	l.t.Helper()
	a := &agent{t: l.t, links: make(chan Conn, 100), saved: make(chan Identity, 10), states: make(chan State, 1000)}
	dialer := Dialer{
		Identity: identity, Now: l.now, Log: slog.New(slog.DiscardHandler), pace: testPace,
		Save:  func(i Identity) error { a.saved <- i; return nil },
		State: func(s State) { a.states <- s },
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		dialer.Run(ctx, func(conn Conn) {
			if err := conn.Send(ctx, Message{Hello: &Hello{Version: "test", Kinds: []string{"mkdir"}}}); err != nil {
				return
			}
			a.links <- conn
			<-conn.(*wire).done
		})
	}()
	a.stop = sync.OnceFunc(func() { cancel(); <-ended })
	l.t.Cleanup(a.stop)
	return a
}

func take[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(15 * time.Second):
		t.Fatalf("%s: not within 15 s", what)
		panic("not reached")
	}
}

// failure is the next reason for not being connected.
func (a *agent) failure() error {
	a.t.Helper()
	for {
		if s := take(a.t, a.states, "a failure"); !s.Connected {
			return s.Err
		}
	}
}

func says(t *testing.T, err error, kind error, words ...string) {
	t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) {
		t.Errorf("got %v, want an error that is %v", err, kind)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got %q, want it to say %q", err, word)
		}
	}
}

// nothingIn demands that no identity is in a folder.
func nothingIn(t *testing.T, folder string) {
	t.Helper()
	if _, err := ReadIdentity(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading the identity in the folder: %v, want none", err)
	}
}

func TestWire(t *testing.T) {
	l := newLab(t)
	conformance(t, func(t *testing.T) (Conn, Conn) {
		name := "s" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
		a := l.agent(l.join(name))
		t.Cleanup(a.stop)
		return take(t, l.connected, "the link at control").conn, take(t, a.links, "the link at the agent")
	})
}

func TestHelloGoesFirst(t *testing.T) {
	l := newLab(t)
	a := l.agent(l.join("web1"))
	c := take(t, l.connected, "the link")
	if c.server != "web1" || c.hello.Version != "test" || len(c.hello.Kinds) != 1 {
		t.Errorf("connected: %+v", c)
	}
	if standing, is := l.hub.Link("web1"); !is || !strings.HasPrefix(standing.From, "127.0.0.1:") {
		t.Errorf("standing: %+v, %v", standing, is)
	}
	a.stop()
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		_, is := l.hub.Link("web1")
		return !is, "the link stands"
	})
}
