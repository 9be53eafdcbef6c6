package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"upkeep"
	"upkeep/internal/link/authority"
	"upkeep/internal/testkit"
)

func TestJobsGoThereAndOutcomesComeBack(t *testing.T) {
	l := newLab(t)
	identity := l.join("web1")
	a := l.agent(identity)
	control, agent := take(t, l.connected, "the link").conn, take(t, a.links, "the link at the agent")
	job := testJob()
	job.Expires = time.Now().Add(time.Minute)
	body := signed(t, l.authority.SigningKey(), job)
	send(t, control, Message{Job: &body})
	got, err := Open(identity.SigningKey, identity.Server, time.Now(), *receive(t, agent).Job)
	if err != nil || got.ID != job.ID {
		t.Fatalf("got %+v, %v", got, err)
	}
	send(t, agent, Message{Outcome: &Outcome{ID: job.ID, State: upkeep.JobDone}})
	if m := receive(t, control); m.Outcome == nil || m.Outcome.ID != job.ID {
		t.Errorf("got %+v", m)
	}
}

// dialRaw connects with the certificate of an identity, whatever the link's rules.
func (l *lab) dialRaw(identity Identity, change func(*tls.Config, http.Header)) (*websocket.Conn, *http.Response, error) {
	config, header := identity.tlsConfig(time.Now), http.Header{instanceHeader: {"raw"}}
	if change != nil {
		change(config, header)
	}
	ctx, stop := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer stop()
	return websocket.Dial(ctx, l.url+linkPath, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}},
		HTTPHeader: header, Subprotocols: []string{subprotocol},
	})
}

// TestStolenCertificate has the thief of web2's key ask for web1's jobs in every
// way that a request has.
func TestStolenCertificate(t *testing.T) {
	l := newLab(t)
	web1, web2 := l.join("web1"), l.join("web2")
	real := l.agent(web1)
	take(t, real.links, "the link of web1")
	take(t, l.connected, "the link of web1 at control")
	ws, _, err := l.dialRaw(web2, func(c *tls.Config, h http.Header) {
		// web1's certificate is public; its key is not.
		c.Certificates[0].Certificate = append(c.Certificates[0].Certificate, web1.Certificate.Raw)
		for _, name := range []string{"Host", "Upkeep-Server", "X-Forwarded-For", "X-SSL-Client-S-DN"} {
			h.Set(name, authority.AgentName("web1"))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	hello := `{"hello":{"server":"web1","version":"","kinds":[],"facts":{"hostname":"web1","kinds":[]}}}`
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(hello)); err != nil {
		t.Fatal(err)
	}
	if c := take(t, l.connected, "the thief's link"); c.server != "web2" {
		t.Fatalf("the thief is connected as %s", c.server)
	}
	// Without the key, web1's certificate is nothing.
	_, _, err = l.dialRaw(web2, func(c *tls.Config, _ http.Header) {
		c.Certificates = []tls.Certificate{{Certificate: [][]byte{web1.Certificate.Raw}, PrivateKey: web2.Key, Leaf: web1.Certificate}}
	})
	if err == nil {
		t.Error("web1's certificate is taken with web2's key")
	}
	// And a job of web1 that the thief got hold of is refused by web2's agent.
	job := testJob()
	job.Expires = time.Now().Add(time.Minute)
	_, err = Open(web2.SigningKey, web2.Server, time.Now(), signed(t, l.authority.SigningKey(), job))
	says(t, err, upkeep.ErrRefused, "is for the server web1, and this is web2")
}

func TestRefusedCertificates(t *testing.T) {
	l := newLab(t)
	good := l.join("web1")
	strange := newLab(t)
	foreign := strange.join("web1")
	control := l.authority.Control()
	for name, test := range map[string]struct {
		change func(*tls.Config, http.Header)
		status int // of the answer; 0 when the handshake already fails
	}{
		"none":                 {func(c *tls.Config, _ http.Header) { c.Certificates = nil }, http.StatusUnauthorized},
		"another authority's":  {func(c *tls.Config, _ http.Header) { c.Certificates = foreign.tlsConfig(time.Now).Certificates }, 0},
		"control's own":        {func(c *tls.Config, _ http.Header) { c.Certificates = []tls.Certificate{*control} }, 0},
		"TLS 1.2":              {func(c *tls.Config, _ http.Header) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, 0},
		"no word of which run": {func(_ *tls.Config, h http.Header) { h.Del(instanceHeader) }, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			ws, response, err := l.dialRaw(good, func(c *tls.Config, h http.Header) {
				test.change(c, h)
				// Sent even where control asks for another authority's.
				if len(c.Certificates) > 0 {
					certificate := c.Certificates[0]
					c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
				}
			})
			if err == nil {
				ws.CloseNow()
				t.Fatal("a link is made")
			}
			status := 0
			if response != nil {
				status = response.StatusCode
			}
			if status != test.status {
				t.Errorf("status %d (%v), want %d", status, err, test.status)
			}
		})
	}
	select {
	case c := <-l.connected:
		t.Errorf("%s is connected", c.server)
	default:
	}
}

func TestAgentRefusesAnotherControl(t *testing.T) {
	l, other := newLab(t), newLab(t)
	identity := l.join("web1")
	identity.Control = other.url
	says(t, other.agent(identity).failure(), nil, "not the control that this server has joined")
	// Another server of the same authority is not control.
	web2 := l.join("web2")
	address, _ := impostor(t, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{web2.Certificate.Raw, web2.Authority.Raw}, PrivateKey: web2.Key}}})
	identity.Control = "https://" + address
	says(t, l.agent(identity).failure(), nil, "tls: failed to verify certificate")
	// Nor is who speaks an older TLS.
	address, _ = impostor(t, &tls.Config{Certificates: []tls.Certificate{*l.authority.Control()}, MaxVersion: tls.VersionTLS12})
	identity.Control = "https://" + address
	says(t, l.agent(identity).failure(), nil, "protocol version")
}

