package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"upkeep"
	"upkeep/internal/link/authority"
)

// HubOptions is what a hub needs.
type HubOptions struct {
	Authority *authority.Authority
	Roster    Roster
	// Connected is called with each link, in a goroutine of its own, once the agent
	// has said hello. The link ends when it returns; it must return when the link
	// ends. For one server it is not called again before it has returned.
	Connected func(server string, hello Hello, conn Conn)
	// Report is told what an operator should see: who joined, who was refused, two
	// agents with one certificate. It is a sentence, and no more than a few an hour for
	// each cause.
	Report func(server, sentence string)
	Log    *slog.Logger
	Now    func() time.Time
}

// Hub is control's end of all links. It lets agents join and connect, and keeps one
// link for each server.
type Hub struct {
	HubOptions
	pace    pace
	patient time.Duration // with who should send a request, say hello, or prove to be alive
	joins   *attempts
	said    *attempts // what was reported lately

	mu      sync.Mutex
	links   map[string]*held
	closing bool
	running sync.WaitGroup
}

// held is a link that stands.
type held struct {
	server, serial string
	// instance tells one run of an agent from another.
	instance string
	from     string
	since    time.Time
	conn     ender
	gone     chan struct{} // Connected has returned
	renewed  time.Time     // the last certificate that was issued over it
}

// ender is a link that can be asked and told more than a Conn: the one on the
// network, and the one in memory.
type ender interface {
	Conn
	alive(context.Context) bool
	end(code websocket.StatusCode, why string)
}

// NewHub returns a hub that has no links yet.
func NewHub(options HubOptions) *Hub {
	return &Hub{
		HubOptions: options, pace: usualPace, patient: 10 * time.Second,
		joins: newAttempts(10, 10*time.Minute), said: newAttempts(1, 10*time.Minute),
		links: map[string]*held{},
	}
}

// TLSConfig is how the agents' listener must speak: TLS 1.3, with control's
// certificate, and taking only certificates of the authority. An agent that joins
// has none yet; every other request is refused without.
func (h *Hub) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return h.Authority.Control(), nil },
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      h.Authority.Pool(),
		NextProtos:     []string{"http/1.1"},
		Time:           h.Now,
		// A resumed session would carry an identity from before.
		SessionTicketsDisabled: true,
	}
}

// ServeHTTP answers agents: /join and /link.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case joinPath:
		h.join(w, r)
	case linkPath:
		h.connect(w, r)
	default:
		refuse(w, http.StatusNotFound, "this is where upkeep's agents connect; there is nothing else here")
	}
}

const (
	joinPath = "/join"
	linkPath = "/link"
	// instanceHeader carries a random word of each run of an agent.
	instanceHeader = "Upkeep-Instance"
)

// connect makes a link of a request that has a certificate that is taken.
func (h *Hub) connect(w http.ResponseWriter, r *http.Request) {
	certificate, server, err := peer(r)
	if err != nil {
		refuse(w, http.StatusUnauthorized, err.Error())
		return
	}
	instance := r.Header.Get(instanceHeader)
	if instance == "" || len(instance) > 64 {
		refuse(w, http.StatusBadRequest, "the agent does not say which run of it this is")
		return
	}
	serial := authority.Serial(certificate)
	if !h.admitted(w, r, server, serial) {
		return
	}
	link := &held{server: server, serial: serial, instance: instance, from: r.RemoteAddr, since: h.Now(), gone: make(chan struct{})}
	if other := h.rival(r.Context(), link); other != nil {
		h.report("two/"+server, server, fmt.Sprintf("two agents use the certificate of %s: one at %s is connected, another at %s was refused; if one of them is a copy, revoke the certificate and join again",
			server, other.from, link.from))
		refuse(w, http.StatusConflict, "another agent, at "+other.from+", is connected with the certificate of this server")
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}})
	if err != nil {
		h.Log.Debug("an agent did not connect", "server", server, "error", err)
		return
	}
	if ws.Subprotocol() != subprotocol {
		_ = ws.Close(websocket.StatusPolicyViolation, "control speaks "+subprotocol) // it is closed either way
		return
	}
	wire := newWire(ws, true, h.pace, nil)
	wire.aside = func(e envelope) { h.aside(link, wire, e) }
	link.conn = wire
	wire.start()
	// Not in this goroutine: it holds the buffers of the request.
	if before, taken := h.take(link); taken {
		go h.run(link, before)
	} else {
		wire.end(websocket.StatusServiceRestart, "control is stopping")
	}
}

// peer is who the certificate of a request says that it is. That the authority has
// issued it was found in the handshake.
func peer(r *http.Request) (*x509.Certificate, string, error) {
	if r.TLS == nil || r.TLS.Version < tls.VersionTLS13 || len(r.TLS.VerifiedChains) == 0 {
		return nil, "", errors.New("an agent connects with the certificate that it got when it joined")
	}
	certificate := r.TLS.PeerCertificates[0]
	server, err := authority.Server(certificate)
	return certificate, server, err
}

// admitted asks the roster, and answers the request if it says no.
func (h *Hub) admitted(w http.ResponseWriter, r *http.Request, server, serial string) bool {
	err := h.Roster.UseCertificate(r.Context(), server, serial)
	switch {
	case err == nil:
		return true
	case isAnswer(err):
		h.report("refused/"+server, server, fmt.Sprintf("an agent at %s was refused: its certificate for %s is not taken any more", r.RemoteAddr, server))
		refuse(w, http.StatusForbidden, "control does not take the certificate of "+server+" any more")
	default:
		h.Log.Error("the list of certificates cannot be read", "error", err)
		refuse(w, http.StatusServiceUnavailable, "control cannot read its list of certificates at the moment")
	}
	return false
}

