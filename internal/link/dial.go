package link

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"upkeep"
)

// State is what a dialer is doing.
type State struct {
	Connected bool
	Since     time.Time
	// Err is why it is not connected, nil at first.
	Err error
	// Next is when it tries again.
	Next time.Time
}

// Dialer keeps an agent connected to its control.
type Dialer struct {
	Identity Identity
	// Save keeps an identity with a new certificate, which is used once it is kept.
	Save func(Identity) error
	// State is told of every change; it must not wait. May be nil.
	State func(State)
	Log   *slog.Logger
	Now   func() time.Time

	pace pace // zero means the usual one
}

// How long a dialer waits after a failure: a little, then twice as long each time
// up to a bound, each time a random part of it, so that a thousand agents do not
// come at once. After a refusal, which does not go away by itself, it waits long
// from the start.
const (
	firstPause        = 100 * time.Millisecond
	longestPause      = 30 * time.Second
	firstRefusedPause = 15 * time.Second
	longestRefused    = 5 * time.Minute
	// settled is how long a link must have stood for the next failure to count as the
	// first.
	settled  = 10 * time.Second
	dialTime = 20 * time.Second
)

// Run connects, calls serve with the link, and connects again when serve has
// returned, until ctx ends. serve says hello first, and returns when the link has
// ended. What was under way when a link ended is asked for again by control;
// outcomes that did not get through are the agent's to repeat.
func (d *Dialer) Run(ctx context.Context, serve func(Conn)) {
	instance := rand.Text()
	var wait backoff
	for ctx.Err() == nil {
		began := d.Now()
		err := d.once(ctx, instance, serve)
		if ctx.Err() != nil {
			return
		}
		pause := wait.after(err, d.Now().Sub(began))
		d.Log.Warn("not connected to control", "control", d.Identity.Control, "error", err, "again_in", pause.Round(time.Millisecond))
		d.tell(State{Err: err, Since: d.Now(), Next: d.Now().Add(pause)})
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (d *Dialer) tell(s State) {
	if d.State != nil {
		d.State(s)
	}
}

// backoff is how long to wait.
type backoff struct {
	failures int
	refused  bool
}

func (b *backoff) after(err error, stood time.Duration) time.Duration {
	refused := errors.Is(err, upkeep.ErrRefused)
	if stood >= settled || refused != b.refused {
		b.failures = 0
	}
	b.refused = refused
	pause, most := firstPause, longestPause
	if refused {
		pause, most = firstRefusedPause, longestRefused
	}
	pause = min(pause<<min(b.failures, 20), most)
	b.failures++
	return pause/2 + mathrand.N(pause/2)
}

// once is one link from its beginning to its end. The error says why it ended.
func (d *Dialer) once(ctx context.Context, instance string, serve func(Conn)) error {
	if end := d.Identity.Certificate.NotAfter; d.Now().After(end) {
		return upkeep.WithHint(fmt.Errorf("%w: the certificate of this server has expired at %s", upkeep.ErrRefused, end.Format(time.RFC3339)), "join again with a new token")
	}
	ws, err := d.dial(ctx, instance)
	if err != nil {
		return err
	}
	pace := d.pace
	if pace.beat == 0 {
		pace = usualPace
	}
	answers := make(chan renewed, 1)
	conn := newWire(ws, false, pace, func(e envelope) {
		if e.Renewed == nil {
			return
		}
		select {
		case answers <- *e.Renewed:
		default: // nobody has asked
		}
	})
	conn.start()
	d.Log.Info("connected to control", "control", d.Identity.Control)
	d.tell(State{Connected: true, Since: d.Now()})
	var renewing sync.WaitGroup
	renewing.Go(func() { d.renew(conn, answers) })
	stop := context.AfterFunc(ctx, func() { conn.end(websocket.StatusGoingAway, "the agent is stopping") })
	serve(conn)
	stop()
	_ = conn.Close() // never fails
	renewing.Wait()
	if err := conn.reason(); conn.endCode() == codeRefused || conn.endCode() == codeReplaced {
		return fmt.Errorf("%w: %w", upkeep.ErrRefused, err)
	}
	return conn.reason()
}

func (d *Dialer) dial(ctx context.Context, instance string) (*websocket.Conn, error) {
	ctx, stop := context.WithTimeout(ctx, dialTime)
	defer stop()
	transport := &http.Transport{
		TLSClientConfig:        d.Identity.tlsConfig(d.Now),
		DialContext:            (&net.Dialer{Timeout: dialTime / 2}).DialContext,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	ws, response, err := websocket.Dial(ctx, d.Identity.Control+linkPath, &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: transport, CheckRedirect: noRedirect},
		HTTPHeader:   http.Header{instanceHeader: {instance}},
		Subprotocols: []string{subprotocol},
	})
	if err == nil && ws.Subprotocol() != subprotocol {
		_ = ws.CloseNow() // it is of no use
		return nil, errors.New("control speaks another version of the link than this agent; upgrade the older of the two")
	}
	if err == nil {
		return ws, nil
	}
	if response != nil && response.StatusCode != http.StatusSwitchingProtocols {
		text := make([]byte, 1024)
		n, _ := response.Body.Read(text) // what there is of it
		return nil, refusal(response.StatusCode, text[:n])
	}
	return nil, explainDial(err)
}

// renew waits until the certificate is due, and gets a new one over the link.
func (d *Dialer) renew(conn *wire, answers <-chan renewed) {
	for {
		wait := d.Identity.renewAt().Sub(d.Now())
		// Spread, so that servers that joined in one hour do not renew in one second.
		timer := time.NewTimer(max(wait, 0) + mathrand.N(conn.pace.renew))
		select {
		case <-timer.C:
		case <-conn.done:
			timer.Stop()
			return
		}
		if err := d.renewOnce(conn, answers); err != nil {
			d.Log.Error("the certificate of this server is not renewed", "expires", d.Identity.Certificate.NotAfter, "error", err)
		} else {
			d.Log.Info("the certificate of this server is renewed", "expires", d.Identity.Certificate.NotAfter)
		}
		timer = time.NewTimer(renewPause + mathrand.N(renewPause))
		select {
		case <-timer.C:
		case <-conn.done:
			timer.Stop()
			return
		}
	}
}

func (d *Dialer) renewOnce(conn *wire, answers <-chan renewed) error {
	key, request, err := newRequest()
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), dialTime)
	defer stop()
	if err := conn.sendAside(ctx, envelope{Renew: &renew{Request: request}}); err != nil {
		return err
	}
	var answer renewed
	select {
	case answer = <-answers:
	case <-conn.done:
		return conn.reason()
	case <-ctx.Done():
		return errors.New("control did not answer")
	}
	if answer.Error != "" {
		return fmt.Errorf("control says: %s", printable(answer.Error))
	}
	next := d.Identity
	next.Key = key
	if next.Certificate, err = x509.ParseCertificate(answer.Certificate); err != nil {
		return err
	}
	if err := next.Renews(d.Identity); err != nil {
		return err
	}
	if err := d.Save(next); err != nil {
		return err
	}
	d.Identity = next // used from the next link on; the one that stands goes on
	return nil
}