func TestExpiredCertificate(t *testing.T) {
	l := newLab(t)
	identity := l.join("web1")
	l.setClock(time.Until(identity.Certificate.NotAfter) + time.Hour)
	// The agent knows it by itself.
	says(t, l.agent(identity).failure(), upkeep.ErrRefused, "the certificate of this server has expired")
	// One whose clock stands still is told, or does not know control.
	ws, _, err := l.dialRaw(identity, nil)
	if err == nil {
		ws.CloseNow()
		t.Fatal("an expired certificate is taken")
	}
	says(t, explainDial(err), nil, "expired")
}

func TestExpiredWhileConnected(t *testing.T) {
	l := newLab(t)
	identity := l.join("web1")
	a := l.agent(identity)
	take(t, l.connected, "the link")
	conn := take(t, a.links, "the link at the agent")
	l.hub.check(t.Context())
	send(t, conn, cancel(1)) // it stands
	l.setClock(time.Until(identity.Certificate.NotAfter) + time.Minute)
	l.hub.check(t.Context())
	says(t, receiveErr(t, conn), ErrClosed, "does not take this certificate any more")
}

func TestRevokedWhileConnected(t *testing.T) {
	for name, tell := range map[string]func(*lab){
		"here":      func(l *lab) { l.hub.Drop("web1", "the server was removed") },
		"elsewhere": func(l *lab) { l.hub.check(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			a, other := l.agent(l.join("web1")), l.agent(l.join("web2"))
			take(t, l.connected, "a link")
			take(t, l.connected, "the other link")
			conn := take(t, a.links, "the link")
			if err := l.roster.Revoke(t.Context(), "web1"); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			tell(l)
			if err := receiveErr(t, conn); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %s", took)
			}
			says(t, a.failure(), upkeep.ErrRefused)
			if _, is := l.hub.Link("web2"); !is {
				t.Error("the other server lost its link, too")
			}
			ws, response, err := l.dialRaw(l.join("web3"), nil)
			if err != nil {
				t.Fatalf("%v, %v", response, err)
			}
			ws.CloseNow()
			take(t, other.links, "the other link at its agent")
		})
	}
}