func isAnswer(err error) bool {
	return errors.Is(err, upkeep.ErrRefused) || errors.Is(err, upkeep.ErrNotFound)
}

// rival is the link that stands in the way of a new one. A newer link replaces an
// older one, so that an agent whose machine or path died is back at once; but not
// one of another run of the agent with the same certificate that is alive: the
// two would throw each other out for ever. There, the first one stays.
func (h *Hub) rival(ctx context.Context, link *held) *held {
	h.mu.Lock()
	old := h.links[link.server]
	h.mu.Unlock()
	newer := old != nil && old.serial != "" && old.serial != link.serial // those before it are not taken any more
	if old == nil || old.instance == link.instance || newer {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, min(h.patient, 2*time.Second))
	defer stop()
	if !old.conn.alive(ctx) {
		return nil
	}
	return old
}

// take makes a link that of its server, and returns the one that it replaces. It
// refuses when the hub is closing.
func (h *Hub) take(link *held) (before *held, taken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return nil, false
	}
	before = h.links[link.server]
	h.links[link.server] = link
	h.running.Add(1)
	return before, true
}

// run is the life of a link.
func (h *Hub) run(link, before *held) {
	defer h.running.Done()
	defer h.release(link)
	if before != nil {
		before.conn.end(codeReplaced, "a newer link of this server has replaced this one")
		<-before.gone
	}
	ctx, stop := context.WithTimeout(context.Background(), h.patient)
	hello, err := h.greet(ctx, link)
	stop()
	if errors.Is(err, errHere) {
		h.Log.Debug("a link was closed before its agent said hello", "server", link.server)
		return
	}
	if err != nil {
		h.Log.Warn("an agent did not connect", "server", link.server, "from", link.from, "error", err)
		return
	}
	h.Log.Info("an agent is connected", "server", link.server, "from", link.from, "version", printable(hello.Version))
	h.Connected(link.server, hello, link.conn)
	h.Log.Info("an agent is disconnected", "server", link.server, "from", link.from)
}

func (h *Hub) greet(ctx context.Context, link *held) (Hello, error) {
	m, err := link.conn.Receive(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		link.conn.end(websocket.StatusPolicyViolation, "an agent says hello first")
		return Hello{}, fmt.Errorf("it said nothing within %s", h.patient)
	case err != nil:
		return Hello{}, err
	case m.Hello == nil:
		link.conn.end(websocket.StatusPolicyViolation, "an agent says hello first")
		return Hello{}, fmt.Errorf("it sent %s before its hello", m.name())
	}
	// Asked again now that the link can be found: a certificate that is taken off the
	// list from here on ends the link by [Hub.Drop].
	if link.serial == "" {
		return *m.Hello, nil
	}
	if err := h.Roster.UseCertificate(ctx, link.server, link.serial); err != nil {
		link.conn.end(codeRefused, "control does not take this certificate any more")
		return Hello{}, err
	}
	return *m.Hello, nil
}

func (h *Hub) release(link *held) {
	_ = link.conn.Close() // never fails
	h.mu.Lock()
	if h.links[link.server] == link {
		delete(h.links, link.server)
	}
	h.mu.Unlock()
	close(link.gone)
}

// Attach takes a link that was not made over the network, such as one side of a
// [Pipe], as that of a server, and returns when it has ended.
func (h *Hub) Attach(server string, conn Conn) error {
	link := &held{server: server, from: "this process", since: h.Now(), conn: attached{conn}, gone: make(chan struct{})}
	before, taken := h.take(link)
	if !taken {
		return fmt.Errorf("attaching the agent of %s: control is stopping", server)
	}
	h.run(link, before)
	return nil
}

// attached is a link inside this process.
type attached struct{ Conn }

func (attached) alive(context.Context) bool { return true }

func (a attached) end(websocket.StatusCode, string) { _ = a.Close() } // never fails

// Drop ends the link of a server, if there is one. It is to be called after a
// certificate was taken off the roster.
func (h *Hub) Drop(server, why string) {
	h.mu.Lock()
	link := h.links[server]
	h.mu.Unlock()
	if link != nil {
		h.Log.Info("the link of a server is ended", "server", server, "why", why)
		link.conn.end(codeRefused, why)
	}
}

// Standing is a link as people see it.
type Standing struct {
	Server string
	From   string // address of the agent
	Since  time.Time
}

// Link is the link of a server, if it stands.
func (h *Hub) Link(server string) (Standing, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	link, found := h.links[server]
	if !found {
		return Standing{}, false
	}
	return Standing{link.server, link.from, link.since}, true
}

// report tells the operator, but not the same again and again.
func (h *Hub) report(about, server, sentence string) {
	if h.said.blocked(about, h.Now()) {
		return
	}
	h.said.add(about, h.Now())
	h.tell(server, sentence)
}

func (h *Hub) tell(server, sentence string) {
	h.Log.Warn(sentence, "server", server)
	if h.Report != nil {
		h.Report(server, sentence)
	}
}

// refuse answers with a sentence, which the agent shows.
func refuse(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(sentence + "\n")) // who does not read it knows the status
}