// TestRevokedWhileConnecting takes the certificate off the list when the link is
// made but the agent has not said hello, and nobody calls Drop.
func TestRevokedWhileConnecting(t *testing.T) {
	l := newLab(t)
	ws, _, err := l.dialRaw(l.join("web1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := l.roster.Revoke(t.Context(), "web1"); err != nil {
		t.Fatal(err)
	}
	_ = ws.Write(t.Context(), websocket.MessageText, []byte(`{"hello":{"kinds":[],"facts":{"kinds":[]}}}`))
	for {
		if _, _, err = ws.Read(t.Context()); err != nil {
			break
		}
	}
	if websocket.CloseStatus(err) != codeRefused {
		t.Errorf("got %v", err)
	}
	select {
	case <-l.connected:
		t.Error("it is connected")
	default:
	}
}

func TestHostileAgents(t *testing.T) {
	l := newLab(t)
	neighbour := l.agent(l.join("web2"))
	c2 := take(t, l.connected, "the neighbour's link")
	identity := l.join("web1")
	const hello = `{"hello":{"kinds":[],"facts":{"kinds":[]}}}`
	for name, test := range map[string]struct {
		kind   websocket.MessageType
		frames []string
		ends   websocket.StatusCode
	}{
		"nothing":            {websocket.MessageText, nil, websocket.StatusPolicyViolation},
		"no hello":           {websocket.MessageText, []string{`{"cancel":{"id":1}}`}, websocket.StatusPolicyViolation},
		"beats only":         {websocket.MessageText, []string{`{"beat":{}}`, `{"beat":{}}`}, websocket.StatusPolicyViolation},
		"binary":             {websocket.MessageBinary, []string{hello}, websocket.StatusPolicyViolation},
		"no JSON":            {websocket.MessageText, []string{hello, "\x00\xff{"}, websocket.StatusPolicyViolation},
		"empty":              {websocket.MessageText, []string{hello, ""}, websocket.StatusPolicyViolation},
		"deep":               {websocket.MessageText, []string{hello, strings.Repeat(`{"hello":`, 100_000)}, websocket.StatusPolicyViolation},
		"two in one":         {websocket.MessageText, []string{hello, `{"hello":{},"cancel":{"id":1}}`}, websocket.StatusPolicyViolation},
		"too large":          {websocket.MessageText, []string{hello, `{"outcome":{"id":1,"state":"done","error":"` + strings.Repeat("x", maxReport)}, websocket.StatusMessageTooBig},
		"too large as hello": {websocket.MessageText, []string{strings.Repeat("x", maxReport+2)}, websocket.StatusMessageTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			ws, _, err := l.dialRaw(identity, func(_ *tls.Config, h http.Header) { h.Set(instanceHeader, name) })
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			for _, text := range test.frames {
				_ = ws.Write(t.Context(), test.kind, []byte(text)) // control may have had enough
			}
			for {
				if _, _, err = ws.Read(t.Context()); err != nil {
					break
				}
			}
			// What control says can be lost where it closes while more is on its way; and on a
			// slow machine a large message is late before it is too large.
			if got := websocket.CloseStatus(err); got != test.ends && got != -1 && got != websocket.StatusPolicyViolation {
				t.Errorf("ended with %v, want %v", err, test.ends)
			}
			testkit.Eventually(t, 30*time.Second, func() (bool, string) {
				_, is := l.hub.Link("web1")
				return !is, "the link stands"
			})
			for len(l.connected) > 0 {
				<-l.connected
			}
		})
	}
	send(t, c2.conn, cancel(1))
	if m := receive(t, take(t, neighbour.links, "the neighbour's link at its agent")); m.Cancel.ID != 1 {
		t.Errorf("the neighbour got %+v", m)
	}
}

func TestTwoAgentsWithOneCertificateDoNotFight(t *testing.T) {
	l := newLab(t)
	identity := l.join("web1")
	first := l.agent(identity)
	take(t, l.connected, "the first link")
	conn := take(t, first.links, "the first link at its agent")
	copied := l.agent(identity)
	says(t, copied.failure(), upkeep.ErrRefused, "another agent, at 127.0.0.1:")
	third := l.agent(identity)
	says(t, third.failure(), upkeep.ErrRefused, "another agent")
	select {
	case <-conn.(*wire).done:
		t.Errorf("the first one lost its link: %v", conn.(*wire).reason())
	default:
	}
	if n := l.reported("two agents use the certificate of web1"); n != 1 {
		t.Errorf("it was reported %d times: %q", n, l.reports)
	}
}

// proxy passes connections on until it is cut: then nothing goes through it any
// more, and nobody is told, as when a cable is pulled.
type proxy struct {
	address string
	mu      sync.Mutex
	cut     bool
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String()}
	var all sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); all.Wait() })
	pass := func(to, from net.Conn) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			p.mu.Lock()
			cut := p.cut
			p.mu.Unlock()
			if cut {
				<-t.Context().Done()
			}
			if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
				_, _ = to.Close(), from.Close()
				return
			}
		}
	}
	all.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp4", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			t.Cleanup(func() { _, _ = in.Close(), out.Close() })
			all.Go(func() { pass(in, out) })
			all.Go(func() { pass(out, in) })
		}
	})
	return p
}

func (p *proxy) pull() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
}

func TestPulledCable(t *testing.T) {
	l := newLab(t)
	p := newProxy(t, l.addr)
	identity := l.join("web1")
	behind := identity
	behind.Control = "https://" + p.address
	a := l.agent(behind)
	first := take(t, l.connected, "the first link")
	conn := take(t, a.links, "the first link at the agent")
	p.pull()
	// The machine starts anew: another run of the agent, while control believes that the
	// old link stands.
	began := time.Now()
	again := l.agent(identity)
	take(t, again.links, "the link of the new run")
	take(t, l.connected, "the new link")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	says(t, receiveErr(t, first.conn), ErrClosed)
	says(t, receiveErr(t, conn), ErrClosed, "nothing was heard of control")
}

func TestControlNoticesADeadAgent(t *testing.T) {
	l := newLab(t)
	p := newProxy(t, l.addr)
	identity := l.join("web1")
	identity.Control = "https://" + p.address
	l.agent(identity)
	c := take(t, l.connected, "the link")
	p.pull()
	says(t, receiveErr(t, c.conn), ErrClosed, "nothing was heard of the agent")
}

func TestControlStartsAnew(t *testing.T) {
	l := newLab(t)
	const agents = 5
	for n := range agents {
		l.agent(l.join(fmt.Sprintf("web%d", n)))
		take(t, l.connected, "a link")
	}
	l.stop()
	listener, err := net.Listen("tcp4", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	l.serve(listener)
	seen := map[string]bool{}
	for range agents {
		seen[take(t, l.connected, "a link after the new start").server] = true
	}
	if took := time.Since(began); len(seen) != agents || took > 5*time.Second {
		t.Errorf("%d of %d agents are back after %s", len(seen), agents, took)
	}
}

func TestControlWaitsForWhatIsDoneOnLinks(t *testing.T) {
	l := newLab(t)
	a := l.agent(l.join("web1"))
	c := take(t, l.connected, "the link")
	conn := take(t, a.links, "the link at the agent")
	l.stop()
	select {
	case <-c.returned:
	default:
		t.Error("control ended before what it does on the link")
	}
	says(t, receiveErr(t, conn), ErrClosed, "control is stopping")
}

func TestNobodyIsLetInWhileTheListIsAway(t *testing.T) {
	l := newLab(t)
	identity := l.join("web1")
	a := l.agent(identity)
	take(t, l.connected, "the link")
	take(t, a.links, "the link at the agent")
	token := l.invite("web2")
	waiting := l.join("web3")
	l.away.Store(true)
	l.hub.check(t.Context())
	if _, is := l.hub.Link("web1"); !is {
		t.Error("a link that stood is ended")
	}
	_, err := Join(t.Context(), l.options(token))
	says(t, err, nil, "cannot let a server join at the moment")
	if strings.Contains(err.Error(), errAway.Error()) {
		t.Errorf("a stranger is told what is wrong: %v", err)
	}
	says(t, l.agent(waiting).failure(), nil, "cannot read its list of certificates")
}

func TestCertificatesAreRenewedOverTheLink(t *testing.T) {
	l := newLab(t)
	identity := l.join("web1")
	a := l.agent(identity)
	take(t, l.connected, "the link")
	conn := take(t, a.links, "the link at the agent")
	select {
	case <-a.saved:
		t.Fatal("a new certificate is renewed")
	default:
	}
	due := time.Until(authority.RenewAt(identity.Certificate)) + time.Minute
	if left := time.Until(identity.Certificate.NotAfter) - due; left < 80*24*time.Hour {
		t.Errorf("renewed %s before the end, which is not long", left)
	}
	l.setClock(due)
	_ = conn.Close() // it looks at the clock at the next link
	renewed := take(t, a.saved, "the renewed identity")
	if err := renewed.Renews(identity); err != nil || renewed.Key.Equal(identity.Key) || !renewed.Certificate.NotAfter.After(identity.Certificate.NotAfter) {
		t.Errorf("renewed: %v", err)
	}
	folder := filepath.Join(t.TempDir(), "agent")
	if err := renewed.Write(folder); err != nil {
		t.Fatal(err)
	}
	// The link that stands goes on; the next one uses the new certificate, and then the
	// old one is of no use.
	_ = take(t, a.links, "the link over which it was renewed").Close()
	take(t, a.links, "the link with the new certificate")
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		list, err := l.roster.Certificates(t.Context())
		return err == nil && len(list) == 1 && list[0].Serial == authority.Serial(renewed.Certificate), fmt.Sprint(list)
	})
	a.stop()
	says(t, l.agent(identity).failure(), upkeep.ErrRefused, "does not take the certificate")
}

func TestRenewingIsNotForThoseWhoAskAllTheTime(t *testing.T) {
	l := newLab(t)
	identity := l.join("web1")
	answers := make(chan renewed, 10)
	ws, _, err := l.dialRaw(identity, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn := newWire(ws, false, testPace, func(e envelope) { answers <- *e.Renewed })
	conn.start()
	defer conn.Close()
	send(t, conn, Message{Hello: &Hello{}})
	_, request, err := newRequest()
	if err != nil {
		t.Fatal(err)
	}
	ask := func() renewed {
		t.Helper()
		if err := conn.sendAside(t.Context(), envelope{Renew: &renew{Request: request}}); err != nil {
			t.Fatal(err)
		}
		return take(t, answers, "an answer")
	}
	if answer := ask(); answer.Error != "" || len(answer.Certificate) == 0 {
		t.Errorf("the first: %+v", answer)
	}
	if answer := ask(); answer.Error == "" {
		t.Error("a second one is issued at once")
	}
}

func TestAttachedAgents(t *testing.T) {
	l := newLab(t)
	control, agent := Pipe()
	ended := make(chan error, 1)
	go func() { ended <- l.hub.Attach("local", control) }()
	send(t, agent, Message{Hello: &Hello{Version: "inside"}})
	c := take(t, l.connected, "the link")
	if c.server != "local" || c.hello.Version != "inside" {
		t.Errorf("connected: %+v", c)
	}
	// One that comes from outside does not take its place.
	says(t, l.agent(l.join("local")).failure(), upkeep.ErrRefused, "another agent, at this process")
	close(c.end)
	if err := take(t, ended, "the end"); err != nil {
		t.Error(err)
	}
	says(t, receiveErr(t, agent), ErrClosed)
}

func TestSlowStrangersAreShownTheDoor(t *testing.T) {
	l := newLab(t)
	silent, err := net.Dial("tcp4", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	token, err := authority.ParseToken(l.invite("web1"))
	if err != nil {
		t.Fatal(err)
	}
	half, err := tls.Dial("tcp4", l.addr, pinned(token, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	if _, err := half.Write([]byte("POST /join HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"without a word": silent, "in the middle of a request": half} {
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("%s: the connection stays", name)
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestTooManyStrangers(t *testing.T) {
	s := newStrangers(2)
	var ends []net.Conn
	for range 3 {
		near, far := net.Pipe()
		defer near.Close()
		ends = append(ends, far)
		s.note(near, http.StateNew)
	}
	if _, err := ends[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the oldest: %v, want it closed", err)
	}
	if s.order.Len() != 2 || len(s.known) != 2 {
		t.Errorf("%d and %d are known", s.order.Len(), len(s.known))
	}
	for conn := range s.known {
		s.note(conn, http.StateHijacked)
	}
	if s.order.Len() != 0 {
		t.Errorf("%d are known after they became links", s.order.Len())
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	failure, refused := errors.New("x"), fmt.Errorf("x: %w", upkeep.ErrRefused)
	between := func(what string, got, low, high time.Duration) {
		t.Helper()
		if got < low || got > high {
			t.Errorf("%s: waits %s, want %s to %s", what, got, low, high)
		}
	}
	between("the first", b.after(failure, 0), firstPause/2, firstPause)
	between("the second", b.after(failure, 0), firstPause, 2*firstPause)
	for range 100 {
		between("later", b.after(failure, 0), firstPause, longestPause)
	}
	between("the last", b.after(failure, 0), longestPause/2, longestPause)
	between("after a link that stood", b.after(failure, settled), firstPause/2, firstPause)
	between("refused", b.after(refused, 0), firstRefusedPause/2, firstRefusedPause)
	for range 100 {
		between("refused later", b.after(refused, 0), firstRefusedPause, longestRefused)
	}
	between("no longer refused", b.after(failure, 0), firstPause/2, firstPause)
}
